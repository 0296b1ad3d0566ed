"""The figures of a server at one moment: of each loop of each process, and of the processes that have ended.

A server of one process asks the books of its loops; one of many reads the scoreboard, in which all processes write theirs
(published.py), also those that hang. Either way a figure is the size of a book and not a sample. Processor time is the
kernel's: it tells that of any process, on Linux; elsewhere only of the own, and for those that have ended.
"""

import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from ..core.runtime import sleep
from ..server.scoreboard import SERVING, STATES, Scoreboard
from .census import BODY, NAMES, QUEUED, RUNNING
from .published import ACCEPTED_TOTAL, BYTES_TOTAL, COUNTERS, LOG_DROPPED, REQUESTS_TOTAL, counters_of
from .service import Board

#: Seconds before a row is read again that was being written.
_PAUSE: Final = 0.001


class Counts:
    """Counters of a loop, or their sums."""

    __slots__ = ("counters",)

    def __init__(self, counters: Sequence[int]) -> None:
        self.counters = counters

    @classmethod
    def sum(cls, several: "Sequence[Counts]") -> "Counts":
        """All of them in one."""
        columns = zip(*(each.counters for each in several), strict=True)
        return cls([sum(column) for column in columns] or [0] * COUNTERS)

    @property
    def states(self) -> Sequence[int]:
        """Connections in each state."""
        return self.counters[: len(NAMES)]

    @property
    def open(self) -> int:
        """Connections that there are."""
        return sum(self.states)

    @property
    def running(self) -> int:
        """Handlers at work."""
        return self.counters[RUNNING] + self.counters[BODY]

    @property
    def queued(self) -> int:
        """Requests that wait for a handler."""
        return self.counters[QUEUED]

    @property
    def accepted(self) -> int:
        """Connections since the start."""
        return self.counters[ACCEPTED_TOTAL]

    @property
    def requests(self) -> int:
        """Requests since the start."""
        return self.counters[REQUESTS_TOTAL]

    @property
    def sent(self) -> int:
        """Bytes of the bodies of responses since the start."""
        return self.counters[BYTES_TOTAL]

    @property
    def dropped(self) -> int:
        """Requests that are missing in the access log."""
        return self.counters[LOG_DROPPED]


class Process(NamedTuple):
    """A process that there is."""

    pid: int
    state: str  # starting, serving, leaving
    age: float  # seconds
    cpu: float | None  # seconds; None: not known
    loops: list[Counts]
    all: Counts


class Figures(NamedTuple):
    """The numbers of one moment."""

    uptime: float  # seconds
    processes: list[Process]
    ended: int  # processes that are no more: how many, what they had counted, and their processor time
    past: Counts
    past_cpu: float

    @property
    def all(self) -> Counts:
        """The sums of all, also of what the ended had counted."""
        return Counts.sum([self.past, *(process.all for process in self.processes)])

    @property
    def cpu(self) -> float:
        """Processor time of all, in seconds, as far as it is known."""
        return self.past_cpu + sum(process.cpu or 0.0 for process in self.processes)

    @property
    def loops(self) -> int:
        """How many there are."""
        return sum(len(process.loops) for process in self.processes)


Tell = Callable[[], Figures]


def tell_board(board: Board) -> Tell:
    """The figures of this process alone."""
    began = time.monotonic()

    def tell() -> Figures:
        hubs = board.hubs()
        loops = [Counts(counters_of(hub.census)) for hub in hubs]
        logs = {hub.log for hub in hubs if hub.log is not None}
        dropped = Counts([*[0] * LOG_DROPPED, sum(log.dropped for log in logs)])
        state = "leaving" if any(hub.stopping for hub in hubs) else STATES[SERVING]
        usage = resource.getrusage(resource.RUSAGE_SELF)
        age, cpu = time.monotonic() - began, usage.ru_utime + usage.ru_stime
        this = Process(os.getpid(), state, age, cpu, loops, Counts.sum([dropped, *loops]))
        return Figures(age, [this], 0, Counts([0] * COUNTERS), 0.0)

    return tell


def tell_scoreboard(scoreboard: Scoreboard) -> Tell:
    """The figures of all processes that write there. Waits a moment if one of them is writing."""

    def tell() -> Figures:
        entries, ended = scoreboard.read(lambda: sleep(_PAUSE))
        processes = []
        for entry in sorted(entries, key=lambda entry: entry.age, reverse=True):
            loops = [Counts(row) for row in entry.rows]
            state = STATES[entry.state]
            processes.append(Process(entry.pid, state, entry.age, cpu_of(entry.pid), loops, Counts.sum(loops)))
        uptime = time.monotonic() - scoreboard.born
        past = Counts([*[0] * len(NAMES), *ended.counters[len(NAMES) :]])  # their connections are closed
        return Figures(uptime, processes, ended.processes, past, ended.cpu)

    return tell


def cpu_of(pid: int) -> float | None:
    """Processor time of a process in seconds; None if it cannot be told, or if there is no such process."""
    if sys.platform == "linux":
        try:
            return time.clock_gettime(~pid << 3 | 2)  # its clock: clock_getcpuclockid(3)
        except OSError:
            return None
    if pid == os.getpid():
        return time.process_time()
    return None
