"""poll(2), level-triggered, for systems without epoll and kqueue and for whoever distrusts those.

Facts, and what follows:

* poll reports a state at each call for as long as it lasts. One-shot: what has been reported is dropped, and
  the file is unregistered with its last direction, not kept with empty interest: `register(fd, 0)` reports
  POLLHUP without end.
* A closed fd is POLLNVAL at each call, and so is an O_PATH fd, which is open. Reported once as INVALID and
  dropped.
* CPython copies its table into the kernel's array when a wait begins. Another thread may change the table
  meanwhile; the array then speaks of the past. A file armed during the wait was not in that array (or not
  with that direction), so whatever the array says about its number concerns a predecessor, and a POLLNVAL of
  the predecessor must not evict the successor. Hence the stamp: an entry remembers the wait during which it
  was armed and is passed over by that wait. A level is reported again by the next one, so nothing is lost by
  passing over.
* Dropping a direction and arming the other one both rewrite an entry. The lock keeps them apart between
  threads; it is never held in the kernel, and it can be taken again by a signal handler or finaliser of the
  same thread.
* A poll object refuses to be entered twice at the same time (RuntimeError), which is as it should be.
* Milliseconds as a float, rounded up by CPython: never early. Below zero is for ever there, so that is kept
  apart here.
"""

import select
import sys
from threading import RLock
from typing import ClassVar, Final

from . import LONGEST_WAIT, READ, WRITE

_RDHUP: Final[int] = select.POLLRDHUP if hasattr(select, "POLLRDHUP") else 0
# Urgent data: Linux drops this level when a read passes the mark, the BSDs keep it for a reader at the mark.
_PRI: Final[int] = select.POLLPRI if sys.platform == "linux" else 0
_READ_EVENTS: Final = select.POLLIN | _PRI | _RDHUP
_EVENTS: Final = (0, _READ_EVENTS, select.POLLOUT, _READ_EVENTS | select.POLLOUT)  # indexed by READ | WRITE


class PollPoller:
    """See Poller. Its cost grows with the number of armed files, at each wait."""

    __slots__ = ("_armed", "_closed", "_lock", "_poll", "_waits")

    name: ClassVar[str] = "poll"
    edge_triggered: ClassVar[bool] = False
    READABLE: ClassVar[int] = _READ_EVENTS | select.POLLHUP | select.POLLERR
    WRITABLE: ClassVar[int] = select.POLLOUT | select.POLLHUP | select.POLLERR
    HANGUP: ClassVar[int] = _RDHUP | select.POLLHUP
    one_shot: ClassVar[frozenset[int]] = frozenset()
    INVALID: ClassVar[int] = select.POLLNVAL
    MAX_EVENTS: ClassVar[int] = sys.maxsize  # a wait reports everything

    def __init__(self) -> None:
        self._poll = select.poll()
        self._armed: dict[int, tuple[int, int]] = {}  # fd -> interest, the wait during which it was armed
        self._waits = 0
        self._lock = RLock()
        self._closed = False

    def arm(self, fd: int, interest: int, armed: int) -> None:
        self._check_open()
        with self._lock:
            entry = self._armed.get(fd)
            if entry is not None:
                interest |= entry[0]
            self._poll.register(fd, _EVENTS[interest])
            # The stamp is read after registering: at worst one wait too many passes the entry over.
            self._armed[fd] = (interest, self._waits)

    def disarm(self, fd: int, interest: int) -> None:
        with self._lock:
            entry = self._armed.get(fd)
            if entry is not None:
                self._keep(fd, entry[0] & ~interest, entry[1])

    def forget(self, fd: int, armed: int) -> None:
        with self._lock:
            self._drop(fd)

    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        self._check_open()
        self._waits = this = self._waits + 1
        if timeout is None:
            events = self._poll.poll(None)
        elif timeout <= 0.0:
            events = self._poll.poll(0)
        else:
            events = self._poll.poll(min(timeout, LONGEST_WAIT) * 1000.0)
        return self._one_shot(events, this) if events else events

    def close(self) -> None:
        # Without the lock: in a forked child a thread that does not exist there may hold it.
        self._closed = True
        self._armed = {}
        self._poll = select.poll()

    def fileno(self) -> int:
        return -1

    def _one_shot(self, events: list[tuple[int, int]], this: int) -> list[tuple[int, int]]:
        """Drop what is reported; leave out what is about another file than the one armed now."""
        reported = []
        with self._lock:
            for fd, bits in events:
                entry = self._armed.get(fd)
                if entry is None:
                    self._drop(fd)
                    continue
                interest, armed_during = entry
                if armed_during >= this:
                    continue
                if bits & self.INVALID:
                    interest = 0
                if bits & self.READABLE:
                    interest &= ~READ
                if bits & self.WRITABLE:
                    interest &= ~WRITE
                self._keep(fd, interest, armed_during)
                reported.append((fd, bits))
        return reported

    def _keep(self, fd: int, interest: int, armed_during: int) -> None:
        if interest:
            self._armed[fd] = (interest, armed_during)
            self._poll.register(fd, _EVENTS[interest])
        else:
            self._drop(fd)

    def _drop(self, fd: int) -> None:
        self._armed.pop(fd, None)
        try:
            self._poll.unregister(fd)
        except KeyError:
            pass

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("I/O operation on closed poll poller")
