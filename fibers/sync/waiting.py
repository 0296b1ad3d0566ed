"""How the primitives wait, and what makes them safe: from any fiber, any thread, and without a lock.

One step. CPython (with its global lock) gives another thread the word, runs signal handlers and lets the collector run
finalisers only where a function begins, at a jump back, and at the *end* of a call. So a test followed by assignments, or
by one last call into C, is one step that nobody sees half done:

    if self._value > 0: self._value -= 1; return True  # one step

Such lines say so, and are single lines, because a tracer may run between two. `tests/sync/test_steps.py` reads their
bytecode. That is why `Event.set`, `Lock.release`, `Semaphore.release` and the `put` of queues that have room work from
signal handlers and finalisers, and why a lock costs little more than one in C.

No wake-up is lost. Who waits puts itself into the queue first, looks again second, and parks third. Who makes something
available looks at the queue and, in the same step, finds it empty and leaves the thing lying; or hands the thing to the
first in the queue. So one of the two sees the other.

Nothing handed over is lost. The moment of taking a fiber out of its queue decides (waitqueue.py): its timeout or its
cancellation, and then it was not given anything; or a giver, and then it goes on with what it was given, even if it is
cancelled before it runs.

First come, first served. What is handed over was never free for a newcomer. Only a fiber of another thread that comes in
the very instant between two steps may get ahead.
"""

import threading
from collections.abc import Callable
from operator import index
from typing import Any

from greenlet import GreenletExit

from ..core.cancel import surfaces
from ..core.fiber import Fiber
from ..core.scheduler import Scheduler, get_scheduler, state
from ..core.waitqueue import ENLISTED, Giver, WaitQueue
from ..errors import Cancelled
from ..eventloop.waiter import RETRY, TIMED_OUT, Outcome


def here() -> tuple[Scheduler, Fiber[Any]]:
    """The calling fiber, which is about to wait, and its scheduler. RuntimeError where nothing may wait."""
    scheduler = state.scheduler
    if scheduler is None:
        scheduler = get_scheduler()
    me = scheduler.current
    if me is None:
        raise scheduler.refuse()
    return scheduler, me


def until(scheduler: Scheduler, timeout: float | None) -> float | None:
    """The end of a wait of `timeout` seconds that begins now; None: never. Raises as `check_timeout`."""
    if timeout is None:
        return None
    check_timeout(timeout)
    return scheduler.loop.clock() + timeout


def check_timeout(timeout: float) -> None:
    """Raise what the standard library's locks raise for what is no number of seconds, or too large a one."""
    try:
        if timeout <= threading.TIMEOUT_MAX:
            return
    except TypeError:
        raise TypeError(f"timeout must be a number of seconds, not {timeout!r}") from None
    if timeout != timeout:
        raise ValueError(f"timeout must be a number of seconds, not {timeout!r}")
    raise OverflowError(f"timeout value is too large: {timeout!r}; threading.TIMEOUT_MAX is {threading.TIMEOUT_MAX}")


def check_count(n: int) -> int:
    """A whole number of things. Raises TypeError."""
    try:
        return index(n)
    except TypeError:
        raise TypeError(f"n must be a whole number, not {n!r}") from None


def wait(
    scheduler: Scheduler,
    me: Fiber[Any],
    queue: WaitQueue,
    giver: Giver,
    look: Callable[[], bool],
    deadline: float | None,
    what: object,
) -> Outcome:
    """Wait in `queue` until `giver` gives, and return it; or TIMED_OUT; or RETRY: look at the whole thing again.

    `look()` is called when the fiber stands in the queue: is there no need to wait any more? It may not wait itself.
    `what` is for reports. A deadline of a scope further out is TIMED_OUT if the call has a timeout
    of its own, which `deadline` says. Raises what kill, cancel and Ctrl-C have for the fiber; then it has been given
    nothing.
    """
    me.outcome = ENLISTED
    outcome: Outcome | None = None
    try:
        queue._waiting[me] = what
        if not (look() and queue.abandon(me)):
            outcome = scheduler.park(me, queue, deadline)
    except BaseException as error:
        if (outcome := interrupted(scheduler, me, queue, giver, deadline, error)) is None:
            raise
    if outcome is None or outcome is ENLISTED:
        outcome = again(scheduler, me, queue, giver, deadline)
    return outcome


# Where every nanosecond counts, the lines above are in place, around these two.


def interrupted(
    scheduler: Scheduler,
    me: Fiber[Any],
    queue: WaitQueue,
    giver: Giver,
    deadline: float | None,
    error: BaseException,
) -> Outcome | None:
    """An error has come out of a wait: leave the queue, with nothing. TIMED_OUT if it is the call's timeout, None if not."""
    # `park` has cleared the outcome if it was what raised. Else this fiber still stands in the queue, or somebody is about
    # to hand it something, which must not get lost.
    if me.outcome is not None:
        if not queue.abandon(me) and not isinstance(error, GreenletExit) and _awoken(scheduler, me) is giver:
            giver.take_back(me)
        me.outcome = None
    if deadline is not None and isinstance(error, Cancelled) and surfaces(me) is not None:
        return TIMED_OUT
    return None


def again(scheduler: Scheduler, me: Fiber[Any], queue: WaitQueue, giver: Giver, deadline: float | None) -> Outcome:
    """There was no need to wait, or a fiber was woken for no reason after a signal handler has raised in the runtime.

    If it still stands in the queue, it waits on; then as `wait`. Else RETRY.
    """
    while True:
        if me.outcome is None: me.outcome = ENLISTED  # one step # fmt: skip
        try:
            if not queue.holds(me):
                break
            outcome: Outcome | None = scheduler.park(me, queue, deadline)
        except BaseException as error:
            if (outcome := interrupted(scheduler, me, queue, giver, deadline, error)) is None:
                raise
        if outcome is not None and outcome is not ENLISTED:
            return outcome
    if me.outcome is giver:
        return _awoken(scheduler, me)
    me.outcome = None
    return RETRY


def _awoken(scheduler: Scheduler, me: Fiber[Any]) -> Outcome:
    """Somebody has taken this fiber out of its queue: wait for the wake-up that follows."""
    while True:
        outcome = scheduler.park(me, None)
        if outcome is not None and outcome is not ENLISTED:
            return outcome
