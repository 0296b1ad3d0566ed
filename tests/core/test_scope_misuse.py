"""Scopes used where they cannot be, and struck from where nobody expects it.

Facts. Scopes form a stack in each fiber. Only a generator (or code that calls `__enter__` and `__exit__` by hand) can break
that. A block left out of order takes what is further in with it, and says so, unless an error is on its way already: then
that error is the news. `cancel()` may come from any thread, handler and finaliser.
"""

import gc
import signal
import threading
import weakref
from collections.abc import Generator
from typing import Any

import pytest
from greenlet import greenlet

import fibers
from fibers import lowlevel

FOREVER = float("inf")


def cancelled_here() -> bool:
    try:
        fibers.yield_now()
    except fibers.Cancelled:
        return True
    return False


def innermost() -> object:
    return fibers.current().scope


@pytest.mark.parametrize("make", [fibers.CancelScope, lambda: fibers.timeout(60), fibers.TaskGroup])
def test_a_scope_is_entered_once(make: Any) -> None:
    scope = make()
    with scope:
        with pytest.raises(RuntimeError, match="has been entered before; make a new one"):
            with scope:
                pass
    with pytest.raises(RuntimeError, match="has been entered before; make a new one"):
        with scope:
            pass
    assert innermost() is None


def test_a_scope_that_another_fiber_has_entered() -> None:
    scope = fibers.CancelScope()

    def hold() -> None:
        with scope:
            lowlevel.park()

    holder = fibers.spawn(hold)
    fibers.yield_now()
    with pytest.raises(RuntimeError, match="has been entered before"):
        with scope:
            pass
    assert innermost() is None
    lowlevel.unpark(holder)
    holder.join()


def test_leaving_what_was_never_entered() -> None:
    for scope in (fibers.CancelScope(), fibers.move_on_after(1), fibers.TaskGroup()):
        with pytest.raises(RuntimeError, match="never entered"):
            scope.__exit__(None, None, None)


def test_leaving_twice() -> None:
    scope = fibers.CancelScope()
    with scope:
        pass
    with pytest.raises(RuntimeError, match="had been left before"):
        scope.__exit__(None, None, None)


def test_out_of_order_takes_the_inner_ones_with_it() -> None:
    outer, middle, inner = (fibers.CancelScope() for _ in range(3))
    with fibers.CancelScope() as around:
        for scope in (outer, middle, inner):
            scope.__enter__()
        with pytest.raises(RuntimeError, match="out of order"):
            outer.__exit__(None, None, None)
        assert innermost() is around
        outer.cancel()
        inner.cancel()
        assert not cancelled_here()
        for scope in (inner, middle, outer):
            with pytest.raises(RuntimeError, match="had been left before"):
                scope.__exit__(None, None, None)


def test_out_of_order_where_the_inner_one_was_cancelled() -> None:
    """Nothing of it may stay behind."""
    outer, inner = fibers.CancelScope(), fibers.CancelScope()
    outer.__enter__()
    inner.__enter__()
    inner.cancel()
    assert cancelled_here()
    with pytest.raises(RuntimeError, match="out of order"):
        outer.__exit__(None, None, None)
    assert not cancelled_here()
    assert innermost() is None


def scoped(scope: fibers.CancelScope) -> Generator[int, None, None]:
    with scope:
        yield 1
        yield 2


def test_a_generator_that_yields_inside_of_a_scope_and_is_used_up_in_order() -> None:
    assert list(scoped(fibers.CancelScope())) == [1, 2]
    for number in scoped(fibers.CancelScope()):
        assert number == 1
        break
    assert innermost() is None


def test_a_generator_whose_scope_outlives_the_callers_block() -> None:
    generator = scoped(fibers.CancelScope())
    with pytest.raises(RuntimeError, match="out of order"):
        with fibers.CancelScope():
            next(generator)
    assert innermost() is None
    generator.close()  # its scope is over, and an error (GeneratorExit) is on its way: nothing more to say
    assert innermost() is None


def test_an_error_on_its_way_out_of_order_is_the_news() -> None:
    generator = scoped(fibers.CancelScope())
    with pytest.raises(KeyError):
        with fibers.CancelScope():
            next(generator)
            raise KeyError("mine")
    assert innermost() is None
    with pytest.raises(TimeoutError):
        generator = scoped(fibers.CancelScope())
        with fibers.timeout(0.001):
            next(generator)
            fibers.sleep(FOREVER)
    assert innermost() is None


