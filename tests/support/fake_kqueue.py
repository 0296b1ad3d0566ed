"""A kqueue for Linux, so that the kqueue poller, and any loop over it, is tested where there is none.

The module stands in for `select`: it has `kqueue`, `kevent` and the KQ_ constants (values of FreeBSD and
macOS). Underneath are real fds in two private epolls, one per filter, and an outer epoll that sleeps on both.

Facts of kqueue that it models
* A filter is known by (number, filter). EV_ADD of a known one is legal and looks at the file again; EV_DELETE
  of an unknown one is ENOENT; a number that is not open is EBADF.
* EV_CLEAR: what has been reported is reported again only after new activity. A partial read is none.
* The two filters of a file are apart: arriving data does not touch the write filter.
* close(2) takes the filters of the number with it, even while a dup() lives, and a re-used number inherits
  nothing.
* Reported flags hold EV_CLEAR too, so that EV_EOF must be masked. EV_EOF on the read filter: the peer has
  shut down writing, or everything, or the last writer of a pipe has gone. On the write filter: the connection
  is over in both directions, or the last reader of a pipe has gone. An error alone (refused UDP) is an event
  without EV_EOF.
* A socket that was never connected is ready for nothing (epoll would report OUT|HUP).
* `data` of the read filter is the number of bytes to be read (the next datagram's size; 1 for a listener).
* A failing change is an EV_ERROR event with the errno in `data` if the answer has room, and errors go out
  before any true event is looked for; without room it is raised, and the changes after it are not made.
* No room (maxevents 0) returns at once, whatever the timeout. Negative timeouts and sizes are ValueErrors, a
  timeout over 10^8 s is EINVAL (NetBSD, older macOS), a closed kqueue is a ValueError, EV_ADD of the write
  filter on a pipe without reader is EPIPE, a device without a filter (/dev/null) is ENODEV.
* Changes from another thread take effect on a wait in progress. fileno() can be waited on.
* It is not inherited by fork: it appears as closed in the child.

What it does not model, and refuses with NotImplementedError rather than to pretend: level-triggered filters
(EV_ADD without EV_CLEAR), EV_ENABLE, EV_DISABLE, EV_ONESHOT, fflags, other filters, regular files and
directories.

Where it differs: `fflags` stays 0, because Linux tells a pending error only by taking it away. `data` of the
write filter stays 0. Events come filter by filter, not in order of arrival. The peer's half-close may give
the write filter a spurious event. A file that comes back to its old number by dup2 keeps its filters. One
file can be watched under at most 500 numbers (a limit of nested epolls).
"""

import array
import ctypes
import errno
import fcntl
import os
import platform
import select
import stat
import struct
import termios
import time
import weakref
from collections.abc import Iterable
from threading import RLock
from typing import Final, Protocol

KQ_FILTER_READ: Final = -1
KQ_FILTER_WRITE: Final = -2
KQ_EV_ADD: Final = 0x0001
KQ_EV_DELETE: Final = 0x0002
KQ_EV_ENABLE: Final = 0x0004
KQ_EV_DISABLE: Final = 0x0008
KQ_EV_ONESHOT: Final = 0x0010
KQ_EV_CLEAR: Final = 0x0020
KQ_EV_EOF: Final = 0x8000
KQ_EV_ERROR: Final = 0x4000

_FILTERS: Final = range(-15, 0)  # those that a real system may know
_MODELLED: Final = KQ_EV_ADD | KQ_EV_DELETE | KQ_EV_CLEAR
_REAL: Final = _MODELLED | KQ_EV_ENABLE | KQ_EV_DISABLE | KQ_EV_ONESHOT
_LONGEST_WAIT: Final = 100_000_000.0
_EPOLL_EVENTS: Final = {
    KQ_FILTER_READ: select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET,
    KQ_FILTER_WRITE: select.EPOLLOUT | select.EPOLLET,
}
_CTL_ADD: Final = 1
_CTL_DEL: Final = 2
_CTL_MOD: Final = 3
# struct epoll_event is packed on x86 alone. Python's epoll puts the fd into it; a token of our own tells
# events of the file that has a number now from events of a dup of the file that had it before.
_EPOLL_EVENT: Final = struct.Struct("=II4x" if platform.machine() in ("x86_64", "i686") else "@I4xI4x")
_libc: Final = ctypes.CDLL(None, use_errno=True)
_monotonic = time.monotonic  # captured: a patched clock must not stop a kernel


