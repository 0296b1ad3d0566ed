"""Locks, queues and events for the runtimes in plain blocking style.

Each runtime's own primitives, in the same text. A hand-off is ping-pong: an item goes to a task that waits for it, which
answers; both tasks wait once for each item. In the narrow queue a producer and a consumer wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bench import material
from bench.runtimes.blocking_style import Work
from bench.sample import Sample, Stopwatch


def pinger(there: Any, back: Any, count: int) -> None:
    """Put first, then wait for the answer."""
    put, get = there.put, back.get
    for _ in range(count):
        put(1)
        get()


def ponger(there: Any, back: Any, count: int) -> None:
    """Wait for an item, then answer."""
    get, put = there.get, back.put
    for _ in range(count):
        get()
        put(1)


def producer(queue: Any, count: int) -> None:
    """Put `count` items."""
    put = queue.put
    for _ in range(count):
        put(1)


def consumer(queue: Any, count: int) -> None:
    """Get `count` items."""
    get = queue.get
    for _ in range(count):
        get()


def setter(mine: Any, other: Any, count: int) -> None:
    """Set the other's event, then wait for one's own."""
    for _ in range(count):
        other.set()
        mine.wait()
        mine.clear()


def waiter(mine: Any, other: Any, count: int) -> None:
    """Wait for one's own event, then set the other's."""
    for _ in range(count):
        mine.wait()
        mine.clear()
        other.set()


def workloads(
    spawn: Callable[..., Any],
    join_all: Callable[[Sequence[Any]], Any],
    make_lock: Callable[[], Any],
    make_queue: Callable[..., Any],
    make_event: Callable[[], Any] | None,
) -> dict[tuple[str, str], Work]:
    """The workloads of one runtime, keyed as the table of runtimes keys them."""

    def lock_with(n: int) -> Sample:
        lock = make_lock()
        watch = Stopwatch()
        for _ in range(n * material.SYNC_TURN):
            with lock:
                pass
        return watch.stop(n * material.SYNC_TURN)

    def lock_calls(n: int) -> Sample:
        lock = make_lock()
        watch = Stopwatch()
        for _ in range(n * material.SYNC_TURN):
            lock.acquire()
            lock.release()
        return watch.stop(n * material.SYNC_TURN)

    def queue_put_get(n: int) -> Sample:
        queue = make_queue()
        watch = Stopwatch()
        for _ in range(n * material.SYNC_TURN):
            queue.put(1)
            queue.get()
        return watch.stop(n * material.SYNC_TURN)

    def queue_hand_off(n: int) -> Sample:
        there, back = make_queue(), make_queue()
        count = n * material.SYNC_TURN
        watch = Stopwatch()
        join_all([spawn(ponger, there, back, count), spawn(pinger, there, back, count)])
        return watch.stop(2 * count)

    def queue_narrow(n: int) -> Sample:
        queue = make_queue(1)
        count = n * material.SYNC_TURN
        watch = Stopwatch()
        join_all([spawn(producer, queue, count), spawn(consumer, queue, count)])
        return watch.stop(count)

    def event_set_wait(n: int) -> Sample:
        assert make_event is not None
        one, other = make_event(), make_event()
        count = n * material.SYNC_TURN
        watch = Stopwatch()
        join_all([spawn(waiter, one, other, count), spawn(setter, other, one, count)])
        return watch.stop(2 * count)

    found: dict[tuple[str, str], Work] = {
        ("lock_with", ""): lock_with,
        ("lock_calls", ""): lock_calls,
        ("queue_put_get", ""): queue_put_get,
        ("queue_hand_off", ""): queue_hand_off,
        ("queue_narrow", ""): queue_narrow,
    }
    if make_event is not None:
        found["event_set_wait", ""] = event_set_wait
    return found
