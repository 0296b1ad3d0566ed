"""Calls in worker threads: what comes back, what is carried over, and what cancellation does to a call under way."""

import contextvars
import gc
import logging
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.scale import scaled

import fibers
from fibers.threads import to_thread as threads
from fibers.threads import workers


class Gate:
    """A call that is inside until it is let go."""

    def __init__(self, result: object = "result", error: BaseException | None = None) -> None:
        self.started = threading.Event()
        self.go = threading.Event()
        self.ended = threading.Event()
        self._result = result
        self._error = error

    def __call__(self) -> object:
        self.started.set()
        try:
            assert self.go.wait(20)
            if self._error is not None:
                raise self._error
            return self._result
        finally:
            self.ended.set()

    def entered(self) -> None:
        fibers.to_thread(self.started.wait, 20)


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.go.set()


# -- results ----------------------------------------------------------------------------------------------------------


def test_result_and_arguments_come_through() -> None:
    assert fibers.to_thread(lambda *args, **kwargs: (args, kwargs), 1, 2, three=3) == ((1, 2), {"three": 3})


def test_it_runs_in_a_worker_which_threading_knows_by_name() -> None:
    worker = fibers.to_thread(threading.current_thread)
    assert worker.name.startswith("fibers-worker-")
    assert worker.daemon
    assert fibers.to_thread(threading.get_ident) != threading.get_ident()


def test_others_run_meanwhile(gate: Gate) -> None:
    call = fibers.spawn(fibers.to_thread, gate)
    gate.entered()
    for _ in range(3):
        fibers.sleep(0.001)
    assert not call.done()
    gate.go.set()
    assert call.result(10) == "result"


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(3), StopIteration(4)])
def test_errors_are_raised_as_they_are(error: BaseException) -> None:
    def fails() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        fibers.to_thread(fails)
    assert caught.value is error


def test_the_traceback_shows_the_caller_and_the_function_and_no_machinery() -> None:
    def inner() -> None:
        raise ValueError("deep")

    def fails() -> None:
        inner()

    with pytest.raises(ValueError, match="deep") as caught:
        fibers.to_thread(fails)
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names[-3:] == ["to_thread", "fails", "inner"]
    assert names.count("to_thread") == 1
    assert "work" not in names


class Thing:
    """Something that a weak reference can watch."""


def test_neither_result_nor_error_nor_arguments_are_kept() -> None:
    thing = Thing()
    gone = weakref.ref(thing)

    def fails(argument: Thing) -> None:
        raise ValueError(argument)

    gc.disable()
    try:
        assert fibers.to_thread(lambda argument: argument, thing) is thing
        try:
            fibers.to_thread(fails, thing)
        except ValueError:
            pass
        fibers.to_thread(int)  # the worker has begun something else
        del thing
        assert gone() is None
    finally:
        gc.enable()


variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)


