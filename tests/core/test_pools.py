"""Pools: never more fibers than places, places given in the order of asking, and maps that take no more than they need.

Facts. A pool is a task group whose `spawn` waits for a place. An error of a spawned fiber is a failure of the pool; an error
of a mapped call is raised by that map, bare, and cancels the other calls of the same map only. Mapping is lazy: nothing is
taken from an iterable before a result is asked for, and never more than `ahead` items further.
"""

import gc
import itertools
import random
from collections.abc import Iterator
from typing import Any

import pytest
from support.process import run_python
from support.scale import SEED, scaled
from support.virtual import VirtualClock, run_virtual

import fibers
from fibers import lowlevel

FOREVER = float("inf")


class Oops(Exception):
    pass


def fail(error: BaseException) -> None:
    raise error


class Crowd:
    """Counts how many are inside at once."""

    def __init__(self) -> None:
        self.now = self.most = self.total = 0

    def visit(self, item: Any = None) -> Any:
        self.now += 1
        self.total += 1
        self.most = max(self.most, self.now)
        try:
            fibers.sleep(0.001)
        finally:
            self.now -= 1
        return item


# -- spawning -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 7])
def test_never_more_than_its_size(size: int) -> None:
    crowd = Crowd()
    with fibers.Pool(size) as pool:
        assert pool.free() == size
        for _ in range(20):
            pool.spawn(crowd.visit)
            assert 0 <= pool.free() < size
    assert (crowd.most, crowd.total, crowd.now) == (size, 20, 0)
    assert pool.free() == size


def test_spawn_waits_while_it_is_full() -> None:
    def main(clock: VirtualClock) -> None:
        with fibers.Pool(2) as pool:
            times = []
            for _ in range(6):
                pool.spawn(fibers.sleep, 10)
                times.append(clock() - 1000)
            assert times == [0, 0, 10, 10, 20, 20]
        assert clock() == 1030

    run_virtual(main)


def test_places_are_given_in_the_order_of_asking() -> None:
    order: list[int] = []

    def ask(number: int) -> None:
        pool.spawn(order.append, number)

    with fibers.Pool(1) as pool:
        pool.spawn(fibers.sleep, 0.002)
        askers = [fibers.spawn(ask, number) for number in range(10)]
        fibers.yield_now()
        assert order == []
        for asker in askers:
            asker.join()
    assert order == list(range(10))


def test_nobody_pushes_in_between_a_free_place_and_who_waits_for_it() -> None:
    order: list[str] = []
    with fibers.Pool(1) as pool:
        first = pool.spawn(fibers.yield_now)
        waiting = fibers.spawn(pool.spawn, order.append, "waited")
        fibers.yield_now()
        first.join()
        assert pool.free() == 0
        pool.spawn(order.append, "came later")
        waiting.join()
    assert order == ["waited", "came later"]


def test_an_interrupted_spawn_takes_no_place() -> None:
    ran: list[str] = []
    with fibers.Pool(1) as pool:
        gate = pool.spawn(lowlevel.park)
        fibers.yield_now()
        cancelled = fibers.spawn(pool.spawn, ran.append, "cancelled")
        killed = fibers.spawn(pool.spawn, ran.append, "killed")
        patient = fibers.spawn(pool.spawn, ran.append, "patient")
        with fibers.move_on_after(0.001) as scope:
            pool.spawn(ran.append, "late")
        assert scope.cancelled_caught
        cancelled.cancel()
        killed.kill()
        fibers.yield_now()
        lowlevel.unpark(gate)
        patient.join()
        assert cancelled.cancelled()
        assert killed.cancelled()
    assert ran == ["patient"]
    assert pool.free() == 1


def test_cancelled_at_the_moment_when_a_place_was_given() -> None:
    """A place that has been given is used: what was woken is not interrupted any more."""
    ran: list[str] = []
    with fibers.Pool(1) as pool:
        gate = pool.spawn(lowlevel.park)
        fibers.yield_now()
        waiting = fibers.spawn(pool.spawn, ran.append, "ran")
        fibers.yield_now()
        lowlevel.unpark(gate)
        gate.add_done_callback(lambda _: waiting.cancel())
        waiting.join()
    assert ran == ["ran"]
    assert pool.free() == 1


def test_in_a_cancelled_scope_spawn_raises() -> None:
    with fibers.Pool(2) as pool:
        pool.cancel()
        with pytest.raises(fibers.Cancelled):
            pool.spawn(int)
    assert pool.free() == 2


