"""Locks and queues for trio, whose queue is a memory channel. Its Event cannot be cleared, so that row is left out."""

from __future__ import annotations

import math
from typing import Any

import trio

from bench import material
from bench.sample import Sample, Stopwatch


async def lock_with(n: int) -> Sample:
    """`async with`, and nothing in it."""
    lock = trio.Lock()
    watch = Stopwatch()
    for _ in range(n * material.SYNC_TURN):
        async with lock:
            pass
    return watch.stop(n * material.SYNC_TURN)


async def lock_calls(n: int) -> Sample:
    """acquire and release, as calls."""
    lock = trio.Lock()
    watch = Stopwatch()
    for _ in range(n * material.SYNC_TURN):
        await lock.acquire()
        lock.release()
    return watch.stop(n * material.SYNC_TURN)


async def queue_put_get(n: int) -> Sample:
    """Both in one task."""
    send, receive = trio.open_memory_channel[int](math.inf)
    watch = Stopwatch()
    for _ in range(n * material.SYNC_TURN):
        await send.send(1)
        await receive.receive()
    return watch.stop(n * material.SYNC_TURN)


async def pinger(there: Any, back: Any, count: int) -> None:
    """Send first, then wait for the answer."""
    for _ in range(count):
        await there.send(1)
        await back.receive()


async def ponger(there: Any, back: Any, count: int) -> None:
    """Wait for an item, then answer."""
    for _ in range(count):
        await there.receive()
        await back.send(1)


async def queue_hand_off(n: int) -> Sample:
    """Ping-pong over two channels."""
    there, back = trio.open_memory_channel[int](math.inf), trio.open_memory_channel[int](math.inf)
    count = n * material.SYNC_TURN
    watch = Stopwatch()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ponger, there[1], back[0], count)
        nursery.start_soon(pinger, there[0], back[1], count)
    return watch.stop(2 * count)


async def producer(send: Any, count: int) -> None:
    """Send `count` items."""
    for _ in range(count):
        await send.send(1)


async def consumer(receive: Any, count: int) -> None:
    """Receive `count` items."""
    for _ in range(count):
        await receive.receive()


async def queue_narrow(n: int) -> Sample:
    """A channel with room for one."""
    send, receive = trio.open_memory_channel[int](1)
    count = n * material.SYNC_TURN
    watch = Stopwatch()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(producer, send, count)
        nursery.start_soon(consumer, receive, count)
    return watch.stop(count)


WORKLOADS = {
    ("lock_with", ""): lock_with,
    ("lock_calls", ""): lock_calls,
    ("queue_put_get", ""): queue_put_get,
    ("queue_hand_off", ""): queue_hand_off,
    ("queue_narrow", ""): queue_narrow,
}
