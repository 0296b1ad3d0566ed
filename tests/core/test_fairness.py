"""Fairness and thrift: who runs when, how often the loop looks at the kernel, and what a fiber costs in switches.

Facts. A ready queue that never empties must not keep the kernel's news out: the loop polls at least every 61 switches, or
sooner if these take long. An idle program makes no turns at all. A carrier that has ended one fiber runs the next
unstarted one without a switch, so that spawn and join of nothing cost next to none.
"""

import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import greenlet
from support.scale import scaled

import fibers
from fibers.core.carriers import SWITCHES_PER_TURN
from fibers.core.scheduler import get_scheduler
from fibers.io import socket

FOREVER = float("inf")


def elsewhere(fn: Callable[..., Any], *args: Any) -> Any:
    """What `fn` returns or raises in a new thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(fn, *args).result()


def with_yielders(count: int, program: Callable[[], Any], work: Callable[[], object] = int) -> Any:
    """Run `program` while `count` fibers do `work` and yield, for ever."""
    stop: list[None] = []

    def yielder() -> None:
        while not stop:
            work()
            fibers.yield_now()

    every = [fibers.spawn(yielder) for _ in range(count)]
    try:
        return program()
    finally:
        stop.append(None)
        for fiber in every:
            fiber.join()


def test_a_timer_fires_while_a_thousand_fibers_yield_for_ever() -> None:
    """The timer is seen within 61 switches, and its fiber then has its turn in the queue."""

    def program() -> list[float]:
        late = []
        for _ in range(5):
            before = time.monotonic()
            fibers.sleep(0.005)
            late.append(time.monotonic() - before - 0.005)
        return late

    assert min(with_yielders(1000, program)) < 0.05


def test_the_kernel_is_looked_at_at_least_every_61_switches() -> None:
    def program() -> tuple[int, int]:
        stats = get_scheduler().loop.stats
        turns = stats.turns
        rounds = 50
        for _ in range(rounds):
            fibers.yield_now()
        return rounds * 101, stats.turns - turns

    switches, turns = with_yielders(100, program)
    assert turns >= switches // SWITCHES_PER_TURN - 1
    assert turns <= switches // SWITCHES_PER_TURN * 3 + 10  # and not much more often, where switches are short


def test_it_is_looked_at_sooner_where_the_switches_take_long() -> None:
    """Fibers that compute for a millisecond between two yields: 61 of these would be 61 ms."""

    def compute() -> None:
        until = time.perf_counter() + 0.001
        while time.perf_counter() < until:
            pass

    def program() -> float:
        stats = get_scheduler().loop.stats
        for _ in range(4):
            fibers.yield_now()  # the budget adapts to what it has seen
        turns, yields = stats.turns, 0
        for _ in range(6):
            fibers.yield_now()
            yields += 21
        return yields / max(1, stats.turns - turns)

    assert with_yielders(20, program, compute) < 25


def test_data_arrives_while_fibers_yield_for_ever() -> None:
    near, far = socket.socketpair()

    def program() -> bytes:
        fibers.spawn_later(0.001, far.sendall, b"x")
        near.settimeout(10)
        return near.recv(1)

    with near, far:
        assert with_yielders(100, program) == b"x"


def test_wakes_from_threads_arrive_while_fibers_yield_for_ever() -> None:
    me = fibers.current()
    with ThreadPoolExecutor(1) as pool:

        def program() -> None:
            for _ in range(20):
                pool.submit(fibers.lowlevel.unpark, me)
                fibers.lowlevel.park(10)

        with_yielders(100, program)


def test_a_turn_runs_what_was_ready_at_its_start() -> None:
    """Two fibers that wake each other for ever do not starve a third."""
    turns: list[int] = []

    def pinger(other: list[fibers.Fiber[None]]) -> None:
        while True:
            fibers.lowlevel.unpark(other[0])
            fibers.lowlevel.park()

    first: list[fibers.Fiber[None]] = []
    second: list[fibers.Fiber[None]] = []
    second.append(fibers.spawn(pinger, first))
    first.append(fibers.spawn(pinger, second))
    for number in range(100):
        fibers.yield_now()
        turns.append(number)
    for fiber in first + second:
        fiber.cancel()
        fiber.join()
    assert len(turns) == 100


def test_an_idle_program_makes_no_turns() -> None:
    """Invariant 9: everything waits for something far; the loop is asleep in one kernel wait."""
    loops: list[Any] = []
    asleep, go = threading.Event(), threading.Event()

    def thread() -> None:
        near, far = socket.socketpair()
        every: list[fibers.Fiber[Any]] = [fibers.spawn(near.recv, 1), fibers.spawn(fibers.sleep, 3600)]
        every.append(fibers.spawn(fibers.lowlevel.park))
        loops.extend([get_scheduler().loop, fibers.current()])
        fibers.yield_now()
        asleep.set()
        fibers.lowlevel.park()
        for fiber in every:
            fiber.cancel()
            fiber.join()
        near.close()
        far.close()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(thread)
        asleep.wait()
        while not loops[0].asleep:
            fibers.sleep(0.001)
        turns = loops[0].stats.turns
        assert not go.wait(0.3)
        assert loops[0].stats.turns == turns
        fibers.lowlevel.unpark(loops[1])
        running.result()


def test_a_sleep_takes_a_turn_or_two() -> None:
    """Row #16578: a timer of 0 ns would sleep right and burn the processor."""
    stats = get_scheduler().loop.stats
    turns = stats.turns
    fibers.sleep(0.2)
    assert stats.turns - turns < 5


