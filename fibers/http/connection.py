"""One connection: requests come in, are handled one after the other, and are answered in that order.

* What has come of a request's head stays in the connection, which waits without a fiber until the head is whole. Only then
  is a handler's place taken.
* After an error nothing is read as HTTP any more: where the next request would begin is not known.
* A body belongs to its handler. What the handler has left of it is read and dropped if that is little; else the connection
  has to end, since the next request is somewhere behind.

How it waits, writes and ends is in line.py.
"""

import logging
from collections.abc import Callable
from typing import Any, Final

from ..core.cancel import timeout as time_limit
from ..core.runtime import yield_now
from ..errors import Cancelled, ClosedError, FiberKilled
from ..io.operations import recv_now
from ..io.socket import socket
from ..io.stream import Stream
from ..io.waiting import stand_by
from .arrival import Arrival
from .body import NO_BODY, Body, ChunkedSource, LengthSource
from .census import BODY, HEAD, KEEP_ALIVE, NAMES, QUEUED, RUNNING, UPGRADED, WRITING
from .errors import ClientGoneError, RequestError
from .exchange import Exchange
from .head import Head, parse_head
from .hub import Hub
from .line import RECEIVE

_log: Final = logging.getLogger("fibers.http")

#: An unread rest of a request's body up to this size (bytes) is read and dropped; a larger one costs the connection.
SKIPPED: Final = 65_536


