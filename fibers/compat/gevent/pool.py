"""gevent.pool: Group, greenlets that are waited for and killed together; Pool, at most so many at once."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self

from greenlet import GreenletExit

from ...sync import event
from ...sync.queue import Full
from ._imap import IMap, IMapUnordered
from .greenlet import Greenlet, joinall
from .hub import getcurrent, spawn_raw
from .lock import DummySemaphore, Semaphore
from .timeout import Timeout, bounded


class PoolFull(Full):
    """There is no room in a Pool."""


class Mapping:
    """The functions of `multiprocessing.Pool`. Derived classes `spawn`."""

    def spawn(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a function; what it comes to can be linked to."""
        raise NotImplementedError

    def _apply_immediately(self) -> bool:
        """Would `apply` wait for itself?"""
        return False

    def _full(self) -> bool:
        return False

    def apply(self, func: Callable[..., Any], args: Any = None, kwds: Any = None) -> Any:
        """Call `func(*args, **kwds)` in the pool, and wait for what it returns or raises."""
        args, kwds = args or (), kwds or {}
        if self._apply_immediately():
            return func(*args, **kwds)
        return self.spawn(func, *args, **kwds).get()

    def apply_cb(self, func: Callable[..., Any], args: Any = None, kwds: Any = None, callback: Any = None) -> Any:
        """As `apply`; the result is also passed to `callback`, in a fiber of its own."""
        result = self.apply(func, args, kwds)
        if callback is not None:
            Greenlet.spawn(callback, result)
        return result

    def apply_async(self, func: Callable[..., Any], args: Any = None, kwds: Any = None, callback: Any = None) -> Any:
        """Begin `apply` and return something to `get` its result from; at once, even if the pool is full."""
        args, kwds = args or (), kwds or {}
        if self._full():
            return Greenlet.spawn(self.apply_cb, func, args, kwds, callback)
        greenlet = self.spawn(func, *args, **kwds)
        if callback is not None:
            greenlet.rawlink(_Pass(callback))
        return greenlet

    def map(self, func: Callable[..., Any], iterable: Iterable[Any]) -> list[Any]:
        """A list of the results, with the calls running at once."""
        return list(self.imap(func, iterable))

    def map_cb(self, func: Callable[..., Any], iterable: Iterable[Any], callback: Any = None) -> list[Any]:
        """As `map`; the list is also passed to `callback`."""
        result = self.map(func, iterable)
        if callback is not None:
            callback(result)
        return result

    def map_async(self, func: Callable[..., Any], iterable: Iterable[Any], callback: Any = None) -> Greenlet:
        """A Greenlet that maps."""
        return Greenlet.spawn(self.map_cb, func, iterable, callback)

    def imap(self, func: Callable[..., Any], *iterables: Iterable[Any], maxsize: int | None = None) -> IMap:
        """An iterator over the results, in order. At most `maxsize` of them wait to be taken."""
        return IMap.spawn(func, zip(*iterables, strict=False), spawn=self.spawn, maxsize=maxsize)

    def imap_unordered(
        self, func: Callable[..., Any], *iterables: Iterable[Any], maxsize: int | None = None
    ) -> IMapUnordered:
        """As `imap`, with the results as they come."""
        return IMapUnordered.spawn(func, zip(*iterables, strict=False), spawn=self.spawn, maxsize=maxsize)


class _Pass:
    """A link that passes a value on."""

    __slots__ = ("_callback",)

    def __init__(self, callback: Callable[[Any], object]) -> None:
        self._callback = callback

    def __call__(self, source: Any) -> None:
        if source.successful():
            spawn_raw(self._callback, source.value)


