"""Event loops, and which of them this process uses.

The choice is made once, when this package is imported, from the environment variable FIBERS_EVENTLOOP, like a flag given
to a compiler: `BACKEND` tells the name. Unset, it is epoll on Linux and Android, kqueue on macOS and the BSDs, and poll
elsewhere. A name that is unknown, or known but not usable here, fails at import and says what is.
"""

import importlib
import os
import sys
from collections.abc import Callable
from typing import Final

from .clock import FOREVER, MONOTONIC, Clock
from .contract import EventLoop, LoopStats
from .pollers import Poller
from .polling import PollingLoop
from .timers import Timer, TimerTarget, TimerWheel
from .turns import CALLING, READ, WRITE, Calling, Direction, Handle
from .waiter import CLOSED, RETRY, TIMED_OUT, Outcome, Waiter

__all__ = [
    "BACKEND", "BACKENDS", "CALLING", "CLOSED", "FOREVER", "MONOTONIC", "READ", "RETRY", "TIMED_OUT", "WRITE",
    "Calling", "Clock", "Direction", "EventLoop", "Handle", "LoopStats", "Outcome", "Poller", "PollingLoop", "Timer",
    "TimerTarget", "TimerWheel", "Waiter", "available", "new_loop",
]  # fmt: skip

#: Every backend by name: the module with its poller, the class in it, and what it needs of the `select` module.
BACKENDS: Final[dict[str, tuple[str, str, str]]] = {
    "epoll": ("epoll", "EpollPoller", "epoll"),
    "kqueue": ("kqueue", "KqueuePoller", "kqueue"),
    "poll": ("poll", "PollPoller", "poll"),
    "select": ("select", "SelectPoller", "select"),
}


def _default() -> str:
    if sys.platform.startswith(("linux", "android")):
        return "epoll"
    if sys.platform == "darwin" or "bsd" in sys.platform or sys.platform.startswith("dragonfly"):
        return "kqueue"
    return "poll"


def _make_poller(name: str) -> Callable[[], Poller]:
    """The constructor of a backend's poller. Raises ImportError where the system has none."""
    module, attribute, needs = BACKENDS[name]
    if not hasattr(importlib.import_module("select"), needs):
        raise ImportError(f"this platform ({sys.platform}) has no {needs}")
    make: Callable[[], Poller] = getattr(importlib.import_module(f"{__name__}.pollers.{module}"), attribute)
    return make


def available() -> dict[str, str | None]:
    """Every backend by name: None if it is usable here, else the reason why it is not."""
    found: dict[str, str | None] = {}
    for name in BACKENDS:
        try:
            _make_poller(name)
        except ImportError as error:
            found[name] = str(error)
        else:
            found[name] = None
    return found


def _choose() -> str:
    name = os.environ.get("FIBERS_EVENTLOOP") or _default()
    why_not = available()
    if why_not.get(name, "unknown") is None:
        return name
    table = "; ".join(f"{known}: {reason or 'usable'}" for known, reason in why_not.items())
    problem = why_not.get(name, "there is no such event loop")
    raise ImportError(f"FIBERS_EVENTLOOP={name!r} cannot be used: {problem}. Known event loops: {table}")


BACKEND: Final = _choose()


def new_loop(backend: str = BACKEND, clock: Clock = MONOTONIC) -> EventLoop:
    """A new loop for the calling thread, on a backend named as in `available()`."""
    if backend not in BACKENDS:
        raise ValueError(f"there is no event loop {backend!r}; known are {', '.join(BACKENDS)}")
    return PollingLoop(_make_poller(backend), clock)
