"""Lock, RLock, Semaphore, BoundedSemaphore in fibers: order, hand-over, cancellation, and who holds what.

That they are like those of `threading` in all that a plain thread can see is in test_cpython_suites.py.
"""

import copy
import pickle
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
from support.settling import Oops, settle, started, waiting

import fibers
from fibers.core.scheduler import get_scheduler, state

KINDS: list[Callable[[], Any]] = [
    fibers.Lock,
    fibers.RLock,
    fibers.Semaphore,
    fibers.BoundedSemaphore,
    fibers.Condition,
]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def free(lock: Any) -> bool:
    """Can another fiber take it without waiting?"""

    def look() -> bool:
        if lock.acquire(False):
            lock.release()
            return True
        return False

    return fibers.spawn(look).result()


@every_kind
def test_first_come_first_served(kind: Callable[[], Any]) -> None:
    lock, order = kind(), []

    def worker(number: int) -> None:
        with lock:
            order.append(number)
            fibers.yield_now()

    with lock:
        workers = [started(worker, number) for number in range(20)]
        assert order == []
    for worker_fiber in workers:
        worker_fiber.join(5)
    assert order == list(range(20))
    assert free(lock)


@pytest.mark.parametrize("kind", [fibers.Lock, fibers.Semaphore, fibers.BoundedSemaphore])
def test_a_newcomer_does_not_overtake(kind: Callable[[], Any]) -> None:
    """What is released while somebody waits is never free: also not for who released it."""
    lock = kind()
    assert lock.acquire()
    waiter = started(lock.acquire)
    lock.release()
    assert not lock.acquire(False)
    assert not lock.acquire(timeout=0)
    assert waiter.result()
    lock.release()
    assert lock.acquire(False)
    lock.release()


@every_kind
def test_who_releases_and_takes_again_comes_after_those_who_wait(kind: Callable[[], Any]) -> None:
    lock, order = kind(), []

    def greedy() -> None:
        for _ in range(3):
            with lock:
                order.append("greedy")
                settle(1)

    def modest() -> None:
        with lock:
            order.append("modest")

    every = [fibers.spawn(greedy), fibers.spawn(modest), fibers.spawn(modest)]
    for fiber in every:
        fiber.join(5)
    assert order == ["greedy", "modest", "modest", "greedy", "greedy"]


@every_kind
@pytest.mark.parametrize("how", ["cancel", "kill", "timeout", "scope"])
def test_who_is_interrupted_while_it_waits_does_not_hold_it(kind: Callable[[], Any], how: str) -> None:
    lock = kind()
    scopes: list[fibers.CancelScope] = []

    def impatient() -> object:
        if how == "timeout":
            return lock.acquire(timeout=0.001)
        with fibers.CancelScope() as scope:
            scopes.append(scope)
            lock.acquire()
            return "taken"
        return "cancelled"

    with lock:
        fiber = started(impatient)
        behind = started(lock.acquire)
        if how == "cancel":
            fiber.cancel()
        elif how == "kill":
            fiber.kill(Oops)
        elif how == "scope":
            scopes[0].cancel()
        fiber.join(5)
    if how in ("cancel", "kill"):
        assert isinstance(fiber.exception(), fibers.FiberCancelled if how == "cancel" else Oops)
    else:
        assert fiber.result() == (False if how == "timeout" else "cancelled")
    assert behind.result(5) is True


@every_kind
@pytest.mark.parametrize("how", ["cancel", "kill"])
def test_who_has_been_given_it_has_it_although_it_is_cancelled(kind: Callable[[], Any], how: str) -> None:
    """The call ends well; the next wait raises. Nothing is lost, and nobody holds what he does not know of."""
    lock, seen = kind(), []

    def worker() -> None:
        with lock:
            seen.append("held")
            fibers.sleep(3600)

    with lock:
        fiber = started(worker)
    fiber.cancel() if how == "cancel" else fiber.kill(Oops)
    assert fiber.exception(5) is not None
    assert seen == ["held"]
    assert free(lock)


@every_kind
def test_a_cancelled_fiber_takes_what_is_free_and_does_not_wait(kind: Callable[[], Any]) -> None:
    """Level-triggered: each call that would wait raises, and leaves no trace."""
    free_lock, held = kind(), kind()

    def cancelled() -> int:
        caught = 0
        fibers.current().cancel()
        with free_lock:
            pass
        for _ in range(3):
            try:
                held.acquire()
            except fibers.Cancelled:
                caught += 1
            assert not held.acquire(False)
        return caught

    with held:
        assert fibers.spawn(cancelled).result(5) == 3
    assert free(held)
    assert free(free_lock)


