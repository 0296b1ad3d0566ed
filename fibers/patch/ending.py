"""The end of the interpreter, as it is for threads.

`threading` waits for all that are no daemons; that goes by itself. Then the functions of `atexit` are called, the last
registered first, and daemons go on running meanwhile: `multiprocessing` flushes its queues so. Only then is nothing of a
daemon run any more, neither its `finally` blocks. So what ends fibers has to come after the other exit functions: it is
registered when the program is patched, and before those of the standard library that need daemons, wherever they were
imported earlier: these are registered anew. What else was registered before the patch is called after the end of fibers.
And fibers that are daemons are *buried* (core/endings.py), not cancelled.
"""

import atexit
import sys
import weakref
from typing import Any, Final

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


def take_over(journal: Journal) -> None:
    """End the main thread's fibers after all else, in place of `lifecycle`."""
    atexit.unregister(lifecycle._at_exit)
    journal.record(atexit.register, lifecycle._at_exit)
    atexit.register(_at_exit)
    journal.record(atexit.unregister, _at_exit)
    finalize: Any = weakref.finalize
    if finalize._registered_with_atexit:
        _anew(finalize._exitfunc)
    processes = sys.modules.get("multiprocessing.util")
    if processes is not None:
        _anew(processes._exit_function)


def _anew(function: Any) -> None:
    """Have an exit function that is registered called before ours."""
    atexit.unregister(function)
    atexit.register(function)


def _at_exit() -> None:
    if _end.begun:
        return
    _end.begun = True
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
