"""Who runs, for code written for threads: `get_ident`, and what it is asked for.

A fiber is known to such code by the address of its Fiber object; the main fiber of a thread, and code inside the runtime,
by the number of the thread. Addresses of live objects and numbers of threads (on our systems, too, addresses) are distinct.

After a fork the forking fiber is all that is left in the child, and is the main thread there: `threading` makes it that.
So while a fork is under way it goes by the number of its thread, and in the child it does so for good.
"""

import _thread
from typing import Any, Final

from ..core.fiber import Fiber
from ..core.scheduler import state

native_ident: Final = _thread.get_ident


class _Heir:
    """The fiber that goes by the number of its thread, as the main fiber does."""

    __slots__ = ("fiber",)

    def __init__(self) -> None:
        self.fiber: Fiber[Any] | None = None


heir: Final = _Heir()


def thread_fiber() -> Fiber[Any] | None:
    """The calling fiber, if it is a thread of its own for code written for threads; None: it is the thread itself."""
    scheduler = state.scheduler
    if scheduler is None:
        return None
    me = scheduler.current
    return None if me is None or me is scheduler.main or me is heir.fiber else me


def get_ident() -> int:
    """As `threading.get_ident`; each fiber has a number of its own."""
    scheduler = state.scheduler
    if scheduler is None:
        return native_ident()
    me = scheduler.current
    if me is None or me is scheduler.main or me is heir.fiber:
        return native_ident()
    return id(me)
