"""`spawn`, `spawn_later`, `current`, `all_fibers`, names: what a fiber is made of.

Facts. A spawned fiber starts only when others next wait, in the order of spawning. Fibers are started from a launcher at
a shallow depth, so a fiber spawned from a fiber spawned from a fiber nests no stacks: chains of thousands are the test
for that, because a core that started greenlets where it stood died of RecursionError at a few thousand.
"""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from typing import Any

import pytest
from support.scale import scaled

import fibers
from fibers.testing import VirtualClock

NOT_FUNCTIONS: list[Any] = [None, 3, "print", [print]]
BAD_DURATIONS: list[tuple[Any, type[Exception]]] = [
    (-1, ValueError),
    (-1e-9, ValueError),
    (float("nan"), ValueError),
    (float("-inf"), ValueError),
    ("1", TypeError),
    (None, TypeError),
    (1j, TypeError),
    ([], TypeError),
]


def collect(*args: object, **kwargs: object) -> tuple[tuple[object, ...], dict[str, object]]:
    return args, kwargs


def test_arguments_reach_the_function() -> None:
    fiber = fibers.spawn(collect, 1, "two", three=3)
    assert fiber.result() == ((1, "two"), {"three": 3})


def test_name_and_context_are_options_of_spawn_not_arguments() -> None:
    fiber = fibers.spawn(collect, name="me", context=Context())
    assert fiber.result() == ((), {})


def test_a_fiber_starts_when_others_next_wait() -> None:
    started: list[int] = []
    fiber = fibers.spawn(started.append, 1)
    assert started == []
    assert not fiber.done()
    fibers.yield_now()
    assert started == [1]
    assert fiber.done()


def test_fibers_start_in_the_order_of_spawning() -> None:
    order: list[int] = []
    every = [fibers.spawn(order.append, number) for number in range(100)]
    for fiber in every:
        fiber.join()
    assert order == list(range(100))


@pytest.mark.parametrize("what", NOT_FUNCTIONS)
def test_spawn_refuses_what_is_not_a_function(what: Any) -> None:
    """Bad input: an immediate error naming the value, and nothing half-started."""
    before = fibers.all_fibers()
    with pytest.raises(TypeError, match=re.escape(repr(what))):
        fibers.spawn(what)
    with pytest.raises(TypeError, match=re.escape(repr(what))):
        fibers.spawn_later(0, what)
    assert fibers.all_fibers() == before


def test_a_missing_argument_is_the_fibers_error() -> None:
    fiber = fibers.spawn(int.__add__, 1)
    with pytest.raises(TypeError):
        fiber.result()


def test_current_is_the_fiber_that_runs() -> None:
    main = fibers.current()
    fiber = fibers.spawn(fibers.current)
    assert fiber.result() is fiber
    assert fibers.current() is main


def test_each_thread_has_its_own_main_fiber() -> None:
    def look() -> tuple[fibers.Fiber[Any], fibers.Fiber[Any]]:
        return fibers.current(), fibers.spawn(fibers.current).result()

    with ThreadPoolExecutor(1, thread_name_prefix="elsewhere") as pool:
        main, inner = pool.submit(look).result()
    assert main is not fibers.current()
    assert main is not inner
    assert "elsewhere" in main.name


def test_all_fibers_lists_the_living_of_all_threads() -> None:
    seen: list[fibers.Fiber[Any]] = []

    def elsewhere() -> None:
        sleeper = fibers.spawn(fibers.sleep, float("inf"), name="far")
        fibers.yield_now()
        seen.extend(fibers.all_fibers())
        sleeper.cancel()
        sleeper.join()

    near = fibers.spawn(fibers.sleep, float("inf"), name="near")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(elsewhere).result()
    assert near in seen
    assert "far" in [fiber.name for fiber in seen]
    assert fibers.current() not in seen  # main fibers are threads, not fibers
    assert "far" not in [fiber.name for fiber in fibers.all_fibers()]
    near.cancel()
    near.join()
    assert near not in fibers.all_fibers()


