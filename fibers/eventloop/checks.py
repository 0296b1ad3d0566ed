"""The small parts of a checked loop (checked.py): things that stand where the loop's own stood, and look at what happens.

Facts, and what follows:

* CPython runs signal handlers and finalisers between any two steps, also in here. A handler may raise; and it may do what
  the rules forbid to a loop (make somebody ready in the middle of a dispatch). So no book is kept from turn to turn that
  such a handler could put wrong, and who did something is told by the frames that called.
* What is noticed inside a turn is only noted, and raised when the turn is over. To raise in the middle would break the
  loop where it was perhaps only slightly wrong, and lose the events behind the one that was looked at.
"""

import sys
import threading
from collections import Counter, deque
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from types import FrameType, TracebackType
from typing import Any, Final, Protocol

from ..errors import ContractError
from .clock import FOREVER, Clock
from .posts import has_begun
from .timers import Timer, TimerTarget
from .turns import Direction, Handle
from .waiter import Waiter

#: What a loop is doing.
OUTSIDE: Final = "outside of a turn"
DISPATCH: Final = "waiting and dispatching"
POSTED: Final = "running what was posted"
EXPIRING: Final = "expiring a timer"


class Judge(Protocol):
    """What the parts need of the checked loop that they belong to."""

    thread: int
    closed: bool
    phase: str

    def fault(self, rule: str, what: str) -> None:
        """A rule is broken: raise ContractError, now or when the turn is over."""

    def judge_wake(self, waiter: Waiter) -> None: ...
    def expiring(self, timer: Timer, target: "CheckedTarget") -> None: ...
    def run_post(self, post: "CheckedPost") -> None: ...


def foreign(judge: Judge, what: str) -> ContractError:
    """The error for a call in a thread that may not make it."""
    here = threading.get_ident()
    return ContractError("thread", f"{what} in thread {here}; the loop belongs to thread {judge.thread}")


class CheckedReady(deque[Any]):
    """The ready queue. Outside of turns it is the plain one: its users rely on `append` and `popleft` being one step, in
    which nothing else runs. Inside a turn these two look at what is done.
    """

    def __init__(self, judge: Judge) -> None:
        super().__init__()
        self._judge = judge
        self._inside: set[int] | None = None  # ids of what is in the queue, if anybody looks at that in this turn
        self.spurious: set[int] = set()  # ids of who is in it by mistake, or twice, and by no fault of this turn

    def begin(self, waiting: AbstractSet[int] | None) -> None:
        """A turn begins. `waiting`: ids of who waits for a file; None: nobody looks at that in this turn.

        After a signal handler has raised, its users may have made somebody ready who was, or who waits. The turn itself
        then puts the methods below in place.
        """
        self._inside = None
        if waiting is not None:
            ids = list(map(id, list(self)))
            self._inside = set(ids)
            self.spurious = self._inside & waiting
            if len(ids) > len(self._inside):
                self.spurious |= {each for each, times in Counter(ids).items() if times > 1}

    def judged_append(self, waiter: Waiter, /) -> None:
        judge = self._judge
        if threading.get_ident() != judge.thread:
            raise foreign(judge, f"{waiter!r} was put into the ready queue")
        if _by_loop(sys._getframe(1), judge):
            inside = self._inside
            if inside is not None:
                if id(waiter) in inside and id(waiter) not in self.spurious and self.holds(waiter):
                    judge.fault("once", f"{waiter!r} was woken, and had been woken already")
                    return
                inside.add(id(waiter))
            if judge.phase is DISPATCH:
                judge.judge_wake(waiter)
        super().append(waiter)

    def judged_popleft(self) -> Any:
        judge = self._judge
        judge.fault("run nobody", f"{self[0]!r} left the ready queue while the loop was {judge.phase}")
        return super().popleft()

    def holds(self, waiter: Waiter) -> bool:
        """Is it in the queue? Slow when that is long."""
        return any(each is waiter for each in list(self))

    def ids(self) -> set[int]:
        """Of all that are in the queue."""
        # A copy first, which is one step. A finaliser that runs in the middle of another way may add to the queue.
        return set(map(id, list(self)))


def _by_loop(frame: FrameType | None, loop: object) -> bool:
    """Is it the loop that acts there, itself or through its handles, and not a signal handler or a finaliser?"""
    while frame is not None:
        actor = frame.f_locals.get("self")
        if actor is loop:
            return True
        if not isinstance(actor, Direction | Handle):
            return False
        frame = frame.f_back
    return False


class CheckedClock:
    """A clock that does not go back, as far as the loop's own thread reads it. `last`: what it said."""

    __slots__ = ("_clock", "_judge", "last")

    def __init__(self, judge: Judge, clock: Clock) -> None:
        self._judge = judge
        self._clock = clock
        self.last = -FOREVER

    def __call__(self) -> float:
        before = self.last  # read first: a signal handler may read the clock behind this line
        now = self._clock()
        judge = self._judge
        if threading.get_ident() == judge.thread:
            self.last = now
            if now < before:
                judge.fault("time", f"the clock of the loop went back from {before!r} to {now!r}")
        return now


class CheckedTarget:
    """Stands between a timer and its target."""

    __slots__ = ("_judge", "made", "over", "overdue", "target")

    def __init__(self, judge: Judge, target: TimerTarget, made: int) -> None:
        self._judge = judge
        self.target = target
        self.made = made  # the turn after which it was made
        self.over = False  # it has expired, or has been unscheduled
        self.overdue = 0  # how many turns have seen it overdue

    def expire(self, timer: Timer) -> None:
        self._judge.expiring(timer, self)


class CheckedPost:
    """What stands in the inbox for something posted."""

    __slots__ = ("_judge", "args", "called", "function", "place")

    def __init__(self, judge: Judge, function: Callable[..., None], args: tuple[object, ...]) -> None:
        self._judge = judge
        self.function = function
        self.args = args
        self.called = False
        self.place: TracebackType | None = None  # where it raised

    @property
    def ran(self) -> bool:
        """Has it begun?"""
        return self.called and (self.place is None or has_begun(self.function, self.place))

    def __call__(self) -> None:
        self._judge.run_post(self)

    def __repr__(self) -> str:
        return f"{getattr(self.function, '__qualname__', self.function)}{self.args!r}"


class CheckedFinish:
    """What a loop calls to have the fd of a released file closed."""

    __slots__ = ("_finish", "_handle", "_judge", "_ran")

    def __init__(self, judge: Judge, handle: Handle, finish: Callable[[], None]) -> None:
        self._judge = judge
        self._handle = handle
        self._finish = finish
        self._ran = False

    def __call__(self) -> None:
        handle = self._handle
        if self._ran:
            self._judge.fault("release", f"fd {handle.fd} was to be closed a second time")
            return
        self._ran = True
        waits = threading.get_ident() == self._judge.thread and waiters_of(handle)
        self._finish()
        if waits or not handle.closed:
            why = f"{waits[0][1]!r} waited for it" if waits else "it had not been marked as closed"
            self._judge.fault("release", f"fd {handle.fd} was closed while {why}")


def waiters_of(handle: Handle) -> list[tuple[Direction, Waiter]]:
    """Who waits for a file: for an edge, or for the turn."""
    found = []
    for direction in (handle.reading, handle.writing):
        waiter = direction.waiter
        if waiter is not None:
            found.append((direction, waiter))
        for waiter in list(direction.queue or ()):
            found.append((direction, waiter))
    return found