def test_leaving_waits_for_those_who_wait_for_a_place() -> None:
    ran: list[int] = []

    def ask(number: int) -> None:
        pool.spawn(ran.append, number)

    with fibers.Pool(1) as pool:
        pool.spawn(fibers.sleep, 0.001)
        askers = [fibers.spawn(ask, number) for number in range(5)]
        fibers.yield_now()
    assert ran == list(range(5))
    for asker in askers:
        asker.result()


def test_errors_as_in_a_group() -> None:
    with pytest.raises(ExceptionGroup, match="task group 'works'") as caught:
        with fibers.Pool(3, name="works") as pool:
            sleeper = pool.spawn(fibers.sleep, FOREVER)
            fibers.yield_now()
            pool.spawn(fail, Oops("child"))
            fibers.sleep(FOREVER)
    assert [str(error) for error in caught.value.exceptions] == ["child"]
    assert sleeper.cancelled()


def test_a_failure_while_spawn_waits_for_a_place() -> None:
    with pytest.raises(ExceptionGroup):
        with fibers.Pool(2) as pool:
            pool.spawn(fibers.sleep, FOREVER)
            pool.spawn(lambda: fibers.yield_now() or fail(Oops("child")))  # type: ignore[func-returns-value]
            pool.spawn(int)
            pytest.fail("not reached: the pool is cancelled, and this block with it")


def test_cancel() -> None:
    with fibers.Pool(2) as pool:
        children = [pool.spawn(fibers.sleep, FOREVER) for _ in range(2)]
        fibers.yield_now()
        pool.cancel()
        fibers.sleep(FOREVER)
    assert pool.cancelled_caught
    assert all(child.cancelled() for child in children)


def test_join_waits_and_the_pool_goes_on() -> None:
    crowd = Crowd()
    with fibers.Pool(2) as pool:
        pool.join()
        for _ in range(3):
            for _ in range(3):
                pool.spawn(crowd.visit)
            pool.join(60)
            assert crowd.now == 0
        pool.spawn(fibers.sleep, FOREVER)
        with pytest.raises(TimeoutError, match=r"had not ended after 0\.001 seconds"):
            pool.join(0.001)
        with fibers.move_on_after(0.001):
            with pytest.raises(TimeoutError, match="when a deadline passed"):
                pool.join(60)
        pool.cancel()
    assert crowd.total == 9


def test_a_fiber_of_the_pool_cannot_join_it() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        with fibers.Pool(2) as pool:
            pool.spawn(pool.join)
    assert "would wait for its own end" in str(caught.value.exceptions[0])


def test_names_and_places_of_spawns() -> None:
    with fibers.Pool(2, name="works") as pool:
        child = pool.spawn(int, name="the child")
        assert child.name == "the child"
        assert "in test_names_and_places_of_spawns" in child.spawned_at
        assert repr(pool) == "<Pool 'works' 1 fibers left>"


@pytest.mark.parametrize(
    ("size", "kind"),
    [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError), ("2", TypeError), (None, TypeError)],
)
def test_bad_sizes(size: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="size of a pool"):
        fibers.Pool(size)


def test_bad_uses() -> None:
    pool = fibers.Pool(1)
    with pytest.raises(RuntimeError, match="has not been entered"):
        pool.spawn(int)
    with pool:
        with pytest.raises(TypeError, match="takes a function"):
            pool.spawn(7)  # type: ignore[arg-type]
        methods: list[Any] = [pool.map, pool.imap, pool.imap_unordered]
        for method in methods:
            with pytest.raises(TypeError, match="a function is mapped"):
                method(7, [1])
            with pytest.raises(TypeError, match="at least one iterable"):
                method(int)
        for ahead, kind in ((0, ValueError), (1.5, TypeError), (True, TypeError)):
            with pytest.raises(kind, match="ahead must be"):
                pool.imap(int, [1], ahead=ahead)  # type: ignore[arg-type]
        assert pool.free() == 1
    with pytest.raises(RuntimeError, match="has ended"):
        pool.spawn(int)
    with pytest.raises(RuntimeError, match="has ended"):
        pool.map(int, [1])


# -- mapping --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3, 100])
def test_maps_give_all_results(size: int) -> None:
    crowd = Crowd()
    with fibers.Pool(size) as pool:
        assert pool.map(crowd.visit, range(10)) == list(range(10))
        assert list(pool.imap(crowd.visit, range(10))) == list(range(10))
        assert sorted(pool.imap_unordered(crowd.visit, range(10))) == list(range(10))
        assert pool.map(pow, [2, 3, 4], [3, 2]) == [8, 9]
        assert pool.map(int, []) == []
        assert list(pool.imap(int, [])) == []
        assert list(pool.imap_unordered(int, [])) == []
    assert crowd.most == min(size, 10)
    assert crowd.total == 30


