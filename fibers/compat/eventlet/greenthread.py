"""eventlet.greenthread: GreenThread, and the functions that start and end one.

A GreenThread is a Greenlet (gevent/greenlet.py) with eventlet's methods. Two things differ there: what was killed is an
error to whoever waits, GreenletExit, and links are called with the arguments that were given with them.
"""

from collections.abc import Callable
from typing import Any

from greenlet import GreenletExit

from ...core.runtime import sleep as _sleep
from ...core.scheduler import get_scheduler
from ..gevent._links import call_links
from ..gevent.greenlet import Greenlet
from ..gevent.hub import as_error, getcurrent, spawn_raw
from ..striking import Strike

spawn_n = spawn_raw


class GreenThread(Greenlet):
    """A function in a fiber of its own. Made by `spawn`."""

    def wait(self) -> Any:
        """Wait until it is over: what its function returned, or raises what that raised; GreenletExit if it was killed."""
        value = self.get()
        if isinstance(value, GreenletExit):
            raise value
        return value

    def link(self, func: Callable[..., object], *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        """Have `func(self, *args, **kwargs)` called when it is over; soon, if it is."""
        self.rawlink(_Curried(func, args, kwargs))

    def _notify(self) -> None:
        """Its links are called at once, by itself as it ends, or by whoever links."""
        if get_scheduler().current is None:
            super()._notify()
        else:
            call_links(self)

    def unlink(self, func: Callable[..., object], *args: Any, **kwargs: Any) -> bool:  # type: ignore[override]
        """Take a link back. Was it there?"""
        link = _Curried(func, args, kwargs)
        found = link in self._links
        super().unlink(link)
        return found

    def kill(self, *throw_args: Any) -> None:
        """Raise an exception in it where it waits (GreenletExit, if none is given), and wait until it is over.

        If it has not begun, it never runs.
        """
        self._kill(as_error(*throw_args), True)

    def cancel(self, *throw_args: Any) -> None:
        """As `kill`, but only if it has not begun."""
        if not self._begun:
            self.kill(*throw_args)


class _Curried:
    """A link with arguments."""

    __slots__ = ("_call",)

    def __init__(self, func: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not callable(func):
            raise TypeError(f"a link is callable, which {func!r} is not")
        self._call = (func, args, kwargs)

    def __call__(self, source: Any) -> None:
        func, args, kwargs = self._call
        func(source, *args, **kwargs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Curried) and self._call == other._call

    __hash__ = None  # type: ignore[assignment]


def spawn(func: Callable[..., Any], *args: Any, **kwargs: Any) -> GreenThread:
    """Run `func(*args, **kwargs)` in a fiber of its own."""
    return GreenThread.spawn(func, *args, **kwargs)


def spawn_after(seconds: float, func: Callable[..., Any], *args: Any, **kwargs: Any) -> GreenThread:
    """As `spawn`, after `seconds`; `cancel()` of what it returns prevents it."""
    return GreenThread.spawn_later(seconds, func, *args, **kwargs)


def spawn_after_local(seconds: float, func: Callable[..., Any], *args: Any, **kwargs: Any) -> GreenThread:
    """As `spawn_after`, but nothing happens if the caller is over by then."""
    caller = getcurrent()

    def call() -> Any:
        return None if caller.dead else func(*args, **kwargs)

    return GreenThread.spawn_later(seconds, call)


call_after = call_after_local = spawn_after_local
call_after_global = spawn_after


class _Exception:
    """What `exc_after` returns."""

    __slots__ = ("_strike",)

    def __init__(self, strike: Strike) -> None:
        self._strike = strike

    @property
    def pending(self) -> bool:
        """Is it still to come?"""
        return self._strike.pending

    def cancel(self) -> None:
        """It shall not be raised any more."""
        self._strike.withdraw()


def exc_after(seconds: float, *throw_args: Any) -> _Exception:
    """Have an exception raised in the calling fiber after `seconds`, unless what this returns is cancelled."""
    return _Exception(Strike(seconds, as_error(*throw_args)))


def sleep(seconds: float = 0) -> None:
    """Let others run for `seconds`. 0: let who is ready run."""
    _sleep(max(seconds, 0))


def kill(g: Any, *throw_args: Any) -> None:
    """Raise an exception in a fiber, and wait until it is over."""
    if isinstance(g, GreenThread):
        g.kill(*throw_args)
    elif not g.dead:
        g.throw(*throw_args)
        g._fiber.join()


def cancel(g: Any, *throw_args: Any) -> None:
    """As `kill`, but only if it has not begun."""
    if isinstance(g, GreenThread):
        g.cancel(*throw_args)


__all__ = [
    "GreenThread", "call_after", "call_after_global", "call_after_local", "cancel", "exc_after", "getcurrent", "kill",
    "sleep", "spawn", "spawn_after", "spawn_after_local", "spawn_n",
]  # fmt: skip
