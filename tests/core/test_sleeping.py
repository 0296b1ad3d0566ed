"""`sleep`, `yield_now`, `current_time`: time as fibers see it.

Facts. Sleeping is never early, at any duration; equal deadlines wake in the order of sleeping; infinity makes no timer;
and a kernel wait takes no more than about 24 days, so that far deadlines must be cut into waits that it accepts
(hazard 16). The clock of a loop is an argument: far deadlines are tested on a clock that the test itself moves.
"""

import gc
import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.backends import lifetime_only
from support.scale import scaled

import fibers
from fibers.core.scheduler import get_scheduler
from fibers.eventloop import new_loop

BAD_DURATIONS: list[tuple[Any, type[Exception]]] = [
    (-1, ValueError),
    (-1e-300, ValueError),
    (float("nan"), ValueError),
    (float("-inf"), ValueError),
    ("1", TypeError),
    (b"1", TypeError),
    (None, TypeError),
    (1j, TypeError),
    ([], TypeError),
]


@pytest.mark.parametrize("seconds", [0.0001, 0.001, 0.0015, 0.01])
def test_never_early(seconds: float) -> None:
    """Hazard 16: `sleep(0.0001)` as well as the kernel wait allows, never early."""
    for _ in range(scaled(200, least=10)):
        before = time.monotonic()
        fibers.sleep(seconds)
        assert time.monotonic() - before >= seconds


def test_near_deadlines_are_not_rounded_to_something_long() -> None:
    """Hazard 16: a tick is where a timer is kept, not when it fires. The best of many is what the loop can do."""
    taken = []
    for _ in range(20):
        before = time.monotonic()
        fibers.sleep(0.0001)
        taken.append(time.monotonic() - before)
    assert min(taken) < 0.005


def test_equal_deadlines_wake_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row "ties": 100 sleeps to one deadline wake in the order in which they went to sleep."""
    order: list[int] = []
    loop = get_scheduler().loop
    now = loop.clock()

    def sleeper(number: int) -> None:
        fibers.sleep(0.01)
        order.append(number)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "clock", lambda: now)  # so that the deadlines are the same float
        every = [fibers.spawn(sleeper, number) for number in range(100)]
        fibers.yield_now()
    for fiber in every:
        fiber.join()
    assert order == list(range(100))


def test_different_deadlines_wake_in_their_order() -> None:
    order: list[float] = []

    def sleeper(seconds: float) -> None:
        fibers.sleep(seconds)
        order.append(seconds)

    durations = [0.02, 0.005, 0.015, 0.0101, 0.0102, 0.01]
    every = [fibers.spawn(sleeper, seconds) for seconds in durations]
    for fiber in every:
        fiber.join()
    assert order == sorted(durations)


@pytest.mark.parametrize("zero", [0, 0.0, -0.0, False])
def test_zero_lets_everybody_ready_run_once(zero: float) -> None:
    order: list[str] = []

    def other(name: str) -> None:
        order.append(name)
        fibers.sleep(zero)
        order.append(name)

    every = [fibers.spawn(other, name) for name in "abc"]
    fibers.sleep(zero)
    assert "".join(order) == "abc"
    for fiber in every:
        fiber.join()
    assert "".join(order) == "abcabc"


def test_yield_now_is_fair() -> None:
    order: list[str] = []

    def other(name: str) -> None:
        for _ in range(3):
            order.append(name)
            fibers.yield_now()

    every = [fibers.spawn(other, name) for name in "ab"]
    for fiber in every:
        fiber.join()
    assert "".join(order) == "ababab"


def test_a_lone_fiber_may_yield() -> None:
    for _ in range(1000):
        fibers.yield_now()


def test_infinity_makes_no_timer_and_ends_by_cancel() -> None:
    """Hazard 16: infinity makes no timer."""
    loop: Any = get_scheduler().loop
    before = len(loop.timers)
    fiber = fibers.spawn(fibers.sleep, float("inf"))
    fibers.yield_now()
    assert len(loop.timers) == before
    fiber.cancel()
    fiber.join()
    assert fiber.cancelled()


@lifetime_only
def test_a_cancelled_sleep_leaves_no_timer() -> None:
    loop: Any = get_scheduler().loop
    before = len(loop.timers)
    every = [fibers.spawn(fibers.sleep, 3600 + number) for number in range(100)]
    fibers.yield_now()
    assert len(loop.timers) == before + 100
    for fiber in every:
        fiber.cancel()
    for fiber in every:
        fiber.join()
    assert len(loop.timers) == before
    assert loop.timers.heap_size <= 2 * max(1, loop.timers.slots)


@pytest.mark.parametrize(("seconds", "error"), BAD_DURATIONS)
def test_sleep_refuses_what_is_no_duration(seconds: Any, error: type[Exception]) -> None:
    """Bad input: an immediate error that names the value; the fiber can go on."""
    with pytest.raises(error, match=re.escape(repr(seconds))):
        fibers.sleep(seconds)
    fibers.sleep(0.0001)


@pytest.mark.parametrize("far", [2_147_483.0, 2_147_484.0, 1e10, 1e300])
def test_far_deadlines_do_not_overflow_the_kernel_wait(far: float) -> None:
    """Hazard 16: waits are clamped. The only sleeper has a far deadline; another thread ends its wait."""

    def lonely() -> str:
        fiber = fibers.spawn(fibers.sleep, far)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(fiber.cancel)
            fiber.join()
        return type(fiber.exception()).__name__

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lonely).result() == "FiberCancelled"


def test_far_deadlines_fire_when_they_come() -> None:
    """Hazard 16: the clamp cuts a wait, not a deadline. On a clock that jumps to just before and just after."""
    now = [0.0]
    far = 2_200_000.0
    slept: list[float] = []

    def sleeper() -> None:
        fibers.sleep(far)
        slept.append(now[0])

    def program() -> None:
        fiber = fibers.spawn(sleeper)
        fibers.yield_now()
        now[0] = far - 0.5
        for _ in range(100):
            fibers.yield_now()
        assert slept == []
        now[0] = far
        fiber.join()

    def thread() -> None:
        fibers.run(program, loop=new_loop(clock=lambda: now[0]))

    with ThreadPoolExecutor(1) as pool:
        pool.submit(thread).result()
    assert slept == [far]


def test_current_time_is_the_clock_of_the_running_loop() -> None:
    """An explicit loop brings its clock, and every deadline is on it."""
    now = [1000.0]

    def thread() -> float:
        return fibers.run(fibers.current_time, loop=new_loop(clock=lambda: now[0]))

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(thread).result() == 1000.0
    before = time.monotonic()
    assert before <= fibers.current_time() <= time.monotonic()


def test_a_frozen_time_monotonic_does_not_stop_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row "clock": the clock was captured at import."""
    before = time.perf_counter()
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: 0.0)
        fibers.sleep(0.01)
    assert time.perf_counter() - before >= 0.01


def test_sleeping_makes_no_garbage_cycle_of_its_timer() -> None:
    """A timer and its fiber refer to each other; after the wait neither is kept by the other."""
    gc.collect()
    gc.disable()
    try:
        for _ in range(100):
            fibers.sleep(0.00001)
        assert gc.collect() < 50
    finally:
        gc.enable()
