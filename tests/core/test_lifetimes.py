"""What lives how long: carriers, results, frames, and fibers that nobody refers to any more.

Facts (hazard 4). greenlet cannot show the cycles through its stacks to the collector: a local name for the carrier's own
greenlet inside its frame kept 50 of 50 idle carriers alive; idle frames pinned the last result. So no frame of the
runtime names its own greenlet or, while idle, a fiber; the pool of idle carriers is bounded, and shrinks when it is not
needed. The tests look through weak references, with the collector off where no cycle may be involved.
"""

import gc
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from greenlet import getcurrent, greenlet
from support.scale import scaled

import fibers
from fibers.core import carriers
from fibers.core.carrierpool import IDLE_MAX
from fibers.core.scheduler import get_scheduler
from fibers.testing import VirtualClock

FOREVER = float("inf")


#: greenlet itself keeps the main greenlet of a thread that has ended for a while.
SPARE = 5


class Thing:
    pass


@pytest.fixture
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def elsewhere(fn: Callable[..., Any], *args: Any) -> Any:
    """What `fn` returns or raises in a new thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(fn, *args).result()


def living_greenlets() -> int:
    gc.collect()
    return sum(1 for each in gc.get_objects() if isinstance(each, greenlet))


@pytest.mark.usefixtures("_no_collector")
def test_arguments_and_function_go_when_the_fiber_ends() -> None:
    def taker(thing: Thing) -> None:
        fibers.yield_now()

    thing = Thing()
    gone = weakref.ref(thing)
    fiber = fibers.spawn(taker, thing)
    del thing
    fibers.yield_now()
    assert gone() is not None
    fiber.join()
    assert gone() is None


@pytest.mark.usefixtures("_no_collector")
def test_a_result_goes_with_its_fiber() -> None:
    """Hazard 4: results stayed pinned by the frames of idle carriers."""
    fiber = fibers.spawn(Thing)
    waiting = fibers.spawn(fibers.lowlevel.park)  # so that a carrier has to lie down
    fibers.yield_now()
    gone = weakref.ref(fiber.result())
    assert gone() is not None
    fibers.yield_now()
    del fiber
    assert gone() is None
    fibers.lowlevel.unpark(waiting)
    waiting.join()


@pytest.mark.usefixtures("_no_collector")
def test_a_fiber_that_has_ended_goes_with_its_last_reference() -> None:
    fiber = fibers.spawn(fibers.yield_now)
    gone = weakref.ref(fiber)
    fiber.join()
    fibers.yield_now()
    del fiber
    assert gone() is None


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("wait", [lambda: fibers.sleep(0.0001), fibers.yield_now, lambda: fibers.spawn(int).join()])
def test_a_fiber_that_has_waited_goes_too(wait: Callable[[], object]) -> None:
    """No timer, queue or frame keeps it. The timer and the fiber, which refer to each other, let go."""
    fiber = fibers.spawn(wait)
    gone = weakref.ref(fiber)
    fiber.join()
    for _ in range(3):
        fibers.yield_now()
    del fiber
    assert gone() is None


@pytest.mark.usefixtures("_no_collector")
def test_locals_of_a_failed_fiber_go_with_its_error() -> None:
    """Hazard 4: the carrier's frame is cut from kept tracebacks."""
    things: list[weakref.ref[Thing]] = []

    def fail() -> None:
        thing = Thing()
        things.append(weakref.ref(thing))
        raise ValueError("on purpose")

    fiber = fibers.spawn(fail)
    error = fiber.exception()
    assert error is not None
    traceback = error.__traceback__
    assert traceback is not None
    assert traceback.tb_frame.f_code is fail.__code__
    assert things[0]() is not None
    del error, traceback, fiber
    assert things[0]() is None


def test_a_living_fiber_needs_no_reference(virtual_clock: VirtualClock) -> None:
    done: list[float] = []

    def work() -> None:
        fibers.sleep(3600)
        done.append(fibers.current_time())

    fibers.spawn(work)
    fibers.yield_now()
    gc.collect()
    fibers.sleep(7200)
    assert done == [3600.0]


