"""The outer half of a connection: what goes out, how it waits without a fiber, and how it ends.

Facts, and what follows:

* Most connections are idle most of the time, and some never finish what they began to say. Neither may cost a fiber, or a
  thousand slow clients are a thousand stacks. So the connection itself waits for its file (standby.py), and a fiber is made
  of it when bytes come, or when there is room for more.
* A client that reads slowly must not hold a handler whose work is done. What is left of a finished response is kept, and the
  connection waits to be written.
* A server that closes while the client still sends makes the kernel answer with a reset, and that may destroy the response
  on its way: the client never learns why it was refused. So after an error the writing half is closed first, and what
  comes in is thrown away for a moment (`linger`).

What is said on it is connection.py's matter; its state, and the time that it has in that state, are the hub's books.
"""

import errno
import sys
from abc import abstractmethod
from socket import MSG_DONTWAIT, MSG_PEEK, SHUT_WR
from typing import Any, Final

from ..core.fiber import Fiber
from ..core.standby import Standby
from ..errors import ClosedError
from ..eventloop.waiter import CLOSED, TIMED_OUT
from ..io.operations import recv_now, send_now
from ..io.socket import socket
from ..io.state import state_of
from ..io.waiting import stand_by, stand_down
from .census import ACCEPTED, CLOSING, HEAD, KEEP_ALIVE
from .errors import ClientGoneError
from .hub import Hub

#: Bytes asked for in one receive.
RECEIVE: Final = 65_536
#: Errors that say no more than that the client is gone.
_GONE: Final = (errno.ENOTCONN, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT)


class Line(Standby):
    """See the module's text. For the thread of its hub."""

    __slots__ = ("_data", "_host", "_hub", "_io", "_left", "_lingering", "_port", "sock", "state")

    def __init__(self, hub: Hub, sock: socket, address: Any) -> None:
        super().__init__()
        self.sock = sock
        # An address as a tuple would be a tenth of an idle connection; the host is the same object for all of one client.
        if isinstance(address, tuple):
            self._host, self._port = sys.intern(address[0]), address[1]
        else:
            self._host, self._port = str(address or ""), 0
        self.state = ACCEPTED
        self._hub = hub
        self._io = state_of(sock)
        self._data: bytes | bytearray = b""  # has come, and has not been understood
        self._left: list[memoryview] | None = None  # of a finished response, has not gone out
        self._lingering = False

    @property
    def address(self) -> tuple[str, int]:
        """The client's: host and port, or the path of a unix socket (mostly empty) and 0."""
        return self._host, self._port

    @abstractmethod
    def go_on(self) -> None:
        """Something has come, or the last response has gone out: do what can be done now. In a fiber."""

    @abstractmethod
    def came_too_late(self) -> None:
        """The time for the head of a request is up. In a fiber."""

    # -- waiting without a fiber ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Wait for the first request."""
        self._hub.census.enter(self, ACCEPTED)
        self._io.timeout = self._hub.settings.body_timeout
        if not stand_by(self._io, self._io.reading, self):
            self.resume()

    def embody(self) -> Fiber[Any]:
        hub = self._hub
        return Fiber(hub.scheduler, self._run, (), hub.context.copy(), hub.root, Line.embody.__code__, 0)

    def resume(self) -> None:
        """Go on in a fiber, without waiting for the file."""
        fiber = self.embody()
        self._hub.scheduler.fibers.add(fiber)
        self._hub.scheduler.wake(fiber)

    def _run(self) -> None:
        """What a fiber of this connection does: as much as can be done now."""
        for direction in (self._io.reading, self._io.writing):
            if direction.holder is self:
                direction.release()
        try:
            if self.outcome is CLOSED:
                self._forget()
            elif self.outcome is TIMED_OUT:
                self.came_too_late()
            elif self._left is not None:
                if self.write_left():
                    self.go_on()
            elif self._lingering:
                self.linger()
            else:
                self.go_on()
        except (ClosedError, ConnectionError, TimeoutError):
            self.drop()
        except OSError as error:
            self.drop()
            if error.errno not in _GONE:
                raise
        except BaseException:
            self.drop()
            raise

    def timed_out(self) -> None:
        if self.state == HEAD and stand_down(self._io.reading, self):
            self.outcome = TIMED_OUT
            self.resume()
        else:
            self.drop()

    # -- writing ----------------------------------------------------------------------------------------------------------

    def send(self, parts: list[bytes], last: bool) -> None:
        """Send. `last`: nothing follows, so what does not go out at once may go out later.

        Raises ClientGoneError if the client is gone, or takes nothing for too long.
        """
        try:
            if self._left is None:
                data = parts[0] if len(parts) == 1 else b"".join(parts)
                sent = send_now(self.sock, data)
                if sent == len(data):
                    return
                self._left = [memoryview(data)[sent:]]
            else:
                self._left += map(memoryview, parts)
            if not last:
                self._send_left()
        except ConnectionError as error:
            self._left = None
            raise ClientGoneError(f"the client is gone: {error}") from error

    def _send_left(self) -> None:
        """Wait until everything has gone out, in the fiber of the handler."""
        left, self._left = self._left, None
        settings = self._hub.settings
        self._io.timeout = settings.write_timeout
        try:
            for part in left or ():
                while part:
                    part = part[self.sock.send(part) :]
        except TimeoutError as late:
            if hasattr(late, "scope"):
                raise  # a deadline of the handler's own
            raise ClientGoneError(f"the client has taken nothing for {settings.write_timeout} seconds") from late
        finally:
            self._io.timeout = settings.body_timeout

    def write_left(self) -> bool:
        """Write what is left of a finished response, as far as the system takes it; the rest waits without a fiber.

        True if all has gone out and another request can follow now.
        """
        while self._left:
            sent = send_now(self.sock, self._left[0])
            if sent == len(self._left[0]):
                del self._left[0]
            elif sent:
                self._left[0] = self._left[0][sent:]
                self._hub.census.again(self)
            elif stand_by(self._io, self._io.writing, self):
                return False
        self._left = None
        if self._lingering:
            self.linger()
            return False
        return True

    # -- the end ----------------------------------------------------------------------------------------------------------

    def quiet(self) -> bool:
        """Has the client sent nothing that has not been read? (Then closing cannot reset the connection.)"""
        try:
            return not self.sock.recv(1, MSG_PEEK | MSG_DONTWAIT)
        except BlockingIOError:
            return True

    def linger(self) -> None:
        """The response has gone out: tell the client that it was the last one, and throw away what it still sends."""
        if self.state != CLOSING:
            self._hub.census.change(self, CLOSING)
            self.sock.shutdown(SHUT_WR)
        while True:
            received = recv_now(self.sock, RECEIVE)
            if received is None:
                if stand_by(self._io, self._io.reading, self):
                    return
            elif not received:
                self.drop()
                return

    def shed(self) -> bool:
        if self.state != KEEP_ALIVE or not stand_down(self._io.reading, self):
            return False
        if not self.quiet():
            self.resume()
            return False
        self.drop()
        return True

    def drop(self) -> None:
        """Close the connection. A second call does nothing."""
        self._forget()
        stand_down(self._io.reading, self)
        stand_down(self._io.writing, self)
        self.sock.close()

    def _forget(self) -> None:
        self._data, self._left = b"", None
        self._hub.leave(self)
