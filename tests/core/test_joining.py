"""`join`, `result`, `exception`, `done`, done-callbacks: how a fiber's end is learnt of, from any thread.

Facts. A fiber, once done, stays done. Whoever asks may be a fiber of the same thread, of another thread's scheduler, or a
plain thread that has never waited for anything (asking makes it a loop, which goes with the thread). A done-callback
runs inside the scheduler, so it must not block; what it raises must stop nobody.
"""

import logging
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from support.scale import scaled

import fibers
from fibers.core.scheduler import state
from fibers.testing import VirtualClock

BAD_TIMEOUTS: list[tuple[Any, type[Exception]]] = [
    (-1, ValueError),
    (float("nan"), ValueError),
    ("1", TypeError),
    (1j, TypeError),
]
Ask = Callable[..., object]
ASKING: list[Ask] = [fibers.Fiber.join, fibers.Fiber.result, fibers.Fiber.exception]


class Oops(Exception):
    pass


def fail(message: str = "oops") -> None:
    raise Oops(message)


def endless() -> fibers.Fiber[None]:
    fiber = fibers.spawn(fibers.sleep, float("inf"), name="endless")
    fibers.yield_now()
    return fiber


def end(fiber: fibers.Fiber[Any]) -> None:
    fiber.cancel()
    fiber.join()


def elsewhere(fn: Callable[..., Any], *args: Any) -> Any:
    """What `fn` returns or raises in a new thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(fn, *args).result()


def test_result_returns_what_the_function_returned_as_often_as_asked() -> None:
    value = object()
    fiber = fibers.spawn(lambda: value)
    assert fiber.result() is value
    assert fiber.result() is value
    assert fiber.exception() is None
    assert fiber.done()
    assert not fiber.cancelled()


def test_result_raises_what_the_function_raised() -> None:
    fiber = fibers.spawn(fail)
    for _ in range(2):
        with pytest.raises(Oops, match="oops") as caught:
            fiber.result()
        assert caught.value is fiber.exception()


def test_exception_waits() -> None:
    fiber = fibers.spawn_later(0.001, fail)
    assert isinstance(fiber.exception(), Oops)


def test_join_neither_raises_nor_returns_the_outcome() -> None:
    fiber = fibers.spawn_later(0.001, fail)
    fiber.join()
    assert fiber.done()
    assert isinstance(fiber.exception(), Oops)


@pytest.mark.parametrize("ask", ASKING)
@pytest.mark.parametrize("timeout", [0, 0.0, 0.001, 0.01])
def test_timeout(ask: Ask, timeout: float) -> None:
    fiber = endless()
    before = fibers.current_time()
    with pytest.raises(TimeoutError, match=f"{timeout}"):
        ask(fiber, timeout)
    assert fibers.current_time() - before >= timeout
    assert not fiber.done()
    end(fiber)


@pytest.mark.parametrize("ask", ASKING)
@pytest.mark.parametrize("timeout", [0, 1, None, float("inf")])
def test_a_fiber_that_is_done_needs_no_time(ask: Ask, timeout: float | None) -> None:
    fiber = fibers.spawn(int)
    fiber.join()
    ask(fiber, timeout)


@pytest.mark.parametrize("ask", ASKING)
@pytest.mark.parametrize(("timeout", "error"), BAD_TIMEOUTS)
def test_a_bad_timeout_is_refused_at_once(ask: Ask, timeout: Any, error: type[Exception]) -> None:
    """Bad input: the value is in the message; the fiber asked is untouched."""
    fiber = endless()
    with pytest.raises(error, match=re.escape(repr(timeout))):
        ask(fiber, timeout)
    assert not fiber.done()
    end(fiber)


@pytest.mark.parametrize("ask", ASKING)
def test_a_fiber_cannot_wait_for_itself(ask: Ask) -> None:
    def selfish() -> None:
        ask(fibers.current())

    fiber = fibers.spawn(selfish, name="selfish")
    with pytest.raises(RuntimeError, match="'selfish'"):
        fiber.result()


def test_main_cannot_wait_for_itself() -> None:
    with pytest.raises(RuntimeError, match="its own end"):
        fibers.current().join()


def test_many_join_one() -> None:
    fiber = fibers.spawn(fibers.sleep, 0.005)
    joiners = [fibers.spawn(fiber.result) for _ in range(scaled(10_000, least=100))]
    for joiner in joiners:
        joiner.result()
    assert fiber.done()


def test_joiners_wake_in_the_order_of_joining() -> None:
    order: list[int] = []
    fiber = endless()

    def joiner(number: int) -> None:
        fiber.join()
        order.append(number)

    every = [fibers.spawn(joiner, number) for number in range(50)]
    fibers.yield_now()
    fiber.cancel()
    for each in every:
        each.join()
    assert order == list(range(50))


def test_a_joiner_that_timed_out_is_not_woken_later(virtual_clock: VirtualClock) -> None:
    fiber = endless()
    woken: list[float] = []

    def joiner() -> None:
        with pytest.raises(TimeoutError):
            fiber.join(1)
        fibers.sleep(20)
        woken.append(fibers.current_time())

    waiting = fibers.spawn(joiner)
    fibers.sleep(5)
    end(fiber)
    waiting.result()
    assert woken == [21.0]


def test_the_end_beats_the_timeout() -> None:
    """Invariant 4 for joins: a fiber that ended while the joiner's timeout passed is done, not late."""

    def busy() -> int:
        fibers.sleep(0.001)
        started = fibers.current_time()
        while fibers.current_time() - started < 0.01:
            pass
        return 7

    assert fibers.spawn(busy).result(0.005) == 7


