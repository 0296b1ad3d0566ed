"""`gather`, `wait` and `as_completed`: waiting for several fibers, of any thread.

Facts. Each watches the ends of the fibers by a callback, which it takes back when it is over: a fiber that lives long must
not collect them. `gather` is all or nothing: the first failure has the others cancelled. `wait` and `as_completed` only
look.
"""

import gc
import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from support.process import run_python
from support.virtual import VirtualClock, run_virtual

import fibers

FOREVER = float("inf")


class Oops(Exception):
    pass


def later(seconds: float) -> float:
    fibers.sleep(seconds)
    return seconds


def fail_later(seconds: float) -> None:
    fibers.sleep(seconds)
    raise Oops(str(seconds))


def watchers(fiber: fibers.Fiber[Any]) -> int:
    return 0 if fiber._ended is None else len(fiber._ended.callbacks or ())


# -- gather ---------------------------------------------------------------------------------------------------------


def test_gather_returns_the_results_in_order() -> None:
    def main(clock: VirtualClock) -> None:
        several = [fibers.spawn(later, seconds) for seconds in (3, 1, 2)]
        assert fibers.gather(*several) == [3, 1, 2]
        assert clock() == 1003
        assert fibers.gather(*several) == [3, 1, 2]
        assert fibers.gather(several[0], several[0]) == [3, 3]
        assert fibers.gather() == []

    run_virtual(main)


def test_the_first_failure_cancels_the_others() -> None:
    def main(clock: VirtualClock) -> None:
        steps: list[float] = []

        def clean_up() -> None:
            try:
                fibers.sleep(FOREVER)
            finally:
                with fibers.shield():
                    fibers.sleep(5)
                steps.append(clock())

        done = fibers.spawn(later, 1)
        cleaning = fibers.spawn(clean_up)
        with pytest.raises(Oops, match="2"):
            fibers.gather(done, cleaning, fibers.spawn(fail_later, 2), fibers.spawn(fail_later, 3))
        assert steps == [1007]
        assert done.result() == 1
        assert cleaning.cancelled()

    run_virtual(main)


def test_a_cancelled_fiber_is_a_failure_of_gather() -> None:
    first, second = fibers.spawn(fibers.sleep, FOREVER), fibers.spawn(fibers.sleep, FOREVER)
    fibers.yield_now()
    first.cancel()
    with pytest.raises(fibers.FiberCancelled):
        fibers.gather(second, first)
    assert second.cancelled()


def test_a_second_failure_is_not_lost(caplog: pytest.LogCaptureFixture) -> None:
    def fail_in_clean_up() -> None:
        try:
            fibers.sleep(FOREVER)
        finally:
            raise Oops("second")

    with pytest.raises(Oops, match="first"):
        fibers.gather(fibers.spawn(fail_in_clean_up), fibers.spawn(lambda: fibers.yield_now() or throw("first")))  # type: ignore[func-returns-value]
    gc.collect()
    assert "Oops of fiber" in caplog.text
    assert "second" in caplog.text


def throw(text: str) -> None:
    raise Oops(text)


def test_errors_among_the_results() -> None:
    several: list[fibers.Fiber[Any]] = [
        fibers.spawn(later, 0.001),
        fibers.spawn(fail_later, 0),
        fibers.spawn(fibers.sleep, FOREVER),
    ]
    fibers.yield_now()
    several[2].cancel()
    result, error, cancelled = fibers.gather(*several, return_exceptions=True)
    assert result == 0.001
    assert isinstance(error, Oops)
    assert isinstance(cancelled, fibers.FiberCancelled)


@pytest.mark.parametrize("end", [fibers.Fiber.cancel, fibers.Fiber.kill])
def test_an_interrupted_gather_cancels_all(end: Callable[[fibers.Fiber[Any]], None]) -> None:
    several = [fibers.spawn(fibers.sleep, FOREVER) for _ in range(3)]
    gathering = fibers.spawn(fibers.gather, *several)
    fibers.yield_now()
    end(gathering)
    gathering.join(5)
    assert gathering.cancelled()
    fibers.wait(several)
    assert all(fiber.cancelled() for fiber in several)


def test_gather_takes_fibers_only() -> None:
    for what in (int, 7, None, [fibers.current()]):
        with pytest.raises(TypeError, match=r"gather\(\) takes fibers, not .*; `spawn` makes one"):
            fibers.gather(what)  # type: ignore[arg-type]


# -- wait -----------------------------------------------------------------------------------------------------------


