"""Event, Condition, Barrier and WaitGroup in fibers. What a plain thread can see of them is in test_cpython_suites.py."""

import copy
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
from support.settling import Oops, settle, started, waiting

import fibers

# -- Event and WaitGroup: both are waited for until they are true


class Held(fibers.WaitGroup):
    """A WaitGroup in the clothes of an Event."""

    def __init__(self) -> None:
        super().__init__()
        self.add()

    def set(self) -> None:
        self.done()

    def clear(self) -> None:
        self.add()

    def is_set(self) -> bool:
        return not self.count


either = pytest.mark.parametrize("kind", [fibers.Event, Held], ids=["Event", "WaitGroup"])


@either
def test_all_who_wait_are_woken_in_order(kind: Callable[[], Any]) -> None:
    event, order = kind(), []

    def worker(number: int) -> None:
        assert event.wait() is True
        order.append(number)

    workers = [started(worker, number) for number in range(10)]
    assert order == []
    event.set()
    for fiber in workers:
        fiber.join(5)
    assert order == list(range(10))
    assert event.wait() is True
    assert event.wait(0) is True


@either
def test_who_waited_when_it_was_set_has_seen_it_although_it_is_cleared(kind: Callable[[], Any]) -> None:
    event = kind()
    workers = [started(event.wait) for _ in range(3)]
    late: list[fibers.Fiber[bool]] = []
    event.set()
    event.clear()
    late.append(started(event.wait))
    assert [fiber.result(5) for fiber in workers] == [True] * 3
    assert waiting(late[0])
    late[0].cancel()
    late[0].join()


@either
@pytest.mark.parametrize("timeout", [0, -1, 0.001])
def test_timeouts(kind: Callable[[], Any], timeout: float) -> None:
    event = kind()
    before = fibers.current_time()
    assert event.wait(timeout) is False
    assert fibers.current_time() - before >= timeout
    assert fibers.spawn(event.wait, timeout).result(5) is False


@either
@pytest.mark.parametrize("timeout", [float("nan"), float("inf"), "1"])
def test_bad_timeouts(kind: Callable[[], Any], timeout: Any) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError)):
        kind().wait(timeout)


@either
@pytest.mark.parametrize("how", ["cancel", "kill"])
def test_interrupted_waits(kind: Callable[[], Any], how: str) -> None:
    event = kind()
    fiber, other = started(event.wait), started(event.wait)
    fiber.cancel() if how == "cancel" else fiber.kill(Oops)
    with pytest.raises((fibers.FiberCancelled, Oops)):
        fiber.result(5)
    event.set()
    assert other.result(5) is True


@either
def test_a_deadline_further_out_surfaces_once(kind: Callable[[], Any]) -> None:
    event = kind()

    def worker() -> list[object]:
        seen: list[object] = []
        with fibers.move_on_after(0.001):
            seen.append(event.wait(3600))
            event.wait(3600)
            seen.append("never")
        with fibers.move_on_after(0.001):
            event.wait()
            seen.append("never")
        return seen

    assert fibers.spawn(worker).result(5) == [False]


@either
def test_setting_from_a_done_callback(kind: Callable[[], Any]) -> None:
    event = kind()
    fiber = fibers.spawn(int)
    fiber.add_done_callback(lambda _: event.set())
    assert event.wait(5) is True


def test_a_wait_group_counts() -> None:
    group = fibers.WaitGroup()
    assert group.wait() is True
    group.add(3)
    assert group.count == 3
    assert "3 under way" in repr(group)
    group.done()
    assert group.wait(0) is False
    group.add(-2)
    assert group.wait(0) is True


def test_a_wait_group_does_not_go_below_zero() -> None:
    group = fibers.WaitGroup()
    group.add(2)
    waiter = started(group.wait)
    with pytest.raises(ValueError, match="3 things done, but only 2 under way"):
        group.add(-3)
    assert group.count == 2
    assert waiting(waiter)
    group.add(-2)
    assert waiter.result(5)
    with pytest.raises(ValueError, match="1 things done, but only 0 under way"):
        group.done()


@pytest.mark.parametrize("n", [1.5, "1", None])
def test_a_wait_group_counts_whole_things(n: Any) -> None:
    group = fibers.WaitGroup()
    with pytest.raises(TypeError, match=re.escape(repr(n))):
        group.add(n)
    assert group.count == 0


