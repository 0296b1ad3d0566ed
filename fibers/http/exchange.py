"""One request and its response, as a handler has them.

A handler reads `head` and `body`, and answers: by `respond` if it has the whole body at once, by `send_file` if it is a
file, else by `begin`, `write` as often as it likes, and `end`. What it leaves open is ended for it; what it has promised and
not kept (a Content-Length without the bytes) costs the connection, because only that tells the client.

Or it has the connection handed over (`upgrade`), to speak another protocol on it.
"""

from collections.abc import Callable
from typing import Any, Protocol

from ..io.stream import Stream
from .body import Body
from .filepart import FilePart
from .head import Head
from .origin import Origin
from .response import Fields, Plan, check_trailers, plan, status_line, switching


class Line(Protocol):
    """What an exchange needs of its connection."""

    sock: Any

    def body_of(self, exchange: "Exchange") -> Body:
        """The body of the request, which begins with the next byte."""

    def ends(self) -> bool:
        """Does the connection end with this response?"""

    def send(self, parts: list[bytes], last: bool) -> None:
        """Send. `last`: nothing follows, so what does not go out at once may go out later."""

    def send_file(self, head: bytes, part: FilePart | None) -> None:
        """Send a head and a file, some time; the part is the line's from now on."""

    def origin(self, head: Head) -> Origin:
        """Who has sent the request."""

    def peer(self, head: Head) -> Origin:
        """Who is at the other end of the connection."""

    def hand_over(self, leaving: Callable[[], object] | None) -> tuple[Any, bytes]:
        """The socket, and what has come on it; `leaving` is called when the server is to stop."""


