"""What every fiber is doing: `fibers.dump()`, for people who look at a program that stands still, or does not.

For each fiber: what it waits for and since when, where its code stands, and where it was spawned. The fibers of the
calling thread are seen as they are; those of other threads run on while they are looked at, so what is said of them may
be true of different moments.
"""

import os
import sys
from types import FrameType
from typing import Any, Final, TextIO

from ..eventloop.turns import READ, Direction
from .fiber import Fiber
from .lifecycle import schedulers
from .scheduler import Scheduler
from .tracebacks import PACKAGE
from .waitqueue import WaitQueue

#: Frames that are shown of one fiber.
DEEPEST: Final = 40


def dump(file: TextIO | None = None) -> None:
    """Write what every fiber of every thread is doing to `file` (sys.stderr). Any thread; also a signal handler."""
    text = picture() + "\n"
    try:
        (sys.stderr if file is None else file).write(text)
    except RuntimeError:
        # A signal handler has struck while its thread was writing to this very file: Python's buffers refuse. Their fd
        # does not.
        os.write(2, text.encode(errors="backslashreplace"))


def picture() -> str:
    """The text that `dump` writes."""
    return "\n\n".join(of_thread(scheduler) for scheduler in schedulers()) or "no thread has fibers"


def of_thread(scheduler: Scheduler) -> str:
    """The fibers of one thread; its main fiber first."""
    fibers = sorted(scheduler.fibers, key=lambda fiber: (fiber.name, fiber.spawned_at))
    ready = set(scheduler.ready)
    entries = [_entry(scheduler, fiber, ready) for fiber in [scheduler.main, *fibers] if not fiber.done()]
    return "\n".join(
        [f"thread {scheduler.thread}, {scheduler.loop.name} event loop: {len(fibers)} fibers and main", *entries]
    )


def _entry(scheduler: Scheduler, fiber: Fiber[Any], ready: set[Any]) -> str:
    lines = [f"  fiber {fiber.name!r} {_state(scheduler, fiber, ready)}"]
    lines += [f"      at {place}" for place in _stack(scheduler, fiber)]
    if fiber is not scheduler.main:
        lines.append(f"      spawned at {fiber.spawned_at}")
    return "\n".join(lines)


def _state(scheduler: Scheduler, fiber: Fiber[Any], ready: set[Any]) -> str:
    place: Any = fiber.waiting
    if fiber is scheduler.current:
        return "runs"
    if place is None or fiber in ready:
        return "has not started" if fiber.greenlet is None and fiber is not scheduler.main else "is ready to run"
    waited = max(0.0, scheduler.loop.clock() - fiber.since)
    return f"has waited {waited:.3f} s for {_awaited(fiber, place)}"


def awaited(fiber: Fiber[Any]) -> str:
    """What a fiber waits for."""
    place = fiber.waiting
    return "nothing" if place is None else _awaited(fiber, place)


def _awaited(fiber: Fiber[Any], place: Any) -> str:
    """What a fiber waits for in that place."""
    if isinstance(place, Direction):
        verb = "read" if place.interest == READ else "write"
        return f"fd {place.handle.fd} ({verb})"
    what = place.awaited(fiber) if isinstance(place, WaitQueue) else place
    if isinstance(what, Fiber):
        return f"the end of fiber {what.name!r}"
    what = place if what is None else what
    try:
        return repr(what)
    except Exception as error:  # whatever foreign code raises: this is a report about something else
        return f"{object.__repr__(what)} (its repr raises {type(error).__name__})"


def _stack(scheduler: Scheduler, fiber: Fiber[Any]) -> list[str]:
    """Where its code stands, the innermost frame first; without this package's frames, which say how a fiber waits and not
    why, if others are left.
    """
    frame: FrameType | None = None
    greenlet = fiber.greenlet
    if fiber is scheduler.current or (greenlet is not None and greenlet.gr_frame is None):
        frame = sys._current_frames().get(scheduler.thread)  # it is on its stack that the thread runs now
    elif greenlet is not None:
        frame = greenlet.gr_frame
    frames = []
    while frame is not None:
        frames.append((frame.f_code, frame.f_lineno))
        frame = frame.f_back
    places = [f"{code.co_filename}:{line} in {code.co_qualname}" for code, line in frames]
    places = [place for place in places if not place.startswith(PACKAGE)] or places[:1]
    more = len(places) - DEEPEST
    return places if more <= 0 else [*places[:DEEPEST], f"… and {more} frames further out"]
