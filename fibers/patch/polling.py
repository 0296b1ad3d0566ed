"""`select.select`, `poll`, `epoll` and `kqueue` that suspend the fiber.

Each looks without waiting first, by the standard call, and only if nothing is ready does it wait in the loop (waiting.py).
An epoll and a kqueue are files themselves, readable when something in them is ready: they are waited for as such, and what
is registered in them stays registered.

A call that finds something ready, or is not to wait, lets the other fibers run once, as a system call lets other threads
run: programs are written that ask in a loop until another thread has done its part.
"""

import select as std
from _thread import TIMEOUT_MAX
from collections.abc import Callable
from select import POLLIN, POLLOUT
from typing import Any, ClassVar, Final, Self, TypeVar

from ..core.scheduler import state
from .locks import give_way
from .originals import module
from .waiting import until_readable, wait_any

T = TypeVar("T")

_std: Final[Any] = module("select")
_select: Final = _std.select
_PRI: Final[int] = _std.POLLPRI

#: What the standard `poll` and `epoll` can wait for: milliseconds in a C int.
LONGEST_MS: Final = 2**31 - 1


def _can_wait() -> bool:
    """Is this code that may wait in a loop? (Where it may not, the standard call blocks the thread, as it ever did.)"""
    scheduler = state.scheduler
    return scheduler is None or scheduler.current is not None


class _Deadline:
    """How much time is left."""

    __slots__ = ("_clock", "_end")

    def __init__(self, seconds: float | None) -> None:
        self._clock: Callable[[], float] = module("time").monotonic
        self._end = None if seconds is None else self._clock() + seconds

    def left(self) -> float | None:
        return None if self._end is None else max(0.0, self._end - self._clock())


def _after_others(found: T) -> T:
    """The result of a call that had no need to wait: returned when the others have run, whatever comes meanwhile."""
    give_way()
    return found


def _finite(timeout: Any, longest: float) -> bool:
    """May the call wait? Not with 0, nor with what is no timeout: then the standard call returns or raises at once."""
    return timeout is None or (isinstance(timeout, int | float) and timeout != 0 and timeout <= longest)


def _number(file: Any) -> int:
    return file if isinstance(file, int) else file.fileno()


def select(
    rlist: Any, wlist: Any, xlist: Any, timeout: float | None = None, /
) -> tuple[list[Any], list[Any], list[Any]]:
    """As `select.select`."""
    if (timeout is not None and not 0 < timeout <= TIMEOUT_MAX) or not _can_wait():
        return _after_others(_select(rlist, wlist, xlist, timeout))  # type: ignore[no-any-return]
    end = _Deadline(timeout)
    lists: Any = tuple(each if isinstance(each, list | tuple) else list(each) for each in (rlist, wlist, xlist))
    found: tuple[list[Any], list[Any], list[Any]] = _select(*lists, 0)
    if any(found):
        return _after_others(found)
    lists = tuple(map(list, lists))  # what becomes of the caller's own meanwhile is nothing to the kernel, either
    while not any(found):
        files: dict[int, int] = {}
        for each, events in zip(lists, (POLLIN, POLLOUT, _PRI), strict=True):
            for file in each:
                fd = _number(file)
                files[fd] = files.get(fd, 0) | events
        came = wait_any(files, end.left(), lambda seconds: _select(*lists, seconds))
        found = _select(*lists, 0)
        if not came:
            break
    return found


def poll() -> "Poll":
    """As `select.poll`."""
    return object.__new__(Poll)._take(_std.poll())


