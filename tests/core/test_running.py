"""`run`: a main fiber, its fibers, and the end of both.

Facts. `run` uses the thread's scheduler if there is one, and makes and closes it otherwise; what it spawned ends with it,
what was there before lives on. It leaves no fd open. The tests run it in threads of their own, so that "the thread has no
scheduler yet" is true, and once on the suite's own, where it is not.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.process import run_python

import fibers
from fibers.core.scheduler import state
from fibers.eventloop import available, new_loop
from fibers.testing import leaks

FOREVER = float("inf")
USABLE = [name for name, reason in available().items() if reason is None]


class Oops(Exception):
    pass


def fail() -> None:
    raise Oops("from main")


def elsewhere(fn: Callable[..., Any], *args: Any) -> Any:
    """What `fn` returns or raises in a new thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(fn, *args).result()


here_and_elsewhere = pytest.mark.parametrize("call", [lambda fn, *args: fn(*args), elsewhere], ids=["old", "new"])


@here_and_elsewhere
def test_returns_what_main_returns(call: Callable[..., Any]) -> None:
    assert call(fibers.run, int, "7") == 7


@here_and_elsewhere
def test_raises_what_main_raises(call: Callable[..., Any]) -> None:
    with pytest.raises(Oops, match="from main"):
        call(fibers.run, fail)


@here_and_elsewhere
@pytest.mark.parametrize("failing", [False, True])
def test_cancels_what_it_spawned_and_waits_for_it(call: Callable[..., Any], failing: bool) -> None:
    unwound: list[int] = []

    def child(number: int) -> None:
        try:
            fibers.sleep(FOREVER)
        finally:
            unwound.append(number)

    def main() -> None:
        for number in range(3):
            fibers.spawn(child, number)
        fibers.yield_now()
        if failing:
            fail()

    if failing:
        with pytest.raises(Oops):
            call(fibers.run, main)
    else:
        call(fibers.run, main)
    assert sorted(unwound) == [0, 1, 2]


def test_grandchildren_are_its_own_too() -> None:
    unwound: list[str] = []

    def grandchild() -> None:
        try:
            fibers.sleep(FOREVER)
        finally:
            unwound.append("grandchild")

    def main() -> None:
        fibers.spawn(fibers.spawn, grandchild).join()
        fibers.yield_now()

    fibers.run(main)
    assert unwound == ["grandchild"]


def test_cancels_only_what_it_spawned() -> None:
    older = fibers.spawn(fibers.sleep, FOREVER)
    fibers.yield_now()
    inner: list[fibers.Fiber[None]] = []
    fibers.run(lambda: inner.append(fibers.spawn(fibers.sleep, FOREVER)))
    assert inner[0].cancelled()
    assert not older.done()
    older.cancel()
    older.join()


def test_what_its_fibers_spawn_while_they_unwind_ends_too() -> None:
    ends: list[str] = []

    def last_words() -> None:
        ends.append("ran")

    def child() -> None:
        try:
            fibers.sleep(FOREVER)
        finally:
            fibers.spawn(last_words)

    def main() -> None:
        fibers.spawn(child)
        fibers.yield_now()

    elsewhere(fibers.run, main)
    assert [fiber.name for fiber in fibers.all_fibers() if "last_words" in fiber.name] == []


@here_and_elsewhere
def test_inside_a_fiber_is_refused(call: Callable[..., Any]) -> None:
    def outer() -> None:
        fibers.spawn(fibers.run, int).result()

    with pytest.raises(RuntimeError, match=r"run\(\)"):
        call(outer)


@here_and_elsewhere
def test_nested_is_refused_and_leaves_the_outer_alone(call: Callable[..., Any]) -> None:
    def outer() -> str:
        with pytest.raises(RuntimeError, match=r"run\(\)"):
            fibers.run(int)
        fibers.sleep(0.001)
        return "went on"

    assert call(fibers.run, outer) == "went on"


def test_may_be_called_again() -> None:
    def program() -> list[int]:
        return [fibers.run(int, str(number)) for number in range(5)]

    assert elsewhere(program) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("what", [None, 3, "main"])
def test_takes_a_function(what: Any) -> None:
    with pytest.raises(TypeError, match=repr(what)):
        fibers.run(what)


