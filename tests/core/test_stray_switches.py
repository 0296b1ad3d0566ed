"""Greenlets of the program's own, and the depth at which carriers start.

Facts (hazard 5). A fiber may run greenlets of its own (SQLAlchemy's asyncio bridge, greenback do). One that outlives its
fiber ends by returning into whatever its parent does by then: a stranger's `sleep(0.5)` returned after 0.01 s. So whoever
is resumed looks whether it was handed control; if not, the fiber that is running gets a RuntimeError, and the parked one
keeps waiting.

Facts (hazard 6). A greenlet inherits the recursion depth of its starter. Carriers start from a launcher, whose depth is
that of the thread's first use; used first at depth 850, every later fiber had 150 frames left.
"""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from greenlet import getcurrent, greenlet

import fibers

FOREVER = float("inf")


def elsewhere(fn: Callable[..., Any], *args: Any) -> Any:
    """What `fn` returns or raises in a new thread, whose main greenlet stands at the bottom of its stack."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(fn, *args).result()


def test_a_fiber_may_run_greenlets_that_switch_among_themselves() -> None:
    def program() -> list[int]:
        back = getcurrent()

        def numbers() -> None:
            for number in range(3):
                back.switch(number)

        inner = greenlet(numbers)
        return [inner.switch() for _ in range(3)]

    assert fibers.spawn(program).result() == [0, 1, 2]


def test_a_greenlet_of_a_fiber_may_wait() -> None:
    """What is saved at a suspension is `getcurrent()`, not the carrier."""

    def inner() -> str:
        before = fibers.current_time()
        fibers.sleep(0.005)
        assert fibers.current_time() - before >= 0.005
        fibers.spawn(fibers.yield_now).join()
        return "waited"

    def program() -> object:
        return greenlet(inner).switch()

    every = [fibers.spawn(program) for _ in range(20)]
    assert [fiber.result() for fiber in every] == ["waited"] * 20


def test_a_greenlet_of_main_may_wait() -> None:
    def inner() -> str:
        fibers.sleep(0.001)
        return fibers.spawn(lambda: "waited").result()

    assert elsewhere(lambda: greenlet(inner).switch()) == "waited"


def test_cancel_reaches_a_fiber_that_waits_in_a_greenlet_of_its_own() -> None:
    def program() -> None:
        greenlet(fibers.sleep).switch(FOREVER)

    fiber = fibers.spawn(program)
    fibers.yield_now()
    fiber.cancel()
    fiber.join(5)
    assert fiber.cancelled()


def test_a_greenlet_that_outlives_its_fiber_does_not_resume_a_stranger() -> None:
    """Hazard 5: its parent is a carrier that runs another fiber by then, and that one is asleep."""

    def program() -> tuple[bool, str]:
        left: list[Any] = []

        def maker() -> None:
            inner = greenlet(lambda: getcurrent().parent.switch())  # type: ignore[union-attr]
            inner.switch()
            left.append(inner)

        fibers.spawn(maker).join()
        slept: list[float] = []

        def stranger() -> None:
            before = fibers.current_time()
            fibers.sleep(0.05)
            slept.append(fibers.current_time() - before)

        asleep = [fibers.spawn(stranger) for _ in range(3)]
        fibers.yield_now()
        try:
            left[0].switch()
            outcome = "nothing"
        except RuntimeError as error:
            outcome = str(error)
        for fiber in asleep:
            fiber.result()
        return all(seconds >= 0.05 for seconds in slept), outcome

    on_time, outcome = elsewhere(program)
    assert on_time
    assert "greenlet" in outcome


@pytest.mark.parametrize("how", ["switch", "throw", "throw an error"])
def test_switching_into_a_parked_fiber(how: str) -> None:
    """Row #15744: an error for the one who does it; the sleeper is resumed by its timer, once."""

    def program() -> tuple[str, float, int]:
        resumed: list[float] = []

        def sleeper() -> None:
            home.append(getcurrent())
            before = fibers.current_time()
            fibers.sleep(0.03)
            resumed.append(fibers.current_time() - before)
            fibers.sleep(0.001)

        def intruder() -> str:
            try:
                if how == "switch":
                    home[0].switch()
                elif how == "throw":
                    home[0].throw(KeyError("intruder"))
                else:
                    home[0].throw(ValueError, ValueError("intruder"))
            except (RuntimeError, KeyError, ValueError) as error:
                fibers.sleep(0.001)  # the intruder itself can go on
                return type(error).__name__
            return "nothing"

        home: list[Any] = []
        fiber = fibers.spawn(sleeper)
        fibers.yield_now()
        outcome = fibers.spawn(intruder).result()
        fiber.result()
        return outcome, resumed[0], len(resumed)

    outcome, seconds, times = elsewhere(program)
    assert outcome == "RuntimeError"
    assert seconds >= 0.03
    assert times == 1