def test_a_generator_whose_scope_was_entered_first_and_is_left_first() -> None:
    generator = scoped(fibers.CancelScope())
    next(generator)
    with pytest.raises(RuntimeError, match="out of order"):
        with fibers.CancelScope():
            list(generator)
    assert innermost() is None


def test_a_generator_that_another_fiber_goes_on_with() -> None:
    scope = fibers.CancelScope()
    generator = scoped(scope)

    def first() -> str:
        next(generator)
        lowlevel.park()
        scope.cancel()
        return "cancelled" if cancelled_here() else "free"

    fiber = fibers.spawn(first)
    fibers.yield_now()
    with pytest.raises(RuntimeError, match="left by another fiber"):
        list(generator)
    lowlevel.unpark(fiber)
    assert fiber.result(5) == "free"
    assert innermost() is None


def test_a_generator_that_outlives_its_fiber() -> None:
    scope = fibers.move_on_after(3600)
    generator = scoped(scope)
    fiber = fibers.spawn(next, generator)
    assert fiber.result() == 1
    assert fiber.scope is None
    generator.close()
    scope.cancel()
    assert not scope.cancel_called


def test_a_group_in_a_generator_that_outlives_its_fiber_is_cancelled() -> None:
    groups: list[fibers.TaskGroup] = []
    children: list[fibers.Fiber[None]] = []

    def generate() -> Generator[int, None, None]:
        with fibers.TaskGroup() as group:
            groups.append(group)
            children.append(group.spawn(fibers.sleep, FOREVER))
            fibers.yield_now()
            yield 1

    generator = generate()
    fibers.spawn(next, generator).join()
    children[0].join(5)
    assert children[0].cancelled()
    with pytest.raises(RuntimeError, match="has ended"):
        groups[0].spawn(int)
    generator.close()


def test_a_group_left_out_of_order_waits_for_its_fibers_all_the_same() -> None:
    generator = scoped(fibers.CancelScope())
    with pytest.raises(ExceptionGroup) as caught:
        with fibers.TaskGroup() as group:
            child = group.spawn(fibers.sleep, FOREVER)
            fibers.yield_now()
            next(generator)
    assert child.done()
    (problem,) = caught.value.exceptions
    assert isinstance(problem, RuntimeError)
    assert "out of order" in str(problem)
    assert innermost() is None


def test_an_inner_group_that_is_never_left_is_cancelled_with_the_outer_block() -> None:
    inner = fibers.TaskGroup()
    with pytest.raises(RuntimeError, match="out of order"):
        with fibers.CancelScope():
            inner.__enter__()
            child = inner.spawn(fibers.sleep, FOREVER)
            fibers.yield_now()
    child.join(5)
    assert child.cancelled()


def test_an_error_in_a_group_that_nobody_leaves_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        try:
            fibers.sleep(FOREVER)
        finally:
            raise KeyError("unseen")

    inner = fibers.TaskGroup()
    with pytest.raises(RuntimeError, match="out of order"):
        with fibers.CancelScope():
            inner.__enter__()
            child = inner.spawn(fail, name="failing")
            fibers.yield_now()
    child.join(5)
    assert "KeyError of fiber 'failing'" in caplog.text


def test_scopes_in_a_greenlet_of_the_fibers_own() -> None:
    """It is the fiber that is in a scope, whichever of its greenlets has entered it."""

    def body() -> list[bool]:
        me = fibers.current()
        found = []

        def inner() -> None:
            with fibers.CancelScope() as scope:
                scope.cancel()
                found.append(cancelled_here())
            found.append(me.scope is None)

        greenlet(inner).switch()
        found.append(cancelled_here())
        return found

    assert fibers.spawn(body).result(5) == [True, True, False]


# -- from elsewhere -------------------------------------------------------------------------------------------------


def test_cancel_from_another_thread() -> None:
    with fibers.CancelScope() as scope:
        thread = threading.Thread(target=scope.cancel)
        thread.start()
        fibers.sleep(FOREVER)
    thread.join()
    assert scope.cancelled_caught


def test_cancel_from_another_thread_before_the_entry() -> None:
    scope = fibers.CancelScope()
    thread = threading.Thread(target=scope.cancel)
    thread.start()
    thread.join()
    with scope:
        fibers.sleep(FOREVER)
    assert scope.cancelled_caught


def test_cancel_from_another_thread_that_comes_too_late() -> None:
    """The request is in the inbox while the block is left: it must not reach what comes next."""
    with fibers.CancelScope() as scope:
        thread = threading.Thread(target=scope.cancel)
        thread.start()
        thread.join()
    assert not cancelled_here()
    fibers.sleep(0.001)
    assert not scope.cancelled_caught