# -- Condition


def test_those_who_have_waited_longest_are_notified_first() -> None:
    condition, order = fibers.Condition(), []

    def worker(number: int) -> None:
        with condition:
            assert condition.wait() is True
            order.append(number)

    workers = [started(worker, number) for number in range(6)]
    with condition:
        condition.notify()
        condition.notify(2)
        settle()
        assert order == []  # the lock is still ours
    settle()
    assert order == [0, 1, 2]
    with condition:
        condition.notify_all()
    for fiber in workers:
        fiber.join(5)
    assert order == list(range(6))


@pytest.mark.parametrize("lock", [fibers.Lock, fibers.RLock, threading.Lock, threading.RLock])
def test_any_kind_of_lock(lock: Callable[[], Any]) -> None:
    condition = fibers.Condition(lock())
    for use in (condition.wait, condition.notify, condition.notify_all):
        with pytest.raises(RuntimeError, match="un-acquired lock"):
            use()
    seen: list[bool] = []

    def worker() -> None:
        with condition:
            seen.append(condition.wait(5))

    fiber = started(worker)
    with condition:
        condition.notify()
    fiber.join(5)
    assert seen == [True]
    assert condition.acquire(False)
    condition.release()


def test_an_rlock_is_let_go_of_and_taken_again_as_often_as_it_was_held() -> None:
    condition = fibers.Condition()

    def worker() -> None:
        with condition, condition:
            condition.wait()
            assert condition._lock._again == 1

    fiber = started(worker)
    with condition:
        condition.notify()
    fiber.result(5)
    assert condition.acquire(False)
    condition.release()


@pytest.mark.parametrize("lock", [fibers.Lock, fibers.RLock])
@pytest.mark.parametrize("how", ["cancel", "kill", "timeout", "scope"])
def test_the_lock_is_held_again_also_by_who_is_interrupted(lock: Callable[[], Any], how: str) -> None:
    condition = fibers.Condition(lock())
    seen: list[object] = []
    scopes: list[fibers.CancelScope] = []

    def worker() -> None:
        with fibers.CancelScope() as scope:
            scopes.append(scope)
            with condition:
                try:
                    seen.append(condition.wait(0.001 if how == "timeout" else None))
                finally:
                    seen.append(condition._lock.locked())
                    seen.append("of the waiter" if condition._lock._holder is fibers.current() else "of another")

    fiber = started(worker)
    with condition:
        if how == "cancel":
            fiber.cancel()
        elif how == "kill":
            fiber.kill(Oops)
        elif how == "scope":
            scopes[0].cancel()
        fibers.sleep(0.005)
        assert seen == []  # it waits for the lock, whatever has happened to it
        assert not fiber.done()
        fiber.cancel()  # also if it is told again
        settle()
        assert seen == []
    fiber.join(5)
    assert seen[-2:] == [True, "of the waiter"]
    assert not condition._lock.locked()


def test_a_notification_is_not_lost_with_a_waiter_that_is_cancelled() -> None:
    """Either order: cancelled first, the next one gets it; notified first, it has got it and says so."""
    condition, got = fibers.Condition(fibers.Lock()), []

    def worker(number: int) -> None:
        with condition:
            condition.wait()
            got.append(number)

    for cancel_first in (True, False):
        got.clear()
        first, second = started(worker, 1), started(worker, 2)
        with condition:
            if cancel_first:
                first.cancel()
            condition.notify()
            if not cancel_first:
                first.cancel()
        settle()
        assert got == ([2] if cancel_first else [1])
        first.join(5)
        with condition:
            condition.notify()
        second.join(5)


def test_wait_for() -> None:
    condition, state = fibers.Condition(), [0]

    def worker() -> object:
        with condition:
            return condition.wait_for(lambda: state[0] >= 2 and "enough")

    fiber = started(worker)
    for _ in range(2):
        assert not fiber.done()
        with condition:
            state[0] += 1
            condition.notify()
        settle()
    assert fiber.result(5) == "enough"
    with condition:
        assert condition.wait_for(lambda: 0, 0.001) == 0
        assert condition.wait_for(lambda: 0, -1) == 0
        assert condition.wait_for(lambda: 7, 0) == 7