def test_the_context_is_carried_over_and_changes_stay_there() -> None:
    def look() -> int:
        seen = variable.get()
        variable.set(99)
        return seen

    def with_value(value: int) -> int:
        variable.set(value)
        seen = fibers.to_thread(look)
        assert variable.get() == value
        return seen

    assert [fiber.result() for fiber in [fibers.spawn(with_value, each) for each in (1, 2, 3)]] == [1, 2, 3]


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: fibers.to_thread(3), TypeError, "3"),  # type: ignore[arg-type]
        (lambda: fibers.to_thread(int, limiter=5), TypeError, "limiter must be a CapacityLimiter, not 5"),  # type: ignore[arg-type]
    ],
)
def test_bad_input(call: Callable[[], object], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


def test_it_cannot_be_called_inside_the_runtime() -> None:
    seen: list[BaseException] = []

    def callback(_: object) -> None:
        try:
            fibers.to_thread(int)
        except RuntimeError as error:
            seen.append(error)

    fiber = fibers.spawn(int)
    fiber.add_done_callback(callback)
    fiber.join()
    assert "would block inside the runtime" in str(seen[0])


def test_a_worker_may_call_others() -> None:
    assert fibers.to_thread(lambda: fibers.to_thread(lambda: fibers.to_thread(lambda: 7))) == 7


def test_fibers_of_a_call_end_with_it() -> None:
    """The next call of the same worker finds no loop and no fiber, and no descriptor stays open."""
    ended = []

    def leaves_a_fiber() -> int:
        def sleeper() -> None:
            try:
                fibers.sleep(3600)
            finally:
                ended.append(threading.get_ident())

        fibers.spawn(sleeper)
        fibers.yield_now()
        return threading.get_ident()

    before = set(fibers.all_fibers())
    worker = fibers.to_thread(leaves_a_fiber)
    assert ended == [worker]
    assert set(fibers.all_fibers()) <= before


def test_thousands_of_calls_at_once() -> None:
    count = scaled(20_000, least=2000)
    calls = [fibers.spawn(fibers.to_thread, pow, number, 2) for number in range(count)]
    assert [call.result(60) for call in calls] == [number * number for number in range(count)]
    assert threads.default_limiter.borrowed == 0


def test_one_call_after_another_needs_one_thread() -> None:
    fibers.to_thread(int)
    seen = {fibers.to_thread(threading.get_ident) for _ in range(scaled(2000, least=200))}
    assert len(seen) == 1


# -- how many at once -------------------------------------------------------------------------------------------------


def test_a_limiter_bounds_them() -> None:
    limiter = fibers.CapacityLimiter(3)
    inside, most = 0, 0
    lock = threading.Lock()

    def call() -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(0.001)
        with lock:
            inside -= 1

    for fiber in [fibers.spawn(fibers.to_thread, call, limiter=limiter) for _ in range(60)]:
        fiber.result(20)
    assert most <= 3
    assert limiter.borrowed == 0


def test_with_one_token_the_order_is_exact() -> None:
    limiter = fibers.CapacityLimiter(1)
    order: list[int] = []
    for fiber in [fibers.spawn(fibers.to_thread, order.append, number, limiter=limiter) for number in range(200)]:
        fiber.join(20)
    assert order == list(range(200))


def test_without_one_it_is_the_default_which_may_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    gates = [Gate(number) for number in range(4)]
    threads.default_limiter.total_tokens = 2
    try:
        calls = [fibers.spawn(fibers.to_thread, gate) for gate in gates]
        for gate in gates[:2]:
            while not gate.started.is_set():
                fibers.sleep(0.001)
        for _ in range(5):
            fibers.sleep(0.001)
        assert not gates[2].started.is_set()
        assert (threads.default_limiter.borrowed, threads.default_limiter.waiting) == (2, 2)
    finally:
        threads.default_limiter.total_tokens = threads.MAX_WORKERS
    for gate in gates:
        gate.go.set()
    assert [call.result(10) for call in calls] == [0, 1, 2, 3]


def test_a_call_that_was_given_up_keeps_its_token(gate: Gate) -> None:
    """The token stands for the thread, which is busy still."""
    limiter = fibers.CapacityLimiter(1)
    call = fibers.spawn(fibers.to_thread, gate, limiter=limiter, cancellable=True)
    gate.entered()
    call.cancel()
    call.join(10)
    assert limiter.borrowed == 1
    later = fibers.spawn(fibers.to_thread, int, limiter=limiter)
    fibers.sleep(0.002)
    assert not later.done()
    gate.go.set()
    assert later.result(10) == 0


def test_cancelled_while_it_waits_for_a_token_it_never_runs(gate: Gate) -> None:
    limiter = fibers.CapacityLimiter(1)
    first = fibers.spawn(fibers.to_thread, gate, limiter=limiter)
    gate.entered()
    ran: list[int] = []
    second = fibers.spawn(fibers.to_thread, ran.append, 2, limiter=limiter)
    third = fibers.spawn(fibers.to_thread, ran.append, 3, limiter=limiter)
    fibers.yield_now()
    second.cancel()
    second.join(10)
    assert second.cancelled()
    gate.go.set()
    third.join(10)
    first.join(10)
    assert ran == [3]
    assert limiter.borrowed == 0


# -- cancellation -----------------------------------------------------------------------------------------------------


def test_a_cancelled_caller_waits_for_the_end_and_raises_then(gate: Gate) -> None:
    after: list[bool] = []

    def caller() -> None:
        try:
            fibers.to_thread(gate)
        finally:
            after.append(gate.ended.is_set())

    fiber = fibers.spawn(caller)
    gate.entered()
    fiber.cancel()
    for _ in range(3):
        fibers.sleep(0.001)
    assert not fiber.done()
    fiber.cancel()  # again changes nothing
    fibers.sleep(0.001)
    assert not fiber.done()
    gate.go.set()
    fiber.join(10)
    assert fiber.cancelled()
    assert after == [True]


def test_waiting_for_the_end_costs_no_turns(gate: Gate) -> None:
    """A cancelled fiber that waits must not spin."""
    fiber = fibers.spawn(fibers.to_thread, gate)
    gate.entered()
    fiber.cancel()
    fibers.sleep(0.001)
    stats = fibers.current().scheduler.loop.stats  # type: ignore[attr-defined]
    before = stats.turns
    fibers.sleep(0.05)
    assert stats.turns - before < 5
    gate.go.set()
    fiber.join(10)


def test_every_further_wait_raises_too(gate: Gate) -> None:
    raised: list[str] = []

    def caller() -> None:
        for _ in range(3):
            try:
                fibers.to_thread(gate)
            except fibers.Cancelled:
                raised.append("call")
        fibers.sleep(1)

    fiber = fibers.spawn(caller)
    gate.entered()
    fiber.cancel()
    gate.go.set()
    fiber.join(10)
    assert fiber.cancelled()
    assert raised == ["call"] * 3


def test_an_error_of_the_call_is_not_dropped_for_cancelled() -> None:
    gate = Gate(error=ValueError("important"))
    seen: list[BaseException] = []

    def caller() -> None:
        try:
            fibers.to_thread(gate)
        except ValueError as error:
            seen.append(error)
        fibers.sleep(1)  # and it is cancelled all the same

    fiber = fibers.spawn(caller)
    gate.entered()
    fiber.cancel()
    gate.go.set()
    fiber.join(10)
    assert [str(error) for error in seen] == ["important"]
    assert fiber.cancelled()


def test_a_call_that_has_ended_before_returns_its_result(gate: Gate) -> None:
    """The wake-up is on its way: an interruption does not overtake it."""
    results: list[object] = []

    def caller() -> None:
        results.append(fibers.to_thread(gate))
        fibers.sleep(1)

    fiber = fibers.spawn(caller)
    gate.entered()
    gate.go.set()
    while workers.under_way():
        time.sleep(0.001)  # not as a fiber: nothing of what arrives is looked at
    fiber.cancel()
    fiber.join(10)
    assert results == ["result"]
    assert fiber.cancelled()


def test_a_result_that_must_not_be_lost_is_called_for_under_a_shield(gate: Gate) -> None:
    results: list[object] = []

    def caller() -> None:
        with fibers.shield():
            results.append(fibers.to_thread(gate))
        fibers.yield_now()

    fiber = fibers.spawn(caller)
    gate.entered()
    fiber.cancel()
    gate.go.set()
    fiber.join(10)
    assert results == ["result"]
    assert fiber.cancelled()


@pytest.mark.parametrize("scope", [fibers.timeout(3600), fibers.move_on_after(3600)])
def test_a_deadline_does_the_same(gate: Gate, scope: fibers.CancelScope) -> None:
    def passes() -> None:
        gate.entered()
        scope.deadline = fibers.current_time()
        fibers.sleep(0.005)
        gate.go.set()

    fibers.spawn(passes)
    try:
        with scope:
            fibers.to_thread(gate)
            pytest.fail("not reached")
    except TimeoutError:
        assert isinstance(scope, fibers.timeout)
    assert scope.cancelled_caught
    assert gate.ended.is_set()
    assert fibers.to_thread(int) == 0


def test_cancellable_gives_the_call_up_at_once(gate: Gate) -> None:
    fiber = fibers.spawn(fibers.to_thread, gate, cancellable=True)
    gate.entered()
    fiber.cancel()
    fiber.join(10)
    assert fiber.cancelled()
    assert not gate.ended.is_set()
    with fibers.move_on_after(0.01) as scope:
        fibers.to_thread(gate, cancellable=True)
    assert scope.cancelled_caught
    assert not gate.ended.is_set()


@pytest.mark.parametrize("cancellable", [False, True])
def test_kill_comes_at_once(gate: Gate, cancellable: bool) -> None:
    """It is there to end what does not end by itself."""
    fiber = fibers.spawn(fibers.to_thread, gate, cancellable=cancellable)
    gate.entered()
    fiber.kill(ZeroDivisionError("now"))
    with pytest.raises(ZeroDivisionError):
        fiber.result(10)
    assert not gate.ended.is_set()


def test_kill_comes_at_once_also_to_who_waits_on_after_a_cancellation(gate: Gate) -> None:
    fiber = fibers.spawn(fibers.to_thread, gate)
    gate.entered()
    fiber.cancel()
    fibers.sleep(0.001)
    fiber.kill(ZeroDivisionError("now"))
    with pytest.raises(ZeroDivisionError):
        fiber.result(10)


def test_a_cancelled_fiber_calls_nothing() -> None:
    ran: list[int] = []
    with fibers.CancelScope() as scope:
        scope.cancel()
        fibers.to_thread(ran.append, 1)
    assert scope.cancelled_caught
    assert ran == []


def test_check_cancelled_lets_a_call_end_early() -> None:
    started = threading.Event()

    def computes() -> None:
        started.set()
        while True:
            fibers.from_thread.check_cancelled()
            time.sleep(0.001)

    fiber = fibers.spawn(fibers.to_thread, computes)
    fibers.to_thread(started.wait, 10)
    fiber.cancel()
    fiber.join(10)
    assert fiber.cancelled()


def test_check_cancelled_is_for_workers() -> None:
    with pytest.raises(RuntimeError, match="outside of a call"):
        fibers.from_thread.check_cancelled()


@pytest.mark.parametrize(
    ("error", "level"), [(ValueError("lost?"), logging.WARNING), (OSError("no answer"), logging.INFO)]
)
def test_the_error_of_a_call_that_was_given_up_is_logged(
    error: Exception, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fibers")
    gate = Gate(error=error)
    fiber = fibers.spawn(fibers.to_thread, gate, cancellable=True)
    gate.entered()
    fiber.cancel()
    fiber.join(10)
    gate.go.set()
    while workers.under_way():
        fibers.sleep(0.001)
    (record,) = caplog.records
    assert record.levelno == level
    assert "which was given up, has failed" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_cancelled_at_any_moment_nothing_is_lost() -> None:
    """Cancel and completion meet, over and over: each call ends in one way, and every token and thread comes back."""
    limiter = fibers.CapacityLimiter(4)
    ends: list[str] = []

    def caller(cancellable: bool) -> None:
        try:
            assert fibers.to_thread(int, limiter=limiter, cancellable=cancellable) == 0
            ends.append("result")
        except fibers.Cancelled:
            ends.append("cancelled")
            raise

    rounds = scaled(4000, least=300)
    for number in range(rounds):
        fiber = fibers.spawn(caller, number % 2 == 0)
        for _ in range(number % 7):
            fibers.yield_now()
        if number % 3:
            time.sleep(0)
        fiber.cancel()
        fiber.join(10)
    # Those that were cancelled before they started do not count.
    assert 0 < len(ends) <= rounds
    while workers.under_way():
        fibers.sleep(0.001)
    assert limiter.borrowed == limiter.waiting == 0


def test_fibers_of_many_threads_share_pool_and_limiter() -> None:
    limiter = fibers.CapacityLimiter(5)
    results: list[Any] = []

    def thread(number: int) -> None:
        def main() -> None:
            calls = [fibers.spawn(fibers.to_thread, pow, number, each, limiter=limiter) for each in range(50)]
            results.append(sum(call.result(20) for call in calls) == sum(number**each for each in range(50)))

        fibers.run(main)

    made = [threading.Thread(target=thread, args=(number,)) for number in range(4)]
    for each in made:
        each.start()
    for each in made:
        each.join()
    assert results == [True] * 4
    assert limiter.borrowed == 0
