"""A stream: reading by amount, by delimiter and by line, over anything that delivers bytes in pieces.

Facts, and what follows:

* A `recv` returns what is there, not what was sent in one piece. Whoever wants a line or a record reads on until he has
  it, and what comes after it has to be kept for the next read. That is all that a Stream is: a transport, and the bytes
  that have been received and not yet returned.
* A read may end early: by a timeout, a cancellation, an error of the connection. Nothing that has been received is lost
  then. Bytes leave the stream in the same step in which they are returned; a read that fails has taken nothing, and may
  be tried again. (Only the end of the data changes that: what is left goes into the IncompleteReadError.)
* Most messages are smaller than one `recv`. So the bytes are kept as the object that `recv` returned, with a position in
  it: a line is found by `bytes.find` and cut out by one slice. Only what spans several receives is gathered in a
  bytearray, which grows without copying what it has; and a search goes on where the last one ended. So the cost of a
  read is proportional to its size, however small the pieces are in which the data comes.
* Connections are many, and most of them wait. Whoever waits for data holds no memory for what has been returned already.
* The end of a socket's data is final, that of a FIFO or a terminal is not. So the end is not remembered: a read after it
  asks the transport again.
* A peer that never sends the delimiter must not fill the memory: everything whose size the peer decides has a limit.

* A deadline that has passed already leaves no time in which the loop could ask the kernel. So for a read with a timeout
  of 0 the loop takes one turn: it returns what has arrived by then.

One fiber reads at a time: two would tear records apart. So the second gets BusyError at once. Writing has no state here;
what two fibers write at once does not interleave, as the transport's `sendall` promises.
"""

from _socket import socket as Raw  # noqa: N812
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final, Protocol, Self

from ..core import cancel
from ..errors import BusyError

#: Bytes asked for in one receive, unless more are needed.
RECEIVE_SIZE: Final = 65_536
#: The most that one receive asks for (bytes).
LARGEST_RECEIVE: Final = 1 << 20
#: The limit of `read_until` and `lines`, where none is given (bytes).
LIMIT: Final = 65_536


class Transport(Protocol):
    """What a stream needs of what is below it: the verbs of a socket. A TLS socket and the end of a pipe have them, too.

    `recv` returns b"" at the end of the data. A transport whose writing half can be closed alone has `shutdown(how)`, as
    a socket has, or `send_eof()`.
    """

    def recv(self, size: int, /) -> bytes: ...
    def sendall(self, data: Any, /) -> None: ...
    def close(self) -> None: ...


class IncompleteReadError(EOFError):
    """The data ended before there was enough of it. `partial` (bytes) is what there was; the stream is empty now."""

    def __init__(self, partial: bytes, wanted: str) -> None:
        super().__init__(f"the data ended after {len(partial)} bytes, {wanted} wanted")
        self.partial = partial
        self._wanted = wanted

    def __reduce__(self) -> Any:  # it may cross to another process
        return type(self), (self.partial, self._wanted)


class LimitExceededError(ValueError):
    """There is no delimiter within the limit. Nothing has been taken from the stream."""


