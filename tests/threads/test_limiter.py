"""Capacity limiters: tokens in order of arrival, none lost, none doubled, whoever is interrupted, in whatever thread."""

import gc
import math
import random
import threading

import pytest
from support.process import run_python
from support.scale import SEED, scaled

import fibers
from fibers import CapacityLimiter


def test_the_numbers() -> None:
    limiter = CapacityLimiter(2)
    assert (limiter.total_tokens, limiter.borrowed, limiter.available, limiter.waiting) == (2, 0, 2, 0)
    with limiter:
        assert (limiter.borrowed, limiter.available) == (1, 1)
        assert repr(limiter) == "<CapacityLimiter 1 of 2 borrowed, 0 fibers wait>"
    assert (limiter.borrowed, limiter.available) == (0, 2)


@pytest.mark.parametrize(
    ("total", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("3", TypeError), (True, TypeError)]
)
def test_bad_totals(total: float, error: type[Exception]) -> None:
    with pytest.raises(error, match=repr(total)):
        CapacityLimiter(total)
    limiter = CapacityLimiter(1)
    with pytest.raises(error, match=repr(total)):
        limiter.total_tokens = total
    assert limiter.total_tokens == 1


def test_infinity_limits_nothing() -> None:
    limiter = CapacityLimiter(math.inf)
    fibers_inside = [fibers.spawn(_hold, limiter, 0.001) for _ in range(100)]
    fibers.yield_now()
    assert (limiter.borrowed, limiter.available) == (100, math.inf)
    for fiber in fibers_inside:
        fiber.join(10)


def _hold(limiter: CapacityLimiter, seconds: float) -> None:
    with limiter:
        fibers.sleep(seconds)


def test_a_second_token_for_one_fiber_is_refused() -> None:
    limiter = CapacityLimiter(5)
    with limiter:
        with pytest.raises(RuntimeError, match=r"has a token of .* already"):
            limiter.acquire()
        with pytest.raises(RuntimeError, match="already"):
            limiter.acquire_nowait()
        assert limiter.borrowed == 1
    with pytest.raises(RuntimeError, match="has no token"):
        limiter.release()


def test_nowait() -> None:
    limiter = CapacityLimiter(1)
    assert limiter.acquire_nowait()
    assert fibers.spawn(limiter.acquire_nowait).result(5) is False
    limiter.release()
    assert fibers.spawn(limiter.acquire_nowait).result(5) is True


def test_tokens_come_in_order_of_arrival_and_nobody_is_overtaken() -> None:
    limiter = CapacityLimiter(1)
    order: list[int] = []

    def user(number: int) -> None:
        with limiter:
            order.append(number)
            fibers.yield_now()

    limiter.acquire()
    waiting = [fibers.spawn(user, number) for number in range(10)]
    fibers.yield_now()
    limiter.release()
    limiter.acquire()  # comes back at once, and is behind all others
    order.append(99)
    limiter.release()
    for fiber in waiting:
        fiber.join(10)
    assert order == [*range(10), 99]


def test_the_total_may_grow_and_shrink() -> None:
    limiter = CapacityLimiter(1)
    gates = [fibers.spawn(_hold, limiter, math.inf) for _ in range(5)]
    fibers.yield_now()
    assert (limiter.borrowed, limiter.waiting) == (1, 4)
    limiter.total_tokens = 3
    assert (limiter.borrowed, limiter.waiting, limiter.available) == (3, 2, 0)
    limiter.total_tokens = 1
    assert (limiter.borrowed, limiter.available) == (3, 0)
    gates[0].cancel()
    gates[0].join(10)
    assert (limiter.borrowed, limiter.waiting) == (2, 2)
    limiter.total_tokens = math.inf
    assert (limiter.borrowed, limiter.waiting) == (4, 0)
    for gate in gates:
        gate.cancel()
    for gate in gates:
        gate.join(10)
    assert limiter.borrowed == 0


def test_a_fiber_that_was_given_a_token_and_is_then_cancelled_has_it() -> None:
    limiter = CapacityLimiter(1)
    got: list[bool] = []

    def user() -> None:
        limiter.acquire()
        got.append(True)
        try:
            fibers.yield_now()
        finally:
            limiter.release()

    limiter.acquire()
    fiber = fibers.spawn(user)
    fibers.yield_now()
    limiter.release()  # it is woken, with the token
    fiber.cancel()
    fiber.join(10)
    assert got == [True]
    assert fiber.cancelled()
    assert limiter.borrowed == 0