def later(seconds: float) -> float:
    fibers.sleep(seconds)
    return seconds


def test_the_order_of_results() -> None:
    def main(clock: VirtualClock) -> None:
        with fibers.Pool(3) as pool:
            assert list(pool.imap(later, [3, 1, 2])) == [3, 1, 2]
            assert clock() == 1003
            assert list(pool.imap_unordered(later, [3, 1, 2])) == [1, 2, 3]
            assert clock() == 1006
            assert pool.map(later, [3, 1, 2]) == [3, 1, 2]
            assert clock() == 1009

    run_virtual(main)


def counting(taken: list[int]) -> Iterator[int]:
    for number in itertools.count():
        taken.append(number)
        yield number


@pytest.mark.parametrize("how", ["imap", "imap_unordered"])
@pytest.mark.parametrize("ahead", [None, 1, 5])
def test_endless_iterables_are_read_a_little_ahead(how: str, ahead: int | None) -> None:
    taken: list[int] = []
    with fibers.Pool(2) as pool:
        results = getattr(pool, how)(Crowd().visit, counting(taken), ahead=ahead)
        fibers.sleep(0.002)
        assert taken == []
        for number in range(6):
            next(results)
            assert len(taken) <= number + 1 + (4 if ahead is None else ahead)
        results.close()
        before = len(taken)
        fibers.sleep(0.005)
        assert len(taken) == before
    assert not pool.cancel_called


def test_a_slow_first_result_does_not_idle_the_pool() -> None:
    """While the first is waited for, others are begun, as far as `ahead` allows."""

    def main(clock: VirtualClock) -> None:
        with fibers.Pool(2) as pool:
            results = pool.imap(later, [10, 1, 1, 1, 1, 1], ahead=5)
            assert next(results) == 10
            assert clock() == 1010
            assert list(results) == [1, 1, 1, 1, 1]
            assert clock() == 1011

    run_virtual(main)


def test_closing_an_iteration_cancels_what_is_under_way() -> None:
    crowd = Crowd()
    with fibers.Pool(3) as pool:
        for _ in pool.imap_unordered(crowd.visit, itertools.count()):
            break
        pool.join(5)
        assert crowd.now == 0
        results = pool.imap(crowd.visit, itertools.count())
        next(results)
        del results
        pool.join(5)
        assert crowd.now == 0
    assert not pool.cancel_called


def fail_at(number: int, item: int) -> int:
    fibers.sleep(0.001)
    if item == number:
        raise Oops(f"at {item}")
    return item


@pytest.mark.parametrize("how", ["map", "imap", "imap_unordered"])
def test_an_error_is_raised_bare_and_is_no_failure_of_the_pool(how: str) -> None:
    with fibers.Pool(2) as pool:
        other = pool.spawn(fibers.sleep, 0.02)
        with pytest.raises(Oops, match="at 3"):
            list(getattr(pool, how)(lambda item: fail_at(3, item), itertools.count() if how != "map" else range(100)))
        pool.join()
        assert not other.cancelled()
        assert pool.map(int, [1, 2]) == [1, 2]
    assert not pool.cancel_called


def test_imap_raises_in_the_place_of_the_result_and_ends() -> None:
    with fibers.Pool(3) as pool:
        results = pool.imap(lambda item: fail_at(2, item), range(10))
        assert next(results) == 0
        assert next(results) == 1
        with pytest.raises(Oops):
            next(results)
        with pytest.raises(StopIteration):
            next(results)


def test_map_raises_the_first_in_time_and_waits_for_the_others() -> None:
    steps: list[str] = []

    def call(item: int) -> None:
        if item == 0:
            try:
                fibers.sleep(FOREVER)
            finally:
                with fibers.shield():
                    fibers.sleep(0.001)
                steps.append("cleaned up")
        if item == 1:
            fibers.sleep(0.001)
            raise Oops("first in time")
        steps.append("began")

    with fibers.Pool(2) as pool:
        with pytest.raises(Oops, match="first in time"):
            pool.map(call, range(50))
        assert steps == ["cleaned up"]


def test_an_interrupted_map_cancels_its_calls() -> None:
    crowd = Crowd()

    def visit_for_ever(item: int) -> None:
        crowd.visit()
        fibers.sleep(FOREVER)

    with fibers.Pool(3) as pool:
        with fibers.move_on_after(0.005) as scope:
            pool.map(visit_for_ever, range(2))
        assert scope.cancelled_caught
        with fibers.move_on_after(0.005):
            pool.map(visit_for_ever, itertools.count())
        pool.join(5)
    assert not pool.cancel_called


