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
import socket as socket_module
import sys
from abc import abstractmethod
from socket import MSG_DONTWAIT, MSG_PEEK, SHUT_WR
from typing import Any, ClassVar, Final

from ..core.fiber import Fiber
from ..core.runtime import yield_now
from ..core.standby import Standby
from ..errors import ClosedError
from ..eventloop.waiter import CLOSED, TIMED_OUT
from ..io.operations import recv_now, send_now
from ..io.socket import socket
from ..io.state import state_of
from ..io.waiting import stand_by, stand_down
from .census import ACCEPTED, CLOSING, HEAD, KEEP_ALIVE
from .errors import ClientGoneError
from .filepart import FilePart
from .head import Head
from .hub import Hub
from .origin import Origin

#: Bytes asked for in one receive.
RECEIVE: Final = 65_536
#: A body of that many bytes is not copied to go out with its head.
LARGE: Final = 65_536
#: Where there is no such flag, a head and its file are two packets.
MSG_MORE: Final = getattr(socket_module, "MSG_MORE", 0)
#: Errors that say no more than that the client is gone.
_GONE: Final = (errno.ENOTCONN, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT)


class Line(Standby):
    """See the module's text. For the thread of its hub."""

    __slots__ = ("_data", "_host", "_hub", "_io", "_left", "_lingering", "_port", "fiber", "sock", "state")

    #: How the requests came.
    scheme: ClassVar[str] = "http"

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
        self._left: list[memoryview | FilePart] | None = None  # of a finished response, has not gone out
        self._lingering = False
        self.fiber: Fiber[Any] | None = None  # the one that is at work here

    @property
    def address(self) -> tuple[str, int]:
        """The client's: host and port, or the path of a unix socket (mostly empty) and 0."""
        return self._host, self._port

    def peer(self, head: Head) -> Origin:
        return Origin(self._host, self._port, self.scheme, head.host)

    def origin(self, head: Head) -> Origin:
        peer, forwarding = self.peer(head), self._hub.settings.forwarding
        return peer if forwarding is None else forwarding(peer, head)

    @abstractmethod
    def granted(self) -> None:
        """As the hub's member."""

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
        self.fiber = self._hub.scheduler.current
        try:
            if self.outcome is CLOSED:
                self._forget()
            elif self.outcome is TIMED_OUT:
                self.outcome = None
                if self.state == HEAD:
                    self.came_too_late()
                else:
                    self.finish()
            elif self._left is not None:
                if self.write_left():
                    self.go_on()
            elif self._lingering:
                self.linger()
            else:
                self.go_on()
        except (ClosedError, ConnectionError, TimeoutError, EOFError):
            self.drop()
        except OSError as error:
            self.drop()
            if error.errno not in _GONE:
                raise
        except BaseException:
            self.drop()
            raise
        finally:
            self.fiber = None

    def timed_out(self) -> None:
        io, scheduler = self._io, self._hub.scheduler
        if stand_down(io.reading, self) or stand_down(io.writing, self):
            self.outcome = TIMED_OUT
            scheduler.wake(self)  # type: ignore[arg-type] # it is embodied, as when bytes have come
        elif self.fiber is not None:
            self.drop()  # which ends what that is at: a handshake, or a flood after the end
        # else something has come in this very turn of the loop, and the time begins anew

    # -- writing ----------------------------------------------------------------------------------------------------------

    def send(self, parts: list[bytes], last: bool) -> None:
        """Send. `last`: nothing follows, so what does not go out at once may go out later.

        Raises ClientGoneError if the client is gone, or takes nothing for too long.
        """
        try:
            if self._left is None:
                if len(parts) == 2 and len(parts[1]) >= LARGE:
                    sent, data = self._send_both(parts), b""
                    if sent == len(parts[0]) + len(parts[1]):
                        return
                    cut = sent - len(parts[0])
                    self._left = [memoryview(parts[1])[cut:]] if cut >= 0 else [memoryview(part) for part in parts]
                    if cut < 0:
                        self._left[0] = memoryview(parts[0])[sent:]
                else:
                    data = parts[0] if len(parts) == 1 else b"".join(parts)
                    sent = send_now(self.sock, data)
                    if sent == len(data):
                        return
                    self._left = [memoryview(data)[sent:]]
            else:
                self._left += [memoryview(part) for part in parts]
            if not last:
                self._send_left()
        except ConnectionError as error:
            self.throw_away()
            raise ClientGoneError(f"the client is gone: {error}") from error

    def _send_both(self, parts: list[bytes]) -> int:
        """Head and large body in one system call, without a copy. How many bytes went out."""
        try:
            return self.sock.sendmsg(parts, (), MSG_DONTWAIT)
        except BlockingIOError:
            return 0

    def send_file(self, head: bytes, part: FilePart | None) -> None:
        """Send a head and a file. All of it may go out later: no handler is needed for that."""
        self._left = [memoryview(head)] if part is None else [memoryview(head), part]

    def _send_left(self) -> None:
        """Wait until everything has gone out, in the fiber of the handler."""
        left, self._left = self._left, None
        settings = self._hub.settings
        self._io.timeout = settings.write_timeout
        try:
            for part in left or ():
                if isinstance(part, memoryview):
                    self._send_all(part)
        except TimeoutError as late:
            if hasattr(late, "scope"):
                raise  # a deadline of the handler's own
            raise ClientGoneError(f"the client has taken nothing for {settings.write_timeout} seconds") from late
        finally:
            self._io.timeout = settings.body_timeout

    def _send_all(self, part: memoryview) -> None:
        while part:
            part = part[self.sock.send(part) :]

    def write_left(self) -> bool:
        """Write what is left of a finished response, as far as the system takes it; the rest waits without a fiber.

        True if all has gone out and another request can follow now.
        """
        while self._left:
            if self._write_some(self._left):
                self._hub.census.again(self)
                if self._left:
                    yield_now()  # whoever reads as fast as we write must not have the loop for himself
            elif stand_by(self._io, self._io.writing, self):
                return False
        self._left = None
        if self._lingering:
            self.linger()
            return False
        return True

    def _write_some(self, left: list[memoryview | FilePart]) -> bool:
        """Write some of what is left; False if nothing can be written now."""
        part = left[0]
        if isinstance(part, FilePart):
            direction = self._io.writing
            seen = direction.edges
            try:
                part.send(self.sock)
            except BlockingIOError:
                direction.drained = seen
                return False
            if not part.left:
                part.close()
                del left[0]
            return True
        if len(left) > 1 and MSG_MORE:  # the head of a file's: one packet with what follows
            try:
                sent = self.sock.send(part, MSG_DONTWAIT | MSG_MORE)
            except BlockingIOError:
                sent = send_now(self.sock, part)  # which notes that there is no room
        else:
            sent = send_now(self.sock, part)
        if sent == len(part):
            del left[0]
        else:
            left[0] = part[sent:]
        return sent > 0

    def throw_away(self) -> None:
        """Nothing of what is left will go out."""
        left, self._left = self._left, None
        for part in left or ():
            if isinstance(part, FilePart):
                part.close()

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
            self._say_goodbye()
            self.sock.shutdown(SHUT_WR)
        while True:
            received = recv_now(self.sock, RECEIVE)
            if received is None:
                if stand_by(self._io, self._io.reading, self):
                    return
            elif not received:
                self.drop()
                return
            else:
                yield_now()

    def _say_goodbye(self) -> None:
        """Whatever the protocol below wants to be said before the end. Waits for nothing."""

    def finish(self) -> None:
        """Everything has been said on both sides: close the connection properly."""
        self._say_goodbye()
        self.drop()

    def shed(self) -> bool:
        if self.state != KEEP_ALIVE or not stand_down(self._io.reading, self):
            return False
        if not self.quiet():
            self.resume()
            return False
        self.finish()
        return True

    def drop(self) -> None:
        """Close the connection. A second call does nothing."""
        self._forget()
        stand_down(self._io.reading, self)
        stand_down(self._io.writing, self)
        self.sock.close()

    def _forget(self) -> None:
        self._data = b""
        if self._left is not None:
            self.throw_away()
        self._hub.leave(self)
