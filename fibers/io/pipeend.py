"""One end of a pipe to a child process, unbuffered.

Facts, and what follows:

* `O_NONBLOCK` belongs to the open file description. The two ends of a pipe have one each, so our end can be non-blocking
  and the child's is not. But our end may itself be handed to a second child (`sort` reads what `ls` writes), which then
  has our description for its stdin. So the flag is set at the first operation of ours on an end, not before, and taken
  away again when the end is given to a child (`lend`): a program that only builds a pipeline never has it set.
* The FileIO that `subprocess` has made goes on owning the fd, and closes it.
* A read of a pipe that gives less than was asked for has emptied it, so the latch needs no failing call (turns.py).
"""

import errno
import io
import os
import warnings
from typing import Any, Final
from weakref import WeakValueDictionary

from ..core.scheduler import state as thread
from ..eventloop import Handle
from .state import State, _let_go
from .waiting import perform

#: Bytes asked of a pipe at once, where nobody has said how many: what a pipe holds on Linux.
CHUNK: Final = 65536

#: The ends that have been made non-blocking, by fd.
_switched: "Final[WeakValueDictionary[int, PipeEnd]]" = WeakValueDictionary()


class PipeEnd(io.RawIOBase):
    """One end of a pipe, unbuffered, over the FileIO that owns its fd. For fibers of any thread."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        self._fd = fd = file.fileno()
        scheduler = thread.scheduler
        if scheduler is None or scheduler.closed:  # noqa: SIM108
            handle = Handle(fd, None)
        else:
            handle = scheduler.loop.handle(fd, True)
        self._state = State(self, handle, None, True)  # a short read of a pipe has emptied it
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
        """A child is about to get this end: make it blocking, as programs expect. Our next operation undoes that."""
        if self._nonblocking and not self._closed:
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
            if _switched.get(self._fd) is self:
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
