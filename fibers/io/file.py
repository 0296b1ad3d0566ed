"""Files: `open`, as the builtin, with the system calls in worker threads and the buffers here.

The objects are the standard library's own (`io.TextIOWrapper` and so on; `isinstance` says so, and every method is there),
over a raw file whose system calls hop to a worker (hop.py). Three facts decide the rest:

* The C objects take a lock of the *thread* around each raw call, and raise RuntimeError when the same thread comes again:
  which a second fiber of that thread would. So every operation first takes a *turn* (an RLock of fibers, one for all the
  layers of a file), and nobody ever meets the lock below. Two fibers that use one file are served in order of arrival, and
  an operation is whole before the next begins.
  (The classes iterate by calling `readline`, which is such an operation.)
* They are not made for a raw call that is interrupted: what they had collected is lost, and the worker would fill a buffer
  that is gone. So an operation is interrupted before it begins, or not at all: a cancelled fiber raises when it starts the
  next operation. `close`, and what `with` does at its end, always come to their end.
* What is in the buffer costs no hop, and a hop costs as much as 60 KB of reading from the page cache. The buffer is
  BUFFER_SIZE unless `buffering` says otherwise: the standard 8 KiB would hop for every page.

Switching out of a C frame copies the little C stack that it has: a few KB per hop, and a hop costs far more.
"""

import io
import os
import threading
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Generic, Self, TypeVar

from ..threads.to_thread import to_thread
from .rawfile import FileIO, Turn

#: Bytes in the buffer of a file, if `buffering` does not say otherwise.
BUFFER_SIZE: Final = 131_072


def _taking_turns(method: Callable[..., Any]) -> Any:
    """A method of a standard class, as one operation on a file of ours."""

    def operation(self: Any, *args: Any) -> Any:
        turn = self._turn
        if not turn.begin():
            return method(self, *args)
        try:
            return method(self, *args)
        finally:
            turn.end()

    operation.__name__ = method.__name__
    operation.__doc__ = f"As `{getattr(method, '__qualname__', method.__name__)}`."
    return operation


def _lines_of(base: Any, end: Any) -> Any:
    """`readlines`, as one operation: the standard one would take a turn for each line."""
    readline = base.readline

    def readlines(self: Any, hint: int | None = -1, /) -> list[Any]:
        if hint is not None and not isinstance(hint, int):
            raise TypeError(f"argument should be integer or None, not {type(hint).__name__!r}")
        turn = self._turn
        taken = turn.begin()
        try:
            following = iter(partial(readline, self), end)
            lines: list[Any] = []
            if hint is None or hint <= 0:
                lines.extend(following)
            else:
                size = 0
                for line in following:
                    lines.append(line)
                    size += len(line)
                    if size > hint:
                        return lines
            if end == "" and self.seekable():
                next(
                    self, None
                )  # a text file that was iterated over tells where it is again when that has come to the end
            return lines
        finally:
            if taken:
                turn.end()

    readlines.__doc__ = f"As `{base.__name__}.readlines`. The fastest way to many lines."
    return readlines


def _closing(method: Callable[..., Any]) -> Any:
    """`close` of a standard class: never interrupted."""

    def close(self: Any) -> None:
        turn = self._turn
        if self._finalizing:
            turn.last = True
        taken = turn.begin_end()
        try:
            method(self)
        finally:
            if taken:
                turn.end()

    close.__doc__ = "Write what is in the buffer, and close. It comes to its end whatever happens meanwhile."
    return close


def _leave(self: Any, *error: object) -> None:
    self.close()


