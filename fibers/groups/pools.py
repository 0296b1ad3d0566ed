"""Pools: at most so many fibers at once.

    with fibers.Pool(10) as pool:
        for url in urls:
            pool.spawn(fetch, url)                 waits while ten are running
        pages = pool.map(fetch, urls)              a list
        for page in pool.imap(fetch, urls): ...    one after the other, in order; looks a little ahead

A pool is a task group (group.py) whose `spawn` waits for a free place: leaving waits for all, the first failure of a
spawned fiber cancels the rest, and everything arrives as an ExceptionGroup. The calls of `map`, `imap` and `imap_unordered`
are different in one thing: what they raise is raised by that iteration, bare, as `map` does it, and is no failure of the
pool. The other calls of the same iteration are cancelled then, or when an iteration is given up.

Places are given in the order of asking, each by the fiber that leaves it, and without any step between. So nobody can
push in, and a fiber that is cancelled while it waits for a place takes none. A pool has no threads: the number bounds what
is under way (connections, open files), not what the machine does at once. A fiber of a pool that waits for a place in the
same pool holds one meanwhile: if all do, nobody ever gets one.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextvars import Context
from typing import Any, Generic, TypeVar

from ..core.fiber import Fiber, surface
from ..core.scheduler import get_scheduler
from ..core.waitqueue import WaitQueue
from ..errors import Cancelled, FiberKilled
from ..eventloop.waiter import TIMED_OUT
from .group import TaskGroup

T = TypeVar("T")


class Pool(TaskGroup):
    """A task group of at most `size` (>= 1) fibers at once: `with Pool(10) as pool`. See the module's text.

    For the thread that it belongs to. `name` is for people. Raises TypeError or ValueError for a bad size.
    """

    __slots__ = ("_calls", "_granted", "_places", "size")

    def __init__(self, size: int, name: str | None = None) -> None:
        if not isinstance(size, int) or isinstance(size, bool):
            raise TypeError(f"the size of a pool is a whole number, not {size!r}")
        if size < 1:
            raise ValueError(f"the size of a pool is 1 or more, not {size!r}")
        super().__init__(name)
        self.size = size
        self._places = WaitQueue()  # who waits for one
        self._granted: set[Fiber[Any]] = set()  # who has been given one, and has not spawned yet
        self._calls: dict[Fiber[Any], _Calls[Any]] = {}

    def free(self) -> int:
        """How many fibers could be spawned now without waiting."""
        return max(0, self.size - len(self._children) - len(self._granted))

    def spawn(
        self, fn: Callable[..., T], *args: Any, name: str | None = None, context: Context | None = None, **kwargs: Any
    ) -> Fiber[T]:
        """As `TaskGroup.spawn`, as soon as there is a place for it: waits while `size` fibers are running.

        If the call is interrupted meanwhile, nothing has been spawned.
        """
        if not callable(fn):
            raise TypeError(f"spawn() takes a function, not {fn!r}")
        me = self._take_place()
        try:
            fiber = super().spawn(fn, *args, name=name, context=context, **kwargs)
        finally:
            self._use_place(me)
        caller = sys._getframe(1)
        fiber._site_code, fiber._site_instruction = caller.f_code, caller.f_lasti
        return fiber

    def join(self, timeout: float | None = None) -> None:
        """Wait until no fiber of the pool is left; the pool goes on. (Leaving the block does it, too.)

        Raises TimeoutError after `timeout` seconds (>= 0; None: no limit), RuntimeError in a fiber of the pool.
        """
        scheduler = get_scheduler()
        me = scheduler.current
        if me is None:
            raise scheduler.refuse()
        deadline = scheduler.deadline(timeout)
        while self._children:
            if me in self._children:
                raise RuntimeError(f"fiber {me.name!r} of {self!r} would wait for its own end")
            try:
                self._ending.add(me, self)
                outcome = scheduler.park(me, self._ending, deadline)
            except BaseException as error:
                self._ending.abandon(me)
                if timeout is not None and isinstance(error, Cancelled):
                    surface(me, f"{self!r} had not ended when a deadline passed")
                raise
            if outcome is TIMED_OUT and self._children:
                raise TimeoutError(f"{self!r} had not ended after {timeout} seconds")

    def map(self, fn: Callable[..., T], *iterables: Iterable[Any]) -> list[T]:
        """`[fn(*items) for items in zip(*iterables)]`, with the calls running at once; waits for all of them.

        Raises the first error that a call raises (in time); then the others are cancelled and waited for, and what has
        not begun never does. FiberCancelled if a call was cancelled. If this call is interrupted, so are the others.
        """
        calls: _Calls[T] = _Calls(self, fn, iterables, None)
        started: list[Fiber[T]] = []
        try:
            while calls.failed is None and (fiber := calls.start()) is not None:
                started.append(fiber)
            while calls.failed is None and calls.running:
                calls.finished.clear()
                calls.wait()
            if calls.failed is not None:
                calls.close()
                for fiber in started:
                    fiber.join()
                _raise_error_of(calls.failed)
            return [fiber._result for fiber in started]
        finally:
            calls.close()
            fiber = None
            del calls, started  # the traceback refers to this frame

    def imap(self, fn: Callable[..., T], *iterables: Iterable[Any], ahead: int | None = None) -> Iterator[T]:
        """Like `map`, lazily: an iterator over the results, in order. `ahead` (>= 1; None: twice the pool's size) bounds
        how many items have been taken whose results have not been asked for; so the iterables may be endless.

        Nothing is taken before the first result is asked for, and the iterables are read by whoever asks. An error is
        raised in the place of its result. That ends the iteration, and what is under way is cancelled, as it is when the
        iterator is closed or dropped.
        """
        return _in_order(_Calls(self, fn, iterables, ahead))

    def imap_unordered(self, fn: Callable[..., T], *iterables: Iterable[Any], ahead: int | None = None) -> Iterator[T]:
        """As `imap`, with the results as they come."""
        return _as_they_come(_Calls(self, fn, iterables, ahead))

    # -- the runtime's side -------------------------------------------------------------------------------------

    def _take_place(self) -> Fiber[Any]:
        """Wait for a free place. It is counted as the caller's until it leaves `_granted`."""
        scheduler = get_scheduler()
        me = scheduler.current
        if me is None:
            raise scheduler.refuse()
        owner = self._fiber
        if owner is None or not self._open or owner.scheduler is not scheduler:
            raise self._refuse()
        scheduler.check_interrupt(me)
        if self.free() and not self._places:
            self._granted.add(me)
            return me
        try:
            self._places.add(me, self)
            while self._places.holds(me):  # a wake-up may be spurious
                scheduler.park(me, self._places)
        except BaseException:
            if not self._places.abandon(me):
                self._granted.discard(me)
                scheduler.in_runtime(self._give_places)
            raise
        return me

    def _use_place(self, me: Fiber[Any]) -> None:
        """The caller has spawned in its place, or could not: then somebody else gets it."""
        self._granted.discard(me)
        get_scheduler().in_runtime(self._give_places)

    def _give_places(self) -> None:
        """To those who wait for one. Runtime code; may be called again."""
        for fiber in self._places:
            if not self.free():
                break
            self._granted.add(fiber)
            if self._places.abandon(fiber):
                fiber.scheduler.wake(fiber)
            else:
                self._granted.discard(fiber)
        if not self._busy():
            self._ending.wake_all()

    def _busy(self) -> bool:
        return bool(self._children or self._granted or self._places)

    def left(self, fiber: Fiber[Any]) -> None:
        super().left(fiber)
        calls = self._calls.pop(fiber, None)
        if calls is not None:
            calls.ended(fiber)
        if self._places:
            self._give_places()

    def _note(self, fiber: Fiber[Any]) -> None:
        calls = self._calls.get(fiber)
        if calls is None or calls.closed or isinstance(fiber._error, KeyboardInterrupt | SystemExit):
            super()._note(fiber)


class _Calls(Generic[T]):
    """The calls of one `map` or `imap`, as they are under way."""

    __slots__ = ("ahead", "closed", "failed", "finished", "fn", "items", "pool", "queue", "running", "site")

    def __init__(
        self, pool: Pool, fn: Callable[..., T], iterables: tuple[Iterable[Any], ...], ahead: int | None
    ) -> None:
        if not callable(fn):
            raise TypeError(f"a function is mapped, not {fn!r}")
        if not iterables:
            raise TypeError("there must be at least one iterable to map a function over")
        if ahead is not None and (not isinstance(ahead, int) or isinstance(ahead, bool)):
            raise TypeError(f"ahead must be a whole number, not {ahead!r}")
        if ahead is not None and ahead < 1:
            raise ValueError(f"ahead must be 1 or more, not {ahead!r}")
        caller = sys._getframe(2)
        self.site = caller.f_code, caller.f_lasti
        self.pool = pool
        self.fn = fn
        self.items: Iterator[tuple[Any, ...]] | None = zip(*iterables, strict=False)
        self.ahead = 2 * pool.size if ahead is None else ahead
        self.queue = WaitQueue()
        self.running: dict[Fiber[T], None] = {}
        self.finished: deque[Fiber[T]] = deque()  # and not asked for
        self.failed: Fiber[T] | None = None  # the first that has
        self.closed = False

    def start(self) -> Fiber[T] | None:
        """Begin the next call, as soon as there is a place; None if there are no more, or one has failed."""
        if self.items is None:
            return None
        args = next(self.items, None)
        if args is None:
            self.items = None
            return None
        pool = self.pool
        me = pool._take_place()
        try:
            if self.failed is not None or self.closed:
                return None
            fiber = TaskGroup.spawn(pool, self.fn, *args)
            fiber._site_code, fiber._site_instruction = self.site
            self.running[fiber] = None
            if fiber._done:
                self.ended(fiber)  # it has never begun: the pool is cancelled
            else:
                pool._calls[fiber] = self
            return fiber
        finally:
            pool._use_place(me)

    def ended(self, fiber: Fiber[T]) -> None:
        """A call has. Runtime code; may be called again."""
        if fiber in self.running:
            if fiber._error is not None and self.failed is None:
                self.failed = fiber
            if not self.finished or self.finished[-1] is not fiber:
                self.finished.append(fiber)
            self.running.pop(fiber, None)
        self.queue.wake_all()

    def may_start(self, waiting: int) -> bool:
        """Shall the next call begin, with the results of `waiting` calls not asked for yet?"""
        return self.items is not None and waiting < self.ahead and (not self.running or self.pool.free() > 0)

    def wait(self) -> None:
        """Until there is somebody in `finished`."""
        scheduler = get_scheduler()
        me = scheduler.current
        if me is None:
            raise scheduler.refuse()
        try:
            while not self.finished:
                self.queue.add(me, next(iter(self.running), self.pool))
                scheduler.park(me, self.queue)
        except BaseException:
            self.queue.abandon(me)
            raise

    def close(self) -> None:
        """Nobody asks for results any more: cancel what is under way."""
        self.closed = True
        self.items = None
        for fiber in list(self.running):
            fiber.cancel()


def _in_order(calls: _Calls[T]) -> Iterator[T]:
    window: deque[Fiber[T]] = deque()
    fiber: Fiber[T] | None = None
    try:
        while True:
            if calls.may_start(len(window)) and (fiber := calls.start()) is not None:
                window.append(fiber)
                continue
            if not window:
                return
            if not window[0]._done:
                calls.finished.clear()
                calls.wait()
                continue
            fiber = window.popleft()
            if fiber._error is not None:
                _raise_error_of(fiber)
            result = fiber._result
            fiber = None
            yield result
            del result
    finally:
        calls.close()
        fiber = None
        window.clear()
        del calls


def _as_they_come(calls: _Calls[T]) -> Iterator[T]:
    fiber: Fiber[T] | None = None
    try:
        while True:
            if calls.may_start(len(calls.running) + len(calls.finished)) and calls.start() is not None:
                continue
            if not calls.finished:
                if not calls.running:
                    return
                calls.wait()
            fiber = calls.finished.popleft()
            if fiber._error is not None:
                _raise_error_of(fiber)
            result = fiber._result
            fiber = None
            yield result
            del result
    finally:
        calls.close()
        fiber = None
        del calls


def _raise_error_of(fiber: Fiber[Any]) -> None:
    """Of a call that has failed. (Not by `result`: what is urgent is raised as it is.)"""
    error = fiber._error
    if isinstance(error, Cancelled | FiberKilled):
        error = fiber.exception()
    assert error is not None
    try:
        raise error
    finally:
        del error, fiber  # the traceback refers to this frame
