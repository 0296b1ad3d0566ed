"""Small things for tests of primitives that wait."""

from collections.abc import Callable
from typing import Any

import fibers


class Oops(Exception):
    """What the tests kill fibers with."""


def settle(turns: int = 5) -> None:
    """Let every fiber that can run get to where it waits."""
    for _ in range(turns):
        fibers.yield_now()


def started(fn: Callable[..., Any], *args: Any, name: str | None = None) -> fibers.Fiber[Any]:
    """A fiber that has run up to its first wait."""
    fiber = fibers.spawn(fn, *args, name=name)
    settle()
    return fiber


def waiting(fiber: fibers.Fiber[Any]) -> bool:
    """Does it stand in a queue?"""
    return fiber.waiting is not None and fiber.waiting.holds(fiber)
