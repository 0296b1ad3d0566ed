"""SimpleQueue: an unbounded queue, first in, first out, that may be filled from anywhere."""

from collections import deque
from queue import Empty
from typing import Any, Final, Generic, TypeVar

from ..core.fiber import Fiber
from ..core.scheduler import state
from ..core.waitqueue import ENLISTED, Giver, WaitQueue
from ..eventloop.waiter import RETRY, Outcome
from .waiting import again, here, interrupted, until

T = TypeVar("T")


class SimpleQueue(Giver, Generic[T]):
    """As queue.SimpleQueue, for fibers and threads at once. Who has waited longest gets the next item.

    `put` may be called from signal handlers and finalisers, also while they strike in a `put` or `get` of this queue.
    """

    __slots__ = ("__weakref__", "_getters", "_getting", "_items")

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._getters: Final = WaitQueue()
        self._getting: Final = self._getters._waiting  # true if somebody waits for an item; then there is none

    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        """Put an item in. Never waits; `block` and `timeout` are there for likeness with Queue."""
        if not self._getting: self._items.append(item)  # one step # fmt: skip
        else:
            self._hand(item)

    def _hand(self, item: T) -> None:
        while not self._getters.give(self, item):
            if not self._getting: self._items.append(item); return  # one step # fmt: skip

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Take the oldest item, waiting for one: at most `timeout` seconds (None: no limit), not at all unless `block`.

        Raises Empty if there is none. ValueError for a negative timeout. A fiber that is cancelled while it waits takes
        none.
        """
        if timeout is None:
            if self._items: return self._items.popleft()  # one step # fmt: skip
        elif block and timeout < 0:
            raise ValueError(f"'timeout' must be a non-negative number, not {timeout!r}")
        elif self._items: return self._items.popleft()  # one step # fmt: skip
        if not block or timeout == 0:
            raise Empty
        scheduler = state.scheduler
        if scheduler is None or (me := scheduler.current) is None:
            scheduler, me = here()
        deadline = None if timeout is None else until(scheduler, timeout)
        while True:
            me.outcome = ENLISTED  # `wait`, in place
            outcome: Outcome | None = None
            try:
                self._getting[me] = self
                if not (self._items and self._getters.abandon(me)):
                    outcome = scheduler.park(me, self._getters, deadline)
            except BaseException as error:
                if (outcome := interrupted(scheduler, me, self._getters, self, deadline, error)) is None:
                    raise
            if outcome is None or outcome is ENLISTED:
                outcome = again(scheduler, me, self._getters, self, deadline)
            if outcome is self:
                item: T = me.handed
                me.handed = None
                return item
            if outcome is not RETRY:
                raise Empty
            if self._items: return self._items.popleft()  # one step # fmt: skip

    def put_nowait(self, item: T) -> None:
        """As `put`."""
        self.put(item)

    def get_nowait(self) -> T:
        """As `get(block=False)`."""
        return self.get(False)

    def qsize(self) -> int:
        """How many items are in it now."""
        return len(self._items)

    def empty(self) -> bool:
        """Is none in it now?"""
        return not self._items

    def take_back(self, fiber: Fiber[Any]) -> None:
        """See `Giver`."""
        item, fiber.handed = fiber.handed, None
        if not self._getters.give(self, item):
            self._items.appendleft(item)

    def __repr__(self) -> str:
        return f"<fibers.{type(self).__name__} at {id(self):#x}: {len(self._items)} items>"