def test_a_deadline_further_out_ends_a_wait_for_with_a_timeout() -> None:
    condition = fibers.Condition()

    def worker() -> list[object]:
        seen: list[object] = []
        with condition, fibers.move_on_after(0.001):
            seen.append(condition.wait(3600))
            condition.wait(3600)
        with condition, fibers.move_on_after(0.001):
            seen.append(condition.wait_for(lambda: None, 3600))
            condition.wait_for(lambda: None, 3600)
            seen.append("never")
        return seen

    assert fibers.spawn(worker).result(5) == [False, None]


def test_a_predicate_that_fails_leaves_the_lock_held() -> None:
    condition = fibers.Condition()

    def predicate() -> bool:
        raise Oops

    with condition:
        with pytest.raises(Oops):
            condition.wait_for(predicate)
        assert condition._lock.locked()


# -- Barrier


def test_all_parties_leave_together_with_a_number_each() -> None:
    calls: list[int] = []
    barrier = fibers.Barrier(3, lambda: calls.append(1))
    for turn in range(4):
        workers = [started(barrier.wait) for _ in range(2)]
        assert barrier.n_waiting == 2
        assert barrier.wait() == 2
        assert [fiber.result(5) for fiber in workers] == [0, 1]
        assert len(calls) == turn + 1
    assert (barrier.parties, barrier.n_waiting, barrier.broken) == (3, 0, False)


def test_a_cancelled_party_leaves_and_another_takes_its_place() -> None:
    barrier = fibers.Barrier(3)
    first, second = started(barrier.wait), started(barrier.wait)
    first.cancel()
    first.join(5)
    assert (barrier.n_waiting, barrier.broken) == (1, False)
    third = started(barrier.wait)
    assert not third.done()
    assert barrier.wait() == 2
    assert {second.result(5), third.result(5)} == {0, 1}


def test_a_party_that_was_let_go_and_then_cancelled_counts() -> None:
    barrier = fibers.Barrier(2)

    def pass_and_sleep() -> None:
        barrier.wait()
        fibers.sleep(3600)

    fiber = started(pass_and_sleep)
    barrier.wait()
    fiber.cancel()
    fiber.join(5)
    assert (barrier.n_waiting, barrier.broken) == (0, False)
    other = started(barrier.wait)
    barrier.wait()
    other.join(5)


def test_a_timeout_breaks_it_until_it_is_reset() -> None:
    barrier = fibers.Barrier(3, timeout=0.01)
    patient = started(barrier.wait, 3600)
    with pytest.raises(fibers.BrokenBarrierError):
        barrier.wait()
    with pytest.raises(fibers.BrokenBarrierError):
        patient.result(5)
    with pytest.raises(fibers.BrokenBarrierError):
        barrier.wait()
    assert barrier.broken
    assert "broken" in repr(barrier)
    barrier.reset()
    workers = [started(barrier.wait) for _ in range(2)]
    barrier.wait()
    for fiber in workers:
        fiber.result(5)


def test_an_action_that_fails_breaks_it() -> None:
    def action() -> None:
        raise Oops

    barrier = fibers.Barrier(2, action)
    waiter = started(barrier.wait)
    with pytest.raises(Oops):
        barrier.wait()
    with pytest.raises(fibers.BrokenBarrierError):
        waiter.result(5)


def test_reset_and_abort_wake_those_who_wait() -> None:
    for end in (fibers.Barrier.reset, fibers.Barrier.abort):
        barrier = fibers.Barrier(3)
        workers = [started(barrier.wait) for _ in range(2)]
        end(barrier)
        for fiber in workers:
            with pytest.raises(fibers.BrokenBarrierError):
                fiber.result(5)
        assert barrier.broken == (end is fibers.Barrier.abort)


def test_a_barrier_needs_a_party() -> None:
    with pytest.raises(ValueError, match="parties must be > 0, not 0"):
        fibers.Barrier(0)


def test_none_of_them_can_be_copied() -> None:
    for each in (fibers.Event(), fibers.WaitGroup(), fibers.Condition()):
        with pytest.raises(TypeError, match="cannot pickle"):
            copy.copy(each)
