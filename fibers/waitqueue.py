"""One wait queue under every primitive: fibers of any thread wait in it, anybody wakes them.

Facts. A fiber waits in one place at a time, but a wake, a timeout and a cancellation may reach for it at once, from
different threads. Exactly one of them may have it. So taking a fiber out of the queue *is* the decision: who gets it
out wakes it, the others find it gone. `dict.pop(key, default)` is one atomic step in CPython, keeps the order of
arrival, and takes from the middle without a search.
"""

from collections.abc import Iterator
from typing import Any

from .eventloop.waiter import Outcome
from .fiber import Fiber


class WaitQueue:
    """Fibers waiting in order of arrival. Every method may be called from any thread."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[Fiber[Any], None] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Fiber[Any]]:
        return iter(list(self._waiting))

    def add(self, fiber: Fiber[Any]) -> None:
        """Put a fiber at the end. It is the current fiber of the calling thread, which parks next."""
        self._waiting[fiber] = None

    def holds(self, fiber: Fiber[Any]) -> bool:
        """Does it wait here?"""
        return fiber in self._waiting

    def abandon(self, fiber: Fiber[Any]) -> bool:
        """Take a fiber out; True if it was still waiting, and then the caller must wake it (or go on, if it is itself)."""
        return self._waiting.pop(fiber, self) is None

    def wake_all(self, outcome: Outcome | None = None) -> None:
        """Wake every fiber that waits now."""
        for fiber in list(self._waiting):
            if self.abandon(fiber):
                fiber.outcome = outcome
                fiber.scheduler.wake(fiber)
