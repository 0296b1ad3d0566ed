"""Deadlines of scopes: when they pass, what raises then, and what they cost.

Facts. A deadline is a time on the clock of the loop; it holds for every call and every child inside. It is noticed by the
loop, so it never comes early, and never while a fiber computes. Each fiber has one timer for all its scopes, which a scope
that is left in time leaves behind; so scopes that end in time leave the timers alone.
"""

from collections.abc import Callable
from typing import Any

import pytest
from support.scale import scaled
from support.virtual import VirtualClock, run_virtual

import fibers
from fibers import lowlevel
from fibers.core.scheduler import get_scheduler

FOREVER = float("inf")


def pending_timers() -> int:
    loop: Any = get_scheduler().loop
    return len(loop.timers)


def test_move_on_after_goes_on_behind_the_block() -> None:
    def main(clock: VirtualClock) -> None:
        with fibers.move_on_after(5) as scope:
            assert scope.deadline == clock() + 5
            fibers.sleep(60)
            pytest.fail("not reached")
        assert clock() == 1005
        assert scope.cancelled_caught

    run_virtual(main)


def test_timeout_raises_and_tells_how_long() -> None:
    def main(clock: VirtualClock) -> None:
        with pytest.raises(TimeoutError, match="not done within 5 seconds") as caught:
            with fibers.timeout(5) as scope:
                fibers.sleep(60)
        assert clock() == 1005
        assert scope.cancelled_caught
        assert isinstance(caught.value.__cause__, fibers.Cancelled)

    run_virtual(main)


def test_the_at_forms() -> None:
    def main(clock: VirtualClock) -> None:
        with fibers.move_on_at(clock() + 3) as scope:
            fibers.sleep(60)
        assert (clock(), scope.cancelled_caught) == (1003, True)
        with pytest.raises(TimeoutError, match="the deadline has passed"):
            with fibers.timeout_at(clock() + 3):
                fibers.sleep(60)
        assert clock() == 1006
        with fibers.CancelScope(deadline=clock() + 3) as scope:
            fibers.sleep(60)
        assert (clock(), scope.cancelled_caught) == (1009, True)

    run_virtual(main)


@pytest.mark.parametrize("make", [fibers.move_on_after, fibers.timeout, fibers.move_on_at, fibers.timeout_at])
@pytest.mark.parametrize("never", [None, FOREVER])
def test_none_and_infinity_are_never(make: Callable[[Any], fibers.CancelScope], never: float | None) -> None:
    def main(clock: VirtualClock) -> None:
        with make(never) as scope:
            assert scope.deadline == FOREVER
            assert fibers.current_deadline() == FOREVER
            fibers.yield_now()
            assert pending_timers() == 0

    run_virtual(main)


def test_a_deadline_of_an_instant_is_an_error_at_the_first_wait_only() -> None:
    steps = []
    for scope in (
        fibers.move_on_after(0),
        fibers.move_on_at(fibers.current_time()),
        fibers.move_on_at(-FOREVER),
        fibers.CancelScope(deadline=0),
    ):
        with scope:
            steps.append("ran")
            assert scope.cancel_called
            fibers.sleep(60)
            pytest.fail("not reached")
        assert scope.cancelled_caught
    with pytest.raises(TimeoutError, match="not done within 0 seconds"):
        with fibers.timeout(0):
            fibers.yield_now()
    assert steps == ["ran"] * 4


def test_a_passed_deadline_beside_an_earlier_alarm() -> None:
    """The fiber has a timer already, which has not fired yet: that must not hide a deadline that has passed at entry."""
    with fibers.move_on_after(0.000_001):
        with fibers.move_on_at(fibers.current_time()) as scope:
            with pytest.raises(fibers.Cancelled):
                lowlevel.park()
            assert scope.cancel_called


def test_timeout_does_not_hide_other_errors() -> None:
    def main(clock: VirtualClock) -> None:
        with pytest.raises(KeyError):
            with fibers.timeout(5):
                try:
                    fibers.sleep(60)
                finally:
                    raise KeyError("clean-up")
        with pytest.raises(TimeoutError, match="my own"):
            with fibers.timeout(5):
                raise TimeoutError("my own")

    run_virtual(main)


def test_a_timeout_that_is_cancelled_by_hand_moves_on() -> None:
    with fibers.timeout(60) as scope:
        scope.cancel()
        fibers.sleep(FOREVER)
    assert scope.cancelled_caught


