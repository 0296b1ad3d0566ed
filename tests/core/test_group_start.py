"""`group.start(fn)`: waiting until a service says that it is ready, and what else may happen before it does.

Facts. The fiber calls `started(value)` once, from any thread. What it raises before is raised by `start`, and is no failure
of the group; what it raises after is one. If both the call and the fiber are interrupted, the call tells of its own
interruption, and an error of the fiber that nobody has been told of is the group's.
"""

import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest

import fibers

FOREVER = float("inf")
Started = Callable[..., None]


class Oops(Exception):
    pass


def serve(port: int, *, started: Started) -> None:
    fibers.yield_now()
    started(port + 1)
    fibers.sleep(FOREVER)


def test_start_returns_the_value() -> None:
    with fibers.TaskGroup() as group:
        assert group.start(serve, 80) == 81
        assert group.start(serve, port=90, name="named") == 91
        group.cancel()


def test_started_without_a_value() -> None:
    def service(started: Started) -> None:
        started()
        done.append("went on")

    done: list[str] = []
    with fibers.TaskGroup() as group:
        assert group.start(service) is None
    assert done == ["went on"]


def test_several_services_at_once() -> None:
    with fibers.TaskGroup() as group:
        callers = [group.spawn(group.start, serve, number) for number in range(10)]
        assert [caller.result() for caller in callers] == list(range(1, 11))
        group.cancel()


def test_started_may_be_called_once() -> None:
    def service(started: Started) -> None:
        started(1)
        started(2)

    with pytest.raises(ExceptionGroup) as caught:
        with fibers.TaskGroup() as group:
            assert group.start(service) == 1
    assert str(caught.value.exceptions[0]) == "started() was called before"


def test_started_from_another_thread() -> None:
    def service(started: Started) -> None:
        thread = threading.Thread(target=started, args=("from there",))
        thread.start()
        fibers.sleep(0.001)
        thread.join()

    with fibers.TaskGroup() as group:
        assert group.start(service) == "from there"


def test_an_error_before_is_raised_by_start_and_is_no_failure_of_the_group() -> None:
    def service(started: Started) -> None:
        fibers.yield_now()
        raise Oops("no port")

    with fibers.TaskGroup() as group:
        sibling = group.spawn(lambda: fibers.sleep(0.001) or 7)  # type: ignore[func-returns-value]
        with pytest.raises(Oops, match="no port"):
            group.start(service)
        assert not group.cancel_called
    assert sibling.result() == 7


def test_an_error_after_is_a_failure_of_the_group() -> None:
    def service(started: Started) -> None:
        started("value")
        raise Oops("later")

    with pytest.raises(ExceptionGroup) as caught:
        with fibers.TaskGroup() as group:
            assert group.start(service) == "value", "it had started before it failed"
    assert [str(error) for error in caught.value.exceptions] == ["later"]


def test_the_end_without_started() -> None:
    def service(started: Started) -> str:
        return "too early"

    with fibers.TaskGroup() as group:
        with pytest.raises(RuntimeError, match="'hasty' ended without having called started"):
            group.start(service, name="hasty")
    assert not group.cancel_called


@pytest.mark.parametrize("end", [fibers.Fiber.cancel, fibers.Fiber.kill])
def test_the_fiber_alone_is_cancelled_before(end: Callable[[fibers.Fiber[Any]], None]) -> None:
    def service(started: Started) -> None:
        end(fibers.current())
        fibers.sleep(FOREVER)

    with fibers.TaskGroup() as group:
        with pytest.raises(fibers.FiberCancelled):
            group.start(service)
        assert not group.cancel_called


def test_start_is_interrupted_and_the_fiber_with_it() -> None:
    ended: list[str] = []

    def service(started: Started) -> None:
        try:
            fibers.sleep(FOREVER)
        finally:
            ended.append("service")

    with fibers.TaskGroup() as group:
        with fibers.move_on_after(0.002) as scope:
            group.start(service)
        assert scope.cancelled_caught
        assert not group.cancel_called
    assert ended == ["service"]