def test_switching_into_a_parked_main_from_a_fiber() -> None:
    def program() -> tuple[str, float]:
        main = getcurrent()

        def intruder() -> str:
            try:
                main.switch()
            except RuntimeError as error:
                return str(error)
            return "nothing"

        fiber = fibers.spawn(intruder)
        before = fibers.current_time()
        fibers.sleep(0.02)
        return fiber.result(), fibers.current_time() - before

    outcome, seconds = elsewhere(program)
    assert "greenlet" in outcome
    assert seconds >= 0.02


def test_switching_into_an_idle_carrier() -> None:
    """The greenlet of a fiber that is done belongs to the pool: nobody is disturbed, and the pool still serves."""

    def program() -> tuple[str, list[int]]:
        home: list[Any] = []
        # Two at once, the second outliving the first: so the first's carrier has nobody to run and lies down.
        waiting = fibers.spawn(fibers.sleep, 0.01)
        fibers.spawn(lambda: home.append(getcurrent())).join()
        fibers.sleep(0.001)
        try:
            home[0].switch()
            outcome = "nothing"
        except RuntimeError as error:
            outcome = str(error)
        waiting.join()
        return outcome, [fibers.spawn(lambda number=number: number).result() for number in range(5)]

    outcome, numbers = elsewhere(program)
    assert "greenlet" in outcome
    assert numbers == [0, 1, 2, 3, 4]


def at_depth(depth: int, fn: Callable[[], Any]) -> Any:
    return at_depth(depth - 1, fn) if depth else fn()


def frames() -> int:
    """How many frames this greenlet can still go down."""
    try:
        return frames() + 1
    except RecursionError:
        return 0


def test_first_use_at_depth_850_does_not_shorten_later_fibers() -> None:
    """Hazard 6: the launcher is replaced when main parks at a shallower depth."""

    def program() -> tuple[int, int]:
        here = fibers_free_frames_without_use()
        at_depth(850, lambda: fibers.spawn(fibers.yield_now).join())
        return here, fibers.spawn(frames).result()

    def fibers_free_frames_without_use() -> int:
        return frames()

    limit = sys.getrecursionlimit()
    here, later = elsewhere(program)
    assert here > limit - 100
    assert later > here - 100


def sleep_and_say() -> str:
    fibers.sleep(0.005)
    return "went on"


def test_first_use_at_depth_850_with_fibers_alive_across_it() -> None:
    """Fibers that started deep go on where they are; those that start later have the whole depth."""

    def program() -> tuple[int, list[str]]:
        deep: list[fibers.Fiber[str]] = []

        def start() -> None:
            deep.extend(fibers.spawn(sleep_and_say) for _ in range(5))
            fibers.yield_now()

        at_depth(850, start)
        late = fibers.spawn(frames).result()
        return late, [fiber.result() for fiber in deep]

    late, deep = elsewhere(program)
    assert late > sys.getrecursionlimit() - 200
    assert deep == ["went on"] * 5


def test_spawning_from_deep_inside_a_fiber_does_not_shorten_the_new_one() -> None:
    def program() -> int:
        def parent() -> int:
            return int(at_depth(500, lambda: fibers.spawn(frames).result()))

        return fibers.spawn(parent).result()

    assert elsewhere(program) > sys.getrecursionlimit() - 200
