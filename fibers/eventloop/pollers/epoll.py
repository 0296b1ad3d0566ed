"""epoll(7), edge-triggered (Linux, Android).

Facts, checked on Linux 6.18, and what follows:

* One registration serves for life: with EPOLLET an undrained socket raises a new event at the next arrival, a
  partial read raises none. So ADD at the first wait, MOD when the other direction first waits, DEL before
  close.
* ADD and MOD report what is ready at that moment, so nothing is missed between a would-block and the
  registration. MOD reports it for both directions, once more: one spurious edge in the life of a file.
* The two directions are not armed together: with IN|OUT every read of the peer of a unix socket raises OUT,
  and every arrival reports IN|OUT.
* The kernel knows a registration by (number, open file). After close(2) with a living dup() the number
  reports on, and DEL says EBADF: nobody can stop that but the dup's end, hence "DEL before close". If then
  dup2() brings the same file back under the same number, ADD says EEXIST: the old registration is alive, and
  MOD takes it over.
* ADD of a regular file, a directory or /dev/null says EPERM: they never block. The caller knows what that
  means.
* RDHUP tells the peer's shutdown(SHUT_WR) apart from data. PRI must be asked for: a read stops at the urgent
  mark.
* epoll_wait counts milliseconds and CPython rounds up, so a wait is never early and takes up to a millisecond
  too long (0.2 ms asked, 1.1 ms taken). Below zero means for ever there, so that zero must be kept apart from
  it here.
"""

import errno
from select import EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP, epoll
from typing import ClassVar, Final

from . import LONGEST_WAIT

_READ_EVENTS: Final = EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLET
_WRITE_EVENTS: Final = EPOLLOUT | EPOLLET
_EVENTS: Final = (0, _READ_EVENTS, _WRITE_EVENTS, _READ_EVENTS | _WRITE_EVENTS)  # indexed by READ | WRITE
_GONE: Final = frozenset((errno.ENOENT, errno.EBADF, errno.EPERM))
_MAX_EVENTS: Final = 1023  # CPython's own default; 64 would cost as much per call, and more calls


class EpollPoller:
    """See Poller. The kernel does its own locking: every verb is safe beside a wait."""

    __slots__ = ("_epoll", "_poll")

    name: ClassVar[str] = "epoll"
    edge_triggered: ClassVar[bool] = True
    READABLE: ClassVar[int] = EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR
    WRITABLE: ClassVar[int] = EPOLLOUT | EPOLLHUP | EPOLLERR
    # PRI too: a read stops at the urgent mark with data behind it, so from then on a short read proves nothing.
    HANGUP: ClassVar[int] = EPOLLRDHUP | EPOLLHUP | EPOLLPRI
    one_shot: ClassVar[frozenset[int]] = frozenset()
    INVALID: ClassVar[int] = 0
    MAX_EVENTS: ClassVar[int] = _MAX_EVENTS

    def __init__(self) -> None:
        self._epoll = epoll()
        self._poll = self._epoll.poll

    def arm(self, fd: int, interest: int, armed: int) -> None:
        events = _EVENTS[interest | armed]
        if armed:
            self._epoll.modify(fd, events)
            return
        try:
            self._epoll.register(fd, events)
        except FileExistsError:
            self._epoll.modify(fd, events)

    def disarm(self, fd: int, interest: int) -> None:
        pass

    def forget(self, fd: int, armed: int) -> None:
        if not armed:
            return
        try:
            self._epoll.unregister(fd)
        except OSError as error:
            if error.errno not in _GONE:
                raise

    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        if timeout is None:
            return self._poll(None, _MAX_EVENTS)
        if timeout <= 0.0:
            return self._poll(0, _MAX_EVENTS)
        if timeout > LONGEST_WAIT:
            timeout = LONGEST_WAIT
        return self._poll(timeout, _MAX_EVENTS)

    def close(self) -> None:
        self._epoll.close()

    def fileno(self) -> int:
        return -1 if self._epoll.closed else self._epoll.fileno()