def test_the_name_is_the_functions_unless_given() -> None:
    assert fibers.spawn(collect).name == "collect"
    assert fibers.spawn(collect, name="other").name == "other"
    fiber = fibers.spawn(collect)
    fiber.name = "renamed"
    fiber.join()
    assert fiber.name == "renamed"
    plain = fibers.spawn(collect)
    plain.join()
    assert plain.name == "collect"  # also when the function has been let go of


def test_repr_tells_name_and_state() -> None:
    sleeper = fibers.spawn(fibers.sleep, float("inf"), name="sleepy")
    assert re.search(r"'sleepy' not started", repr(sleeper))
    fibers.yield_now()
    assert re.search(r"'sleepy' running", repr(sleeper))
    sleeper.cancel()
    assert "cancelled" in repr(sleeper)
    sleeper.join()
    assert re.search(r"ended by Cancelled", repr(sleeper))
    done = fibers.spawn(int)
    done.join()
    assert " done" in repr(done)


def test_the_place_of_the_spawn_is_known() -> None:
    fiber = fibers.spawn(int)  # this line is looked up below
    line = test_the_place_of_the_spawn_is_known.__code__.co_firstlineno + 1
    assert f"{__file__}:{line} in test_the_place_of_the_spawn_is_known" in fiber.spawned_at
    fiber.join()


def test_spawn_later_starts_later_and_not_early() -> None:
    before = fibers.current_time()
    fiber = fibers.spawn_later(0.01, fibers.current_time)
    assert fiber.result() - before >= 0.01


def test_spawn_later_passes_arguments_name_and_context() -> None:
    fiber = fibers.spawn_later(0, collect, 1, two=2, name="late", context=Context())
    assert fiber.name == "late"
    assert fiber.result() == ((1,), {"two": 2})
    unnamed = fibers.spawn_later(0, collect)
    assert unnamed.name == "collect"
    unnamed.join()


@pytest.mark.parametrize("let_it_wait", [False, True])
def test_spawn_later_cancelled_before_never_runs(let_it_wait: bool, virtual_clock: VirtualClock) -> None:
    ran: list[int] = []
    fiber = fibers.spawn_later(5, ran.append, 1)
    if let_it_wait:
        fibers.yield_now()
    fiber.cancel()
    fiber.join()
    fibers.sleep(3600)
    assert ran == []
    assert fiber.cancelled()


@pytest.mark.parametrize(("seconds", "error"), BAD_DURATIONS)
def test_spawn_later_refuses_what_is_no_duration(seconds: Any, error: type[Exception]) -> None:
    """Bad input: the value is in the message, and no fiber was made."""
    before = fibers.all_fibers()
    with pytest.raises(error, match=re.escape(repr(seconds))):
        fibers.spawn_later(seconds, int)
    assert fibers.all_fibers() == before


def nested(depth: int, wait: Callable[[fibers.Fiber[int]], int]) -> int:
    return wait(fibers.spawn(nested, depth - 1, wait)) + 1 if depth else 0


def test_a_chain_of_fibers_each_started_by_the_last_and_all_alive() -> None:
    """Must show, "started from inside other fibers": hazard 6's cousin, the nested C stacks of a chain of starts."""
    length = scaled(100_000, least=5000)
    assert fibers.spawn(nested, length, fibers.Fiber.result).result() == length


def test_a_chain_of_fibers_each_ending_before_the_next_starts() -> None:
    """The same chain where every starter is gone by then: the carriers are handed on, and few are made."""
    length = scaled(200_000, least=5000)
    ended: list[int] = []

    def link(left: int) -> None:
        if left:
            fibers.spawn(link, left - 1)
        else:
            ended.append(left)

    fibers.spawn(link, length)
    while not ended:
        fibers.yield_now()
    assert ended == [0]


def test_many_sleepers_started_from_inside_fibers() -> None:
    """Must show: many fibers alive at once, each started from inside another, all of them asleep."""
    per_starter, starters = 100, scaled(1000, least=50)
    woken: list[None] = []

    def sleeper() -> None:
        fibers.sleep(0.01)
        woken.append(None)

    def starter() -> list[fibers.Fiber[None]]:
        return [fibers.spawn(sleeper) for _ in range(per_starter)]

    every = [fibers.spawn(starter) for _ in range(starters)]
    for one in every:
        for fiber in one.result():
            fiber.join()
    assert len(woken) == per_starter * starters
