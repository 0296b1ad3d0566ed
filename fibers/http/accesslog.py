"""The access log: what was asked, by whom, and how it was answered; written by a thread of its own.

Facts, and what follows:

* A disk may take a second for a line (a full cache, a network file system), and a pipe for ever. A loop that waits for
  that serves nobody. So the loops put records into a queue, and a thread formats and writes them.
* A queue without a bound is a leak when the disk is slower than the clients. When it is full, records are dropped and
  counted; the number is in the log, where the gap is.
* To wake a thread costs more than a request. It is woken when it sleeps without a limit, which it does only when there
  was nothing for a while; so a busy server wakes it some twenty times a second.

The formats are those of Apache's mod_log_config, and JSON (logformat.py).
"""

import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from time import sleep as sleep_thread
from time import time
from typing import IO, Any, Final, Protocol
from weakref import WeakSet

from .exchange import Exchange
from .logformat import JSON, Record, compile_format

_log: Final = logging.getLogger("fibers.http")

#: Seconds between two looks at the queue of a busy log.
PAUSE: Final = 0.05
#: Seconds given to the last lines when the log is closed.
LAST_WORDS: Final = 5.0


class RequestLog(Protocol):
    """What a loop tells of each request. `AccessLog` is one; a server that embeds this one may have its own."""

    dropped: int  # requests that are missing in it

    def note(self, exchange: Exchange, server: tuple[str, int], seconds: float, number: int, gone: bool) -> None:
        """A request has been answered, after `seconds`; as the connection's `number`th. Raises nothing.

        `gone`: the client went before it had everything.
        """

    def flush(self) -> object:
        """The loop has come to its end. In a worker thread; may block."""


class AccessLog:
    """A log in a file (by path: appended to, and opened anew by `reopen`), or a text stream, or `print`-like function.

    `format` is one of Apache's (`COMMON`, `COMBINED`, or any with directives of logformat.py) or `JSON`. At most
    `capacity` records wait. `note` is for the thread of a loop, everything else for any. In a forked child it begins anew.
    """

    def __init__(
        self, to: "str | os.PathLike[str] | IO[str] | Callable[[str], object]", format: str = "", capacity: int = 10_000
    ) -> None:
        if capacity < 1:
            raise ValueError(f"capacity is at least 1, not {capacity}")
        self._format = compile_format(format)
        self._path = os.fspath(to) if isinstance(to, str | os.PathLike) else None
        self._to: Any = to
        self._fd = -1
        self._capacity = capacity
        self._queue: deque[Record] = deque()
        self._bell = threading.Event()
        self._sleeps = False
        self._reopen = False
        self._closing = False
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self.dropped = 0
        self.written = 0
        self.on_drop: Callable[[int], object] | None = None  # told of `dropped`, in the thread that drops
        if self._path is not None:
            self._fd = _open(self._path)
        _logs.add(self)

    def note(self, exchange: Exchange, server: tuple[str, int], seconds: float, number: int, gone: bool) -> None:
        """A request has been answered. Never waits."""
        queue = self._queue
        if len(queue) >= self._capacity or self._closing:
            self._drop(1)
            return
        queue.append(Record(exchange, server, time(), seconds, number, gone))
        if self._sleeps or self._thread is None:
            self._wake()

    def _drop(self, count: int) -> None:
        self.dropped += count
        if self.on_drop is not None:
            self.on_drop(self.dropped)

    def _wake(self) -> None:
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="access log", daemon=True)
                    self._thread.start()
        self._sleeps = False
        self._bell.set()

    def _run(self) -> None:
        queue, bell = self._queue, self._bell
        reported, failing = 0, False
        while True:
            lines: list[str] = []
            while queue and len(lines) < 1000:
                lines.append(self._line(queue.popleft()))
            records, dropped = len(lines), self.dropped
            if dropped != reported and not (failing and not lines):
                lines.append(f"# {dropped - reported} requests are missing here: the log was too slow")
            if lines:
                failing = not self._write(lines)
                if failing:
                    self._drop(records)
                    sleep_thread(PAUSE)
                else:
                    self.written += records
                    reported = dropped
                    if not self._closing and not queue:
                        sleep_thread(PAUSE)
                continue
            if self._closing:
                return
            bell.clear()
            self._sleeps = True
            if not queue and not self._closing:
                bell.wait()
            self._sleeps = False

    def _line(self, record: Record) -> str:
        try:
            return self._format(record)
        except (ValueError, TypeError, AttributeError) as error:  # a handler's fields may be anything
            return f"# a request that cannot be put into this format: {error}"

    def _write(self, lines: list[str]) -> bool:
        try:
            if self._path is not None:
                if self._reopen:
                    fd, self._fd = self._fd, _open(self._path)
                    self._reopen = False
                    os.close(fd)
                data = ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace")
                while data:
                    data = data[os.write(self._fd, data) :]
            elif callable(self._to):
                for line in lines:
                    self._to(line)
            else:
                self._to.write("\n".join(lines) + "\n")
                self._to.flush()
        except (OSError, ValueError) as error:
            _log.error("cannot write the access log: %s", error)
            return False
        return True

    def reopen(self) -> None:
        """The file has been moved away (logrotate): open the path again for the next line."""
        self._reopen = True

    def flush(self, seconds: float = LAST_WORDS) -> bool:
        """Wait until all that was noted before has been written, or the time is up. Blocks the thread."""
        wanted, waited = self.written + self.dropped + len(self._queue), 0.0
        while self.written + self.dropped < wanted and self._thread is not None and waited < seconds:
            self._bell.set()
            sleep_thread(PAUSE / 10)
            waited += PAUSE / 10
        return not self._queue

    def close(self) -> None:
        """Write what there is, and end the thread. A second call does nothing. Blocks for LAST_WORDS seconds at most."""
        self._closing = True
        self._bell.set()
        thread = self._thread
        if thread is not None:
            thread.join(LAST_WORDS)
            if thread.is_alive():
                return  # it hangs in a write, and has the file
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _after_fork(self) -> None:
        """The thread is the parent's."""
        self._queue.clear()
        self._bell, self._starting = threading.Event(), threading.Lock()
        self._thread, self._sleeps = None, False
        self._reopen = True
        self.dropped = self.written = 0
        self.on_drop = None

    def __repr__(self) -> str:
        return f"<AccessLog, {self.written} written, {self.dropped} dropped>"


def _open(path: str) -> int:
    """A descriptor, not a file object: those have locks, which a fork may copy locked. Each write goes to the end, whoever
    else writes there."""
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


#: Those that a fork has to begin anew.
_logs: Final["WeakSet[AccessLog]"] = WeakSet()


def _after_fork_in_child() -> None:
    for log in list(_logs):
        log._after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)


def open_log(to: "AccessLog | str | os.PathLike[str] | IO[str] | None", format: str = "") -> AccessLog | None:
    """What an `access_log` option stands for: a path, "-" for standard output, a stream, or a log."""
    if to is None or isinstance(to, AccessLog):
        return to
    return AccessLog(sys.stdout if to == "-" else to, format)


__all__ = ["JSON", "AccessLog", "open_log"]
