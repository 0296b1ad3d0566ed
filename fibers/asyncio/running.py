"""`run`: an asyncio program as the business of one fiber.

Ctrl-C is asyncio's while the main fiber runs it: the first cancels the main task, the second raises KeyboardInterrupt where
it strikes. It cannot be both ours and asyncio's, and who calls this expects what `asyncio.run` does.
"""

import asyncio
import signal
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any, TypeVar
from weakref import ref

from ..core.cancel import shield
from ..core.scheduler import Scheduler, get_scheduler
from .eventloop import FiberEventLoop, held_up, new_event_loop
from .home import origin

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T], *, debug: bool | None = None) -> T:
    """As `asyncio.run`, in the calling fiber: the other fibers of its thread run beside it. Any number at once, each apart.

    Fibers spawned in it find its loop by `await_`. If the fiber is cancelled, the coroutine is, and Cancelled is raised when
    that has ended. Raises ValueError for what is no coroutine, RuntimeError in a coroutine and inside the runtime.
    """
    scheduler = get_scheduler()
    if scheduler.current is None:
        raise scheduler.refuse()
    runner = asyncio.Runner(debug=debug, loop_factory=new_event_loop)
    with _ctrl_c(scheduler):
        try:
            context = copy_context()
            beside = held_up(scheduler.current)
            if asyncio.iscoroutine(main) and asyncio._get_running_loop() is beside:  # else it has something to say
                loop = runner.get_loop()
                assert isinstance(loop, FiberEventLoop)
                context.run(origin.set, ref(loop))
                if beside is not None:
                    loop.beside = beside  # it puts that back when others run
                    asyncio._set_running_loop(None)
            return runner.run(main, context=context)
        finally:
            with shield():
                runner.close()


@contextmanager
def _ctrl_c(scheduler: Scheduler) -> Iterator[None]:
    """Let asyncio's Runner have Ctrl-C: it takes it where nobody has asked for it before."""
    ours = (
        scheduler.current is scheduler.main
        and scheduler.thread == threading.main_thread().ident
        and signal.getsignal(signal.SIGINT) == scheduler.on_ctrl_c
    )
    if not ours:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, scheduler.on_ctrl_c)
