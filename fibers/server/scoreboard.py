"""The scoreboard: what every loop of every process counts, in memory that all of them share.

The idea is Apache's. A page of anonymous memory is made before the first fork; each process has a *place* in it, and in
that a *row* for each of its loops, which the loop writes and anybody reads. So who wants to know how the server does asks
nobody: a process that hangs is seen as well as one that does not, and what a process had counted when it died is there.

Who writes what, and how a reader gets numbers that belong together:

* A row has one writer, its loop. It makes the row's version odd, writes, and makes it even again (a seqlock): a reader that
  finds it odd, or changed when he is done, reads again. Nobody waits for readers.
* Everything else has one writer, the master: who is in which place, and the sums of those that have ended. To take a dead
  process's rows into these sums and to free its place is one change, under the board's own version.
* Counters are 8 bytes, aligned, written in one access; they do not tear, also where the processor reorders writes.

There are more places than processes: those that leave keep theirs until they have ended. If there is none left, a process
counts for itself alone, in a row that nobody sees.
"""

import mmap
import threading
from collections.abc import Callable
from time import monotonic, monotonic_ns
from typing import Final, NamedTuple

# The board's own words, before the sums of the ended: version, places that were ever taken, processes that have ended, and
# their processor time in µs.
_VERSION, _USED, _ENDED, _CPU = range(4)
_HEADER: Final = 4
# The words of a place, before its rows: pid (0: free), state, when it began (ns of the monotonic clock).
_PID, _STATE, _BEGAN = range(3)
_PLACE: Final = 3
_WORD: Final = 8

#: States of a process.
STARTING, SERVING, LEAVING = range(3)
STATES: Final = ("starting", "serving", "leaving")

#: Attempts to read a row that is being written, each after a pause.
PATIENCE: Final = 20


class Entry(NamedTuple):
    """A process, as a reader finds it."""

    pid: int
    state: int
    age: float  # seconds
    rows: list[list[int]]  # of each loop its counters


class Ended(NamedTuple):
    """Those that are no more."""

    processes: int
    cpu: float  # seconds
    counters: list[int]


class Scoreboard:
    """See the module's text. `counters` in each row, `loops` rows in each place, `places` for processes at once."""

    def __init__(self, counters: int, loops: int, places: int = 64) -> None:
        self._counters = counters
        self._row = 1 + counters
        self._loops = loops
        self._places = places
        self._size = _PLACE + loops * self._row
        self._first = _HEADER + counters
        words = self._first + places * self._size
        self._words = memoryview(mmap.mmap(-1, words * _WORD)).cast("Q")
        self.born = monotonic()  # when the server was made
        self._mine = -1
        self._lock = threading.Lock()
        self._given = 0  # rows of ours

    # -- the master -----------------------------------------------------------------------------------------------

    def claim(self) -> int:
        """A place for a process that is about to be forked; -1: there is none."""
        words = self._words
        taken = {each[0] for each in self._taken()}
        place = next((each for each in range(self._places) if each not in taken), -1)
        if place >= 0:
            at = self._at(place)
            words[at + _STATE], words[at + _BEGAN] = STARTING, monotonic_ns()
            words[_USED] = max(words[_USED], place + 1)
        return place

    def assign(self, place: int, pid: int) -> None:
        """The process has been forked."""
        if place >= 0:
            self._words[self._at(place) + _PID] = pid

    def mark(self, place: int, state: int) -> None:
        """What it does now."""
        if place >= 0:
            self._words[self._at(place) + _STATE] = state

    def release(self, place: int, cpu: float) -> None:
        """It has ended, and had used `cpu` seconds: its counters go into the sums, and its place is free."""
        words = self._words
        words[_VERSION] += 1
        words[_ENDED] += 1
        words[_CPU] += round(cpu * 1e6)
        if place >= 0:
            at = self._at(place)
            for row in range(at + _PLACE, at + self._size, self._row):
                for counter in range(self._counters):
                    words[_HEADER + counter] += words[row + 1 + counter]
            words[at : at + self._size] = memoryview(bytes(self._size * _WORD)).cast("Q")
        words[_VERSION] += 1

    # -- a process ------------------------------------------------------------------------------------------------

    def inhabit(self, place: int) -> None:
        """In a process just forked: this place is ours."""
        self._mine, self._given = place, 0
        self._lock = threading.Lock()

    def row(self) -> "Row":
        """The row of one more loop of this process. Any thread."""
        with self._lock:
            number, self._given = self._given, self._given + 1
        if self._mine < 0 or number >= self._loops:
            return memoryview(bytearray(self._row * _WORD)).cast("Q")
        at = self._at(self._mine) + _PLACE + number * self._row
        return self._words[at : at + self._row]

    # -- readers --------------------------------------------------------------------------------------------------

    def read(self, pause: Callable[[], object]) -> tuple[list[Entry], Ended]:
        """All processes that there are, and those that were. `pause` is called before something is read again.

        A row whose writer was stopped or killed in the midst of writing is taken as it is in the end.
        """
        words, now = self._words, monotonic_ns()
        for _ in range(PATIENCE):
            version = words[_VERSION]
            entries = [
                Entry(
                    words[at + _PID],
                    words[at + _STATE],
                    max(0, now - words[at + _BEGAN]) / 1e9,
                    [self._read_row(row, pause) for row in range(at + _PLACE, at + self._size, self._row)],
                )
                for _, at in self._taken()
            ]
            ended = Ended(words[_ENDED], words[_CPU] / 1e6, words[_HEADER : self._first].tolist())
            if not version & 1 and words[_VERSION] == version:
                break
            pause()
        return entries, ended

    def _read_row(self, at: int, pause: Callable[[], object]) -> list[int]:
        words = self._words
        for _ in range(PATIENCE):
            version = words[at]
            found = words[at + 1 : at + self._row].tolist()
            if not version & 1 and words[at] == version:
                break
            pause()
        return found

    def _taken(self) -> list[tuple[int, int]]:
        """The places that are not free, and where they begin."""
        found = ((place, self._at(place)) for place in range(self._words[_USED]))
        return [(place, at) for place, at in found if self._words[at + _PID]]

    def _at(self, place: int) -> int:
        return self._first + place * self._size


#: Its first word is its version, and odd while the others are written.
Row = memoryview
