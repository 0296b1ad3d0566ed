"""Waiting for any of several files, with the meaning that `poll` gives to it.

A look that does not wait comes first, by the standard call; so here it is known that nothing is ready. One file in one
direction is waited for as a borrowed fd. Several are put into a kernel object of their own, an epoll or a kqueue, which is
itself a file that can be read as soon as one of them is ready: so the loop has one file to wait for, however many there
are. Both are level-triggered, as `poll` is. The object is made for each wait, since a number may stand for another file by
the next. Where there is neither (or no fd is left for one), the call is made by a worker thread.
"""

import errno
import os
from collections.abc import Callable, Mapping
from fcntl import F_GETFL, fcntl
from select import POLLERR, POLLHUP, POLLIN, POLLOUT
from typing import Any, Final

from .. import lowlevel
from ..threads.to_thread import to_thread
from .originals import module

_select: Final[Any] = module("select")

READABLE: Final = POLLIN | getattr(_select, "POLLRDNORM", 0)
WRITABLE: Final = POLLOUT | getattr(_select, "POLLWRNORM", 0)
_ENDS: Final = POLLERR | POLLHUP


def wait_any(files: Mapping[int, int], timeout: float | None, call: Callable[[float | None], Any]) -> bool:
    """Wait until one of `files` (fd: events, as for `poll`) may be ready; False after `timeout` seconds.

    `call(seconds)` is the blocking call itself, for a worker thread to make where there is no other way.
    """
    if len(files) == 1:
        ((fd, events),) = files.items()
        events &= ~_ENDS
        if not events & ~READABLE and events:
            return until_readable(fd, timeout)
        if not events & ~WRITABLE and events:
            return _until(lowlevel.wait_writable, fd, timeout)
    gathered = _gather(files)
    if gathered is None:
        to_thread(call, timeout, cancellable=True)
        return True
    with gathered:
        return until_readable(gathered.fileno(), timeout)


def until_readable(fd: int, timeout: float | None) -> bool:
    """Wait until an fd can be read; False after `timeout` seconds."""
    return _until(lowlevel.wait_readable, fd, timeout)


def _until(wait: Callable[[int, float | None], None], fd: int, timeout: float | None) -> bool:
    try:
        wait(fd, timeout)
    except TimeoutError:
        return False
    return True


def _gather(files: Mapping[int, int]) -> Any:
    """A kernel object that can be read when one of `files` is ready; None: there can be none."""
    try:
        if hasattr(_select, "epoll"):
            return _in_epoll(files)
        if hasattr(_select, "kqueue"):
            return _in_kqueue(files)
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.ENOMEM, errno.EPERM, errno.EINVAL):
            raise
    return None


def _in_epoll(files: Mapping[int, int]) -> Any:
    gathered = _select.epoll()
    try:
        for fd, events in files.items():
            gathered.register(fd, events)
    except BaseException:
        gathered.close()
        raise
    return gathered


class _Kqueue:
    """A kqueue as a block."""

    __slots__ = ("_queue", "fileno")

    def __init__(self) -> None:
        self._queue = _select.kqueue()
        self.fileno = self._queue.fileno

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None:
        self._queue.close()

    def add(self, files: Mapping[int, int]) -> None:
        read, write, add = _select.KQ_FILTER_READ, _select.KQ_FILTER_WRITE, _select.KQ_EV_ADD
        changes = [_select.kevent(fd, read, add) for fd, events in files.items() if events & ~WRITABLE]
        changes += [_select.kevent(fd, write, add) for fd, events in files.items() if events & WRITABLE]
        self._queue.control(changes, 0)


def _in_kqueue(files: Mapping[int, int]) -> Any:
    gathered = _Kqueue()
    try:
        gathered.add(files)
    except BaseException:
        gathered.__exit__()
        raise
    return gathered


def ready_now(fd: int, events: int) -> int:
    """What `poll` says of an fd at this moment."""
    look = _select.poll()
    look.register(fd, events)
    found = look.poll(0)
    return found[0][1] if found else 0


def would_wait(fd: int, wrong_mode: int) -> bool:
    """Does a system call on the fd wait where it must? Not if it is non-blocking, no open file, or open for the other
    direction only (`wrong_mode`: O_RDONLY of one that is to be written, say): then the call itself says so.
    """
    try:
        flags = fcntl(fd, F_GETFL)
    except OSError:
        return False
    return not flags & os.O_NONBLOCK and flags & os.O_ACCMODE != wrong_mode