def test_closes_the_loop_that_it_made_and_leaves_no_fd() -> None:
    seen: list[Any] = []

    def main() -> None:
        fibers.sleep(0.001)
        seen.append(state.scheduler)

    def program() -> None:
        before = leaks.open_fds()
        fibers.run(main)
        assert state.scheduler is None
        assert leaks.open_fds() == before

    elsewhere(program)
    assert seen[0].closed
    assert seen[0].loop.closed


def test_keeps_the_loop_that_the_thread_had() -> None:
    def program() -> None:
        fibers.sleep(0)
        earlier = state.scheduler
        fibers.run(fibers.sleep, 0.001)
        assert state.scheduler is earlier
        fibers.sleep(0.001)

    elsewhere(program)


@pytest.mark.parametrize("backend", USABLE)
def test_an_explicit_loop(backend: str) -> None:
    def program() -> tuple[bool, str]:
        loop = new_loop(backend)

        def main() -> bool:
            fibers.sleep(0.001)
            assert state.scheduler is not None
            return state.scheduler.loop is loop

        return fibers.run(main, loop=loop), loop.name

    assert elsewhere(program) == (True, backend)


def test_an_explicit_loop_comes_too_late_for_a_thread_that_has_one() -> None:
    def program() -> None:
        fibers.sleep(0)
        loop = new_loop()
        try:
            with pytest.raises(RuntimeError, match="loop"):
                fibers.run(int, loop=loop)
        finally:
            loop.close()

    elsewhere(program)


def test_an_explicit_loop_of_another_thread_is_refused() -> None:
    """Bad input: a loop belongs to one thread; the refusal leaves the thread usable."""
    loop = new_loop()
    try:

        def program() -> None:
            with pytest.raises(ValueError, match="thread"):
                fibers.run(int, loop=loop)
            assert fibers.run(int) == 0

        elsewhere(program)
    finally:
        loop.close()


def test_stubborn_fibers_are_reported() -> None:
    """A fiber that goes on and on after it was cancelled does not hold up the end for ever, and is named."""
    child = run_python("-c", STUBBORN, timeout=10)
    assert child.returncode == 0, child.stderr
    assert child.stdout == "7\n"
    assert "'mule'" in child.stderr
    assert "in main" in child.stderr  # the place of the spawn


STUBBORN = """
import fibers, fibers.core.lifecycle

fibers.core.lifecycle.GRACE = 0.02

def stubborn():
    while True:
        try:
            fibers.yield_now()
        except fibers.Cancelled:
            continue

def main():
    fibers.spawn(stubborn, name="mule")
    fibers.yield_now()
    return 7

print(fibers.run(main))
"""


def test_a_cancelled_main_still_ends_its_fibers() -> None:
    unwound: list[str] = []

    def child() -> None:
        try:
            fibers.sleep(FOREVER)
        finally:
            unwound.append("child")

    def main() -> None:
        fibers.spawn(child)
        fibers.spawn(fibers.current().cancel)
        fibers.sleep(FOREVER)

    with pytest.raises(fibers.Cancelled):
        elsewhere(fibers.run, main)
    assert unwound == ["child"]


def test_an_interrupt_pending_at_mains_end_is_raised() -> None:
    """What was sent to main and found it computing until its end is not lost."""

    def main() -> str:
        fibers.current().kill(Oops("pending"))
        return "result"

    with pytest.raises(Oops, match="pending"):
        elsewhere(fibers.run, main)


def test_a_later_run_is_not_interrupted_by_what_was_meant_for_an_earlier_one() -> None:
    def main() -> None:
        fibers.current().cancel()
        fibers.sleep(FOREVER)

    def second() -> int:
        fibers.sleep(0.001)
        return 7

    def program() -> int:
        with pytest.raises(fibers.Cancelled):
            fibers.run(main)
        fibers.sleep(0.001)
        return fibers.run(second)

    assert elsewhere(program) == 7


def test_many_runs_in_many_threads_leave_nothing() -> None:
    """The numbers of fds, schedulers and fibers are as before (the leak guard looks again)."""
    before = len(leaks.open_fds())

    def main() -> None:
        fibers.spawn(fibers.sleep, FOREVER)
        fibers.sleep(0.001)

    threads = [threading.Thread(target=fibers.run, args=(main,)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(leaks.open_fds()) == before
