"""Pipes, FIFOs and terminals that belong to us: a transport over a non-blocking fd, registered for its lifetime.

It waits as a socket does (waiting.py): try, wait for an edge, try again; one operation at a time in each direction;
`sendall` keeps the turn; closing wakes who waits. What is different from sockets:

* There is no object below that owns the fd, so the state is in the object, and so is the duty to close.
* A short read proves nothing (a pipe gives what one of its pages has), so there is no shortcut.
* `read` of a FIFO says b"" also when there has been no writer so far. `poll` knows better: the end of the data comes with
  POLLHUP, which is there if a writer was and is gone. So b"" without POLLHUP is "not yet", and the reader waits. After the
  end another writer may come, and reading goes on.
* The master of a pseudo-terminal says EIO when its other side is closed (Linux). That is its way to say b"".

O_NONBLOCK is a property of the *open file description*, which all duplicates of an fd share, with other processes, too.
The descriptions here were made by us. (What was inherited is in inherited.py.) Who gives an end of `open_pipe()` to a child
gives it a non-blocking file; programs that expect a blocking one want a pipe of `fibers.io.subprocess`, or `os.pipe()`.
"""

import errno
import os
import select
import sys
import warnings
from fcntl import ioctl
from functools import partial
from stat import S_ISFIFO
from typing import Any, Final

from ..channels.readiness import finders
from ..core.runtime import current_time, sleep
from ..core.scheduler import check_seconds
from ..core.scheduler import state as thread
from ..errors import ClosedError, OwnershipError
from ..eventloop import FOREVER, READ, Direction, EventLoop, Handle, ownership
from .hop import blocking
from .state import State, _close_fd, _let_go, _nothing, claim
from .stream import Stream
from .waiting import perform

#: ioctl of Linux that only the master of a pseudo-terminal knows: the number of its other side.
_TIOCGPTN: Final = 0x80045430
#: The longest pause (seconds) while `open_fifo` waits for somebody to read.
_PAUSE: Final = 0.05


def is_master(fd: int) -> bool:
    """Is this the master of a pseudo-terminal? (Where the kernel cannot be asked: no.)"""
    if sys.platform != "linux":
        return False
    try:
        ioctl(fd, _TIOCGPTN, bytes(4))
    except OSError:
        return False
    return True