class _HasFileno(Protocol):
    def fileno(self) -> int: ...


class FakeKevent:
    """`select.kevent`: plain data, made of an fd or an object that has one."""

    __slots__ = ("data", "fflags", "filter", "flags", "ident", "udata")

    def __init__(
        self,
        ident: int | _HasFileno,
        filter: int = KQ_FILTER_READ,
        flags: int = KQ_EV_ADD,
        fflags: int = 0,
        data: int = 0,
        udata: int = 0,
    ) -> None:
        self.ident = ident if isinstance(ident, int) else ident.fileno()
        self.filter = filter
        self.flags = flags
        self.fflags = fflags
        self.data = data
        self.udata = udata

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FakeKevent):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "<kevent " + " ".join(f"{name}={getattr(self, name)}" for name in self.__slots__) + ">"


class _Knote:
    """One filter of one file."""

    __slots__ = ("fd", "filter", "identity", "token", "udata")

    def __init__(self, fd: int, filter: int, token: int, udata: int) -> None:
        self.fd = fd
        self.filter = filter
        self.identity = _identity(fd)
        self.token = token
        self.udata = udata


class FakeKqueue:
    """`select.kqueue`."""

    def __init__(self) -> None:
        self.closed = False
        self._lock = RLock()
        self._by_key: dict[tuple[int, int], _Knote] = {}
        self._by_token: dict[int, _Knote] = {}
        self._last_token = 0
        self._outer = select.epoll()
        self._inner = {filter: select.epoll() for filter in _EPOLL_EVENTS}
        for inner in self._inner.values():
            self._outer.register(inner, select.EPOLLIN)
        self._order = list(_EPOLL_EVENTS)
        self._process = os.getpid()
        _open_queues.add(self)

    def fileno(self) -> int:
        self._check_open()
        return self._outer.fileno()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._outer.close()
            for inner in self._inner.values():
                inner.close()

    def control(
        self, changelist: Iterable[FakeKevent] | None, maxevents: int, timeout: float | None = None, /
    ) -> list[FakeKevent]:
        self._check_open()
        if maxevents < 0:
            raise ValueError(f"Length of eventlist must be 0 or positive, got {maxevents}")
        if timeout is not None:
            if not isinstance(timeout, int | float):
                raise TypeError(f"timeout argument must be a number or None, got {type(timeout).__name__}")
            if timeout != timeout:
                raise ValueError("Invalid value NaN (not a number)")
            if timeout < 0:
                raise ValueError("timeout must be positive or None")
            if timeout > _LONGEST_WAIT:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        changes = list(changelist or ())
        for change in changes:
            if not isinstance(change, FakeKevent):
                raise TypeError("changelist must be an iterable of select.kevent objects")
        failures = self._make(changes, maxevents)
        if failures or not maxevents:
            return failures
        return self._wait(maxevents, timeout)

    def _make(self, changes: list[FakeKevent], room: int) -> list[FakeKevent]:
        failures: list[FakeKevent] = []
        for change in changes:
            try:
                with self._lock:
                    self._change(change)
            except OSError as error:
                if len(failures) >= room:
                    raise
                failures.append(
                    FakeKevent(
                        change.ident,
                        change.filter,
                        change.flags | KQ_EV_ERROR,
                        data=error.errno or 0,
                        udata=change.udata,
                    )
                )
        return failures

    def _change(self, change: FakeKevent) -> None:
        fd, filter, flags = change.ident, change.filter, change.flags
        if filter not in _FILTERS or flags & ~_REAL or (flags & KQ_EV_ADD and flags & KQ_EV_DELETE):
            raise OSError(errno.EINVAL, f"filter {filter}, flags {flags:#x}")
        if filter not in _EPOLL_EVENTS or flags & ~_MODELLED or change.fflags:
            raise NotImplementedError(f"not modelled: {change!r}")
        mode = os.fstat(fd).st_mode
        if flags & KQ_EV_DELETE:
            self._delete(fd, filter)
        elif flags & KQ_EV_ADD:
            if not flags & KQ_EV_CLEAR or stat.S_ISREG(mode) or stat.S_ISDIR(mode):
                raise NotImplementedError(f"not modelled: {change!r}, file mode {mode:#o}")
            if filter == KQ_FILTER_WRITE and stat.S_ISFIFO(mode) and _levels(fd) & select.POLLERR:
                raise OSError(errno.EPIPE, os.strerror(errno.EPIPE))
            self._add(fd, filter, change.udata)
        elif (fd, filter) not in self._by_key:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        else:
            raise NotImplementedError(f"not modelled: {change!r}")

    def _add(self, fd: int, filter: int, udata: int) -> None:
        self._last_token += 1
        knote = _Knote(fd, filter, self._last_token, udata)
        try:
            self._ctl(_CTL_ADD, knote)
        except FileExistsError:
            self._ctl(_CTL_MOD, knote)
        except PermissionError as error:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV)) from error
        self._forget(fd, filter)
        self._by_key[fd, filter] = self._by_token[knote.token] = knote

    def _delete(self, fd: int, filter: int) -> None:
        knote = self._forget(fd, filter)
        if knote is None:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        self._ctl(_CTL_DEL, knote)  # ENOENT if the number has changed hands: the filter went with its file

    def _forget(self, fd: int, filter: int) -> _Knote | None:
        knote = self._by_key.pop((fd, filter), None)
        if knote is not None:
            del self._by_token[knote.token]
        return knote

    def _ctl(self, operation: int, knote: _Knote) -> None:
        event = _EPOLL_EVENT.pack(_EPOLL_EVENTS[knote.filter], knote.token)
        inner = self._inner[knote.filter].fileno()
        if _libc.epoll_ctl(inner, operation, knote.fd, event) < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    def _wait(self, maxevents: int, timeout: float | None) -> list[FakeKevent]:
        deadline = None if timeout is None else _monotonic() + timeout
        while True:
            found = self._collect(maxevents)
            if found:
                return found
            remaining = None if deadline is None else deadline - _monotonic()
            if remaining is not None and remaining <= 0:
                return found
            self._outer.poll(remaining)

    def _collect(self, room: int) -> list[FakeKevent]:
        found: list[FakeKevent] = []
        self._order.reverse()  # so that a small answer is not filled by the same filter each time
        for filter in self._order:
            if len(found) < room:
                for token, _ in self._inner[filter].poll(0, room - len(found)):
                    with self._lock:
                        event = self._event(token)
                    if event is not None:
                        found.append(event)
        return found

    def _event(self, token: int) -> FakeKevent | None:
        """The event of a filter that has seen activity; None if it is gone or its condition does not hold."""
        knote = self._by_token.get(token)
        if knote is None:
            return None
        fd, filter = knote.fd, knote.filter
        try:
            same = _identity(fd) == knote.identity
        except OSError:
            same = False
        if not same:
            self._forget(fd, filter)
            return None
        levels = _levels(fd)
        is_socket = stat.S_ISSOCK(knote.identity[2])
        if is_socket and levels & (select.POLLHUP | select.POLLRDHUP | select.POLLERR) == select.POLLHUP:
            return None  # never connected
        if filter == KQ_FILTER_READ:
            eof = levels & (select.POLLRDHUP | select.POLLHUP)
            ready = eof or levels & (select.POLLIN | select.POLLERR)
        else:
            eof = levels & (select.POLLHUP if is_socket else select.POLLHUP | select.POLLERR)
            ready = eof or levels & (select.POLLOUT | select.POLLERR)
        if not ready:
            return None
        flags = KQ_EV_CLEAR | (KQ_EV_EOF if eof else 0)
        data = _readable_bytes(fd) if filter == KQ_FILTER_READ else 0
        return FakeKevent(fd, filter, flags, data=data, udata=knote.udata)

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed kqueue object")


kevent = FakeKevent
kqueue = FakeKqueue


def _identity(fd: int) -> tuple[int, int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino, status.st_mode


def _levels(fd: int) -> int:
    poll = select.poll()
    poll.register(fd, select.POLLIN | select.POLLOUT | select.POLLRDHUP)
    return sum(bits for _, bits in poll.poll(0))


def _readable_bytes(fd: int) -> int:
    count = array.array("i", [0])
    try:
        fcntl.ioctl(fd, termios.FIONREAD, count)
    except OSError:
        return 1  # a listener
    return count[0]


_open_queues: "weakref.WeakSet[FakeKqueue]" = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for queue in list(_open_queues):
        if queue._process != os.getpid():  # else another hook has made it in the child already
            queue.close()


os.register_at_fork(after_in_child=_after_fork_in_child)
