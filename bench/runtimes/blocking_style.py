"""Workloads for the runtimes in plain blocking style: fibers, gevent, eventlet, threads.

They differ in how a task is spawned and joined and in whose socket class is used; the work is the same
text. What differs is looked up once, before the stopwatch starts -> the shared text costs each of them the
same, nothing but a local name.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bench import material
from bench.sample import Sample, Stopwatch

Work = Callable[[int], Sample]


@dataclass(frozen=True, slots=True)
class Style:
    """How one runtime spells the same things. `sleep` takes seconds."""

    spawn: Callable[..., Any]
    join: Callable[[Any], Any]
    join_all: Callable[[Sequence[Any]], Any]
    adopt: Callable[[socket.socket], Any]
    sleep: Callable[[float], Any]
    yield_now: Callable[[], Any]


def empty() -> None:
    """The function that does nothing."""


def sender(sock: Any, count: int) -> None:
    """Send first, then wait for the answer, `count` times."""
    send, receive = sock.sendall, sock.recv
    message, size = material.MESSAGE, material.RECEIVE
    for _ in range(count):
        send(message)
        data = receive(size)
    if len(data) != len(message):
        raise RuntimeError(f"ping-pong got {len(data)} bytes")


def answerer(sock: Any, count: int) -> None:
    """Wait for a message, then send it back, `count` times."""
    send, receive = sock.sendall, sock.recv
    size = material.RECEIVE
    for _ in range(count):
        send(receive(size))


def yielder(yield_now: Callable[[], Any], count: int) -> None:
    """Give way `count` times."""
    for _ in range(count):
        yield_now()


def parked(sleep: Callable[[float], Any]) -> None:
    """Say that it runs, and sleep."""
    material.started += 1
    sleep(3600.0)


def workloads(style: Style) -> dict[tuple[str, str], Work]:
    """The workloads of one runtime, keyed as the table of runtimes keys them."""
    spawn, join, join_all, adopt = style.spawn, style.join, style.join_all, style.adopt

    def spawn_join(n: int) -> Sample:
        watch = Stopwatch()
        for _ in range(n):
            join_all([spawn(empty) for _ in range(material.SPAWN_BATCH)])
        return watch.stop(n * material.SPAWN_BATCH)

    def spawn_join_one(n: int) -> Sample:
        watch = Stopwatch()
        for _ in range(n):
            join(spawn(empty))
        return watch.stop(n)

    def yield_100(n: int) -> Sample:
        watch = Stopwatch()
        join_all([spawn(yielder, style.yield_now, n) for _ in range(material.YIELD_TASKS)])
        return watch.stop(n * material.YIELD_TASKS)

    def pingpong(kind: str, count: int, timeout: float | None = None) -> Work:
        def work(n: int) -> Sample:
            made = [(adopt(near), adopt(far)) for near, far in material.pairs(kind, count)]
            ends = [end for pair in made for end in pair]
            for end in ends:
                end.settimeout(timeout)
            watch = Stopwatch()
            tasks = []
            for near, far in made:
                tasks.append(spawn(answerer, far, n))
                tasks.append(spawn(sender, near, n))
            join_all(tasks)
            sample = watch.stop(2 * n * count)
            material.close_all(ends)
            return sample

        return work

    def accept_500(n: int) -> Sample:
        server = adopt(material.listener())
        burst = material.Burst(server.getsockname()[1])
        total = Sample(0.0, 0.0, 0.0, 0)
        for _ in range(n):
            burst.connect()
            watch = Stopwatch()
            accepted = [server.accept()[0] for _ in range(material.BURST)]
            total = add(total, watch.stop(material.BURST))
            burst.drop()
            material.close_all(accepted)
        burst.close()
        server.close()
        return total

    def memory_parked(n: int) -> Sample:
        material.started = 0
        join(spawn(style.sleep, 0.001))
        before = material.resident_bytes()
        watch = Stopwatch()
        tasks = [spawn(parked, style.sleep) for _ in range(material.PARKED)]
        while material.started < material.PARKED:
            style.yield_now()
        sample = watch.stop(len(tasks))
        grown = material.resident_bytes() - before
        return sample._replace(bytes_per_operation=grown / len(tasks))

    return {
        ("spawn_join", ""): spawn_join,
        ("spawn_join_one", ""): spawn_join_one,
        ("yield_100", ""): yield_100,
        ("pingpong_unix_1", ""): pingpong("unix", 1),
        ("pingpong_unix_100", ""): pingpong("unix", 100),
        ("pingpong_tcp_1", ""): pingpong("tcp", 1),
        ("pingpong_tcp_100", ""): pingpong("tcp", 100),
        ("recv_plain", ""): pingpong("tcp", 1),
        ("recv_timeout", ""): pingpong("tcp", 1, material.TIMEOUT),
        ("accept_500", ""): accept_500,
        ("memory_parked", ""): memory_parked,
    }


def caller(call: Callable[..., Any], count: int) -> None:
    """Call the function that does nothing in a worker thread, `count` times."""
    for _ in range(count):
        call(empty)


def thread_calls(style: Style, call: Callable[..., Any]) -> dict[tuple[str, str], Work]:
    """The workloads of a runtime that can call a function in a worker thread, by `call`."""

    def calls(callers: int) -> Work:
        def work(n: int) -> Sample:
            watch = Stopwatch()
            style.join_all([style.spawn(caller, call, n) for _ in range(callers)])
            return watch.stop(n * callers)

        return work

    return {("to_thread_1", ""): calls(1), ("to_thread_100", ""): calls(material.CALLERS)}


def add(one: Sample, other: Sample) -> Sample:
    """Two samples of the same work as one."""
    return Sample(
        one.user + other.user,
        one.system + other.system,
        one.wall + other.wall,
        one.operations + other.operations,
    )


def echo_connection(sock: Any) -> None:
    """Serve one connection until its end: the handler of every runtime in blocking style."""
    material.no_delay(sock)
    try:
        while data := sock.recv(material.ECHO_RECEIVE):
            sock.sendall(data)
    except ConnectionError:
        return
    finally:
        sock.close()


def serve_forever(server: Any, spawn: Callable[..., Any]) -> None:
    """Accept for ever, one task a connection."""
    while True:
        sock, _ = server.accept()
        spawn(echo_connection, sock)
