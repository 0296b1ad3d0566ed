"""Queue, LifoQueue and PriorityQueue.

Two queues of fibers stand at a Queue: those that wait for an item (then it holds none), and those that wait for room, each
with the item that it brings. An item goes straight to the first who waits for one. A place that becomes free goes straight
to the first who waits for room: its item comes in, and only then does its `put` return. So a `put` that is cancelled or
timed out has left nothing behind, and a `get` has taken nothing away.

How many places are free is counted, not computed, so that to look and to take one are one step (waiting.py). The count
is out of everybody's reach once the queue has been shut down, and means nothing in a queue without a limit.

PriorityQueue, and what programs derive with `_put` and `_get` of their own, call code of the user (a comparison, at least)
for each item. That may fail, take long and even wait; so such queues have a lock: `hooked.py`.
"""

import sys
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from queue import Empty, Full
from typing import Any, ClassVar, Final, Generic, TypeVar

from ..core.fiber import Fiber
from ..core.scheduler import state
from ..core.waitqueue import ENLISTED, Giver, WaitQueue
from ..eventloop.waiter import RETRY, Outcome
from . import hooked
from .hooked import DONE, PLACE, SHUT, Putters, ShutDown
from .lock import Lock
from .waiting import again, here, interrupted, until, wait

__all__ = ["Empty", "Full", "LifoQueue", "PriorityQueue", "Queue", "ShutDown"]

T = TypeVar("T")

_HOOKS: Final = ("_init", "_qsize", "_put", "_get")