@pytest.mark.parametrize("ask", ASKING)
def test_asking_from_a_plain_thread(ask: Ask) -> None:
    """A thread that has no loop gets one for the waiting; both ends with the thread."""
    fiber = fibers.spawn(fibers.sleep, float("inf"))
    asked = threading.Event()
    seen: list[bool] = []

    def plain() -> None:
        assert state.scheduler is None
        asked.set()
        try:
            ask(fiber)
        except fibers.FiberCancelled:
            pass
        seen.append(fiber.done())

    thread = threading.Thread(target=plain)
    thread.start()
    asked.wait()
    fibers.sleep(0.002)  # most rounds: the thread is in its kernel wait by now
    end(fiber)
    thread.join()
    assert seen == [True]


def test_a_timeout_in_a_plain_thread() -> None:
    fiber = endless()
    with pytest.raises(TimeoutError):
        elsewhere(fiber.join, 0.001)
    assert not fiber.done()
    end(fiber)


def test_joins_between_two_threads_that_both_have_fibers() -> None:
    """Fibers of two threads wait for each other's, hundreds of times; none is left waiting."""
    rounds = scaled(20_000, least=300)
    handed: list[fibers.Fiber[int] | None] = [None]
    full, empty = threading.Event(), threading.Event()
    empty.set()

    def consumer() -> int:
        total = 0
        for _ in range(rounds):
            full.wait()
            full.clear()
            fiber = handed[0]
            assert fiber is not None
            empty.set()
            total += fiber.result()
        return total

    def count(number: int) -> int:
        fibers.yield_now()
        return number

    with ThreadPoolExecutor(1) as pool:
        counting = pool.submit(consumer)
        every = []
        for number in range(rounds):
            while not empty.is_set():
                fibers.yield_now()
            empty.clear()
            handed[0] = fiber = fibers.spawn(count, number)
            every.append(fiber)
            full.set()
        for fiber in every:
            fiber.join()
        assert counting.result() == sum(range(rounds))


def test_callbacks_run_in_order_in_the_fibers_thread_with_the_fiber() -> None:
    calls: list[tuple[int, object, int]] = []
    fiber = endless()

    def note(number: int, it: object) -> None:
        calls.append((number, it, threading.get_ident()))

    for number in range(3):
        call: Callable[[object], None] = partial(note, number)
        fiber.add_done_callback(call)
    assert calls == []
    end(fiber)
    here = threading.get_ident()
    assert calls == [(number, fiber, here) for number in range(3)]


