"""Accepting: one fiber for each listener, as fast as connections come, and no faster than they are wanted.

Facts, and what follows:

* One edge may stand for a thousand connections. They are accepted in a row, because each costs one call that way; after
  a burst of them the other fibers get their turn.
* A connection that was reset in the queue shows as an error of `accept` (ECONNABORTED, and on Linux whatever the network
  had to say). That is not the listener's trouble: go on.
* When there are no descriptors or no memory left (EMFILE, ENFILE, ENOBUFS, ENOMEM), `accept` fails at once and the
  connection stays in the queue. Trying again at once burns the CPU; giving up loses the server. So the service is asked
  to let go of something; failing that, there is a pause, of 10 ms at first and up to a second. If that lasts, those in
  the queue are told: a descriptor kept in reserve is closed to accept one of them and close it, again and again, because
  a client that is turned away knows more than one that waits. It is said in the log once for each such time, which is
  over when nothing of the kind has happened for a while: connections that end make room for a moment only.
* Another thread may take the descriptor in that moment. So there is one reserve for the process, with a lock; and who has
  accepted a connection while the reserve is missing gives that up to have it again.
* Who is not wanted now (the service has no `room`) stays in the kernel's queue, which is where waiting costs least.
* What is in the queue of a listener as it is closed is reset: these connections are accepted before. While clients go on
  coming that has no end, so a full queue's worth is enough.
"""

import errno
import logging
import os
import threading
from typing import ClassVar, Final

from ..core.runtime import sleep, yield_now
from ..core.scheduler import get_scheduler
from ..io.socket import socket
from ..threads.completion import Outside
from .listeners import BACKLOG
from .service import Service

_log: Final = logging.getLogger("fibers.server")

#: Connections accepted in a row.
BURST: Final = 64
#: Seconds of the first pause when something has run out, and of the longest.
FIRST_PAUSE: Final = 0.01
LONGEST_PAUSE: Final = 1.0
#: Seconds without trouble after which it is over.
QUIET: Final = 5.0

_EXHAUSTED: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
#: Of these, what a descriptor in reserve helps against.
_DESCRIPTORS: Final = frozenset((errno.EMFILE, errno.ENFILE))
#: Errors of the connection, or of the network below it.
_PASSING: Final = frozenset(
    getattr(errno, name)
    for name in (
        "ECONNABORTED", "EPERM", "EPROTO", "ENETDOWN", "ENOPROTOOPT", "EHOSTDOWN", "ENONET", "EHOSTUNREACH", "EOPNOTSUPP",
        "ENETUNREACH", "ECONNRESET", "ETIMEDOUT",
    )
    if hasattr(errno, name)
)  # fmt: skip


