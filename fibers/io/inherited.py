"""Files that were inherited or that somebody else owns: `open_fd`. Their O_NONBLOCK is never changed.

O_NONBLOCK belongs to the open file description, and that is shared: by the shell that waits for its terminal to come back,
by the other programs of a pipeline, by whoever has the fd from us. A program that sets it and is killed leaves a shell
behind that reads EAGAIN. So it is not set, not even for a moment. In order of preference:

1. *A description of our own.* A pipe, FIFO or terminal can be opened again through /proc/self/fd/N (Linux) or by the
   terminal's name; the new description is non-blocking and ours, and registered for its lifetime. Not done for the master
   of a pseudo-terminal (that would make another terminal), nor through /dev/fd elsewhere (that is a `dup`). It may be
   refused: after setuid, without /proc, an exclusive terminal, a pipe that nobody reads any more. What came out is
   compared with what was meant.
2. *Readiness, then one attempt that cannot block:* MSG_DONTWAIT for sockets, RWF_NOWAIT for pipes on Linux. Where these
   are not to be had, the attempt is made in a worker thread, so that somebody else who was faster (two programs may read
   one terminal) makes that thread wait, and not the loop; the fiber then cannot be interrupted until there is something.
   Writes are then of PIPE_BUF bytes at most, which a pipe that is ready has room for, and a terminal has soon.
3. *Regular files and whatever cannot be waited for:* each call in a worker thread.

A program in the background that reads from its terminal is stopped by SIGTTIN, as always; who ignores that signal gets EIO.
"""

import errno
import os
import select
import socket as std
import stat
import sys
from _socket import MSG_DONTWAIT
from _socket import socket as Raw  # noqa: N812
from collections.abc import Callable
from typing import Any, Final, TypeVar

from ..core.cancel import timeout as time_limit
from ..sync.lock import Lock
from .hop import blocking, hop
from .pipe import Pipe, is_master
from .stream import Stream
from .waiting import perform

T = TypeVar("T")

_NOWAIT: Final[int] = getattr(os, "RWF_NOWAIT", 0)
_MODES: Final = {"r": os.O_RDONLY, "w": os.O_WRONLY, "r+": os.O_RDWR}
#: Bytes that a pipe has room for if poll says that it can be written (POSIX).
PIPE_BUF: Final = select.PIPE_BUF


def open_fd(fd: int, mode: str, *, closefd: bool = True, shared: bool = True) -> Stream:
    """A Stream over an open fd of any kind: a pipe, a FIFO, a terminal, a socket, a file.

    `mode` is "r", "w" or "r+". With `closefd` closing the stream closes the fd. Other processes may share the file: its
    O_NONBLOCK is left as it is. Who knows that nobody shares it (`os.openpty()`, `os.pipe()`) may say `shared=False`: it is
    made non-blocking and costs least. Raises OSError (EBADF) for what is no open file, ValueError for another mode.
    """
    if mode not in _MODES:
        raise ValueError(f"the mode of open_fd() is 'r', 'w' or 'r+', not {mode!r}")
    if not isinstance(fd, int) or isinstance(fd, bool):
        raise TypeError(f"open_fd() takes the number of an open file, not {fd!r}")
    status = os.fstat(fd)
    kind = stat.S_IFMT(status.st_mode)
    waitable = kind in (stat.S_IFIFO, stat.S_IFSOCK) or (kind == stat.S_IFCHR and os.isatty(fd))
    if waitable and not shared:
        os.set_blocking(fd, False)
        return Stream(Pipe(fd if closefd else os.dup(fd)))
    owned = (fd,) if closefd else ()
    if waitable:
        again = _again(fd, _MODES[mode], status)
        if again >= 0:
            return Stream(Pipe(again, owned))
    if kind == stat.S_IFSOCK and std.getdefaulttimeout() is None:  # (with one a socket object would set O_NONBLOCK)
        return Stream(SharedSocket(fd, closefd))
    return Stream(Shared(fd, closefd, waitable))


