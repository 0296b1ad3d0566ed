"""eventlet.semaphore: semaphores whose `balance` tells how many wait."""

from typing import Any

from ...sync import semaphore
from ..gevent import lock


class Semaphore(lock.Semaphore):
    """A number of permits, `value` at first. First come, first served. May be used by several threads."""

    @property
    def balance(self) -> int:
        """How many are free; less than 0: how many wait."""
        return self.counter - len(self._permits._waiting)

    def bounded(self) -> bool:
        """Would `release` fail, or wait? Never."""
        return False

    def acquire(self, blocking: bool = True, timeout: Any = None) -> bool:
        """Take one. ValueError for a timeout without `blocking`."""
        if not blocking and timeout is not None:
            raise ValueError("can't specify timeout for non-blocking acquire")
        return super().acquire(blocking, None if timeout == -1 else timeout)

    def release(self, blocking: bool = True) -> Any:
        """Give one back."""
        super().release()
        return True


class BoundedSemaphore(Semaphore):
    """A Semaphore that is never given more permits than it had at first: ValueError."""

    def __init__(self, value: int = 1) -> None:
        super().__init__(value)
        self._permits = semaphore.BoundedSemaphore(value)
        self._limit = value

    def bounded(self) -> bool:
        """Would `release` fail?"""
        return self.counter >= self._limit


class CappedSemaphore:
    """A Semaphore of `count` permits at first, whose `release` waits while there are `limit`."""

    def __init__(self, count: int, limit: int) -> None:
        if count > limit:
            raise ValueError(f"count must not exceed limit: {count} > {limit}")
        self._permits, self._room = Semaphore(count), Semaphore(limit - count)

    @property
    def balance(self) -> int:
        """How many are free; less than 0: how many wait to take one; more than the limit: to give one back."""
        return self._permits.balance - min(self._room.balance, 0)

    def locked(self) -> bool:
        """Is none free?"""
        return self._permits.locked()

    def bounded(self) -> bool:
        """Would `release` wait?"""
        return self._room.locked()

    def acquire(self, blocking: bool = True) -> bool:
        """Take one, waiting for it if `blocking`. Was one taken?"""
        taken = self._permits.acquire(blocking)
        if taken:
            self._room.release()
        return taken

    def release(self, blocking: bool = True) -> bool:
        """Give one back, waiting while there are too many if `blocking`. Was it given?"""
        given = self._room.acquire(blocking)
        if given:
            self._permits.release()
        return given

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()


__all__ = ["BoundedSemaphore", "CappedSemaphore", "Semaphore"]
