"""From a thread into the fibers of another: `run` a function there and wait for it, or `spawn` a fiber there.

Which thread? By default, for a worker, the one whose fiber has called `to_thread`. Any other is named by a *portal*, which
is made in the thread that it leads to:

    portal = fibers.Portal()        in a thread that has, or will have, fibers
    portal.run(function, argument)  from any other

A plain thread that calls `run` blocks; a fiber of another thread waits as fibers do. What is run there is a fiber like any
other, and may wait. It begins when the fibers of its thread next wait.

Whoever is cancelled while it waits in `run` has the fiber there cancelled, and goes on to wait for its end, as with
`to_thread`. That goes through workers: if the caller of `to_thread` is cancelled, so is what its worker runs by `run`, and
Cancelled is raised in the worker as well.

No wait is for nothing. The target thread may end at any moment: a fiber is on its way until one of two takes it out of
`_entering`, by one atomic step: the target, which starts it, or, in closing, buries it; or the sender, which looks again
when it has sent, and finds the loop closed.

The ideas are anyio's: portals, and `from_thread`.
"""

import os
import sys
from _thread import LockType, allocate_lock
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Any, Final, TypeVar

from .core.endings import end_of
from .core.fiber import Fiber
from .core.scheduler import Scheduler, get_scheduler, state
from .core.waitqueue import WaitQueue
from .errors import Cancelled, FiberCancelled, LoopClosedError
from .threads.to_thread import Call, outlast, worker

__all__ = ["check_cancelled", "run", "spawn"]

T = TypeVar("T")


