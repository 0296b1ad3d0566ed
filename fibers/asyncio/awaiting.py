"""From one world into the other: `await_(awaitable)` in a fiber, `await fiber` in a coroutine.

Both wait for something that can be cancelled, and both pass cancellation on as their own world does it:

* A fiber that is cancelled in `await_`, or whose deadline passes there, cancels the task and waits until that is done; then
  it raises Cancelled (a scope with a deadline makes TimeoutError of it). So nothing runs on behind the back of a block that
  was left. What is raised once (`kill`, Ctrl-C) comes at once; the task is cancelled and not waited for. `asyncio.shield`
  around the awaitable leaves it alone.
* A task that is cancelled in `await fiber` cancels the fiber and goes on when that is done, with CancelledError; or with the
  result, if the fiber has come to one all the same. That is what a task does that awaits another task. So `asyncio.timeout`,
  `wait_for` and `TaskGroup` work with fibers inside.

Who was not cancelled himself, and finds that the other one was, gets what the joiner of that gets: of a task
`asyncio.CancelledError`, of a fiber `fibers.FiberCancelled`.

A fiber is awaited as well from loops in other threads, asyncio's own included.
"""

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Generator
from typing import Any, TypeVar

from ..core.fiber import Fiber
from ..core.scheduler import Scheduler, get_scheduler, undisturbed
from ..core.waitqueue import WaitQueue
from ..errors import FiberCancelled
from ..threads.to_thread import outlast
from .eventloop import FiberEventLoop
from .home import choose, runs_here

T = TypeVar("T")


def await_(awaitable: Awaitable[T], *, loop: asyncio.AbstractEventLoop | None = None) -> T:
    """Wait in a fiber for a coroutine, a future or whatever else can be awaited; return or raise what it comes to.

    Only the calling fiber waits. A coroutine runs as a task, in a copy of the fiber's context, in the loop that is given
    (one of `fibers.asyncio`, running in this thread), else in that from which the fiber comes, else in one that is started
    for this thread: see home.py. Cancellation is passed on: see the module's text.

    Raises TypeError for what cannot be awaited, ValueError for a future or a loop of another thread or of another kind,
    RuntimeError in a coroutine of the loop itself, and if the loop is closed before the future is done.
    """
    scheduler = get_scheduler()
    me = scheduler.current
    if me is None:
        raise scheduler.refuse()
    future: asyncio.Future[T]
    if asyncio.isfuture(awaitable):
        if loop is not None and loop is not awaitable.get_loop():
            raise ValueError(f"{awaitable!r} belongs to another loop than {loop!r}")
        home = _usable(awaitable.get_loop(), scheduler, awaitable)
        future = awaitable
    elif inspect.isawaitable(awaitable):
        try:
            home = choose(scheduler) if loop is None else _usable(loop, scheduler, loop)
        except BaseException:
            if asyncio.iscoroutine(awaitable):
                awaitable.close()  # it will never be awaited
            raise
    else:
        raise TypeError(f"await_() takes a coroutine, a future or another awaitable, not {awaitable!r}")
    if home.fiber is me:
        raise RuntimeError(
            "await_() was called in a coroutine of the loop that would have to run meanwhile: use await there"
        )
    if not asyncio.isfuture(awaitable):
        future = home.create_task(awaitable if asyncio.iscoroutine(awaitable) else _await(awaitable))
    if future.done():
        return future.result()
    wait = _Wait(future)
    home.awaited.add(wait)
    future.add_done_callback(wait.end)
    try:
        cancelled = outlast(wait, scheduler, me)
        if wait.gone and not future.done():
            if cancelled is not None:
                raise cancelled
            raise RuntimeError(f"the asyncio loop was closed before {future!r} was done")
        if cancelled is None:
            return future.result()
        error = None if future.cancelled() else future.exception()
        raise cancelled if error is None else error
    finally:
        home.awaited.discard(wait)
        future.remove_done_callback(wait.end)
        error = cancelled = None  # their tracebacks refer to this frame
        del wait, future, awaitable


def _usable(loop: asyncio.AbstractEventLoop, scheduler: Scheduler, whose: object) -> FiberEventLoop:
    if not isinstance(loop, FiberEventLoop):
        raise ValueError(
            f"{whose!r} is not of a loop that runs fibers (fibers.asyncio.run, new_event_loop): use "
            "asyncio.run_coroutine_threadsafe() with the loop that it is of, and fibers.wait_future()"
        )
    if not runs_here(loop, scheduler):
        raise ValueError(
            f"{whose!r} is of a loop that does not run in this thread now: use asyncio.run_coroutine_threadsafe() with that "
            "loop, and fibers.wait_future()"
        )
    return loop


async def _await(awaitable: Awaitable[T]) -> T:
    return await awaitable


class _Wait:
    """A future, as seen by the fiber that waits for it."""

    __slots__ = ("_future", "done", "gone", "queue")

    def __init__(self, future: "asyncio.Future[Any]") -> None:
        self._future = future
        self.queue = WaitQueue()
        self.done = False
        self.gone = False  # its loop is closed

    def end(self, future: "asyncio.Future[Any]") -> None:
        """A done-callback."""
        self.done = True
        self.queue.wake_all()

    def lost(self) -> None:
        self.gone = self.done = True
        undisturbed(self.queue.wake_all)

    def cancel(self) -> None:
        self._future.cancel()

    give_up = cancel

    def __repr__(self) -> str:
        return repr(self._future)


# -- from a coroutine -----------------------------------------------------------------------------------------------


def awaiting(fiber: Fiber[T]) -> Generator[Any, Any, T]:
    """`await fiber`: see the module's text. Also in loops of other threads; RuntimeError in one that stops the fiber."""
    loop = asyncio.get_running_loop()
    if not fiber.done() and fiber.scheduler.thread == threading.get_ident() and not isinstance(loop, FiberEventLoop):
        raise RuntimeError(
            f"fiber {fiber.name!r} cannot run while this asyncio loop does, which holds up its thread: run the loop by "
            "fibers.asyncio.run(), or by asyncio.Runner(loop_factory=fibers.asyncio.new_event_loop)"
        )
    end = _End(fiber, loop)
    fiber.add_done_callback(end.arrive)
    try:
        return (yield from end)
    finally:
        del end  # the traceback of what it raises refers to this frame


class _End(asyncio.Future[T]):
    """The end of a fiber, as a future. To cancel it cancels the fiber; what comes of that is seen when the fiber is done."""

    def __init__(self, fiber: Fiber[T], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._fiber = fiber
        self._asked = False

    def cancel(self, msg: Any = None) -> bool:
        if self.done():
            return False
        self._asked = True
        self._fiber.cancel()
        return True

    def arrive(self, fiber: Fiber[T]) -> None:
        """A done-callback of the fiber: in its thread, as runtime code."""
        loop = self.get_loop()
        if isinstance(loop, FiberEventLoop) and loop.fiber is not None and loop.fiber.scheduler is fiber.scheduler:
            self._take()
            return
        try:
            loop.call_soon_threadsafe(self._take)
        except RuntimeError:
            if not loop.is_closed():
                raise

    def _take(self) -> None:
        if self.done():
            return
        error = self._fiber.exception()
        if error is None:
            self.set_result(self._fiber._result)
        elif isinstance(error, FiberCancelled) and self._asked:
            super().cancel()
        elif isinstance(error, StopIteration):  # no future takes that
            wrapped = RuntimeError(f"fiber {self._fiber.name!r} raised StopIteration")
            wrapped.__cause__ = error
            self.set_exception(wrapped)
        else:
            self.set_exception(error)
