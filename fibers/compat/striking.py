"""Exceptions that strike a fiber once, at a time: what the timeouts of gevent and eventlet are made of.

A deadline of `fibers` is a scope: level-triggered, and gone when the block is left. Their timeout is one exception, raised
once, in whatever the fiber does then; code may catch it inside the block and go on. That is `Fiber.kill` with a timer.
And it can be taken back: if the fiber had been woken already as its timer fired, the exception has not been raised yet when
the block is left, and must not be raised behind it.

A forked child has no timers of its parent's. What was to strike a fiber that lives on there is set anew, by a hook that runs
after the runtime's own.
"""

import math
import os
from typing import Any, Final

from ..core.fiber import Fiber
from ..core.scheduler import get_scheduler, state
from ..eventloop.timers import Timer

#: Those of all threads that are still to come.
_pending: "Final[set[Strike]]" = set()


class Strike:
    """`error` is raised in the calling fiber at its first blocking call after `seconds` (0 or less: at its next one).

    Infinity: never. Made by the fiber that is meant; `withdraw` may be called from any thread. Raises RuntimeError inside
    the runtime, where nobody can be meant; TypeError or ValueError for what is no number of seconds.
    """

    __slots__ = ("_error", "_fiber", "_timer")

    def __init__(self, seconds: float, error: BaseException) -> None:
        scheduler = get_scheduler()
        me = scheduler.current
        if me is None:
            raise scheduler.refuse()
        if math.isnan(seconds):
            raise ValueError("a timeout is a number of seconds, not nan")
        self._error = error
        self._fiber: Fiber[Any] = me
        self._timer: Timer | None = None
        if seconds < math.inf:
            self._set(scheduler, scheduler.loop.clock() + max(seconds, 0))

    def _set(self, scheduler: Any, deadline: float) -> None:
        self._timer = scheduler.in_runtime(scheduler.loop.schedule, deadline, self)
        _pending.add(self)

    @property
    def pending(self) -> bool:
        """Is it still to come?"""
        return self._timer is not None

    def expire(self, timer: Timer) -> None:
        """The loop calls this."""
        fiber = self._fiber
        if not fiber._done:
            get_scheduler().throw(fiber, self._error)
        _pending.discard(self)
        self._timer = None  # last: if a signal handler raises before, the loop calls again

    def withdraw(self) -> None:
        """Take it back, unless it has been raised. A second call does nothing."""
        get_scheduler()  # of a thread that has none yet
        home: Any = self._fiber.scheduler
        home.ask(self._withdraw)

    def _withdraw(self) -> None:
        fiber, timer = self._fiber, self._timer
        if timer is not None:
            get_scheduler().loop.unschedule(timer)
            _pending.discard(self)
            self._timer = None
        elif fiber._pending is not None:
            for each in fiber._pending:
                if each is self._error:
                    fiber._pending.remove(each)
                    fiber.look()
                    break


def _after_fork_in_child() -> None:
    scheduler = state.scheduler
    strikes = list(_pending)
    _pending.clear()
    for strike in strikes:
        timer, strike._timer = strike._timer, None
        fiber = strike._fiber
        if timer is not None and not fiber._done and fiber.scheduler is scheduler:
            strike._set(scheduler, timer.deadline)


os.register_at_fork(after_in_child=_after_fork_in_child)
