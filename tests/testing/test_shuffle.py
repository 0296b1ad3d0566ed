"""Shuffling: races show themselves, the same seed shows the same one, and what is promised about order still holds."""

import random
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from support.scale import SEED, scaled

import fibers
from fibers import lowlevel, testing
from fibers.core.scheduler import Scheduler, get_scheduler
from fibers.io import socket
from fibers.testing import VirtualClock, shuffle
from fibers.threads.to_thread import to_thread


def order_of(count: int, wait: Callable[[int], object]) -> list[int]:
    order: list[int] = []

    def worker(number: int) -> None:
        wait(number)
        order.append(number)

    with fibers.TaskGroup() as group:
        for number in range(count):
            group.spawn(worker, number)
    return order


def naps(count: int) -> None:
    for _ in range(count):
        fibers.sleep(1)


def shuffled(seed: int, main: Callable[..., Any], *args: Any) -> Any:
    return testing.run(main, *args, clock=VirtualClock(), seed=seed)


WAITS: list[Callable[[int], object]] = [
    lambda number: None,
    lambda number: fibers.sleep(5),
    lambda number: naps(5),
    lambda number: fibers.spawn(lowlevel.unpark, fibers.current()).join(),
]


@pytest.mark.parametrize("wait", WAITS)
def test_the_same_seed_gives_the_same_order_and_another_another(wait: Callable[[int], object]) -> None:
    orders = [tuple(shuffled(seed, order_of, 50, wait)) for seed in range(20)]
    assert orders == [tuple(shuffled(seed, order_of, 50, wait)) for seed in range(20)]
    assert len(set(orders)) == 20
    assert all(sorted(order) == list(range(50)) for order in orders)


def test_every_order_of_three_comes_about_equally_often() -> None:
    rounds = scaled(12_000, least=1200)
    counts = Counter(tuple(shuffled(seed, order_of, 3, WAITS[0])) for seed in range(rounds))
    assert len(counts) == 6
    # Six cells of a fair draw: five standard deviations.
    expected = rounds / 6
    assert all(abs(count - expected) < 5 * expected**0.5 for count in counts.values()), counts


def race(account: dict[str, int]) -> None:
    """Two transfers, each looking before it leaps. The usual order hides that: the first is over before the second looks."""

    def withdraw(amount: int, pause: int) -> None:
        with_check = account["balance"] >= amount
        for _ in range(pause):
            fibers.sleep(1)
        if with_check:
            account["balance"] -= amount

    with fibers.TaskGroup() as group:
        group.spawn(withdraw, 80, 0)
        group.spawn(withdraw, 50, 1)


def balance(seed: int | None) -> int:
    account = {"balance": 100}
    testing.run(race, account, clock=VirtualClock(), seed=seed)
    return account["balance"]


def test_a_planted_race_is_found_and_found_again() -> None:
    assert {balance(None) for _ in range(100)} == {20}
    found = [seed for seed in range(50) if balance(seed) < 0]
    assert found
    assert {balance(seed) for seed in found for _ in range(5)} == {-30}


def test_yield_now_still_lets_everybody_run_who_is_ready() -> None:
    """What the documentation of `yield_now` promises, for random programs, in the order of any seed."""
    for round_ in range(scaled(300, least=30)):
        shuffled(SEED + round_, promise, random.Random(SEED + round_))


def promise(draw: random.Random) -> None:
    runs = Counter[int]()

    def live(number: int, steps: list[int]) -> None:
        runs[number] += 1
        for step in steps:
            if step == 0:
                scheduler = get_scheduler()
                ready = [fiber for fiber in scheduler.ready if fiber is not scheduler.current]
                before = {fiber: progress[fiber] for fiber in ready if fiber in progress}
                fibers.yield_now()
                for fiber, count in before.items():
                    assert fiber.done() or progress[fiber] > count, "it was ready, and has not run"
            elif step == 1:
                fibers.sleep(1)
            else:
                fibers.spawn(fibers.yield_now)
            progress[fibers.current()] += 1

    progress: Counter[Any] = Counter()
    every = []
    for number in range(12):
        fiber = fibers.spawn(count_start, progress, live, number, [draw.randrange(3) for _ in range(8)])
        progress[fiber] = 0
        every.append(fiber)
    for fiber in every:
        fiber.result()


def count_start(progress: "Counter[Any]", live: Callable[..., None], number: int, steps: list[int]) -> None:
    progress[fibers.current()] += 1
    live(number, steps)


def test_it_works_with_real_sockets_threads_and_cancellation() -> None:
    """On the loop of the backend, without a virtual clock: everything still arrives."""

    def echo(sock: socket.socket) -> None:
        with sock:
            while data := sock.recv(100):
                sock.sendall(data)

    def talk(number: int) -> int:
        left, right = socket.socketpair()
        server = fibers.spawn(echo, right)
        with left:
            for turn in range(10):
                text = f"{number} {turn}".encode()
                left.sendall(text)
                assert left.recv(100) == text
        server.join()
        sleeper = fibers.spawn(fibers.sleep, 3600)
        fibers.yield_now()
        sleeper.cancel()
        sleeper.join()
        assert sleeper.cancelled()
        return int(to_thread(abs, -number))

    with shuffle(SEED):
        every = [fibers.spawn(talk, number) for number in range(20)]
        assert [fiber.result() for fiber in every] == list(range(20))


def test_it_is_off_outside_the_block_and_blocks_nest() -> None:
    scheduler = get_scheduler()
    usual = list(range(30))
    with shuffle(1):
        first = order_of(30, WAITS[0])
        with shuffle("inner"):
            assert order_of(30, WAITS[0]) != usual
        assert type(scheduler) is not Scheduler
    assert type(scheduler) is Scheduler
    assert first != usual
    assert order_of(30, WAITS[0]) == usual
    with shuffle(1):
        assert order_of(30, WAITS[0]) == first


def test_it_is_for_one_thread() -> None:
    orders: list[list[int]] = []
    with shuffle(3):
        thread = threading.Thread(target=lambda: orders.append(order_of(30, WAITS[0])))
        thread.start()
        thread.join()
    assert orders == [list(range(30))]


def test_a_raising_block_ends_it() -> None:
    with pytest.raises(ZeroDivisionError), shuffle(3):
        1 / 0  # noqa: B018
    assert type(get_scheduler()) is Scheduler


def test_bad_use() -> None:
    with pytest.raises(TypeError, match=r"a seed is a whole number or text, not 0\.5"):
        shuffle(0.5)  # type: ignore[arg-type]
    once = shuffle(1)
    with once, pytest.raises(RuntimeError, match="in use already"):
        once.__enter__()
    assert type(get_scheduler()) is Scheduler