class Portal:
    """A way into the fibers of the thread that makes it, for other threads. See the module's text.

    Nothing is to be closed. When the thread's event loop has ended, `run` and `spawn` raise LoopClosedError.
    """

    __slots__ = ("_scheduler",)

    def __init__(self) -> None:
        scheduler = get_scheduler()
        if scheduler.closed:
            raise scheduler.refuse()
        self._scheduler = scheduler

    def run(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call `fn(*args, **kwargs)` in a new fiber of the portal's thread, wait for it, and return or raise what it does.

        It runs in a copy of the caller's context. Raises LoopClosedError if that thread's loop has ended, or ends
        meanwhile; FiberCancelled if somebody there has cancelled the fiber.
        """
        return _run(self._scheduler, fn, args, kwargs)

    def spawn(self, fn: Callable[..., T], *args: Any, name: str | None = None, **kwargs: Any) -> Fiber[T]:
        """As `fibers.spawn`, in the portal's thread: returns at once. Any thread; also a signal handler.

        Raises LoopClosedError if that thread's loop has ended. If it ends before the fiber starts, that never runs.
        """
        fiber = make(self._scheduler, fn, args, kwargs, 2)
        if name is not None:
            fiber.name = name
        send(self._scheduler, fiber)
        return fiber

    def __repr__(self) -> str:
        state = " closed" if self._scheduler.loop.closed else ""
        return f"<Portal into {self._scheduler.main.name!r}{state}>"


def run(fn: Callable[..., T], *args: Any, portal: Portal | None = None, **kwargs: Any) -> T:
    """As `Portal.run`; without a `portal`, in the thread that has called `to_thread`.

    Raises RuntimeError outside of a worker if there is no `portal`.
    """
    return _run(_target(portal), fn, args, kwargs)


def spawn(
    fn: Callable[..., T], *args: Any, portal: Portal | None = None, name: str | None = None, **kwargs: Any
) -> Fiber[T]:
    """As `Portal.spawn`; without a `portal`, in the thread that has called `to_thread`.

    Raises RuntimeError outside of a worker if there is no `portal`.
    """
    target = _target(portal)
    fiber = make(target, fn, args, kwargs, 2)
    if name is not None:
        fiber.name = name
    send(target, fiber)
    return fiber


def check_cancelled() -> None:
    """In a worker: raise Cancelled if the caller of `to_thread` has been cancelled or has given the call up.

    For calls that compute for long. Raises RuntimeError outside of a worker.
    """
    call = worker.call
    if call is None:
        raise RuntimeError("check_cancelled() was called outside of a call of fibers.to_thread()")
    if call.cancelled:
        raise _cancelled(call)


# -- sending --------------------------------------------------------------------------------------------------------


def _target(portal: Portal | None) -> Scheduler:
    if portal is not None:
        if not isinstance(portal, Portal):
            raise TypeError(f"portal must be a fibers.Portal, not {portal!r}")
        return portal._scheduler
    call = worker.call
    if call is None:
        raise RuntimeError(
            "this thread is no worker of fibers.to_thread(), so it must be said which thread is meant: make a "
            "fibers.Portal() there, and pass it as portal="
        )
    return call.scheduler


def make(
    scheduler: Scheduler, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], depth: int
) -> Fiber[Any]:
    """A fiber for another thread. `depth`: how many frames further up it was asked for."""
    if not callable(fn):
        raise TypeError(f"a function is needed, not {fn!r}")
    caller = sys._getframe(depth)
    function = partial(fn, **kwargs) if kwargs else fn
    fiber: Fiber[Any] = Fiber(scheduler, function, args, copy_context(), None, caller.f_code, caller.f_lasti)
    if kwargs:
        fiber.name = getattr(fn, "__qualname__", type(fn).__name__)
    return fiber


#: Fibers on their way from one thread to another.
_entering: Final[dict[Fiber[Any], bool]] = {}


def send(scheduler: Scheduler, fiber: Fiber[Any]) -> None:
    """Have a fiber started in its thread. Raises LoopClosedError."""
    if scheduler.closed or scheduler.loop.closed:
        raise _gone(scheduler)
    _entering[fiber] = True
    if state.scheduler is scheduler and scheduler.current is not None:
        scheduler.in_runtime(_enter, scheduler, fiber)
        return
    scheduler.post(_enter, scheduler, fiber)
    if scheduler.loop.closed and _entering.pop(fiber, False):
        raise _gone(scheduler)


def _enter(scheduler: Scheduler, fiber: Fiber[Any]) -> None:
    """In the fiber's thread, as runtime code."""
    if not _entering.pop(fiber, False) or fiber._done:
        return
    if scheduler.closed:
        scheduler._never(fiber, Cancelled("its thread has ended before it could start"))
        return
    fiber.root = scheduler.main.root
    scheduler.fibers.add(fiber)
    scheduler.ready.append(fiber)


def _gone(scheduler: Scheduler) -> LoopClosedError:
    return LoopClosedError(f"the event loop of {scheduler.main.name!r} has ended; nothing can run there any more")


# -- running --------------------------------------------------------------------------------------------------------


class _Visit:
    """A fiber in another thread, as seen by whoever waits for its end."""

    __slots__ = ("_scheduler", "done", "fiber", "gone", "lock", "queue")

    def __init__(self, scheduler: Scheduler, fiber: Fiber[Any], lock: LockType | None) -> None:
        self._scheduler = scheduler
        self.fiber = fiber
        self.lock = lock  # of a waiting plain thread
        self.queue = WaitQueue()
        self.done = False
        self.gone = False  # it has ended because its thread did

    def __repr__(self) -> str:
        return f"the end of {self.fiber!r} in thread {self._scheduler.thread}"

    def ended(self, fiber: Fiber[Any]) -> None:
        """A done-callback."""
        self.gone = self._scheduler.ending or self._scheduler.closed
        self.done = True
        self.queue.wake_all()
        if self.lock is not None:
            self.lock.release()

    def cancel(self) -> None:
        self.fiber.cancel()

    give_up = cancel


def _run(scheduler: Scheduler, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
    mine = state.scheduler
    me: Fiber[Any] | None = None
    lock: LockType | None = None
    if mine is None or mine.closed:
        lock = allocate_lock()
        lock.acquire()
    else:
        me = mine.current
        if me is None:
            raise mine.refuse()
        mine.check_interrupt(me)
    call = worker.call
    if call is not None and call.cancelled:
        raise _cancelled(call)
    fiber = make(scheduler, fn, args, kwargs, 3)
    visit = _Visit(scheduler, fiber, lock)
    end_of(fiber).watch(visit.ended)
    cancelled: Cancelled | None = None
    if call is not None:
        call.inner[fiber] = True
    try:
        send(scheduler, fiber)
        if call is not None and call.cancelled:
            fiber.cancel()
        if lock is not None:
            _block(visit, lock)
        elif mine is not None and me is not None:
            cancelled = outlast(visit, mine, me)
    finally:
        if call is not None:
            call.inner.pop(fiber, None)
    error = fiber.exception()
    try:
        if isinstance(error, FiberCancelled):
            if cancelled is not None:
                raise cancelled
            if call is not None and call.cancelled:
                raise _cancelled(call) from error
            if visit.gone:
                raise _gone(scheduler) from error
        if error is not None:
            raise error
        if cancelled is not None:
            raise cancelled
        result: T = fiber._result
        return result
    finally:
        del error, cancelled, fiber, visit  # the traceback refers to this frame


def _block(visit: _Visit, lock: LockType) -> None:
    """Wait in a thread without fibers. Only a signal handler, in the main thread, can end that early."""
    try:
        while not visit.done:
            lock.acquire()
    except BaseException:
        visit.cancel()
        raise


def _cancelled(call: Call) -> Cancelled:
    return Cancelled(f"whoever waited for {call!r} was cancelled")


os.register_at_fork(after_in_child=_entering.clear)
