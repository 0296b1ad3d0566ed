"""Timers that are libevent's own.

Facts, and what follows:

* libevent keeps the events of one deadline in a heap, which is not stable: a hundred equal timeouts came back nearly in
  reverse. And each would start a little later than the one before, since a duration is counted from when it is added. So
  timers of the very same deadline share one libevent event, in a group, which keeps their order.
* What has come in one run is sorted by deadline. So all timers expire in the order of (deadline, sequence).
* libevent reads a clock of its own. A group that comes early by ours is added again for the rest; so is one whose
  deadline is farther than libevent is asked for at a time.
* A group is out of the table before it is taken apart, and an event has been added before its group is in the table. So
  an exception between any two steps leaves an event behind that comes to nothing, and not a timer without an event.
"""

from collections import deque
from operator import attrgetter
from typing import Final

from .clock import FOREVER, Clock
from .libevent_base import Base, Event
from .timers import Timer, TimerTarget

#: Events kept for reuse: to make one costs as much as to add it.
SPARE_MAX: Final = 1000

_by_deadline: Final = attrgetter("deadline")


class Group:
    """The pending timers of one deadline, in the order in which they were made."""

    __slots__ = ("deadline", "event", "timers")

    def __init__(self, deadline: float, event: Event) -> None:
        self.deadline = deadline
        self.event = event
        self.timers: dict[LibeventTimer, None] = {}


class LibeventTimer(Timer):
    """A timer of this loop; `group` is None once it has been cancelled."""

    __slots__ = ("group",)

    group: Group | None


class LibeventTimers:
    """The timers of one loop. For its thread. `len()`: the pending ones."""

    __slots__ = ("_base", "_clock", "_groups", "_sequence", "_spare")

    def __init__(self, base: Base, clock: Clock) -> None:
        self._base = base
        self._clock = clock
        self._groups: dict[float, Group] = {}
        self._spare: list[Event] = []
        self._sequence = 0

    def __len__(self) -> int:
        return sum(len(group.timers) for group in self._groups.values())

    def add(self, deadline: float, target: TimerTarget) -> Timer:
        """See `EventLoop.schedule`. Raises ValueError for a deadline that is infinite or no number."""
        if not -FOREVER < deadline < FOREVER:
            raise ValueError(f"a timer needs a finite deadline, not {deadline!r}")
        timer = LibeventTimer()
        timer.deadline, timer.target = deadline, target
        timer.slot = None
        self._sequence = timer.sequence = self._sequence + 1
        group = self._groups.get(deadline)
        if group is None:
            event = self._spare.pop() if self._spare else self._base.new_event(-1, 0, None)
            event.target = group = Group(deadline, event)
            self._base.add_timer(event, deadline - self._clock())
            self._groups[deadline] = group
        timer.group = group
        group.timers[timer] = None
        return timer

    def cancel(self, timer: Timer) -> bool:
        """See `EventLoop.unschedule`."""
        assert isinstance(timer, LibeventTimer)
        group = timer.group
        timer.group = timer.target = None
        if group is None or timer not in group.timers:
            return False
        del group.timers[timer]
        if not group.timers:
            self._retire(group)
        return True

    def _retire(self, group: Group) -> None:
        event = group.event
        if self._groups.get(group.deadline) is group:
            del self._groups[group.deadline]
        if event.target is group:
            self._base.delete(event)
            event.target = None
            if len(self._spare) < SPARE_MAX:
                self._spare.append(event)
            else:
                self._base.free(event)

    def collect(self, groups: list[Group], due: deque[Timer]) -> None:
        """The events of these groups have come: append the timers that are due, in order; the others go on."""
        now = self._clock()
        for group in sorted(groups, key=_by_deadline):
            if group.deadline > now:
                self._base.add_timer(group.event, group.deadline - now)
            else:
                timers, group.timers = group.timers, {}
                due.extend(timers)
                self._retire(group)

    def follow_clock(self) -> None:
        """For a clock that libevent knows nothing of, which may jump: have what is due by it come at the next run."""
        now = self._clock()
        for group in self._groups.values():
            if group.deadline <= now:
                self._base.activate(group.event)

    def abandon(self) -> None:
        """In a forked child: the pending timers come to nothing."""
        for group in self._groups.values():
            for timer in group.timers:
                timer.group = timer.target = None
        self._groups.clear()
