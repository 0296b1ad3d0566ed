"""Cancel scopes: who is cancelled, who catches it, and for how long.

Facts. A cancelled scope makes every blocking call inside raise Cancelled, again and again, until it is left; a call that
need not wait is not disturbed. The outermost cancelled scope that is felt catches. A shield keeps out what comes from
further out, until its end or the end of the grace.
"""

from collections.abc import Callable
from typing import Any

import pytest

import fibers
from fibers import lowlevel

FOREVER = float("inf")


def cancelled_here() -> bool:
    """Does a blocking call raise Cancelled at this place? (Without waiting for long.)"""
    try:
        fibers.yield_now()
    except fibers.Cancelled:
        return True
    return False


def test_a_scope_that_nobody_cancels_changes_nothing() -> None:
    with fibers.CancelScope() as scope:
        assert not cancelled_here()
    assert not scope.cancel_called
    assert not scope.cancelled_caught
    assert scope.deadline == FOREVER


def test_cancel_ends_the_block_at_its_next_blocking_call() -> None:
    steps = []
    with fibers.CancelScope() as scope:
        steps.append("in")
        scope.cancel()
        steps.append("still in")
        fibers.sleep(FOREVER)
        steps.append("not reached")
    steps.append("out")
    assert steps == ["in", "still in", "out"]
    assert scope.cancel_called
    assert scope.cancelled_caught
    assert not cancelled_here()


def test_a_block_that_ends_before_it_waits_was_not_cut_short() -> None:
    with fibers.CancelScope() as scope:
        scope.cancel()
    assert scope.cancel_called
    assert not scope.cancelled_caught
    assert not cancelled_here()


def test_a_fiber_that_waits_in_the_block_is_woken() -> None:
    scope = fibers.CancelScope()

    def block() -> str:
        with scope:
            fibers.sleep(FOREVER)
        return "went on"

    fiber = fibers.spawn(block)
    fibers.yield_now()
    scope.cancel()
    assert fiber.result(5) == "went on"
    assert scope.cancelled_caught


def test_level_triggered_until_the_scope_is_left() -> None:
    with fibers.CancelScope() as scope:
        scope.cancel()
        assert [cancelled_here() for _ in range(5)] == [True] * 5
        with pytest.raises(fibers.Cancelled):
            fibers.sleep(1)
        with pytest.raises(fibers.Cancelled):
            lowlevel.park()
        with pytest.raises(fibers.Cancelled):
            fibers.spawn(int).join()
    assert not scope.cancelled_caught  # every one was caught inside
    assert not cancelled_here()


def test_a_stubborn_fiber_lets_others_run() -> None:
    """It catches Cancelled in a loop; each time others have had a turn before it raises."""
    ran: list[int] = []
    with fibers.CancelScope() as scope:
        scope.cancel()
        for number in range(3):
            fibers.spawn(ran.append, number)
            with pytest.raises(fibers.Cancelled):
                fibers.sleep(FOREVER)
            assert ran == list(range(number + 1))


def test_calls_that_need_not_wait_are_not_disturbed() -> None:
    done = fibers.spawn(lambda: 7)
    done.join()
    with fibers.CancelScope() as scope:
        scope.cancel()
        assert done.result() == 7
        done.join()
        other = fibers.spawn(int)
        other.cancel()
        assert other.done()


def test_an_error_of_the_block_passes_and_is_not_replaced() -> None:
    with pytest.raises(KeyError):
        with fibers.CancelScope() as scope:
            scope.cancel()
            raise KeyError("mine")
    assert not scope.cancelled_caught
    with pytest.raises(KeyError) as caught:
        with fibers.CancelScope() as scope:
            scope.cancel()
            try:
                fibers.sleep(1)
            finally:
                raise KeyError("clean-up")
    assert isinstance(caught.value.__context__, fibers.Cancelled)
    assert not scope.cancelled_caught


def test_cancelled_is_not_caught_where_no_scope_is_cancelled() -> None:
    with pytest.raises(fibers.Cancelled):
        with fibers.CancelScope():
            with fibers.move_on_after(60):
                raise fibers.Cancelled("by hand")


def test_cancelled_by_hand_in_a_cancelled_scope_is_its_own() -> None:
    with fibers.CancelScope() as scope:
        scope.cancel()
        raise fibers.Cancelled("by hand")
    assert scope.cancelled_caught


