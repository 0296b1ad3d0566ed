"""The channel workloads: one task puts, another gets, through what each runtime has of that capacity.

Capacity 0 is a rendezvous; asyncio and the stdlib have none. With a capacity of 100 most operations need not wait: the cost
of the calls themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from bench.runtimes.blocking_style import Style, Work
from bench.sample import Sample, Stopwatch

CAPACITIES = (0, 1, 100)
Make = Callable[[int], tuple[Callable[[int], Any], Callable[[], Any]]]
"""From a capacity to the two calls that put and get."""


def putter(put: Callable[[int], Any], count: int) -> None:
    """Put `count` values."""
    for number in range(count):
        put(number)


def getter(get: Callable[[], Any], count: int) -> None:
    """Get `count` values, in order."""
    for _ in range(count):
        last = get()
    if last != count - 1:
        raise RuntimeError(f"the last value was {last}, not {count - 1}")


def workloads(style: Style, make: Make, capacities: tuple[int, ...] = CAPACITIES) -> dict[tuple[str, str], Work]:
    """For the runtimes in blocking style."""

    def handoff(capacity: int) -> Work:
        def work(n: int) -> Sample:
            put, get = make(capacity)
            watch = Stopwatch()
            style.join_all([style.spawn(getter, get, n), style.spawn(putter, put, n)])
            return watch.stop(n)

        return work

    return {(f"channel_{capacity}", ""): handoff(capacity) for capacity in capacities}


async def async_putter(put: Callable[[int], Awaitable[Any]], count: int) -> None:
    """Put `count` values."""
    for number in range(count):
        await put(number)


async def async_getter(get: Callable[[], Awaitable[Any]], count: int) -> None:
    """Get `count` values, in order."""
    for _ in range(count):
        last = await get()
    if last != count - 1:
        raise RuntimeError(f"the last value was {last}, not {count - 1}")


def on_asyncio(capacity: int) -> Callable[[int], Awaitable[Sample]]:
    """For asyncio, and for uvloop."""

    async def work(n: int) -> Sample:
        queue: asyncio.Queue[int] = asyncio.Queue(capacity)
        watch = Stopwatch()
        await asyncio.gather(async_getter(queue.get, n), async_putter(queue.put, n))
        return watch.stop(n)

    return work
