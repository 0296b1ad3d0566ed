"""Timers and the deadlines of waits: never early, in order, cancelled for good; and data beat a deadline.

Nothing here sleeps to make time pass: the loops read a clock that is set forward.
"""

import math
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support.loops import Kind
from support.waiting import Target, Waiter, looks, wait, woken

from fibers.eventloop import FOREVER, TIMED_OUT, EventLoop


class SkippingClock:
    """The monotonic clock, and a way to skip time: `skipped += seconds`."""

    def __init__(self) -> None:
        self.skipped = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.skipped


@pytest.fixture
def clock() -> SkippingClock:
    return SkippingClock()


@pytest.fixture
def loop(loop_factory: Kind, clock: SkippingClock) -> Iterator[EventLoop]:
    made = loop_factory(clock)
    yield made
    made.close()


def test_a_timer_is_never_early(loop: EventLoop) -> None:
    """Neither by a rounding of the kernel's wait nor by one of ours."""
    for seconds in (0.0, 0.0001, 0.00101, 0.0025, 0.0199):
        done: list[float] = []
        deadline = loop.clock() + seconds
        loop.schedule(deadline, Target("done", [], lambda done=done: done.append(loop.clock())))  # type: ignore[misc]
        while not done:
            loop.turn(True)
        assert done[0] >= deadline
        assert loop.quiet()


def test_waiting_for_a_timer_is_one_turn_or_two(loop: EventLoop) -> None:
    order: list[Any] = []
    loop.schedule(loop.clock() + 0.05, Target("done", order))
    turns = loop.stats.turns
    while not order:
        loop.turn(True)
    assert loop.stats.turns - turns <= 4


def test_a_deadline_that_has_passed_expires_in_the_next_turn(loop: EventLoop) -> None:
    order: list[Any] = []
    for deadline in (loop.clock(), loop.clock() - 1, 0.0, -1e300):
        loop.schedule(deadline, Target(deadline, order))
    loop.turn(False)
    assert len(order) == 4
    assert order == sorted(order)


def test_timers_expire_in_the_order_of_their_deadlines(loop: EventLoop, clock: SkippingClock) -> None:
    order: list[Any] = []
    now = loop.clock() + 1
    for number in (5, 3, 9, 1, 7, 2, 8, 0, 6, 4):
        loop.schedule(now + number / 1e5, Target(number, order))
    loop.turn(False)
    assert order == []
    clock.skipped += 2
    loop.turn(False)
    assert order == list(range(10))


def test_equal_deadlines_expire_first_come_first_served(loop: EventLoop, clock: SkippingClock) -> None:
    order: list[Any] = []
    deadline = loop.clock() + 1
    for number in range(100):
        loop.schedule(deadline, Target(number, order))
    clock.skipped += 2
    loop.turn(False)
    assert order == list(range(100))


def test_an_unscheduled_timer_does_not_expire(loop: EventLoop, clock: SkippingClock) -> None:
    order: list[Any] = []
    timers = [loop.schedule(loop.clock() + 1, Target(number, order)) for number in range(3)]
    assert loop.unschedule(timers[1])
    assert not loop.unschedule(timers[1])
    clock.skipped += 2
    loop.turn(False)
    assert order == [0, 2]
    assert not any(loop.unschedule(timer) for timer in timers)
    assert loop.quiet()


def test_a_timer_unscheduled_by_another_that_is_due_with_it_does_not_expire(loop: EventLoop) -> None:
    order: list[Any] = []
    now = loop.clock()

    def stop() -> None:
        assert not loop.unschedule(second)

    loop.schedule(now, Target("first", order, stop))
    second = loop.schedule(now, Target("second", order))
    loop.schedule(now, Target("third", order))
    looks(loop)
    assert order == ["first", "third"]


def test_a_timer_made_by_another_expires_in_a_later_turn(loop: EventLoop) -> None:
    """Or a timer that makes itself anew with a passed deadline would never let a turn end."""
    order: list[Any] = []
    now = loop.clock()
    loop.schedule(now, Target("first", order, lambda: loop.schedule(now, Target("second", order))))
    loop.turn(False)
    assert order == ["first"]
    assert not loop.quiet()
    loop.turn(False)
    assert order == ["first", "second"]


