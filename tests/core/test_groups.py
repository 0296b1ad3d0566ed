"""Task groups: leaving waits for all, the first failure cancels the rest, and everything that failed arrives together.

Facts. A group is a cancel scope; what is spawned in it is inside the scopes that it stands in. Being cancelled or killed
is no failure. What failed is always wrapped in a group of exceptions, also if it is one. A group that is cancelled before
a fiber of it has started never starts it.
"""

import contextvars
import random
import threading
from typing import Any

import pytest
from support.scale import SEED, scaled
from support.virtual import VirtualClock, run_virtual

import fibers

FOREVER = float("inf")


class Oops(Exception):
    pass


class Ooze(BaseException):
    pass


def fail(error: BaseException) -> None:
    raise error


def sleep_and_fail(error: BaseException) -> None:
    """Fails in its clean-up, when it is cancelled."""
    try:
        fibers.sleep(FOREVER)
    finally:
        raise error


def names(error: BaseExceptionGroup[BaseException]) -> list[str]:
    return sorted(str(each) for each in error.exceptions)


# -- waiting --------------------------------------------------------------------------------------------------------


def test_leaving_waits_for_all_children() -> None:
    done: list[int] = []

    def child(number: int) -> int:
        for _ in range(number):
            fibers.yield_now()
        done.append(number)
        return number

    with fibers.TaskGroup() as group:
        children = [group.spawn(child, number) for number in (5, 0, 3)]
        assert done == []
    assert sorted(done) == [0, 3, 5]
    assert [each.result() for each in children] == [5, 0, 3]
    assert not group.cancel_called


def test_an_empty_group() -> None:
    with fibers.TaskGroup() as group:
        pass
    assert not group.cancel_called
    assert not group.cancelled_caught


def test_a_group_whose_children_are_done_before_its_end() -> None:
    with fibers.TaskGroup() as group:
        group.spawn(int).join()
        assert group.spawn(lambda: 7).result() == 7


def test_children_may_spawn_in_their_group_while_it_waits() -> None:
    done: list[int] = []

    def child(depth: int) -> None:
        if depth:
            group.spawn(child, depth - 1)
            group.spawn(child, depth - 1)
        fibers.yield_now()
        done.append(depth)

    with fibers.TaskGroup() as group:
        group.spawn(child, 6)
    assert len(done) == 2**7 - 1


def test_a_callback_may_spawn_in_a_group_whose_last_child_is_just_done() -> None:
    done: list[str] = []
    with fibers.TaskGroup() as group:
        child = group.spawn(fibers.yield_now)
        child.add_done_callback(lambda _: group.spawn(done.append, "late"))
    assert done == ["late"]


def test_arguments_names_and_keywords() -> None:
    with fibers.TaskGroup("works") as group:
        child: fibers.Fiber[Any] = group.spawn(dict, [("a", 1)], b=2, name="the child")
        other = group.spawn(sorted, [2, 1])
        assert child.name == "the child"
        assert other.name == "sorted"
        assert "test_groups.py" in child.spawned_at
        assert "test_arguments_names_and_keywords" in child.spawned_at
        assert repr(group) == "<TaskGroup 'works' 2 fibers left>"
        group.cancel()
        assert repr(group) == "<TaskGroup 'works' cancelled, 0 fibers left>"
    with fibers.TaskGroup() as group:
        child = group.spawn(dict, [("a", 1)], b=2)
    assert child.result() == {"a": 1, "b": 2}


def test_context_variables_follow() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    variable.set("outer")
    own = contextvars.copy_context()
    own.run(variable.set, "own")
    with fibers.TaskGroup() as group:
        inherits = group.spawn(variable.get)
        given = group.spawn(variable.get, context=own)
        empty = group.spawn(variable.get, context=contextvars.Context())
        group.spawn(variable.set, "mine alone")
        changes = group.spawn(variable.set, "shared", context=own)
    assert (inherits.result(), given.result(), empty.result()) == ("outer", "own", "unset")
    assert variable.get() == "outer"
    assert changes.done()
    assert own[variable] == "shared"


