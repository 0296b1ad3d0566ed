"""The file objects over pipes to child processes: the names of `io`, and only the calling fiber waits.

Facts, and what follows:

* The buffered objects of `io` hold a lock while they read. A second fiber of the same thread that meets it gets
  RuntimeError ("reentrant call"), also from `close()`. And a `read(100)` or `readline()` that is interrupted drops what it
  has gathered. So the objects here are written in Python: what has come in stays in the object until it is handed out,
  whole, and a fiber that reads queues behind the one that does already. `close()` does not queue: it wakes who waits.
* A writing object takes what it is given before it waits. `write()` that is interrupted has taken it all; the rest goes
  out with the next `flush()` or `close()`.
* What is collected unclosed is closed by its end, with the warning that a file gives. A finaliser cannot wait: of what was
  not flushed, only what there is room for goes out.
"""

import codecs
import io
from typing import Any, Final

from ..sync.lock import Lock
from .pipeend import CHUNK, PipeEnd

#: Bytes that a writing object gathers before it writes, where nobody has said how many.
GATHERED: Final = 8192


class _Buffered(io.BufferedIOBase):
    """What reading and writing have in common."""

    def __init__(self, end: PipeEnd, size: int) -> None:
        self.end = end
        self._size = size
        self._data = bytearray()
        self._turn = Lock()

    @property
    def raw(self) -> PipeEnd:
        return self.end

    @property
    def closed(self) -> bool:
        return self.end._closed

    @property
    def name(self) -> Any:
        return self.end.name

    @property
    def mode(self) -> str:
        return self.end.mode

    def fileno(self) -> int:
        return self.end.fileno()

    def isatty(self) -> bool:
        return False

    def readable(self) -> bool:
        return self.end.readable()

    def writable(self) -> bool:
        return self.end.writable()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}{' closed' * self.closed}>"


class PipeReader(_Buffered):
    """As `io.BufferedReader`. Nothing that has come in is lost when a call is interrupted: the next one returns it."""

    def read(self, size: int | None = -1, /) -> bytes:
        """`size` bytes, fewer if the data ends before; all until the end if it is negative or None."""
        self._check_open()
        with self._turn:
            wanted = -1 if size is None else size
            while (wanted < 0 or len(self._data) < wanted) and self._more():
                pass
            return self.take(wanted)

    def read1(self, size: int = -1, /) -> bytes:
        """What is there, at most `size` bytes; waits only if that is nothing."""
        self._check_open()
        with self._turn:
            if not self._data and size != 0:
                self._more()
            return self.take(size)

    def peek(self, size: int = 0, /) -> bytes:
        """What is there, and stays there; waits only if that is nothing."""
        self._check_open()
        with self._turn:
            if not self._data:
                self._more()
            return bytes(self._data)

    def readline(self, size: int | None = -1, /) -> bytes:
        """The next line with its end, at most `size` bytes of it; b"" at the end of the data."""
        self._check_open()
        with self._turn:
            limit = -1 if size is None else size
            looked = 0
            while (end := self._data.find(b"\n", looked) + 1) == 0 and (limit < 0 or len(self._data) < limit):
                looked = len(self._data)
                if not self._more():
                    break
            length = end or len(self._data)
            return self.take(length if limit < 0 else min(length, limit))

    def take(self, size: int) -> bytes:
        """Hand out at most `size` bytes of what is here (negative: all), without waiting."""
        data = self._data
        if size < 0 or size >= len(data):
            taken = bytes(data)
            data.clear()
        else:
            taken = bytes(data[:size])
            del data[:size]
        return taken

    def close(self) -> None:
        """Close the pipe. Whoever waits here gets ClosedError."""
        self.end.close()

    def _more(self) -> bool:
        got = self.end.receive(self._size)
        self._data += got
        return bool(got)

    def _check_open(self) -> None:
        if self.end._closed:
            raise ValueError("read of closed file")

    def __del__(self) -> None:
        """Nothing to do: the end warns and closes. (That of `io.IOBase` would close without a word.)"""


class PipeWriter(_Buffered):
    """As `io.BufferedWriter`. What an interrupted call was given is kept, and goes out with the next `flush` or `close`."""

    def write(self, data: Any, /) -> int:
        """Take all of a bytes-like object, writing when more than the buffer size is there."""
        view = memoryview(data).cast("B")
        self._check_open()
        self._data += view
        if len(self._data) > self._size:
            self.flush()
        return len(view)

    def flush(self) -> None:
        """Write everything that is here."""
        self._check_open()
        with self._turn:
            while self._data:
                sent = self.end.send(bytes(self._data[:CHUNK]))
                del self._data[:sent]

    def close(self) -> None:
        """Write what is here, and close the pipe whatever comes of that."""
        if not self.end._closed:
            try:
                self.flush()
            finally:
                self.end.close()

    def _check_open(self) -> None:
        if self.end._closed:
            raise ValueError("write to closed file")

    def __del__(self) -> None:
        if getattr(self, "_data", None) and not self.end._closed:
            self.end.send_now(self._data)


