"""kqueue(2), edge-triggered (macOS, the BSDs), through Python's `select.kqueue`.

Facts, and what follows:

* Read and write readiness of a file are two filters, registered, reported and deleted apart. EV_CLEAR makes
  them report an edge and then keep silent until new activity. So: one EV_ADD|EV_CLEAR per direction at its
  first wait, and wait() merges what it gets into one entry per file.
* A list of changes with no room for events in the answer reports the first failing change as errno, and the
  changes after it are not made. With room, failures come back as EV_ERROR events; but so do true events,
  which EV_CLEAR then never repeats. So each change is a call of its own, with no room: it works, or it
  raises.
* EV_EOF and EV_ERROR live in `flags`, beside EV_CLEAR: they are to be masked, not compared. `fflags` holds
  the socket's error, which the next operation reports anyhow.
* EV_EOF on the read filter: the peer closed its writing half (or everything). EV_EOF on the write filter:
  writing is over, the connection is broken; readers should look too, so it counts in both directions.
* A close(2) removes the filters of that number, whatever dup() lives on; a re-used number inherits nothing.
  ENOENT and EBADF from EV_DELETE are therefore no news.
* A regular file is readable here only short of its end, where a waiter would sleep for ever. By the contract
  such files never block, so `arm` says EPERM as epoll does. Devices without a filter are refused by the
  kernel (ENODEV, EINVAL), and so is the writing of a pipe without reader (EPIPE).
* control() takes seconds, rounds up, and refuses negative ones; a wait over some 10^8 s is EINVAL on some
  systems. A sign error here once made each timer 0 ns (Crystal #16578): hence clamped on both sides, in one
  place.
* Python offers no EVFILT_USER: waking is the waker's business. NetBSD's EVFILT_TIMER must be > 0; it is not
  used.
* Named FIFOs do not work on macOS: kqueue_fifo.py waits for them.
* A kqueue is not inherited by fork; CPython (3.11.7, 3.12.1) shows it as closed in the child.
"""

import errno
import os
import select
import stat
import sys
from collections.abc import Callable, Iterable
from typing import ClassVar, Final, Protocol, cast

from . import LONGEST_WAIT, READ, WRITE
from .kqueue_fifo import INVALID, FifoWatch, is_named

_HANGUP: Final = 4
_BROKEN: Final = 8
_GONE: Final = frozenset((errno.ENOENT, errno.EBADF))
_MAX_KEVENTS: Final = 1024


class Kevent(Protocol):
    """What is used of `select.kevent`."""

    @property
    def ident(self) -> int: ...
    @property
    def filter(self) -> int: ...
    @property
    def flags(self) -> int: ...


class Kqueue(Protocol):
    """What is used of `select.kqueue`."""

    @property
    def closed(self) -> bool: ...
    def control(
        self, changelist: Iterable[Kevent] | None, maxevents: int, timeout: float | None = None, /
    ) -> list[Kevent]: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...


class KqueueApi(Protocol):
    """What is used of the module `select`; typeshed hides it from checkers that run on Linux."""

    @property
    def KQ_FILTER_READ(self) -> int: ...  # noqa: N802
    @property
    def KQ_FILTER_WRITE(self) -> int: ...  # noqa: N802
    @property
    def KQ_EV_ADD(self) -> int: ...  # noqa: N802
    @property
    def KQ_EV_CLEAR(self) -> int: ...  # noqa: N802
    @property
    def KQ_EV_DELETE(self) -> int: ...  # noqa: N802
    @property
    def KQ_EV_EOF(self) -> int: ...  # noqa: N802
    @property
    def KQ_EV_ERROR(self) -> int: ...  # noqa: N802

    def kqueue(self) -> Kqueue: ...
    def kevent(self, ident: int, filter: int, flags: int, /) -> Kevent: ...


_SYSTEM: Final = cast(KqueueApi, select)

#: Which files this system's kqueue cannot serve; None: it serves all.
UNSERVED: Final[Callable[[os.stat_result], bool] | None] = is_named if sys.platform == "darwin" else None


