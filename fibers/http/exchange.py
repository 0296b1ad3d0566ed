"""One request and its response, as a handler has them.

A handler reads `head` and `body`, and answers: by `respond` if it has the whole body at once, else by `begin`, `write` as
often as it likes, and `end`. What it leaves open is ended for it; what it has promised and not kept (a Content-Length
without the bytes) costs the connection, because only that tells the client.
"""

from typing import Protocol

from .body import Body
from .head import Head
from .response import Fields, Plan, plan, status_line


class Line(Protocol):
    """What an exchange needs of its connection."""

    def body_of(self, exchange: "Exchange") -> Body:
        """The body of the request, which begins with the next byte."""

    def ends(self) -> bool:
        """Does the connection end with this response?"""

    def send(self, parts: list[bytes], last: bool) -> None:
        """Send. `last`: nothing follows, so what does not go out at once may go out later."""


class Exchange:
    """See the module's text. For the fiber of its handler."""

    __slots__ = ("_body", "_line", "_plan", "ended", "head", "started")

    def __init__(self, line: Line, head: Head) -> None:
        self.head = head
        self.started = False  # something of the response may have gone out
        self.ended = False  # and all of it
        self._line = line
        self._body: Body | None = None
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
    def last_one(self) -> bool:
        """Does the connection end with this response?"""
        return self._plan is None or self._plan.close

    def respond(self, status: str, fields: Fields = (), body: bytes = b"") -> None:
        """Answer, all at once. `status` as "200 OK"; the length, the date and the connection's fields are added.

        Raises ValueError for what is no proper head, RuntimeError if there has been an answer already.
        """
        if self.started:
            raise RuntimeError("there has been a response already")
        made = self._plan = plan(self.head, status, fields, len(body), self._line.ends())
        made.left = 0
        head = made.head.encode("latin-1")
        self.started = self.ended = True
        if made.no_body or not body:
            self._line.send([head], True)
        elif len(body) < 65_536:
            self._line.send([head + body], True)
        else:
            self._line.send([head, body], True)

    def fail(self, status: int, text: str) -> None:
        """Answer with an error in plain text; the connection ends."""
        body = f"{text}\n".encode()
        fields = [("Content-Type", "text/plain; charset=utf-8"), ("Connection", "close")]
        self.respond(status_line(status), fields, body)

    def begin(self, status: str, fields: Fields = (), length: int | None = None) -> None:
        """The head of an answer whose body is written bit by bit. `length` (bytes) if that is known.

        Without one the body goes out in chunks or, to a client of HTTP/1.0, up to the end of the connection. The head goes
        out with the first bytes of the body. Errors as in `respond`.
        """
        if self.started:
            raise RuntimeError("there has been a response already")
        self._plan = plan(self.head, status, fields, length, self._line.ends())

    def write(self, data: bytes) -> None:
        """Some of the body. Waits until the system has taken it. Raises ValueError if it is more than was announced."""
        made = self._plan
        if made is None or self.ended:
            raise RuntimeError("begin() comes before write(), and end() after it")
        if not data:
            return
        if made.left is not None and not made.no_body:
            if len(data) > made.left:
                raise ValueError(f"{len(data)} bytes are to be written, and {made.left} were left of Content-Length")
            made.left -= len(data)
        parts = [] if self.started else [made.head.encode("latin-1")]
        if not made.no_body:
            parts += [b"%x\r\n" % len(data), data, b"\r\n"] if made.chunked else [data]
        self.started = True
        if parts:
            self._line.send(parts, False)

    def end(self) -> None:
        """Nothing follows. (Called for the handler, if it has not done so.)"""
        made = self._plan
        if made is None:
            raise RuntimeError("begin() comes before end()")
        if self.ended:
            return
        parts = [] if self.started else [made.head.encode("latin-1")]
        if made.chunked and not made.no_body:
            parts.append(b"0\r\n\r\n")
        self.started = self.ended = True
        if parts:
            self._line.send(parts, True)

    def whole(self) -> bool:
        """Has everything that the head promised gone out?"""
        made = self._plan
        return made is not None and self.ended and (made.no_body or not made.left or made.chunked)
