"""#16578, #15214, row "clock", invariant 9: an idle loop makes no turns, on every backend, whatever is done to the clock."""

import os
import time
from collections.abc import Callable
from typing import Any

import pytest
from support.waiting import wait

import fibers
from fibers.core.scheduler import get_scheduler
from fibers.io import socket
from fibers.threads.to_thread import to_thread

OnLoop = Callable[..., Any]


def test_16578_turns_and_cpu_during_an_idle_sleep_of_200_ms(on_loop: OnLoop) -> None:
    """#16578: a sign error made each kqueue timer 0 ns: sleeps were right, and the CPU burned."""

    def main() -> tuple[int, float, float]:
        stats = get_scheduler().loop.stats
        fibers.sleep(0.001)
        turns, started, cpu = stats.turns, time.monotonic(), time.thread_time()
        fibers.sleep(0.2)
        return stats.turns - turns, time.monotonic() - started, time.thread_time() - cpu

    turns, seconds, cpu = on_loop(main)
    assert turns < 5
    assert 0.2 <= seconds < 2
    assert cpu < 0.05


def test_16578_turns_during_an_idle_wait_for_a_socket(on_loop: OnLoop) -> None:
    def main() -> int:
        a, b = socket.socketpair()
        with a, b:
            stats = get_scheduler().loop.stats
            a.settimeout(0.1)
            turns = stats.turns
            with pytest.raises(TimeoutError):
                a.recv(1)
            return stats.turns - turns

    assert on_loop(main) < 5


@pytest.mark.parametrize("where", ["pipe", "pty", "unix socket"])
def test_15214_traffic_that_nobody_waits_for_does_not_turn_the_loop(on_loop: OnLoop, where: str) -> None:
    """#15214: the loop that first waited for a file burned CPU on edges of others' traffic."""

    def main() -> tuple[int, int]:
        if where == "unix socket":
            a, b = socket.socketpair()
            reader, writer = a.detach(), b.detach()
        else:
            reader, writer = os.pipe() if where == "pipe" else os.openpty()
        loop = get_scheduler().loop
        handle = loop.handle(writer, True)
        os.set_blocking(writer, False)
        try:
            while True:
                os.write(writer, b"x" * 1024)
        except BlockingIOError:
            pass
        waiter = wait(loop, handle.writing)  # it waited here once
        assert handle.writing.abandon(waiter)
        fibers.sleep(0)
        turns = loop.stats.turns
        to_thread(_traffic, reader, writer)
        taken = loop.stats.turns - turns
        turns = loop.stats.turns
        fibers.sleep(0.05)
        afterwards = loop.stats.turns - turns
        loop.release(handle, lambda: None)
        os.close(reader)
        os.close(writer)
        return taken, afterwards

    during, afterwards = on_loop(main)
    assert afterwards <= 4
    if where != "pty":  # a terminal tells its writer of room while it digests, at most once for each write
        assert during <= 12


def _traffic(reader: int, writer: int) -> None:
    os.set_blocking(reader, False)
    for _ in range(2000):
        try:
            os.write(writer, b"y" * 8)
        except BlockingIOError:
            continue


@pytest.mark.parametrize("frozen", [True, False], ids=["stopped", "jumping"])
def test_clock_patched(on_loop: OnLoop, monkeypatch: pytest.MonkeyPatch, frozen: bool) -> None:
    """Row "clock": patching `time.monotonic` and `time.time` must not stop a loop."""
    real = time.perf_counter
    now = time.monotonic()
    steps = iter(range(10**9))
    fake = (lambda: now) if frozen else (lambda: now + 10_000.0 * (next(steps) % 2))

    def main() -> float:
        started = real()
        fibers.sleep(0.03)
        a, b = socket.socketpair()
        with a, b:
            a.settimeout(0.03)
            with pytest.raises(TimeoutError):
                a.recv(1)
        return real() - started

    worker = fibers.spawn(on_loop, main)
    fibers.sleep(0)
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", fake)
        patch.setattr(time, "time", fake)
        seconds = worker.result(10)
    assert 0.06 <= seconds < 2


def test_hazard_16_far_and_infinite_sleeps_neither_overflow_nor_turn(on_loop: OnLoop) -> None:
    """Hazard 16: a wait over 2,147,483 s overflows the kernel's types; infinity makes no timer."""

    def main() -> tuple[int, int]:
        loop: Any = get_scheduler().loop
        for seconds in (2_147_484.0, 1e12, 1e300):
            fibers.spawn(fibers.sleep, seconds)
        fibers.yield_now()
        timers = len(loop.timers)
        fibers.spawn(fibers.sleep, float("inf"))
        fibers.yield_now()
        assert len(loop.timers) == timers
        turns = loop.stats.turns
        fibers.sleep(0.05)
        return loop.stats.turns - turns, timers

    turns, timers = on_loop(main)
    assert turns <= 4
    assert timers == 3
