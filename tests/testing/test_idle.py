"""`wait_all_parked`: it returns when every other fiber waits, and not before; on every loop, with real and virtual time."""

import threading
from typing import Any

import pytest
from support.scale import scaled

import fibers
from fibers import lowlevel, testing
from fibers.core.scheduler import get_scheduler
from fibers.io import socket
from fibers.testing import VirtualClock, wait_all_parked
from fibers.threads.to_thread import to_thread


def steps(count: int) -> int:
    for _ in range(count):
        fibers.yield_now()
    lowlevel.park()
    return count


def end(*parked: "fibers.Fiber[Any]") -> None:
    for fiber in parked:
        fiber.cancel()
    for fiber in parked:
        fiber.join()


def test_alone_it_returns_at_once() -> None:
    before = get_scheduler().loop.stats.turns
    wait_all_parked()
    assert get_scheduler().loop.stats.turns <= before + 2


def test_it_waits_for_fibers_that_have_something_to_do() -> None:
    every = [fibers.spawn(steps, number) for number in range(100)]
    wait_all_parked()
    assert [fiber.waiting for fiber in every] == [lowlevel._parked] * 100
    end(*every)


def test_it_follows_chains_of_wake_ups() -> None:
    """Each fiber wakes the next: the last of them parks when all the others have."""
    passed: list[int] = []

    def link(number: int, following: "fibers.Fiber[Any] | None") -> None:
        lowlevel.park()
        passed.append(number)
        if following is not None:
            lowlevel.unpark(following)
        lowlevel.park()

    chain: list[fibers.Fiber[Any]] = []
    for number in reversed(range(50)):
        chain.insert(0, fibers.spawn(link, number, chain[0] if chain else None))
    wait_all_parked()
    assert passed == []
    lowlevel.unpark(chain[0])
    wait_all_parked()
    assert passed == list(range(50))
    end(*chain)


def test_what_is_in_the_kernel_already_is_work_to_be_done() -> None:
    got: list[bytes] = []
    pairs = [socket.socketpair() for _ in range(20)]

    def relay(number: int) -> None:
        data = pairs[number][1].recv(10)
        got.append(data)
        if number + 1 < len(pairs):
            pairs[number + 1][0].sendall(data)

    every = [fibers.spawn(relay, number) for number in range(len(pairs))]
    wait_all_parked()
    pairs[0][0].sendall(b"go")
    wait_all_parked()
    assert got == [b"go"] * len(pairs)
    end(*every)
    for left, right in pairs:
        left.close()
        right.close()


def test_several_may_wait_for_it_at_once() -> None:
    order: list[str] = []

    def watcher(name: str) -> None:
        wait_all_parked()
        order.append(name)
        if name == "first":
            wait_all_parked()
            order.append("again")

    worker = fibers.spawn(steps, 100)
    every = [fibers.spawn(watcher, name) for name in ("first", "second")]
    for fiber in every:
        fiber.join()
    assert order == ["first", "second", "again"]
    assert worker.waiting is lowlevel._parked
    end(worker)


def test_a_sleeper_waits() -> None:
    sleeper = fibers.spawn(fibers.sleep, 3600)
    wait_all_parked()
    assert sleeper.waiting is not None
    end(sleeper)


def test_a_fiber_in_a_worker_thread_waits() -> None:
    go = threading.Event()
    fiber = fibers.spawn(to_thread, go.wait)
    wait_all_parked()
    assert not fiber.done()
    go.set()
    fiber.join()


def test_a_passed_deadline_is_work_to_be_done() -> None:
    sleeper = fibers.spawn(fibers.sleep, 1e-9)
    wait_all_parked()  # the sleeper has begun to sleep, and time goes on
    deadline = fibers.current_time() + 1e-6
    while fibers.current_time() <= deadline:
        pass
    wait_all_parked()
    assert sleeper.done()


def test_virtual_time_does_not_jump_meanwhile() -> None:
    def main() -> float:
        sleeper = fibers.spawn(fibers.sleep, 1)
        wait_all_parked()
        at = fibers.current_time()
        end(sleeper)
        return at

    assert testing.run(main, clock=VirtualClock()) == 0.0


def test_a_cushion_outlasts_short_sleeps() -> None:
    def ticker(count: int) -> None:
        for _ in range(count):
            fibers.sleep(1)
        lowlevel.park()

    def main() -> tuple[float, float]:
        quick = fibers.spawn(ticker, 5)
        wait_all_parked(0.5)
        first = fibers.current_time()
        wait_all_parked(1.5)
        end(quick)
        return first, fibers.current_time()

    assert testing.run(main, clock=VirtualClock()) == (0.5, 6.5)


def test_cushions_of_several_are_their_own() -> None:
    times: dict[float, float] = {}

    def watcher(cushion: float) -> None:
        wait_all_parked(cushion)
        times[cushion] = fibers.current_time()

    def main() -> None:
        sleeper = fibers.spawn(fibers.sleep, 10)
        with fibers.TaskGroup() as group:
            for cushion in (0.0, 3.0, 20.0):
                group.spawn(watcher, cushion)
        sleeper.join()

    testing.run(main, clock=VirtualClock())
    # The first two end before the sleeper does, which holds up the third.
    assert times == {0.0: 0.0, 3.0: 3.0, 20.0: 30.0}


def test_a_cushion_gives_a_thread_time() -> None:
    parked = fibers.spawn(lowlevel.park)
    wait_all_parked()
    thread = threading.Thread(target=lambda: lowlevel.unpark(parked))
    thread.start()
    wait_all_parked(0.2)
    assert parked.done()
    thread.join()


def test_it_can_be_interrupted() -> None:
    """Another fiber always has something to do, until the end."""

    def busy() -> None:
        while True:
            fibers.yield_now()

    worker = fibers.spawn(busy)
    waiter = fibers.spawn(wait_all_parked)
    for _ in range(10):
        fibers.yield_now()
    assert not waiter.done()
    end(waiter, worker)
    assert waiter.cancelled()
    with fibers.move_on_after(0) as scope:
        fibers.spawn(int)
        wait_all_parked()
    assert scope.cancelled_caught


def test_it_leaves_the_scheduler_as_it_was() -> None:
    scheduler = get_scheduler()
    before = scheduler.on_idle
    wait_all_parked()
    wait_all_parked(0.001)
    waiter = fibers.spawn(wait_all_parked, 3600)
    fibers.yield_now()
    assert scheduler.on_idle is not before
    end(waiter)
    assert scheduler.on_idle is before


def test_random_programs() -> None:
    """Whatever fibers do to each other, when it returns none of them can run."""
    for round_ in range(scaled(200, least=10)):

        def main() -> None:
            every: list[fibers.Fiber[Any]] = []

            def live(number: int) -> None:
                for step in range(number % 7):
                    if (number + step) % 3 == 0:
                        fibers.yield_now()
                    elif (number + step) % 3 == 1:
                        lowlevel.unpark(every[(number * step) % len(every)])
                    else:
                        lowlevel.park()

            every.extend(fibers.spawn(live, number) for number in range(40))
            wait_all_parked()
            scheduler = get_scheduler()
            assert not scheduler.ready
            for fiber in every:
                assert fiber.done() or fiber.waiting is lowlevel._parked

        testing.run(main, clock=VirtualClock(), seed=round_)


@pytest.mark.parametrize(
    ("cushion", "error", "text"),
    [(-1, ValueError, "0 or more"), ("x", TypeError, "number of seconds"), (float("inf"), ValueError, "finite")],
)
def test_bad_input(cushion: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        wait_all_parked(cushion)
