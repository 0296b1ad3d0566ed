"""gevent.lock: semaphores that can be linked to, and RLock."""

from types import TracebackType
from typing import Any

from ...sync import lock, semaphore
from ._links import Linkable
from .timeout import Timeout, bounded


class Semaphore(Linkable):
    """A number of permits, `value` at first. First come, first served. For several threads at once."""

    #: No one thread's in particular.
    hub = None

    def __init__(self, value: int = 1, hub: object = None) -> None:
        if value < 0:
            raise ValueError(f"semaphore initial value must be >= 0, not {value!r}")
        super().__init__()
        self._permits = semaphore.Semaphore(value)

    @property
    def counter(self) -> int:
        """How many are free."""
        return self._permits._value

    def ready(self) -> bool:
        """Is one free?"""
        return self.counter > 0

    def locked(self) -> bool:
        """Is none free?"""
        return self.counter <= 0

    def acquire(self, blocking: bool = True, timeout: float | Timeout | None = None) -> bool:
        """Take one, waiting for it: at most `timeout` seconds, not at all unless `blocking`. Was one taken?"""
        if not blocking:
            return self._permits.acquire(False)
        return bounded(self._take, timeout)

    def _take(self, seconds: float | None) -> bool:
        return self._permits.acquire(True, seconds)

    def release(self) -> int:
        """Give one back, or a new one. How many are free."""
        self._permits.release()
        self._notify()
        return self.counter

    def wait(self, timeout: float | Timeout | None = None) -> int:
        """Wait until one is free, and take none. How many are; 0 after `timeout` seconds."""
        if self.acquire(timeout=timeout):
            self._permits.release()
        return self.counter

    def linkcount(self) -> int:
        """How many wait for it, or have linked to it."""
        return len(self._permits._waiting) + super().linkcount()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {id(self):#x} counter={self.counter}>"


class BoundedSemaphore(Semaphore):
    """A Semaphore that is never given more permits than it had at first: ValueError."""

    def __init__(self, value: int = 1, hub: object = None) -> None:
        super().__init__(value)
        self._permits = semaphore.BoundedSemaphore(value)


class DummySemaphore:
    """Any number of permits."""

    def __init__(self, value: object = None) -> None:
        pass

    def locked(self) -> bool:
        """Never."""
        return False

    def ready(self) -> bool:
        """Always."""
        return True

    def acquire(self, blocking: bool = True, timeout: Any = None) -> bool:
        """True."""
        return True

    def release(self) -> None:
        """Nothing happens."""

    def wait(self, timeout: Any = None) -> int:
        """One is always free."""
        return 1

    def rawlink(self, callback: object) -> None:
        """Never called."""

    unlink = rawlink

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        pass


class RLock:
    """A lock that its holder may take again. For several threads at once."""

    def __init__(self, hub: object = None) -> None:
        self._lock = lock.RLock()

    def acquire(self, blocking: bool = True, timeout: float | Timeout | None = None) -> bool:
        """Take it, waiting: at most `timeout` seconds, not at all unless `blocking`. Was it taken?"""
        if not blocking:
            return self._lock.acquire(False)
        return bounded(self._take, timeout)

    def _take(self, seconds: float | None) -> bool:
        return self._lock.acquire(True, -1 if seconds is None else seconds)

    def release(self) -> None:
        """Let go of it, once. RuntimeError if somebody else holds it."""
        self._lock.release()

    def locked(self) -> bool:
        """Does somebody hold it?"""
        return self._lock.locked()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def __repr__(self) -> str:
        return f"<gevent.lock.RLock over {self._lock!r}>"


__all__ = ["BoundedSemaphore", "DummySemaphore", "RLock", "Semaphore"]
