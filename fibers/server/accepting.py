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
  a client that is turned away knows more than one that waits. It is said in the log once for each such time.
* Who is not wanted now (the service has no `room`) stays in the kernel's queue, which is where waiting costs least.
* What is in the queue of a listener as it is closed is reset: these connections are accepted before. While clients go on
  coming that has no end, so a full queue's worth is enough.
"""

import errno
import logging
import os
from typing import Final

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

    __slots__ = ("_listener", "_pause", "_reserve", "_service", "_waiting", "accepted", "name", "turned_away")

    def __init__(self, listener: socket, service: Service, name: str = "") -> None:
        self._listener = listener
        self._service = service
        self._waiting = Outside()
        self._pause = 0.0
        self._reserve = _spare()
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
            if self._pause:
                self._recovered()
            self.accepted += 1
            service.take(sock, address)
            if not self.accepted % BURST:
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
        if self._reserve >= 0:
            os.close(self._reserve)
            self._reserve = -1

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
        if self._service.give_back():
            self._pause = self._pause or FIRST_PAUSE
            yield_now()
            return
        if self._pause == LONGEST_PAUSE and error.errno in _DESCRIPTORS:
            self._turn_away()
        self._pause = min(self._pause * 2 or FIRST_PAUSE, LONGEST_PAUSE)
        sleep(self._pause)

    def _turn_away(self) -> None:
        """Accept and close those who wait, with the descriptor that was kept for this."""
        timeout = self._listener.gettimeout()
        self._listener.settimeout(0.0)
        try:
            for _ in range(BACKLOG):
                if self._reserve < 0:
                    break
                os.close(self._reserve)
                self._reserve = -1
                try:
                    self._listener.accept()[0].close()
                    self.turned_away += 1
                except OSError as error:
                    if error.errno not in _PASSING:
                        break
                finally:
                    self._reserve = _spare()
        finally:
            self._listener.settimeout(timeout)
            if self._reserve < 0:
                self._reserve = _spare()

    def _recovered(self) -> None:
        _log.warning("accepting connections on %s again; %d were turned away", self.name, self.turned_away)
        self._pause = 0.0
        if self._reserve < 0:
            self._reserve = _spare()

    def __repr__(self) -> str:
        return f"<Acceptor of {self.name}, {self.accepted} accepted>"


def _spare() -> int:
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1  # taken by somebody else in the process


def name_of(address: object) -> str:
    """An address as people write it."""
    if isinstance(address, tuple):
        return f"[{address[0]}]:{address[1]}" if ":" in str(address[0]) else f"{address[0]}:{address[1]}"
    return repr(address) if isinstance(address, bytes) else str(address) or "a unix socket"
