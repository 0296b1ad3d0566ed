"""The locks of `_thread`, on which `threading` builds everything else: ours, with the names that the standard ones have."""

from ..sync import lock


class Lock(lock.Lock):
    """As `_thread.lock`; for fibers and threads at once."""

    __slots__ = ()

    acquire_lock = lock.Lock.acquire
    release_lock = lock.Lock.release
    locked_lock = lock.Lock.locked


class RLock(lock.RLock):
    """As `_thread.RLock`; for fibers and threads at once. Its holder is a fiber."""

    __slots__ = ()