class BufferedReader(io.BufferedReader):
    """As `io.BufferedReader`."""

    def __init__(self, raw: Any, buffer_size: int = BUFFER_SIZE) -> None:
        self._turn = _turn_of(raw)
        super().__init__(raw, buffer_size)

    read = _taking_turns(io.BufferedReader.read)
    read1 = _taking_turns(io.BufferedReader.read1)
    readinto = _taking_turns(io.BufferedReader.readinto)
    readinto1 = _taking_turns(io.BufferedReader.readinto1)
    readline = _taking_turns(io.BufferedReader.readline)
    readlines = _lines_of(io.BufferedReader, b"")
    peek = _taking_turns(io.BufferedReader.peek)
    seek = _taking_turns(io.BufferedReader.seek)
    tell = _taking_turns(io.BufferedReader.tell)
    truncate = _taking_turns(io.BufferedReader.truncate)
    detach = _taking_turns(io.BufferedReader.detach)
    close = _closing(io.BufferedReader.close)
    __exit__ = _leave


class BufferedWriter(io.BufferedWriter):
    """As `io.BufferedWriter`."""

    def __init__(self, raw: Any, buffer_size: int = BUFFER_SIZE) -> None:
        self._turn = _turn_of(raw)
        super().__init__(raw, buffer_size)

    write = _taking_turns(io.BufferedWriter.write)
    writelines = _taking_turns(io.BufferedWriter.writelines)
    flush = _taking_turns(io.BufferedWriter.flush)
    seek = _taking_turns(io.BufferedWriter.seek)
    tell = _taking_turns(io.BufferedWriter.tell)
    truncate = _taking_turns(io.BufferedWriter.truncate)
    detach = _taking_turns(io.BufferedWriter.detach)
    close = _closing(io.BufferedWriter.close)
    __exit__ = _leave


class BufferedRandom(io.BufferedRandom):
    """As `io.BufferedRandom`."""

    def __init__(self, raw: Any, buffer_size: int = BUFFER_SIZE) -> None:
        self._turn = _turn_of(raw)
        super().__init__(raw, buffer_size)

    read = _taking_turns(io.BufferedRandom.read)
    read1 = _taking_turns(io.BufferedRandom.read1)
    readinto = _taking_turns(io.BufferedRandom.readinto)
    readinto1 = _taking_turns(io.BufferedRandom.readinto1)
    readline = _taking_turns(io.BufferedRandom.readline)
    readlines = _lines_of(io.BufferedRandom, b"")
    peek = _taking_turns(io.BufferedRandom.peek)
    write = _taking_turns(io.BufferedRandom.write)
    writelines = _taking_turns(io.BufferedRandom.writelines)
    flush = _taking_turns(io.BufferedRandom.flush)
    seek = _taking_turns(io.BufferedRandom.seek)
    tell = _taking_turns(io.BufferedRandom.tell)
    truncate = _taking_turns(io.BufferedRandom.truncate)
    detach = _taking_turns(io.BufferedRandom.detach)
    close = _closing(io.BufferedRandom.close)
    __exit__ = _leave


class TextIOWrapper(io.TextIOWrapper):
    """As `io.TextIOWrapper`."""

    _turn: Turn
    _CHUNK_SIZE: int

    read = _taking_turns(io.TextIOWrapper.read)
    readline = _taking_turns(io.TextIOWrapper.readline)
    readlines = _lines_of(io.TextIOWrapper, "")
    write = _taking_turns(io.TextIOWrapper.write)
    writelines = _taking_turns(io.TextIOWrapper.writelines)
    flush = _taking_turns(io.TextIOWrapper.flush)
    seek = _taking_turns(io.TextIOWrapper.seek)
    tell = _taking_turns(io.TextIOWrapper.tell)
    truncate = _taking_turns(io.TextIOWrapper.truncate)
    detach = _taking_turns(io.TextIOWrapper.detach)
    close = _closing(io.TextIOWrapper.close)
    __exit__ = _leave

    def reconfigure(self, **options: Any) -> None:
        """As `io.TextIOWrapper.reconfigure`."""
        taken = self._turn.begin()
        try:
            super().reconfigure(**options)
        finally:
            if taken:
                self._turn.end()

    def __new__(cls, buffer: Any, *args: Any, **kwargs: Any) -> Self:
        """The turn is there before anything else is: also a wrapper that fails to be made is closed some day."""
        self = super().__new__(cls)
        self._turn = _turn_of(buffer)
        return self