class Acceptor:
    """Accepts connections on one listener and hands them to a service. See the module's text."""

    __slots__ = ("_listener", "_pause", "_service", "_troubled_at", "_waiting", "accepted", "name", "turned_away")

    #: Connections accepted in a row.
    burst: ClassVar[int] = BURST

    def __init__(self, listener: socket, service: Service, name: str = "") -> None:
        self._listener = listener
        self._service = service
        self._waiting = Outside()
        self._pause = 0.0
        self._troubled_at = 0.0
        _reserve.join(self)
        self.name = name or name_of(listener.getsockname())
        self.accepted = 0
        self.turned_away = 0

    def run(self) -> None:
        """Accept until the listener is closed. To be run in a fiber of the service's thread."""
        listener, service = self._listener, self._service
        while listener.fileno() >= 0:
            if not service.room():
                self._wait_for_room()
                continue
            try:
                sock, address = listener.accept()
            except OSError as error:
                if listener.fileno() < 0:
                    break
                if error.errno in _EXHAUSTED:
                    self._exhausted(error)
                elif error.errno not in _PASSING:
                    raise
                continue
            if _reserve.troubled and _reserve.restore(sock):
                self.turned_away += 1
                continue
            if self._pause:
                self._relax()
            self.accepted += 1
            service.take(sock, address)
            if not self.accepted % self.burst:
                yield_now()

    def look_again(self) -> None:
        """There may be room now. Any thread, runtime code or not."""
        if self._waiting:
            self._waiting.wake_all()

    def drain(self) -> None:
        """Take what is in the queue of the listener, whether there is room or not, and close it."""
        listener, service = self._listener, self._service
        listener.settimeout(0.0)
        for _ in range(BACKLOG):
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno in _PASSING or (error.errno in _EXHAUSTED and service.give_back()):
                    continue
                _log.error("not all who waited for %s could be accepted at its end: %s", self.name, error.strerror)
                break
            self.accepted += 1
            service.take(sock, address)
        self.close()

    def leave(self) -> None:
        """Take no more; the listener lives on elsewhere, and with it what is in its queue."""
        self.close()

    def close(self) -> None:
        """Close the listener. What is in its queue is lost if this was the last descriptor of it."""
        self._listener.close()
        _reserve.leave(self)

    def _wait_for_room(self) -> None:
        scheduler = get_scheduler()
        me = scheduler.current
        if me is None:
            raise scheduler.refuse()
        try:
            self._waiting.add(me, self)
            if self._service.room() and self._waiting.abandon(me):
                return
            scheduler.park(me, self._waiting)
        except BaseException:
            self._waiting.abandon(me)
            raise

    def _exhausted(self, error: OSError) -> None:
        if not self._pause:
            _log.error("cannot accept connections on %s for now: %s", self.name, error.strerror)
        self._troubled_at = get_scheduler().loop.clock()
        if self._service.give_back():
            self._pause = self._pause or FIRST_PAUSE
            yield_now()
            return
        if self._pause == LONGEST_PAUSE and error.errno in _DESCRIPTORS:
            self._turn_away()
        self._pause = min(self._pause * 2 or FIRST_PAUSE, LONGEST_PAUSE)
        sleep(self._pause)

    def _turn_away(self) -> None:
        """Accept and close those who wait, with the descriptor that is kept for this."""
        listener = self._listener
        timeout = listener.gettimeout()
        listener.settimeout(0.0)
        try:
            for _ in range(BACKLOG):
                if not _reserve.spend(listener):
                    break
                self.turned_away += 1
        finally:
            listener.settimeout(timeout)

    def _relax(self) -> None:
        """A connection has been accepted, although there has been trouble."""
        if get_scheduler().loop.clock() >= self._troubled_at + QUIET:
            _log.warning("accepting connections on %s again; %d were turned away", self.name, self.turned_away)
            self._pause = 0.0
        else:
            self._pause = max(self._pause / 2, FIRST_PAUSE)

    def __repr__(self) -> str:
        return f"<Acceptor of {self.name}, {self.accepted} accepted>"


class _Reserve:
    """A descriptor that can be done without. Any thread."""

    __slots__ = ("_fd", "_lock", "_users", "troubled")

    def __init__(self) -> None:
        self._fd = -1
        self._users: set[Acceptor] = set()
        self.begin_anew()

    def begin_anew(self) -> None:
        """Also in a forked child, where nobody holds the lock."""
        self._lock = threading.Lock()
        self.troubled = False  # it is being used, or has been lost

    def join(self, user: Acceptor) -> None:
        """An acceptor needs it."""
        with self._lock:
            self._users.add(user)
            self._fill()

    def leave(self, user: Acceptor) -> None:
        """It does so no longer. A second call does nothing."""
        with self._lock:
            self._users.discard(user)
            if not self._users and self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def spend(self, listener: socket) -> bool:
        """Turn one connection away with it. False: there is none, or no reserve."""
        with self._lock:
            if self._fd < 0 and not self._fill():
                return False
            self.troubled = True
            os.close(self._fd)
            self._fd = -1
            try:
                listener.accept()[0].close()
            except OSError as error:
                return error.errno in _PASSING
            finally:
                self.troubled = not self._fill()
            return True

    def restore(self, sock: socket) -> bool:
        """A connection was accepted while there was trouble: give it up if there is no reserve. True if so."""
        with self._lock:
            if self._fd >= 0 or self._fill():
                return False
            sock.close()
            self._fill()
            return True

    def _fill(self) -> bool:
        if self._fd < 0:
            try:
                self._fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                pass  # taken by somebody else in the process
        self.troubled = self._fd < 0
        return not self.troubled


_reserve: Final = _Reserve()
os.register_at_fork(after_in_child=_reserve.begin_anew)


def name_of(address: object) -> str:
    """An address as people write it."""
    if isinstance(address, tuple):
        return f"[{address[0]}]:{address[1]}" if ":" in str(address[0]) else f"{address[0]}:{address[1]}"
    return repr(address) if isinstance(address, bytes) else str(address) or "a unix socket"
