"""What every fiber is doing: `fibers.dump()`, for people who look at a program that stands still, or does not.

For each fiber: what it waits for and since when, where its code stands, and where it was spawned. The fibers of the
calling thread are seen as they are; those of other threads run on while they are looked at, so what is said of them may
be true of different moments.
"""

import sys
from types import FrameType
from typing import Any, TextIO

from greenlet import getcurrent

from .eventloop.turns import READ, Direction
from .fiber import Fiber
from .lifecycle import schedulers
from .scheduler import Scheduler
from .tracebacks import PACKAGE
from .waitqueue import WaitQueue


def dump(file: TextIO | None = None) -> None:
    """Write what every fiber of every thread is doing to `file` (sys.stderr). Any thread; also a signal handler."""
    print(picture(), file=sys.stderr if file is None else file)


def picture() -> str:
    """The text that `dump` writes."""
    return "\n\n".join(of_thread(scheduler) for scheduler in schedulers()) or "no thread has fibers"


def of_thread(scheduler: Scheduler) -> str:
    """The fibers of one thread; its main fiber first."""
    fibers = sorted(scheduler.fibers, key=lambda fiber: (fiber.name, fiber.spawned_at))
    entries = [_entry(scheduler, fiber) for fiber in [scheduler.main, *fibers] if not fiber.done()]
    return "\n".join(
        [f"thread {scheduler.thread}, {scheduler.loop.name} event loop: {len(fibers)} fibers and main", *entries]
    )


def _entry(scheduler: Scheduler, fiber: Fiber[Any]) -> str:
    lines = [f"  fiber {fiber.name!r} {_state(scheduler, fiber)}"]
    lines += [f"      at {place}" for place in _stack(scheduler, fiber)]
    if fiber is not scheduler.main:
        lines.append(f"      spawned at {fiber.spawned_at}")
    return "\n".join(lines)


def _state(scheduler: Scheduler, fiber: Fiber[Any]) -> str:
    if fiber is scheduler.current:
        return "runs"
    if fiber.greenlet is None:
        return "has not started"
    if fiber.waiting is None or fiber in list(scheduler.ready):
        return "is ready to run"
    waited = max(0.0, scheduler.loop.clock() - fiber.since)
    return f"has waited {waited:.3f} s for {awaited(fiber)}"


def awaited(fiber: Fiber[Any]) -> str:
    """What a waiting fiber waits for."""
    place: Any = fiber.waiting
    if isinstance(place, Direction):
        verb = "read" if place.interest == READ else "write"
        return f"fd {place.handle.fd} ({verb})"
    what = place.awaited(fiber) if isinstance(place, WaitQueue) else place
    if isinstance(what, Fiber):
        return f"the end of fiber {what.name!r}"
    return repr(place if what is None else what)


def _stack(scheduler: Scheduler, fiber: Fiber[Any]) -> list[str]:
    """Where its code stands, the innermost frame first; without this package's frames, which say how a fiber waits and not
    why, if others are left.
    """
    frame: FrameType | None
    if fiber is scheduler.current or fiber.greenlet is getcurrent():
        frame = sys._current_frames().get(scheduler.thread)
    else:
        frame = None if fiber.greenlet is None else fiber.greenlet.gr_frame
    frames = []
    while frame is not None:
        frames.append((frame.f_code, frame.f_lineno))
        frame = frame.f_back
    places = [f"{code.co_filename}:{line} in {code.co_qualname}" for code, line in frames]
    return [place for place in places if not place.startswith(PACKAGE)] or places[:1]