def test_a_cancelled_waiter_leaves_its_place_to_the_next() -> None:
    limiter = CapacityLimiter(1)
    limiter.acquire()
    first, second = fibers.spawn(_hold, limiter, 0), fibers.spawn(_hold, limiter, 0)
    fibers.yield_now()
    first.cancel()
    first.join(5)
    limiter.release()
    second.join(5)
    assert not second.cancelled()
    assert limiter.borrowed == 0


def test_only_waiting_is_interrupted() -> None:
    """A cancelled fiber gets no token, even if one is there."""
    limiter = CapacityLimiter(1)
    with fibers.CancelScope() as scope:
        scope.cancel()
        limiter.acquire()
    assert scope.cancelled_caught
    assert limiter.borrowed == 0


def test_it_is_not_kept_alive() -> None:
    limiter = CapacityLimiter(3)
    with limiter:
        pass
    found = len([thing for thing in gc.get_objects() if isinstance(thing, CapacityLimiter)])
    del limiter
    assert len([thing for thing in gc.get_objects() if isinstance(thing, CapacityLimiter)]) == found - 1


@pytest.mark.parametrize("threads", [1, 4])
def test_whatever_happens_never_too_many_and_none_lost(threads: int) -> None:
    """Fibers of several threads, cancelled at random: at no moment more are inside than there are tokens."""
    limiter = CapacityLimiter(3)
    inside = 0
    lock = threading.Lock()
    wrong: list[int] = []
    done: list[int] = []

    def user(rng: random.Random) -> None:
        nonlocal inside
        with limiter:
            with lock:
                inside += 1
                if inside > 3:
                    wrong.append(inside)
            try:
                for _ in range(rng.randrange(3)):
                    fibers.yield_now()
                done.append(1)
            finally:
                with lock:
                    inside -= 1

    def main(seed: int) -> None:
        rng = random.Random(seed)
        living: list[fibers.Fiber[None]] = []
        for _ in range(scaled(20_000, least=500) // threads):
            living.append(fibers.spawn(user, rng))
            if rng.random() < 0.3:
                rng.choice(living).cancel()
            if rng.random() < 0.2:
                fibers.yield_now()
        for fiber in living:
            fiber.join(30)

    made = [threading.Thread(target=fibers.run, args=(main, SEED + number)) for number in range(threads)]
    for each in made:
        each.start()
    for each in made:
        each.join()
    assert wrong == []
    assert len(done) > 100
    assert (limiter.borrowed, limiter.waiting) == (0, 0)


def test_used_by_a_finaliser_in_the_middle_of_itself_it_says_so() -> None:
    """Re-entered by what CPython runs between two instructions, it refuses instead of waiting for itself."""
    limiter = CapacityLimiter(1)
    seen: list[BaseException] = []

    class Strikes:
        asked = 0

        def __hash__(self) -> int:
            self.asked += 1
            if self.asked == 1:
                return 1  # a look beforehand
            try:
                limiter.acquire_for(object())
            except RuntimeError as error:
                seen.append(error)
            return 1

    limiter.acquire_for(Strikes())
    assert "block" in str(seen[-1])
    assert limiter.borrowed == 1


CTRL_C = """
import os, random, signal, sys, threading, time
import fibers

limiter = fibers.CapacityLimiter(2)
over = False

def storm():
    global over
    rng = random.Random({seed})
    while not count:
        time.sleep(0.001)
    for _ in range({strikes}):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(rng.random() * 0.0004)
    over = True

def user():
    insist(rounds, 3)  # a second one strikes here, while main has not had the first
    let_go()

def let_go():
    try:
        limiter.release()
    except RuntimeError:
        pass

def rounds():
    global count
    count += 1
    try:
        with limiter:
            fibers.yield_now()
    except RuntimeError:
        # A Ctrl-C at the very start of __exit__ leaves its fiber with its token, as with any lock that is not C.
        limiter.release()

def insist(function, depth):
    # It may strike at any instruction: also in the handler of the one before.
    while not over:
        try:
            if depth:
                insist(function, depth - 1)
            else:
                function()
        except KeyboardInterrupt:
            pass

fibers.sleep(0)
count = 0
users = [fibers.spawn(user) for _ in range(4)]
thread = threading.Thread(target=storm, daemon=True)
thread.start()
insist(rounds, 10)
thread.join()
for fiber in users:
    while not fiber.done():
        try:
            fiber.join()
        except KeyboardInterrupt:
            pass
let_go()
print(limiter.borrowed, limiter.waiting, count > 20, [fiber.exception() for fiber in users])
"""


def test_a_storm_of_ctrl_c_leaves_it_whole() -> None:
    ran = run_python("-c", CTRL_C.format(seed=SEED, strikes=scaled(10_000, least=500)), timeout=100)
    assert ran.stdout == "0 0 True [None, None, None, None]\n", ran.stderr
