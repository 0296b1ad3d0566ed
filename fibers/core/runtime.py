"""What a program calls: spawn, sleep, yield_now, current.

Each function finds the calling thread's scheduler in its thread-local state, and makes one on first use: `sleep(1)` at
the top level of any script or thread just works.
"""

import sys
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import partial
from typing import Any, ParamSpec, TypeVar

from ..eventloop.clock import FOREVER
from ..eventloop.waiter import TIMED_OUT
from .fiber import Fiber
from .scheduler import SLEEPING, check_seconds, get_scheduler, state

P = ParamSpec("P")
T = TypeVar("T")


def spawn(
    fn: Callable[..., T], *args: Any, name: str | None = None, context: Context | None = None, **kwargs: Any
) -> Fiber[T]:
    """Run `fn(*args, **kwargs)` in a new fiber of this thread and return the fiber. It starts when others next wait.

    It runs in a copy of the caller's contextvars context, or in `context` itself if that is given (then changes are seen
    by whoever shares it). `name` is for people; default is the function's name. May be called from anywhere in the
    thread, finalisers and signal handlers included. Raises TypeError if `fn` is not callable.
    """
    if not callable(fn):
        raise TypeError(f"spawn() takes a function, not {fn!r}")
    scheduler = state.scheduler
    if scheduler is None:
        scheduler = get_scheduler()
    if scheduler.closed:
        raise scheduler.refuse()
    caller = sys._getframe(1)
    current = scheduler.current
    fiber: Fiber[T] = Fiber(
        scheduler,
        partial(fn, **kwargs) if kwargs else fn,
        args,
        context or copy_context(),
        (current or scheduler.main).root,
        caller.f_code,
        caller.f_lasti,
    )
    if context is not None:
        fiber._shared_context = True
        fiber._context = context  # also one without variables, which is false
    if name is not None:
        fiber.name = name
    scheduler.fibers.add(fiber)
    if current is None:
        scheduler.wake(fiber)
    else:
        scheduler.ready.append(fiber)
    return fiber


def spawn_later(
    seconds: float,
    fn: Callable[..., T],
    *args: Any,
    name: str | None = None,
    context: Context | None = None,
    **kwargs: Any,
) -> Fiber[T]:
    """As `spawn`, but the fiber starts after `seconds` (>= 0). Cancelled before, it never runs."""
    check_seconds("seconds", seconds)
    if not callable(fn):
        raise TypeError(f"spawn_later() takes a function, not {fn!r}")
    return spawn(_later, seconds, fn, args, kwargs, name=name or getattr(fn, "__qualname__", None), context=context)


def _later(seconds: float, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
    sleep(seconds)
    return fn(*args, **kwargs)


def current() -> Fiber[Any]:
    """The fiber that calls; the thread's main fiber at top level. Raises RuntimeError in a done-callback and the like."""
    scheduler = get_scheduler()
    if scheduler.current is None:
        raise scheduler.refuse()
    return scheduler.current


def current_time() -> float:
    """The time in seconds on the clock of this thread's loop, as used by every deadline."""
    return get_scheduler().loop.clock()


def sleep(seconds: float) -> None:
    """Let others run for `seconds` (>= 0; infinity: until cancelled). Never wakes early. `sleep(0)` is `yield_now()`.

    Raises TypeError or ValueError for what is not a duration.
    """
    scheduler = state.scheduler
    if scheduler is None:
        scheduler = get_scheduler()
    me = scheduler.current
    if me is None:
        raise scheduler.refuse()
    if check_seconds("seconds", seconds) == 0:
        yield_now()
        return
    clock = scheduler.loop.clock
    deadline = clock() + seconds
    timer = deadline if deadline < FOREVER else None
    while True:
        # Woken for another reason than time only if a signal handler has raised in the scheduler.
        if scheduler.park(me, SLEEPING, timer) is TIMED_OUT or clock() >= deadline:
            break
    if me.interrupt:
        me.interrupted()


def yield_now() -> None:
    """Let every fiber that is ready run before this one goes on."""
    scheduler = state.scheduler
    if scheduler is None:
        scheduler = get_scheduler()
    me = scheduler.current
    if me is None:
        raise scheduler.refuse()
    scheduler.ready.append(me)
    scheduler.park(me, None)
    if me.interrupt:
        me.interrupted()
