"""`os.read`, `write` and their kin, which suspend the fiber; `close`, `dup2` and `closerange`, which tell the loop.

A file in non-blocking mode is left to the standard call. Of one in blocking mode it is asked first whether it is ready,
which a regular file always is, and if not it is waited for. Between that and the call another process may take what has
come; then the call blocks the thread, as it ever did.

A blocking `write` to a pipe waits until everything is written. Ours writes at most PIPE_BUF bytes at a time, which a pipe
that polls as writable takes at once. (The system makes no promise that longer writes stay in one piece.)
"""

import os
from select import PIPE_BUF, POLLIN, POLLOUT
from stat import S_ISFIFO, S_ISSOCK
from typing import Any, Final

from .. import lowlevel
from ..core.scheduler import state
from .originals import module
from .waiting import blocking_mode, ready_now

_os: Final[Any] = module("os")


def _may_wait(fd: Any) -> bool:
    scheduler = state.scheduler
    return (scheduler is None or scheduler.current is not None) and type(fd) is int and fd >= 0 and blocking_mode(fd)


def _await_readable(fd: Any) -> None:
    if _may_wait(fd) and not ready_now(fd, POLLIN):
        lowlevel.wait_readable(fd)


def read(fd: int, length: int, /) -> bytes:
    """As `os.read`."""
    _await_readable(fd)
    return _os.read(fd, length)  # type: ignore[no-any-return]


def readv(fd: int, buffers: Any, /) -> int:
    """As `os.readv`."""
    _await_readable(fd)
    return _os.readv(fd, buffers)  # type: ignore[no-any-return]


def write(fd: int, data: Any, /) -> int:
    """As `os.write`."""
    if not _may_wait(fd):
        return _os.write(fd, data)  # type: ignore[no-any-return]
    mode = os.fstat(fd).st_mode
    if not (S_ISFIFO(mode) or S_ISSOCK(mode) or os.isatty(fd)):
        return _os.write(fd, data)  # type: ignore[no-any-return]
    view = memoryview(data).cast("B")
    written: int = 0
    while True:
        if not ready_now(fd, POLLOUT):
            lowlevel.wait_writable(fd)
        written += _os.write(fd, view[written : written + PIPE_BUF])
        if written >= len(view):
            return written


def writev(fd: int, buffers: Any, /) -> int:
    """As `os.writev`."""
    return write(fd, b"".join(buffers)) if _may_wait(fd) else _os.writev(fd, buffers)


NAMES: Final = {
    name: ours
    for name, ours in (("read", read), ("readv", readv), ("write", write), ("writev", writev))
    if hasattr(os, name)
}