def test_wait_for_all() -> None:
    def main(clock: VirtualClock) -> None:
        several = [fibers.spawn(later, seconds) for seconds in (3, 1, 2)]
        assert fibers.wait(several) == (several, [])
        assert clock() == 1003
        assert fibers.wait(iter(several)) == (several, [])
        assert fibers.wait([]) == ([], [])

    run_virtual(main)


def test_wait_for_some() -> None:
    def main(clock: VirtualClock) -> None:
        several = [fibers.spawn(later, seconds) for seconds in (3, 1, 2)]
        assert fibers.wait(several, count=0) == ([], several)
        assert fibers.wait(several, count=1) == ([several[1]], [several[0], several[2]])
        assert clock() == 1001
        assert fibers.wait(several, count=1) == ([several[1]], [several[0], several[2]])
        assert clock() == 1001
        assert fibers.wait(several, count=2) == ([several[1], several[2]], [several[0]])
        assert clock() == 1002
        assert fibers.wait(several, count=100) == (several, [])

    run_virtual(main)


def test_wait_with_a_timeout() -> None:
    def main(clock: VirtualClock) -> None:
        several = [fibers.spawn(later, seconds) for seconds in (3, 1)]
        assert fibers.wait(several, timeout=0) == ([], several)
        assert fibers.wait(several, timeout=2) == ([several[1]], [several[0]])
        assert clock() == 1002
        assert fibers.wait(several, timeout=60) == (several, [])
        assert clock() == 1003

    run_virtual(main)


def test_wait_raises_no_errors_and_cancels_nobody() -> None:
    several: list[fibers.Fiber[Any]] = [fibers.spawn(fail_later, 0), fibers.spawn(fibers.sleep, FOREVER)]
    done, pending = fibers.wait(several, count=1)
    assert isinstance(done[0].exception(), Oops)
    with fibers.move_on_after(0.001):
        fibers.wait(pending)
    assert not pending[0].done()
    pending[0].cancel()
    fibers.wait(pending)


def test_a_deadline_around_a_wait_that_has_a_timeout() -> None:
    """It ends as its timeout would have ended it, once; without a timeout of its own it is Cancelled."""

    def main(clock: VirtualClock) -> None:
        several = [fibers.spawn(later, seconds) for seconds in (30, 1)]
        with fibers.move_on_after(5):
            assert fibers.wait(several, timeout=20) == ([several[1]], [several[0]])
            assert clock() == 1005
            with pytest.raises(fibers.Cancelled):
                fibers.wait(several, timeout=20)
        with fibers.move_on_after(5):
            with pytest.raises(fibers.Cancelled):
                fibers.wait(several)
        with fibers.move_on_after(5):
            with pytest.raises(TimeoutError, match="1 of 2 fibers were not done when a deadline passed"):
                list(fibers.as_completed(several, timeout=60))
        fibers.wait(several)

    run_virtual(main)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"count": -1}, ValueError),
        ({"count": 1.5}, TypeError),
        ({"count": True}, TypeError),
        ({"timeout": -1}, ValueError),
        ({"timeout": "1"}, TypeError),
    ],
)
def test_bad_options(options: dict[str, Any], kind: type[Exception]) -> None:
    with pytest.raises(kind, match=next(iter(options))):
        fibers.wait([], **options)
    with pytest.raises(TypeError, match="takes fibers"):
        fibers.wait([int])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="takes fibers"):
        fibers.as_completed([int])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="timeout"):
        fibers.as_completed([], timeout=-1)


# -- as_completed ---------------------------------------------------------------------------------------------------


def test_as_completed_in_the_order_of_ends() -> None:
    def main(clock: VirtualClock) -> None:
        several: list[fibers.Fiber[Any]] = [fibers.spawn(later, seconds) for seconds in (3, 1, 2)]
        several.append(fibers.spawn(fail_later, 2.5))
        fibers.sleep(1.5)
        seen = []
        for fiber in fibers.as_completed([*several, several[0]]):
            seen.append((several.index(fiber), clock() - 1000))
        assert seen == [(1, 1.5), (2, 2), (3, 2.5), (0, 3)]
        assert list(fibers.as_completed([])) == []
        several[3].exception()

    run_virtual(main)


