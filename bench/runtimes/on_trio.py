"""trio: nurseries, its raw socket module for ping-pong, its streams for echo; a timeout is `fail_after`."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Any

import trio
import trio.socket

from bench import material, tls
from bench.runtimes import trio_sync
from bench.runtimes.blocking_style import Work, add, empty
from bench.runtimes.handoff import CAPACITIES, async_getter, async_putter
from bench.sample import Sample, Stopwatch


async def nothing() -> None:
    """The task that does nothing."""


async def spawn_join(n: int) -> Sample:
    """A nursery of a thousand tasks, many times."""
    watch = Stopwatch()
    for _ in range(n):
        async with trio.open_nursery() as nursery:
            for _ in range(material.SPAWN_BATCH):
                nursery.start_soon(nothing)
    return watch.stop(n * material.SPAWN_BATCH)


async def spawn_join_one(n: int) -> Sample:
    """A nursery of one task, many times: trio's way to wait for a single task."""
    watch = Stopwatch()
    for _ in range(n):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(nothing)
    return watch.stop(n)


async def yielder(n: int) -> None:
    """Give way `n` times."""
    checkpoint = trio.lowlevel.checkpoint
    for _ in range(n):
        await checkpoint()


async def yield_100(n: int) -> Sample:
    """All tasks give way in turn."""
    watch = Stopwatch()
    async with trio.open_nursery() as nursery:
        for _ in range(material.YIELD_TASKS):
            nursery.start_soon(yielder, n)
    return watch.stop(n * material.YIELD_TASKS)


async def send_all(sock: Any, data: bytes) -> None:
    """trio's sockets have no `sendall`; a message this small goes in one `send`."""
    if await sock.send(data) != len(data):
        raise RuntimeError("a small message was sent in part")


async def sender(sock: Any, count: int) -> None:
    """Send first, then wait for the answer."""
    message, size = material.MESSAGE, material.RECEIVE
    for _ in range(count):
        await send_all(sock, message)
        data = await sock.recv(size)
    if len(data) != len(message):
        raise RuntimeError(f"ping-pong got {len(data)} bytes")


async def answerer(sock: Any, count: int) -> None:
    """Wait for a message, then send it back."""
    size = material.RECEIVE
    for _ in range(count):
        await send_all(sock, await sock.recv(size))


async def timed_sender(sock: Any, count: int) -> None:
    """`sender` with a timeout around each `recv`."""
    message, size, timeout = material.MESSAGE, material.RECEIVE, material.TIMEOUT
    for _ in range(count):
        await send_all(sock, message)
        with trio.fail_after(timeout):
            await sock.recv(size)


async def timed_answerer(sock: Any, count: int) -> None:
    """`answerer` with a timeout around each `recv`."""
    size, timeout = material.RECEIVE, material.TIMEOUT
    for _ in range(count):
        with trio.fail_after(timeout):
            data = await sock.recv(size)
        await send_all(sock, data)


def pingpong(kind: str, count: int, timed: bool = False) -> Callable[[int], Awaitable[Sample]]:
    """Ping-pong over `count` pairs of `kind`."""
    play = (timed_answerer, timed_sender) if timed else (answerer, sender)

    async def work(n: int) -> Sample:
        adopt = trio.socket.from_stdlib_socket
        made = [(adopt(near), adopt(far)) for near, far in material.pairs(kind, count)]
        watch = Stopwatch()
        async with trio.open_nursery() as nursery:
            for near, far in made:
                nursery.start_soon(play[0], far, n)
                nursery.start_soon(play[1], near, n)
        sample = watch.stop(2 * n * count)
        material.close_all(end for pair in made for end in pair)
        return sample

    return work


