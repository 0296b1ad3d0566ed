"""Time limits for tasks that compute.

A limit comes from a fiber that sleeps until it is due (job.py). A task that computes without ever waiting lets no other
fiber run, that one included. What reaches it nevertheless is a signal: CPython runs a handler between any two instructions
of the main thread, and what the handler raises is raised there.

* The clock behind the signal counts the time for which this process computes (ITIMER_VIRTUAL, SIGVTALRM). So an idle worker
  is never disturbed, and a computing one ten times a second, while a task with a limit runs.
* It raises only in code of the task that is overdue. In the runtime (nobody's code) and in this package (between two steps
  of ours) it does not; the next tick will see.
* The handler stays when the timer is stopped: a signal may still be on its way.
* A task that is held up inside of C code is out of reach for everybody.
"""

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from ..core.fiber import Fiber
from ..core.scheduler import state
from ..core.tracebacks import PACKAGE

#: Seconds of computing between two looks.
TICK: Final = 0.1

#: What a look calls with the fiber that is running.
Look = Callable[[Fiber[Any]], None]


class Overtime:
    """Calls `look(fiber)` now and then with a fiber that computes. What it raises is raised in that. In the main thread."""

    __slots__ = ("_limited", "_look")

    def __init__(self, look: Look) -> None:
        self._look = look
        self._limited = 0  # tasks with a limit that run

    def begin(self) -> None:
        """A task with a limit begins."""
        self._limited += 1
        if self._limited == 1:
            signal.signal(signal.SIGVTALRM, self._tick)
            signal.setitimer(signal.ITIMER_VIRTUAL, TICK, TICK)

    def end(self) -> None:
        """It has ended."""
        self._limited -= 1
        if not self._limited:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)

    def _tick(self, number: int, frame: FrameType | None) -> None:
        scheduler = state.scheduler
        me = None if scheduler is None else scheduler.current
        if me is not None and frame is not None and not frame.f_code.co_filename.startswith(PACKAGE):
            self._look(me)