# -- failing --------------------------------------------------------------------------------------------------------


def test_the_first_failure_cancels_the_siblings() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        with fibers.TaskGroup() as group:
            sleeper = group.spawn(fibers.sleep, FOREVER)
            fibers.yield_now()
            group.spawn(fail, Oops("first"))
            never = group.spawn(fail, Oops("never runs"))
    assert names(caught.value) == ["first"]
    assert sleeper.cancelled()
    assert never.cancelled()
    assert group.cancel_called


def test_the_body_is_cancelled_too() -> None:
    reached: list[str] = []
    with pytest.raises(ExceptionGroup) as caught:
        with fibers.TaskGroup() as group:
            group.spawn(fail, Oops("child"))
            try:
                fibers.sleep(FOREVER)
            except fibers.Cancelled:
                reached.append("cancelled")
                raise
    assert reached == ["cancelled"]
    assert names(caught.value) == ["child"]


def test_a_single_error_is_wrapped_all_the_same() -> None:
    error = Oops("one")
    with pytest.raises(ExceptionGroup, match="unhandled errors in a task group") as caught:
        with fibers.TaskGroup():
            raise error
    assert caught.value.exceptions == (error,)
    with pytest.raises(ExceptionGroup, match="unhandled errors in task group 'fetch'"):
        with fibers.TaskGroup("fetch") as group:
            group.spawn(fail, Oops("one"))


def test_everything_that_failed_arrives_together() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        with fibers.TaskGroup() as group:
            for name in "abc":
                group.spawn(sleep_and_fail, Oops(name))
            fibers.yield_now()
            group.spawn(fail, Oops("d"))
            try:
                fibers.sleep(FOREVER)
            finally:
                raise Oops("body")
    assert names(caught.value) == ["a", "b", "body", "c", "d"]


def test_a_failing_body_cancels_the_children_and_waits_for_them() -> None:
    steps: list[str] = []

    def child() -> None:
        try:
            fibers.sleep(FOREVER)
        finally:
            with fibers.shield():
                fibers.sleep(0.002)
            steps.append("cleaned up")

    with pytest.raises(ExceptionGroup) as caught:
        with fibers.TaskGroup() as group:
            group.spawn(child)
            fibers.yield_now()
            raise Oops("body")
    assert steps == ["cleaned up"]
    assert names(caught.value) == ["body"]


def test_except_star_sorts_them() -> None:
    seen: list[str] = []
    try:
        with fibers.TaskGroup() as group:
            group.spawn(sleep_and_fail, KeyError("a"))
            group.spawn(sleep_and_fail, ValueError("b"))
            fibers.yield_now()
            raise Oops("c")
    except* KeyError:
        seen.append("key")
    except* (ValueError, Oops) as rest:
        seen += [type(error).__name__ for error in rest.exceptions]
    assert sorted(seen) == ["Oops", "ValueError", "key"]


def test_base_exceptions_make_a_base_exception_group() -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        with fibers.TaskGroup() as group:
            group.spawn(fail, Ooze("ooze"))
    assert not isinstance(caught.value, ExceptionGroup)
    assert names(caught.value) == ["ooze"]


def test_one_error_of_two_children_is_told_once() -> None:
    error = Oops("shared")
    with pytest.raises(ExceptionGroup) as caught:
        with fibers.TaskGroup() as group:
            group.spawn(sleep_and_fail, error)
            group.spawn(sleep_and_fail, error)
            fibers.yield_now()
            group.cancel()
    assert caught.value.exceptions == (error,)


def test_a_failure_that_nobody_asks_for_is_not_logged_too(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ExceptionGroup):
        with fibers.TaskGroup() as group:
            group.spawn(fail, Oops("raised by the group"))
    fibers.yield_now()
    assert caplog.text == ""


