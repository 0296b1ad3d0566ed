"""Deadlock: every fiber waits, and nothing can ever wake one.

Then the main fiber gets DeadlockError, whose text tells what each fiber waits for, since when, and where it stands.

No false alarm: a program that is told that it cannot go on must not be able to. So it is an error only if

* nothing is on its way in the loop (no timer, no post), and no fiber waits for a file;
* every fiber waits where only fibers and threads of this process can wake it: for a fiber, a group, a lock, a queue
  … A `sleep` without end, or `lowlevel.park`, is somebody's intention;
* there is no other thread, of Python or of a C library, but for worker threads, and none of these has anything to do;
* no signal has a handler but Python's and ours;
* main waits for a fiber or for a group. If it waits for anything else (a bare `Event().wait()` until Ctrl-C is a way to
  keep a program alive) the picture goes into the log, and it may wait.

All this is looked at when the loop of the main thread is about to sleep (`on_idle` of its scheduler). In nearly every
program that is one look: at the fd wait that was found the last time, the *witness*. Where the system does not tell how
many threads a process has (there is no /proc), it is never more than a line in the log.

FIBERS_DEADLOCK=log makes it a log record in every case, FIBERS_DEADLOCK=off turns it off. Read once, at import.
"""

import logging
import os
import signal
import threading
from _thread import _count as count_threads
from typing import Any, Final

from .core.dump import of_thread
from .core.fiber import Fiber
from .core.scheduler import Scheduler, on_new
from .core.waitqueue import WaitQueue
from .errors import DeadlockError
from .eventloop.turns import Direction
from .groups.group import TaskGroup
from .threads.workers import at_rest, under_way
from .threads.workers import count as count_workers

_log: Final = logging.getLogger("fibers")

_MODES: Final = ("error", "log", "off")


def _read_mode() -> str:
    mode = os.environ.get("FIBERS_DEADLOCK") or "error"
    if mode not in _MODES:
        raise ValueError(f"FIBERS_DEADLOCK={mode!r} is not known; use one of {', '.join(_MODES)}, or leave it unset")
    return mode


MODE: Final = _read_mode()


class Watch:
    """Looks for a deadlock in one thread: called by its scheduler, in runtime mode, before the loop may sleep."""

    __slots__ = ("_logged", "_scheduler", "_witness")

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._witness: Direction | None = None
        self._logged: tuple[int, float] | None = (
            None  # what has been told in the log: once for each time that it happens
        )

    def __call__(self) -> None:
        witness = self._witness
        if witness is not None and witness.waiter is not None:
            return
        scheduler = self._scheduler
        if under_way():
            if not at_rest:
                at_rest.append(self._look_again)
            if under_way():  # else it ended before it could see that
                return
        # The order counts: what is not under way any more has been posted before.
        if count_threads() > count_workers() or not scheduler.loop.quiet() or scheduler.ready:
            return
        for fiber in [scheduler.main, *scheduler.fibers]:
            place: Any = fiber.waiting
            if place.__class__ is Direction or isinstance(place, Direction):
                self._witness = place
                return
            if not getattr(place, "inside", False):
                return
        changed = self._logged != (scheduler.switches, scheduler.main.since)
        if changed and not _handled_signals() and not scheduler.loop.awaited():
            self._report(scheduler)

    def _look_again(self) -> None:
        """The workers have come to rest. In one of them."""
        self._scheduler.post(_nothing)

    def _report(self, scheduler: Scheduler) -> None:
        main = scheduler.main
        place = main.waiting
        target = place.awaited(main) if isinstance(place, WaitQueue) else None
        native = _native_threads()
        if native is not None and native > 1 + count_threads():
            return  # a C library may call back from a thread of its own
        text = f"every fiber waits, and nothing can wake one\n{of_thread(scheduler)}"
        if MODE == "error" and native is not None and isinstance(target, Fiber | TaskGroup):
            scheduler.throw(main, DeadlockError(text))
            return
        self._logged = scheduler.switches, main.since
        # A main that waits alone is kept alive on purpose, as a rule.
        _log.log(logging.WARNING if scheduler.fibers else logging.INFO, "%s", text)


def _nothing() -> None:
    """A post that makes the loop turn once."""


def _native_threads() -> int | None:
    """How many threads the process has; None where the system does not tell."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return None


def _handled_signals() -> bool:
    """Does some signal have a handler that might wake a fiber?"""
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        ours = handler is signal.default_int_handler or getattr(handler, "__func__", None) is Scheduler.on_ctrl_c
        if handler is None or (callable(handler) and not ours):  # None: installed by C code, before Python
            return True
    return False


def _watch(scheduler: Scheduler) -> None:
    """Other threads are not watched: where there is one, there are two."""
    if scheduler.thread == threading.main_thread().ident:
        scheduler.on_idle = Watch(scheduler)


if MODE != "off":
    on_new.append(_watch)