class Exchange:
    """See the module's text. For the fiber of its handler."""

    __slots__ = (
        "_body", "_line", "_origin", "_plan", "body_began", "ended", "fields", "head", "leaving", "left", "raw", "sent",
        "started", "status",
    )  # fmt: skip

    def __init__(self, line: Line, head: Head) -> None:
        self.head = head
        self.started = False  # something of the response may have gone out
        self.ended = False  # and all of it
        self.status = ""  # of the response, and its fields
        self.fields: Fields = ()
        self.sent = 0  # bytes of its body, as far as the handler has got
        self.left: Any = None  # what a handler leaves for a log of its own
        # Of its line, which has no room for what only some requests have:
        self.raw: Stream | None = None  # below the body
        self.body_began = 0.0
        self.leaving: Callable[[], object] | None = None  # see Line.hand_over
        self._line = line
        self._body: Body | None = None
        self._origin: Origin | None = None
        self._plan: Plan | None = None

    @property
    def body(self) -> Body:
        """The body of the request: a binary file for reading."""
        if self._body is None:
            self._body = self._line.body_of(self)
        return self._body

    @property
    def body_begun(self) -> bool:
        """Has anybody asked for the body?"""
        return self._body is not None

    @property
    def origin(self) -> Origin:
        """Who has sent the request, as far as those say that are believed (origin.py)."""
        if self._origin is None:
            self._origin = self._line.origin(self.head)
        return self._origin

    @property
    def peer(self) -> Origin:
        """Who is at the other end of the connection: the client, or a proxy that speaks for it."""
        return self._line.peer(self.head)

    @property
    def sock(self) -> Any:
        """The connection's socket, for asking it. Who reads or writes on it answers for what the client gets."""
        return self._line.sock

    @property
    def answered(self) -> bool:
        """Has there been a response, or its beginning?"""
        return self._plan is not None

    @property
    def last_one(self) -> bool:
        """Does the connection end with this response?"""
        return self._plan is None or self._plan.close

    def respond(self, status: str, fields: Fields = (), body: bytes = b"") -> None:
        """Answer, all at once. `status` as "200 OK"; the length, the date and the connection's fields are added.

        Raises ValueError for what is no proper head, RuntimeError if there has been an answer already.
        """
        if self.started:
            raise RuntimeError("there has been a response already")
        if body.__class__ is not bytes and not isinstance(body, bytes):
            raise TypeError(f"the body of a response is bytes, not {body!r}")
        made = self._plan = plan(self.head, status, fields, len(body), self._line.ends())
        made.left = 0
        head = made.head.encode("latin-1")
        self.started = self.ended = True
        self.status, self.fields = status, fields
        if made.no_body or not body:
            self._line.send([head], True)
            return
        self.sent = len(body)
        if len(body) < 65_536:
            self._line.send([head + body], True)
        else:
            self._line.send([head, body], True)

    def fail(self, status: int, text: str, more: Fields = ()) -> None:
        """Answer with an error in plain text; the connection ends."""
        body = f"{text}\n".encode()
        fields = [("Content-Type", "text/plain; charset=utf-8"), ("Connection", "close"), *more]
        self.respond(status_line(status), fields, body)

    def send_file(self, status: str, fields: Fields, fd: int, offset: int, count: int) -> None:
        """Answer with `count` bytes of a regular file, from `offset` on. Returns before all has gone out; `fd` may be
        closed then. A file that turns out shorter costs the connection. Errors as in `respond`.
        """
        if self.started:
            raise RuntimeError("there has been a response already")
        made = self._plan = plan(self.head, status, fields, count, self._line.ends())
        made.left = 0
        part = None if made.no_body or not count else FilePart(fd, offset, count)
        self.started = self.ended = True
        self.status, self.fields = status, fields
        self.sent = count if part else 0
        self._line.send_file(made.head.encode("latin-1"), part)

    def begin(self, status: str, fields: Fields = (), length: int | None = None) -> None:
        """The head of an answer whose body is written bit by bit. `length` (bytes) if that is known.

        Without one the body goes out in chunks or, to a client of HTTP/1.0, up to the end of the connection. The head goes
        out with the first bytes of the body. Errors as in `respond`.
        """
        if self.started:
            raise RuntimeError("there has been a response already")
        self._plan = plan(self.head, status, fields, length, self._line.ends())
        self.status, self.fields = status, fields

    def write(self, data: bytes) -> None:
        """Some of the body. Waits until the system has taken it. Raises ValueError if it is more than was announced."""
        made = self._plan
        if made is None or self.ended:
            raise RuntimeError("begin() comes before write(), and end() after it")
        if data.__class__ is not bytes and not isinstance(data, bytes):
            raise TypeError(f"the body of a response is bytes, not {data!r}")
        if not data:
            return
        if made.left is not None and not made.no_body:
            if len(data) > made.left:
                raise ValueError(f"{len(data)} bytes are to be written, and {made.left} were left of Content-Length")
            made.left -= len(data)
        parts = [] if self.started else [made.head.encode("latin-1")]
        if not made.no_body:
            parts += [b"%x\r\n" % len(data), data, b"\r\n"] if made.chunked else [data]
            self.sent += len(data)
        self.started = True
        if parts:
            self._line.send(parts, False)

    def flush(self) -> None:
        """Send the head, if it has not gone out yet: the client learns the status before there is a body."""
        made = self._plan
        if made is None or self.ended:
            raise RuntimeError("begin() comes before flush(), and end() after it")
        if not self.started:
            self.started = True
            self._line.send([made.head.encode("latin-1")], False)

    def end(self, trailers: Fields = ()) -> None:
        """Nothing follows but the trailers, which a body in chunks may have. (Called for the handler, if it is not.)

        Raises ValueError for trailers that are none, or where they cannot be sent.
        """
        made = self._plan
        if made is None:
            raise RuntimeError("begin() comes before end()")
        if self.ended:
            return
        tail = b"0\r\n\r\n"
        if trailers:
            tail = b"0\r\n" + check_trailers(trailers).encode("latin-1") + b"\r\n"
            if not made.chunked:
                raise ValueError("trailers need a body in chunks: HTTP/1.1, and no Content-Length")
        parts = [] if self.started else [made.head.encode("latin-1")]
        if made.chunked and not made.no_body:
            parts.append(tail)
        self.started = self.ended = True
        if parts:
            self._line.send(parts, True)

    def upgrade(
        self, protocol: str, fields: Fields = (), leaving: Callable[[], object] | None = None
    ) -> tuple[Any, bytes]:
        """Switch to another protocol: the response 101 is sent, and the handler has the socket, and what has come on it.

        It is the handler's until that returns; then it is closed. It counts as no handler any more. `leaving` is called
        (in a fiber of its own) when the server is to stop. Raises ValueError if the client has not asked for `protocol`,
        or has a body to send; errors as in `respond`. To CONNECT, the answer is 200.
        """
        if self.started:
            raise RuntimeError("there has been a response already")
        head = self.head
        wanted = [each.strip().lower() for each in (head.upgrade or "").split(",")]
        if head.method == "CONNECT":
            status = "200 OK"
        elif protocol.lower() in wanted:
            status = "101 Switching Protocols"
            fields = [("Upgrade", protocol), ("Connection", "Upgrade"), *fields]
        else:
            raise ValueError(f"the client has not asked for {protocol!r}, but for {head.upgrade!r}")
        if head.chunked or head.length:
            raise ValueError("a request with a body cannot be upgraded here")
        self._plan = switching(status, fields)
        self.started = self.ended = True
        self.status, self.fields = status, fields
        self._line.send([self._plan.head.encode("latin-1")], False)
        return self._line.hand_over(leaving)

    def whole(self) -> bool:
        """Has everything that the head promised gone out?"""
        made = self._plan
        return made is not None and self.ended and (made.no_body or not made.left or made.chunked)
