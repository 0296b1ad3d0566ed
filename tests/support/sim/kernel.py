"""A kernel of files that exist nowhere else: numbers, bytes, would-blocks, and a clock that moves when it is told to.

Everything that a real kernel decides by chance or by time is decided by the test: when a peer sends, when it reads, when
an error comes, and what of it happens at the same moment. It promises the least that real ones do:

* An arrival, an end and an error are *activity* in their direction. A partial read is none.
* Room that a writer gains is activity only if the writer has been refused, or served in part, since it last had some.
* A read takes what is there, up to its size and never across an urgent mark or another boundary. Nothing there:
  BlockingIOError. A pending error is raised once. The end is read again and again.
* Numbers are the lowest free ones, so one that is closed comes back at the next `open`. `dup` gives a file another
  number; it lives until the last one is closed.

Units instead of bytes: what is read is a tuple of numbers that tell the file and the position, so that a unit that got to
the wrong reader, or to none, is noticed. What is written are bytes.

Time. `now` moves in `pass_time` alone, in order through an agenda of what is to happen by then.
"""

import errno
import heapq
import os
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

#: The lowest simulated number. Far from every real one: the tables of the loops are one per process.
FIRST: Final = 1_000_000
READ: Final = 1
WRITE: Final = 2

#: Units per file: unit = serial * UNITS + position.
UNITS: Final = 100_000
_MARK: Final = -1
_BOUNDARY: Final = -2
_KEPT: Final = 60  # lines of the journal

Units = tuple[int, ...]


class Listener(Protocol):
    """What a kernel tells of its files: a poller."""

    def active(self, file: "SimFile", interest: int, urgent: bool) -> None:
        """There was activity in this direction."""

    def number_closed(self, number: int, file: "SimFile") -> None:
        """The number means nothing any more; `file.numbers` is 0 if the file has gone with it."""


class SimFile:
    """One open file, and what its peer may do."""

    __slots__ = (
        "broken", "changes", "ended", "error", "inbox", "kernel", "numbers", "refused", "room", "sent", "serial", "stolen",
        "told", "written",
    )  # fmt: skip

    def __init__(self, kernel: "SimKernel", serial: int, room: int) -> None:
        self.kernel = kernel
        self.serial = serial
        self.changes = 0  # by the peer
        self.numbers = 0  # how many refer to it
        self.inbox: deque[int] = deque()
        self.sent = 0  # units that the peer has sent
        self.ended = False  # the peer sends no more
        self.broken = False  # the peer is gone altogether
        self.error: int | None = None  # an errno, to be told once
        self.room = room  # bytes that can be written
        self.refused = False  # a writer waits for room
        self.told = False  # somebody has read or written in vain, the peer being gone
        self.written = bytearray()
        self.stolen = False  # one of its numbers is closed without a word to its loop

    def __repr__(self) -> str:
        return f"file {self.serial}"

    def readable(self) -> bool:
        """Would a read not block?"""
        return self.error is not None or self.ended or any(unit >= 0 for unit in self.inbox)

    def writable(self) -> bool:
        return self.error is not None or self.broken or self.room > 0

    def ready(self, interest: int) -> bool:
        return self.readable() if interest == READ else self.writable()

    def urgent(self) -> bool:
        return _MARK in self.inbox

    # -- the peer -----------------------------------------------------------------------------------------------

    def send(self, count: int) -> None:
        """`count` units arrive."""
        if not self.ended:
            start = self.serial * UNITS + self.sent
            self.inbox.extend(range(start, start + count))
            self.sent += count
            self._active(READ, f"{count} arrive")

    def mark(self) -> None:
        """Something, urgent data behind it, at which a read stops, and more."""
        self.send(1)
        if not self.ended:
            self.inbox.append(_MARK)
            self._active(READ, "an urgent mark arrives", urgent=True)
        self.send(1)

    def boundary(self) -> None:
        """The same without telling of the mark: as where a unix socket passes a descriptor."""
        self.send(1)
        self.inbox.append(_BOUNDARY)
        self.send(1)

    def last_words(self) -> None:
        """Something and the end, at once."""
        self.send(1)
        self.finish()

    def finish(self) -> None:
        """The peer sends no more."""
        if not self.ended:
            self.ended = True
            self._active(READ, "the end arrives")

    def leave(self) -> None:
        """The peer closes: nothing comes any more, and what is written meets nobody."""
        self.ended = self.broken = True
        self._active(READ | WRITE, "the peer leaves")

    def fail(self) -> None:
        """An error arrives, as of a refused datagram. The next call tells it, and afterwards all is as before."""
        self.error = errno.ECONNREFUSED
        self._active(READ | WRITE, "an error arrives")

    def take(self, count: int) -> None:
        """The peer reads: there is room for `count` bytes more."""
        self.room += count
        self.changes += 1
        if self.refused:
            self.refused = False
            self._active(WRITE, f"room for {count}")
        else:
            self.kernel.note(f"{self}: room for {count}, nobody was refused")

    def _active(self, interest: int, what: str, urgent: bool = False) -> None:
        self.changes += 1
        self.kernel.note(f"{self}: {what}")
        for listener in self.kernel.listeners:
            listener.active(self, interest, urgent)