def test_a_call_that_is_cancelled_raises_in_the_map() -> None:
    def suicidal(item: int) -> None:
        fibers.current().cancel()
        fibers.sleep(FOREVER)

    with fibers.Pool(2) as pool:
        for how in (pool.map, pool.imap, pool.imap_unordered):
            with pytest.raises(fibers.FiberCancelled):
                list(how(suicidal, [1]))


def test_mapping_in_a_pool_that_is_cancelled() -> None:
    ran: list[int] = []
    with fibers.Pool(2) as pool:
        results = pool.imap(ran.append, [1, 2])
        pool.cancel()
        for how in (pool.map, pool.imap, pool.imap_unordered):
            with pytest.raises(fibers.Cancelled):
                list(how(ran.append, [1, 2]))
        with fibers.shield():
            with pytest.raises(fibers.FiberCancelled):
                list(results)
    assert ran == []


def test_an_urgent_error_of_a_call() -> None:
    with pytest.raises(SystemExit):
        with fibers.Pool(2) as pool:
            pool.map(lambda item: fail(SystemExit(3)), [1])


def test_an_iterable_that_raises() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise Oops("the iterable")

    with fibers.Pool(2) as pool:
        for how in (pool.map, pool.imap, pool.imap_unordered):
            with pytest.raises(Oops, match="the iterable"):
                list(how(int, items()))
    assert not pool.cancel_called


def test_an_error_after_the_iteration_was_given_up_is_the_pools() -> None:
    def call(item: int) -> int:
        if item:
            try:
                fibers.sleep(FOREVER)
            finally:
                raise Oops("clean-up")
        return item

    with pytest.raises(ExceptionGroup) as caught:
        with fibers.Pool(2) as pool:
            for _ in pool.imap(call, range(2)):
                fibers.yield_now()
                break
    assert [str(error) for error in caught.value.exceptions] == ["clean-up"]


def test_two_maps_share_a_pool() -> None:
    crowd = Crowd()
    with fibers.Pool(3) as pool:
        first = fibers.spawn(pool.map, crowd.visit, range(10))
        second = fibers.spawn(lambda: list(pool.imap(crowd.visit, range(10, 20))))
        assert first.result() == list(range(10))
        assert second.result() == list(range(10, 20))
    assert crowd.most == 3


def test_random_use_never_exceeds_the_size_and_loses_nothing() -> None:
    chance = random.Random(SEED)
    for _ in range(scaled(400, least=20)):
        size = chance.randrange(1, 5)
        crowd = Crowd()
        askers: list[fibers.Fiber[Any]] = []
        asked = 0
        with fibers.Pool(size) as pool:

            def ask(pool: fibers.Pool = pool, crowd: Crowd = crowd) -> int:
                pool.spawn(crowd.visit)
                return 1

            for _ in range(chance.randrange(30)):
                what = chance.random()
                if what < 0.5:
                    askers.append(fibers.spawn(ask))
                    asked += 1
                elif what < 0.7 and askers:
                    chance.choice(askers).cancel()
                elif what < 0.8:
                    assert pool.map(crowd.visit, range(4)) == [0, 1, 2, 3]
                    crowd.total -= 4
                else:
                    fibers.sleep(0.0005)
                assert crowd.now <= size
        done = sum(asker.result() for asker in askers if asker.done() and not asker.cancelled())
        for asker in askers:
            asker.join(5)
        assert crowd.most <= size
        assert crowd.total == done, f"FIBERS_TEST_SEED={SEED}"
        assert pool.free() == size


def test_a_pool_that_waits_for_itself_is_reported() -> None:
    """A fiber of the pool that waits for a place in it holds one."""
    ran = run_python(
        "-c",
        """
import fibers
def nested():
    pool.map(int, [1])
with fibers.Pool(1) as pool:
    pool.spawn(nested)
""",
        timeout=30,
    )
    assert "DeadlockError" in ran.stderr
    assert "for <Pool 1 fibers left>" in ran.stderr


@pytest.mark.parametrize("how", ["map", "imap", "imap_unordered"])
def test_no_garbage_for_the_collector(how: str) -> None:
    def failing(item: int) -> int:
        if item == 5:
            raise Oops("five")
        fibers.yield_now()
        return item

    def once() -> None:
        with fibers.Pool(2) as pool:
            list(getattr(pool, how)(int, range(5)))
            try:
                list(getattr(pool, how)(failing, range(10)))
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
