"""Queues into which code of the user puts and from which it takes: PriorityQueue, and what is derived from Queue.

A comparison of two items may fail, take long and even wait, and no other fiber or thread may come in between. So such a
queue has a lock, a fibers.Lock, held over each change. Under it whatever can be served is served, so that nobody waits for
what is there (`_serve`). Who must wait stands in the queue before it lets go of the lock.

What the user's code raises about an item goes to whoever brings or takes that item, also where another does the work.
"""

import sys
from collections.abc import Callable
from queue import Empty, Full
from typing import Any, Final

from ..core.fiber import Fiber
from ..core.waitqueue import WaitQueue
from ..eventloop.waiter import RETRY, Outcome
from .lock import Lock
from .waiting import here, until, wait

if sys.version_info >= (3, 13):
    from queue import ShutDown as ShutDown
else:

    class ShutDown(Exception):
        """Raised by `put`, and by `get` when nothing is left, after a queue has been shut down."""


#: Outcome of who was waiting when the queue was shut down.
SHUT: Final = Outcome("SHUT")
#: Outcome of `join`.
DONE: Final = Outcome("DONE")
#: What a fiber has been handed that brought an item: a place for it.
PLACE: Final = object()


class Putters(WaitQueue):
    """Those who wait for room, each with the item that it brings in `handed`."""

    __slots__ = ()

    def awaited(self, fiber: Fiber[Any]) -> object:
        """See WaitQueue."""
        queue = super().awaited(fiber)
        return None if queue is None else _Room(queue)


class _Room:
    """What they wait for, in a report."""

    __slots__ = ("_queue",)

    def __init__(self, queue: object) -> None:
        self._queue = queue

    def __repr__(self) -> str:
        return f"room in {self._queue!r}"


class _Failed:
    """What a fiber is handed in place of an item, or of a place for one."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class _LettingGo:
    """Lets go of the lock when the fiber stands in the queue of those who wait."""

    __slots__ = ("_mutex", "_queue", "gone")

    def __init__(self, queue: Any, mutex: Lock) -> None:
        self._queue = queue
        self._mutex = mutex
        self.gone = False

    def __call__(self) -> bool:
        self.gone = True
        self._mutex.release()
        return bool(self._queue._returned)


def put(queue: Any, mutex: Lock, item: Any, block: bool, timeout: float | None) -> None:
    """`Queue.put`."""
    with mutex:
        if not queue.is_shutdown and not 0 < queue.maxsize <= queue._qsize():
            queue._put(item)
            queue.unfinished_tasks += 1
            if queue._getting or queue._putting:
                _serve(queue)
            return
    handed = _exchange(queue, mutex, queue._putters, _store, item, Full, block, timeout)
    if isinstance(handed, _Failed):
        raise handed.error


def get(queue: Any, mutex: Lock, block: bool, timeout: float | None) -> Any:
    """`Queue.get`."""
    with mutex:
        if queue._qsize() and not queue._returned:
            item = queue._get()
            if queue._putting:
                _serve(queue)
            return item
    handed = _exchange(queue, mutex, queue._getters, _fetch, None, Empty, block, timeout)
    if isinstance(handed, _Failed):
        raise handed.error
    return handed


def shutdown(queue: Any, mutex: Lock, immediate: bool) -> None:
    """`Queue.shutdown`."""
    with mutex:
        queue.is_shutdown = True
        queue._putters.wake_all(SHUT)
        while immediate and queue._qsize():
            queue._get()
            queue._drop()
        while immediate and queue._returned:
            queue._returned.popleft()
            queue._drop()
        queue._getters.wake_all(SHUT)


def take_back(queue: Any, handed: Any) -> None:
    """See `Giver`: the place, item or error that a fiber was handed comes back. Without the lock: this may not wait."""
    if handed is not PLACE and not isinstance(handed, _Failed) and not queue._getters.give(queue, handed):
        queue._returned.append(handed)


#: What an attempt came to.
_NOTHING: Final = object()


def _exchange(
    queue: Any,
    mutex: Lock,
    waiters: Any,
    attempt: Callable[[Any, Any], Any],
    item: Any,
    none: type[Exception],
    block: bool,
    timeout: float | None,
) -> Any:
    """Make `attempt`, with the lock held, until it comes to something or somebody else has done it: the result.

    Raises `none` if that would take too long.
    """
    scheduler = me = deadline = None
    while True:
        mutex.acquire()
        letting_go = _LettingGo(queue, mutex)
        try:
            result = attempt(queue, item)
            if result is not _NOTHING:
                _serve(queue)
                return result
            if not block or timeout == 0:
                raise none
            if scheduler is None or me is None:
                scheduler, me = here()
                deadline = until(scheduler, timeout)
            me.handed = item
            outcome = wait(scheduler, me, waiters, queue, letting_go, deadline, queue)
            result, me.handed = me.handed, None
        except BaseException:
            if me is not None:
                me.handed = None
            raise
        finally:
            if not letting_go.gone:
                mutex.release()
        if outcome is queue:
            return result
        if outcome is not RETRY and outcome is not SHUT:
            raise none


def _store(queue: Any, item: Any) -> Any:
    if queue.is_shutdown:
        raise ShutDown
    if 0 < queue.maxsize <= queue._qsize():
        return _NOTHING
    queue._put(item)
    queue.unfinished_tasks += 1
    return PLACE


def _fetch(queue: Any, item: None) -> Any:
    if queue._returned:
        return queue._returned.popleft()
    if queue._qsize():
        return queue._get()
    if queue.is_shutdown:
        raise ShutDown
    return _NOTHING


def _serve(queue: Any) -> None:
    """Hand out what is there to those who wait for it. With the lock held."""
    while True:
        if queue._getting and queue._qsize():
            try:
                item = queue._get()
            except BaseException as error:
                item = _Failed(error)
            if not queue._getters.give(queue, item):  # nobody waits any more
                if isinstance(item, _Failed):
                    raise item.error
                queue._put(item)
        elif queue._putting and not 0 < queue.maxsize <= queue._qsize():
            fiber = queue._putters.take()
            if fiber is not None:
                _admit(queue, fiber)
        else:
            return


def _admit(queue: Any, fiber: Fiber[Any]) -> None:
    """Put in what somebody has brought, who then goes on."""
    handed: object = PLACE
    try:
        queue._put(fiber.handed)
        queue.unfinished_tasks += 1
    except BaseException as error:
        handed = _Failed(error)
    fiber.handed = handed
    fiber.outcome = queue
    fiber.scheduler.wake(fiber)