class SimKernel:
    """See the module's text. One thread at a time."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.numbers: dict[int, SimFile] = {}
        self.listeners: list[Listener] = []
        self._serial = 0
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._planned = 0
        self.journal: deque[str] = deque(maxlen=_KEPT)

    def note(self, line: str) -> None:
        """One line for whoever reads of a failure."""
        self.journal.append(f"{self.now - 1000:7.3f}  {line}")

    # -- time ---------------------------------------------------------------------------------------------------

    def clock(self) -> float:
        """The clock for a loop."""
        return self.now

    def plan(self, delay: float, action: Callable[[], None]) -> None:
        """Have something happen `delay` seconds from now, when time passes; 0: at once."""
        if delay <= 0:
            action()
        else:
            self._planned += 1
            heapq.heappush(self._agenda, (self.now + delay, self._planned, action))

    def next_planned(self) -> float | None:
        return self._agenda[0][0] if self._agenda else None

    def pass_time(self, until: float) -> None:
        """Move the clock, through what is planned."""
        while self._agenda and self._agenda[0][0] <= until:
            at, _, action = heapq.heappop(self._agenda)
            self.now = max(self.now, at)
            action()
        self.now = max(self.now, until)

    # -- system calls -------------------------------------------------------------------------------------------

    def open(self, room: int = 4) -> int:
        """A new file, by the lowest free number."""
        self._serial += 1
        return self._number(SimFile(self, self._serial, room))

    def dup(self, number: int) -> int:
        return self._number(self.file(number))

    def _number(self, file: SimFile) -> int:
        number = FIRST
        while number in self.numbers:
            number += 1
        self.numbers[number] = file
        file.numbers += 1
        self.note(f"{file} is opened as {number}")
        return number

    def file(self, number: int) -> SimFile:
        """The file of a number; OSError (EBADF) if there is none."""
        file = self.numbers.get(number)
        if file is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return file

    def close(self, number: int) -> None:
        file = self.file(number)
        del self.numbers[number]
        file.numbers -= 1
        self.note(f"{file} loses its number {number}" if file.numbers else f"{file} is closed, {number} is free")
        for listener in self.listeners:
            listener.number_closed(number, file)

    def read(self, number: int, size: int) -> Units:
        file = self.file(number)
        _tell(file)
        while file.inbox and file.inbox[0] < 0:
            file.inbox.popleft()
        units: list[int] = []
        while file.inbox and len(units) < size and file.inbox[0] >= 0:
            units.append(file.inbox.popleft())
        if not units and not file.ended:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        file.told |= not units
        return tuple(units)

    def write(self, number: int, data: bytes | memoryview) -> int:
        file = self.file(number)
        _tell(file)
        if file.broken:
            file.told = True
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        count = min(file.room, len(data))
        file.refused = count < len(data)
        if not count and len(data):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        file.room -= count
        file.written += bytes(data[:count])
        return count


def _tell(file: SimFile) -> None:
    code, file.error = file.error, None
    if code is not None:
        raise OSError(code, os.strerror(code))
