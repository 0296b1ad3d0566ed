"""Calls in worker threads, for what can only block: only the calling fiber waits.

Cancellation. A thread cannot be stopped from outside, so a cancelled caller has two ways, and chooses when it calls:

* It waits for the call's end, and raises Cancelled then (the default). So nothing runs on behind the back of a block that
  has been left: no file is written to after its `finally` has closed it. The call can help: it is told by
  `from_thread.check_cancelled()`, and what it does through `from_thread.run` is cancelled at once.
* It gives the call up (`cancellable=True`). The call runs on to its end; its result is dropped, its error is logged.

What is raised once (`kill`, Ctrl-C, a signal handler that raises) comes at once in both cases, and gives the call up: it is
there to end what does not end by itself.

What becomes of the result. A call that has ended when the cancellation comes has its result returned. One that ends later
has its result dropped, since somebody has decided to do without; who cannot (it is a file, a lock) calls under
`fibers.shield()`. An error is never dropped: it is raised in place of Cancelled, which the next wait raises again.

How many at once is a matter of limiters (limiter.py). The token belongs to the call, and comes back when the call is over,
also if it was given up.
"""

import logging
from _thread import _local
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from ..core.fiber import Fiber
from ..core.lifecycle import end_thread
from ..core.scheduler import Scheduler, get_scheduler, state
from ..core.waitqueue import WaitQueue
from ..errors import Cancelled
from .limiter import CapacityLimiter
from .workers import knows, shared

_log: Final = logging.getLogger("fibers")

T = TypeVar("T")

#: How many calls without a limiter of their own run at once, to begin with.
MAX_WORKERS: Final = 64
#: The limiter of calls without one of their own. Its `total_tokens` may be changed.
default_limiter: Final = CapacityLimiter(MAX_WORKERS)


class Errand(Protocol):
    """Something that is done elsewhere, while a fiber waits for it."""

    done: bool
    queue: WaitQueue

    def cancel(self) -> None:
        """Whoever waits has been cancelled, and waits on."""

    def give_up(self) -> None:
        """Nobody waits any more."""


def outlast(errand: Errand, scheduler: Scheduler, me: Fiber[Any]) -> Cancelled | None:
    """Wait in fiber `me` until an errand is done, also if cancelled meanwhile; then Cancelled is returned, to be raised.

    What is raised once (`kill`, Ctrl-C) is raised, and the errand given up.
    """
    queue, cancelled = errand.queue, None
    try:
        while not errand.done:
            if cancelled is not None:
                me.interrupt = bool(me._pending)  # that it is cancelled is known; what is raised once comes through
            try:
                queue.add(me, errand)
                if errand.done and queue.abandon(me):
                    break
                scheduler.park(me, queue)
            except Cancelled as error:
                queue.abandon(me)
                if cancelled is None:
                    cancelled = error
                    errand.cancel()
    except BaseException:
        queue.abandon(me)
        errand.give_up()
        raise
    finally:
        if cancelled is not None:
            me.look()
    return cancelled


