"""What `imap` and `imap_unordered` return: a greenlet that reads an iterable and spawns, and an iterator over the results.

An error of a call is raised in the place of its result, and the iteration goes on behind it. An error of the iterable is
raised at its end.
"""

from collections.abc import Callable, Iterable
from typing import Any, Self

from ...sync.event import Event
from ...sync.semaphore import Semaphore
from .greenlet import Greenlet


class IMapUnordered(Greenlet):
    """Results as they come. At most `maxsize` calls run or wait to be taken (None: no limit)."""

    def __init__(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        spawn: Callable[..., Any],
        maxsize: int | None = None,
    ) -> None:
        super().__init__()
        if maxsize is not None and maxsize < 1:
            raise ValueError(f"maxsize must be at least 1, not {maxsize!r}")
        self._func = func
        self._iterable = iterable
        self._spawn = spawn
        self._room = None if maxsize is None else Semaphore(maxsize)
        self.queue: dict[int, Any] = {}  # what is done and has not been taken, by its place in the iterable
        self._came = Event()
        self._count = 0  # calls that have begun
        self._taken = 0
        self._failure: BaseException | None = None
        self._all_begun = False

    def _run(self) -> None:
        try:
            for args in self._iterable:
                if self._room is not None:
                    self._room.acquire()
                self._spawn(self._func, *args).rawlink(self._linked(self._count))
                self._count += 1
        except Exception as error:
            self._failure = error
        finally:
            self._func = self._iterable = self._spawn = None  # type: ignore[assignment]
            self._all_begun = True
            self._came.set()

    def _linked(self, index: int) -> Callable[[Any], None]:
        def done(source: Any) -> None:
            self.queue[index] = source
            self._came.set()

        return done

    def __iter__(self) -> Self:
        return self

    def _next(self) -> Any:
        """The next one that is done and whose turn it is; None: not so far."""
        return self.queue.pop(next(iter(self.queue))) if self.queue else None

    def __next__(self) -> Any:
        while True:
            self._came.clear()
            source = self._next()
            if source is not None:
                break
            if self._all_begun and self._taken == self._count:
                failure, self._failure = self._failure, None
                if failure is not None:
                    raise failure
                raise StopIteration
            self._came.wait()
        self._taken += 1
        if self._room is not None:
            self._room.release()
        if source.successful():
            return source.value
        raise source.exception

    next = __next__


class IMap(IMapUnordered):
    """Results in the order of the iterable."""

    def _next(self) -> Any:
        return self.queue.pop(self._taken, None)
