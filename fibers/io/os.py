"""As the standard `os` module, with the calls that touch a disk made in worker threads: `from fibers.io import os`.

Everything that `os` exports is here. Replaced are the functions on paths and on open files; each is one call in a worker,
which an interrupted fiber waits for (hop.py): a directory is never made behind the back of who was cancelled. `read`,
`write` and their kin on a pipe, a socket or a terminal wait for readiness in the loop first, and may be interrupted there.

`scandir` reads the whole directory at once, in the worker. What its entries say from memory (`name`, `is_dir()` for most
file systems) costs nothing; their `stat()` is a system call in place.
"""

# Names that the star brings in are defined again below: that is what a drop-in does.
# mypy: disable-error-code="no-redef, assignment, misc"

import os as std
import stat as _stat
from collections.abc import Callable, Iterator
from os import *
from os import fspath
from typing import Any, Final, Self

from ..lowlevel import wait_readable, wait_writable
from ..threads.to_thread import to_thread
from .file import Opening
from .file import open as open_file
from .hop import blocking

__all__ = list(std.__all__)


def _in_worker(name: str) -> Callable[..., Any]:
    call = getattr(std, name)

    def function(*args: Any, **kwargs: Any) -> Any:
        if kwargs:
            return blocking(_with_kwargs, call, args, kwargs)
        return blocking(call, *args)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"As `os.{name}`, in a worker thread."
    return function


def _with_kwargs(call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return call(*args, **kwargs)


access = _in_worker("access")
chmod = _in_worker("chmod")
chown = _in_worker("chown")
fchmod = _in_worker("fchmod")
fchown = _in_worker("fchown")
fstat = _in_worker("fstat")
fsync = _in_worker("fsync")
ftruncate = _in_worker("ftruncate")
lchown = _in_worker("lchown")
link = _in_worker("link")
listdir = _in_worker("listdir")
lstat = _in_worker("lstat")
makedirs = _in_worker("makedirs")
mkdir = _in_worker("mkdir")
pread = _in_worker("pread")
pwrite = _in_worker("pwrite")
readlink = _in_worker("readlink")
remove = _in_worker("remove")
removedirs = _in_worker("removedirs")
rename = _in_worker("rename")
renames = _in_worker("renames")
replace = _in_worker("replace")
rmdir = _in_worker("rmdir")
stat = _in_worker("stat")
statvfs = _in_worker("statvfs")
symlink = _in_worker("symlink")
sync = _in_worker("sync")
truncate = _in_worker("truncate")
unlink = _in_worker("unlink")
utime = _in_worker("utime")
if hasattr(std, "fdatasync"):
    fdatasync = _in_worker("fdatasync")
if hasattr(std, "preadv"):
    preadv = _in_worker("preadv")
    pwritev = _in_worker("pwritev")
if hasattr(std, "copy_file_range"):
    copy_file_range = _in_worker("copy_file_range")
if hasattr(std, "posix_fallocate"):
    posix_fallocate = _in_worker("posix_fallocate")


def open(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
    """As `os.open`, in a worker thread. Who is cancelled meanwhile (a FIFO that nobody writes) raises at once."""
    return Opening(_open, std.close, path, flags, mode, dir_fd).wait()


def _open(path: Any, flags: int, mode: int, dir_fd: int | None) -> int:
    return std.open(path, flags, mode, dir_fd=dir_fd)


_WAITABLE: Final = (_stat.S_IFIFO, _stat.S_IFSOCK, _stat.S_IFCHR)


def _patiently(fd: int, wait: Callable[[int], None], call: Callable[..., Any], *args: Any) -> Any:
    """`call(fd, *args)` in a worker, when a pipe or the like is ready; the file may be blocking or not."""
    waitable = _stat.S_IFMT(std.fstat(fd).st_mode) in _WAITABLE
    while True:
        if waitable:
            wait(fd)
        try:
            return blocking(call, fd, *args)
        except BlockingIOError:
            if not waitable:
                raise


def read(fd: int, length: int, /) -> bytes:
    """As `os.read`. Waits also if the file is non-blocking."""
    return _patiently(fd, wait_readable, std.read, length)  # type: ignore[no-any-return]


def readv(fd: int, buffers: Any, /) -> int:
    """As `os.readv`. Waits also if the file is non-blocking."""
    return _patiently(fd, wait_readable, std.readv, buffers)  # type: ignore[no-any-return]


def write(fd: int, data: Any, /) -> int:
    """As `os.write`. Waits also if the file is non-blocking."""
    return _patiently(fd, wait_writable, std.write, data)  # type: ignore[no-any-return]


def writev(fd: int, buffers: Any, /) -> int:
    """As `os.writev`. Waits also if the file is non-blocking."""
    return _patiently(fd, wait_writable, std.writev, buffers)  # type: ignore[no-any-return]


def fdopen(fd: int, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
    """As `os.fdopen`, with `fibers.io.open`."""
    if not isinstance(fd, int):
        raise TypeError(f"invalid fd type ({type(fd)}, expected integer)")
    return open_file(fd, mode, *args, **kwargs)


class _Entries:
    """What `scandir` returns: an iterator that can be closed."""

    __slots__ = ("_entries",)

    def __init__(self, entries: "list[std.DirEntry[Any]]") -> None:
        self._entries = iter(entries)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> "std.DirEntry[Any]":
        return next(self._entries)

    def close(self) -> None:
        self._entries = iter(())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _scan(path: Any) -> "list[std.DirEntry[Any]]":
    with std.scandir(path) as entries:
        return list(entries)


def scandir(path: Any = ".") -> Any:
    """As `os.scandir`; the directory is read at once. See the module's text."""
    return _Entries(blocking(_scan, path))


def walk(
    top: Any, topdown: bool = True, onerror: Callable[[OSError], object] | None = None, followlinks: bool = False
) -> Iterator[tuple[Any, list[Any], list[Any]]]:
    """As `os.walk`: each step in a worker thread."""
    steps = std.walk(fspath(top), topdown, onerror, followlinks)
    while (step := to_thread(next, steps, None)) is not None:
        yield step