class Connection(Arrival):
    """See the module's text. For the thread of its hub."""

    __slots__ = ("_exchange", "_head", "_requests", "_running")

    #: How to receive without waiting.
    receive_now = staticmethod(recv_now)

    def __init__(self, hub: Hub, sock: socket, address: Any) -> None:
        super().__init__(hub, sock, address)
        self._head: Head | None = None  # a request that waits for a handler
        self._exchange: Exchange | None = None
        self._requests = 0
        self._running = False  # holds the place of a handler

    def go_on(self) -> None:
        if self._new and not self._open():
            return
        head, self._head = self._head, None
        if head is None and self._running:  # it was dropped before it could use its handler
            self._running = False
            self._hub.end()
        elif head is None or self._handle(head):
            self._serve()

    def granted(self) -> None:
        self._running = True
        self.resume()

    def _forget(self) -> None:
        if self._head is not None:
            self._head = None
            if not self._running:
                self._hub.queued.remove(self)
        super()._forget()

    def came_too_late(self) -> None:
        self._refuse(RequestError(408, "the head of the request did not come in time"))

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
                received = self.receive_now(self.sock, RECEIVE)
                if received is None:
                    if data:
                        hub.census.change(self, HEAD)
                    elif self._requests:
                        hub.census.change(self, KEEP_ALIVE)
                    if stand_by(io, io.reading, self):
                        return
                elif not received:
                    self.drop()
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
                size = end + 4
                if size == len(data) and data.__class__ is bytes:  # the most frequent case, without a copy
                    whole, rest = data, b""
                else:
                    whole, rest = bytes(data[:size]), bytes(data[size:])
                head = parse_head(whole, hub.settings.limits)
            except RequestError as error:
                self._refuse(error)
                return
            self._data = rest
            if not hub.begin(self):
                self._head = head
                hub.census.change(self, QUEUED)
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

    def _handle(self, head: Head) -> bool:
        """Have the handler answer a request. True if the connection can serve another one now."""
        hub = self._hub
        books = hub.census
        books.requests_total += 1
        books.change(self, RUNNING)
        if books.requests_total >= hub.turns:
            hub.exhausted()
        self._requests += 1
        self._running = True
        exchange = self._exchange = Exchange(self, head)
        began = hub.loop.clock() if hub.log is not None else 0.0
        try:
            self._call(exchange)
        finally:
            self._exchange = None
            if self._running:
                self._running = False
                hub.end()
        books.bytes_total += exchange.sent
        if hub.log is not None:
            gone = not exchange.whole()
            hub.log.note(exchange, hub.server, hub.loop.clock() - began, self._requests, gone)
        if self.state == UPGRADED:
            self.finish()
            return False
        if not exchange.whole():
            self.drop()
            return False
        if not self._settle_body(exchange):
            self._lingering = True
        elif exchange.last_one:
            self._lingering = self._lingering or bool(self._data) or not self.quiet()
            if not self._lingering and self._left is None:
                self.finish()
                return False
        if self._left is not None:
            hub.census.change(self, WRITING)
            return self.write_left()
        if self._lingering:
            self.linger()
            return False
        return True

    def _call(self, exchange: Exchange) -> None:
        """The handler, and what becomes of its errors."""
        hub = self._hub
        seconds = hub.settings.handler_timeout
        scope = None
        try:
            if seconds is None:
                hub.handler(exchange)
            else:
                with time_limit(seconds) as scope:
                    hub.handler(exchange)
            if exchange.ended:
                return
            if not exchange.answered:
                _log.error("the handler of %r has returned without a response", exchange.head)
                exchange.fail(500, "no response")
            else:
                exchange.end()
        except RequestError as error:
            self._lingering = True
            if not exchange.started:
                exchange.fail(error.status, error.reason, error.fields)
        except (ClientGoneError, ClosedError):
            self._lingering = False
        except (Cancelled, FiberKilled):
            raise
        except Exception as error:
            if scope is not None and scope.cancel_called and isinstance(error, TimeoutError):
                _log.error("the handler of %r has taken more than %g seconds", exchange.head, seconds)
                if not exchange.started:
                    exchange.fail(503, "the server has taken too long to answer")
                return
            _log.exception("the handler of %r has failed", exchange.head)
            if not exchange.started:
                exchange.fail(500, "the server has failed to answer")

    def _refuse(self, error: RequestError) -> None:
        """Answer what is no proper request, and hear no more."""
        _log.info("refused a request of %s: %s", self.address, error)
        self._requests += 1
        self._data = b""
        head = Head("-", "-", (1, 1))
        hub = self._hub
        hub.census.change(self, RUNNING)
        exchange = Exchange(self, head)
        exchange.fail(error.status, error.reason)
        if hub.log is not None:
            hub.log.note(exchange, hub.server, 0.0, self._requests, False)
        self._lingering = True
        if self._left is not None:
            self._hub.census.change(self, WRITING)
            self.write_left()
        else:
            self.linger()

    # -- another protocol -------------------------------------------------------------------------------------------

    def hand_over(self, leaving: Callable[[], object] | None) -> tuple[Any, bytes]:
        """The handler's place is free for others from now on: a conversation may last for days."""
        exchange = self._exchange
        assert exchange is not None
        exchange.leaving = leaving
        self._hub.census.change(self, UPGRADED)
        self._running = False
        self._hub.end()
        self._io.timeout = None
        unread, self._data = bytes(self._data), b""
        return self.sock, unread

    def __str__(self) -> str:
        """What serves whom."""
        exchange = self._exchange
        what = NAMES[self.state] if exchange is None else f"{exchange.head.method} {exchange.head.target[:100]}"
        return f"{what} of {self._host or 'a unix socket'}"

    def leave(self) -> None:
        """The server is to stop: say so to whom the connection was handed over. In a fiber."""
        exchange = self._exchange
        if exchange is not None and exchange.leaving is not None:
            exchange.leaving()
        elif self.fiber is not None:
            self.fiber.cancel()

    # -- the body of a request ------------------------------------------------------------------------------------------

    def body_of(self, exchange: Exchange) -> Body:
        head = exchange.head
        if not head.chunked and not head.length:
            return NO_BODY
        unread, self._data = bytes(self._data), b""
        raw = exchange.raw = Stream(self.sock, unread)
        limit = self._hub.settings.max_body
        if limit is not None and head.length > limit:
            raise RequestError(413, f"a body of more than {limit} bytes")
        return Body(ChunkedSource(raw) if head.chunked else LengthSource(raw, head.length), self)

    def body_begins(self) -> None:
        exchange = self._exchange
        assert exchange is not None
        self._hub.census.change(self, BODY)
        exchange.body_began = self._hub.loop.clock()
        if exchange.head.expects_continue and not exchange.started:
            exchange.head.expects_continue = False
            self.send([b"HTTP/1.1 100 Continue\r\n\r\n"], False)

    def body_grows(self, received: int) -> None:
        settings = self._hub.settings
        if settings.max_body is not None and received > settings.max_body:
            raise RequestError(413, f"a body of more than {settings.max_body} bytes")
        if settings.body_rate:
            exchange = self._exchange
            assert exchange is not None
            took = self._hub.loop.clock() - exchange.body_began
            if took > settings.body_timeout and received < settings.body_rate * took:
                raise RequestError(408, f"a body of less than {settings.body_rate:g} bytes a second")

    def body_ends(self) -> None:
        self._hub.census.change(self, RUNNING)

    def _settle_body(self, exchange: Exchange) -> bool:
        """The request is answered: is its body over, so that another one can follow? A short rest is read and dropped."""
        head = exchange.head
        if not head.chunked and not head.length:
            return True
        unread = head.expects_continue or head.chunked or head.length > SKIPPED or exchange.last_one
        if unread and not exchange.body_begun:
            return False
        body = exchange.body
        if not body.done:
            if head.chunked or exchange.last_one or head.length > SKIPPED or head.expects_continue:
                return False  # the last: it has not been told to send it, and what comes may be the next request
            self._exchange = exchange
            try:
                body.read()
            finally:
                self._exchange = None
        raw, exchange.raw = exchange.raw, None
        if raw is not None:
            self._data = raw.detach()[1]
        return True

    def ends(self) -> bool:
        most = self._hub.settings.close_after
        exchange = self._exchange
        return (
            self._hub.stopping
            or exchange is None
            or not exchange.head.keep_alive
            or (most is not None and self._requests >= most)
        )
