"""One measurement: the CPU this process spent, user and system apart, and how many operations that bought.

`getrusage` counts all threads of the process -> the figure is right for the threads runtime too, and
everything that must not be charged (load generators, connecting clients) lives in another process.
"""

from __future__ import annotations

import gc
import resource
import time
from typing import NamedTuple


class Sample(NamedTuple):
    """Seconds of CPU and of wall time for `operations`; `bytes_per_operation` where memory is the subject."""

    user: float
    system: float
    wall: float
    operations: int
    bytes_per_operation: float = 0.0

    @property
    def cpu(self) -> float:
        """User plus system CPU seconds."""
        return self.user + self.system


class Stopwatch:
    """Started when made, after a full collection: no sample pays for the garbage of the one before it."""

    __slots__ = ("system", "user", "wall")

    def __init__(self) -> None:
        gc.collect()
        self.wall = time.perf_counter()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self.user = usage.ru_utime
        self.system = usage.ru_stime

    def stop(self, operations: int) -> Sample:
        """The cost since the start, shared by `operations` (> 0)."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        wall = time.perf_counter() - self.wall
        return Sample(usage.ru_utime - self.user, usage.ru_stime - self.system, wall, operations)