def test_a_failure_can_be_asked_for_as_well() -> None:
    error = Oops("child")
    with pytest.raises(ExceptionGroup):
        with fibers.TaskGroup() as group:
            child = group.spawn(fail, error)
    assert child.exception() is error


def test_a_childs_failure_does_not_wait_for_the_body() -> None:
    """The others are cancelled when it fails, not when the block is left."""

    def main(clock: VirtualClock) -> None:
        ends: list[float] = []

        def child() -> None:
            try:
                fibers.sleep(FOREVER)
            finally:
                ends.append(clock())

        with pytest.raises(ExceptionGroup):
            with fibers.TaskGroup() as group:
                group.spawn(child)
                group.spawn(lambda: fibers.sleep(1) or fail(Oops("late")))  # type: ignore[func-returns-value]
                with fibers.shield():
                    fibers.sleep(5)
        assert ends == [1001]
        assert clock() == 1005

    run_virtual(main)


def test_joining_a_sibling_that_was_cancelled_is_an_ordinary_failure() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        with fibers.TaskGroup() as group:
            sleeper = group.spawn(fibers.sleep, FOREVER)
            group.spawn(sleeper.result)
            fibers.yield_now()
            sleeper.cancel()
    (error,) = caught.value.exceptions
    assert isinstance(error, fibers.FiberCancelled)


# -- cancelling -----------------------------------------------------------------------------------------------------


def test_cancel_ends_body_and_children_and_all_is_well() -> None:
    with fibers.TaskGroup() as group:
        children = [group.spawn(fibers.sleep, FOREVER) for _ in range(3)]
        fibers.yield_now()
        group.cancel()
        fibers.sleep(FOREVER)
        pytest.fail("not reached")
    assert all(child.cancelled() for child in children)
    assert group.cancelled_caught


def test_cancel_while_the_owner_waits_at_the_end() -> None:
    with fibers.TaskGroup() as group:
        children = [group.spawn(fibers.sleep, FOREVER) for _ in range(3)]
        group.spawn(group.cancel)
    assert all(child.cancelled() for child in children)
    assert group.cancel_called
    assert group.cancelled_caught


def test_cancel_from_another_thread() -> None:
    with fibers.TaskGroup() as group:
        group.spawn(fibers.sleep, FOREVER)
        thread = threading.Thread(target=group.cancel)
        thread.start()
    thread.join()
    assert group.cancel_called


def test_cancel_reaches_children_in_the_order_of_spawning() -> None:
    order: list[int] = []

    def child(number: int) -> None:
        try:
            fibers.sleep(FOREVER)
        finally:
            order.append(number)

    with fibers.TaskGroup() as group:
        for number in range(50):
            group.spawn(child, number)
        fibers.yield_now()
        group.cancel()
    assert order == list(range(50))


def test_a_cancelled_child_is_no_failure() -> None:
    with fibers.TaskGroup() as group:
        first = group.spawn(fibers.sleep, FOREVER)
        second = group.spawn(fibers.sleep, FOREVER)
        third = group.spawn(lambda: 7)
        fibers.yield_now()
        first.cancel()
        second.kill()
    assert (first.cancelled(), second.cancelled(), third.result()) == (True, True, 7)
    assert not group.cancel_called


def test_a_child_killed_with_an_error_has_failed() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        with fibers.TaskGroup() as group:
            child = group.spawn(fibers.sleep, FOREVER)
            fibers.yield_now()
            child.kill(Oops("killed"))
    assert names(caught.value) == ["killed"]


def test_spawning_in_a_cancelled_group_never_runs_the_fiber() -> None:
    ran: list[int] = []
    with fibers.TaskGroup() as group:
        group.cancel()
        child = group.spawn(ran.append, 1)
        assert child.cancelled()
    assert ran == []


