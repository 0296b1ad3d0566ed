"""One connection: requests come in, are handled one after the other, and their responses go out.

Facts, and what follows:

* Most connections are idle most of the time, and some never finish what they began to say. Neither may cost a fiber, or a
  thousand slow clients are a thousand stacks. So the connection itself waits for its file (standby.py), and a fiber is made
  of it when bytes come. What has come of a request's head stays in the connection, and the fiber ends again, until the
  head is whole. Only then is a handler's place taken.
* The same holds at the other end. A client that reads slowly must not hold a handler whose work is done: what is left of a
  finished response is kept, and the connection waits to be written.
* A server that closes while the client still sends makes the kernel answer with a reset, and that may destroy the response
  on its way: the client never learns why it was refused. So after an error the writing half is closed first, and what
  comes in is thrown away for a moment (`linger`).
* After an error nothing is read as HTTP any more: where the next request would begin is not known.

The state of a connection, and the time that it has in it, are the hub's books (hub.py).
"""

import errno
import logging
from socket import MSG_DONTWAIT, MSG_PEEK, SHUT_WR
from typing import Any, Final

from ..cancel import timeout as time_limit
from ..errors import Cancelled, ClosedError, FiberKilled
from ..eventloop.waiter import CLOSED, TIMED_OUT
from ..fiber import Fiber
from ..io.operations import receive_now, send_now
from ..io.socket import socket
from ..io.state import state_of
from ..io.stream import Stream
from ..io.waiting import stand_by, stand_down
from ..runtime import yield_now
from ..standby import Standby
from .body import NO_BODY, Body, ChunkedSource, LengthSource
from .census import ACCEPTED, BODY, CLOSING, HEAD, KEEP_ALIVE, QUEUED, RUNNING, UPGRADED, WRITING
from .errors import ClientGoneError, RequestError
from .exchange import Exchange
from .head import Head, parse_head
from .hub import Hub

_log: Final = logging.getLogger("fibers.http")

#: Bytes asked for in one receive.
RECEIVE: Final = 65_536
#: An unread rest of a request's body up to this size (bytes) is read and dropped; a larger one costs the connection.
SKIPPED: Final = 65_536


