"""How schedulers come to their end: `run`, the end of a thread, of the interpreter, and fork.

Facts, and what follows:

* A thread's `threading.local` values are let go in that thread as it ends, while it can still switch greenlets. So a
  sentinel kept there sees to its fibers. The main thread's outlive `atexit`, so for it there is an exit function.
* Live fibers at the end are cancelled, and get a short grace to unwind in. What is left after that is said in the log.
* A parked greenlet that is simply dropped is unwound wherever its last reference goes. In a forked child that would run
  the `finally` blocks of fibers that live on in the parent (a rollback, an unlink). So the child keeps them, for ever.
* Only the forking fiber lives on in the child. When it ends, the stack below it is that of the main fiber, which the
  process has to leave somehow: it gets SystemExit.
* The default SIGINT handler raises KeyboardInterrupt wherever the interpreter is: in a strange fiber, or in the
  scheduler. Ours raises only in main's own code; else the interrupt is sent to main. If one is on its way already and
  some fiber computes and computes, the second Ctrl-C raises there.
"""

import atexit
import os
import signal
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar
from weakref import WeakSet

from ..errors import Cancelled, LoopClosedError
from ..eventloop.contract import EventLoop
from .cancel import shield
from .carriers import _log
from .endings import bury, forsake
from .fiber import Fiber
from .scheduler import Scheduler, get_scheduler, on_new, state

T = TypeVar("T")

#: Seconds that cancelled fibers get to unwind in when their thread or `run` ends.
GRACE: Final = 1.0

_schedulers: Final[WeakSet[Scheduler]] = WeakSet()


def run(main: Callable[..., T], *args: Any, loop: EventLoop | None = None) -> T:
    """Call `main(*args)` as the main fiber of this thread and return what it returns.

    When it is over (however), the fibers spawned in it that still live are cancelled and waited for, and the event loop
    is closed unless the thread had one before. Raises RuntimeError inside a fiber or another `run`.

    `loop` gives the event loop to use, as made by `fibers.eventloop.new_loop`: once, for it is closed in the end. Raises
    TypeError if it is something else, LoopClosedError if it has been closed, ValueError if another thread has made it, and
    RuntimeError if this thread has a loop already.
    """
    if not callable(main):
        raise TypeError(f"run() takes a function, not {main!r}")
    if loop is not None:
        if not isinstance(loop, EventLoop):
            raise TypeError(f"run(loop=…) takes an event loop, as made by fibers.eventloop.new_loop(), not {loop!r}")
        if loop.closed:
            raise LoopClosedError(
                "the event loop given to run() is closed; run() closes the one it is given: make another"
            )
    existing = state.scheduler
    if existing is not None:
        if existing.main.root is not None or existing.current is not existing.main:
            raise RuntimeError("run() was called inside a fiber or another run(); call the function itself instead")
        if loop is not None:
            raise RuntimeError("this thread has an event loop already; run(loop=…) must be the first to need one")
    scheduler = existing or get_scheduler(loop)
    root = scheduler.main.root = object()
    try:
        result = main(*args)
        if (error := scheduler.left_over()) is not None:
            raise error
        return result
    finally:
        try:
            end_fibers(scheduler, lambda fiber: fiber.root is root)
        finally:
            scheduler.main.root = None
            if existing is None:
                _close(scheduler)
                state.scheduler = state.ending = None


def all_fibers() -> list[Fiber[Any]]:
    """The fibers of all threads that are not done, in no order. The main fibers of the threads are not among them."""
    return [fiber for scheduler in schedulers() for fiber in list(scheduler.fibers)]


def schedulers() -> list[Scheduler]:
    """Those of all threads that have one."""
    while True:
        try:
            return list(_schedulers)
        except RuntimeError:
            pass  # a thread has made one meanwhile


