"""Workloads for asyncio, and for uvloop, which runs the same program on another loop.

* Sockets are used in the `sock_*` flavour, the counterpart of a blocking call; a Protocol with a hand-made
  future for each message would be another program. In the echo table, where a server may be written each
  way, all three ways stand.
* A timeout is `asyncio.wait_for`, a yield `asyncio.sleep(0)`: what users write.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from functools import partial

from bench import material
from bench.runtimes import tasks_sync
from bench.runtimes.blocking_style import Work, add, empty
from bench.runtimes.handoff import on_asyncio
from bench.sample import Sample, Stopwatch

NewLoop = Callable[[], asyncio.AbstractEventLoop]
AsyncWork = Callable[[int], Awaitable[Sample]]


async def nothing() -> None:
    """The coroutine that does nothing."""


async def spawn_join(n: int) -> Sample:
    """Tasks by the thousand, joined with `gather`."""
    create = asyncio.get_running_loop().create_task
    watch = Stopwatch()
    for _ in range(n):
        await asyncio.gather(*[create(nothing()) for _ in range(material.SPAWN_BATCH)])
    return watch.stop(n * material.SPAWN_BATCH)


async def spawn_join_one(n: int) -> Sample:
    """One task at a time."""
    create = asyncio.get_running_loop().create_task
    watch = Stopwatch()
    for _ in range(n):
        await create(nothing())
    return watch.stop(n)


async def yielder(n: int) -> None:
    """Give way `n` times."""
    sleep = asyncio.sleep
    for _ in range(n):
        await sleep(0)


async def yield_100(n: int) -> Sample:
    """All tasks give way in turn."""
    watch = Stopwatch()
    await asyncio.gather(*[yielder(n) for _ in range(material.YIELD_TASKS)])
    return watch.stop(n * material.YIELD_TASKS)


async def sender(sock: socket.socket, count: int) -> None:
    """Send first, then wait for the answer."""
    loop = asyncio.get_running_loop()
    send, receive = loop.sock_sendall, loop.sock_recv
    message, size = material.MESSAGE, material.RECEIVE
    for _ in range(count):
        await send(sock, message)
        data = await receive(sock, size)
    if len(data) != len(message):
        raise RuntimeError(f"ping-pong got {len(data)} bytes")


async def answerer(sock: socket.socket, count: int) -> None:
    """Wait for a message, then send it back."""
    loop = asyncio.get_running_loop()
    send, receive, size = loop.sock_sendall, loop.sock_recv, material.RECEIVE
    for _ in range(count):
        await send(sock, await receive(sock, size))


async def timed_sender(sock: socket.socket, count: int) -> None:
    """`sender` with a timeout around each `recv`."""
    loop = asyncio.get_running_loop()
    send, receive, wait_for = loop.sock_sendall, loop.sock_recv, asyncio.wait_for
    message, size, timeout = material.MESSAGE, material.RECEIVE, material.TIMEOUT
    for _ in range(count):
        await send(sock, message)
        await wait_for(receive(sock, size), timeout)


async def timed_answerer(sock: socket.socket, count: int) -> None:
    """`answerer` with a timeout around each `recv`."""
    loop = asyncio.get_running_loop()
    send, receive, wait_for = loop.sock_sendall, loop.sock_recv, asyncio.wait_for
    size, timeout = material.RECEIVE, material.TIMEOUT
    for _ in range(count):
        await send(sock, await wait_for(receive(sock, size), timeout))


def pingpong(kind: str, count: int, timed: bool = False) -> AsyncWork:
    """Ping-pong over `count` pairs of `kind`."""
    play = (timed_answerer, timed_sender) if timed else (answerer, sender)

    async def work(n: int) -> Sample:
        made = material.pairs(kind, count)
        ends = [end for pair in made for end in pair]
        for end in ends:
            end.setblocking(False)
        watch = Stopwatch()
        tasks = []
        for near, far in made:
            tasks.append(asyncio.create_task(play[0](far, n)))
            tasks.append(asyncio.create_task(play[1](near, n)))
        await asyncio.gather(*tasks)
        sample = watch.stop(2 * n * count)
        material.close_all(ends)
        return sample

    return work


def timers(pending: int) -> AsyncWork:
    """`call_later` and cancel, with `pending` others."""

    async def work(n: int) -> Sample:
        call_later, delays = asyncio.get_running_loop().call_later, material.DELAYS
        others = [call_later(delays[i & 4095], empty) for i in range(pending)]
        watch = Stopwatch()
        for _ in range(n):
            for i in range(material.TIMER_TURN):
                call_later(delays[i], empty).cancel()
            await asyncio.sleep(0)
        sample = watch.stop(n * material.TIMER_TURN)
        for timer in others:
            timer.cancel()
        return sample

    return work


async def group_100(n: int) -> Sample:
    """Groups of a hundred tasks that do nothing."""
    group_of, count = asyncio.TaskGroup, material.GROUP
    watch = Stopwatch()
    for _ in range(n):
        async with group_of() as group:
            for _ in range(count):
                group.create_task(nothing())
    return watch.stop(n)


async def timeout_scope(n: int) -> Sample:
    """Enter and leave an `asyncio.timeout`."""
    timeout, delays = asyncio.timeout, material.DELAYS
    watch = Stopwatch()
    for _ in range(n):
        for i in range(material.TIMER_TURN):
            async with timeout(delays[i]):
                pass
        await asyncio.sleep(0)
    return watch.stop(n * material.TIMER_TURN)


async def accept_sock(n: int) -> Sample:
    """Accept bursts with `sock_accept`."""
    server = material.listener()
    server.setblocking(False)
    burst = material.Burst(server.getsockname()[1])
    accept = asyncio.get_running_loop().sock_accept
    total = Sample(0.0, 0.0, 0.0, 0)
    for _ in range(n):
        burst.connect()
        watch = Stopwatch()
        accepted = [(await accept(server))[0] for _ in range(material.BURST)]
        total = add(total, watch.stop(material.BURST))
        burst.drop()
        material.close_all(accepted)
    burst.close()
    server.close()
    return total


class Counter(asyncio.Protocol):
    """Sets `done` at the last connection of a burst."""

    def __init__(self, made: list[asyncio.BaseTransport], done: asyncio.Event) -> None:
        self.made = made
        self.done = done

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """One more."""
        self.made.append(transport)
        if len(self.made) == material.BURST:
            self.done.set()


async def accept_protocol(n: int) -> Sample:
    """Accept bursts with `create_server`, transports and all."""
    loop = asyncio.get_running_loop()
    listener = material.listener()
    burst = material.Burst(listener.getsockname()[1])
    total = Sample(0.0, 0.0, 0.0, 0)
    for _ in range(n):
        made: list[asyncio.BaseTransport] = []
        done = asyncio.Event()
        # A server closes its socket in the end: each burst is served on a duplicate.
        server = await loop.create_server(
            partial(Counter, made, done),
            sock=listener.dup(),
            backlog=material.BACKLOG,
            start_serving=False,
        )
        burst.connect()
        watch = Stopwatch()
        await server.start_serving()
        await done.wait()
        total = add(total, watch.stop(material.BURST))
        burst.drop()
        for transport in made:
            transport.close()
        server.close()
        await server.wait_closed()
    burst.close()
    listener.close()
    return total


async def parked() -> None:
    """Say that it runs, and sleep."""
    material.started += 1
    await asyncio.sleep(3600.0)


async def memory_parked(n: int) -> Sample:
    """Tasks in `asyncio.sleep`."""
    material.started = 0
    await asyncio.create_task(asyncio.sleep(0.001))
    before = material.resident_bytes()
    watch = Stopwatch()
    tasks = [asyncio.create_task(parked()) for _ in range(material.PARKED)]
    while material.started < material.PARKED:
        await asyncio.sleep(0)
    sample = watch.stop(len(tasks))
    grown = material.resident_bytes() - before
    for task in tasks:
        task.cancel()
    return sample._replace(bytes_per_operation=grown / len(tasks))


async def caller(n: int) -> None:
    """Call the function that does nothing in a worker thread, `n` times."""
    call = asyncio.to_thread
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
    await asyncio.gather(*[caller(n) for _ in range(material.CALLERS)])
    return watch.stop(n * material.CALLERS)


ASYNC_WORKLOADS: dict[tuple[str, str], AsyncWork] = {
    ("spawn_join", ""): spawn_join,
    ("spawn_join_one", ""): spawn_join_one,
    ("yield_100", ""): yield_100,
    ("pingpong_unix_1", "sock"): pingpong("unix", 1),
    ("pingpong_unix_100", "sock"): pingpong("unix", 100),
    ("pingpong_tcp_1", "sock"): pingpong("tcp", 1),
    ("pingpong_tcp_100", "sock"): pingpong("tcp", 100),
    ("recv_plain", "sock"): pingpong("tcp", 1),
    ("recv_timeout", "sock"): pingpong("tcp", 1, timed=True),
    ("timers_1e3", ""): timers(1_000),
    ("timers_1e6", ""): timers(1_000_000),
    ("group_100", ""): group_100,
    ("timeout_scope", ""): timeout_scope,
    ("accept_500", "sock"): accept_sock,
    ("accept_500", "protocol"): accept_protocol,
    ("to_thread_1", ""): to_thread_1,
    ("to_thread_100", ""): to_thread_100,
    ("memory_parked", ""): memory_parked,
    ("channel_1", ""): on_asyncio(1),
    ("channel_100", ""): on_asyncio(100),
    **tasks_sync.WORKLOADS,
}


def workloads(new_loop: NewLoop) -> dict[tuple[str, str], Work]:
    """The workloads as plain functions, each running a loop of its own."""

    def run(work: AsyncWork) -> Work:
        async def main(n: int) -> Sample:
            return await work(n)

        def inside(n: int) -> Sample:
            with asyncio.Runner(loop_factory=new_loop) as runner:
                return runner.run(main(n))

        return inside

    return {key: run(work) for key, work in ASYNC_WORKLOADS.items()}