async def timers_1e3(n: int) -> Sample:
    """Enter and leave a scope with a deadline, with 1,000 sleeping tasks."""
    delays = material.DELAYS
    async with trio.open_nursery() as nursery:
        for i in range(1_000):
            nursery.start_soon(trio.sleep, delays[i])
        await trio.sleep(0.01)
        watch = Stopwatch()
        for _ in range(n):
            for i in range(material.TIMER_TURN):
                with trio.move_on_after(delays[i]):
                    pass
            await trio.lowlevel.checkpoint()
        sample = watch.stop(n * material.TIMER_TURN)
        nursery.cancel_scope.cancel()
    return sample


async def group_100(n: int) -> Sample:
    """Nurseries of a hundred tasks that do nothing."""
    count = material.GROUP
    watch = Stopwatch()
    for _ in range(n):
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(nothing)
    return watch.stop(n)


async def timeout_scope(n: int) -> Sample:
    """Enter and leave a `fail_after`."""
    timeout, delays = trio.fail_after, material.DELAYS
    watch = Stopwatch()
    for _ in range(n):
        for i in range(material.TIMER_TURN):
            with timeout(delays[i]):
                pass
        await trio.lowlevel.checkpoint()
    return watch.stop(n * material.TIMER_TURN)


async def accept_500(n: int) -> Sample:
    """Accept bursts from a raw listening socket."""
    server = trio.socket.from_stdlib_socket(material.listener())
    burst = material.Burst(server.getsockname()[1])
    total = Sample(0.0, 0.0, 0.0, 0)
    for _ in range(n):
        burst.connect()
        watch = Stopwatch()
        accepted = [(await server.accept())[0] for _ in range(material.BURST)]
        total = add(total, watch.stop(material.BURST))
        burst.drop()
        material.close_all(accepted)
    burst.close()
    server.close()
    return total


def channel(capacity: int) -> Callable[[int], Awaitable[Sample]]:
    """One task sends, another receives."""

    async def work(n: int) -> Sample:
        near, far = trio.open_memory_channel(capacity)
        watch = Stopwatch()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(async_getter, far.receive, n)
            nursery.start_soon(async_putter, near.send, n)
        return watch.stop(n)

    return work


async def parked() -> None:
    """Say that it runs, and sleep."""
    material.started += 1
    await trio.sleep(3600.0)


async def memory_parked(n: int) -> Sample:
    """Tasks in `trio.sleep`."""
    material.started = 0
    async with trio.open_nursery() as nursery:
        await trio.sleep(0.001)
        before = material.resident_bytes()
        watch = Stopwatch()
        for _ in range(material.PARKED):
            nursery.start_soon(parked)
        while material.started < material.PARKED:
            await trio.lowlevel.checkpoint()
        sample = watch.stop(material.PARKED)
        grown = material.resident_bytes() - before
        nursery.cancel_scope.cancel()
    return sample._replace(bytes_per_operation=grown / material.PARKED)


async def echo_stream(stream: Any) -> None:
    """Serve one connection; a SocketStream sets TCP_NODELAY itself."""
    try:
        while data := await stream.receive_some(material.ECHO_RECEIVE):
            await stream.send_all(data)
    except trio.BrokenResourceError:
        return


async def tls_ends(server: Any, client: Any, near: socket.socket, far: socket.socket) -> tuple[Any, Any]:
    """Both ends of a TLS connection, the handshake made."""

    def stream(sock: socket.socket, context: Any, **how: Any) -> Any:
        return trio.SSLStream(trio.SocketStream(trio.socket.from_stdlib_socket(sock)), context, **how)

    ends = stream(near, client, server_hostname=tls.HOST), stream(far, server, server_side=True)
    async with trio.open_nursery() as nursery:
        for end in ends:
            nursery.start_soon(end.do_handshake)
    return ends


async def tls_receive(end: Any) -> bytes:
    """A whole message."""
    data: bytes = b""
    while len(data) < len(tls.MESSAGE):
        data += await end.receive_some(len(tls.MESSAGE) - len(data))
    return data


async def tls_sender(end: Any, count: int) -> None:
    """Send first, then wait for the answer."""
    for _ in range(count):
        await end.send_all(tls.MESSAGE)
        await tls_receive(end)


