"""select(2), level-triggered: the call that every system has.

Facts, and what follows:

* It reports states, like poll: one-shot for the same reason, and an entry is stamped with the wait during
  which it was armed for the same reason (see poll.py). The lock is the same too.
* An fd_set has FD_SETSIZE bits, whatever the limit on open files is. A larger number is refused by `arm`,
  before it can spoil every wait that follows; so is a negative one.
* One closed fd in a set makes the whole call fail with EBADF and does not say which. Then each fd is asked
  alone, with timeout 0. The culprits are reported INVALID and dropped. If there is none any more, the wait
  returns empty, and the caller's next one knows better.
* It says readable and writable, no more: end of file is readable, an error is both. There is no hang-up bit,
  and none is needed: a file with something queued, be it the end, is reported again at the next `arm`.
* Urgent data is the exceptional set. Linux drops that level when a read passes the mark; the BSDs keep it
  while a reader waits at the mark, so there it is not asked for.
* The sets are read by C code in one go, without running Python, so that another thread can change them
  meanwhile.
"""

import errno
import sys
from select import select
from threading import RLock
from typing import ClassVar, Final

from . import LONGEST_WAIT, READ, WRITE

FD_SETSIZE: Final = 256 if sys.platform.startswith("netbsd") else 1024
_URGENT: Final = sys.platform == "linux"
_NOTHING: Final[tuple[int, ...]] = ()
_INVALID: Final = 4


class SelectPoller:
    """See Poller. For a few files with small numbers."""

    __slots__ = ("_armed_during", "_closed", "_lock", "_read", "_waits", "_write")

    name: ClassVar[str] = "select"
    edge_triggered: ClassVar[bool] = False
    READABLE: ClassVar[int] = READ
    WRITABLE: ClassVar[int] = WRITE
    HANGUP: ClassVar[int] = 0
    one_shot: ClassVar[frozenset[int]] = frozenset()
    INVALID: ClassVar[int] = _INVALID
    MAX_EVENTS: ClassVar[int] = sys.maxsize  # a wait reports everything

    def __init__(self) -> None:
        self._read: set[int] = set()
        self._write: set[int] = set()
        self._armed_during: dict[int, int] = {}  # fd -> the wait during which it was armed
        self._waits = 0
        self._lock = RLock()
        self._closed = False

    def arm(self, fd: int, interest: int, armed: int) -> None:
        self._check_open()
        if fd < 0:
            raise ValueError(f"file descriptor cannot be a negative integer ({fd})")
        if fd >= FD_SETSIZE:
            raise ValueError(
                f"select cannot wait for fd {fd}, its limit is {FD_SETSIZE - 1}: "
                "choose FIBERS_EVENTLOOP=poll, or epoll or kqueue where the system has them"
            )
        with self._lock:
            if interest & READ:
                self._read.add(fd)
            if interest & WRITE:
                self._write.add(fd)
            # The stamp is read after adding: at worst one wait too many passes the entry over.
            self._armed_during[fd] = self._waits

    def disarm(self, fd: int, interest: int) -> None:
        with self._lock:
            self._drop(fd, interest)

    def forget(self, fd: int, armed: int) -> None:
        with self._lock:
            self._drop(fd, READ | WRITE)

    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        self._check_open()
        self._waits = this = self._waits + 1
        if timeout is not None:
            timeout = 0.0 if timeout <= 0.0 else min(timeout, LONGEST_WAIT)
        try:
            readable, writable, urgent = select(self._read, self._write, self._read if _URGENT else _NOTHING, timeout)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            return self._one_shot(dict.fromkeys(self._culprits(), _INVALID), this)
        if not readable and not writable and not urgent:
            return []
        found = dict.fromkeys(readable, READ)
        for fd in urgent:
            found[fd] = READ
        for fd in writable:
            found[fd] = found.get(fd, 0) | WRITE
        return self._one_shot(found, this)

    def close(self) -> None:
        # Without the lock: in a forked child a thread that does not exist there may hold it.
        self._closed = True
        self._read.clear()
        self._write.clear()
        self._armed_during.clear()

    def fileno(self) -> int:
        return -1

    def _culprits(self) -> list[int]:
        culprits = []
        for fd in list(self._armed_during):
            try:
                select((fd,), _NOTHING, _NOTHING, 0)
            except OSError as error:
                if error.errno != errno.EBADF:
                    raise
                culprits.append(fd)
        return culprits

    def _one_shot(self, found: dict[int, int], this: int) -> list[tuple[int, int]]:
        """Drop what is reported; leave out what is about another file than the one armed now."""
        reported = []
        with self._lock:
            for fd, bits in found.items():
                armed_during = self._armed_during.get(fd, this)
                if armed_during < this:
                    self._drop(fd, READ | WRITE if bits & _INVALID else bits)
                    reported.append((fd, bits))
        return reported

    def _drop(self, fd: int, interest: int) -> None:
        if interest & READ:
            self._read.discard(fd)
        if interest & WRITE:
            self._write.discard(fd)
        if fd not in self._read and fd not in self._write:
            self._armed_during.pop(fd, None)

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("I/O operation on closed select poller")
