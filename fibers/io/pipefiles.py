"""Pipes to child processes as file objects: the names of `io`, and only the calling fiber waits.

Facts, and what follows:

* `O_NONBLOCK` belongs to the open file description. The two ends of a pipe have one each, so our end can be non-blocking
  and the child's is not. But our end may itself be handed to a second child (`sort` reads what `ls` writes), which then
  has our description for its stdin. So the flag is set at the first operation of ours on an end, not before, and taken
  away again when the end is given to a child (`lend`): a program that only builds a pipeline never has it set.
* The buffered objects of `io` hold a lock while they read. A second fiber of the same thread that meets it gets
  RuntimeError ("reentrant call"), also from `close()`. And a `read(100)` or `readline()` that is interrupted drops what it
  has gathered. So the objects here are written in Python: what has come in stays in the object until it is handed out,
  whole, and a fiber that reads queues behind the one that does already. `close()` does not queue: it wakes who waits.
* A writing object takes what it is given before it waits. `write()` that is interrupted has taken it all; the rest goes
  out with the next `flush()` or `close()`.
* The FileIO that `subprocess` has made goes on owning the fd, and closes it.
"""

import codecs
import errno
import io
import os
import warnings
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakValueDictionary

from ..core.scheduler import state as thread
from ..eventloop import Handle
from ..sync.lock import Lock
from .state import State, _let_go
from .waiting import perform

#: Bytes asked of a pipe at once, where nobody has said how many: what a pipe holds on Linux.
CHUNK: Final = 65536
#: Bytes that a writing object gathers before it writes, where nobody has said how many.
GATHERED: Final = 8192

#: The ends that have been made non-blocking, by fd.
_switched: "Final[WeakValueDictionary[int, PipeEnd]]" = WeakValueDictionary()


class PipeEnd(io.RawIOBase):
    """One end of a pipe, unbuffered, over the FileIO that owns its fd. For fibers of any thread."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        self._fd = fd = file.fileno()
        scheduler = thread.scheduler
        if scheduler is None or scheduler.closed:
            handle = Handle(fd, None)
        else:
            handle = scheduler.loop.handle(fd, True)
        self._state = State(handle, None, True)  # a short read of a pipe has emptied it
        self._closed = self._nonblocking = False
        self._kept = b""  # what an interrupted `readall` has read

    def receive(self, size: int) -> bytes:
        """What has come in, at most `size` (> 0) bytes, waiting for the first; b"" at the end of the data."""
        self._check_open()
        if self._kept:
            got, self._kept = self._kept[:size], self._kept[size:]
            return got
        state = self._state
        return perform(self, state, state.reading, size, _read, size)  # type: ignore[no-any-return]

    def send(self, data: Any) -> int:
        """Write as much of a bytes-like object as there is room for, waiting for some; how many bytes that were."""
        self._check_open()
        state = self._state
        return perform(self, state, state.writing, 0, _write, data)  # type: ignore[no-any-return]

    def send_now(self, data: Any) -> None:
        """Write what there is room for, without waiting. For finalisers."""
        try:
            _write(self, data)
        except OSError:
            pass

    def lend(self) -> None:
        """A child is about to get this end for its own: make it blocking, as programs expect. Our next operation undoes it."""
        if self._nonblocking:
            os.set_blocking(self._fd, True)
            self._nonblocking = False

    def read(self, size: int | None = -1, /) -> bytes:
        """As of an unbuffered file: what has come in, at most `size` bytes; all until the end if that is negative."""
        if size is None or size < 0:
            return self.readall()
        self._check_open()
        if not self._file.readable():
            raise io.UnsupportedOperation("File not open for reading")
        return self.receive(size) if size else b""

    def readall(self) -> bytes:
        """Everything until the end. What an interrupted call has read the next one finds."""
        gathered = bytearray()
        try:
            while got := self.read(CHUNK):
                gathered += got
        except BaseException:
            self._kept = bytes(gathered) + self._kept
            raise
        return bytes(gathered)

    def readinto(self, buffer: Any, /) -> int:
        """As `io.RawIOBase.readinto`."""
        view = memoryview(buffer).cast("B")
        got = self.read(len(view))
        view[: len(got)] = got
        return len(got)

    def write(self, data: Any, /) -> int:
        """Write all of a bytes-like object, as a blocking file does. An error has the number written as `bytes_sent`."""
        view = memoryview(data).cast("B")
        self._check_open()
        if not self._file.writable():
            raise io.UnsupportedOperation("File not open for writing")
        sent = 0

        def push(end: PipeEnd) -> None:
            nonlocal sent
            while sent < len(view):
                sent += _write(end, view[sent:])

        try:
            perform(self, self._state, self._state.writing, 0, push)
        except BaseException as error:
            if hasattr(error, "__dict__"):
                error.bytes_sent = sent  # type: ignore[attr-defined]
            raise
        return sent

    @property
    def closed(self) -> bool:
        """Has `close()` been called?"""
        return self._closed

    def close(self) -> None:
        """Close the fd. Whoever waits here gets ClosedError. Any thread; a second call does nothing."""
        if not self._closed:
            self._closed = True
            if self._nonblocking and _switched.get(self._fd) is self:
                del _switched[self._fd]
            _let_go(self._state.handle, self._close_file)

    def _close_file(self) -> None:
        try:
            self._file.close()
        except OSError as error:
            if error.errno == errno.EBADF:
                raise

    def fileno(self) -> int:
        """The fd. It is non-blocking as soon as this object has been used."""
        self._check_open()
        return self._fd

    def isatty(self) -> bool:
        return False

    def readable(self) -> bool:
        return self._file.readable()

    def writable(self) -> bool:
        return self._file.writable()

    @property
    def name(self) -> Any:
        return self._fd

    @property
    def mode(self) -> str:
        return self._file.mode

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("I/O operation on closed file.")

    def _switch(self) -> None:
        os.set_blocking(self._fd, False)
        self._nonblocking = True
        _switched[self._fd] = self

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self._fd} mode={self.mode!r}{' closed' * self._closed}>"

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            warnings.warn(f"unclosed file {self!r}", ResourceWarning, stacklevel=2, source=self)
            self.close()


def _read(end: PipeEnd, size: int) -> bytes:
    if not end._nonblocking:
        end._switch()
    return os.read(end._fd, size)


def _write(end: PipeEnd, data: Any) -> int:
    if not end._nonblocking:
        end._switch()
    return os.write(end._fd, data)


def lend(fd: int) -> None:
    """If `fd` is an end of ours that we have made non-blocking: a child is about to get it for its own."""
    end = _switched.get(fd)
    if end is not None:
        end.lend()


class _Buffered(io.BufferedIOBase):
    """What reading and writing have in common."""

    def __init__(self, end: PipeEnd, size: int) -> None:
        self.end = end
        self._size = size
        self._data = bytearray()
        self._turn = Lock()

    @property
    def raw(self) -> PipeEnd:  # type: ignore[override]
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
    make: Callable[..., Any]
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
    make = io.TextIOWrapper
    return make(binary, write_through=True, line_buffering=line_buffering, encoding=encoding, errors=errors)


def end_of(file: Any) -> PipeEnd | None:
    """The end under one of the objects here; None: it is none of them."""
    while not isinstance(file, PipeEnd):
        if isinstance(file, _Buffered):
            return file.end
        file = getattr(file, "buffer", None)
        if file is None:
            return None
    return file
