"""Event loops, and which of them this process uses.

The choice is made once, when this package is imported, from the environment variable FIBERS_EVENTLOOP, like a flag given
to a compiler: `BACKEND` tells the name. Unset, it is epoll on Linux and Android, kqueue on macOS and the BSDs, and poll
elsewhere. A name that is unknown, or known but not usable here, fails at import and says what is.

FIBERS_DEBUG=loop makes every loop check that it keeps the contract (checked.py). Read once at import, too: `CHECKED`.
"""

import importlib
import os
import sys
from typing import Any, Final

from .checked_polling import CheckedPollingLoop
from .clock import FOREVER, MONOTONIC, Clock
from .contract import EventLoop, LoopStats
from .pollers import Poller
from .polling import PollingLoop
from .timers import Timer, TimerTarget, TimerWheel
from .turns import CALLING, READ, WRITE, Calling, Direction, Handle
from .waiter import CLOSED, RETRY, TIMED_OUT, Outcome, Waiter

__all__ = [
    "BACKEND", "BACKENDS", "CALLING", "CHECKED", "CLOSED", "DEFAULT", "FOREVER", "MONOTONIC", "READ", "RETRY",
    "TIMED_OUT", "WRITE", "Calling", "Clock", "Direction", "EventLoop", "Handle", "LoopStats", "Outcome", "Poller",
    "PollingLoop", "Timer", "TimerTarget", "TimerWheel", "Waiter", "available", "new_loop",
]  # fmt: skip

#: Every backend by name: the module, and in it the class of its poller, or (libevent) of its loop. The first four need
#: the function of their name in the `select` module.
BACKENDS: Final[dict[str, tuple[str, str]]] = {
    "epoll": ("pollers.epoll", "EpollPoller"),
    "kqueue": ("pollers.kqueue", "KqueuePoller"),
    "poll": ("pollers.poll", "PollPoller"),
    "select": ("pollers.select", "SelectPoller"),
    "libevent": ("libevent", "LibeventLoop"),
}


def _default() -> str:
    if sys.platform.startswith(("linux", "android")):
        return "epoll"
    if sys.platform == "darwin" or "bsd" in sys.platform or sys.platform.startswith("dragonfly"):
        return "kqueue"
    return "poll"


#: What is used unless FIBERS_EVENTLOOP says otherwise.
DEFAULT: Final = _default()


def _class(name: str) -> Any:
    """The class behind a backend. Raises ImportError, which says why, where it cannot be used."""
    module, attribute = BACKENDS[name]
    if module != name and not hasattr(importlib.import_module("select"), name):
        raise ImportError(f"this platform ({sys.platform}) has no {name}")
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)


def _why_not(name: str) -> str | None:
    """None if the backend is usable here, else the reason why it is not."""
    if name not in BACKENDS:
        return "there is no such event loop"
    try:
        _class(name)
    except ImportError as error:
        return str(error)
    return None


def available() -> dict[str, str | None]:
    """Every backend by name: None if it is usable here, else the reason why it is not. Loads libevent to find out."""
    return {name: _why_not(name) for name in BACKENDS}


def _choose() -> str:
    name = os.environ.get("FIBERS_EVENTLOOP") or DEFAULT
    problem = _why_not(name)
    if problem is None:
        return name
    meant = name.strip().lower()
    if name not in BACKENDS and meant in BACKENDS:
        problem += f", but there is {meant!r}"
    table = available()
    usable = ", ".join(known for known, reason in table.items() if reason is None)
    others = "".join(f"; {known} is not: {reason}" for known, reason in table.items() if reason and known != name)
    raise ImportError(f"FIBERS_EVENTLOOP={name!r} cannot be used: {problem}. Usable here: {usable}{others}")


BACKEND: Final = _choose()


def _read_debug() -> bool:
    words = [word for word in os.environ.get("FIBERS_DEBUG", "").split(",") if word]
    for word in words:
        if word != "loop":
            raise ImportError(
                f"FIBERS_DEBUG={word!r} is not known; known is 'loop', for loops that check their contract"
            )
    return bool(words)


CHECKED: Final = _read_debug()


def _after_fork_in_child() -> None:
    """Registered here, so that it comes before the hooks of those who use a loop, whenever libevent was loaded."""
    libevent = sys.modules.get(f"{__name__}.libevent_files")
    if libevent is not None:
        libevent.after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)


def new_loop(backend: str = BACKEND, clock: Clock = MONOTONIC, checked: bool = CHECKED) -> EventLoop:
    """A new loop for the calling thread, on a backend named as in `available()`. `checked`: it checks its contract."""
    if backend not in BACKENDS:
        raise ValueError(f"there is no event loop {backend!r}; known are {', '.join(BACKENDS)}")
    if checked:
        return _checked_loop(backend, clock)
    if backend == "libevent":
        loop: EventLoop = _class(backend)(clock)
        return loop
    return PollingLoop(_class(backend), clock)


def _checked_loop(backend: str, clock: Clock) -> EventLoop:
    cls = _class(backend)
    if backend == "libevent":
        loop: EventLoop = importlib.import_module(f"{__name__}.checked_libevent").CheckedLibeventLoop(clock)
        return loop
    return CheckedPollingLoop(cls, clock)