def test_spawning_in_a_group_inside_of_a_cancelled_scope() -> None:
    ran: list[int] = []
    with fibers.CancelScope() as scope:
        with fibers.TaskGroup() as group:
            scope.cancel()
            assert group.spawn(ran.append, 1).cancelled()
            with fibers.shield():
                assert group.spawn(ran.append, 2).cancelled(), "the shield is not around the group"
                with fibers.TaskGroup() as protected:
                    protected.spawn(ran.append, 3)
    assert ran == [3]
    assert not scope.cancelled_caught


def test_a_child_spawned_by_a_sibling_while_the_group_is_being_cancelled() -> None:
    ran: list[str] = []
    with fibers.CancelScope() as scope:
        with fibers.TaskGroup() as group:

            def child() -> None:
                try:
                    fibers.sleep(FOREVER)
                finally:
                    group.spawn(ran.append, "late")

            group.spawn(child)
            fibers.yield_now()
            scope.cancel()
    assert ran == []


def test_a_child_spawned_from_behind_a_shield_long_after_the_group_was_cancelled() -> None:
    ran: list[str] = []
    cancelled = fibers.Event()

    def child() -> None:
        with fibers.shield():
            cancelled.wait()
            fibers.sleep(0.002)
            assert group.spawn(ran.append, "late").cancelled()

    def cancel() -> None:
        group.cancel()
        cancelled.set()

    with fibers.TaskGroup() as group:
        group.spawn(child)
        fibers.yield_now()
        group.spawn(cancel)
    assert ran == []


def test_grace_gives_the_children_time_for_shielded_clean_up() -> None:
    def main(clock: VirtualClock) -> None:
        ends: dict[str, float] = {}

        def child(name: str, seconds: float) -> None:
            try:
                fibers.sleep(FOREVER)
            finally:
                try:
                    with fibers.shield():
                        fibers.sleep(seconds)
                finally:
                    ends[name] = clock()

        with fibers.TaskGroup() as group:
            group.spawn(child, "quick", 1)
            group.spawn(child, "slow", 60)
            fibers.sleep(10)
            group.cancel(grace=5)
        assert ends == {"quick": 1011, "slow": 1015}
        assert clock() == 1015

    run_virtual(main)


def test_a_group_has_a_deadline() -> None:
    def main(clock: VirtualClock) -> None:
        with fibers.TaskGroup() as group:
            group.deadline = clock() + 5
            child = group.spawn(fibers.sleep, 60)
            fibers.sleep(60)
        assert clock() == 1005
        assert child.cancelled()
        assert group.cancelled_caught

    run_virtual(main)


def test_a_deadline_around_a_group_ends_its_children() -> None:
    def main(clock: VirtualClock) -> None:
        with pytest.raises(TimeoutError):
            with fibers.timeout(5):
                with fibers.TaskGroup() as group:
                    child = group.spawn(fibers.sleep, 60)
        assert clock() == 1005
        assert child.cancelled()
        assert not group.cancelled_caught

    run_virtual(main)


def test_cancelled_once_from_outside_and_the_wait_goes_on() -> None:
    """While its owner waits, cancellation is handed on, and does not cut the wait short."""
    steps: list[str] = []

    def child() -> None:
        try:
            fibers.sleep(FOREVER)
        finally:
            with fibers.shield():
                fibers.sleep(0.005)
            steps.append("child")

    def owner() -> None:
        try:
            with fibers.TaskGroup() as group:
                group.spawn(child)
        finally:
            steps.append("owner")

    fiber = fibers.spawn(owner)
    fibers.yield_now()
    fibers.yield_now()
    for _ in range(3):
        fiber.cancel()
        fibers.yield_now()
    fiber.join(5)
    assert fiber.cancelled()
    assert steps == ["child", "owner"]


# -- nesting --------------------------------------------------------------------------------------------------------


