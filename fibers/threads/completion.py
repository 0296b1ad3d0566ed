"""Something that comes to pass once: fibers of any thread wait for it, and plain threads, each in its own way.

A fiber parks. A thread that has no scheduler (a worker, a thread of other people's code) blocks on a lock, which costs it
no event loop. Whoever completes takes no lock: it sets `done` first and looks for waiters second, and a waiter does the
reverse, so one of the two sees the other.
"""

from _thread import LockType, allocate_lock
from collections import deque
from typing import Any

from ..core.scheduler import Scheduler, check_seconds, state
from ..core.waitqueue import WaitQueue
from ..eventloop.waiter import TIMED_OUT


class Outside(WaitQueue):
    """A queue whose waiters may be woken by what this process cannot see: no deadlock is concluded from it."""

    __slots__ = ()

    inside = False


class Completion:
    """See the module's text. Every method may be called from any thread."""

    __slots__ = ("_locks", "done", "queue")

    def __init__(self, queue: WaitQueue | None = None) -> None:
        self.done = False
        self.queue = WaitQueue() if queue is None else queue
        self._locks: deque[LockType] = deque()

    def complete(self, _: object = None) -> None:
        """It has come to pass. Also a done-callback; from a signal handler, too. A second call does nothing."""
        self.done = True
        self.queue.wake_all()
        while True:
            try:
                self._locks.pop().release()
            except IndexError:
                return

    def wait(self, timeout: float | None = None, what: object = None) -> bool:
        """Wait until it is complete, at most for `timeout` seconds (>= 0); False if it is not.

        `what` is the thing waited for, for reports. Raises Cancelled and so forth in a fiber.
        """
        if timeout is not None:
            check_seconds("timeout", timeout)
        scheduler = state.scheduler
        if self.done:
            return True
        if scheduler is None or scheduler.closed:
            return self.block(timeout)
        me = scheduler.current
        if me is None:
            raise scheduler.refuse()
        return self._park(scheduler, me, timeout, what)

    def block(self, timeout: float | None = None) -> bool:
        """As `wait`, blocking the thread whatever it is."""
        lock = allocate_lock()
        lock.acquire()
        self._locks.append(lock)
        if not self.done:
            lock.acquire(True, -1 if timeout is None else min(timeout, 1e6))
        try:
            self._locks.remove(lock)
        except ValueError:
            pass
        return self.done

    def _park(self, scheduler: Scheduler, me: Any, timeout: float | None, what: object) -> bool:
        deadline = scheduler.deadline(timeout)
        queue = self.queue
        while not self.done:
            try:
                queue.add(me, what)
                if self.done and queue.abandon(me):
                    break
                outcome = scheduler.park(me, queue, deadline)
            except BaseException:
                queue.abandon(me)
                raise
            if outcome is TIMED_OUT:
                return self.done
        return True
