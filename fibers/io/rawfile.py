"""The raw file under the buffers: each system call in a worker, one operation at a time (file.py says why).

FIFOs, terminals and other files that may never answer are waited for in the loop first, where that can be interrupted. So
an interrupted read of such a file loses what the buffer above had collected for it, as it does when a signal handler raises
in the standard library. Streams (pipe.py, inherited.py) are better for these.

A finaliser works in place: it may run in the middle of anything, where a wait would be a surprise.
"""

import io
import os
import stat
from typing import Any

from ..core.scheduler import state as thread
from ..lowlevel import wait_readable, wait_writable
from ..sync.lock import RLock
from .hop import check, hop
from .inherited import PIPE_BUF

#: Bytes read at once from what has no size.
_PIECE = 131_072


class Turn:
    """Who may use a file now: one fiber, or thread, at a time, and it again. The start of an operation is a checkpoint."""

    __slots__ = ("_lock", "last")

    def __init__(self) -> None:
        self._lock = RLock()
        self.last = False  # the finaliser is at work: nobody else has the file, and nobody is to be waited for

    def begin(self) -> bool:
        """Take the turn, waiting for it. False: a finaliser, or code inside the runtime, works in place."""
        scheduler = thread.scheduler
        if scheduler is not None:
            me = scheduler.current
            if self.last or me is None or scheduler.closed:
                return False
            if me.interrupt and self._lock._holder is not me:
                check()
        return self._lock.acquire()

    def begin_end(self) -> bool:
        """As `begin`, uninterrupted: for closing."""
        scheduler = thread.scheduler
        me = None if scheduler is None else scheduler.current
        if self.last or (scheduler is not None and (me is None or scheduler.closed)):
            return False
        if me is None:
            self._lock.acquire()
            return True
        firm, me.firm = me.firm, True
        try:
            self._lock.acquire()
        finally:
            me.firm = firm
        return True

    def end(self) -> None:
        self._lock.release()


class FileIO(io.FileIO):
    """As `io.FileIO`: the raw file. What may take time is done in a worker."""

    def __init__(self, file: Any, mode: str = "r", closefd: bool = True, opener: Any = None) -> None:
        self._turn = Turn()
        super().__init__(file, mode, closefd, opener)
        kind = os.fstat(self.fileno()).st_mode
        self._regular = stat.S_ISREG(kind)
        self._waitable = stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind) or stat.S_ISCHR(kind)

    def readinto(self, buffer: Any, /) -> int | None:
        """As `io.FileIO.readinto`."""
        taken = self._turn.begin()
        try:
            if self._waitable and taken and self.readable():
                wait_readable(self.fileno())
            return hop(super().readinto, buffer) if taken else super().readinto(buffer)
        finally:
            if taken:
                self._turn.end()

    def read(self, size: int | None = -1, /) -> bytes:
        """As `io.FileIO.read`."""
        if size is None or size < 0:
            return self.readall() if self.readable() else super().read(-1)  # which refuses
        taken = self._turn.begin()
        try:
            if self._waitable and taken and self.readable():
                wait_readable(self.fileno())
            return hop(super().read, size) if taken else super().read(size)
        finally:
            if taken:
                self._turn.end()

    def readall(self) -> bytes:
        """As `io.FileIO.readall`."""
        taken = self._turn.begin()
        try:
            if not self._waitable or not taken:
                return hop(super().readall) if taken else super().readall()
            pieces = []
            while piece := self.read(_PIECE):
                pieces.append(piece)
            return b"".join(pieces)
        finally:
            if taken:
                self._turn.end()

    def write(self, data: Any, /) -> int:
        """As `io.FileIO.write`. A pipe or a terminal is given PIPE_BUF bytes at most."""
        taken = self._turn.begin()
        try:
            if self._waitable and taken and self.writable():
                wait_writable(self.fileno())
                if not isinstance(data, memoryview):
                    data = memoryview(data)
                data = data.cast("B")[:PIPE_BUF]
            return hop(super().write, data) if taken else super().write(data)
        finally:
            if taken:
                self._turn.end()

    def truncate(self, size: int | None = None, /) -> int:
        """As `io.FileIO.truncate`."""
        taken = self._turn.begin()
        try:
            return hop(super().truncate, size) if taken else super().truncate(size)
        finally:
            if taken:
                self._turn.end()

    def close(self) -> None:
        """As `io.FileIO.close`. In a worker, if something may have been written: a network file system writes it now."""
        if self.closed:
            return
        if self._finalizing:  # type: ignore[attr-defined]
            self._turn.last = True
        taken = self._turn.begin_end()
        try:
            if taken and self.writable():
                hop(super().close)
            else:
                super().close()
        finally:
            if taken:
                self._turn.end()

    def __exit__(self, *error: object) -> None:
        self.close()
