"""The end of the interpreter, as it is for threads.

`threading` waits for all that are no daemons; that goes by itself. Then the functions of `atexit` are called, the last
registered first, and daemons go on running meanwhile: `multiprocessing` flushes its queues so. Only then is nothing of a
daemon run any more, neither its `finally` blocks. So what ends fibers has to come after all other exit functions, whenever
those were registered: ours, which is called among them, has those called that are left. And fibers that are daemons are
*buried* (core/endings.py), not cancelled.

To call those that are left, `atexit` begins again with the last one. It does not know which it has called already; so what
is registered in a patched program is something that is called once.
"""

import atexit
from collections.abc import Callable
from typing import Any, Final, TypeVar

from ..core import lifecycle
from ..core.endings import bury
from ..core.scheduler import state
from ..errors import Cancelled
from . import names
from .journal import Journal
from .threads import living

F = TypeVar("F", bound=Callable[..., object])

_register: Final = atexit.register


class _Once:
    """Calls a function the first time; equal to it, for `atexit.unregister`."""

    __slots__ = ("_called", "_function")

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function
        self._called = False

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        if not self._called:
            self._called = True
            self._function(*args, **kwargs)

    def __eq__(self, other: object) -> bool:
        return other is self or bool(self._function == other)

    def __hash__(self) -> int:
        return hash(self._function)

    def __repr__(self) -> str:
        return repr(self._function)


def register(func: F, /, *args: Any, **kwargs: Any) -> F:
    """As `atexit.register`."""
    if not callable(func):
        raise TypeError("the first argument must be callable")
    _register(_Once(func), *args, **kwargs)
    return func


def take_over(journal: Journal) -> None:
    """End the main thread's fibers after all else, in place of `lifecycle`."""
    atexit.unregister(lifecycle._at_exit)
    journal.record(_register, lifecycle._at_exit)
    ours = _Once(_at_exit)
    _register(ours)
    journal.record(atexit.unregister, ours)
    names.replace(journal, {id(_register): register})


def _at_exit() -> None:
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
