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
import threading
from contextvars import Context, ContextVar
from typing import Final
from weakref import ReferenceType

from ..core.cancel import shield
from ..core.fiber import Fiber
from ..core.runtime import spawn
from ..core.scheduler import Scheduler, get_scheduler
from .eventloop import FiberEventLoop, new_event_loop, running

#: The loop of `fibers.asyncio.run` from which this context comes.
origin: Final[ContextVar["ReferenceType[FiberEventLoop] | None"]] = ContextVar("fibers.asyncio loop", default=None)


class _Helpers(threading.local):
    """The helper of each thread, if it has been started."""

    helper: "Helper | None" = None


_helpers: Final = _Helpers()


class Helper:
    """An asyncio loop, and the fiber that does nothing but run it."""

    __slots__ = ("fiber", "loop", "runner")

    def __init__(self) -> None:
        self.runner = asyncio.Runner(loop_factory=new_event_loop)
        loop = self.runner.get_loop()
        assert isinstance(loop, FiberEventLoop)
        self.loop = loop
        self.fiber: Fiber[None] = spawn(_serve, self.runner, name="asyncio", context=Context())


def _serve(runner: asyncio.Runner) -> None:
    try:
        runner.get_loop().run_forever()
    finally:
        with shield():
            runner.close()


def choose(scheduler: Scheduler) -> FiberEventLoop:
    """The loop for the current fiber of the calling thread, whose scheduler is given."""
    reference = origin.get()
    loop = None if reference is None else reference()
    if loop is not None and loop in running.loops:
        return loop
    for loop in running.loops:
        if loop.fiber is scheduler.main:
            return loop
    helper = _helpers.helper
    if helper is None or helper.fiber.done() or helper.fiber.scheduler is not scheduler:
        helper = _helpers.helper = Helper()
    return helper.loop


def runs_here(loop: FiberEventLoop) -> bool:
    """Is it running in the calling thread, or about to?"""
    if loop in running.loops:
        return True
    helper = _helpers.helper
    return helper is not None and helper.loop is loop and not helper.fiber.done()


def close() -> None:
    """End the loop that `await_` has started in this thread, and wait for that; nothing happens if there is none.

    What it still runs is cancelled. The next `await_` starts another one. Raises RuntimeError in a coroutine of that loop.
    """
    helper = _helpers.helper
    if helper is None or helper.fiber.done():
        _helpers.helper = None
        return
    if get_scheduler().current is helper.fiber:
        raise RuntimeError("close() was called in a coroutine of the loop that it would end; call it in another fiber")
    helper.fiber.cancel()
    helper.fiber.join()
    if _helpers.helper is helper:
        _helpers.helper = None
