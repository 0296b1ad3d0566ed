"""In which asyncio loop a fiber's `await_` runs, and the loop that is started for it if there is none.

Objects of asyncio belong to a loop: a session that was made in one cannot be used in another. So the answer must not change
behind the back of a fiber. In this order:

1. the loop that is asked for, or that of the future that is waited for;
2. the loop whose `fibers.asyncio.run` the fiber comes from: the context has it, which `spawn` copies;
3. the loop that the main fiber of the thread runs: then this is an asyncio program with fibers in it;
4. the *helper* of the thread, which a fiber of its own runs, started at the first call that gets here.

So a loop that some fiber runs for a while, as one calls `asyncio.run` in a thread, is no other fiber's business.

The helper ends with the scheduler, as any fiber does (`fibers.run` is over, the thread or program ends), or by `close()`:
its tasks are cancelled and run to their end, asynchronous generators are closed, the executor is shut down.
"""

import asyncio
from contextvars import Context, ContextVar
from typing import Any, Final
from weakref import ReferenceType

from ..core.cancel import shield
from ..core.fiber import Fiber
from ..core.runtime import spawn, yield_now
from ..core.scheduler import FORKED, Scheduler, get_scheduler
from .eventloop import FiberEventLoop, new_event_loop, running

#: The loop of `fibers.asyncio.run` from which this context comes.
origin: Final[ContextVar["ReferenceType[FiberEventLoop] | None"]] = ContextVar("fibers.asyncio loop", default=None)


class Helper:
    """An asyncio loop, and the fiber that does nothing but run it."""

    __slots__ = ("_runner", "_scheduler", "fiber", "loop")

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._runner = asyncio.Runner(loop_factory=new_event_loop)
        loop = self._runner.get_loop()
        assert isinstance(loop, FiberEventLoop)
        self.loop = loop
        self.fiber: Fiber[None] = spawn(self._serve, name="asyncio", context=Context())
        self.fiber.add_done_callback(self._ended)

    def _serve(self) -> None:
        self.loop.beside = asyncio._get_running_loop()  # that of a coroutine which waits for us, if there is one
        asyncio._set_running_loop(None)
        try:
            self.loop.run_forever()
        finally:
            with shield():
                self._runner.close()

    def _ended(self, fiber: Fiber[None]) -> None:
        """A done-callback."""
        if _helpers.get(self._scheduler) is self:
            del _helpers[self._scheduler]
        if self.loop.fiber is None:  # else it lives on where this process was forked from
            self.loop.close()  # if it has not even started


#: The helper of each thread where there is one.
_helpers: Final[dict[Scheduler, Helper]] = {}


def choose(scheduler: Scheduler) -> FiberEventLoop:
    """The loop for the current fiber of the calling thread, whose scheduler is given. It has started to run.

    Raises what there is to be raised in the fiber, if it has to wait for that.
    """
    reference = origin.get()
    loop = None if reference is None else reference()
    if loop is not None and _alive(loop.fiber, scheduler):
        return loop
    if _alive(scheduler.main, scheduler):
        loop = running.get(scheduler.main)
        if loop is not None:
            return loop
    helper = _helpers.get(scheduler)
    if helper is None or not _alive(helper.fiber, scheduler):
        helper = _helpers[scheduler] = Helper(scheduler)
    while (
        helper.loop.fiber is None and not helper.fiber.done()
    ):  # cancelled before it starts, it would not run what it has been given
        yield_now()
    return helper.loop


def runs_here(loop: FiberEventLoop, scheduler: Scheduler) -> bool:
    """Is it running in the calling thread, or about to?"""
    helper = _helpers.get(scheduler)
    return _alive(helper.fiber if helper is not None and helper.loop is loop else loop.fiber, scheduler)


def _alive(fiber: Fiber[Any] | None, scheduler: Scheduler) -> bool:
    """Will this fiber of the thread go on? (In a forked child all but one never do.)"""
    return fiber is not None and fiber.scheduler is scheduler and not fiber.done() and fiber.waiting is not FORKED


def close() -> None:
    """End the loop that `await_` has started in this thread, and wait for that; nothing happens if there is none.

    What it still runs is cancelled. The next `await_` starts another one. Raises RuntimeError in a coroutine of that loop.
    """
    scheduler = get_scheduler()
    helper = _helpers.get(scheduler)
    if helper is None or not _alive(helper.fiber, scheduler):
        return
    if scheduler.current is helper.fiber:
        raise RuntimeError("close() was called in a coroutine of the loop that it would end; call it in another fiber")
    helper.fiber.cancel()
    helper.fiber.join()
