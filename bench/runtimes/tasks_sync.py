"""Locks, queues and events for asyncio and uvloop: the same as in `blocking_sync`, with `await`."""

from __future__ import annotations

import asyncio

from bench import material
from bench.sample import Sample, Stopwatch


async def lock_with(n: int) -> Sample:
    """`async with`, and nothing in it."""
    lock = asyncio.Lock()
    watch = Stopwatch()
    for _ in range(n * material.SYNC_TURN):
        async with lock:
            pass
    return watch.stop(n * material.SYNC_TURN)


async def lock_calls(n: int) -> Sample:
    """acquire and release, as calls."""
    lock = asyncio.Lock()
    watch = Stopwatch()
    for _ in range(n * material.SYNC_TURN):
        await lock.acquire()
        lock.release()
    return watch.stop(n * material.SYNC_TURN)


async def queue_put_get(n: int) -> Sample:
    """Both in one task."""
    queue: asyncio.Queue[int] = asyncio.Queue()
    watch = Stopwatch()
    for _ in range(n * material.SYNC_TURN):
        await queue.put(1)
        await queue.get()
    return watch.stop(n * material.SYNC_TURN)


async def pinger(there: asyncio.Queue[int], back: asyncio.Queue[int], count: int) -> None:
    """Put first, then wait for the answer."""
    for _ in range(count):
        await there.put(1)
        await back.get()


async def ponger(there: asyncio.Queue[int], back: asyncio.Queue[int], count: int) -> None:
    """Wait for an item, then answer."""
    for _ in range(count):
        await there.get()
        await back.put(1)


async def queue_hand_off(n: int) -> Sample:
    """Ping-pong over two queues."""
    there: asyncio.Queue[int] = asyncio.Queue()
    back: asyncio.Queue[int] = asyncio.Queue()
    count = n * material.SYNC_TURN
    watch = Stopwatch()
    await asyncio.gather(ponger(there, back, count), pinger(there, back, count))
    return watch.stop(2 * count)


async def producer(queue: asyncio.Queue[int], count: int) -> None:
    """Put `count` items."""
    for _ in range(count):
        await queue.put(1)


async def consumer(queue: asyncio.Queue[int], count: int) -> None:
    """Get `count` items."""
    for _ in range(count):
        await queue.get()


async def queue_narrow(n: int) -> Sample:
    """A queue with room for one."""
    queue: asyncio.Queue[int] = asyncio.Queue(1)
    count = n * material.SYNC_TURN
    watch = Stopwatch()
    await asyncio.gather(producer(queue, count), consumer(queue, count))
    return watch.stop(count)


async def setter(mine: asyncio.Event, other: asyncio.Event, count: int) -> None:
    """Set the other's event, then wait for one's own."""
    for _ in range(count):
        other.set()
        await mine.wait()
        mine.clear()


async def waiter(mine: asyncio.Event, other: asyncio.Event, count: int) -> None:
    """Wait for one's own event, then set the other's."""
    for _ in range(count):
        await mine.wait()
        mine.clear()
        other.set()


async def event_set_wait(n: int) -> Sample:
    """Two tasks that set each other's events."""
    one, other = asyncio.Event(), asyncio.Event()
    count = n * material.SYNC_TURN
    watch = Stopwatch()
    await asyncio.gather(waiter(one, other, count), setter(other, one, count))
    return watch.stop(2 * count)


WORKLOADS = {
    ("lock_with", ""): lock_with,
    ("lock_calls", ""): lock_calls,
    ("queue_put_get", ""): queue_put_get,
    ("queue_hand_off", ""): queue_hand_off,
    ("queue_narrow", ""): queue_narrow,
    ("event_set_wait", ""): event_set_wait,
}