class Group(Mapping):
    """Greenlets that are waited for, and killed, together. One that is over leaves the group."""

    greenlet_class: Any = Greenlet

    def __init__(self, greenlets: Iterable[Greenlet] = ()) -> None:
        self.greenlets: set[Any] = set()
        self.dying: set[Any] = set()
        self._empty = event.Event()
        self._empty.set()
        for greenlet in greenlets:
            self.add(greenlet)

    def __len__(self) -> int:
        return len(self.greenlets)

    def __contains__(self, greenlet: object) -> bool:
        return greenlet in self.greenlets

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self.greenlets))

    def add(self, greenlet: Any) -> None:
        """Take a greenlet in."""
        self._add(greenlet)

    def _add(self, greenlet: Any) -> None:
        if greenlet not in self.greenlets:
            self.greenlets.add(greenlet)
            self._empty.clear()
            if hasattr(greenlet, "rawlink"):
                greenlet.rawlink(self._discard)
            else:
                greenlet._fiber.add_done_callback(lambda fiber: self._discard(greenlet))

    def _discard(self, greenlet: Any) -> None:
        """It is over, or has been discarded. A link; may be called again."""
        if greenlet in self.greenlets:
            self.greenlets.discard(greenlet)
            self._left()
        self.dying.discard(greenlet)
        if not self.greenlets:
            self._empty.set()

    def _left(self) -> None:
        """One has left."""

    def discard(self, greenlet: Any) -> None:
        """Let a greenlet go, without killing it."""
        if hasattr(greenlet, "unlink"):
            greenlet.unlink(self._discard)
        self._discard(greenlet)

    def start(self, greenlet: Any) -> None:
        """Take a greenlet in, and start it."""
        self.add(greenlet)
        greenlet.start()

    def spawn(self, *args: Any, **kwargs: Any) -> Any:
        """Make a greenlet, take it in, and start it."""
        greenlet = self.greenlet_class(*args, **kwargs)
        self.start(greenlet)
        return greenlet

    def join(self, timeout: float | Timeout | None = None, raise_error: bool = False) -> bool:
        """Wait until the group is empty; False if it is not after `timeout` seconds.

        With `raise_error` a failure of one that was in it is raised.
        """
        members = list(self.greenlets) if raise_error else []
        empty = bounded(self._empty.wait, timeout)
        for greenlet in members:
            if getattr(greenlet, "exception", None) is not None:
                raise greenlet.exception
        return empty

    def kill(self, exception: Any = GreenletExit, block: bool = True, timeout: float | Timeout | None = None) -> None:
        """Kill all of them, also those that come meanwhile, and wait (if `block`), at most `timeout` seconds."""
        limit = Timeout.start_new(timeout)
        try:
            while self.greenlets:
                for greenlet in list(self.greenlets):
                    if greenlet not in self.dying:
                        self.dying.add(greenlet)
                        _kill(greenlet, exception)
                if not block:
                    return
                joinall([each for each in self.greenlets if isinstance(each, Greenlet)], count=1)
                for greenlet in list(self.greenlets):
                    if greenlet.dead:
                        self.discard(greenlet)
        except Timeout as error:
            if error is not limit:
                raise
        finally:
            limit.cancel()

    def killone(
        self,
        greenlet: Any,
        exception: Any = GreenletExit,
        block: bool = True,
        timeout: float | Timeout | None = None,
    ) -> None:
        """Kill one of them, unless that has been done before."""
        if greenlet in self.greenlets and greenlet not in self.dying:
            self.dying.add(greenlet)
            _kill(greenlet, exception)
            if block:
                greenlet.join(timeout)

    def full(self) -> bool:
        """Is there no room? A Group always has some."""
        return False

    def _full(self) -> bool:
        return self.full()

    def wait_available(self, timeout: float | Timeout | None = None) -> int:
        """Wait until there is room, at most `timeout` seconds. How much there is, or whether there is."""
        return 1

    def _apply_immediately(self) -> bool:
        return getcurrent() in self.greenlets


def _kill(greenlet: Any, exception: Any) -> None:
    if isinstance(greenlet, Greenlet):
        greenlet.kill(exception, block=False)
    elif not greenlet.dead:
        greenlet.throw(exception)


class Pool(Group):
    """A Group of at most `size` greenlets (None: no limit): `spawn` waits while there are so many."""

    def __init__(self, size: int | None = None, greenlet_class: Any = None) -> None:
        if size is not None and size < 0:
            raise ValueError(f"size must not be negative: {size!r}")
        super().__init__()
        self.size = size
        if greenlet_class is not None:
            self.greenlet_class = greenlet_class
        self._semaphore: Any = DummySemaphore() if size is None else Semaphore(size)

    def wait_available(self, timeout: float | Timeout | None = None) -> int:
        return self._semaphore.wait(timeout=timeout)  # type: ignore[no-any-return]

    def full(self) -> bool:
        """Is there no room?"""
        return self.free_count() <= 0

    def free_count(self) -> int:
        """How many greenlets there is room for; 1 if there is no limit."""
        return 1 if self.size is None else max(0, self._semaphore.counter)

    def add(self, greenlet: Any, blocking: bool = True, timeout: float | Timeout | None = None) -> None:
        """Take a greenlet in, waiting for room. Raises PoolFull if there is none."""
        if not self._semaphore.acquire(blocking=blocking, timeout=timeout):
            raise PoolFull
        if greenlet in self.greenlets:
            self._semaphore.release()
        self._add(greenlet)

    def start(self, greenlet: Any, *args: Any, **kwargs: Any) -> None:
        """Take a greenlet in, waiting for room as `add` does, and start it."""
        self.add(greenlet, *args, **kwargs)
        greenlet.start()

    def _left(self) -> None:
        self._semaphore.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.join()


__all__ = ["Group", "Pool", "PoolFull"]
