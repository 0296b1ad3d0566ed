"""`lowlevel.park` and `unpark`: one permit, any thread.

Facts. An `unpark` that comes first is remembered, once; no order of the two loses a wake-up, from any thread. A park that
runs into its timeout takes nothing that belongs to the next one.
"""

import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.scale import scaled

import fibers
from fibers.core.scheduler import get_scheduler
from fibers.eventloop import new_loop
from fibers.lowlevel import park, unpark


def test_unpark_ends_a_park() -> None:
    fiber = fibers.spawn(park)
    fibers.yield_now()
    assert not fiber.done()
    unpark(fiber)
    fiber.join(5)
    assert fiber.done()


def test_an_unpark_that_comes_first_is_remembered() -> None:
    me = fibers.current()
    unpark(me)
    park(5)


def test_before_the_fiber_has_started() -> None:
    fiber = fibers.spawn(park, 5)
    unpark(fiber)
    fiber.result()


def test_the_permit_is_one() -> None:
    me = fibers.current()
    unpark(me)
    unpark(me)
    park(5)
    with pytest.raises(TimeoutError):
        park(0.001)


def test_a_permit_needs_no_time() -> None:
    unpark(fibers.current())
    park(0)


@pytest.mark.parametrize("timeout", [0, 0.001, 0.01])
def test_timeout(timeout: float) -> None:
    before = fibers.current_time()
    with pytest.raises(TimeoutError, match=f"{timeout}"):
        park(timeout)
    assert fibers.current_time() - before >= timeout


def test_a_timed_out_park_leaves_the_next_unpark_to_the_next_park() -> None:
    me = fibers.current()
    with pytest.raises(TimeoutError):
        park(0.001)
    unpark(me)
    park(5)
    with pytest.raises(TimeoutError):
        park(0)


@pytest.mark.parametrize("timeout", [-1, float("nan"), "1"])
def test_a_bad_timeout_is_refused_and_takes_no_permit(timeout: Any) -> None:
    """Bad input: the permit is still there afterwards."""
    unpark(fibers.current())
    with pytest.raises((TypeError, ValueError), match=re.escape(repr(timeout))):
        park(timeout)
    park(5)


@pytest.mark.parametrize("what", [None, 3, "fiber", object()])
def test_unpark_takes_a_fiber(what: Any) -> None:
    with pytest.raises(TypeError, match="fiber"):
        unpark(what)


def test_unpark_does_not_disturb_other_waits() -> None:
    """A fiber that sleeps or joins is not woken by an unpark meant for a later park."""
    fiber = fibers.spawn(fibers.sleep, 0.01)
    before = fibers.current_time()
    fibers.yield_now()
    unpark(fiber)
    fiber.join(5)
    assert fibers.current_time() - before >= 0.01


def test_unpark_of_a_fiber_that_is_done() -> None:
    fiber = fibers.spawn(int)
    fiber.join()
    unpark(fiber)
    fibers.yield_now()


def test_from_a_plain_thread() -> None:
    fiber = fibers.spawn(park)
    fibers.yield_now()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(unpark, fiber)
        fiber.join(5)


def test_ping_pong_between_two_threads_loses_no_wake() -> None:
    """Row "lost wake" for parks: two main fibers in two threads, each woken by the other."""
    rounds = scaled(100_000, least=2000)
    mains: list[fibers.Fiber[Any]] = [fibers.current()]
    ready = threading.Event()

    def other() -> int:
        mains.append(fibers.current())
        ready.set()
        for _ in range(rounds):
            park(20)
            unpark(mains[0])
        return rounds

    with ThreadPoolExecutor(1) as pool:
        playing = pool.submit(other)
        ready.wait()
        for _ in range(rounds):
            unpark(mains[1])
            park(20)
        assert playing.result() == rounds


def test_an_unpark_just_before_the_loop_falls_asleep_is_not_lost() -> None:
    """Row "lost wake", without luck: the loop reads its clock after its look at the inbox and before the kernel wait."""
    moments: list[Callable[[], object]] = []

    def clock() -> float:
        if moments:
            moments.pop()()
        return time.monotonic()

    def program() -> None:
        scheduler = get_scheduler(new_loop(clock=clock))
        me = fibers.current()
        for _ in range(20):
            with ThreadPoolExecutor(1) as pool:
                # The first reading is that of `park` itself, for its deadline; the second comes in the turn.
                moments[:] = [lambda: pool.submit(unpark, me).result(), int]
                park(5)
            assert moments == []
        assert scheduler.loop.stats.turns > 0

    with ThreadPoolExecutor(1) as pool:
        pool.submit(program).result()


def unpark_all(every: list[fibers.Fiber[None]]) -> None:
    for fiber in every:
        unpark(fiber)


def test_many_fibers_unparked_from_three_threads_in_random_order() -> None:
    rounds = scaled(1000, least=20)
    with ThreadPoolExecutor(3) as pool:
        for _ in range(rounds):
            every = [fibers.spawn(park, 20) for _ in range(50)]
            for part in range(3):
                pool.submit(unpark_all, every[part::3])
            for fiber in every:
                fiber.result()