def test_before_it_is_entered() -> None:
    scope = fibers.CancelScope()
    scope.cancel()
    assert scope.cancel_called
    with scope:
        assert cancelled_here()
        fibers.sleep(FOREVER)
    assert scope.cancelled_caught


def test_after_it_has_been_left_nothing_changes() -> None:
    with fibers.move_on_after(0.001) as scope:
        pass
    scope.cancel()
    scope.cancel(grace=1)
    fibers.sleep(0.005)
    assert not scope.cancel_called
    assert not scope.cancelled_caught
    scope.deadline = fibers.current_time() - 1
    scope.shield = True
    assert not scope.cancel_called
    assert not cancelled_here()


def test_cancel_twice() -> None:
    with fibers.CancelScope() as scope:
        scope.cancel()
        scope.cancel()
        fibers.sleep(FOREVER)
    assert scope.cancelled_caught


@pytest.mark.parametrize("which", range(4))
def test_nested_scopes_the_cancelled_one_catches(which: int) -> None:
    """Those inside it are left by Cancelled, those outside go on."""
    scopes = [fibers.CancelScope() for _ in range(4)]
    reached: list[int] = []

    def enter(number: int) -> None:
        if number == 4:
            scopes[which].cancel()
            fibers.sleep(FOREVER)
            return
        with scopes[number]:
            enter(number + 1)
            reached.append(number)

    enter(0)
    assert [scope.cancelled_caught for scope in scopes] == [number == which for number in range(4)]
    assert reached == list(range(which))[::-1]


def test_if_several_are_cancelled_the_outermost_catches() -> None:
    with fibers.CancelScope() as outer:
        with fibers.CancelScope() as middle:
            with fibers.CancelScope() as inner:
                inner.cancel()
                outer.cancel()
                fibers.sleep(FOREVER)
            pytest.fail("the inner one has caught what the outer one is for")
        pytest.fail("nor may the middle one")
    assert (outer.cancelled_caught, middle.cancelled_caught, inner.cancelled_caught) == (True, False, False)
    assert (outer.cancel_called, middle.cancel_called, inner.cancel_called) == (True, False, True)


def test_an_outer_one_cancelled_while_the_inner_one_unwinds() -> None:
    with fibers.CancelScope() as outer:
        with fibers.CancelScope() as inner:
            inner.cancel()
            try:
                fibers.sleep(FOREVER)
            finally:
                outer.cancel()
        pytest.fail("the outer one is cancelled by now")
    assert outer.cancelled_caught
    assert not inner.cancelled_caught


def test_fiber_cancel_is_a_scope_around_the_whole_fiber() -> None:
    inside = fibers.CancelScope()

    def body() -> None:
        with inside:
            inside.cancel()
            fibers.current().cancel()
            fibers.sleep(FOREVER)

    fiber = fibers.spawn(body)
    fiber.join(5)
    assert fiber.cancelled()
    assert not inside.cancelled_caught


def test_a_fiber_that_is_spawned_in_a_scope_is_not_inside_of_it() -> None:
    with fibers.CancelScope() as scope:
        fiber = fibers.spawn(fibers.sleep, FOREVER)
        fibers.yield_now()
        scope.cancel()
        with pytest.raises(fibers.Cancelled):
            fibers.sleep(1)
    fibers.yield_now()
    assert not fiber.done()
    fiber.cancel()
    fiber.join()


# -- shields ------------------------------------------------------------------------------------------------------


def test_a_shield_keeps_out_what_comes_from_further_out() -> None:
    with fibers.CancelScope() as scope:
        scope.cancel()
        with fibers.shield():
            fibers.sleep(0.001)
            fibers.spawn(int).join()
            assert not cancelled_here()
        assert cancelled_here()
        fibers.sleep(FOREVER)
    assert scope.cancelled_caught


def test_a_shield_keeps_out_fiber_cancel() -> None:
    steps = []

    def body() -> None:
        with fibers.shield():
            fibers.yield_now()
            fibers.yield_now()
            steps.append("protected")
        fibers.yield_now()
        steps.append("not reached")

    fiber = fibers.spawn(body)
    fibers.yield_now()
    fiber.cancel()
    fiber.join(5)
    assert fiber.cancelled()
    assert steps == ["protected"]


def test_a_shield_does_not_keep_out_kill() -> None:
    def body() -> None:
        with fibers.shield():
            fibers.sleep(FOREVER)

    fiber = fibers.spawn(body)
    fibers.yield_now()
    fiber.kill()
    fiber.join(5)
    assert fiber.cancelled()