def test_idle_carriers_go_when_their_scheduler_does() -> None:
    """Hazard 4: 50 of 50 idle carriers survived their scheduler in the first prototype."""

    def program() -> None:
        every = [fibers.spawn(fibers.sleep, 0.001) for _ in range(50)]
        for fiber in every:
            fiber.join()
        assert len(get_scheduler().idle) > 10

    before = living_greenlets()
    for _ in range(3):
        elsewhere(program)
    assert living_greenlets() <= before + SPARE


def test_an_ended_thread_leaves_no_scheduler() -> None:
    """Nothing of a thread's runtime outlives the thread: not the scheduler, its loop, its main fiber."""
    kept: list[weakref.ref[Any]] = []

    def program() -> None:
        fibers.spawn(fibers.sleep, 3600)
        fibers.sleep(0.0001)
        scheduler = get_scheduler()
        kept.extend(map(weakref.ref, (scheduler, scheduler.loop, scheduler.main)))

    elsewhere(program)
    gc.collect()
    assert [each() for each in kept] == [None, None, None]


def test_carriers_are_used_again() -> None:
    """The second crowd runs on the greenlets of the first."""
    seen: set[int] = set()

    def work() -> None:
        seen.add(id(getcurrent()))
        fibers.sleep(0.001)

    def program() -> int:
        for _ in range(5):
            every = [fibers.spawn(work) for _ in range(50)]
            for fiber in every:
                fiber.join()
        return len(seen)

    assert elsewhere(program) <= 60


def test_the_idle_pool_is_bounded() -> None:
    def program() -> int:
        every = [fibers.spawn(fibers.sleep, 0.005) for _ in range(3 * IDLE_MAX)]
        for fiber in every:
            fiber.join()
        return len(get_scheduler().idle)

    before = living_greenlets()
    assert elsewhere(program) <= IDLE_MAX
    assert living_greenlets() <= before + SPARE


def test_the_idle_pool_shrinks_when_it_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of what nobody has needed goes at each look; the looks are made often here."""

    def program() -> tuple[int, int]:
        every = [fibers.spawn(fibers.sleep, 0.002) for _ in range(100)]
        for fiber in every:
            fiber.join()
        before = len(get_scheduler().idle)
        monkeypatch.setattr(carriers, "SHRINK_EVERY", 4)
        for _ in range(60):
            fibers.sleep(0.0001)
        return before, len(get_scheduler().idle)

    before, after = elsewhere(program)
    assert before > 50
    assert after < before // 4


def test_the_pool_serves_after_it_has_shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carriers, "SHRINK_EVERY", 1)

    def one() -> int:
        fibers.sleep(0.0005)
        return 1

    def program() -> int:
        total = 0
        for size in (50, 1, 30, 2, 100):
            every = [fibers.spawn(one) for _ in range(size)]
            total += sum(fiber.result() for fiber in every)
            for _ in range(5):
                fibers.sleep(0.0001)
        return total

    assert elsewhere(program) == 183


def test_spawning_and_ending_for_long_grows_nothing() -> None:
    """Counted in objects, not bytes: what each of many fibers left behind would show."""

    def round_of_fibers() -> None:
        for _ in range(scaled(10_000, least=500)):
            fibers.spawn(fibers.yield_now).join()
        gc.collect()

    round_of_fibers()
    before = len(gc.get_objects())
    round_of_fibers()
    assert len(gc.get_objects()) - before < 100


def test_parked_fibers_dropped_in_a_cycle_are_not_collected_alive() -> None:
    """The scheduler keeps live fibers: a collection neither unwinds nor resumes them."""
    unwound: list[str] = []

    def waiting(holder: Any) -> None:
        try:
            fibers.lowlevel.park()
        finally:
            unwound.append("unwound")

    holder = Thing()
    fiber = fibers.spawn(waiting, holder)
    holder.fiber = fiber  # type: ignore[attr-defined]
    fibers.yield_now()
    del holder
    gc.collect()
    assert unwound == []
    fiber.cancel()
    fiber.join()
    assert unwound == ["unwound"]