def test_a_callback_sees_the_fiber_done() -> None:
    seen: list[tuple[bool, object]] = []
    fiber = fibers.spawn(lambda: 7)
    fiber.add_done_callback(lambda it: seen.append((it.done(), it.result())))
    fiber.join()
    assert seen == [(True, 7)]


def test_a_callback_added_after_the_end_is_called_at_once() -> None:
    calls: list[object] = []
    fiber = fibers.spawn(int)
    fiber.join()
    fiber.add_done_callback(calls.append)
    assert calls == [fiber]


def note_thread(calls: list[int], _: object) -> None:
    calls.append(threading.get_ident())


def test_a_callback_added_from_another_thread_runs_in_the_fibers_thread() -> None:
    for wait_first in (False, True):
        calls: list[int] = []
        fiber = fibers.spawn(int)
        if wait_first:
            fiber.join()
        note: Callable[[object], None] = partial(note_thread, calls)
        elsewhere(fiber.add_done_callback, note)
        while not calls:
            fibers.yield_now()
        assert calls == [threading.get_ident()]


def test_a_callback_added_while_the_fiber_ends_is_called_once() -> None:
    """The race between the end and the adding, from another thread: every callback is called, and only once."""
    rounds = scaled(10_000, least=300)
    calls: list[object] = []

    def add(every: list[fibers.Fiber[Any]]) -> None:
        for fiber in every:
            fiber.add_done_callback(calls.append)

    every = [fibers.spawn(fibers.yield_now) for _ in range(rounds)]
    with ThreadPoolExecutor(1) as pool:
        adding = pool.submit(add, every)
        while not adding.done():
            fibers.yield_now()
    for fiber in every:
        fiber.join()
    fibers.yield_now()
    while len(calls) < rounds:
        fibers.sleep(0.0001)
    assert len(set(map(id, calls))) == len(calls) == rounds


def test_a_callback_that_raises_is_logged_and_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[object] = []

    def broken(_: object) -> None:
        raise Oops("in the callback")

    fiber = fibers.spawn(int, name="victim")
    fiber.add_done_callback(broken)
    fiber.add_done_callback(calls.append)
    with caplog.at_level(logging.ERROR, "fibers"):
        fiber.join()
    assert calls == [fiber]
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [Oops]
    assert "'victim'" in caplog.text


@pytest.mark.parametrize(
    "block",
    [
        fibers.yield_now,
        lambda: fibers.sleep(0),
        lambda: fibers.sleep(1),
        fibers.lowlevel.park,
        lambda: fibers.spawn(int).join(),
        lambda: fibers.run(int),
        fibers.current,
    ],
)
def test_blocking_in_a_callback_is_refused(block: Callable[[], object]) -> None:
    """Bad input: blocking while scheduler code is on the stack raises; the scheduler is as before."""
    errors: list[BaseException] = []

    def blocking(_: object) -> None:
        try:
            block()
        except RuntimeError as error:
            errors.append(error)

    fiber = fibers.spawn(int)
    fiber.add_done_callback(blocking)
    fiber.join()
    assert len(errors) == 1
    late = fibers.spawn(int)
    late.join()
    late.add_done_callback(blocking)  # done already: the callback runs here, and may block as little
    assert len(errors) == 2
    fibers.sleep(0.001)


def test_a_callback_may_spawn_wake_and_cancel() -> None:
    """Hazard 7: what is asked for inside runtime code goes through the inbox, and happens."""
    victim = endless()
    spawned: list[fibers.Fiber[int]] = []

    def busy(_: object) -> None:
        victim.cancel()
        spawned.append(fibers.spawn(lambda: 7))

    fiber = fibers.spawn(int)
    fiber.add_done_callback(busy)
    fiber.join()
    victim.join(5)
    assert victim.cancelled()
    assert spawned[0].result(5) == 7


@pytest.mark.parametrize("what", [None, 3, "f"])
def test_a_callback_must_be_callable(what: Any) -> None:
    fiber = endless()
    with pytest.raises(TypeError, match=re.escape(repr(what))):
        fiber.add_done_callback(what)
    end(fiber)