def test_a_shield_is_a_scope_that_can_be_cancelled_itself() -> None:
    with fibers.shield() as scope:
        scope.cancel()
        fibers.sleep(FOREVER)
    assert scope.cancelled_caught


def test_a_cancelled_shield_inside_a_cancelled_scope_catches_its_own() -> None:
    """What comes from further out did not reach inside; so the Cancelled that leaves it is its own."""
    with fibers.CancelScope() as outer:
        outer.cancel()
        with fibers.shield() as inner:
            inner.cancel()
            fibers.sleep(FOREVER)
        assert inner.cancelled_caught
        assert cancelled_here()


def test_nested_shields() -> None:
    with fibers.CancelScope() as outer:
        with fibers.CancelScope(shield=True) as first:
            with fibers.CancelScope(shield=True) as second:
                outer.cancel()
                assert not cancelled_here()
                first.cancel()
                assert not cancelled_here()
                second.cancel()
                assert cancelled_here()
            assert cancelled_here()
        assert cancelled_here()


def test_a_shield_that_is_raised_and_lowered() -> None:
    with fibers.CancelScope() as outer:
        outer.cancel()
        with fibers.CancelScope() as inner:
            assert cancelled_here()
            inner.shield = True
            assert inner.shield
            assert not cancelled_here()
            inner.shield = False
            assert cancelled_here()


def test_lowering_a_shield_wakes_who_waits_behind_it() -> None:
    guarded = fibers.CancelScope(shield=True)

    def body() -> str:
        with fibers.CancelScope() as outer:
            outer.cancel()
            with guarded:
                fibers.sleep(FOREVER)
        return "out"

    fiber = fibers.spawn(body)
    fibers.yield_now()
    fibers.yield_now()
    assert not fiber.done()
    guarded.shield = False
    assert fiber.result(5) == "out"


def test_cancelled_passes_through_a_shield_that_it_was_raised_outside_of() -> None:
    with fibers.CancelScope() as scope:
        scope.cancel()
        try:
            fibers.sleep(FOREVER)
        finally:
            with fibers.shield():
                fibers.sleep(0.001)  # clean-up that waits
    assert scope.cancelled_caught


# -- grace ----------------------------------------------------------------------------------------------------------


def test_shields_protect_for_the_grace_and_no_longer() -> None:
    with fibers.CancelScope() as scope:
        scope.cancel(grace=0.02)
        started = fibers.current_time()
        with fibers.shield() as inner:
            fibers.sleep(0.001)
            fibers.sleep(FOREVER)
        pytest.fail("the end of the grace is the scope's")
    assert fibers.current_time() - started >= 0.02
    assert scope.cancelled_caught
    assert not inner.cancelled_caught


def test_a_grace_of_zero_goes_through_shields_at_once() -> None:
    with fibers.CancelScope() as scope:
        with fibers.shield():
            scope.cancel(grace=0)
            assert cancelled_here()
            with fibers.shield():
                assert cancelled_here()


def test_the_grace_is_for_shields_only() -> None:
    with fibers.CancelScope() as scope:
        scope.cancel(grace=60)
        assert cancelled_here()
        fibers.sleep(FOREVER)
    assert scope.cancelled_caught


def test_a_second_cancel_can_only_shorten_the_grace() -> None:
    with fibers.CancelScope() as scope:
        scope.cancel(grace=0.01)
        scope.cancel(grace=60)
        scope.cancel()
        with fibers.shield():
            fibers.sleep(FOREVER)
    assert scope.cancelled_caught
    with fibers.CancelScope() as scope:
        scope.cancel()
        scope.cancel(grace=60)
        scope.cancel(grace=0)
        with fibers.shield():
            fibers.sleep(FOREVER)
    assert scope.cancelled_caught


def test_a_grace_given_before_the_entry_counts_from_there() -> None:
    scope = fibers.CancelScope()
    scope.cancel(grace=60)
    scope.cancel(grace=0.02)
    scope.cancel()
    fibers.sleep(0.03)
    with scope:
        started = fibers.current_time()
        with fibers.shield():
            assert not cancelled_here()
            fibers.sleep(FOREVER)
    assert fibers.current_time() - started >= 0.02


def test_a_shield_that_ends_within_the_grace_is_not_disturbed() -> None:
    steps = []
    with fibers.CancelScope() as scope:
        scope.cancel(grace=60)
        with fibers.shield():
            fibers.sleep(0.001)
            steps.append("protected")
        fibers.sleep(FOREVER)
    assert steps == ["protected"]


