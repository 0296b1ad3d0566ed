"""What the server says of itself when it is asked: counters that only grow, so that two snapshots make a window.

CPU time is the process's own (getrusage), so the clients' share of the machine is not in it.
"""

import json
import resource
from typing import NamedTuple, Self

from ..core.scheduler import get_scheduler


class Snapshot(NamedTuple):
    """`user` and `system` in seconds; `switches` of greenlets; `sleeps`: how often the process has given up the processor
    to wait for something, as the kernel counts it; the rest as in LoopStats.
    """

    connections: int
    user: float
    system: float
    switches: int
    sleeps: int
    turns: int
    registrations: int
    modifications: int
    unregistrations: int

    @classmethod
    def take(cls, connections: int) -> Self:
        """Of the calling process and the calling thread's loop."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        scheduler = get_scheduler()
        stats = scheduler.loop.stats
        return cls(
            connections,
            usage.ru_utime,
            usage.ru_stime,
            scheduler.switches,
            usage.ru_nvcsw,
            stats.turns,
            stats.registrations,
            stats.modifications,
            stats.unregistrations,
        )

    @classmethod
    def read(cls, line: str) -> Self:
        """From what `line` wrote."""
        return cls(**json.loads(line))

    def line(self) -> str:
        """As one line of text."""
        return json.dumps(self._asdict()) + "\n"
