"""Queues of connections that all have the same time: the first in is the first whose time is up.

Facts, and what follows. A server gives every idle connection the same minute, and every request the same ten seconds to
arrive. So the deadlines of one kind come in the order of entering: a dict, which keeps that order and lets go of anything
in one step, is the whole queue, and one timer stands for all of it. Entering and leaving touch no timer: it looks at the
front when it fires, and goes on from there. (Apache's event MPM keeps its queues by duration for the same reason.)

Those that enter within a short while, a five-hundredth of their time, share one deadline: it is late by that much at most,
and a float less for each of ten thousand idle connections.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final, Generic, TypeVar

from ..eventloop.clock import FOREVER
from ..eventloop.contract import EventLoop
from ..eventloop.timers import Timer

T = TypeVar("T")

#: By which part of its time a member may be late.
GRAIN: Final = 1 / 512


class TimeoutQueue(Generic[T]):
    """Members that have `seconds` (None: no limit) from the moment they enter; then `expired(member)` is called.

    For the thread of `loop`. A member is in the queue at most once. `expired` is runtime code and may not block; if it
    leaves the member in the queue, its time begins anew.
    """

    __slots__ = ("_expired", "_latest", "_loop", "_timer", "deadlines", "seconds")

    def __init__(self, loop: EventLoop, seconds: float | None, expired: Callable[[T], object]) -> None:
        self._loop = loop
        self.seconds = seconds
        self._expired = expired
        self.deadlines: dict[T, float] = {}  # to be read by others
        self._timer: Timer | None = None
        self._latest = 0.0  # the deadline that was given last

    def __len__(self) -> int:
        return len(self.deadlines)

    def __iter__(self) -> Iterator[T]:
        """The members, the one with the least time left first."""
        return iter(list(self.deadlines))

    def __contains__(self, member: T) -> bool:
        return member in self.deadlines

    def enter(self, member: T) -> None:
        """Its time begins now."""
        seconds = self.seconds
        if seconds is None:
            self.deadlines[member] = FOREVER
            return
        deadline = self._loop.clock() + seconds
        if deadline > self._latest:
            self._latest = deadline + seconds * GRAIN
        self.deadlines[member] = self._latest
        if self._timer is None:
            self._timer = self._loop.schedule(self._latest, self)

    def leave(self, member: T) -> bool:
        """It has done what it was given time for. False, and nothing happens, if it is not in here."""
        return self.deadlines.pop(member, None) is not None

    def hurry(self, seconds: float) -> None:
        """Nobody has more than `seconds` from now on, and those that come have that."""
        if self.seconds is not None and self.seconds <= seconds:
            return
        self.seconds = seconds
        latest = self._latest = self._loop.clock() + seconds
        for member, deadline in self.deadlines.items():
            if deadline > latest:
                self.deadlines[member] = latest
        if self.deadlines:
            if self._timer is not None:
                self._loop.unschedule(self._timer)
            self._timer = self._loop.schedule(next(iter(self.deadlines.values())), self)

    def expire(self, timer: Timer) -> None:
        """The loop calls this when the time of the first may be up."""
        if timer is not self._timer:
            return
        now, deadlines = self._loop.clock(), self.deadlines
        for _ in range(len(deadlines)):  # each once, also where the time that begins anew is none
            member = next(iter(deadlines), None)
            if member is None or deadlines[member] > now:
                break
            self._expired(member)
            if member in deadlines:
                self.leave(member)
                deadlines[member] = now + (self.seconds or 0.0)
        following: Any = next(iter(deadlines.values()), None)
        self._timer = None if following is None else self._loop.schedule(following, self)

    def close(self) -> None:
        """Forget everybody."""
        self.deadlines.clear()
        if self._timer is not None:
            self._loop.unschedule(self._timer)
            self._timer = None
