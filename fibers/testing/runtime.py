"""A runtime of its own for a piece of a program: a fresh scheduler, with a loop of choice, in a thread that may have one.

`fibers.run(main, loop=…)` wants to be the first in its thread. Tests share a thread, and one of them may have made a
scheduler before, or there is one for the whole session. So here the thread's scheduler is set aside, with its handler of
Ctrl-C, and is put back at the end. Its fibers stand still meanwhile; what others post to them is kept.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from ..core.endings import bury
from ..core.lifecycle import _close, end_fibers
from ..core.scheduler import Scheduler, get_scheduler, state
from ..errors import Cancelled
from ..eventloop.contract import EventLoop
from .clock import VirtualClock
from .shuffle import shuffle
from .virtual import new_virtual_loop

T = TypeVar("T")


@contextmanager
def runtime(loop: EventLoop | None = None) -> Iterator[Scheduler]:
    """The block is the main fiber of a scheduler of its own, on `loop` (default: as usual).

    At the end the fibers spawned in it are cancelled and waited for, and the loop is closed. Raises RuntimeError inside a
    fiber. (Loops for a virtual clock: `new_virtual_loop`.)
    """
    outer, ending, pid = state.scheduler, state.ending, os.getpid()
    if outer is not None and outer.current is not outer.main:
        if loop is not None:
            loop.close()
        raise RuntimeError("a runtime of its own cannot begin inside a fiber; use it in main code, or in a thread")
    in_main_thread = threading.current_thread() is threading.main_thread()
    ours = in_main_thread and outer is not None and signal.getsignal(signal.SIGINT) == outer.on_ctrl_c
    if ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # so that the new scheduler takes it
    state.scheduler = None
    try:
        scheduler = get_scheduler(loop)
        try:
            yield scheduler
            if (error := scheduler.left_over()) is not None:
                raise error
        finally:
            try:
                end_fibers(scheduler, lambda fiber: True)
            finally:
                _close(scheduler)
    finally:
        if outer is not None and os.getpid() != pid:  # a forked child has come back here
            state.scheduler = state.ending = None
            _forsake(outer)
        else:
            state.scheduler, state.ending = outer, ending
            if outer is not None and ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                signal.signal(signal.SIGINT, outer.on_ctrl_c)


def _forsake(scheduler: Scheduler) -> None:
    """In a forked child: what was set aside goes on in the parent only. The thread's next use of fibers begins anew."""
    scheduler.closed = True
    for fiber in [scheduler.main, *scheduler.fibers]:
        if not fiber.done():
            bury(fiber, Cancelled("it lives on in the parent process only"))
    scheduler.loop.after_fork()  # lets go of what it shares with the parent, without touching it
    scheduler.loop.close()


def run(main: Callable[..., T], *args: Any, clock: VirtualClock | None = None, seed: int | str | None = None) -> T:
    """As `fibers.run(main, *args)`, in a runtime of its own, also where the thread has a scheduler already.

    With `clock`, its time is virtual. With `seed`, the order of its fibers is shuffled. Raises RuntimeError inside a
    fiber.
    """
    if not callable(main):
        raise TypeError(f"run() takes a function, not {main!r}")
    with runtime(None if clock is None else new_virtual_loop(clock)):
        if seed is None:
            return main(*args)
        with shuffle(seed):
            return main(*args)