def test_a_failure_far_inside_ends_everything_on_its_way_out() -> None:
    def nest(depth: int) -> None:
        with fibers.TaskGroup(f"level {depth}") as group:
            sleepers.append(group.spawn(fibers.sleep, FOREVER))
            if depth:
                group.spawn(nest, depth - 1)
            else:
                fibers.yield_now()
                group.spawn(fail, Oops("deep"))

    sleepers: list[fibers.Fiber[None]] = []
    with pytest.raises(ExceptionGroup) as caught:
        nest(4)
    assert all(sleeper.cancelled() for sleeper in sleepers)
    error: BaseException = caught.value
    depth = 0
    while isinstance(error, BaseExceptionGroup):
        assert f"level {4 - depth}" in str(error)
        (error,) = error.exceptions
        depth += 1
    assert str(error) == "deep"
    assert depth == 5


def test_an_inner_group_that_fails_is_a_failure_of_the_outer_body() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        with fibers.TaskGroup("outer") as outer:
            sleeper = outer.spawn(fibers.sleep, FOREVER)
            with fibers.TaskGroup("inner") as inner:
                inner.spawn(fail, Oops("inside"))
    assert sleeper.cancelled()
    (inside,) = caught.value.exceptions
    assert isinstance(inside, ExceptionGroup)
    assert names(inside) == ["inside"]


def test_an_inner_group_that_is_cancelled_leaves_the_outer_alone() -> None:
    with fibers.TaskGroup() as outer:
        survivor = outer.spawn(lambda: fibers.sleep(0.001) or 7)  # type: ignore[func-returns-value]
        with fibers.TaskGroup() as inner:
            inner.spawn(fibers.sleep, FOREVER)
            inner.cancel()
            fibers.sleep(FOREVER)
        assert inner.cancelled_caught
    assert survivor.result() == 7
    assert not outer.cancel_called


def test_cancelling_the_outer_group_ends_inner_ones_of_children() -> None:
    grandchildren: list[fibers.Fiber[None]] = []

    def child() -> None:
        with fibers.TaskGroup() as inner:
            grandchildren.append(inner.spawn(fibers.sleep, FOREVER))

    with fibers.TaskGroup() as outer:
        for _ in range(3):
            outer.spawn(child)
        fibers.yield_now()
        fibers.yield_now()
        outer.cancel()
    assert len(grandchildren) == 3
    assert all(fiber.cancelled() for fiber in grandchildren)


def test_fiber_cancel_reaches_what_was_spawned_in_its_groups() -> None:
    grandchildren: list[fibers.Fiber[None]] = []

    def child() -> None:
        with fibers.TaskGroup() as inner:
            grandchildren.append(inner.spawn(fibers.sleep, FOREVER))
            with fibers.shield(), fibers.TaskGroup() as protected:
                grandchildren.append(protected.spawn(fibers.sleep, 0.005))
        fibers.sleep(FOREVER)

    fiber = fibers.spawn(child)
    fibers.yield_now()
    fibers.yield_now()
    fiber.cancel()
    fiber.join(5)
    assert fiber.cancelled()
    assert [each.cancelled() for each in grandchildren] == [True, False]


@pytest.mark.parametrize("depth", [200])
def test_deep_nesting(depth: int) -> None:
    """Groups in groups, each in a fiber of its own, and a deadline around them all."""
    deepest: list[fibers.Fiber[Any]] = []

    def nest(level: int) -> None:
        if level == depth:
            deepest.append(fibers.current())
            fibers.sleep(FOREVER)
        with fibers.TaskGroup() as group:
            group.spawn(nest, level + 1)

    with fibers.move_on_after(0.05) as scope:
        nest(0)
    assert scope.cancelled_caught
    assert all(fiber.cancelled() for fiber in deepest)


def test_many_children() -> None:
    count = scaled(100_000, least=5_000)
    with fibers.TaskGroup() as group:
        children = [group.spawn(int) for _ in range(count)]
    assert all(child.done() for child in children)
    with fibers.TaskGroup() as group:
        children = [group.spawn(int) for _ in range(count)]
        group.cancel()
    assert all(child.cancelled() for child in children)


