"""The locks of `_thread`, on which `threading` builds everything else: ours, with the names that the standard ones have.

Threads are preempted, and programs rely on it without knowing: `while not queue.empty(): pass` ends because the other
thread gets its turn. A fiber is not, but such a loop takes a lock in each round. So every so many times that a lock is
taken (or asked for in vain) the others may run first. Code written for threads expects that at any place.

The short ways of `sync/lock.py` stand here again: to call them would cost a quarter of all that taking and releasing costs.
"""

import sys
from typing import Any, Final

from ..core.scheduler import state
from ..sync import lock

#: Others may run once in so many acquisitions of locks. It costs a yield, half a microsecond, each time.
CREDIT: Final = 256


class _Credit:
    """Counts down, for all threads together: that may be off by some, and does not matter."""

    __slots__ = ("forks", "left")

    def __init__(self) -> None:
        self.left = CREDIT
        self.forks = 0  # under way


_credit: Final = _Credit()


def begin_fork() -> None:
    """A fork is under way: nobody gives way until `end_fork`. In the child the others would run, which are the parent's.

    (`threading` takes locks in the child, before anything of ours is called there.)
    """
    _credit.forks += 1
    _credit.left = sys.maxsize


def end_fork(child: bool = False) -> None:
    """It is over: in the parent, where other threads may be about to fork, too, or in the child, where nobody is."""
    _credit.forks = 0 if child else _credit.forks - 1
    if not _credit.forks:
        _credit.left = CREDIT


def give_way() -> None:
    """Let others run, unless a fork is under way.

    Not a place where a fiber is cancelled or killed: what it has taken, or is about to, would be lost.
    """
    if _credit.forks:
        return
    _credit.left = CREDIT
    scheduler = state.scheduler
    me = None if scheduler is None else scheduler.current
    if scheduler is not None and me is not None:
        scheduler.ready.append(me)
        scheduler.park(me, None)


class Lock(lock.Lock):
    """As `_thread.lock`; for fibers and threads at once."""

    __slots__ = ()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """As `fibers.Lock.acquire`."""
        _credit.left -= 1
        if _credit.left <= 0:
            give_way()
        scheduler = state.scheduler
        if scheduler is not None and timeout == -1:
            me = scheduler.current
            if self._holder is None and me is not None: self._holder = me; return True  # one step # fmt: skip
        return self._acquire(blocking, timeout)

    __enter__ = acquire

    acquire_lock = acquire
    release_lock = lock.Lock.release
    locked_lock = lock.Lock.locked

    def __init_subclass__(cls) -> None:
        if cls.__module__ != f"{__package__}.threads":  # which has one that nobody else sees
            raise TypeError(f"type '{Lock.__module__}.{Lock.__qualname__}' is not an acceptable base type")


class RLock(lock.RLock):
    """As `_thread.RLock`; for fibers and threads at once. Its holder is a fiber."""

    __slots__ = ()

    def __init__(self, *ignored: Any, **too: Any) -> None:
        super().__init__()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """As `fibers.RLock.acquire`."""
        _credit.left -= 1
        if _credit.left <= 0:
            give_way()
        scheduler = state.scheduler
        if scheduler is not None and timeout == -1:
            me = scheduler.current
            if self._holder is None and me is not None: self._holder = me; return True  # one step # fmt: skip
            if self._holder is me is not None:
                self._again += 1
                return True
        return self._acquire(blocking, timeout)

    __enter__ = acquire