class Pipe:
    """An fd that is ours and non-blocking, with the verbs of a socket: a transport for `Stream`.

    `closing` are more fds that are closed with it. Any fiber may call any method; two that read at once are served in
    order of arrival. Raises ClosedError (EBADF) after `close`, TimeoutError after the timeout; else what the kernel says,
    BrokenPipeError among it.
    """

    __slots__ = ("__weakref__", "_closing", "_fd", "_fifo", "_master", "_state")

    def __init__(self, fd: int, closing: tuple[int, ...] = ()) -> None:
        self._fd = -1
        scheduler = thread.scheduler
        handle = Handle(fd, None) if scheduler is None or scheduler.closed else scheduler.loop.handle(fd, True)
        self._state = State(self, handle, None, False)
        self._closing = closing
        self._fifo = S_ISFIFO(os.fstat(fd).st_mode)
        self._master = not self._fifo and is_master(fd)
        self._fd = fd

    def fileno(self) -> int:
        """The number of the fd; -1 when it is closed."""
        return self._fd

    def settimeout(self, value: float | None) -> None:
        """The most that each operation waits: seconds; None for ever, 0 not at all (BlockingIOError)."""
        self._state.timeout = None if value is None else float(check_seconds("timeout", value))

    def gettimeout(self) -> float | None:
        """The timeout in seconds, or None."""
        return self._state.timeout

    # -- reading ------------------------------------------------------------------------------------------------------

    def recv(self, size: int, /) -> bytes:
        """At most `size` bytes, as soon as there are any; b"" at the end of the data."""
        return perform(self, self._open(), self._state.reading, 0, _read, size)  # type: ignore[no-any-return]

    def recv_into(self, buffer: Any, /) -> int:
        """As `recv`, into a writable buffer; how many bytes it were."""
        return perform(self, self._open(), self._state.reading, 0, _read_into, buffer)  # type: ignore[no-any-return]

    # -- writing ------------------------------------------------------------------------------------------------------

    def send(self, data: Any, /) -> int:
        """Write what there is room for, waiting until there is some; how many bytes it were."""
        return perform(self, self._open(), self._state.writing, 0, _write, data)  # type: ignore[no-any-return]

    def sendall(self, data: Any, /) -> None:
        """Write everything; no other fiber's bytes come between.

        If it is interrupted or times out, the exception has an attribute `bytes_sent`.
        """
        state = self._open()
        with memoryview(data) as whole, whole.cast("B") as view:
            push = _Push(view)
            try:
                perform(self, state, state.writing, 0, push)
            except BaseException as error:
                if hasattr(error, "__dict__"):
                    error.bytes_sent = push.sent  # type: ignore[attr-defined]
                raise

    # -- ending -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the fd, waking who waits for it with ClosedError. Any thread; a second call does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            _let_go(self._state.handle, partial(_close_all, (fd, *self._closing)))

    def detach(self) -> int:
        """Give the fd away unclosed: who waits gets ClosedError. It stays non-blocking. -1 if it was closed."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            _let_go(self._state.handle, partial(_close_all, self._closing) if self._closing else _nothing)
        return fd

    def __del__(self) -> None:
        fd, self._fd = getattr(self, "_fd", -1), -1
        if fd < 0:
            return
        warnings.warn(f"unclosed {self._named(fd)}", ResourceWarning, stacklevel=2, source=self)
        handle = self._state.handle
        finish = partial(_close_all, (fd, *self._closing))
        if handle.loop is None or handle.closed or handle.loop.closed:
            finish()
        else:
            handle.loop.post(handle.loop.release, handle, finish)  # a finaliser may run anywhere

    def __repr__(self) -> str:
        return f"<{self._named(self._fd)}>"

    def _named(self, fd: int) -> str:
        return f"fibers.io.pipe.Pipe fd={fd}" if fd >= 0 else "closed fibers.io.pipe.Pipe"

    def _open(self) -> State:
        if self._fd < 0:
            raise ClosedError("this pipe is closed")
        return self._state


def _read(pipe: Pipe, size: int) -> bytes:
    try:
        data = os.read(pipe._fd, size)
    except OSError as error:
        if error.errno == errno.EIO and pipe._master:
            return b""
        raise
    if not data and size and pipe._fifo:
        _check_end(pipe._fd)
    return data


def _read_into(pipe: Pipe, buffer: Any) -> int:
    try:
        count = os.readv(pipe._fd, [buffer])
    except OSError as error:
        if error.errno == errno.EIO and pipe._master:
            return 0
        raise
    if not count and len(buffer) and pipe._fifo:
        _check_end(pipe._fd)
    return count


def _check_end(fd: int) -> None:
    """`read` has said b"". Raises BlockingIOError if this is a FIFO to which nobody has written so far."""
    look = select.poll()
    look.register(fd, select.POLLIN)
    if not look.poll(0):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def _write(pipe: Pipe, data: Any) -> int:
    return os.write(pipe._fd, data)


class _Push:
    """Writes all of `view`, as one operation that may be tried again."""

    __slots__ = ("sent", "view")

    def __init__(self, view: memoryview) -> None:
        self.view = view
        self.sent = 0

    def __call__(self, pipe: Pipe) -> None:
        view = self.view
        while self.sent < len(view):
            self.sent += os.write(pipe._fd, view[self.sent :])


def _close_all(fds: tuple[int, ...]) -> None:
    for fd in fds:
        _close_fd(fd)


def _observed(file: Any, interest: int, loop: EventLoop) -> Direction | None:
    """For `readable` and `writable`, as for sockets."""
    if isinstance(file, Stream):
        file = file.transport
    if not isinstance(file, Pipe):
        return None
    state = file._open()
    direction = state.reading if interest == READ else state.writing
    if direction.loop is loop and not direction.closed:
        return direction
    try:
        return claim(state, direction, loop)
    except OwnershipError:  # another thread waits for it at this moment
        if ownership.STRICT:
            raise
        return None


finders.append(_observed)


def open_pipe() -> tuple[Stream, Stream]:
    """A new pipe: a Stream that reads and one that writes. Both fds close on exec.

    The reader comes to the end of the data when the writer is closed; writing without a reader raises BrokenPipeError.
    Raises OSError (EMFILE, ENFILE) if there are no fds left.
    """
    if hasattr(os, "pipe2"):
        reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    else:
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)
    return Stream(Pipe(reading)), Stream(Pipe(writing))


def open_fifo(path: Any, mode: str = "r", *, timeout: float | None = None) -> Stream:
    """Open a FIFO (a named pipe): "r" to read, "w" to write, "r+" both, so that the data never ends.

    Reading does not need a writer to be there: the first read waits for one. When the last writer is gone the data ends;
    when another one comes, reading goes on. Writing needs a reader, who is waited for, at most `timeout` seconds
    (TimeoutError). Raises ValueError for another mode and for a path that is no FIFO, else OSError as `os.open`.
    """
    flags = {"r": os.O_RDONLY, "w": os.O_WRONLY, "r+": os.O_RDWR}.get(mode)
    if flags is None:
        raise ValueError(f"the mode of a FIFO is 'r', 'w' or 'r+', not {mode!r}")
    deadline = FOREVER if timeout is None else current_time() + check_seconds("timeout", timeout)
    pause = 0.001
    while True:
        try:
            return Stream(Pipe(blocking(_open_fifo, path, flags)))
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
        left = deadline - current_time()  # nobody reads, and no event will tell when somebody does
        if left <= 0:
            raise TimeoutError(f"nobody has opened {path!r} for reading within {timeout} seconds")
        sleep(min(pause, left))
        pause = min(pause * 2, _PAUSE)


def _open_fifo(path: Any, flags: int) -> int:
    fd = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    if not S_ISFIFO(os.fstat(fd).st_mode):
        os.close(fd)
        raise ValueError(f"{path!r} is no FIFO; fibers.io.open() opens files")
    return fd