def test_the_earliest_of_nested_deadlines_wins() -> None:
    def main(clock: VirtualClock) -> None:
        with fibers.move_on_after(10) as outer:
            with pytest.raises(TimeoutError):
                with fibers.timeout(5):
                    with fibers.move_on_after(7) as inner:
                        fibers.sleep(60)
            assert clock() == 1005
            with fibers.move_on_after(60) as late:
                fibers.sleep(120)
            pytest.fail("the outer deadline is earlier")
        assert clock() == 1010
        assert outer.cancelled_caught
        assert not inner.cancelled_caught
        assert not late.cancelled_caught

    run_virtual(main)


def test_equal_deadlines_the_outermost_catches() -> None:
    def main(clock: VirtualClock) -> None:
        at = clock() + 5
        with fibers.move_on_at(at) as outer:
            with pytest.raises(fibers.Cancelled):
                with fibers.timeout_at(at):
                    fibers.sleep(60)
            assert outer.cancel_called
            fibers.sleep(60)
        assert outer.cancelled_caught

    run_virtual(main)


def test_deadlines_go_on_level_triggered() -> None:
    def main(clock: VirtualClock) -> None:
        with fibers.move_on_after(5) as scope:
            for _ in range(3):
                with pytest.raises(fibers.Cancelled):
                    fibers.sleep(60)
                assert clock() == 1005
        assert not scope.cancelled_caught
        fibers.sleep(1)

    run_virtual(main)


def test_a_deadline_that_is_moved() -> None:
    def main(clock: VirtualClock) -> None:
        with fibers.move_on_after(5) as scope:
            scope.deadline += 5
            fibers.sleep(7)
            scope.deadline = clock() + 1
            fibers.sleep(60)
        assert clock() == 1008
        assert scope.cancelled_caught
        with fibers.CancelScope() as never:
            never.deadline = clock() + 1
            never.deadline = FOREVER
            fibers.sleep(60)
        assert not never.cancelled_caught

    run_virtual(main)


def test_a_deadline_that_another_fiber_moves() -> None:
    def main(clock: VirtualClock) -> None:
        def block() -> float:
            with scope:
                fibers.sleep(60)
            return clock()

        for later in (2, 20):
            scope = fibers.move_on_after(10)
            start = clock()
            fiber = fibers.spawn(block)
            fibers.yield_now()
            scope.deadline = start + later
            assert fiber.result() == start + later

    run_virtual(main)


def test_a_passed_deadline_stays_passed() -> None:
    def main(clock: VirtualClock) -> None:
        with fibers.move_on_after(5) as scope:
            with pytest.raises(fibers.Cancelled):
                fibers.sleep(60)
            scope.deadline = clock() + 60
            with pytest.raises(fibers.Cancelled):
                fibers.sleep(1)
            assert scope.cancel_called

    run_virtual(main)


def test_setting_a_deadline_in_the_past_cancels() -> None:
    with fibers.CancelScope() as scope:
        scope.deadline = fibers.current_time() - 1
        assert scope.cancel_called
        fibers.sleep(60)
    assert scope.cancelled_caught


def test_a_deadline_is_noticed_after_a_long_computation() -> None:
    def main(clock: VirtualClock) -> None:
        with fibers.move_on_after(5) as scope:
            clock.advance(6)
            assert scope.cancel_called
            fibers.sleep(60)
        assert clock() == 1006
        assert scope.cancelled_caught

    run_virtual(main)


def test_yielding_only_a_fiber_meets_its_deadline_soon() -> None:
    def main(clock: VirtualClock) -> None:
        with fibers.move_on_after(5) as scope:
            clock.advance(6)
            for _ in range(200):
                fibers.yield_now()
            pytest.fail("the loop makes a turn now and then")
        assert scope.cancelled_caught

    run_virtual(main)


def test_after_the_block_the_deadline_means_nothing() -> None:
    def main(clock: VirtualClock) -> None:
        with fibers.move_on_after(5) as scope:
            fibers.sleep(1)
        fibers.sleep(60)
        assert not scope.cancel_called
        assert not scope.cancelled_caught

    run_virtual(main)


def test_current_deadline_is_the_earliest_that_holds() -> None:
    def main(clock: VirtualClock) -> None:
        assert fibers.current_deadline() == FOREVER
        with fibers.move_on_after(10):
            assert fibers.current_deadline() == 1010
            with fibers.timeout(20):
                assert fibers.current_deadline() == 1010
                with fibers.move_on_after(3):
                    assert fibers.current_deadline() == 1003
            with fibers.shield():
                assert fibers.current_deadline() == FOREVER
                with fibers.move_on_after(60):
                    assert fibers.current_deadline() == 1060
            with fibers.CancelScope() as scope:
                scope.cancel(grace=4)
                assert fibers.current_deadline() == -FOREVER
                with fibers.shield():
                    assert fibers.current_deadline() == 1004
        with fibers.CancelScope() as scope:
            scope.cancel()
            with fibers.shield():
                assert fibers.current_deadline() == FOREVER

    run_virtual(main)