class Poll:
    """As what `select.poll()` returns, and nothing else does."""

    __slots__ = ("_files", "_poll", "_polling")

    def __new__(cls) -> Self:
        raise TypeError(f"cannot create '{cls.__module__}.{cls.__qualname__}' instances")

    def _take(self, poll: Any) -> Self:
        self._poll = poll
        self._files: dict[int, int] = {}
        self._polling = False
        return self

    def register(self, fd: Any, eventmask: int = POLLIN | _PRI | POLLOUT, /) -> None:
        """As the standard one's."""
        self._poll.register(fd, eventmask)
        self._files[_number(fd)] = eventmask

    def modify(self, fd: Any, eventmask: int, /) -> None:
        """As the standard one's."""
        self._poll.modify(fd, eventmask)
        self._files[_number(fd)] = eventmask

    def unregister(self, fd: Any, /) -> None:
        """As the standard one's."""
        self._poll.unregister(fd)
        del self._files[_number(fd)]

    def poll(self, timeout: float | None = None, /) -> list[tuple[int, int]]:
        """As the standard one's: milliseconds; None or negative: no limit."""
        if self._polling:
            raise RuntimeError("concurrent poll() invocation")
        if not _finite(timeout, LONGEST_MS) or not _can_wait():
            return _after_others(self._poll.poll(timeout))
        end = _Deadline(None if timeout is None or timeout < 0 else timeout / 1000)
        found: list[tuple[int, int]] = self._poll.poll(0)
        if found:
            return _after_others(found)
        self._polling = True
        try:
            while not found:
                came = wait_any(dict(self._files), end.left(), self._in_thread)
                found = self._poll.poll(0)
                if not came:
                    break
        finally:
            self._polling = False
        return found

    def _in_thread(self, seconds: float | None) -> Any:
        look = _std.poll()
        for fd, events in list(self._files.items()):
            look.register(fd, events)
        return look.poll(None if seconds is None else seconds * 1000)


class Epoll:
    """As `select.epoll`."""

    __slots__ = ("__weakref__", "_epoll", "close", "fileno", "modify", "register", "unregister")

    def __init__(self, sizehint: int = -1, flags: int = 0) -> None:
        self._take(_std.epoll(sizehint, flags))

    def _take(self, epoll: Any) -> None:
        self._epoll = epoll
        self.close = epoll.close
        self.fileno = epoll.fileno
        self.register = epoll.register
        self.modify = epoll.modify
        self.unregister = epoll.unregister

    @classmethod
    def fromfd(cls, fd: int, /) -> Self:
        """As the standard one's."""
        self = cls.__new__(cls)
        self._take(_std.epoll.fromfd(fd))
        return self

    @property
    def closed(self) -> bool:
        """As the standard one's."""
        return bool(self._epoll.closed)

    def poll(self, timeout: float | None = None, maxevents: int = -1) -> list[tuple[int, int]]:
        """As the standard one's: seconds; None or negative: no limit."""
        if not _finite(timeout, LONGEST_MS / 1000) or not _can_wait():
            return _after_others(self._epoll.poll(timeout, maxevents))
        end = _Deadline(None if timeout is None or timeout < 0 else timeout)
        found: list[tuple[int, int]] = self._epoll.poll(0, maxevents)
        if found:
            return _after_others(found)
        while not found:
            came = until_readable(self.fileno(), end.left())
            found = self._epoll.poll(0, maxevents)
            if not came:
                break
        return found

    def __enter__(self) -> Self:
        self._epoll.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Kqueue:
    """As `select.kqueue`."""

    __slots__ = ("__weakref__", "_kqueue", "close", "fileno")

    def __init__(self) -> None:
        self._take(_std.kqueue())

    def _take(self, kqueue: Any) -> None:
        self._kqueue = kqueue
        self.close = kqueue.close
        self.fileno = kqueue.fileno

    @classmethod
    def fromfd(cls, fd: int, /) -> Self:
        """As the standard one's."""
        self = cls.__new__(cls)
        self._take(_std.kqueue.fromfd(fd))
        return self

    @property
    def closed(self) -> bool:
        """As the standard one's."""
        return bool(self._kqueue.closed)

    def control(self, changelist: Any, maxevents: int, timeout: float | None = None, /) -> list[Any]:
        """As the standard one's: seconds; None: no limit."""
        if maxevents == 0 or timeout == 0 or (timeout is not None and timeout < 0) or not _can_wait():
            return _after_others(self._kqueue.control(changelist, maxevents, timeout))
        end = _Deadline(timeout)
        found: list[Any] = self._kqueue.control(changelist, maxevents, 0)
        if found:
            return _after_others(found)
        while not found:
            came = until_readable(self.fileno(), end.left())
            found = self._kqueue.control(None, maxevents, 0)
            if not came:
                break
        return found


class _Names:
    """What this platform has of them."""

    #: In `select`, by name.
    here: ClassVar[dict[str, Any]] = {
        name: ours
        for name, ours in (("select", select), ("poll", poll), ("epoll", Epoll), ("kqueue", Kqueue))
        if hasattr(std, name)
    }


NAMES: Final = _Names.here