def test_a_scope_in_the_body_costs_the_children_nothing() -> None:
    """A scope that is cancelled inside of the body of a large group does not look at the children of the group."""
    looks = 0

    class Counting(dict[Any, None]):
        def __iter__(self) -> Any:
            nonlocal looks
            looks += 1
            return super().__iter__()

    with fibers.TaskGroup() as group:
        for _ in range(10):
            group.spawn(fibers.sleep, FOREVER)
        fibers.yield_now()
        group._children = Counting(group._children)
        for _ in range(20):
            with fibers.CancelScope() as scope:
                scope.cancel()
                with pytest.raises(fibers.Cancelled):
                    fibers.yield_now()
        assert looks == 0
        group.cancel()
    assert looks > 0


# -- rules of use ---------------------------------------------------------------------------------------------------


def test_before_it_is_entered_and_after_its_end() -> None:
    group = fibers.TaskGroup("works")
    with pytest.raises(RuntimeError, match="task group 'works' has not been entered: use it as `with TaskGroup"):
        group.spawn(int)
    with group:
        pass
    with pytest.raises(RuntimeError, match="task group 'works' has ended; nothing can be spawned in it any more"):
        group.spawn(int)


def test_a_group_belongs_to_its_thread() -> None:
    problems: list[str] = []

    def in_thread() -> None:
        try:
            group.spawn(int)
        except RuntimeError as error:
            problems.append(str(error))

    with fibers.TaskGroup("works") as group:
        thread = threading.Thread(target=in_thread)
        thread.start()
        thread.join()
    assert len(problems) == 1
    assert f"task group 'works' belongs to thread {threading.get_ident()}" in problems[0]


@pytest.mark.parametrize("what", [None, 7, "fn"])
def test_what_is_no_function_is_refused(what: Any) -> None:
    with fibers.TaskGroup() as group:
        with pytest.raises(TypeError, match=r"spawn\(\) takes a function"):
            group.spawn(what)


def test_another_fiber_may_spawn_in_it() -> None:
    with fibers.TaskGroup() as group:
        stranger = fibers.spawn(group.spawn, lambda: 7)
        assert stranger.result().result() == 7


# -- random trees ---------------------------------------------------------------------------------------------------


def test_random_trees_lose_no_error_and_leave_no_fiber() -> None:
    """Trees of groups whose nodes sleep, yield, fail or cancel: every error arrives, and nothing outlives its block."""
    chance = random.Random(SEED)

    def node(depth: int, failures: list[Oops]) -> None:
        living.add(fibers.current())
        try:
            if depth and chance.random() < 0.7:
                with fibers.TaskGroup() as group:
                    for _ in range(chance.randrange(4)):
                        group.spawn(node, depth - 1, failures)
                    if chance.random() < 0.1:
                        group.cancel()
                    act(failures)
            else:
                act(failures)
        finally:
            living.discard(fibers.current())

    def act(failures: list[Oops]) -> None:
        what = chance.random()
        if what < 0.5:
            fibers.yield_now()
        elif what < 0.8:
            fibers.sleep(0.0005)
        elif what < 0.9:
            failures.append(Oops(len(failures)))
            raise failures[-1]

    def flat(error: BaseException) -> list[BaseException]:
        if isinstance(error, BaseExceptionGroup):
            return [leaf for each in error.exceptions for leaf in flat(each)]
        return [error]

    living: set[fibers.Fiber[Any]] = set()
    for _ in range(scaled(3_000, least=100)):
        failures: list[Oops] = []
        found: list[BaseException] = []
        try:
            with fibers.TaskGroup() as group:
                group.spawn(node, 4, failures)
        except BaseExceptionGroup as errors:
            found = flat(errors)
        assert sorted(map(str, found)) == sorted(map(str, failures)), f"FIBERS_TEST_SEED={SEED}"
        assert not living