@every_kind
def test_a_deadline_further_out_surfaces_once_as_the_timeout_of_the_call(kind: Callable[[], Any]) -> None:
    lock = kind()

    def worker() -> list[object]:
        seen: list[object] = []
        with fibers.move_on_after(0.001) as scope:
            seen.append(lock.acquire(timeout=3600))
            seen.append("still here")
            lock.acquire(timeout=3600)
            seen.append("never")
        seen.append(scope.cancelled_caught)
        return seen

    def without_timeout() -> bool:
        with fibers.move_on_after(0.001):
            lock.acquire()
            return False
        return True

    with lock:
        assert fibers.spawn(worker).result(5) == [False, "still here", True]
        assert fibers.spawn(without_timeout).result(5)


@every_kind
def test_a_timeout_is_not_early(kind: Callable[[], Any]) -> None:
    lock = kind()

    def worker() -> float:
        before = fibers.current_time()
        assert lock.acquire(True, 0.01) is False
        return fibers.current_time() - before

    with lock:
        assert fibers.spawn(worker).result(5) >= 0.01


@every_kind
def test_bad_timeouts(kind: Callable[[], Any]) -> None:
    lock = kind()

    def tries() -> None:
        with pytest.raises(ValueError, match="non-blocking"):
            lock.acquire(False, 1)
        with pytest.raises(OverflowError, match="too large"):
            lock.acquire(timeout=float("inf"))
        with pytest.raises(ValueError, match="nan"):
            lock.acquire(timeout=float("nan"))
        with pytest.raises(TypeError):
            lock.acquire(timeout="1")

    with lock:
        fibers.spawn(tries).result(5)
    assert free(lock)


def test_a_lock_refuses_negative_timeouts() -> None:
    for lock in (fibers.Lock(), fibers.RLock()):
        with pytest.raises(ValueError, match=r"non-negative number, not -2"):
            lock.acquire(timeout=-2)
        assert free(lock)


@pytest.mark.parametrize("value", [-1, 1.5, "1", None])
def test_bad_numbers_of_permits(value: Any) -> None:
    for kind in (fibers.Semaphore, fibers.BoundedSemaphore):
        with pytest.raises((TypeError, ValueError), match=re.escape(repr(value))):
            kind(value)
        if value is not None:
            semaphore = kind(3)
            with pytest.raises((TypeError, ValueError), match=re.escape(repr(value))):
                semaphore.release(value)
            assert semaphore._value == 3


@every_kind
def test_inside_the_runtime_a_free_one_may_be_taken_and_a_held_one_not_waited_for(kind: Callable[[], Any]) -> None:
    """A done-callback runs inside the scheduler: what would wait is refused, at once and by name."""
    lock, seen = kind(), []

    def callback(fiber: object) -> None:
        seen.append(lock.acquire(False))
        try:
            seen.append(lock.acquire())
        except RuntimeError as error:
            seen.append(str(error))

    def hold() -> None:
        with lock:
            fibers.sleep(3600)

    held = started(hold)
    fiber = fibers.spawn(int)
    fiber.add_done_callback(callback)
    fiber.join(5)
    assert seen[0] is False
    assert "inside the runtime" in str(seen[1])
    held.cancel()
    held.join()


def test_a_callback_can_hold_and_release() -> None:
    for lock in (fibers.Lock(), fibers.RLock()):

        def callback(fiber: object, lock: Any = lock) -> None:
            with lock:
                assert lock.locked()

        fiber = fibers.spawn(int)
        fiber.add_done_callback(callback)
        fiber.join(5)
        assert not lock.locked()


@pytest.mark.parametrize("kind", [fibers.Lock, fibers.Semaphore])
def test_whoever_likes_may_release(kind: Callable[[], Any]) -> None:
    lock = kind()
    fibers.spawn(lock.acquire).result(5)
    fibers.spawn(lock.release).result(5)
    assert free(lock)


def test_a_lock_that_is_free_cannot_be_released() -> None:
    with pytest.raises(RuntimeError, match="release unlocked lock"):
        fibers.Lock().release()
    with pytest.raises(RuntimeError, match="un-acquired"):
        fibers.RLock().release()


def test_a_lock_is_not_reentrant() -> None:
    lock = fibers.Lock()
    with lock:
        assert not lock.acquire(False)
        assert not lock.acquire(timeout=0.001)


def test_an_rlock_belongs_to_the_fiber_not_to_the_thread() -> None:
    lock = fibers.RLock()
    with lock, lock:
        assert not fibers.spawn(lock.acquire, False).result(5)
        with pytest.raises(RuntimeError, match="does not hold"):
            fibers.spawn(lock.release).result(5)
        waiter = started(lock.acquire)
    assert waiter.result(5)
    assert lock.locked()
    assert not lock.acquire(False)


def test_an_rlock_taken_before_a_thread_has_fibers_is_its_main_fibers_and_the_other_way_round() -> None:
    lock, told = fibers.RLock(), []

    def thread() -> None:
        lock.acquire()  # this thread has no scheduler
        fibers.sleep(0)
        lock.acquire()
        lock.release()
        told.append(fibers.spawn(lock.acquire, False).result())
        lock.release()
        fibers.run(lock.acquire)
        lock.release()
        told.append(lock.locked())

    plain = threading.Thread(target=thread)
    plain.start()
    plain.join(5)
    assert told == [False, False]


