"""gevent.queue: queues that can be iterated and peeked into, and Channel.

They are the queues of `fibers`, which are first come, first served, and may be used by several threads. An iteration ends
at an item that is StopIteration.

Peeking. An item that is there is looked at. If none is, `peek` waits for one as `get` does, and puts it back in front, in
one step of this thread: another fiber does not see it missing.
"""

from collections.abc import Iterable
from heapq import heapify
from types import GenericAlias
from typing import Any, ClassVar, Self, TypeVar

from ...channels.channel import Channel as _Channel
from ...core.runtime import current
from ...sync import queue
from ...sync.queue import Empty, Full, ShutDown
from .timeout import Timeout, bounded

T = TypeVar("T")


class SimpleQueue(queue.Queue[T]):
    """A queue of at most `maxsize` items; no limit if that is None or not positive. `items` are in it at first."""

    def __init__(
        self, maxsize: int | None = None, items: Iterable[T] = (), unfinished_tasks: int | None = None
    ) -> None:
        first = list(items)
        super().__init__(-1 if maxsize is None or maxsize < 0 else maxsize)
        if first:
            self._fill(first)
        if unfinished_tasks is not None:
            if unfinished_tasks < 0:
                raise ValueError(f"unfinished_tasks must be 0 or more, not {unfinished_tasks!r}")
            self.unfinished_tasks = unfinished_tasks

    def _fill(self, items: list[T]) -> None:
        self.queue.extend(items)
        self.unfinished_tasks += len(items)
        self._room -= len(items)

    def put(self, item: T, block: bool = True, timeout: Any = None) -> None:
        """Put an item in. Raises Full if there is no room after `timeout` seconds, or unless `block`."""
        if isinstance(timeout, Timeout):
            _with(timeout, super().put, item, block)
        else:
            super().put(item, block, None if timeout is None else max(timeout, 0))

    def get(self, block: bool = True, timeout: Any = None) -> T:
        """Take the next item. Raises Empty if there is none after `timeout` seconds, or unless `block`."""
        if isinstance(timeout, Timeout):
            return _with(timeout, super().get, block)  # type: ignore[no-any-return]
        return super().get(block, None if timeout is None else max(timeout, 0))

    def peek(self, block: bool = True, timeout: Any = None) -> T:
        """As `get`, but the item stays."""
        if self._qsize():
            return self._first()
        item = self.get(block, timeout)
        me = current()
        me.handed = item
        self.take_back(me)
        return item

    def _first(self) -> T:
        return self.queue[0]  # type: ignore[no-any-return]

    def peek_nowait(self) -> T:
        """As `peek(block=False)`."""
        return self.peek(False)

    def copy(self) -> Self:
        """A queue of the same size with the same items."""
        return type(self)(self.maxsize, list(self.queue))

    def __len__(self) -> int:
        return self.qsize()

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        item = self.get()
        if item is StopIteration:
            raise StopIteration
        return item


class Queue(SimpleQueue[T]):
    """A SimpleQueue whose tasks are counted: `task_done`, `join`; and which can be shut down."""

    def join(self, timeout: float | Timeout | None = None) -> bool:  # type: ignore[override]
        """Wait until all that was put has been done. False if it is not after `timeout` seconds."""
        limit = Timeout.start_new(timeout)
        try:
            super().join()
        except Timeout as error:
            if error is not limit:
                raise
        finally:
            limit.cancel()
        return not self.unfinished_tasks


JoinableQueue = Queue


class LifoQueue(Queue[T]):
    """A Queue that gives first what was put last."""

    _plain = True
    _POP: ClassVar = "pop"
    _UNPOP: ClassVar = "append"

    def _init(self, maxsize: int) -> None:
        self.queue = []

    def _get(self) -> T:
        return self.queue.pop()  # type: ignore[no-any-return]

    def _first(self) -> T:
        return self.queue[-1]  # type: ignore[no-any-return]


class PriorityQueue(Queue[T]):
    """A Queue that gives the least item first."""

    _plain = False
    _init: Any = queue.PriorityQueue._init
    _put: Any = queue.PriorityQueue._put
    _get: Any = queue.PriorityQueue._get

    def _fill(self, items: list[T]) -> None:
        super()._fill(items)
        heapify(self.queue)


class Channel:
    """A queue without room: who puts waits for who gets."""

    __class_getitem__: Any = classmethod(GenericAlias)

    def __init__(self, maxsize: int = 1) -> None:
        self._channel: _Channel[Any] = _Channel()

    def put(self, item: Any, block: bool = True, timeout: Any = None) -> None:
        """Hand an item over. Raises Full if nobody has taken it after `timeout` seconds, or unless `block`."""
        if not block:
            if not self._channel.try_send(item):
                raise Full
        elif not isinstance(timeout, Timeout):
            try:
                self._channel.send(item, None if timeout is None else max(timeout, 0))
            except TimeoutError:
                raise Full from None
        else:
            _with(timeout, self._channel.send, item)

    def put_nowait(self, item: Any) -> None:
        """As `put(item, block=False)`."""
        self.put(item, False)

    def get(self, block: bool = True, timeout: Any = None) -> Any:
        """Take an item. Raises Empty if nobody has brought one after `timeout` seconds, or unless `block`."""
        if not block:
            if (item := self._channel.try_receive(Empty)) is Empty:
                raise Empty
            return item
        if isinstance(timeout, Timeout):
            return _with(timeout, self._channel.receive)
        try:
            return self._channel.receive(None if timeout is None else max(timeout, 0))
        except TimeoutError:
            raise Empty from None

    def get_nowait(self) -> Any:
        """As `get(block=False)`."""
        return self.get(False)

    def qsize(self) -> int:
        """0: nothing is ever in it."""
        return 0

    def empty(self) -> bool:
        """Always."""
        return True

    full = empty

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        item = self.get()
        if item is StopIteration:
            raise StopIteration
        return item

    next = __next__


def _with(timeout: Timeout, function: Any, *args: Any) -> Any:
    """Call something with a Timeout of the user's, which is raised as it is."""
    got: list[Any] = []

    def call(seconds: float | None) -> bool:
        got.append(function(*args))
        return True

    if not bounded(call, timeout):
        raise timeout
    return got[0]


__all__ = [
    "Channel", "Empty", "Full", "JoinableQueue", "LifoQueue", "PriorityQueue", "Queue", "ShutDown", "SimpleQueue",
]  # fmt: skip