def test_children_inherit_deadlines() -> None:
    def main(clock: VirtualClock) -> None:
        ends: dict[str, float] = {}
        seen: list[float] = []

        def child(name: str) -> None:
            seen.append(fibers.current_deadline())
            try:
                fibers.sleep(60)
            finally:
                ends[name] = clock()

        def grandparent() -> None:
            with fibers.TaskGroup() as inner:
                inner.spawn(child, "grandchild")
                inner.deadline = clock() + 3
            ends["after the group"] = clock()
            fibers.sleep(60)

        with fibers.move_on_after(5) as scope:
            with fibers.TaskGroup() as group:
                group.spawn(child, "child")
                group.spawn(grandparent)
        assert ends == {"grandchild": 1003, "after the group": 1003, "child": 1005}
        assert seen == [1005, 1003]
        assert scope.cancelled_caught

    run_virtual(main)


def test_a_plain_spawn_inherits_none() -> None:
    def main(clock: VirtualClock) -> None:
        with fibers.move_on_after(5):
            fiber = fibers.spawn(fibers.current_deadline)
            assert fiber.result() == FOREVER
            sleeper = fibers.spawn(fibers.sleep, 60)
            fibers.sleep(30)
        sleeper.join()
        assert clock() == 1060

    run_virtual(main)


def test_graces_and_deadlines_of_children() -> None:
    """A shielded child is cut off when the grace of a scope far out is over."""

    def main(clock: VirtualClock) -> None:
        ends: dict[str, float] = {}

        def child() -> None:
            try:
                with fibers.shield():
                    fibers.sleep(60)
            finally:
                ends["child"] = clock()

        with fibers.CancelScope() as scope:
            with fibers.TaskGroup() as group:
                group.spawn(child)
                fibers.sleep(1)
                scope.cancel(grace=4)
        assert ends == {"child": 1005}
        assert scope.cancelled_caught

    run_virtual(main)


# -- timer economy --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda: fibers.timeout(30), lambda: fibers.timeout_at(fibers.current_time() + 30)])
def test_scopes_that_end_in_time_leave_the_timers_alone(make: Callable[[], fibers.CancelScope]) -> None:
    def body() -> tuple[int, int]:
        highest = 0
        before = pending_timers()
        for _ in range(2_000):
            with make():
                with make():
                    pass
            highest = max(highest, pending_timers() - before)
        return highest, pending_timers() - before

    def main(clock: VirtualClock) -> None:
        assert fibers.spawn(body).result() == (1, 1)  # the fiber's one alarm, left behind
        assert pending_timers() == 0  # which goes with the fiber

    run_virtual(main)


def test_a_million_scopes_leave_no_timer() -> None:
    """Over and over again for hours: the one alarm of the fiber is renewed, and never has company."""

    def main(clock: VirtualClock) -> None:
        loop: Any = get_scheduler().loop
        scheduled = 0
        schedule = loop.schedule

        def counting(deadline: float, target: Any) -> Any:
            nonlocal scheduled
            scheduled += 1
            return schedule(deadline, target)

        loop.schedule = counting
        try:
            rounds = scaled(1_000_000, least=200_000)
            for turn in range(rounds):
                with fibers.timeout(30):
                    if not turn % 1000:
                        clock.advance(1)
                        fibers.yield_now()
                        assert pending_timers() <= 1
        finally:
            loop.schedule = schedule
        assert pending_timers() <= 1
        assert scheduled <= rounds / 1_000 / 30 + 2

    run_virtual(main)


def test_shorter_deadlines_replace_the_alarm() -> None:
    def main(clock: VirtualClock) -> None:
        for seconds in range(100, 0, -1):
            with fibers.timeout(seconds):
                assert pending_timers() == 1
        assert pending_timers() == 1

    run_virtual(main)


def test_a_stale_alarm_wakes_nobody() -> None:
    def main(clock: VirtualClock) -> None:
        wakes = 0

        def waiter() -> None:
            nonlocal wakes
            with fibers.move_on_after(5):
                pass
            while True:
                lowlevel.park()
                wakes += 1

        fiber = fibers.spawn(waiter)
        fibers.sleep(60)
        assert wakes == 0
        assert fiber.alarm is None
        fiber.cancel()

    run_virtual(main)


def test_a_fibers_end_removes_its_alarm() -> None:
    def body() -> None:
        with fibers.timeout(3600):
            assert pending_timers() == 1

    def main(clock: VirtualClock) -> None:
        for _ in range(5):
            fibers.spawn(body).join()
            assert pending_timers() == 0

    run_virtual(main)