def test_as_completed_with_a_timeout_from_the_call_on() -> None:
    def main(clock: VirtualClock) -> None:
        several = [fibers.spawn(later, seconds) for seconds in (1, 30)]
        completed = fibers.as_completed(several, timeout=5)
        fibers.sleep(3)
        assert next(completed) is several[0]
        with pytest.raises(TimeoutError, match="1 of 2 fibers were not done after 5 seconds"):
            next(completed)
        assert clock() == 1005
        assert watchers(several[1]) == 0
        several[1].cancel()

    run_virtual(main)


def test_nobody_is_watched_any_longer_than_needed() -> None:
    """A fiber that lives long, and is waited for over and over again."""
    long: fibers.Fiber[Any] = fibers.spawn(fibers.sleep, FOREVER)
    for _ in range(5):
        fibers.wait([long, fibers.spawn(int)], count=1)
        assert watchers(long) == 0
        for _fiber in fibers.as_completed([long, fibers.spawn(int)]):
            assert watchers(long) == 1
            break
        assert watchers(long) == 0
        fibers.as_completed([long])
        assert watchers(long) == 0
        with fibers.move_on_after(0):
            fibers.wait([long])
        assert watchers(long) == 0
    long.cancel()
    long.join()


def test_waiting_for_oneself_is_refused() -> None:
    def body() -> list[str]:
        me = fibers.current()
        other = fibers.spawn(fibers.sleep, 0.001)
        problems = []
        waits: list[Callable[[], object]] = [
            lambda: fibers.wait([me, other]),
            lambda: fibers.gather(me, other),
            lambda: list(fibers.as_completed([me, other])),
        ]
        for each in waits:
            try:
                each()
            except RuntimeError as error:
                problems.append(str(error))
        assert fibers.wait([me, other], count=1) == ([other], [me])
        assert not other.cancelled()
        return problems

    problems = fibers.spawn(body).result(5)
    assert len(problems) == 3
    assert all("would wait for its own end" in problem for problem in problems)


# -- threads --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ask",
    [
        lambda several: fibers.gather(*several),
        lambda several: [fiber.result() for fiber in fibers.wait(several)[0]],
        lambda several: [fiber.result() for fiber in fibers.as_completed(several)],
    ],
)
def test_fibers_of_other_threads(ask: Callable[[Iterable[fibers.Fiber[float]]], list[float]]) -> None:
    several: list[fibers.Fiber[float]] = []
    ready, finish = threading.Event(), threading.Event()

    def in_thread() -> None:
        mine = [fibers.spawn(later, 0.002), fibers.spawn(later, 0.001), fibers.spawn(later, 0)]
        several.extend(mine)
        ready.set()
        for fiber in mine:
            fiber.join()
        finish.wait()

    threads = [threading.Thread(target=in_thread) for _ in range(2)]
    for thread in threads:
        thread.start()
    ready.wait()
    while len(several) < 6:
        fibers.sleep(0.0005)
    several.append(fibers.spawn(later, 0.001))
    assert sorted(ask(several)) == [0, 0, 0.001, 0.001, 0.001, 0.002, 0.002]
    finish.set()
    for thread in threads:
        thread.join()


def test_a_thread_that_ends_first() -> None:
    several: list[fibers.Fiber[Any]] = []

    def in_thread() -> None:
        several.append(fibers.spawn(fibers.sleep, FOREVER))
        fibers.yield_now()
        parked.append(True)
        fibers.sleep(0.002)

    parked: list[bool] = []
    thread = threading.Thread(target=in_thread)
    thread.start()
    while not parked:
        fibers.sleep(0.0005)
    assert fibers.wait(several) == (several, [])
    assert several[0].cancelled()
    thread.join()
    assert fibers.wait(several) == (several, [])


def test_a_deadlock_in_gather_is_reported() -> None:
    ran = run_python(
        "-c",
        """
import fibers
first = fibers.spawn(lambda: second.join())
second = fibers.spawn(lambda: first.join())
fibers.gather(first, second)
""",
        timeout=30,
    )
    assert "DeadlockError" in ran.stderr


def test_no_garbage_for_the_collector() -> None:
    def once() -> None:
        fibers.gather(fibers.spawn(int), fibers.spawn(fibers.yield_now))
        fibers.wait([fibers.spawn(int)])
        list(fibers.as_completed([fibers.spawn(int)]))
        try:
            fibers.gather(fibers.spawn(fail_later, 0), fibers.spawn(fibers.sleep, FOREVER))
        except Oops:
            pass

    once()
    fibers.yield_now()
    gc.collect()
    gc.disable()
    try:
        once()
        fibers.yield_now()
        assert gc.collect() == 0
    finally:
        gc.enable()
