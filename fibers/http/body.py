"""The body of a request, read as the handler asks for it.

A body is delimited by its Content-Length or by chunks (RFC 9112, 6 and 7). Either is a *source*: the transport of a Stream,
whose `recv` never reaches beyond the end of the body. Above it is the file-like object that WSGI wants.

Nothing is received before the handler reads: a handler that refuses an upload does not pay for it, and one that reads slowly
holds back the client, not the memory. A client that waits for `100 Continue` is told at the first read.
"""

import re
from collections.abc import Iterator
from typing import Any, Final, Protocol

from ..io.stream import IncompleteReadError, LimitExceededError, Stream
from .errors import ClientGoneError, RequestError
from .head import NO_TRAILERS

#: The longest line (bytes) that announces a chunk, extensions included.
CHUNK_LINE: Final = 1024
#: The most that trailers may be (bytes), and how many of them.
TRAILERS: Final = 8_190
TRAILER_FIELDS: Final = 32

_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[\t ]*;[\t -~\x80-\xff]*)?\r\n")
_FIELD: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[\t ]*([\t -~\x80-\xff]*?)[\t ]*\r\n")


class Source(Protocol):
    """Delivers a body, piece by piece."""

    done: bool  # all of it has been delivered

    def recv(self, size: int, /) -> bytes: ...


class LengthSource:
    """A body of a known number of bytes."""

    __slots__ = ("_left", "_stream", "done")

    def __init__(self, stream: Stream, length: int) -> None:
        self._stream = stream
        self._left = length
        self.done = not length

    def recv(self, size: int, /) -> bytes:
        if not self._left:
            return b""
        data = self._stream.read_some(min(size, self._left))
        if not data:
            raise ClientGoneError(f"the client has gone with {self._left} bytes of its request unsent")
        self._left -= len(data)
        self.done = not self._left
        return data


class ChunkedSource:
    """A body in chunks. `trailers` are there when it is done: (name in lower case, value)."""

    __slots__ = ("_inside", "_left", "_stream", "done", "trailers")

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._left = 0
        self._inside = False  # a chunk has begun, and the line end behind it has not come
        self.done = False
        self.trailers: list[tuple[str, str]] = []

    def recv(self, size: int, /) -> bytes:
        if self.done:
            return b""
        try:
            if not self._left and not self._next_chunk():
                return b""
            data = self._stream.read_some(min(size, self._left))
            if not data:
                raise ClientGoneError("the client has gone in the middle of a chunk")
            self._left -= len(data)
        except IncompleteReadError:
            raise ClientGoneError("the client has gone in the middle of its request") from None
        except LimitExceededError as error:
            raise RequestError(400, f"chunks: {error}") from None
        return data

    def _next_chunk(self) -> bool:
        if self._inside:
            if self._stream.read_exactly(2) != b"\r\n":
                raise RequestError(400, "a chunk that is longer than announced")
            self._inside = False
        line = _CHUNK.fullmatch(self._stream.read_until(b"\r\n", limit=CHUNK_LINE))
        if line is None:
            raise RequestError(400, "a chunk whose size is no hexadecimal number")
        self._left = int(line[1], 16)
        if self._left:
            self._inside = True
            return True
        self._read_trailers()
        self.done = True
        return False

    def _read_trailers(self) -> None:
        left = TRAILERS
        while (line := self._stream.read_until(b"\r\n", limit=left)) != b"\r\n":
            field = _FIELD.fullmatch(line)
            left -= len(line)
            if field is None or len(self.trailers) >= TRAILER_FIELDS or left < 2:
                raise RequestError(400, "trailers that are no header fields, or too many")
            name = field[1].decode("ascii").lower()
            if name in NO_TRAILERS:
                raise RequestError(400, f"a trailer that must not be one: {name}")
            self.trailers.append((name, field[2].decode("latin-1")))


class Watcher(Protocol):
    """Who is told how far the reading of a body is."""

    def body_begins(self) -> None: ...
    def body_ends(self) -> None: ...
    def body_grows(self, received: int) -> None:
        """So many bytes have come, in all. May raise RequestError: too many, or too slowly."""


class _OverSource:
    """A source as the transport of a Stream. Tells the watcher."""

    __slots__ = ("_begun", "_source", "_watcher", "received")

    def __init__(self, source: Source, watcher: Watcher) -> None:
        self._source = source
        self._watcher = watcher
        self._begun = False
        self.received = 0

    def recv(self, size: int, /) -> bytes:
        source = self._source
        if source.done:
            return b""
        if not self._begun:
            self._begun = True
            self._watcher.body_begins()
        try:
            data = source.recv(size)
        except TimeoutError as late:
            if hasattr(late, "scope"):
                raise  # a deadline of the handler's own
            raise RequestError(408, "the body of the request did not come in time") from None
        self.received += len(data)
        self._watcher.body_grows(self.received)
        if source.done:
            self._watcher.body_ends()
        return data

    def sendall(self, data: Any, /) -> None:
        raise TypeError("the body of a request is for reading")

    def close(self) -> None: ...


class Body:
    """A request's body as a binary file for reading (`wsgi.input`). For the fiber of its handler."""

    __slots__ = ("_source", "_stream")

    def __init__(self, source: Source, watcher: Watcher) -> None:
        self._source = source
        self._stream = Stream(_OverSource(source, watcher))

    @property
    def done(self) -> bool:
        """Has everything been received?"""
        return self._source.done

    @property
    def trailers(self) -> list[tuple[str, str]]:
        """The trailer fields of a chunked body that has been read to its end."""
        return getattr(self._source, "trailers", [])

    def read(self, size: int | None = -1) -> bytes:
        """`size` bytes, fewer at the end; all that is left if it is negative or None."""
        if size is None or size < 0:
            return self._stream.read_all()
        try:
            return self._stream.read_exactly(size)
        except IncompleteReadError as last:
            return last.partial

    def read1(self, size: int = -1) -> bytes:
        """At least one byte, as soon as there are any, unless it is the end."""
        return self._stream.read_some(size if size > 0 else 65_536) if size else b""

    def readline(self, size: int | None = -1) -> bytes:
        """A line with its end; of a longer one `size` bytes."""
        limit = (1 << 60) if size is None or size < 0 else size
        if not limit:
            return b""
        try:
            return self._stream.read_until(b"\n", limit=limit)
        except IncompleteReadError as last:
            return last.partial
        except LimitExceededError:
            return self._stream.read_exactly(limit)

    def readlines(self, hint: int | None = -1) -> list[bytes]:
        """The lines, until there are `hint` bytes of them."""
        lines, left = [], hint if hint and hint > 0 else 1 << 60
        for line in self:
            lines.append(line)
            left -= len(line)
            if left <= 0:
                break
        return lines

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def close(self) -> None:
        """WSGI servers own their input: nothing happens."""


class _Nothing:
    """The source of a request without a body."""

    done = True

    def recv(self, size: int, /) -> bytes:
        return b""


class _Nobody:
    """Who watches that."""

    def body_begins(self) -> None: ...
    def body_ends(self) -> None: ...
    def body_grows(self, received: int) -> None: ...


#: The body of every request without one. It has no state but that it is at its end.
NO_BODY: Final = Body(_Nothing(), _Nobody())
