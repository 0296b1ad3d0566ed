"""eventlet.queue: queues, whose `maxsize` is None where there is no limit."""

from collections.abc import Iterable
from typing import TypeVar

from ...sync.queue import Empty, Full
from ..gevent import queue

T = TypeVar("T")


class LightQueue(queue.Queue[T]):
    """A queue of at most `maxsize` items; None, or less than 0: no limit. ValueError for 0: see `Channel` of `fibers`."""

    def __init__(self, maxsize: int | None = None, items: Iterable[T] = ()) -> None:
        if maxsize == 0:
            raise ValueError("a queue without room is fibers.Channel() here: send() and receive() meet")
        super().__init__(maxsize, items)

    def getting(self) -> int:
        """How many wait for an item."""
        return len(self._getters)

    def putting(self) -> int:
        """How many wait for room."""
        return len(self._putters)


class Queue(LightQueue[T]):
    """The same, with `task_done` and `join`."""


class LifoQueue(queue.LifoQueue[T], LightQueue[T]):
    """A queue that gives first what was put last."""

    _plain = True


class PriorityQueue(queue.PriorityQueue[T], LightQueue[T]):
    """A queue that gives the least item first."""

    _plain = False


__all__ = ["Empty", "Full", "LifoQueue", "LightQueue", "PriorityQueue", "Queue"]
