"""`wait_all_parked`: go on when all other fibers of this thread wait.

The scheduler calls `on_idle` when its ready queue is empty, before its loop may sleep. That is the moment, but for what
has happened and has not been looked at: files that are ready, posts, passed deadlines. So a turn that does not sleep is
made there; if still nobody is ready, everybody waits. Whoever waits for that moment does not count, so that several
fibers may do so at once.

With a cushion, the moment has to last. A timer is set for its end, and set anew whenever the scheduler becomes idle
again, which means that something has happened meanwhile.

The watch is put in front of whatever else looks at idleness (deadlock.py), while somebody waits for it, and taken out
afterwards.
"""

from collections.abc import Callable
from typing import Any

from ..core.fiber import Fiber
from ..core.scheduler import Scheduler, check_seconds, get_scheduler
from ..core.waitqueue import WaitQueue
from ..eventloop.clock import FOREVER
from ..eventloop.timers import Timer


class _Request:
    """What one fiber waits for."""

    __slots__ = ("cushion", "reached")

    def __init__(self, cushion: float) -> None:
        self.cushion = cushion
        self.reached = False

    def __repr__(self) -> str:
        lasting = f" for {self.cushion} seconds" if self.cushion else ""
        return f"all other fibers to wait{lasting}"


class _Watch:
    """The `on_idle` of a scheduler; see the module's text. Runtime code, but for what says otherwise."""

    __slots__ = ("_before", "_requests", "_scheduler", "_timer")

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._before: Callable[[], object] | None = None
        self._requests = WaitQueue()
        self._timer: Timer | None = None

    def __call__(self) -> None:
        loop, ready = self._scheduler.loop, self._scheduler.ready
        if self._requests:
            self._stop_timer()
            loop.turn(False)
            if ready:
                return
            self._grant(0.0)
            if not ready and (cushion := self._shortest()) < FOREVER:
                self._timer = loop.schedule(loop.clock() + cushion, self)
        if self._before is not None:
            self._before()

    def expire(self, timer: Timer) -> None:
        """A cushion has lasted, unless somebody has become ready in this very turn."""
        if timer is self._timer:
            if not self._scheduler.ready:
                self._grant(self._shortest())
            self._timer = None

    def _grant(self, cushion: float) -> None:
        """Wake who wants no longer cushion than this."""
        for fiber in self._requests:
            request = self._requests.awaited(fiber)
            if isinstance(request, _Request) and request.cushion <= cushion and self._requests.abandon(fiber):
                request.reached = True
                self._scheduler.ready.append(fiber)

    def _shortest(self) -> float:
        requests = [self._requests.awaited(fiber) for fiber in self._requests]
        return min((request.cushion for request in requests if isinstance(request, _Request)), default=FOREVER)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._scheduler.loop.unschedule(self._timer)
            self._timer = None

    def wait(self, me: Fiber[Any], request: _Request) -> None:
        """Fiber code."""
        scheduler = self._scheduler
        if scheduler.on_idle is not self and not self._requests:
            self._before, scheduler.on_idle = scheduler.on_idle, self
        try:
            while not request.reached:
                self._requests.add(me, request)
                scheduler.park(me, self._requests)
        finally:
            self._requests.abandon(me)
            if not self._requests and scheduler.on_idle is self:
                scheduler.in_runtime(self._stop_timer)
                scheduler.on_idle, self._before = self._before, None


def wait_all_parked(cushion: float = 0.0) -> None:
    """Wait until every other fiber of this thread waits for something, and has done so for `cushion` seconds (>= 0).

    For tests that want to look at, or to disturb, a program in a settled state: "both clients are blocked in `get` now".
    Fibers that wait for a worker thread, another thread or another process wait, too; where those are about to
    wake somebody, a cushion gives them time. It is in seconds on the clock of `current_time()`, so on a virtual clock that
    jumps it also lets the sleepers of that time run. Several fibers may call this at once: they do not count.

    Raises TypeError or ValueError for what is not a finite duration. The idea is trio's `wait_all_tasks_blocked`.
    """
    if check_seconds("cushion", cushion) == FOREVER:
        raise ValueError("cushion must be finite, not inf: no state lasts for ever")
    scheduler = get_scheduler()
    me = scheduler.current
    if me is None:
        raise scheduler.refuse()
    watch = scheduler.on_idle if isinstance(scheduler.on_idle, _Watch) else _Watch(scheduler)
    watch.wait(me, _Request(cushion))
