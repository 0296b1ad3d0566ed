"""gevent.wait and gevent.iwait: for several things at once, whatever can be linked to."""

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Self

from ...sync.simplequeue import SimpleQueue
from .hub import get_hub
from .timeout import Timeout


class _Waiting(Iterator[Any]):
    """Those of `objects` that are ready, in the order of becoming it. Ends when `count` were, or time is up."""

    def __init__(self, objects: Iterable[Any], timeout: float | Timeout | None, count: int | None) -> None:
        self._objects = list(objects)
        self._left = len(self._objects) if count is None else min(count, len(self._objects))
        self._ready: SimpleQueue[Any] = SimpleQueue()
        self._open = True
        for each in self._objects:
            each.rawlink(self._ready.put)
        self._mine = not (isinstance(timeout, Timeout) and timeout.pending)
        self._timeout = Timeout.start_new(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Wait for nothing any more."""
        if self._open:
            self._open = False
            if self._mine:
                self._timeout.cancel()
            for each in self._objects:
                each.unlink(self._ready.put)

    def __next__(self) -> Any:
        if not self._open or not self._left:
            self.close()
            raise StopIteration
        try:
            found = self._ready.get()
        except Timeout as error:
            self.close()
            if error is not self._timeout:
                raise
            raise StopIteration from None
        except BaseException:
            self.close()
            raise
        self._left -= 1
        if not self._left:
            self.close()
        return found

    __del__ = close


def iwait(objects: Iterable[Any] | None, timeout: float | Timeout | None = None, count: int | None = None) -> Any:
    """An iterator (and a context manager) over things as they become ready: greenlets, events, results, semaphores.

    It ends when all are, or `count` of them, or after `timeout` seconds, counted from the call.
    """
    if objects is None:
        return [get_hub().join(_seconds(timeout))]
    return _Waiting(objects, timeout, count)


def wait(objects: Iterable[Any] | None = None, timeout: float | Timeout | None = None, count: int | None = None) -> Any:
    """Wait for things: all of them, `count`, or `timeout` seconds. Returns a list of those that are ready.

    Without objects: wait until no other fiber of this thread is left; True if that is so.
    """
    if objects is None:
        return get_hub().join(_seconds(timeout))
    with _Waiting(objects, timeout, count) as waiting:
        return list(waiting)


def _seconds(timeout: float | Timeout | None) -> float | None:
    return timeout.seconds if isinstance(timeout, Timeout) else timeout