def test_an_rlock_taken_inside_run_is_released_after_it() -> None:
    lock, told = fibers.RLock(), []

    def thread() -> None:
        fibers.run(lock.acquire)
        told.append(lock.acquire(False))
        lock.release()
        lock.release()
        told.append(lock.locked())

    plain = threading.Thread(target=thread)
    plain.start()
    plain.join(5)
    assert told == [True, False]


def test_uncontended_locks_make_no_event_loop_in_a_plain_thread() -> None:
    told = []

    def thread() -> None:
        for lock in (fibers.Lock(), fibers.RLock(), fibers.Semaphore(), fibers.Condition()):
            with lock:
                pass
        event, queue = fibers.Event(), fibers.Queue[int]()
        event.set()
        event.wait()
        queue.put(1)
        queue.get()
        fibers.Local().x = 1
        told.append(state.scheduler)

    plain = threading.Thread(target=thread)
    plain.start()
    plain.join(5)
    assert told == [None]


def test_the_holder_is_named() -> None:
    lock, again = fibers.Lock(), fibers.RLock()

    def worker() -> None:
        with lock, again, again:
            fibers.sleep(3600)

    fiber = started(worker, name="gardener")
    assert repr(lock).startswith("<locked fibers.Lock object held by fiber 'gardener' at 0x")
    assert repr(again).startswith("<locked fibers.RLock object held by fiber 'gardener' 2 times at 0x")
    fiber.cancel()
    fiber.join()
    assert repr(lock).startswith("<unlocked fibers.Lock object at 0x")


def test_a_fiber_that_ends_leaves_its_lock_locked_and_is_named_all_the_same() -> None:
    lock = fibers.Lock()
    fibers.spawn(lock.acquire, name="gone").join()
    assert lock.locked()
    assert "held by fiber 'gone', which is done, at" in repr(lock)


def test_a_thread_without_fibers_is_named() -> None:
    lock, told = fibers.Lock(), []

    def hold() -> None:
        lock.acquire()
        told.append(repr(lock))

    plain = threading.Thread(target=hold, name="farmer")
    plain.start()
    plain.join()
    assert "held by thread 'farmer' at" in told[0]
    assert f"held by thread {plain.ident}, which is done, at" in repr(lock)


@every_kind
def test_none_of_them_can_be_copied(kind: Callable[[], Any]) -> None:
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot pickle"):
            attempt(kind())


def test_a_semaphore_serves_as_many_as_are_released() -> None:
    semaphore, order = fibers.Semaphore(0), []

    def worker(number: int) -> None:
        semaphore.acquire()
        order.append(number)

    workers = [started(worker, number) for number in range(10)]
    semaphore.release(4)
    settle()
    assert order == [0, 1, 2, 3]
    assert not semaphore.acquire(False)
    semaphore.release(8)
    settle()
    assert order == list(range(10))
    assert semaphore._value == 2
    for fiber in workers:
        fiber.join(5)


def test_a_bounded_semaphore_refuses_whole_or_nothing() -> None:
    semaphore = fibers.BoundedSemaphore(3)
    assert semaphore.acquire()
    with pytest.raises(ValueError, match=r"too many times: 2 more, and 2/3 are free"):
        semaphore.release(2)
    assert semaphore._value == 2
    semaphore.release()
    with pytest.raises(ValueError, match="too many"):
        semaphore.release()


def test_ten_thousand_that_wait() -> None:
    lock, done = fibers.Lock(), []

    def work() -> None:
        with lock:
            done.append(1)

    with lock:
        workers = [fibers.spawn(work) for _ in range(10_000)]
        settle()
    for fiber in workers:
        fiber.join(20)
    assert len(done) == 10_000


def test_waiting_says_so() -> None:
    lock = fibers.Lock()
    with lock:
        fiber = started(lock.acquire)
        assert waiting(fiber)
    assert fiber.result(5)
    assert not waiting(fiber)


@pytest.mark.parametrize("kind", [fibers.Lock, fibers.Semaphore])
def test_nothing_is_left_with_fibers_that_the_end_of_their_thread_has_left_behind(kind: Callable[[], Any]) -> None:
    """One waits, one has been handed the lock and has not run since: nobody waits for what they will never give back."""
    awaited, handed = kind(), kind()
    awaited.acquire()
    handed.acquire()

    def thread() -> None:
        fibers.spawn(awaited.acquire)
        fibers.spawn(handed.acquire)
        settle()
        handed.release()
        get_scheduler().close()
        state.scheduler = None

    plain = threading.Thread(target=thread)
    plain.start()
    plain.join(10)
    assert handed.acquire(False)
    awaited.release()
    assert awaited.acquire(False)