class TextReader(io.TextIOBase):
    """As an `io.TextIOWrapper` for reading, with universal newlines. Nothing is lost when a call is interrupted."""

    def __init__(self, buffer: PipeReader | PipeEnd, encoding: str, errors: str) -> None:
        self.buffer = buffer
        self._encoding, self._errors = encoding, errors
        decoder = codecs.getincrementaldecoder(encoding)(errors)
        self._decoder = io.IncrementalNewlineDecoder(decoder, translate=True)
        self._text, self._at = "", 0  # decoded, and handed out up to there
        self._turn = Lock()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    @property
    def errors(self) -> str:  # type: ignore[override]
        return self._errors

    @property
    def newlines(self) -> Any:  # type: ignore[override]
        return self._decoder.newlines

    @property
    def closed(self) -> bool:
        return self.buffer.closed

    @property
    def name(self) -> Any:
        return self.buffer.name

    @property
    def mode(self) -> str:
        return "r"

    def fileno(self) -> int:
        return self.buffer.fileno()

    def isatty(self) -> bool:
        return False

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> str:
        """`size` characters, fewer if the data ends before; all until the end if it is negative or None."""
        self._check_open()
        with self._turn:
            if size is None or size < 0:
                return self.finish(self.buffer.read())
            while len(self._text) - self._at < size and self._more():
                pass
            return self._take(self._at + size)

    def readline(self, size: int | None = -1, /) -> str:  # type: ignore[override]
        """The next line with its end, at most `size` characters of it; "" at the end of the data."""
        self._check_open()
        with self._turn:
            limit = -1 if size is None else size
            looked = self._at
            while (end := self._text.find("\n", looked) + 1) == 0 and not 0 <= limit <= len(self._text) - self._at:
                looked = len(self._text) - self._at  # `_more` drops what has been handed out
                if not self._more():
                    break
            end = end or len(self._text)
            return self._take(end if limit < 0 else min(end, self._at + limit))

    def finish(self, data: bytes) -> str:
        """All that has not been handed out, if `data` is all that was still to come."""
        text = self._text[self._at :] + self._decoder.decode(data, True)
        self._decoder.reset()
        self._text, self._at = "", 0
        return text

    def close(self) -> None:
        """Close the pipe. Whoever waits here gets ClosedError."""
        self.buffer.close()

    def _more(self) -> bool:
        """Decode what comes next. The characters handed out are dropped: `_at` is 0 afterwards."""
        data = self.buffer.read1(-1) if isinstance(self.buffer, PipeReader) else self.buffer.read(CHUNK)
        self._text, self._at = self._text[self._at :] + self._decoder.decode(data, not data), 0
        return bool(data)

    def _take(self, end: int) -> str:
        start, self._at = self._at, min(end, len(self._text))
        taken = self._text[start : self._at]
        if self._at == len(self._text):
            self._text, self._at = "", 0
        return taken

    def _check_open(self) -> None:
        if self.buffer.closed:
            raise ValueError("I/O operation on closed file.")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name} encoding={self._encoding!r}{' closed' * self.closed}>"

    def __del__(self) -> None:
        """Nothing to do: the end warns and closes."""


def taken_over(file: Any, bufsize: int) -> Any:
    """One of the objects here, in place of a file object of `io` over a pipe, which loses its FileIO to it."""
    text = file if isinstance(file, io.TextIOWrapper) else None
    line_buffering, encoding, errors = False, "", ""
    if text is not None:
        line_buffering, encoding, errors = text.line_buffering, text.encoding, text.errors or "strict"
        file = text.detach()
    end = PipeEnd(file if isinstance(file, io.FileIO) else file.detach())
    if isinstance(file, io.FileIO):
        binary: Any = end
    elif end.readable():
        binary = PipeReader(end, bufsize if bufsize > 1 else CHUNK)
    else:
        binary = PipeWriter(end, bufsize if bufsize > 1 else GATHERED)
    if text is None:
        return binary
    if end.readable():
        return TextReader(binary, encoding, errors)
    return io.TextIOWrapper(binary, write_through=True, line_buffering=line_buffering, encoding=encoding, errors=errors)


def end_of(file: Any) -> PipeEnd | None:
    """The end under one of the objects here; None: it is none of them."""
    if isinstance(file, io.TextIOWrapper | TextReader):
        file = file.buffer
    if isinstance(file, _Buffered):
        return file.end
    return file if isinstance(file, PipeEnd) else None
