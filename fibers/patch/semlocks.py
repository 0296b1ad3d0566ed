"""`_multiprocessing.SemLock`, on which the locks and queues of `multiprocessing` stand, so that it suspends the fiber.

The kernel has nothing to wait on for a semaphore but the call that takes it. So it is tried without waiting, and tried again
after 1, 2, 4 … 20 ms. A call that blocks the thread would be worse than late: a pool that is taken down waits for a lock
which a worker process gives back when a thread of the pool, a fiber here, has spoken to it.

A recursive one belongs to a thread, of the system's. Which fiber of it has it is kept here.
"""

import _multiprocessing  # type: ignore[import-not-found]
from typing import Any, Final

from ..core.runtime import sleep
from ..core.scheduler import state
from .idents import get_ident
from .originals import module

_SemLock: Final[Any] = _multiprocessing.SemLock
_RECURSIVE: Final = 0
_MAX_PAUSE: Final = 0.02


class SemLock:
    """As `_multiprocessing.SemLock`."""

    __slots__ = ("__weakref__", "_holder", "_lock", "_recursive")

    SEM_VALUE_MAX = _SemLock.SEM_VALUE_MAX

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._take(_SemLock(*args, **kwargs))

    def _take(self, lock: Any) -> None:
        self._lock = lock
        self._recursive = lock.kind == _RECURSIVE
        self._holder = 0  # the number of the fiber or thread that has it, if it is recursive

    @classmethod
    def _rebuild(cls, *args: Any) -> "SemLock":
        self = cls.__new__(cls)
        self._take(_SemLock._rebuild(*args))
        return self

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """As the standard one's: seconds; None: no limit."""
        scheduler = state.scheduler
        if self._try():
            return True
        if not block or (timeout is not None and timeout <= 0):
            return False
        if scheduler is not None and scheduler.current is None:
            return bool(self._lock.acquire(block, timeout))  # inside the runtime nothing may wait
        clock = module("time").monotonic
        end = None if timeout is None else clock() + timeout
        pause = 0.001
        while True:
            left = pause if end is None else end - clock()
            if left <= 0:
                return self._try()
            sleep(min(pause, left))
            if self._try():
                return True
            pause = min(pause * 2, _MAX_PAUSE)

    def _try(self) -> bool:
        if not self._recursive:
            return bool(self._lock.acquire(False))
        me = get_ident()
        if self._lock._is_mine() and self._holder != me:
            return False  # another fiber of this thread has it
        if not self._lock.acquire(False):
            return False
        self._holder = me
        return True

    def __enter__(self) -> bool:
        return self.acquire()

    def release(self) -> None:
        """As the standard one's."""
        if self._recursive and not self._is_mine():
            raise AssertionError("attempt to release recursive lock not owned by thread")
        self._lock.release()

    def __exit__(self, *error: object) -> None:
        self.release()

    def _is_mine(self) -> bool:
        return bool(self._lock._is_mine()) and (not self._recursive or self._holder == get_ident())

    def _count(self) -> int:
        return int(self._lock._count())

    def _get_value(self) -> int:
        return int(self._lock._get_value())

    def _is_zero(self) -> bool:
        return bool(self._lock._is_zero())

    def _after_fork(self) -> None:
        self._lock._after_fork()
        self._holder = 0

    handle = property(lambda self: self._lock.handle)
    kind = property(lambda self: self._lock.kind)
    maxvalue = property(lambda self: self._lock.maxvalue)
    name = property(lambda self: self._lock.name)
