"""gevent.fileobject: files whose operations suspend a fiber. They are those of `fibers.io`'s `open`."""

import os
from typing import Any

from ...io.file import open as _open


def FileObject(  # noqa: N802 - as gevent calls it
    fobj: Any,
    mode: str = "rb",
    bufsize: int = -1,
    close: bool = True,
    *,
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool | None = None,
    **unused: object,
) -> Any:
    """Open a path or a descriptor; or a second descriptor of a file object, which is closed at once if `close`."""
    if closefd is None:
        closefd = close
    if buffering == -1:
        buffering = bufsize
    if not isinstance(fobj, (int, str, bytes, os.PathLike)):
        if not closefd:
            fobj.flush() if fobj.writable() else None
        fd = os.dup(fobj.fileno())
        if closefd:
            fobj.close()
        fobj, closefd = fd, True
    return _open(fobj, mode, buffering, encoding, errors, newline, closefd)


FileObjectPosix = FileObjectThread = FileObjectBlock = FileObject

__all__ = ["FileObject", "FileObjectBlock", "FileObjectPosix", "FileObjectThread"]
