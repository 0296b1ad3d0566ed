"""One wait queue under every primitive: fibers of any thread wait in it, anybody wakes them.

Facts. A fiber waits in one place at a time, but a wake, a timeout and a cancellation may reach for it at once, from
different threads. Exactly one of them may have it. So taking a fiber out of the queue *is* the decision: who gets it
out wakes it, the others find it gone. `dict.pop(key, default)` is one atomic step in CPython, keeps the order of
arrival, and takes from the middle without a search.
"""

from collections.abc import Iterator
from typing import Any, Final

from .eventloop.waiter import Outcome
from .fiber import Fiber

#: What `pop` finds of a fiber that is gone.
_GONE: Final = object()


class WaitQueue:
    """Fibers waiting in order of arrival. Every method may be called from any thread."""

    __slots__ = ("_waiting",)

    #: Only fibers and threads of this process wake who waits here: a deadlock can be proved (deadlock.py).
    inside = True

    def __init__(self) -> None:
        self._waiting: dict[Fiber[Any], object] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Fiber[Any]]:
        return iter(list(self._waiting))

    def add(self, fiber: Fiber[Any], what: object = None) -> None:
        """Put a fiber at the end. It is the current fiber of the calling thread, which parks next.

        `what` is the thing that it waits for (a lock, a fiber …), for reports.
        """
        self._waiting[fiber] = what

    def awaited(self, fiber: Fiber[Any]) -> object:
        """What it waits for, as far as `add` was told."""
        return self._waiting.get(fiber)

    def holds(self, fiber: Fiber[Any]) -> bool:
        """Does it wait here?"""
        return fiber in self._waiting

    def abandon(self, fiber: Fiber[Any]) -> bool:
        """Take a fiber out; True if it was still waiting, and then the caller must wake it (or go on, if it is itself)."""
        return self._waiting.pop(fiber, _GONE) is not _GONE

    def wake_all(self, outcome: Outcome | None = None) -> None:
        """Wake every fiber that waits now."""
        for fiber in list(self._waiting):
            if self.abandon(fiber):
                fiber.outcome = outcome
                fiber.scheduler.wake(fiber)
