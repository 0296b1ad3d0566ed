"""`os.read`, `write` and their kin, which suspend the fiber; `close`, `dup2` and `closerange`, which tell the loop.

A file in non-blocking mode is left to the standard call. Of one in blocking mode it is asked first whether it is ready,
which a regular file always is, and if not it is waited for. Between that and the call another process may take what has
come; then the call blocks the thread, as it ever did.

A blocking `write` to a pipe waits until everything is written. Ours writes at most PIPE_BUF bytes at a time, which a pipe
that polls as writable takes at once. (The system makes no promise that longer writes stay in one piece.)
"""

import errno
import os
from collections.abc import Callable
from operator import index
from resource import RLIMIT_NOFILE, getrlimit
from select import PIPE_BUF, POLLIN, POLLOUT
from stat import S_ISFIFO, S_ISSOCK
from typing import Any, Final

from .. import lowlevel
from ..core.lifecycle import schedulers
from ..core.scheduler import state
from ..io.state import states
from .originals import module
from .waiting import ready_now, would_wait

_os: Final[Any] = module("os")


def _may_wait(fd: Any, wrong_mode: int) -> bool:
    scheduler = state.scheduler
    may = (scheduler is None or scheduler.current is not None) and type(fd) is int and fd >= 0
    return may and would_wait(fd, wrong_mode)


def _await_readable(fd: Any) -> None:
    if _may_wait(fd, os.O_WRONLY) and not ready_now(fd, POLLIN):
        lowlevel.wait_readable(fd)


def _ours(fd: int) -> bool:
    """Is it the fd of a socket of ours in blocking mode? That is non-blocking underneath, and would wait otherwise."""
    return S_ISSOCK(os.fstat(fd).st_mode) and any(
        each.handle.fd == fd and each.timeout != 0.0 and not each.handle.closed for each in list(states.values())
    )


def read(fd: int, length: int, /) -> bytes:
    """As `os.read`."""
    return _reading(_os.read, fd, length)  # type: ignore[no-any-return]


def readv(fd: int, buffers: Any, /) -> int:
    """As `os.readv`."""
    return _reading(_os.readv, fd, buffers)  # type: ignore[no-any-return]


def _reading(call: Callable[..., Any], fd: int, what: Any) -> Any:
    _await_readable(fd)
    while True:
        try:
            return call(fd, what)
        except BlockingIOError:
            if not _ours(fd):
                raise
        lowlevel.wait_readable(fd)


def write(fd: int, data: Any, /) -> int:
    """As `os.write`."""
    if not _may_wait(fd, os.O_RDONLY):
        try:
            return _os.write(fd, data)  # type: ignore[no-any-return]
        except BlockingIOError:
            if not _ours(fd):
                raise
    mode = os.fstat(fd).st_mode
    if not (S_ISFIFO(mode) or S_ISSOCK(mode) or os.isatty(fd)):
        return _os.write(fd, data)  # type: ignore[no-any-return]
    view = memoryview(data).cast("B")
    written: int = 0
    while True:
        if not ready_now(fd, POLLOUT):
            lowlevel.wait_writable(fd)
        try:
            written += _os.write(fd, view[written : written + PIPE_BUF])
        except BlockingIOError:
            continue  # a socket of ours, and another fiber was first
        if written >= len(view):
            return written


def writev(fd: int, buffers: Any, /) -> int:
    """As `os.writev`."""
    return write(fd, b"".join(buffers)) if _may_wait(fd, os.O_RDONLY) else _os.writev(fd, buffers)


# -- closing ----------------------------------------------------------------------------------------------------------


def _runtime_fds() -> set[int]:
    """What the loops have open for themselves."""
    found = set()
    for scheduler in schedulers():
        loop: Any = scheduler.loop
        poller = getattr(loop, "_poller", None)
        if poller is not None:
            found.add(poller.fileno())
        for waker in (loop._waker, loop._signals):
            if waker is not None:
                found.add(waker.fd)
        if loop._signals is not None:
            found.add(loop._signals._writer.fileno())
    return found - {-1}


def _forget(fd: int) -> None:
    """If a loop knows a file of this number, it has been closed: who waits for it gets ClosedError."""
    scheduler = state.scheduler
    if scheduler is not None and not scheduler.closed and scheduler.loop.taken(fd):
        scheduler.in_runtime(scheduler.loop.handle, fd, True)


def close(fd: int) -> None:
    """As `os.close`. Who waits for the file gets ClosedError. What the runtime has open is not open for the program."""
    number = _number(fd)
    if number in _runtime_fds():
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    _forget(number)
    _os.close(fd)


def closerange(fd_low: int, fd_high: int, /) -> None:
    """As `os.closerange`, but for what the runtime has open (which no program that is started inherits)."""
    kept = sorted(fd for fd in _runtime_fds() if fd_low <= fd < fd_high)
    for fd in range(max(fd_low, 0), min(fd_high, getrlimit(RLIMIT_NOFILE)[0])):
        if fd not in kept:
            _forget(fd)
    for fd in kept:
        _os.closerange(fd_low, fd)
        fd_low = fd + 1
    _os.closerange(fd_low, fd_high)


def dup2(fd: int, fd2: int, inheritable: bool = True) -> int:
    """As `os.dup2`. Who waits for the file that had the number `fd2` gets ClosedError."""
    if fd != fd2:
        _forget(_number(fd2))
    return _os.dup2(fd, fd2, inheritable)  # type: ignore[no-any-return]


def _number(fd: Any) -> int:
    return index(fd) if hasattr(fd, "__index__") else -1  # the standard call says what is wrong with it


NAMES: Final = {
    name: ours
    for name, ours in (
        ("close", close),
        ("closerange", closerange),
        ("dup2", dup2),
        ("read", read),
        ("readv", readv),
        ("write", write),
        ("writev", writev),
    )
    if hasattr(os, name)
}
