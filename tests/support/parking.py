"""Letting fibers come to rest, without sleeping: they run until each of them waits or is done."""

from typing import Any

import fibers


def rests(fiber: fibers.Fiber[Any]) -> bool:
    """Is it done, or does it wait with nobody about to wake it? (Of another thread's fiber: at this moment.)"""
    place = fiber.waiting
    return fiber.done() or (place is not None and place.holds(fiber))


def until_parked(*those: fibers.Fiber[Any]) -> None:
    """Let the fibers of this thread run until all of `those` rest."""
    while not all(rests(fiber) for fiber in those):
        fibers.yield_now()


def parked(fn: Any, *args: Any, **kwargs: Any) -> fibers.Fiber[Any]:
    """Spawn a fiber and let it run until it waits (or is done)."""
    fiber = fibers.spawn(fn, *args, **kwargs)
    until_parked(fiber)
    return fiber
