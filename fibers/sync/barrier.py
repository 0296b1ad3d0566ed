"""Barrier: a number of fibers wait for each other."""

from collections.abc import Callable
from threading import BrokenBarrierError
from typing import Final

from .condition import Condition
from .lock import Lock

__all__ = ["Barrier", "BrokenBarrierError"]

_FILLING: Final = "filling"
_DRAINING: Final = "draining"  # all have come, and leave one after the other
_RESETTING: Final = "resetting"  # those that wait are being told that it is broken; then it is as new
_BROKEN: Final = "broken"


class Barrier:
    """As threading.Barrier, for fibers and threads at once.

    `wait` returns when `parties` of them wait; one of them has called `action()` before. A fiber that is cancelled while
    it waits just leaves: another may come in its place. One whose `timeout` (default: that of the barrier) passes breaks
    the barrier. ValueError if `parties` < 1.
    """

    __slots__ = ("__weakref__", "_action", "_changed", "_count", "_number", "_parties", "_state", "_timeout")

    def __init__(self, parties: int, action: Callable[[], object] | None = None, timeout: float | None = None) -> None:
        if parties < 1:
            raise ValueError(f"parties must be > 0, not {parties!r}")
        self._parties: Final = parties
        self._action: Final = action
        self._timeout: Final = timeout
        self._changed: Final = Condition(Lock())
        self._state = _FILLING
        self._count = 0  # how many are inside
        self._number = 0  # what the next to leave returns

    def wait(self, timeout: float | None = None) -> int:
        """Wait until all parties do. Returns a number from 0 to `parties` - 1, another one for each.

        BrokenBarrierError if the barrier is broken or reset, or breaks meanwhile; it does if the time is up, and if the
        action raises.
        """
        if timeout is None:
            timeout = self._timeout
        with self._changed:
            self._changed.wait_for(self._open)
            if self._state is _BROKEN:
                raise BrokenBarrierError
            self._count += 1
            try:
                if self._count == self._parties:
                    self._release()
                    return self._parties - 1
                self._await_others(timeout)
                number = self._number
                self._number += 1
                return number
            finally:
                self._count -= 1
                if not self._count and self._state in (_DRAINING, _RESETTING):
                    self._state = _FILLING
                    self._changed.notify_all()

    def reset(self) -> None:
        """Make it as new. Those who wait get BrokenBarrierError."""
        with self._changed:
            if not self._count:
                self._state = _FILLING
            elif self._state in (_FILLING, _BROKEN):
                self._state = _RESETTING
            self._changed.notify_all()

    def abort(self) -> None:
        """Break it: whoever waits or comes gets BrokenBarrierError, until it is reset."""
        with self._changed:
            self._break()

    @property
    def parties(self) -> int:
        """How many it takes."""
        return self._parties

    @property
    def n_waiting(self) -> int:
        """How many wait now."""
        return self._count if self._state is _FILLING else 0

    @property
    def broken(self) -> bool:
        """Is it?"""
        return self._state is _BROKEN

    def _release(self) -> None:
        """The last one has come."""
        try:
            if self._action is not None:
                self._action()
        except BaseException:
            self._break()
            raise
        self._state = _DRAINING
        self._number = 0
        self._changed.notify_all()

    def _await_others(self, timeout: float | None) -> None:
        if not self._changed.wait_for(self._changed_state, timeout):
            self._break()
        if self._state is not _DRAINING:
            raise BrokenBarrierError

    def _break(self) -> None:
        self._state = _BROKEN
        self._changed.notify_all()

    def _open(self) -> bool:
        return self._state not in (_DRAINING, _RESETTING)

    def _changed_state(self) -> bool:
        return self._state is not _FILLING

    def __repr__(self) -> str:
        state = "broken" if self.broken else f"waiters={self.n_waiting}/{self._parties}"
        return f"<fibers.{type(self).__name__} at {id(self):#x}: {state}>"