class Connection(Standby):
    """See the module's text. For the thread of its hub."""

    __slots__ = (
        "_body_began",
        "_data",
        "_exchange",
        "_head",
        "_hub",
        "_io",
        "_left",
        "_lingering",
        "_raw",
        "_requests",
        "address",
        "sock",
        "state",
    )

    def __init__(self, hub: Hub, sock: socket, address: Any) -> None:
        super().__init__()
        self.sock = sock
        self.address = address
        self.state = ACCEPTED
        self._hub = hub
        self._io = state_of(sock)
        self._data: bytes | bytearray = b""  # has come, and has not been understood
        self._left: list[memoryview] | None = None  # of a finished response, has not gone out
        self._head: Head | None = None  # a request that waits for a handler
        self._exchange: Exchange | None = None
        self._raw: Stream | None = None  # below the body of the request
        self._body_began = 0.0
        self._requests = 0
        self._lingering = False

    # -- waiting without a fiber ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Wait for the first request."""
        self._hub.enter(self, ACCEPTED)
        self._io.timeout = self._hub.settings.body_timeout
        if not stand_by(self._io, self._io.reading, self):
            self._spawn()

    def embody(self) -> Fiber[Any]:
        hub = self._hub
        return Fiber(hub.scheduler, self._go_on, (), hub.context.copy(), hub.root, Connection.embody.__code__, 0)

    def _spawn(self) -> None:
        """A fiber for what needs no waiting."""
        fiber = self.embody()
        self._hub.scheduler.fibers.add(fiber)
        self._hub.scheduler.wake(fiber)

    def _go_on(self) -> None:
        """What a fiber of this connection does: as much as can be done now."""
        for direction in (self._io.reading, self._io.writing):
            if direction.holder is self:
                direction.release()
        try:
            if self.outcome is CLOSED:
                self._gone()
            elif self.outcome is TIMED_OUT:
                self._refuse(RequestError(408, "the head of the request did not come in time"))
            elif self._lingering:
                self._linger()
            elif self._left is not None:
                self._write_left()
            elif self._head is not None:
                head, self._head = self._head, None
                if self._handle(head):
                    self._serve()
            else:
                self._serve()
        except (ClosedError, ConnectionError, TimeoutError):
            self._drop()
        except OSError as error:
            if error.errno not in (errno.ENOTCONN, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT):
                self._drop()
                raise
            self._drop()
        except BaseException:
            self._drop()
            raise

    # -- reading requests -------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        """Serve requests until there is none, or the connection is over."""
        hub, io = self._hub, self._io
        pipelined = 0
        while True:
            data = self._data
            end = data.find(b"\r\n\r\n") if data else -1
            if end < 0:
                if data and self._too_long():
                    return
                reading = io.reading
                received = None if reading.edges == reading.drained else receive_now(self.sock, io, RECEIVE)
                if received is None:
                    if data:
                        hub.change(self, HEAD)
                    elif self._requests:
                        hub.change(self, KEEP_ALIVE)
                    if stand_by(io, io.reading, self):
                        return
                elif not received:
                    self._drop()
                    return
                elif data:
                    self._data = data = bytearray(data) if isinstance(data, bytes) else data
                    data += received
                else:
                    self._data = received
                continue
            try:
                if data.startswith(b"\r\n"):  # an empty line before a request is passed over, as the standard asks
                    self._data = bytes(data[2:])
                    if self._data.startswith(b"\r\n"):
                        raise RequestError(400, "empty lines in the place of a request")
                    continue
                head = parse_head(bytes(data[: end + 4]), hub.settings.limits)
            except RequestError as error:
                self._refuse(error)
                return
            self._data = bytes(data[end + 4 :])
            if not hub.begin(self):
                self._head = head
                hub.change(self, QUEUED)
                return
            if not self._handle(head):
                return
            pipelined += 1
            if pipelined >= hub.settings.max_pipelined:
                pipelined = 0
                yield_now()

    def _too_long(self) -> bool:
        """Is what has come too long for a head? Then it has been refused."""
        limits = self._hub.settings.limits
        if len(self._data) < min(limits.head, limits.line):
            return False
        if b"\r\n" not in self._data[: limits.line + 2]:
            self._refuse(RequestError(414, f"a request line of more than {limits.line} bytes"))
        elif len(self._data) >= limits.head:
            self._refuse(RequestError(431, f"a head of more than {limits.head} bytes"))
        else:
            return False
        return True

    # -- handling them ------------------------------------------------------------------------------------------------

    def run_queued(self) -> None:
        self._spawn()

    def _handle(self, head: Head) -> bool:
        """Have the handler answer a request. True if the connection can serve another one now."""
        hub = self._hub
        hub.change(self, RUNNING)
        hub.census.requests_total += 1
        self._requests += 1
        exchange = self._exchange = Exchange(self, head)
        try:
            self._call(exchange)
        finally:
            self._exchange = None
            hub.end()
        if self.state == UPGRADED:
            return False
        if not exchange.whole():
            self._drop()
            return False
        if not self._settle_body(exchange):
            self._lingering = True
        elif exchange.last_one:
            self._lingering = self._lingering or bool(self._data) or not self._quiet()
            if not self._lingering and self._left is None:
                self._drop()
                return False
        if self._left is not None:
            hub.change(self, WRITING)
            return self._write_left_now()
        if self._lingering:
            self._linger()
            return False
        return True

    def _call(self, exchange: Exchange) -> None:
        """The handler, and what becomes of its errors."""
        hub = self._hub
        seconds = hub.settings.handler_timeout
        try:
            if seconds is None:
                hub.handler(exchange)
            else:
                with time_limit(seconds):
                    hub.handler(exchange)
            if not exchange.started and exchange._plan is None:
                _log.error("the handler of %r has returned without a response", exchange.head)
                exchange.fail(500, "no response")
            elif not exchange.ended:
                exchange.end()
        except RequestError as error:
            self._lingering = True
            if not exchange.started:
                exchange.fail(error.status, error.reason)
        except (ClientGoneError, ClosedError):
            self._lingering = False
        except (Cancelled, FiberKilled):
            raise
        except Exception:
            _log.exception("the handler of %r has failed", exchange.head)
            if not exchange.started:
                exchange.fail(500, "the server has failed to answer")

    def _refuse(self, error: RequestError) -> None:
        """Answer what is no proper request, and hear no more."""
        _log.info("refused a request of %s: %s", self.address, error)
        self._requests += 1
        self._data = b""
        head = Head("GET", "*", (1, 1))
        self._hub.change(self, RUNNING)
        Exchange(self, head).fail(error.status, error.reason)
        self._lingering = True
        if self._left is not None:
            self._hub.change(self, WRITING)
            self._write_left_now()
        else:
            self._linger()

    # -- the body of a request ------------------------------------------------------------------------------------------

    def body_of(self, exchange: Exchange) -> Body:
        head = exchange.head
        if not head.chunked and not head.length:
            return NO_BODY
        unread, self._data = bytes(self._data), b""
        raw = self._raw = Stream(self.sock, unread)
        limit = self._hub.settings.max_body
        if limit is not None and head.length > limit:
            raise RequestError(413, f"a body of more than {limit} bytes")
        return Body(ChunkedSource(raw) if head.chunked else LengthSource(raw, head.length), self)

    def body_begins(self) -> None:
        exchange = self._exchange
        assert exchange is not None
        self._hub.change(self, BODY)
        self._body_began = self._hub.loop.clock()
        if exchange.head.expects_continue and not exchange.started:
            self.send([b"HTTP/1.1 100 Continue\r\n\r\n"], False)

    def body_grows(self, received: int) -> None:
        settings = self._hub.settings
        if settings.max_body is not None and received > settings.max_body:
            raise RequestError(413, f"a body of more than {settings.max_body} bytes")
        if settings.body_rate:
            took = self._hub.loop.clock() - self._body_began
            if took > settings.body_timeout and received < settings.body_rate * took:
                raise RequestError(408, f"a body of less than {settings.body_rate:g} bytes a second")

    def body_ends(self) -> None:
        self._hub.change(self, RUNNING)

    def _settle_body(self, exchange: Exchange) -> bool:
        """The request is answered: is its body over, so that another one can follow? A short rest is read and dropped."""
        head = exchange.head
        if not head.chunked and not head.length:
            return True
        if not exchange.body_begun:
            if head.expects_continue or head.chunked or head.length > SKIPPED or exchange.last_one:
                return False
            exchange.head.expects_continue = False
        body = exchange.body
        if not body.done:
            if head.chunked or exchange.last_one or head.length > SKIPPED:
                return False
            self._exchange = exchange
            try:
                body.read()
            finally:
                self._exchange = None
        raw, self._raw = self._raw, None
        if raw is not None:
            self._data = raw.detach()[1]
        return True

    # -- writing ----------------------------------------------------------------------------------------------------------

    def ends(self) -> bool:
        most = self._hub.settings.close_after
        exchange = self._exchange
        return (
            self._hub.stopping
            or exchange is None
            or not exchange.head.keep_alive
            or (most is not None and self._requests >= most)
        )

    def send(self, parts: list[bytes], last: bool) -> None:
        io, sock = self._io, self.sock
        if self._left is None:
            data = parts[0] if len(parts) == 1 else b"".join(parts)
            sent = send_now(sock, io, data)
            if sent == len(data):
                return
            self._left = [memoryview(data)[sent:]]
        else:
            self._left += map(memoryview, parts)
        if not last:
            left, self._left = self._left, None
            for part in left:
                sock.sendall(part)

    def _write_left_now(self) -> bool:
        """Write what is left of a finished response, as far as the system takes it; the rest waits without a fiber.

        True if all has gone out and another request can follow now.
        """
        while self._left:
            sent = send_now(self.sock, self._io, self._left[0])
            if sent == len(self._left[0]):
                del self._left[0]
            elif sent:
                self._left[0] = self._left[0][sent:]
                self._hub.again(self)
            elif stand_by(self._io, self._io.writing, self):
                return False
        self._left = None
        if self._lingering:
            self._linger()
            return False
        return True

    def _write_left(self) -> None:
        if self._write_left_now():
            self._serve()

    # -- the end ----------------------------------------------------------------------------------------------------------

    def _quiet(self) -> bool:
        """Has the client sent nothing that has not been read? (Then closing cannot reset the connection.)"""
        try:
            return not self.sock.recv(1, MSG_PEEK | MSG_DONTWAIT)
        except BlockingIOError:
            return True

    def _linger(self) -> None:
        """The response has gone out: tell the client that it was the last one, and throw away what it still sends."""
        if self.state != CLOSING:
            self._hub.change(self, CLOSING)
            self._raw = None
            self.sock.shutdown(SHUT_WR)
        while True:
            received = receive_now(self.sock, self._io, RECEIVE)
            if received is None:
                if stand_by(self._io, self._io.reading, self):
                    return
            elif not received:
                self._drop()
                return

    def timed_out(self) -> None:
        if self.state == HEAD and stand_down(self._io.reading, self):
            self.outcome = TIMED_OUT
            self._spawn()
        else:
            self._drop()

    def shed(self) -> bool:
        if self.state != KEEP_ALIVE or not stand_down(self._io.reading, self):
            return False
        if not self._quiet():
            self._spawn()
            return False
        self._drop()
        return True

    def _drop(self) -> None:
        """Close the connection. A second call does nothing."""
        self._gone()
        stand_down(self._io.reading, self)
        stand_down(self._io.writing, self)
        self.sock.close()

    def _gone(self) -> None:
        self._data, self._left, self._raw = b"", None, None
        self._hub.leave(self)