async def tls_answerer(end: Any, count: int) -> None:
    """Wait for a message, then send it back."""
    for _ in range(count):
        await end.send_all(await tls_receive(end))


async def tls_echo(n: int) -> Sample:
    """Messages of one record over several connections."""
    server, client = tls.server_context(), tls.client_context()
    made = [await tls_ends(server, client, *pair) for pair in material.pairs("tcp", tls.PAIRS)]
    watch = Stopwatch()
    async with trio.open_nursery() as nursery:
        for near, far in made:
            nursery.start_soon(tls_answerer, far, n)
            nursery.start_soon(tls_sender, near, n)
    sample = watch.stop(2 * n * tls.PAIRS)
    material.close_all(end.transport_stream.socket for pair in made for end in pair)
    return sample


async def tls_handshake(n: int) -> Sample:
    """Handshakes, one after the other."""
    server, client = tls.server_context(), tls.client_context()
    total = Sample(0.0, 0.0, 0.0, 0)
    for _ in range(n):
        pairs = material.pairs("tcp", tls.HANDSHAKES)
        watch = Stopwatch()
        made = [await tls_ends(server, client, *pair) for pair in pairs]
        total = add(total, watch.stop(tls.HANDSHAKES))
        material.close_all(end.transport_stream.socket for pair in made for end in pair)
    return total


def serve(server: socket.socket, ready: Callable[[], None]) -> None:
    """Echo with trio's own accept loop."""
    ready()

    async def main() -> None:
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(server))
        await trio.serve_listeners(echo_stream, [listener])

    trio.run(main)


def plain(work: Callable[[int], Awaitable[Sample]]) -> Work:
    """`work` as a plain function."""

    def inside(n: int) -> Sample:
        sample: Sample = trio.run(work, n)
        return sample

    return inside


async def caller(n: int) -> None:
    """Call the function that does nothing in a worker thread, `n` times."""
    call = trio.to_thread.run_sync
    for _ in range(n):
        await call(empty)


async def to_thread_1(n: int) -> Sample:
    """One caller."""
    watch = Stopwatch()
    await caller(n)
    return watch.stop(n)


async def to_thread_100(n: int) -> Sample:
    """Many at once."""
    watch = Stopwatch()
    async with trio.open_nursery() as nursery:
        for _ in range(material.CALLERS):
            nursery.start_soon(caller, n)
    return watch.stop(n * material.CALLERS)


WORKLOADS = {
    ("spawn_join", ""): plain(spawn_join),
    ("spawn_join_one", ""): plain(spawn_join_one),
    ("yield_100", ""): plain(yield_100),
    ("pingpong_unix_1", ""): plain(pingpong("unix", 1)),
    ("pingpong_unix_100", ""): plain(pingpong("unix", 100)),
    ("pingpong_tcp_1", ""): plain(pingpong("tcp", 1)),
    ("pingpong_tcp_100", ""): plain(pingpong("tcp", 100)),
    ("recv_plain", ""): plain(pingpong("tcp", 1)),
    ("recv_timeout", ""): plain(pingpong("tcp", 1, timed=True)),
    ("timers_1e3", ""): plain(timers_1e3),
    ("group_100", ""): plain(group_100),
    ("timeout_scope", ""): plain(timeout_scope),
    ("accept_500", ""): plain(accept_500),
    ("to_thread_1", ""): plain(to_thread_1),
    ("to_thread_100", ""): plain(to_thread_100),
    ("tls_echo", ""): plain(tls_echo),
    ("tls_handshake", ""): plain(tls_handshake),
    ("memory_parked", ""): plain(memory_parked),
    **{(f"channel_{capacity}", ""): plain(channel(capacity)) for capacity in CAPACITIES},
    **{key: plain(work) for key, work in trio_sync.WORKLOADS.items()},
}
ECHO = {"": serve}