def end_fibers(scheduler: Scheduler, mine: Callable[[Fiber[Any]], bool]) -> None:
    """Cancel fibers and wait until they are done, at most for GRACE seconds. In the main fiber."""
    scheduler.main._cancelled = None  # this clean-up is what a cancelled main does last
    scheduler.ending = True
    try:
        with shield():
            _end_fibers(scheduler, mine)
    finally:
        scheduler.ending = False


def _end_fibers(scheduler: Scheduler, mine: Callable[[Fiber[Any]], bool]) -> None:
    deadline = scheduler.loop.clock() + GRACE
    while remaining := [fiber for fiber in list(scheduler.fibers) if mine(fiber)]:
        for fiber in remaining:
            fiber.cancel()
        for fiber in remaining:
            try:
                fiber.join(max(0.0, deadline - scheduler.loop.clock()))
            except TimeoutError:
                break
        if scheduler.loop.clock() >= deadline:
            for fiber in remaining:
                if not fiber.done():
                    _log.warning(
                        "fiber %r, spawned at %s, goes on after it was cancelled", fiber.name, fiber.spawned_at
                    )
            return


def end_thread() -> None:
    """End what this thread has of fibers. Its next use of one begins anew. In its main fiber."""
    scheduler = state.scheduler
    if scheduler is None or scheduler.closed:
        return
    try:
        end_fibers(scheduler, lambda fiber: True)
    finally:
        _close(scheduler)
        state.scheduler = state.ending = None


def _close(scheduler: Scheduler) -> None:
    """Take a scheduler down. In the main fiber."""
    scheduler.close()
    if signal.getsignal(signal.SIGINT) == scheduler.on_ctrl_c:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    _schedulers.discard(scheduler)


def _end(scheduler: Scheduler) -> None:
    """The thread ends. Nothing may wait in it afterwards."""
    if scheduler.closed:
        return
    state.scheduler = scheduler
    try:
        end_fibers(scheduler, lambda fiber: True)
    finally:
        _close(scheduler)
        state.scheduler = _ENDED  # type: ignore[assignment]
        if isinstance(threading._active.get(scheduler.thread), threading._DummyThread):  # type: ignore[attr-defined]
            # `threading` has taken this thread off its list already; a log record has just put a dummy there, for ever.
            del threading._active[scheduler.thread]  # type: ignore[attr-defined]


class _Ended:
    """Stands for the scheduler of every thread whose end has come. (The storage of such a thread is never freed: what is
    put there as it ends had better be shared.)
    """

    closed = True
    current = None

    def refuse(self) -> RuntimeError:
        return LoopClosedError("the fibers of this thread have been shut down")

    @property
    def loop(self) -> EventLoop:
        raise self.refuse()


_ENDED: Final = _Ended()


class _Sentinel:
    """Lives in the thread's own storage and dies with the thread."""

    __slots__ = ("_scheduler",)

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def __del__(self) -> None:
        if self._scheduler.thread == threading.get_ident():
            _end(self._scheduler)


def _adopt(scheduler: Scheduler) -> None:
    """A new scheduler: register for its end, and for Ctrl-C if it is the main thread's."""
    _schedulers.add(scheduler)
    if scheduler.thread != threading.main_thread().ident:
        state.ending = _Sentinel(scheduler)
    elif signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, scheduler.on_ctrl_c)


on_new.append(_adopt)


def _at_exit() -> None:
    if state.scheduler is not None and not state.scheduler.closed:
        _end(state.scheduler)


atexit.register(_at_exit)


def _after_fork_in_child() -> None:
    scheduler = state.scheduler
    others = [other for other in list(_schedulers) if other is not scheduler]
    gone = [fiber for other in others for fiber in [other.main, *other.fibers]]
    # All of them first: what one gives back must not go to the next, through a waker that the parent listens to.
    for fiber in gone:
        forsake(fiber)
    for fiber in gone:
        bury(fiber, Cancelled("its thread lives on in the parent process only"))
    for other in others:
        other.closed = True
        _schedulers.discard(other)
    if scheduler is not None and not scheduler.closed:
        scheduler.after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