class KqueuePoller:
    """See Poller. The kernel does its own locking: every verb is safe beside a wait.

    `api` is the module to use, and `unserved` tells which FIFOs a thread has to wait for: for tests on other systems.
    """

    __slots__ = (
        "_add", "_control", "_delete", "_eof", "_error", "_fifos", "_filters", "_kevent", "_kqueue", "_unserved", "_write",
        "one_shot",
    )  # fmt: skip

    name: ClassVar[str] = "kqueue"
    edge_triggered: ClassVar[bool] = True
    READABLE: ClassVar[int] = READ | _BROKEN
    WRITABLE: ClassVar[int] = WRITE | _BROKEN
    HANGUP: ClassVar[int] = _HANGUP
    INVALID: ClassVar[int] = 0
    MAX_EVENTS: ClassVar[int] = _MAX_KEVENTS // 2  # two filters each: no fewer files can fill an answer

    def __init__(self, api: KqueueApi = _SYSTEM, unserved: Callable[[os.stat_result], bool] | None = UNSERVED) -> None:
        self._kqueue = api.kqueue()
        self._control = self._kqueue.control
        self._kevent = api.kevent
        self._add = api.KQ_EV_ADD | api.KQ_EV_CLEAR
        self._delete = api.KQ_EV_DELETE
        self._eof = api.KQ_EV_EOF
        self._error = api.KQ_EV_ERROR
        self._write = api.KQ_FILTER_WRITE
        self._filters = (0, api.KQ_FILTER_READ, api.KQ_FILTER_WRITE)  # indexed by READ, WRITE
        self.one_shot: set[int] = set()
        self._unserved = unserved
        self._fifos: FifoWatch | None = None

    def arm(self, fd: int, interest: int, armed: int) -> None:
        if fd < 0:
            raise ValueError(f"file descriptor cannot be a negative integer ({fd})")
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
            raise PermissionError(errno.EPERM, f"fd {fd} is a file that never blocks")
        if self._unserved is not None:
            if self._unserved(status):
                self._arm_fifo(fd, interest)
                return
            if fd in self.one_shot:  # the FIFO of this number was closed without a word
                self.forget(fd, 0)
        self._control((self._kevent(fd, self._filters[interest], self._add),), 0, 0)

    def _arm_fifo(self, fd: int, interest: int) -> None:
        if self._kqueue.closed:
            raise ValueError("I/O operation on closed kqueue poller")
        fifos = self._fifos
        if fifos is None:
            fifos = FifoWatch()
            try:
                self._control((self._kevent(fifos.bell.fd, self._filters[READ], self._add),), 0, 0)
            except BaseException:
                fifos.close()
                raise
            self._fifos = fifos
        fifos.arm(fd, interest)
        self.one_shot.add(fd)

    def disarm(self, fd: int, interest: int) -> None:
        pass

    def forget(self, fd: int, armed: int) -> None:
        if fd in self.one_shot:
            self.one_shot.discard(fd)
            if self._fifos is not None:
                self._fifos.forget(fd)
            return
        for interest in (READ, WRITE):
            if armed & interest:
                try:
                    self._control((self._kevent(fd, self._filters[interest], self._delete),), 0, 0)
                except OSError as error:
                    if error.errno not in _GONE:
                        raise

    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        if timeout is not None:
            timeout = 0.0 if timeout <= 0.0 else min(timeout, LONGEST_WAIT)
        kevents = self._control(None, _MAX_KEVENTS, timeout)
        if not kevents:
            return []
        fifos = self._fifos
        found: dict[int, int] = {}
        for kevent in kevents:
            if fifos is not None and kevent.ident == fifos.bell.fd:
                for fd, bits in fifos.take():
                    found[fd] = found.get(fd, 0) | (_BROKEN if bits & INVALID else bits)
                continue
            flags = kevent.flags
            if kevent.filter == self._write:
                bits = WRITE | _BROKEN if flags & self._eof else WRITE
            else:
                bits = READ | _HANGUP if flags & self._eof else READ
            if flags & self._error:
                bits |= _BROKEN
            fd = kevent.ident
            found[fd] = found.get(fd, 0) | bits
        return list(found.items())

    def close(self) -> None:
        self._kqueue.close()
        if self._fifos is not None:
            self._fifos.close()

    def fileno(self) -> int:
        return -1 if self._kqueue.closed else self._kqueue.fileno()
