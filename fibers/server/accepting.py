"""Accepting: one fiber for each listener, as fast as connections come, and no faster than they are wanted.

Facts, and what follows:

* One edge may stand for a thousand connections. They are accepted in a row, because each costs one call that way; after
  a burst of them the other fibers get their turn.
* A connection that was reset in the queue shows as an error of `accept` (ECONNABORTED, and on Linux whatever the network
  had to say). That is not the listener's trouble: go on.
* When there are no descriptors or no memory left (EMFILE, ENFILE, ENOBUFS, ENOMEM), `accept` fails at once and the
  connection stays in the queue. Trying again at once burns the CPU; giving up loses the server. So the service is asked
  to let go of something; failing that, there is a pause, of 10 ms at first and up to a second. It is said in the log once
  for each such time, however long it lasts.
* Who is not wanted now (the service has no `room`) stays in the kernel's queue, which is where waiting costs least.
"""

import errno
import logging
from typing import Any, Final, Protocol

from ..core.runtime import sleep, yield_now
from ..core.scheduler import get_scheduler
from ..core.waitqueue import WaitQueue
from ..io.socket import socket

_log: Final = logging.getLogger("fibers.server")

#: Connections accepted in a row.
BURST: Final = 64
#: Seconds of the first pause when something has run out, and of the longest.
FIRST_PAUSE: Final = 0.01
LONGEST_PAUSE: Final = 1.0

_EXHAUSTED: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
#: Errors of the connection, or of the network below it.
_PASSING: Final = frozenset(
    getattr(errno, name)
    for name in (
        "ECONNABORTED", "EPERM", "EPROTO", "ENETDOWN", "ENOPROTOOPT", "EHOSTDOWN", "ENONET", "EHOSTUNREACH", "EOPNOTSUPP",
        "ENETUNREACH", "ECONNRESET", "ETIMEDOUT",
    )
    if hasattr(errno, name)
)  # fmt: skip


class Service(Protocol):
    """Whom connections are accepted for. Everything here is called in the thread of the acceptor."""

    def room(self) -> bool:
        """Is another connection wanted? When that changes, the service calls `Acceptor.look_again`."""

    def take(self, sock: socket, address: Any) -> None:
        """A new connection, which now belongs to the service. Returns at once."""

    def give_back(self) -> bool:
        """Descriptors have run out: close something idle, if there is anything. True if so."""


class Acceptor:
    """Accepts connections on one listener and hands them to a service. See the module's text."""

    __slots__ = ("_listener", "_pause", "_service", "_waiting", "accepted")

    def __init__(self, listener: socket, service: Service) -> None:
        self._listener = listener
        self._service = service
        self._waiting = WaitQueue()
        self._pause = 0.0
        self.accepted = 0

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
            if self._pause:
                _log.warning("accepting connections on %s again", _name(listener))
                self._pause = 0.0
            self.accepted += 1
            service.take(sock, address)
            if not self.accepted % BURST:
                yield_now()

    def look_again(self) -> None:
        """There may be room now. In the acceptor's thread, runtime code or not."""
        if self._waiting:
            self._waiting.wake_all()

    def drain(self) -> None:
        """Take what is in the queue of the listener, whether there is room or not, and close it."""
        listener = self._listener
        listener.settimeout(0.0)
        while True:
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno not in _PASSING:
                    break
                continue
            self.accepted += 1
            self._service.take(sock, address)
        listener.close()

    def _wait_for_room(self) -> None:
        scheduler = get_scheduler()
        me = scheduler.current
        if me is None:
            raise scheduler.refuse()
        try:
            self._waiting.add(me, self)
            scheduler.park(me, self._waiting)
        except BaseException:
            self._waiting.abandon(me)
            raise

    def _exhausted(self, error: OSError) -> None:
        if not self._pause:
            _log.error("cannot accept connections on %s for now: %s", _name(self._listener), error.strerror)
        if self._service.give_back():
            self._pause = self._pause or FIRST_PAUSE
            yield_now()
            return
        self._pause = min(self._pause * 2 or FIRST_PAUSE, LONGEST_PAUSE)
        sleep(self._pause)

    def __repr__(self) -> str:
        return f"<Acceptor of {_name(self._listener)}, {self.accepted} accepted>"


def _name(listener: socket) -> str:
    address = listener.getsockname() if listener.fileno() >= 0 else "a closed listener"
    return f"{address[0]} port {address[1]}" if isinstance(address, tuple) else str(address)