def test_far_deadlines_neither_overflow_nor_turn(loop: EventLoop) -> None:
    order: list[Any] = []
    timers = [loop.schedule(loop.clock() + far, Target(far, order)) for far in (2_147_484.0, 1e6, 1e12, 1e300)]
    loop.schedule(loop.clock() + 0.02, Target("near", order))
    turns = loop.stats.turns
    while not order:
        loop.turn(True)
    assert order == ["near"]
    assert loop.stats.turns - turns <= 4
    assert [loop.unschedule(timer) for timer in timers] == [True] * 4
    assert loop.quiet()


@pytest.mark.parametrize("deadline", [FOREVER, -FOREVER, math.nan])
def test_a_deadline_that_is_no_time_is_refused(loop: EventLoop, deadline: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        loop.schedule(deadline, Target("never", []))
    assert loop.quiet()


# -- of waits -------------------------------------------------------------------------------------------------------


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    a, b = socket.socketpair()
    with a, b:
        yield a, b


def test_a_deadline_ends_a_wait_with_timed_out(loop: EventLoop, pair: Any) -> None:
    handle = loop.handle(pair[0].fileno(), True)
    deadline = loop.clock() + 0.005
    waiter = wait(loop, handle.reading, deadline)
    assert woken(loop) == [waiter]
    assert waiter.outcome is TIMED_OUT
    assert loop.clock() >= deadline
    assert handle.reading.waiter is None
    assert looks(loop) == []
    assert loop.quiet()
    loop.release(handle, lambda: None)
    assert loop.stats.registrations == loop.stats.unregistrations == 1


def test_the_timers_of_a_direction_go_with_it(loop: EventLoop, pair: Any) -> None:
    handle = loop.handle(pair[0].fileno(), True)
    wait(loop, handle.reading, loop.clock() + 30)
    assert not loop.quiet()
    loop.release(handle, lambda: None)
    assert loop.quiet()
    loop.ready.clear()


def test_an_earlier_deadline_moves_the_alarm(loop: EventLoop, pair: Any, clock: SkippingClock) -> None:
    """Hazard 10: 30 seconds followed by 1 must end after 1; and the alarm of a wait that has ended wakes nobody."""
    a, b = pair
    handle = loop.handle(a.fileno(), True)
    for seconds in (30, 1, 20):
        waiter = wait(loop, handle.reading, loop.clock() + seconds)
        b.send(b"x")
        assert woken(loop) == [waiter]
        a.recv(10)
    clock.skipped += 2
    assert looks(loop) == [], "the alarm of the second wait"
    waiter = wait(loop, handle.reading, loop.clock() + 1)
    clock.skipped += 2
    assert woken(loop) == [waiter]
    assert waiter.outcome is TIMED_OUT
    loop.release(handle, lambda: None)


def test_data_beat_a_deadline(loop: EventLoop, clock: SkippingClock) -> None:
    """Both are there before the turn. All files come before any timer, of whatever target."""
    pairs = [socket.socketpair() for _ in range(20)]
    handles = [loop.handle(a.fileno(), True) for a, _ in pairs]
    waiters = [wait(loop, handle.reading, loop.clock() + 1) for handle in handles]
    idle, far = socket.socketpair()
    quiet = loop.handle(idle.fileno(), True)
    late = wait(loop, quiet.reading, loop.clock() + 0.5)
    seen: list[int] = []
    loop.schedule(loop.clock(), Target("timer", [], lambda: seen.append(len(loop.ready))))
    for _, b in pairs:
        b.send(b"x")
    clock.skipped += 5
    loop.turn(False)
    assert [waiter.outcome for waiter in waiters] == [None] * 20
    assert seen == [20]
    assert late.outcome is TIMED_OUT
    assert set(loop.ready) == {*waiters, late}
    assert loop.ready[-1] is late
    assert looks(loop)[21:] == []
    for handle, (a, b) in zip([*handles, quiet], [*pairs, (idle, far)], strict=True):
        loop.release(handle, a.close)
        b.close()


def test_a_wait_without_a_deadline_makes_no_timer(loop: EventLoop, pair: Any) -> None:
    handle = loop.handle(pair[0].fileno(), True)
    waiter = Waiter()
    handle.reading.holder = handle.reading.waiter = waiter
    assert loop.watch(handle.reading, FOREVER)
    assert loop.quiet()
    loop.release(handle, lambda: None)
    loop.ready.clear()