class Queue(Giver, Generic[T]):
    """As queue.Queue of Python 3.13, `shutdown` included, for fibers and threads at once. First come, first served.

    At most `maxsize` items are in it; no limit if that is 0 or less. Who calls `put` or `get` without waiting may do so
    from anywhere, signal handlers and finalisers included. Derived classes may define `_init`, `_qsize`, `_put` and `_get`.
    """

    __slots__ = (
        "__weakref__",
        "_append",
        "_endless",
        "_getters",
        "_getting",
        "_items",
        "_joiners",
        "_mutex",
        "_pop",
        "_putters",
        "_putting",
        "_returned",
        "_room",
        "_unpop",
        "is_shutdown",
        "maxsize",
        "queue",
        "unfinished_tasks",
    )

    #: No code of the user runs as an item is put in or taken out.
    _plain: ClassVar = True
    #: The methods of `queue` that take an item out and put it back.
    _POP: ClassVar = "popleft"
    _UNPOP: ClassVar = "appendleft"

    queue: Any
    _append: Callable[[T], None]
    _pop: Callable[[], T]
    _unpop: Callable[[T], None]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "_plain" not in cls.__dict__ and not cls.__dict__.keys().isdisjoint(_HOOKS):
            cls._plain = False

    def __init__(self, maxsize: int = 0) -> None:
        self.maxsize: Final = maxsize
        self.is_shutdown = False
        self.unfinished_tasks = 0
        self._getters: Final = WaitQueue()
        self._getting: Final = self._getters._waiting  # true if somebody waits for an item
        self._putters: Final = Putters()
        self._putting: Final = self._putters._waiting  # true if somebody waits for room
        self._joiners: Final = WaitQueue()
        self._init(maxsize)
        if self._plain:
            self._mutex: Lock | None = None
            self._items: Any = self.queue
            self._append = self.queue.append
            self._pop = getattr(self.queue, self._POP)
            self._unpop = getattr(self.queue, self._UNPOP)
            self._endless = maxsize <= 0
            self._room = maxsize  # places that are free, and that nobody has been given
        else:
            self._mutex = Lock()
            self._items = ()
            self._returned: deque[T] = deque()
            self._endless = False
            self._room = 0

    # -- putting and getting --------------------------------------------------------------------------------------

    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        """Put an item in, waiting for room: at most `timeout` seconds (None: no limit), not at all unless `block`.

        Raises Full if there is none, ShutDown if the queue has been shut down. ValueError for a negative timeout. If it
        raises, the item is not in the queue, and will not be.
        """
        if self._endless and not self._getting: self.unfinished_tasks += 1; self._append(item)  # one step # fmt: skip
        elif self._endless:
            self.unfinished_tasks += 1  # first: who gets it may be done with it at once
            if not self._getters.give(self, item):
                self._count_off()
                self._put_slowly(item, block, timeout)
        elif self._room > 0 and not self._getting and timeout is None: self._room -= 1; self.unfinished_tasks += 1; self._append(item)  # one step # fmt: skip # noqa: E501
        else:
            self._put_slowly(item, block, timeout)

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Take the next item, waiting for one: at most `timeout` seconds (None: no limit), not at all unless `block`.

        Raises Empty if there is none; ShutDown if the queue has been shut down, and is empty. ValueError for a negative
        timeout. If it raises, no item has been taken.
        """
        if timeout is None and self._items and not self._putting: self._room += 1; return self._pop()  # one step # fmt: skip
        if timeout is not None and block and timeout < 0:
            raise ValueError(f"'timeout' must be a non-negative number, not {timeout!r}")
        if self._mutex is not None:
            return hooked.get(self, self._mutex, block, timeout)  # type: ignore[no-any-return]
        scheduler = me = deadline = None
        while True:
            if not self._putting and self._items: self._room += 1; return self._pop()  # one step # fmt: skip
            if self._items:
                item: T = self._pop()
                self._vacate()
                return item
            # Somebody has just taken the last item, and will find this one gone from those who wait for room.
            if self._putting and (putter := self._putters.take()) is not None:
                item, putter.handed = putter.handed, PLACE
                self.unfinished_tasks += 1
                putter.outcome = self
                putter.scheduler.wake(putter)
                return item
            if self.is_shutdown:
                raise ShutDown
            if me is None or scheduler is None:
                if not block or timeout == 0:
                    raise Empty
                scheduler = state.scheduler
                if scheduler is None or (me := scheduler.current) is None:
                    scheduler, me = here()
                deadline = None if timeout is None else until(scheduler, timeout)
            me.outcome = ENLISTED  # `wait`, in place
            outcome: Outcome | None = None
            try:
                self._getting[me] = self
                if not ((self._items or self.is_shutdown) and self._getters.abandon(me)):
                    outcome = scheduler.park(me, self._getters, deadline)
            except BaseException as error:
                if (outcome := interrupted(scheduler, me, self._getters, self, deadline, error)) is None:
                    raise
            if outcome is None or outcome is ENLISTED:
                outcome = again(scheduler, me, self._getters, self, deadline)
            if outcome is self:
                item, me.handed = me.handed, None
                return item
            if outcome is not RETRY and outcome is not SHUT:
                raise Empty

    def put_nowait(self, item: T) -> None:
        """As `put(item, block=False)`."""
        self.put(item, False)

    def get_nowait(self) -> T:
        """As `get(block=False)`."""
        return self.get(False)

    def _put_slowly(self, item: T, block: bool, timeout: float | None) -> None:
        if self.maxsize > 0 and block and timeout is not None and timeout < 0:
            raise ValueError(f"'timeout' must be a non-negative number, not {timeout!r}")
        if self._mutex is not None:
            hooked.put(self, self._mutex, item, block, timeout)
            return
        if self._place(item):
            return
        if not block or timeout == 0:
            raise Full
        scheduler, me = here()
        deadline = None if timeout is None else until(scheduler, timeout)
        while True:
            me.handed = item
            me.outcome = ENLISTED  # `wait`, in place
            outcome: Outcome | None = None
            try:
                self._putting[me] = self
                if not ((self._room > 0 or self._getting or self.is_shutdown) and self._putters.abandon(me)):
                    outcome = scheduler.park(me, self._putters, deadline)
            except BaseException as error:
                if (outcome := interrupted(scheduler, me, self._putters, self, deadline, error)) is None:
                    me.handed = None
                    raise
            if outcome is None or outcome is ENLISTED:
                outcome = again(scheduler, me, self._putters, self, deadline)
            me.handed = None
            if outcome is self:
                return
            if outcome is not RETRY and outcome is not SHUT:
                raise Full
            if self._place(item):
                return

    def _place(self, item: T) -> bool:
        """Put an item in, or give it to somebody, if that can be done without waiting."""
        while not self.is_shutdown:
            if (self._endless or self._room > 0) and not self._getting: self._room -= 1; self.unfinished_tasks += 1; self._append(item); return True  # one step # fmt: skip # noqa: E501
            if not self._getting:
                return False
            self.unfinished_tasks += 1
            if self._getters.give(self, item):
                return True
            self._count_off()
        raise ShutDown

    # -- the parts of that ----------------------------------------------------------------------------------------

    def _vacate(self) -> None:
        """A place has become free: what somebody has brought comes in, or the place is counted."""
        used = False
        while not used:
            if not self._putting: self._room += 1; return  # one step # fmt: skip
            putter = self._putters.take()
            if putter is None:
                continue
            try:
                while putter.handed is not PLACE:
                    if not self._getting: item, putter.handed = putter.handed, PLACE; self.unfinished_tasks += 1; used = True; self._append(item)  # one step # fmt: skip # noqa: E501
                    else:
                        item, putter.handed = putter.handed, PLACE
                        self.unfinished_tasks += 1
                        if not self._getters.give(self, item):
                            self.unfinished_tasks -= 1
                            putter.handed = item
            finally:
                # A signal handler may have raised in between. Then the item is in, or it was not taken notice of.
                if putter.handed is PLACE:
                    putter.outcome = self
                    try:
                        putter.scheduler.wake(putter)
                    except BaseException:
                        putter.scheduler.wake(putter)  # a second wake-up is only a spurious one
                        raise
                else:
                    self._putters.put_back(putter, self)

    def take_back(self, fiber: Fiber[Any]) -> None:
        """See `Giver`."""
        item, fiber.handed = fiber.handed, None
        if self._mutex is not None:
            hooked.take_back(self, item)
        elif item is not PLACE and not self._getters.give(self, item):
            self._room -= 1
            self._unpop(item)

    # -- what is done with the items ------------------------------------------------------------------------------

    def task_done(self) -> None:
        """Say that one item that was got has been worked on. ValueError if it is called more often than items were put."""
        if self.unfinished_tasks <= 0:
            raise ValueError("task_done() called too many times")
        self._count_off()

    def _count_off(self) -> None:
        self.unfinished_tasks -= 1
        if not self.unfinished_tasks:
            self._joiners.wake_all(DONE)

    def _drop(self) -> None:
        """An item has been thrown away."""
        if self.unfinished_tasks > 0:  # `task_done` may have been called for what had not been got
            self._count_off()

    def join(self) -> None:
        """Wait until every item that was put has been got, and `task_done` called for it."""
        if self.unfinished_tasks:
            scheduler, me = here()
            while self.unfinished_tasks:
                if wait(scheduler, me, self._joiners, self, self._finished, None, self) is DONE:
                    return

    def _finished(self) -> bool:
        return not self.unfinished_tasks

    def shutdown(self, immediate: bool = False) -> None:
        """Take no more items: `put` raises ShutDown from now on, also where it waits; `get` does when nothing is left.

        With `immediate`, what is in the queue is dropped, as if it had been worked on.
        """
        if self._mutex is not None:
            hooked.shutdown(self, self._mutex, immediate)
            return
        self.is_shutdown = True; self._endless = False; self._room = -sys.maxsize  # one step # fmt: skip
        self._putters.wake_all(SHUT)
        while immediate and self._items:
            self._pop()
            self._drop()
        self._getters.wake_all(SHUT)

    # -- what is in it --------------------------------------------------------------------------------------------

    def qsize(self) -> int:
        """How many items are in it now."""
        if self._mutex is None:
            return len(self.queue)
        with self._mutex:
            return self._qsize() + len(self._returned)

    def empty(self) -> bool:
        """Is none in it now?"""
        return not self.qsize()

    def full(self) -> bool:
        """Are `maxsize` items in it now?"""
        return 0 < self.maxsize <= self.qsize()

    def __repr__(self) -> str:
        limit = f" of {self.maxsize}" if self.maxsize > 0 else ""
        shut = ", shut down" if self.is_shutdown else ""
        return f"<fibers.{type(self).__name__} at {id(self):#x}: {len(self.queue)}{limit} items{shut}>"

    # -- what derived classes may define ----------------------------------------------------------------------------

    def _init(self, maxsize: int) -> None:
        self.queue = deque()

    def _qsize(self) -> int:
        return len(self.queue)

    def _put(self, item: T) -> None:
        self.queue.append(item)

    def _get(self) -> T:
        return self.queue.popleft()  # type: ignore[no-any-return]


class LifoQueue(Queue[T]):
    """A Queue that gives the item first that was put last."""

    __slots__ = ()

    _plain = True
    _POP = "pop"
    _UNPOP = "append"

    def _init(self, maxsize: int) -> None:
        self.queue = []

    def _get(self) -> T:
        return self.queue.pop()  # type: ignore[no-any-return]


class PriorityQueue(Queue[T]):
    """A Queue that gives the least item first. Items are compared as they are put and got, by `<`.

    If that raises in `put`, the item is not in the queue; if in `get`, the item stays, and the order is not sure any more.
    """

    __slots__ = ()

    def _init(self, maxsize: int) -> None:
        self.queue = []

    def _put(self, item: T) -> None:
        heap = self.queue
        try:
            heappush(heap, item)
        except BaseException:
            # It has been appended, and has changed places with some of its parents: let them have these back.
            way = [len(heap) - 1]
            while heap[way[-1]] is not item:
                way.append((way[-1] - 1) >> 1)
            for below, above in zip(reversed(way[:-1]), reversed(way[1:]), strict=True):
                heap[above] = heap[below]
            heap.pop()
            raise

    def _get(self) -> T:
        heap = self.queue
        first: T = heap[0]
        try:
            return heappop(heap)  # type: ignore[no-any-return]
        except BaseException:
            heap.append(first)
            raise
