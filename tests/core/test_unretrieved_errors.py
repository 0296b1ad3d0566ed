"""An error that nobody retrieved is logged, with its traceback and the place of the spawn; it is never lost.

Facts. `result()` and `exception()` retrieve an error; `join()` does not. The log comes when the Fiber is collected, or when
its thread's scheduler ends, whichever is first, and once. A fiber that ended by cancellation has no error to report.
SystemExit and KeyboardInterrupt are no errors of a fiber: they go to main.
"""

import gc
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import fibers
from fibers.testing import wait_all_parked

FOREVER = float("inf")


class Oops(Exception):
    pass


def fail() -> None:
    raise Oops("nobody looks")


class Keeper(logging.Handler):
    """Keeps what is logged, without the exceptions: keeping those would keep frames and fibers."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))


@pytest.fixture
def errors() -> Iterator[list[str]]:
    """What logger `fibers` has said at ERROR so far, with tracebacks."""
    logger, keeper = logging.getLogger("fibers"), Keeper()
    logger.addHandler(keeper)
    logger.propagate = False
    yield keeper.texts
    logger.propagate = True
    logger.removeHandler(keeper)


def test_logged_when_the_fiber_is_collected(errors: list[str]) -> None:
    fiber = fibers.spawn(fail, name="forgotten")
    fiber.join()
    fibers.yield_now()
    assert errors == []
    del fiber
    gc.collect()
    assert len(errors) == 1
    text = errors[0]
    assert "Oops" in text
    assert "'forgotten'" in text
    assert f"{__file__}:" in text
    assert "in test_logged_when_the_fiber_is_collected" in text  # the place of the spawn
    assert ", in fail\n" in text  # the traceback
    assert "carriers.py" not in text.split("Traceback")[1]  # without the runtime's own frame, which lives on
    assert "nobody looks" in text


def test_collected_without_the_collector(errors: list[str]) -> None:
    """No cycle keeps a failed fiber: dropping the last reference is enough. (Hazard 4: nothing idle pins it.)"""
    gc.collect()
    gc.disable()
    try:
        fiber = fibers.spawn(fail)
        fiber.join()
        del fiber
        assert len(errors) == 1
    finally:
        gc.enable()


def test_never_joined_is_logged(errors: list[str]) -> None:
    fibers.spawn(fail)
    fibers.yield_now()
    gc.collect()
    assert len(errors) == 1


@pytest.mark.parametrize("retrieve", [fibers.Fiber.result, fibers.Fiber.exception])
def test_not_logged_once_retrieved(errors: list[str], retrieve: Callable[..., Any]) -> None:
    fiber = fibers.spawn(fail)
    try:
        retrieve(fiber)
    except Oops:
        pass
    del fiber
    gc.collect()
    assert errors == []


def test_retrieved_in_a_callback(errors: list[str]) -> None:
    seen: list[object] = []
    fiber = fibers.spawn(fail)
    fiber.add_done_callback(lambda it: seen.append(it.exception()))
    fiber.join()
    del fiber
    gc.collect()
    assert isinstance(seen[0], Oops)
    assert errors == []


@pytest.mark.parametrize("end", [fibers.Fiber.cancel, fibers.Fiber.kill])
@pytest.mark.parametrize("start", [False, True])
def test_cancelled_and_killed_fibers_are_no_errors(
    errors: list[str], end: Callable[[fibers.Fiber[Any]], None], start: bool
) -> None:
    fiber = fibers.spawn(fibers.sleep, FOREVER)
    if start:
        fibers.yield_now()
    end(fiber)
    fiber.join()
    del fiber
    gc.collect()
    assert errors == []


def test_killed_with_an_error_of_ones_own_is_an_error(errors: list[str]) -> None:
    fiber = fibers.spawn(fibers.sleep, FOREVER)
    fibers.yield_now()
    fiber.kill(Oops)
    fiber.join()
    del fiber
    gc.collect()
    assert len(errors) == 1


def test_logged_at_the_end_of_the_thread_although_still_referenced(errors: list[str]) -> None:
    kept: list[fibers.Fiber[None]] = []

    def program() -> None:
        kept.append(fibers.spawn(fail, name="kept"))
        wait_all_parked()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(program).result()
    assert len(errors) == 1
    assert "'kept'" in errors[0]
    kept.clear()
    gc.collect()
    assert len(errors) == 1  # once


def test_logged_at_the_end_of_run(errors: list[str]) -> None:
    kept: list[fibers.Fiber[None]] = []

    def main() -> None:
        kept.append(fibers.spawn(fail, name="kept"))
        wait_all_parked()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(fibers.run, main).result()
        assert len(errors) == 1
    assert isinstance(kept[0].exception(), Oops)


def test_an_error_while_unwinding_at_the_end_of_run(errors: list[str]) -> None:
    def child() -> None:
        try:
            fibers.sleep(FOREVER)
        finally:
            fail()

    def main() -> None:
        fibers.spawn(child)
        fibers.yield_now()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(fibers.run, main).result()
    gc.collect()
    assert len(errors) == 1


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_what_ends_programs_goes_to_main(errors: list[str], error: BaseException) -> None:
    def leave() -> None:
        raise error

    fiber = fibers.spawn(leave)
    with pytest.raises(type(error)) as caught:
        fibers.sleep(FOREVER)
    assert caught.value is error
    with pytest.raises(fibers.FiberCancelled):
        fiber.result()
    del fiber, caught
    gc.collect()
    assert errors == []


def test_the_log_names_the_fiber_even_if_its_function_has_no_name(errors: list[str]) -> None:
    class Callable_:  # noqa: N801
        def __call__(self) -> None:
            fail()

    fibers.spawn(Callable_())
    fibers.yield_now()
    gc.collect()
    assert "'Callable_'" in errors[0]