def test_cancel_from_a_signal_handler() -> None:
    with fibers.CancelScope() as scope:
        before = signal.signal(signal.SIGUSR1, lambda *_: scope.cancel())
        try:
            signal.raise_signal(signal.SIGUSR1)
            fibers.sleep(FOREVER)
        finally:
            signal.signal(signal.SIGUSR1, before)
    assert scope.cancelled_caught


def test_cancel_from_a_signal_handler_while_the_loop_sleeps() -> None:
    with fibers.CancelScope() as scope:
        before = signal.signal(signal.SIGALRM, lambda *_: scope.cancel())
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            fibers.sleep(FOREVER)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    assert scope.cancelled_caught


class Finalised:
    """Cancels a scope when it is collected."""

    def __init__(self, scope: fibers.CancelScope) -> None:
        self.scope = scope
        self.circle = self

    def __del__(self) -> None:
        self.scope.cancel()


def test_cancel_from_a_finaliser() -> None:
    with fibers.CancelScope() as scope:
        Finalised(scope)
        gc.collect()
        assert scope.cancel_called
        fibers.sleep(FOREVER)
    assert scope.cancelled_caught


def test_cancel_from_a_done_callback() -> None:
    with fibers.CancelScope() as scope:
        fibers.spawn(int).add_done_callback(lambda fiber: scope.cancel())
        fibers.sleep(FOREVER)
    assert scope.cancelled_caught


def test_scopes_cannot_be_entered_inside_the_runtime() -> None:
    problems: list[str] = []

    def callback(fiber: fibers.Fiber[int]) -> None:
        for scope in (fibers.CancelScope(), fibers.move_on_after(1), fibers.TaskGroup()):
            try:
                scope.__enter__()
            except RuntimeError as error:
                problems.append(str(error))
        try:
            fibers.current_deadline()
        except RuntimeError as error:
            problems.append(str(error))

    fiber = fibers.spawn(int)
    fiber.add_done_callback(callback)
    fiber.join()
    fibers.yield_now()
    assert len(problems) == 4
    assert all("inside the runtime" in problem for problem in problems)


def test_plain_threads_have_scopes_of_their_own() -> None:
    outcome: list[object] = []

    def in_thread() -> None:
        with fibers.move_on_after(0.001) as scope:
            lowlevel.park()
        outcome.append(scope.cancelled_caught)
        outcome.append(fibers.current_deadline())

    with fibers.CancelScope() as scope:
        scope.cancel()
        thread = threading.Thread(target=in_thread)
        thread.start()
        thread.join()
    assert outcome == [True, FOREVER]


# -- garbage --------------------------------------------------------------------------------------------------------


class Local:
    """Something that is collected when the frame which holds it is."""


def swallow(block: Any) -> None:
    try:
        block()
    except (TimeoutError, KeyError):
        pass


def cut_short() -> None:
    with fibers.move_on_after(0):
        fibers.sleep(1)


def timed_out() -> None:
    with fibers.timeout(0):
        fibers.sleep(1)


def surfaced() -> None:
    with fibers.timeout(0):
        fibers.spawn(fibers.sleep, 0).join(60)


def failed() -> None:
    with fibers.CancelScope() as scope:
        scope.cancel()
        try:
            fibers.yield_now()
        finally:
            raise KeyError("clean-up")


@pytest.mark.parametrize("block", [cut_short, timed_out, surfaced, failed])
def test_no_garbage_for_the_collector(block: Any) -> None:
    fibers.yield_now()
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            swallow(block)
        fibers.yield_now()
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_what_a_cancelled_block_held_is_let_go_at_once() -> None:
    def body() -> "weakref.ref[Local]":
        held = Local()
        reference = weakref.ref(held)
        with fibers.move_on_after(0):
            deeper(held)
        del held
        return reference

    def deeper(held: Local) -> None:
        fibers.sleep(1)

    gc.disable()
    try:
        assert body()() is None
    finally:
        gc.enable()


def test_a_scope_that_is_kept_keeps_nothing() -> None:
    def body(kept: list[fibers.CancelScope], held: Local) -> None:
        with fibers.move_on_after(0) as scope:
            kept.append(scope)
            fibers.sleep(1)

    held = Local()
    reference = weakref.ref(held)
    kept: list[fibers.CancelScope] = []
    fiber = fibers.spawn(body, kept, held)
    fiber.join()
    watch = weakref.ref(fiber)
    del fiber, held
    fibers.yield_now()
    assert reference() is None
    assert watch() is None
    assert kept[0].cancelled_caught
