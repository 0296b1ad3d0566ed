"""The selector of an asyncio loop that runs in a fiber: the kernel's own, nested in the event loop of the thread.

asyncio asks its selector for ready files once in each of its iterations, and sleeps in there. This one never sleeps in the
kernel: it parks the fiber of the loop, and the other fibers of the thread run.

Facts, and what follows:

* An epoll instance (a kqueue as well) is a file that is readable while one of its files is ready. So asyncio's files stay in
  an instance of their own, level-triggered, as asyncio expects them; the event loop of the thread has that one file
  registered, for its lifetime. All of asyncio works as it stands, on every loop of ours; files that were closed without a
  word, shared with fibers or numbered too high for select() included.
* An edge of the nested instance comes with an arrival, not with what was left over by the last look. So before it sleeps the
  selector looks, unless it knows by the latch (eventloop/turns.py) that there was nothing after the last edge.
* What wakes the loop: an edge, its time, a callback that somebody has scheduled: another fiber, another thread, a signal
  handler. All go one way, `wake`, which takes the fiber out of the queue where it waits. asyncio's self-pipe is not needed.
* A loop that has no files (it computes, sleeps, waits for fibers) makes no system call here, and is not waiting for a file:
  virtual time passes, and a deadlock can be seen.
* A loop that is never idle lets the other fibers run once in each iteration.
"""

import selectors
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from ..core.fiber import Fiber
from ..core.scheduler import Scheduler
from ..core.waitqueue import WaitQueue
from ..eventloop import FOREVER, Direction
from ..io.state import _let_go
from ..threads.completion import Outside

#: Those whose instance is itself a file that can be waited for.
_EPOLL: Final[Any] = getattr(selectors, "EpollSelector", None)
_Kernel: Final[Any] = _EPOLL or getattr(selectors, "KqueueSelector", None)
if _Kernel is None:
    raise ImportError("fibers.asyncio needs epoll or kqueue, and this system has neither")


class Stage(Protocol):
    """What the selector needs of its loop."""

    _ready: deque[Any]

    def step_aside(self) -> None:
        """Other fibers are going to run: nothing of asyncio is running in this thread."""

    def step_back(self) -> None:
        """The fiber of the loop is running again."""


class _Within(WaitQueue):
    """Where a loop without files sleeps: only fibers and threads of this process can wake it."""

    __slots__ = ()


class FiberSelector(_Kernel):  # type: ignore[misc]
    """See the module's text. For the thread of the loop, but for `wake`, which any thread and signal handler may call."""

    def __init__(self, loop: Stage) -> None:
        super().__init__()
        self._loop = loop
        self._files: dict[int, Any] = self._fd_to_key  # what `get_map()` shows, without its price
        self._scheduler: Scheduler | None = None
        self._fiber: Fiber[Any] | None = None
        self._places: Final = (_Within(), Outside())
        self._direction: Direction | None = None
        self._observing = False
        self._drained = -1  # the edges that had been seen before the last look, if that has found nothing
        self._rested = False  # the last call has let the others run
        self.asleep: WaitQueue | None = None  # where the fiber waits
        self.until = FOREVER  # when it wakes by itself
        self.stale = False  # others have added a timer or called `stop`: the timeout that was given may be too long

    # -- whose it is ------------------------------------------------------------------------------------------------

    def bind(self, scheduler: Scheduler, fiber: Fiber[Any]) -> None:
        """The loop starts to run, in this fiber."""
        self._scheduler, self._fiber = scheduler, fiber
        self._rested = False

    def unbind(self) -> None:
        """The loop has stopped."""
        if self._observing:
            self._forget()
        self._scheduler = self._fiber = None

    def close(self) -> None:
        direction, self._direction = self._direction, None
        finish: Callable[[], None] = super().close
        if direction is None:
            finish()
        else:
            _let_go(direction.handle, finish)

    # -- from anywhere ----------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """End the sleep, if there is one."""
        place = self.asleep
        if place is not None:
            place.wake_all()

    notice = wake  # of the nested instance: there was an edge

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key: selectors.SelectorKey = super().register(fileobj, events, data)
        if not self._observing:
            self.wake()
        return key

    # -- for asyncio ------------------------------------------------------------------------------------------------

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """The files that are ready; if there are none, sleeps for `timeout` seconds (None: without end) or until woken."""
        self.stale = False
        if not self._rested:
            self._give_way()
        self._rested = False
        if timeout is not None and timeout <= 0:
            return self._look() if self._files else []
        if self._files:
            direction = self._direction
            if direction is None or direction.edges != self._drained or not self._observing:
                ready = self._look()
                if ready:
                    return ready
        self._rested = True
        self._sleep(timeout)
        direction = self._direction
        if self._files and direction is not None and direction.edges != self._drained:
            return self._look()
        return []

    def _look(self) -> list[tuple[selectors.SelectorKey, int]]:
        direction = self._direction
        seen = -1 if direction is None else direction.edges
        ready: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        self._drained = -1 if ready or _EPOLL is None else seen
        return ready

    def _give_way(self) -> None:
        scheduler, me = self._scheduler, self._fiber
        assert scheduler is not None
        assert me is not None
        if not scheduler.ready and scheduler.budget > 1 and not me.interrupt:
            scheduler.budget -= 1  # as a switch would: the loop of the thread gets its turn in time
            return
        self._loop.step_aside()
        try:
            scheduler.ready.append(me)
            scheduler.park(me, None)
            if me.interrupt:
                me.interrupted()
        finally:
            self._loop.step_back()

    def _sleep(self, timeout: float | None) -> None:
        scheduler, me = self._scheduler, self._fiber
        assert scheduler is not None
        assert me is not None
        watched = bool(self._files)
        if watched:
            self._watch(scheduler, me)
        elif self._observing:
            self._forget()
        place = self._places[watched]
        deadline = None if timeout is None else scheduler.loop.clock() + timeout
        self._loop.step_aside()
        try:
            place.add(me, self._loop)
            self.until = FOREVER if deadline is None else deadline
            self.asleep = place
            # Announced first, looked at second; whoever schedules does the reverse. If he was quicker, he wakes us.
            if (self._loop._ready or self.stale) and place.abandon(me):
                return
            scheduler.park(me, place, deadline)
        finally:
            self.asleep = None
            place.abandon(me)
            self._loop.step_back()

    # -- the nested instance in the loop of the thread ----------------------------------------------------------------

    def _watch(self, scheduler: Scheduler, me: Fiber[Any]) -> None:
        """See to it that the next edge wakes us."""
        while True:
            direction = self._direction
            if direction is None or direction.closed or direction.loop is not scheduler.loop:
                direction = self._direction = self._claim(scheduler, direction)
                self._drained = -1
            if not self._observing:
                direction.observe(self)
                self._observing = True
            if direction.armed or scheduler.watch(me, direction, FOREVER):
                return

    def _claim(self, scheduler: Scheduler, former: Direction | None) -> Direction:
        if self._observing:
            self._forget()
        loop = scheduler.loop
        fresh = former is None or former.closed
        handle = loop.handle(self.fileno(), former is None) if fresh else loop.claim(former.handle)  # type: ignore[union-attr]
        return handle.reading

    def _forget(self) -> None:
        direction, scheduler = self._direction, self._scheduler
        self._observing = False
        if direction is not None and scheduler is not None:
            scheduler.in_runtime(direction.unobserve, self)
