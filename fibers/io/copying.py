"""Copying a file: `copyfile`, as `shutil.copyfile`.

The kernel copies (`copy_file_range`, which some file systems do without moving any data; else `sendfile`; else `read` and
`write`), a piece at a time: between two pieces the copy can be interrupted, and lets other files have a thread. PIECE is
what takes a few milliseconds in memory; the interpreter is not held meanwhile. What has been copied when the copy ends
early, by an error or an interruption, stays in the destination, as `shutil.copyfile` leaves it.
"""

import errno
import os
import shutil
import stat
from collections.abc import Callable
from typing import Any, Final, TypeVar

from .hop import blocking, hop

#: Bytes copied in one call.
PIECE: Final = 8 << 20
#: Bytes copied by `read` and `write`, which hold them in memory.
SMALL_PIECE: Final = 1 << 20
#: "This way does not work with these files."
_UNSUPPORTED: Final = frozenset(
    (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.ETXTBSY, errno.EPERM, errno.ENOTSOCK)
)

P = TypeVar("P")


def copyfile(src: Any, dst: P, *, follow_symlinks: bool = True) -> P:
    """Copy the contents of `src` to `dst`, which is replaced, and return `dst`. As `shutil.copyfile`.

    Raises `shutil.SameFileError` if they are the same file, `shutil.SpecialFileError` for FIFOs, else OSError.
    """
    opened = blocking(_open_both, src, dst, follow_symlinks)
    if opened is None:
        return dst
    reading, writing = opened
    try:
        for way in _WAYS:
            if not _copy(way, reading, writing):
                break
    finally:
        hop(_close_both, reading, writing)
    return dst


def _copy(way: Callable[[int, int], int], reading: int, writing: int) -> bool:
    """Copy to the end. True: this way does not work with these files, nothing has been copied by it."""
    copied = False
    while True:
        try:
            if not blocking(way, reading, writing):
                # Files of /proc have no size, and the fast ways take that for their end: the last way knows.
                return not copied and way is not _by_hand
        except OSError as error:
            if copied or way is _by_hand or error.errno not in _UNSUPPORTED:
                raise
            return True
        copied = True


def _open_both(src: Any, dst: Any, follow_symlinks: bool) -> tuple[int, int] | None:
    """Both fds; None if a link was made and there is nothing to copy."""
    if not follow_symlinks and os.path.islink(src):
        shutil.copyfile(src, dst, follow_symlinks=False)
        return None
    for path in (src, dst):
        try:
            status = os.stat(path)
        except OSError:
            continue
        if stat.S_ISFIFO(status.st_mode):
            raise shutil.SpecialFileError(f"`{os.fsdecode(path)}` is a named pipe")
    if os.path.exists(dst) and os.path.samefile(src, dst):
        raise shutil.SameFileError(f"{src!r} and {dst!r} are the same file")
    reading = os.open(src, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if stat.S_ISDIR(os.fstat(reading).st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), src)
        return reading, os.open(dst, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    except BaseException:
        os.close(reading)
        raise


def _close_both(reading: int, writing: int) -> None:
    try:
        os.close(reading)
    finally:
        os.close(writing)


def _by_range(reading: int, writing: int) -> int:
    return os.copy_file_range(reading, writing, PIECE)


def _by_sendfile(reading: int, writing: int) -> int:
    return os.sendfile(writing, reading, None, PIECE)


def _by_hand(reading: int, writing: int) -> int:
    data = os.read(reading, SMALL_PIECE)
    with memoryview(data) as view:
        sent = 0
        while sent < len(view):
            sent += os.write(writing, view[sent:])
    return len(data)


_WAYS: Final = [
    way
    for name, way in (("copy_file_range", _by_range), ("sendfile", _by_sendfile), ("read", _by_hand))
    if hasattr(os, name)
]
