"""Semaphore and BoundedSemaphore: a number of permits.

A permit that is released while somebody waits goes straight to whoever has waited longest; it is never counted as free.
"""

from types import TracebackType
from typing import Any, Final

from ..core.fiber import Fiber
from ..core.waitqueue import Giver, WaitQueue
from ..eventloop.waiter import RETRY
from .waiting import check_count, here, until, wait


class Semaphore(Giver):
    """As threading.Semaphore, for fibers and threads at once. First come, first served.

    `value` is the number of permits at first; ValueError if it is negative. Whoever likes may release. `release`, and
    `acquire` without waiting, may be called from signal handlers and finalisers.
    """

    __slots__ = ("__weakref__", "_line", "_value", "_waiting")

    def __init__(self, value: int = 1) -> None:
        if check_count(value) < 0:
            raise ValueError(f"semaphore initial value must be >= 0, not {value!r}")
        self._value = value  # permits that are free
        self._waiting: Final = WaitQueue()
        self._line: Final = self._waiting._waiting  # true if somebody waits

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Take a permit, waiting for one: at most `timeout` seconds (None: no limit), not at all unless `blocking`.

        Returns whether one was taken. A fiber that is cancelled while it waits takes none. ValueError for a timeout
        without `blocking`; OverflowError over threading.TIMEOUT_MAX.
        """
        if timeout is None or blocking:
            if self._value > 0: self._value -= 1; return True  # one step # fmt: skip
            if not blocking or (timeout is not None and timeout <= 0):
                return False
            return self._acquire(timeout)
        raise ValueError("can't specify timeout for non-blocking acquire")

    __enter__ = acquire

    def _acquire(self, timeout: float | None) -> bool:
        scheduler, me = here()
        deadline = until(scheduler, timeout)
        while (outcome := wait(scheduler, me, self._waiting, self, self._free, deadline, self)) is RETRY:
            if self._value > 0: self._value -= 1; return True  # one step # fmt: skip
        return outcome is self

    def _free(self) -> bool:
        return self._value > 0

    def release(self, n: int = 1) -> None:
        """Give back `n` permits: to those who have waited longest, as far as somebody waits. ValueError if `n` < 1."""
        if n != 1 and check_count(n) < 1:
            raise ValueError(f"n must be one or more, not {n!r}")
        while n:
            if not self._line: self._value += n; return  # one step # fmt: skip
            if self._waiting.give(self):
                n -= 1

    def take_back(self, fiber: Fiber[Any]) -> None:
        """See `Giver`."""
        Semaphore.release(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<fibers.{type(self).__name__} at {id(self):#x}: value={self._told()}>"

    def _told(self) -> str:
        return f"{self._value}"


class BoundedSemaphore(Semaphore):
    """A Semaphore that refuses to have more permits than it had at first."""

    __slots__ = ("_initial_value",)

    def __init__(self, value: int = 1) -> None:
        super().__init__(value)
        self._initial_value: Final = value

    def release(self, n: int = 1) -> None:
        """As `Semaphore.release`. ValueError, and nothing is released, if that is more than were acquired."""
        if n != 1 and check_count(n) < 1:
            raise ValueError(f"n must be one or more, not {n!r}")
        most = self._initial_value - n
        if self._value <= most and not self._line: self._value += n; return  # one step # fmt: skip
        if self._value > most:
            raise ValueError(f"Semaphore released too many times: {n} more, and {self._told()} are free")
        super().release(n)

    def _told(self) -> str:
        return f"{self._value}/{self._initial_value}"
