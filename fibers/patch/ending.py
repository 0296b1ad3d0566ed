"""The end of the interpreter, as it is for threads.

`threading` waits for all that are no daemons; that goes by itself. Then the functions of `atexit` are called, the last
registered first, and daemons go on running meanwhile: `multiprocessing` flushes its queues so. Only then is nothing of a
daemon run any more, neither its `finally` blocks. So what ends fibers has to come after all other exit functions, whenever
those were registered: ours, which is called among them, calls those that are left itself. And fibers that are daemons are
*buried* (core/endings.py), not cancelled.
"""

import atexit
import sys
from typing import Final

from ..core import lifecycle
from ..core.endings import bury
from ..core.scheduler import state
from ..errors import Cancelled
from .journal import Journal
from .threads import living


class _Once:
    """Has it begun?"""

    __slots__ = ("begun",)

    def __init__(self) -> None:
        self.begun = False


_end: Final = _Once()

#: Up to here, exit functions that are called from an exit function are not called again. (It is so by looking: no promise.)
_NESTS: Final = sys.version_info < (3, 14)


def take_over(journal: Journal) -> None:
    """End the main thread's fibers after all else, in place of `lifecycle`."""
    atexit.unregister(lifecycle._at_exit)
    journal.record(atexit.register, lifecycle._at_exit)
    atexit.register(_at_exit)
    journal.record(atexit.unregister, _at_exit)


def _at_exit() -> None:
    if _end.begun:
        return
    _end.begun = True
    if _NESTS:
        atexit._run_exitfuncs()
    _leave_daemons()
    lifecycle._at_exit()


def _leave_daemons() -> None:
    scheduler = state.scheduler
    if scheduler is None or scheduler.closed:
        return
    for fiber in list(living):
        if fiber.scheduler is scheduler and not fiber.done():
            scheduler.fibers.discard(fiber)
            bury(fiber, Cancelled("the interpreter ends, and it is a daemon"))
