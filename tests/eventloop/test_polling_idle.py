"""#16578, #15214, row "clock", invariant 9: an idle loop makes no turns, on every backend, whatever is done to the clock."""

import os
import time
from collections.abc import Callable
from typing import Any

import pytest
from support import fake_kqueue

import fibers
from fibers.eventloop import EventLoop, PollingLoop, available, new_loop
from fibers.eventloop.pollers.kqueue import KqueuePoller
from fibers.io import socket
from fibers.scheduler import get_scheduler
from fibers.threads import to_thread


def maker(name: str) -> Callable[[], EventLoop]:
    if name == "fake kqueue":
        return lambda: PollingLoop(lambda: KqueuePoller(fake_kqueue))  # type: ignore[arg-type]
    return lambda: new_loop(name)


NAMES = [name for name, reason in available().items() if reason is None and name != "libevent"]
LOOPS = {name: maker(name) for name in (NAMES if "kqueue" in NAMES else [*NAMES, "fake kqueue"])}
EVERY = pytest.mark.parametrize("make", LOOPS.values(), ids=LOOPS)


def on(make: Callable[[], EventLoop], fn: Callable[[], Any]) -> Any:
    """Run `fn` as main fiber of a thread with a loop of the wanted kind."""
    return to_thread(lambda: fibers.run(fn, loop=make()))


@EVERY
def test_16578_turns_during_an_idle_sleep_of_200_ms(make: Callable[[], EventLoop]) -> None:
    """#16578: a sign error made each kqueue timer 0 ns: sleeps were right, and the CPU burned."""

    def main() -> tuple[int, float]:
        stats = get_scheduler().loop.stats
        fibers.sleep(0.001)
        turns, started = stats.turns, time.monotonic()
        fibers.sleep(0.2)
        return stats.turns - turns, time.monotonic() - started

    turns, seconds = on(make, main)
    assert turns < 5
    assert 0.2 <= seconds < 2


@EVERY
def test_16578_turns_during_an_idle_wait_for_a_socket(make: Callable[[], EventLoop]) -> None:
    def main() -> int:
        a, b = socket.socketpair()
        with a, b:
            stats = get_scheduler().loop.stats
            a.settimeout(0.1)
            turns = stats.turns
            with pytest.raises(TimeoutError):
                a.recv(1)
            return stats.turns - turns

    assert on(make, main) < 5


@EVERY
def test_16578_cpu_during_an_idle_wait(make: Callable[[], EventLoop]) -> None:
    def main() -> float:
        started = time.thread_time()
        fibers.sleep(0.2)
        return time.thread_time() - started

    assert on(make, main) < 0.05


@EVERY
@pytest.mark.parametrize("where", ["pipe", "pty", "unix socket"])
def test_15214_traffic_that_nobody_waits_for_does_not_turn_the_loop(make: Callable[[], EventLoop], where: str) -> None:
    """#15214: the loop that first waited for a file burned CPU on edges of others' traffic."""

    def main() -> tuple[int, int]:
        if where == "unix socket":
            a, b = socket.socketpair()
            reader, writer = a.detach(), b.detach()
        else:
            reader, writer = os.pipe() if where == "pipe" else os.openpty()
        loop: Any = get_scheduler().loop
        handle = loop.handle(writer, True)
        os.set_blocking(writer, False)
        try:
            while True:
                os.write(writer, b"x" * 1024)
        except BlockingIOError:
            pass
        writing = handle.writing
        writing.drained = writing.edges
        assert loop.watch(writing, float("inf"))  # it waited here once
        writing.waiter = None
        if not loop._poller.edge_triggered:
            loop.unwatch(writing)
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

    during, afterwards = on(make, main)
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


@EVERY
@pytest.mark.parametrize("frozen", [True, False], ids=["stopped", "jumping"])
def test_clock_patched(make: Callable[[], EventLoop], monkeypatch: pytest.MonkeyPatch, frozen: bool) -> None:
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

    worker = fibers.spawn(on, make, main)
    fibers.sleep(0)
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", fake)
        patch.setattr(time, "time", fake)
        seconds = worker.result(10)
    assert 0.06 <= seconds < 2


@EVERY
def test_hazard_16_far_deadlines_neither_overflow_nor_turn(make: Callable[[], EventLoop]) -> None:
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

    turns, timers = on(make, main)
    assert turns <= 4
    assert timers == 3


@EVERY
def test_a_wake_from_another_thread_costs_one_turn_or_two(make: Callable[[], EventLoop]) -> None:
    def main() -> int:
        loop = get_scheduler().loop
        done: list[int] = []
        turns = loop.stats.turns
        to_thread(lambda: [loop.post(done.append, number) for number in range(1000)])
        fibers.sleep(0.01)
        assert done == list(range(1000))
        return loop.stats.turns - turns

    assert on(make, main) < 100
