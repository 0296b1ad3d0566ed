"""UDP: a fiber for each datagram, and a bound on how many.

Facts, and what follows:

* Datagrams are no connections: what is not received when the kernel's buffer is full is dropped, and the sender has to
  know how to live with that. So a server that has as many handlers at work as it may have receives nothing meanwhile.
* One edge may stand for many datagrams; they are received in bursts, as connections are.
* On Linux the error of an earlier send (a client is gone: ECONNREFUSED) may be told by the next receive, on connected
  sockets and where the network says so. That is nobody's trouble here.
* An answer that cannot be sent now waits, in its handler's fiber, until there is room.
"""

import errno
import logging
from collections.abc import Callable
from typing import Any, Final

from ..core.fiber import Fiber
from ..core.runtime import spawn, yield_now
from ..core.scheduler import get_scheduler
from ..io.socket import socket
from ..threads.completion import Outside
from .accepting import BURST, name_of
from .handlers import Handlers
from .service import Changed

_log: Final = logging.getLogger("fibers.server")

#: Bytes that a datagram has at most.
LARGEST: Final = 65_535

_PASSING: Final = frozenset(
    (errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EPERM)
)


class Datagrams(Handlers):
    """The service of a UDPServer in one loop."""

    __slots__ = ("_most",)

    def __init__(self, changed: Changed, handler: Callable[[Any, Any], Any], most: int) -> None:
        super().__init__(changed, handler)
        self._most = most

    def room(self) -> bool:
        """See Service."""
        return len(self._working) < self._most

    def take(self, sock: socket, address: Any) -> None:
        """See Service. There are no connections."""
        raise TypeError("a UDP server takes datagrams")

    def receive(self, sock: socket, data: bytes, address: Any) -> None:
        """A datagram has come."""
        self.begin(address, self._serve, sock, data, address)

    def _serve(self, sock: socket, data: bytes, address: Any) -> None:
        try:
            answer = self._handler(data, address)
            if answer is not None:
                sock.sendto(answer, address)
        except Exception:
            self.complain(address)

    def _left(self, fiber: Any) -> None:
        full = len(self._working) >= self._most
        super()._left(fiber)
        if full:
            self._changed()


class Receiver:
    """Receives datagrams on one socket and hands them to its service: what an Acceptor is for connections."""

    __slots__ = ("_closing", "_service", "_sock", "_waiting", "name", "received")

    def __init__(self, sock: socket, service: Datagrams, name: str = "") -> None:
        self._sock = sock
        self._service = service
        self._waiting = Outside()
        self.name = name or name_of(sock.getsockname())
        self.received = 0

    def run(self) -> None:
        """Receive until the socket is closed. To be run in a fiber of the service's thread."""
        sock, service = self._sock, self._service
        while sock.fileno() >= 0:
            if not service.room():
                self._wait_for_room()
                continue
            try:
                data, address = sock.recvfrom(LARGEST)
            except OSError as error:
                if sock.fileno() < 0:
                    break
                if error.errno not in _PASSING:
                    raise
                continue
            self.received += 1
            service.receive(sock, data, address)
            if not self.received % BURST:
                yield_now()

    def look_again(self) -> None:
        """There may be room now. Any thread, runtime code or not."""
        if self._waiting:
            self._waiting.wake_all()

    def drain(self) -> None:
        """Receive what is there. The socket is closed by the share, when the answers have been sent."""
        sock, service = self._sock, self._service
        sock.settimeout(0.0)
        try:
            while service.room():
                data, address = sock.recvfrom(LARGEST)
                self.received += 1
                service.receive(sock, data, address)
        except OSError:
            pass  # BlockingIOError: that was all
        sock.settimeout(None)

    def leave(self) -> None:
        """Receive no more; what is there is left to others. The socket is closed when no answer needs it any more."""
        spawn(self._close_after, self._service.at_work())

    def _close_after(self, handlers: list[Fiber[Any]]) -> None:
        for handler in handlers:
            handler.join()
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

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

    def __repr__(self) -> str:
        return f"<Receiver of {self.name}, {self.received} received>"