class Stream:
    """Bytes in both directions over a transport, which now belongs to the stream: nobody else receives from it.

    `unread` is what has been received from the transport before, and comes first. Reading is for one fiber at a time;
    everything else may be called by any. Every method that waits takes `timeout`
    (seconds >= 0; None: no limit) for the whole call and raises TimeoutError after it; the transport's own timeout
    applies to each of its operations as well. After an error a read can be tried again; nothing that came in is lost. A
    write that ended early has sent an unknown part: give the connection up.

    Raises TypeError for a transport that lacks a verb, or would block the thread: a socket of the standard class.
    """

    __slots__ = ("_at", "_data", "_reading", "_recv", "transport")

    def __init__(self, transport: Transport, unread: bytes = b"") -> None:
        for verb in ("recv", "sendall", "close"):
            if not callable(getattr(transport, verb, None)):
                raise TypeError(
                    f"a stream needs a transport with recv, sendall and close; {transport!r} has no {verb}()"
                )
        if isinstance(transport, Raw) and getattr(type(transport).recv, "__module__", "_socket") in ("_socket", "ssl"):
            raise TypeError(f"{transport!r} would block the thread: make it with fibers.io.socket or fibers.io.ssl")
        self.transport = transport
        self._recv = transport.recv
        self._data: bytes | bytearray = (
            unread if unread.__class__ is bytes else bytes(memoryview(unread))
        )  # what has been received …
        self._at = 0  # … of which so much has been returned
        self._reading = False

    # -- reading ------------------------------------------------------------------------------------------------

    def read_some(self, size: int = RECEIVE_SIZE, *, timeout: float | None = None) -> bytes:
        """At least 1 and at most `size` (> 0) bytes, as soon as there are any; b"" at the end of the data."""
        _check_size("size", size, 1)
        if self._at < len(self._data) and not self._reading and (timeout is None or timeout >= 0):
            return self._take(min(size, len(self._data) - self._at))
        return self._read(timeout, self._read_some, size)

    def _read_some(self, size: int) -> bytes:
        if self._at >= len(self._data) and not self._receive(max(size, RECEIVE_SIZE)):
            return b""
        return self._take(min(size, len(self._data) - self._at))

    def read_exactly(self, size: int, *, timeout: float | None = None) -> bytes:
        """Exactly `size` (>= 0) bytes. Raises IncompleteReadError if the data ends before."""
        if 0 < size <= len(self._data) - self._at and not self._reading and (timeout is None or timeout >= 0):
            return self._take(size)
        _check_size("size", size, 0)
        return self._read(timeout, self._read_exactly, size)

    def _read_exactly(self, size: int) -> bytes:
        while (missing := size - (len(self._data) - self._at)) > 0:
            if not self._receive(max(missing, RECEIVE_SIZE)):
                raise IncompleteReadError(self._take_all(), f"{size} were")
        return self._take(size)

    def read_until(self, delimiter: bytes, *, limit: int = LIMIT, timeout: float | None = None) -> bytes:
        """Everything up to and including `delimiter` (not empty).

        Raises LimitExceededError if that would be more than `limit` bytes; nothing is taken then, and a larger limit or
        `read_some` goes on from there. Raises IncompleteReadError if the data ends before.
        """
        if delimiter and not self._reading and (timeout is None or timeout >= 0):
            data, at = self._data, self._at
            end = data.find(delimiter, at) + len(delimiter)
            if at < end <= at + limit and end >= at + len(delimiter):
                self._at = end
                return data[at:end] if data.__class__ is bytes else bytes(memoryview(data)[at:end])
        if not delimiter or not isinstance(delimiter, bytes | bytearray | memoryview):
            raise ValueError(f"the delimiter must be one byte or more, not {delimiter!r}")
        _check_size("limit", limit, len(delimiter))
        return self._read(timeout, self._read_until, bytes(delimiter), limit)

    def _read_until(self, delimiter: bytes, limit: int) -> bytes:
        size = self._find(delimiter, limit)
        if size is None:
            raise IncompleteReadError(self._take_all(), f"{delimiter!r} was")
        return self._take(size)

    def _find(self, delimiter: bytes, limit: int) -> int | None:
        """How many bytes there are up to the end of the delimiter; receives until there is one. None: the data ended."""
        searched = 0  # so many unread bytes do not begin a delimiter
        while True:
            at = self._at
            found = self._data.find(delimiter, at + searched)
            size = len(self._data) - at
            if found >= 0:
                size = found + len(delimiter) - at
                if size <= limit:
                    return size
            if size > limit:
                raise LimitExceededError(f"no {delimiter!r} within {limit} bytes")
            searched = max(0, size - len(delimiter) + 1)
            if not self._receive(RECEIVE_SIZE):
                return None

    def lines(self, *, limit: int = LIMIT, timeout: float | None = None) -> Iterator[bytes]:
        r"""The lines, without their ends (``\n`` or ``\r\n``), until the data ends; a last line may have no end.

        A line of more than `limit` bytes raises LimitExceededError. `timeout` is for each line. The iteration may be left
        at any line; what follows stays in the stream. After an error it can go on: `next()` tries again.
        """
        _check_size("limit", limit, 1)
        return _Lines(self, limit, timeout)

    def __iter__(self) -> Iterator[bytes]:
        return self.lines()

    def read_all(self, *, limit: int | None = None, timeout: float | None = None) -> bytes:
        """Everything until the data ends. Raises LimitExceededError, taking nothing, when it is more than `limit` bytes."""
        if limit is not None:
            _check_size("limit", limit, 0)
        return self._read(timeout, self._read_all, limit)

    def _read_all(self, limit: int | None) -> bytes:
        size = RECEIVE_SIZE
        while limit is None or len(self._data) - self._at <= limit:
            got = self._receive(size)
            if not got:
                return self._take_all()
            if got >= size // 2:
                size = min(size * 2, LARGEST_RECEIVE)
        raise LimitExceededError(f"the data does not end within {limit} bytes")

    def peek(self, size: int = 1, *, timeout: float | None = None) -> bytes:
        """The next `size` (> 0) bytes, which stay in the stream; fewer if the data ends before."""
        _check_size("size", size, 1)
        return self._read(timeout, self._peek, size)

    def _peek(self, size: int) -> bytes:
        while (missing := size - (len(self._data) - self._at)) > 0 and self._receive(max(missing, RECEIVE_SIZE)):
            pass
        return bytes(memoryview(self._data)[self._at : self._at + size])

    @property
    def buffered(self) -> int:
        """How many bytes can be read without asking the transport."""
        return len(self._data) - self._at

    # -- writing and ending ---------------------------------------------------------------------------------------

    def write_all(self, data: Any, *, timeout: float | None = None) -> None:
        """Send all of a bytes-like object. Nothing is kept here: when it returns, the transport has taken everything."""
        if timeout is None:
            self.transport.sendall(data)
        else:
            with _within(timeout):
                self.transport.sendall(data)

    def write_eof(self, *, timeout: float | None = None) -> None:
        """Tell the peer that nothing more will be written. Reading goes on.

        Raises TypeError if the transport has one direction only, or cannot close half of itself.
        """
        transport: Any = self.transport
        if hasattr(transport, "send_eof"):
            if timeout is None:
                transport.send_eof()
            else:
                with _within(timeout):
                    transport.send_eof()
        elif hasattr(transport, "shutdown"):
            transport.shutdown(1)  # SHUT_WR
        else:
            raise TypeError(f"{transport!r} cannot close its writing half alone; close() closes it")

    def close(self) -> None:
        """Close the transport. What has not been read is dropped. A second call does nothing."""
        self._data, self._at = b"", 0
        self.transport.close()

    def detach(self) -> tuple[Transport, bytes]:
        """The transport and the bytes that came in and have not been read; the stream is of no use afterwards.

        For a protocol that goes on as another one (an HTTP upgrade, STARTTLS: there the rest must be empty).
        """
        self._check_free()
        transport, rest = self.transport, self._take_all()
        self.transport = _DETACHED
        self._recv = _DETACHED.recv
        return transport, rest

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Stream over {self.transport!r}, {self.buffered} bytes buffered>"

    # -- the bytes --------------------------------------------------------------------------------------------------

    def _read(self, timeout: float | None, read: Callable[..., bytes], *args: Any) -> bytes:
        """`read(*args)` as the only reader, within `timeout`."""
        self._check_free()
        self._reading = True
        try:
            if timeout is None:
                data = read(*args)
            else:
                with _within(timeout):
                    data = read(*args)
            return data
        finally:
            self._reading = False

    def _check_free(self) -> None:
        if self._reading:
            raise BusyError(f"another fiber is reading from {self!r}; let one fiber read and hand on what it gets")

    def _receive(self, size: int) -> int:
        """Receive at most about `size` bytes more; how many there were, 0 at the end of the data."""
        data, at = self._data, self._at
        if at >= len(data):
            self._data, self._at = b"", 0
        elif len(data) > RECEIVE_SIZE and at * 2 >= len(data):
            self._data, self._at = data[at:], 0
        got = self._recv(min(size, LARGEST_RECEIVE))
        data, at = self._data, self._at
        if at >= len(data):
            self._data, self._at = got, 0
        elif got:
            if data.__class__ is bytearray:
                del data[:at]
                self._at = 0
                data += got
            else:
                gathered = bytearray(memoryview(data)[at:])
                gathered += got
                self._data, self._at = gathered, 0
        return len(got)

    def _take(self, size: int) -> bytes:
        """Cut `size` bytes, which are there, off the front."""
        data, at = self._data, self._at
        end = at + size
        if end == len(data):
            self._data, self._at = b"", 0
            if at == 0:
                return bytes(data)
        else:
            self._at = end
        return data[at:end] if data.__class__ is bytes else bytes(memoryview(data)[at:end])

    def _take_all(self) -> bytes:
        return self._take(len(self._data) - self._at)


