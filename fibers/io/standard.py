"""The standard streams of the process, and `input` and `print` over them: a slow reader or writer stops one fiber only.

The terminal or pipe is opened again, or waited for (inherited.py); nothing changes for the processes that share it. The
streams are made at the first call and kept; if the number has come to mean another file since (`dup2`), a new one is made.

`sys.stdout` has a buffer of its own: what was printed there and here appears in the order in which it is flushed.
"""

import builtins
import os
import sys
from typing import Any, Final

from .inherited import open_fd
from .stream import IncompleteReadError, Stream

#: By number: which file it was (device, inode, device it stands for), and the stream.
_streams: Final[dict[int, tuple[tuple[int, int, int], Stream]]] = {}
#: The longest line that `input` reads (bytes).
LINE_LIMIT: Final = 1 << 20


def _standard(fd: int, mode: str) -> Stream:
    status = os.fstat(fd)
    file = (status.st_dev, status.st_ino, status.st_rdev)
    known = _streams.get(fd)
    if known is not None:
        if known[0] == file and known[1].transport.fileno() >= 0:  # type: ignore[attr-defined]
            return known[1]
        known[1].close()
    stream = open_fd(fd, mode, closefd=False)
    _streams[fd] = (file, stream)
    return stream


def stdin() -> Stream:
    """Standard input as a Stream, the same at every call. Raises OSError (EBADF) if it is closed.

    What `sys.stdin` has read ahead is not here.
    """
    return _standard(0, "r")


def stdout() -> Stream:
    """Standard output as a Stream, which has no buffer. As `stdin`."""
    return _standard(1, "w")


def stderr() -> Stream:
    """Standard error as a Stream. As `stdin`."""
    return _standard(2, "w")


def input(prompt: object = "", /) -> str:
    """As the builtin: a line of standard input without its end. Raises EOFError at the end of the data."""
    text = str(prompt)
    if text:
        stdout().write_all(_encode(text))
    try:
        line = stdin().read_until(b"\n", limit=LINE_LIMIT)[:-1]
    except IncompleteReadError as last:
        if not last.partial:
            raise EOFError("EOF when reading a line") from None
        line = last.partial
    encoding = getattr(sys.stdin, "encoding", None) or "utf-8"
    return line.decode(encoding, getattr(sys.stdin, "errors", None) or "strict")


def print(
    *values: object, sep: str | None = " ", end: str | None = "\n", file: Any = None, flush: bool = False
) -> None:
    """As the builtin, to `stdout()` or to another Stream, in one piece; other files are the builtin's business."""
    if file is not None and not isinstance(file, Stream):
        builtins.print(*values, sep=sep, end=end, file=file, flush=flush)
        return
    for what, name in ((sep, "sep"), (end, "end")):
        if what is not None and not isinstance(what, str):
            raise TypeError(f"{name} must be None or a string, not {type(what).__name__}")
    text = (" " if sep is None else sep).join(map(str, values)) + ("\n" if end is None else end)
    if text:
        (stdout() if file is None else file).write_all(_encode(text))


def _encode(text: str) -> bytes:
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, getattr(sys.stdout, "errors", None) or "strict")