def count_switches(fn: Callable[[], object], prepare: Callable[[], object] = get_scheduler) -> int:
    """How many greenlet switches `fn` makes after `prepare`, as greenlet itself counts them.

    In a thread of its own: in this one carriers may be left over from other tests, and two switches retire each of them.
    """
    return int(elsewhere(_count_switches, fn, prepare))


def _count_switches(fn: Callable[[], object], prepare: Callable[[], object]) -> int:
    switches = 0

    def trace(event: str, _: object) -> None:
        nonlocal switches
        switches += event == "switch"

    prepare()
    before = greenlet.settrace(trace)
    try:
        fn()
    finally:
        greenlet.settrace(before)
    return switches


def test_spawn_and_join_cost_less_than_a_tenth_of_a_switch() -> None:
    """Must show: amortised, over a crowd spawned at once and joined in order."""
    size = 1000

    def crowd() -> None:
        every = [fibers.spawn(int) for _ in range(size)]
        for fiber in every:
            fiber.join()

    assert count_switches(crowd, prepare=crowd) < 0.1 * size


def test_spawn_and_join_one_by_one_costs_two_switches() -> None:
    """There and back; nothing in between."""
    rounds = 100

    def one_by_one() -> None:
        for _ in range(rounds):
            fibers.spawn(int).join()

    assert count_switches(one_by_one, prepare=one_by_one) <= 2 * rounds + 10


def test_a_lone_fiber_waits_without_any_switch() -> None:
    """No hub: it runs the loop on its own stack, and goes on when its own event comes."""

    def alone() -> None:
        for _ in range(20):
            fibers.sleep(0.0001)
            fibers.yield_now()

    assert count_switches(alone) == 0


def test_a_yield_costs_one_switch() -> None:
    rounds = 200

    def other() -> None:
        for _ in range(rounds):
            fibers.yield_now()

    def pair() -> None:
        fiber = fibers.spawn(other)
        other()
        fiber.join()

    assert count_switches(pair) <= 2 * rounds + 10


def test_the_schedulers_own_count_of_switches_is_right() -> None:
    """`info`, the demo and the budgets rely on it."""

    def program() -> tuple[int, int]:
        scheduler = get_scheduler()

        def mixed() -> None:
            every = [fibers.spawn(fibers.yield_now) for _ in range(50)]
            for fiber in every:
                fiber.join()

        mixed()
        before = scheduler.switches
        counted = _count_switches(mixed, get_scheduler)
        return counted, scheduler.switches - before

    counted, said = elsewhere(program)
    assert abs(counted - said) <= 0.1 * counted + 2


def test_thousands_of_fibers_ready_at_once() -> None:
    order: list[int] = []
    every = [fibers.spawn(order.append, number) for number in range(scaled(200_000, least=5000))]
    every[-1].join()
    assert order == list(range(len(every)))
    assert sys.getrecursionlimit() < len(every)