class Call:
    """One call on its way through a worker and back."""

    __slots__ = (
        "args", "cancelled", "context", "done", "errors", "fn", "given_up", "inner", "limiter", "queue", "ran", "result",
        "scheduler",
    )  # fmt: skip

    def __init__(
        self, scheduler: Scheduler, limiter: CapacityLimiter, fn: Callable[..., Any], args: tuple[Any, ...]
    ) -> None:
        self.scheduler = scheduler
        self.limiter = limiter
        self.fn: Callable[..., Any] | None = fn
        self.args: tuple[Any, ...] | None = args
        self.context: Context | None = copy_context()
        self.queue = WaitQueue()
        self.ran = self.done = False  # in the worker; with everybody told
        self.cancelled = self.given_up = False
        self.inner: dict[Fiber[Any], bool] = {}  # what it waits for in other threads; see from_thread.py
        self.result: Any = None
        self.errors: list[BaseException] = []  # at most one; who takes it out raises or logs it

    def __repr__(self) -> str:
        return f"the call of {_name(self.fn)} in a worker thread"

    def work(self) -> None:
        """In the worker: call, and keep what came of it."""
        worker.call = self
        try:
            try:
                self.result = self.context.run(self.fn, *self.args)  # type: ignore[union-attr, misc, arg-type]
            finally:
                if state.scheduler is not None:
                    end_thread()  # the fibers of a call end with it
        except BaseException as error:
            self.errors.append(cut(error))
        worker.call = self.context = self.args = None
        self.ran = True
        if self.given_up:
            self._log_error()

    def deliver(self) -> None:
        """In the worker: wake the fiber, if it still waits."""
        self.limiter.release_for(self)
        self.done = True
        self.queue.wake_all()

    def fail(self, error: BaseException) -> None:
        self.errors.append(error)
        self.ran = True
        self.deliver()

    def lost(self) -> None:
        """In a forked child: whoever waits for it is in the parent, too."""

    def cancel(self) -> None:
        self.cancelled = True
        for fiber in list(self.inner):
            fiber.cancel()
        if shared.withdraw(self):  # no worker has begun it
            self.done = True
            self.limiter.release_for(self)

    def give_up(self) -> None:
        self.given_up = True
        self.cancel()
        if self.ran:
            self._log_error()
        elif not knows(self):  # it has never got as far as the pool
            self.limiter.release_for(self)

    def _log_error(self) -> None:
        try:
            error = self.errors.pop()
        except IndexError:
            return
        if not isinstance(error, Cancelled):
            # Mostly the reason why it was given up: a server that does not answer.
            level = logging.INFO if isinstance(error, OSError) else logging.WARNING
            _log.log(level, "%r, which was given up, has failed", self, exc_info=error)


class _Worker(_local):
    """What each thread has of its own: the call that it works at."""

    call: Call | None = None


worker: Final = _Worker()


def to_thread(
    fn: Callable[..., T],
    *args: Any,
    limiter: CapacityLimiter | None = None,
    cancellable: bool = False,
    **kwargs: Any,
) -> T:
    """Call `fn(*args, **kwargs)` in a worker thread, in a copy of the caller's context, and wait for it.

    Only this fiber waits. Returns or raises what `fn` does. If there is no token in `limiter` (default: at most 64 calls
    at once, in the process), it waits for one first, in order of arrival.

    A caller that is cancelled, or whose deadline passes, waits for the end of the call all the same, and raises Cancelled
    then. With `cancellable` it raises at once; the call runs on, its result is dropped and its error logged. See the
    module's text. Raises TypeError if `fn` is not callable, RuntimeError if no thread can be started.
    """
    scheduler = state.scheduler
    if scheduler is None:
        scheduler = get_scheduler()
    me = scheduler.current
    if me is None:
        raise scheduler.refuse()
    if not callable(fn):
        raise TypeError(f"to_thread() takes a function, not {fn!r}")
    if limiter is None:
        limiter = default_limiter
    elif not isinstance(limiter, CapacityLimiter):
        raise TypeError(f"limiter must be a CapacityLimiter, not {limiter!r}")
    call = Call(scheduler, limiter, partial(fn, **kwargs) if kwargs else fn, args)
    cancelled: Cancelled | None = None
    try:
        limiter.acquire_for(call)
        scheduler.in_runtime(shared.submit, call)
        if cancellable:
            while not call.done:
                call.queue.add(me, call)
                if call.done and call.queue.abandon(me):
                    break
                scheduler.park(me, call.queue)
        else:
            cancelled = outlast(call, scheduler, me)
    except BaseException:
        call.queue.abandon(me)
        call.give_up()
        raise
    try:
        if call.errors:
            raise call.errors.pop()
        if cancelled is not None:
            raise cancelled
        result: T = call.result
        return result
    finally:
        del call, cancelled  # the traceback refers to this frame


def cut(error: BaseException) -> BaseException:
    """Take the frame that has just caught an error out of its traceback."""
    traceback = error.__traceback__
    if traceback is not None:
        error.__traceback__ = traceback.tb_next
    return error


def _name(fn: Any) -> str:
    if isinstance(fn, partial):
        fn = fn.func
    return str(getattr(fn, "__qualname__", None) or fn)