def _turn_of(below: Any) -> Turn:
    turn = getattr(below, "_turn", None)
    return turn if isinstance(turn, Turn) else Turn()


T = TypeVar("T")


class Opening(Generic[T]):
    """An `open` in a worker, whose caller may give it up: then what it opens is closed again."""

    __slots__ = ("_args", "_close", "_given_up", "_lock", "_open", "_opened")

    def __init__(self, open: Callable[..., T], close: Callable[[T], object], *args: Any) -> None:
        self._open = open
        self._close = close
        self._args = args
        self._lock = threading.Lock()
        self._given_up = False
        self._opened: list[T] = []

    def __call__(self) -> T:
        opened = self._open(*self._args)
        with self._lock:
            if not self._given_up:
                self._opened.append(opened)
                return opened
        self._close(opened)
        return opened

    def wait(self) -> T:
        """Open, in a worker; an interrupted caller raises at once."""
        try:
            return to_thread(self, cancellable=True)
        except BaseException:
            with self._lock:
                self._given_up = True
            for opened in self._opened:
                self._close(opened)
            raise
        finally:
            self._opened = []


def _open_raw(file: Any, mode: str, closefd: bool, opener: Any) -> FileIO:
    if isinstance(file, int):
        return FileIO(file, mode, closefd, opener)
    return Opening(FileIO, io.FileIO.close, file, mode, closefd, opener).wait()


def open(
    file: Any,
    mode: str = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: Callable[[str, int], int] | None = None,
) -> Any:
    """As the builtin `open`. Only the calling fiber waits.

    Returns what the builtin does (an `io.TextIOWrapper`, `io.BufferedReader` and so on), with buffers of 128 KiB unless
    `buffering` says otherwise. `opener` is called in a worker thread. Who is cancelled while it opens raises at once. See
    the module's text on what an interrupted operation means.
    """
    if not isinstance(file, int):
        file = os.fspath(file)
    if not isinstance(file, str | bytes | int):
        raise TypeError(f"invalid file: {file!r}")
    if not isinstance(mode, str):
        raise TypeError(f"invalid mode: {mode!r}")
    if not isinstance(buffering, int):
        raise TypeError(f"invalid buffering: {buffering!r}")
    modes = set(mode)
    if modes - set("axrwb+t") or len(mode) > len(modes):
        raise ValueError(f"invalid mode: {mode!r}")
    binary, updating = "b" in modes, "+" in modes
    if "t" in modes and binary:
        raise ValueError("can't have text and binary mode at once")
    if len(modes & set("xrwa")) != 1:
        raise ValueError("must have exactly one of create/read/write/append mode")
    for what, value in (("encoding", encoding), ("errors", errors), ("newline", newline)):
        if binary and value is not None:
            raise ValueError(f"binary mode doesn't take {'a newline' if what == 'newline' else f'an {what}'} argument")
    if not binary:
        encoding = io.text_encoding(encoding)
    raw: Any = _open_raw(file, "".join(sorted(modes - set("bt"))), closefd, opener)
    result = raw
    try:
        line_buffering = False
        if binary and buffering == 1:
            text = "line buffering (buffering=1) isn't supported in binary mode, the default buffer size will be used"
            warnings.warn(text, RuntimeWarning, stacklevel=2)
        if buffering == 1 or (buffering < 0 and not raw._regular and raw.isatty()):
            buffering, line_buffering = -1, True
        if buffering < 0:
            buffering = BUFFER_SIZE
        if buffering == 0:
            if not binary:
                raise ValueError("can't have unbuffered text I/O")
            return raw
        kind = BufferedRandom if updating else BufferedReader if "r" in modes else BufferedWriter
        result = kind(raw, buffering)
        if not binary:
            result = TextIOWrapper(result, encoding, errors, newline, line_buffering)
            result.mode = mode  # type: ignore[misc]
            # It asks the buffer for so many bytes at once, and what is not there comes from the raw file: a hop.
            result._CHUNK_SIZE = max(result._CHUNK_SIZE, buffering)
    except BaseException:
        result.close()
        raise
    return result