def test_start_is_killed() -> None:
    def service(started: Started) -> None:
        fibers.sleep(FOREVER)

    def caller() -> None:
        group.start(service)

    with fibers.TaskGroup() as group:
        calling = fibers.spawn(caller)
        fibers.yield_now()
        fibers.yield_now()
        calling.kill(Oops("the caller"))
        with pytest.raises(Oops):
            calling.result(5)


def test_the_group_is_cancelled_while_start_waits() -> None:
    """The caller gets Cancelled, not an error about the fiber: nothing has failed."""

    def service(started: Started) -> None:
        fibers.sleep(FOREVER)

    with fibers.TaskGroup() as group:
        fibers.spawn(group.cancel)
        group.start(service)
        pytest.fail("not reached")
    assert group.cancelled_caught


def test_the_group_is_cancelled_while_a_sibling_starts_what_has_not_run() -> None:
    def service(started: Started) -> None:
        pytest.fail("never runs")

    def sibling() -> None:
        fibers.spawn(group.cancel)
        group.start(service)

    with fibers.TaskGroup() as group:
        starting = group.spawn(sibling)
        fibers.yield_now()
        assert group._starting is not None
        group.cancel()
    assert starting.cancelled()


def test_in_a_cancelled_group_start_raises_cancelled_and_nothing_runs() -> None:
    with fibers.TaskGroup() as group:
        group.cancel()
        with pytest.raises(fibers.Cancelled):
            group.start(serve, 80)
        assert repr(group) == "<TaskGroup cancelled, 0 fibers left>"


def test_a_cancelled_start_and_a_service_that_fails_at_that_moment() -> None:
    """The call tells of its cancellation; the service's error is the group's."""

    def service(started: Started) -> None:
        scope.cancel()
        raise Oops("at that moment")

    with pytest.raises(ExceptionGroup) as caught:
        with fibers.TaskGroup() as group:
            with fibers.CancelScope() as scope:
                group.start(service)
                pytest.fail("start has returned")
            fibers.sleep(FOREVER)
    assert [str(error) for error in caught.value.exceptions] == ["at that moment"]


def test_a_service_that_fails_in_its_clean_up_after_start_was_cancelled() -> None:
    def service(started: Started) -> None:
        try:
            fibers.sleep(FOREVER)
        finally:
            raise Oops("clean-up")

    with pytest.raises(ExceptionGroup) as caught:
        with fibers.TaskGroup() as group:
            with fibers.move_on_after(0.002):
                group.start(service)
    assert [str(error) for error in caught.value.exceptions] == ["clean-up"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_an_urgent_error_before_is_raised_by_start(error: BaseException) -> None:
    def service(started: Started) -> None:
        raise error

    with fibers.TaskGroup() as group:
        with pytest.raises(type(error)) as caught:
            group.start(service)
        assert caught.value is error
    fibers.yield_now()  # and main gets it once only


def test_start_outside_of_the_group_is_refused() -> None:
    group = fibers.TaskGroup()
    with pytest.raises(RuntimeError, match="has not been entered"):
        group.start(serve, 80)
    with group:
        pass
    with pytest.raises(RuntimeError, match="has ended"):
        group.start(serve, 80)


def test_spawned_at_names_the_caller_of_start() -> None:
    found: list[str] = []

    def service(started: Started) -> None:
        found.append(fibers.current().spawned_at)
        started()

    with fibers.TaskGroup() as group:
        group.start(service)
    assert "in test_spawned_at_names_the_caller_of_start" in found[0]


def test_no_garbage_for_the_collector() -> None:
    def failing(started: Started) -> None:
        raise Oops("before")

    def block() -> None:
        with fibers.TaskGroup() as group:
            group.start(serve, 80)
            try:
                group.start(failing)
            except Oops:
                pass
            group.cancel()

    block()
    gc.collect()
    gc.disable()
    try:
        block()
        assert gc.collect() == 0
    finally:
        gc.enable()