class _Lines:
    """The iterator over the lines. No generator: that would be over after a timeout, as if the data had ended."""

    __slots__ = ("_limit", "_stream", "_timeout")

    def __init__(self, stream: Stream, limit: int, timeout: float | None) -> None:
        self._stream = stream
        self._limit = limit
        self._timeout = timeout

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        try:
            line = self._stream.read_until(b"\n", limit=self._limit, timeout=self._timeout)
        except IncompleteReadError as last:
            if last.partial:
                return last.partial
            raise StopIteration from None
        return line[:-2] if line.endswith(b"\r\n") else line[:-1]


class _Detached:
    """What a stream has for a transport when its own has been taken away."""

    def recv(self, size: int, /) -> bytes:
        raise ValueError("the transport of this stream has been detached")

    def sendall(self, data: Any, /) -> None:
        raise ValueError("the transport of this stream has been detached")

    def close(self) -> None: ...

    def __repr__(self) -> str:
        return "nothing (detached)"


_DETACHED: Final = _Detached()


def _within(timeout: float) -> cancel.timeout:
    return cancel.poll() if timeout == 0 else cancel.timeout(timeout)


def _check_size(what: str, size: int, least: int) -> None:
    if not isinstance(size, int) or isinstance(size, bool):
        raise TypeError(f"{what} must be a number of bytes, not {size!r}")
    if size < least:
        raise ValueError(f"{what} must be {least} or more bytes, not {size}")
