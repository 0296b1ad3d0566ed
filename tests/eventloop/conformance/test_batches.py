"""Rows ">128 events" and #8480: all that is ready is dispatched before any deadline fires, however many there are.

Facts. One `epoll.poll()` returns at most 1,023 events here and one run of libevent 32 at first, so a loop that expired
timers after the first batch would time out waiters whose data is there. Hazard 18: tests of batching need 3,000 ready fds.
"""

import resource
import socket as std
import time
from collections.abc import Callable
from typing import Any

import pytest
from support.loops import Kind, loops
from support.waiting import Target, wait

import fibers
from fibers.eventloop import EventLoop
from fibers.io import socket


def all_get_their_data(on_loop: Callable[..., Any], count: int) -> int:
    """`count` fibers wait, all get data, all their deadlines pass before the next turn. How many got their data."""
    skipped = 0.0

    def clock() -> float:
        return time.monotonic() + skipped

    def main() -> int:
        nonlocal skipped
        pairs = [socket.socketpair() for _ in range(count)]
        errors: list[TimeoutError] = []

        def read(sock: socket.socket) -> bytes:
            try:
                return sock.recv(10)
            except TimeoutError as error:
                errors.append(error)
                return b""

        readers = []
        for a, _ in pairs:
            a.settimeout(1000)
            readers.append(fibers.spawn(read, a))
        sleeper = fibers.spawn(fibers.sleep, 1000)
        fibers.sleep(0.01)
        for _, b in pairs:
            b.send(b"x")
        skipped += 2000
        got = sum(reader.result(20) == b"x" for reader in readers)
        sleeper.result(20)
        assert len(errors) == count - got
        for a, b in pairs:
            a.close()
            b.close()
        return got

    found: int = on_loop(main, clock=clock)
    return found


def test_300_files_before_a_timer(loop: EventLoop) -> None:
    """The same bare: files and a deadline are due in one turn, and the deadline is last."""
    seen: list[int] = []
    pairs = [std.socketpair() for _ in range(300)]
    handles = [loop.handle(a.fileno(), True) for a, _ in pairs]
    for handle, (_, b) in zip(handles, pairs, strict=True):
        wait(loop, handle.reading)
        b.send(b"x")
    loop.schedule(loop.clock(), Target("timer", [], lambda: seen.append(len(loop.ready))))
    loop.turn(True)
    assert seen == [300]
    for handle, (a, b) in zip(handles, pairs, strict=True):
        loop.release(handle, a.close)
        b.close()
    loop.ready.clear()


def test_more_than_128_events_and_a_passed_deadline(loop_factory: Kind, on_loop: Callable[..., Any]) -> None:
    """Row ">128 events": fd 129 had data but its timer fired. 1,000 ready sockets; as many as it can where it cannot."""
    count = loop_factory.at_most(1000)
    assert all_get_their_data(on_loop, count) == count


@loops(
    lambda kind: kind.at_most(3000) == 3000 and not kind.checked,
    "those that can; one answer of the kernel is the point",
)
def test_3000_ready_fds_and_a_passed_deadline(on_loop: Callable[..., Any]) -> None:
    """Hazard 18: more than any one answer of the kernel holds."""
    count = 3000
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 2 * count + 200:
        pytest.skip(f"needs {2 * count + 200} file descriptors")
    assert all_get_their_data(on_loop, count) == count
