"""gevent.threadpool: functions that can only block, called in native threads.

The threads are those of `fibers.to_thread`, shared by all; a ThreadPool is a limit of its own on how many are used at once.
A greenlet waits for each call; when it is killed, the call goes on, and its result is dropped.
"""

import os
from collections.abc import Callable
from typing import Any

from ...threads.futures import ThreadPoolExecutor
from ...threads.limiter import CapacityLimiter
from ...threads.to_thread import to_thread
from .greenlet import Greenlet
from .hub import Hub
from .pool import Group, Mapping


class ThreadPool(Mapping):
    """At most `maxsize` calls at once in threads. It belongs to the thread that has made it."""

    def __init__(self, maxsize: int, hub: object = None, idle_task_timeout: float = -1) -> None:
        if not isinstance(maxsize, int):
            raise TypeError(f"maxsize must be an integer, not {maxsize!r}")
        if maxsize < 1:
            raise ValueError(f"maxsize must be 1 or more, not {maxsize!r}")
        self._limiter = CapacityLimiter(maxsize)
        self._calls = Group()
        self.pid = os.getpid()

    @property
    def maxsize(self) -> int:
        """How many calls may run at once."""
        return int(self._limiter.total_tokens)

    @maxsize.setter
    def maxsize(self, maxsize: int) -> None:
        self._limiter.total_tokens = maxsize

    @property
    def size(self) -> int:
        """How many run."""
        return int(self._limiter.borrowed)

    def __len__(self) -> int:
        """How many have not ended."""
        return len(self._calls)

    def __bool__(self) -> bool:
        return True

    def spawn(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Greenlet:
        """Call a function in a thread; returns at once something to `get` its result from."""
        greenlet: Greenlet = self._calls.spawn(self._call, func, args, kwargs)
        return greenlet

    def _call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return to_thread(lambda: func(*args, **kwargs), limiter=self._limiter)

    def join(self) -> None:
        """Wait until every call has ended."""
        self._calls.join()

    def kill(self) -> None:
        """Wait for none any more. What runs goes on to its end."""
        self._calls.kill()


def _default_pool() -> ThreadPool:
    return ThreadPool(10)


Hub.make_threadpool = staticmethod(_default_pool)

ThreadResult = Greenlet

__all__ = ["ThreadPool", "ThreadPoolExecutor", "ThreadResult"]