def _again(fd: int, mode: int, status: os.stat_result) -> int:
    """The same file once more, under a description of our own, non-blocking. -1 if that cannot be had."""
    if stat.S_ISSOCK(status.st_mode) or is_master(fd):
        return -1
    try:
        if sys.platform == "linux":
            path = f"/proc/self/fd/{fd}"
        elif stat.S_ISCHR(status.st_mode):
            path = os.ttyname(fd)
        else:
            return -1
        again = os.open(path, mode | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise
        return -1
    found = os.fstat(again)
    if (found.st_dev, found.st_ino, found.st_rdev) != (status.st_dev, status.st_ino, status.st_rdev):
        os.close(again)
        return -1
    return again


class Shared(Pipe):
    """A transport over a file whose description is not ours (2 and 3 of the module's text).

    It waits for a duplicate of the fd, which is registered for its lifetime; only the attempts are different.
    """

    __slots__ = ("_nowait", "_readers", "_waitable", "_writers")

    def __init__(self, fd: int, closefd: bool, waitable: bool) -> None:
        super().__init__(os.dup(fd), (fd,) if closefd else ())
        self._waitable = waitable
        self._nowait = waitable and _NOWAIT != 0
        self._readers = Lock()
        self._writers = Lock()

    def recv(self, size: int, /) -> bytes:
        """At most `size` bytes, as soon as there are any; b"" at the end of the data."""
        with self._readers:
            while True:
                state = self._open()
                if self._waitable:
                    perform(self, state, state.reading, 0, _look, select.POLLIN)
                try:
                    return self._read(self._fd, size)
                except BlockingIOError:
                    continue  # somebody else was faster
                except OSError as error:
                    if error.errno == errno.EIO and self._master:
                        return b""
                    raise

    def recv_into(self, buffer: Any, /) -> int:
        """As `recv`, into a writable buffer; how many bytes it were."""
        with memoryview(buffer) as whole, whole.cast("B") as view:
            data = self.recv(len(view))
            view[: len(data)] = data
            return len(data)

    def send(self, data: Any, /) -> int:
        """Write what there is room for, waiting until there is some; how many bytes it were."""
        with self._writers:
            return self._send(data)

    def sendall(self, data: Any, /) -> None:
        """Write everything; no other fiber's bytes come between. An exception has an attribute `bytes_sent`."""
        sent = 0
        with self._writers, memoryview(data) as whole, whole.cast("B") as view:
            try:
                with time_limit(self._state.timeout or None):
                    while sent < len(view):
                        sent += self._send(view[sent:])
            except BaseException as error:
                if hasattr(error, "__dict__"):
                    error.bytes_sent = sent  # type: ignore[attr-defined]
                raise

    def _send(self, data: Any) -> int:
        while True:
            state = self._open()
            if self._waitable:
                perform(self, state, state.writing, 0, _look, select.POLLOUT)
            try:
                return self._write(self._fd, data)
            except BlockingIOError:
                continue

    def _call(self, fn: Callable[..., T], *args: Any) -> T:
        """In a worker. Who has waited for readiness could be interrupted there, and has found something."""
        return hop(fn, *args) if self._waitable else blocking(fn, *args)

    def _read(self, fd: int, size: int) -> bytes:
        if self._nowait:
            buffer = bytearray(size)
            try:
                count = os.preadv(fd, [buffer], -1, _NOWAIT)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ESPIPE):
                    raise
                self._nowait = False
            else:
                return bytes(memoryview(buffer)[:count])
        return self._call(os.read, fd, size)

    def _write(self, fd: int, data: Any) -> int:
        if self._nowait:
            try:
                return os.pwritev(fd, [data], -1, _NOWAIT)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ESPIPE):
                    raise
                self._nowait = False
        if self._waitable:
            data = memoryview(data)[:PIPE_BUF]
        return self._call(os.write, fd, data)


def _look(pipe: Shared, events: int) -> None:
    """Raises BlockingIOError if the file is not ready now."""
    look = select.poll()
    look.register(pipe._fd, events)
    if not look.poll(0):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


class SharedSocket(Shared):
    """A socket whose O_NONBLOCK is not ours: every call says for itself that it must not wait."""

    __slots__ = ("_sock",)

    def __init__(self, fd: int, closefd: bool) -> None:
        self._sock = Raw(fileno=os.dup(fd))
        try:
            super().__init__(fd, closefd, True)
        except BaseException:
            self._sock.close()
            raise

    def _read(self, fd: int, size: int) -> bytes:
        return self._sock.recv(size, MSG_DONTWAIT)

    def _write(self, fd: int, data: Any) -> int:
        return self._sock.send(data, MSG_DONTWAIT)

    def shutdown(self, how: int, /) -> None:
        """As `socket.shutdown`."""
        self._open()
        self._sock.shutdown(how)

    def close(self) -> None:
        """As `Pipe.close`."""
        super().close()
        self._sock.close()

    def detach(self) -> int:
        """As `Pipe.detach`."""
        self._sock.close()
        return super().detach()
