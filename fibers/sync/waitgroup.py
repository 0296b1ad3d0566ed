"""WaitGroup: wait until a number of things is done. After Go's sync.WaitGroup."""

from typing import Final

from ..core.waitqueue import Giver, WaitQueue
from ..eventloop.waiter import RETRY
from .waiting import check_count, here, until, wait


class WaitGroup(Giver):
    """A number of things under way: `add` before each begins, `done` when it ends, `wait` until none is left.

    For fibers and threads at once. `add` and `done` may be called from signal handlers and finalisers. Where the things
    are fibers, a TaskGroup does the counting, and keeps their errors.
    """

    __slots__ = ("__weakref__", "_count", "_waiting")

    def __init__(self) -> None:
        self._count = 0
        self._waiting: Final = WaitQueue()

    @property
    def count(self) -> int:
        """How many are under way."""
        return self._count

    def add(self, n: int = 1) -> None:
        """`n` things more; fewer, if negative. At zero everybody who waits is woken. ValueError if it would be negative."""
        least = -check_count(n)
        if self._count >= least: self._count -= least  # one step # fmt: skip
        else:
            raise ValueError(f"{least} things done, but only {self._count} under way")
        if not self._count:
            self._waiting.wake_all(self)

    def done(self) -> None:
        """One thing is done. ValueError if none is under way."""
        self.add(-1)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until none is left, and return True; False after `timeout` seconds (None: no limit; 0 or less: look once)."""
        if self._idle():
            return True
        if timeout is not None and timeout <= 0:
            return False
        scheduler, me = here()
        deadline = until(scheduler, timeout)
        while (outcome := wait(scheduler, me, self._waiting, self, self._idle, deadline, self)) is RETRY:
            if self._idle():
                return True
        return outcome is self

    def _idle(self) -> bool:
        return not self._count

    def __repr__(self) -> str:
        return f"<fibers.{type(self).__name__} at {id(self):#x}: {self._count} under way>"
