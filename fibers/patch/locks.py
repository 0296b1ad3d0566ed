"""The locks of `_thread`, on which `threading` builds everything else: ours, with the names that the standard ones have."""

from typing import Any

from ..sync import lock


class Lock(lock.Lock):
    """As `_thread.lock`; for fibers and threads at once."""

    __slots__ = ()

    acquire_lock = lock.Lock.acquire
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
