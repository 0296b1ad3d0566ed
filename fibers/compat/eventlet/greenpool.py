"""eventlet.greenpool: GreenPool, at most so many GreenThreads at once; GreenPile, their results in order."""

from collections.abc import Callable, Iterable
from typing import Any, Final, Self

from ...sync.event import Event
from ..gevent.queue import Queue
from .greenthread import GreenThread, getcurrent
from .semaphore import Semaphore

#: No GreenThread comes after that.
_END: Final = object()


class GreenPool:
    """At most `size` GreenThreads at once: `spawn` waits while there are so many.

    One of the pool that spawns into the pool while that is full runs the function itself.
    """

    def __init__(self, size: int = 1000) -> None:
        if not isinstance(size, int) or isinstance(size, bool):
            raise TypeError(f"GreenPool() expects size :: int, not {size!r}")
        if size < 0:
            raise ValueError(f"GreenPool() expects size >= 0, not {size!r}")
        self.size = size
        self.sem = Semaphore(size)
        self.coroutines_running: set[Any] = set()
        self._empty = Event()
        self._empty.set()

    def resize(self, new_size: int) -> None:
        """Change the size. Those above a smaller one go on to their end."""
        if new_size < 0:
            raise ValueError(f"a size is 0 or more, not {new_size!r}")
        growth, self.size = new_size - self.size, new_size
        for _ in range(growth):
            self.sem.release()
        for _ in range(-growth):
            if not self.sem.acquire(blocking=False):
                self._owed += 1

    #: Permits that are not given back, since the pool has become smaller.
    _owed = 0

    def running(self) -> int:
        """How many there are."""
        return len(self.coroutines_running)

    def free(self) -> int:
        """How many more there may be."""
        return self.sem.counter - self._owed

    def waiting(self) -> int:
        """How many wait to spawn."""
        return max(0, -self.sem.balance)

    def spawn(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> GreenThread:
        """Run a function in a GreenThread, as soon as there is room for it."""
        greenthread = GreenThread(function, *args, **kwargs)
        if self.sem.locked() and getcurrent() in self.coroutines_running:
            greenthread.run()
            return greenthread
        self.sem.acquire()
        self.coroutines_running.add(greenthread)
        self._empty.clear()
        greenthread.rawlink(self._done)
        greenthread.start()
        return greenthread

    def spawn_n(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """As `spawn`, where nobody wants to know the result."""
        self.spawn(function, *args, **kwargs)

    def _done(self, greenthread: Any) -> None:
        """A link."""
        self.coroutines_running.discard(greenthread)
        if self._owed:
            self._owed -= 1
        else:
            self.sem.release()
        if not self.coroutines_running:
            self._empty.set()

    def waitall(self) -> None:
        """Wait until there is none. AssertionError in one of them."""
        if getcurrent() in self.coroutines_running:
            raise AssertionError("Calling waitall() from within one of the GreenPool's greenthreads will deadlock.")
        self._empty.wait()

    def starmap(self, function: Callable[..., Any], iterable: Iterable[Any]) -> "GreenMap":
        """An iterator over `function(*args)` for each `args`, in order, with the calls running at once."""
        return GreenMap(self, function, iterable)

    def imap(self, function: Callable[..., Any] | None, *iterables: Iterable[Any]) -> "GreenMap":
        """As `starmap`, over the tuples of `zip(*iterables)`."""
        return self.starmap(_tuple if function is None else function, zip(*iterables, strict=False))


def _tuple(*args: Any) -> tuple[Any, ...]:
    return args


class GreenPile:
    """GreenThreads, and an iterator over their results in the order of spawning; errors are raised in their places.

    `size_or_pool`: how many at once, or the GreenPool that they are spawned in.
    """

    def __init__(self, size_or_pool: int | GreenPool = 1000) -> None:
        self.pool = size_or_pool if isinstance(size_or_pool, GreenPool) else GreenPool(size_or_pool)
        self.waiters: Queue[Any] = Queue()
        self.counter = 0

    def spawn(self, func: Callable[..., Any], *args: Any, **kw: Any) -> None:
        """Run a function in the pool."""
        self.counter += 1
        try:
            self.waiters.put(self.pool.spawn(func, *args, **kw))
        except BaseException:
            self.counter -= 1
            raise

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        if not self.counter:
            raise StopIteration
        greenthread = self.waiters.get()
        self.counter -= 1
        return greenthread.wait()

    next = __next__


class GreenMap(GreenPile):
    """What `starmap` returns. The iterable is read ahead, by as many items as the pool has room for."""

    def __init__(self, pool: GreenPool, function: Callable[..., Any], iterable: Iterable[Any]) -> None:
        super().__init__(pool)
        self.waiters = Queue(max(1, pool.size))
        GreenThread.spawn(self._read, function, iterable)

    def _read(self, function: Callable[..., Any], iterable: Iterable[Any]) -> None:
        error: BaseException | None = None
        try:
            for args in iterable:
                self.waiters.put(self.pool.spawn(function, *args))
        except Exception as failure:
            error = failure
        self.waiters.put((_END, error))

    def __next__(self) -> Any:
        greenthread = self.waiters.get()
        if isinstance(greenthread, GreenThread):
            return greenthread.wait()
        self.waiters.put((_END, None))
        if greenthread[1] is not None:
            raise greenthread[1]
        raise StopIteration

    next = __next__


__all__ = ["GreenMap", "GreenPile", "GreenPool"]
