"""One primitive, used by fibers of several threads and by plain threads at once.

Facts. A thread may lose the processor at any call; so these tests run with the shortest switch interval, and once more under
a tracer, where it may lose it between any two lines.
"""

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from support.scale import scaled

import fibers

FIBERS = 3  # in each thread that has fibers


@pytest.fixture(params=["untraced", "traced"], autouse=True)
def _hurry(request: pytest.FixtureRequest) -> Iterator[None]:
    """Switch threads as often as can be."""

    def tracer(frame: Any, event: str, argument: object) -> Any:
        return tracer if "/sync/" in frame.f_code.co_filename else None

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    if request.param == "traced":
        threading.settrace(tracer)
    yield
    threading.settrace(None)
    sys.setswitchinterval(interval)


def rounds(full: int) -> int:
    return scaled(2 * full, least=100)


def everywhere(*work: Callable[[], object]) -> list[Any]:
    """Run each of `work` in fibers of a thread and in a plain thread, all at once; what they returned."""

    def in_fibers(fn: Callable[[], object]) -> list[Any]:
        return [fiber.result() for fiber in [fibers.spawn(fn) for _ in range(FIBERS)]]

    with ThreadPoolExecutor(2 * len(work)) as pool:
        many = [pool.submit(fibers.run, in_fibers, fn) for fn in work]
        one = [pool.submit(fn) for fn in work]
        return [result for each in many for result in each.result(100)] + [each.result(100) for each in one]


@pytest.mark.parametrize(
    "kind", [fibers.Lock, fibers.RLock, fibers.Semaphore, fibers.BoundedSemaphore, fibers.Condition]
)
def test_mutual_exclusion(kind: Callable[[], Any]) -> None:
    lock, total, inside = kind(), [0], [0]
    count = rounds(5000)

    def work() -> None:
        for turn in range(count):
            with lock:
                inside[0] += 1
                assert inside[0] == 1
                before = total[0]
                if turn % 7 == 0 and threading.current_thread() is not threading.main_thread():
                    fibers.yield_now()
                total[0] = before + 1
                inside[0] -= 1

    everywhere(work, work)
    assert total[0] == count * 2 * (FIBERS + 1)
    assert lock.acquire(False)
    lock.release()


def test_no_more_than_the_permits() -> None:
    semaphore, inside, most = fibers.Semaphore(3), deque[int](), [0]

    def work() -> None:
        for _ in range(rounds(5000)):
            with semaphore:
                inside.append(1)
                most[0] = max(most[0], len(inside))
                fibers.yield_now()
                inside.pop()

    everywhere(work, work)
    assert 1 <= most[0] <= 3
    assert semaphore._value == 3


QUEUES: dict[str, Callable[[], Any]] = {
    "Queue": fibers.Queue,
    "Queue(2)": lambda: fibers.Queue(2),
    "LifoQueue(2)": lambda: fibers.LifoQueue(2),
    "PriorityQueue(2)": lambda: fibers.PriorityQueue(2),
    "SimpleQueue": fibers.SimpleQueue,
}


@pytest.mark.parametrize("name", QUEUES)
def test_every_item_arrives_once(name: str) -> None:
    queue, count = QUEUES[name](), rounds(3000)
    numbers = iter(range(1_000_000))
    guard = threading.Lock()

    def work() -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        with guard:
            me = next(numbers)
        put, got = [], []
        for number in range(count):
            queue.put((me, number))
            put.append((me, number))
            got.append(queue.get())
        return put, got

    results = everywhere(work, work)
    put = [item for each, _ in results for item in each]
    got = [item for _, each in results for item in each]
    assert sorted(got) == sorted(put)
    assert queue.empty()


def test_items_of_one_producer_arrive_in_order() -> None:
    queues: list[Any] = [fibers.Queue(), fibers.Queue(1), fibers.SimpleQueue()]
    for queue in queues:
        count = rounds(5000)

        def produce(queue: Any = queue, count: int = count) -> None:
            for number in range(count):
                queue.put(number)

        def consume(queue: Any = queue, count: int = count) -> list[int]:
            return [queue.get() for _ in range(count)]

        with ThreadPoolExecutor(2) as pool:
            pool.submit(produce)
            assert pool.submit(fibers.run, consume).result(100) == list(range(count))


def test_ping_pong_loses_no_wake_up() -> None:
    there, back = fibers.Queue[int](), fibers.SimpleQueue[int]()
    count = rounds(20_000)

    def answer() -> None:
        for _ in range(count):
            back.put(there.get() + 1)

    with ThreadPoolExecutor(1) as pool:
        playing = pool.submit(answer)
        for number in range(count):
            there.put(number)
            assert back.get(timeout=60) == number + 1
        playing.result(100)


def test_join_comes_after_the_last_task() -> None:
    queue = fibers.Queue[int](3)
    done, count = deque[int](), rounds(2000)

    def work() -> None:
        for _ in range(count):
            item = queue.get()
            done.append(item)
            queue.task_done()

    def feed() -> int:
        for number in range(count):
            queue.put(number)
        queue.join()
        return len(done)

    results = everywhere(work, feed)
    assert len(done) == count * (FIBERS + 1)
    assert queue.unfinished_tasks == 0
    assert all(isinstance(result, int) or result is None for result in results)


def test_events_conditions_and_wait_groups() -> None:
    count = rounds(500)
    condition, turn, group = fibers.Condition(), [0], fibers.WaitGroup()
    players = 2 * (FIBERS + 1)
    numbers = iter(range(players))
    guard = threading.Lock()
    group.add(players)

    def is_turn(number: int) -> bool:
        return turn[0] == number

    def work() -> None:
        with guard:
            me = next(numbers)
        for number in range(count):
            with condition:
                condition.wait_for(partial(is_turn, number * players + me))
                turn[0] += 1
                condition.notify_all()
        group.done()
        assert group.wait(60)

    everywhere(work, work)
    assert turn[0] == count * players


def test_a_barrier() -> None:
    count, parties = rounds(300), 2 * (FIBERS + 1)
    barrier, seen = fibers.Barrier(parties), deque[int]()

    def work() -> None:
        for _ in range(count):
            seen.append(barrier.wait())
            assert barrier.wait() < parties

    everywhere(work, work)
    assert sorted(seen) == sorted(list(range(parties)) * count)