@pytest.mark.parametrize(
    ("grace", "kind"), [(-1, ValueError), (float("nan"), ValueError), ("1", TypeError), (1j, TypeError)]
)
def test_a_bad_grace_is_refused_and_nothing_is_cancelled(grace: Any, kind: type[Exception]) -> None:
    with fibers.CancelScope() as scope:
        with pytest.raises(kind, match="grace"):
            scope.cancel(grace=grace)
        assert not scope.cancel_called
        assert not cancelled_here()


# -- kill and cancel ------------------------------------------------------------------------------------------------


def test_kill_in_a_cancelled_scope_comes_first_and_is_not_caught_there() -> None:
    class Oops(Exception):
        pass

    def body() -> str:
        try:
            with fibers.CancelScope() as scope:
                scope.cancel()
                fibers.current().kill(Oops("once"))
                with pytest.raises(Oops):
                    fibers.sleep(FOREVER)
                assert cancelled_here()
                fibers.current().kill(Oops("twice"))
                fibers.sleep(FOREVER)
        except Oops as error:
            return str(error)
        return "not killed"

    assert fibers.spawn(body).result(5) == "twice"


def test_a_wake_up_that_came_first_is_not_lost_to_a_scope() -> None:
    scope = fibers.CancelScope()
    seen = []

    def waiter() -> None:
        with scope:
            lowlevel.park()
            seen.append("unparked")
            lowlevel.park()
            seen.append("unparked again")

    fiber = fibers.spawn(waiter)
    fibers.yield_now()
    lowlevel.unpark(fiber)
    scope.cancel()
    fiber.join(5)
    assert seen == ["unparked"]
    assert scope.cancelled_caught


# -- deep and many --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 50, 2_000])
def test_deep_nesting(depth: int) -> None:
    def body() -> int:
        scopes = [fibers.CancelScope() for _ in range(depth)]
        for scope in scopes:
            scope.__enter__()
        scopes[0].cancel()
        assert cancelled_here()
        for scope in reversed(scopes[1:]):
            scope.__exit__(None, None, None)
        assert cancelled_here()
        scopes[0].__exit__(None, None, None)
        assert not cancelled_here()
        return depth

    assert fibers.spawn(body).result(30) == depth


def test_many_scopes_one_after_the_other_in_many_fibers() -> None:
    def body(number: int) -> int:
        caught = 0
        for turn in range(50):
            with fibers.CancelScope() as scope:
                if (turn + number) % 3 == 0:
                    scope.cancel()
                fibers.yield_now()
            caught += scope.cancelled_caught
        return caught

    expected = [sum((turn + number) % 3 == 0 for turn in range(50)) for number in range(20)]
    workers = [fibers.spawn(body, number) for number in range(20)]
    assert [fiber.result(20) for fiber in workers] == expected


# -- descriptions and bad input -------------------------------------------------------------------------------------


def test_reprs_tell_the_state() -> None:
    scope: fibers.CancelScope = fibers.move_on_after(5, shield=True)
    assert repr(scope).startswith("<move_on_after shield 5 s at 0x")
    with scope:
        assert "deadline" in repr(scope)
        scope.cancel()
        assert "cancelled" in repr(scope)
    assert repr(fibers.CancelScope()).startswith("<CancelScope no deadline at 0x")


@pytest.mark.parametrize("make", [fibers.move_on_after, fibers.timeout])
@pytest.mark.parametrize(
    ("seconds", "kind"),
    [(-1, ValueError), (float("nan"), ValueError), (-FOREVER, ValueError), ("1", TypeError), (1j, TypeError)],
)
def test_bad_seconds(make: Callable[..., object], seconds: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="seconds must be"):
        make(seconds)


@pytest.mark.parametrize(
    "make", [fibers.move_on_at, fibers.timeout_at, lambda value: fibers.CancelScope(deadline=value)]
)
@pytest.mark.parametrize(("deadline", "kind"), [(float("nan"), ValueError), ("1", TypeError), (1j, TypeError)])
def test_bad_deadlines(make: Callable[..., object], deadline: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="a deadline is a time in seconds"):
        make(deadline)
    with fibers.CancelScope() as scope:
        with pytest.raises(kind, match="a deadline is a time in seconds"):
            scope.deadline = deadline
        assert scope.deadline == FOREVER
