"""asyncio and fibers in one thread: `import fibers.asyncio`. See docs/asyncio.md.

fibers.asyncio.run(coroutine)         as `asyncio.run`; the other fibers of the thread run meanwhile
fibers.asyncio.await_(awaitable)      in a fiber: wait for a coroutine or a future
await fiber                           in a coroutine: wait for a fiber
fibers.asyncio.new_event_loop         for `asyncio.Runner(loop_factory=…)`
fibers.asyncio.close()                end the loop that `await_` has started in this thread
"""

from ..core.fiber import Fiber
from .awaiting import await_, awaiting
from .eventloop import FiberEventLoop, new_event_loop
from .home import close
from .running import run

__all__ = ["FiberEventLoop", "await_", "close", "new_event_loop", "run"]

Fiber.awaiter = staticmethod(awaiting)
