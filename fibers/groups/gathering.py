"""Waiting for several fibers at once: `gather`, `wait` and `as_completed`.

    results = fibers.gather(first, second)              in order; the first failure cancels the others
    done, pending = fibers.wait(several, timeout=1)     whatever has ended by then
    for fiber in fibers.as_completed(several): ...      one after the other, as they end

They take fibers of any thread. Each waits by a callback at the ends of the fibers, and takes it back when it is over.
(A group is better where the fibers are made for one block: it also sees to it that none is left behind.)
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from ..core.endings import forget_watch
from ..core.fiber import Fiber, surface, surfaces
from ..core.scheduler import get_scheduler
from ..core.waitqueue import WaitQueue
from ..errors import Cancelled
from ..eventloop.waiter import TIMED_OUT

T = TypeVar("T")


class _Ends:
    """The ends of some fibers, as they come."""

    __slots__ = ("_ended", "_pending", "_queue")

    def __init__(self, fibers: list[Fiber[Any]]) -> None:
        self._queue = WaitQueue()
        self._ended: deque[Fiber[Any]] = deque(fiber for fiber in fibers if fiber._done)
        self._pending = {fiber: None for fiber in fibers if not fiber._done}
        for fiber in list(self._pending):
            fiber.scheduler.watch_end(fiber, self)

    def __call__(self, fiber: Fiber[Any]) -> None:
        """A fiber has ended. In its thread, in runtime code."""
        self._ended.append(fiber)
        self._queue.wake_all()

    def next(self, deadline: float | None) -> Fiber[Any] | None:
        """The next fiber that has ended; waits for it. None: the deadline has passed."""
        scheduler = get_scheduler()
        me = scheduler.current
        if me is None:
            raise scheduler.refuse()
        while not self._ended:
            if me in self._pending and len(self._pending) == 1:
                raise _for_itself(me)
            try:
                self._queue.add(me, next(iter(self._pending), None))
                if self._ended and self._queue.abandon(me):
                    break
                outcome = scheduler.park(me, self._queue, deadline)
            except BaseException:
                self._queue.abandon(me)
                raise
            if outcome is TIMED_OUT and not self._ended:
                return None
        fiber = self._ended.popleft()
        self._pending.pop(fiber, None)
        return fiber

    def close(self) -> None:
        """Nobody waits for the rest any more."""
        for fiber in self._pending:
            forget_watch(fiber, self)


def _for_itself(me: Fiber[Any]) -> RuntimeError:
    return RuntimeError(f"fiber {me.name!r} would wait for its own end")


def _checked(fibers: Iterable[Fiber[T]], what: str) -> list[Fiber[T]]:
    """The fibers, each once, in their order."""
    found = list(fibers)
    for fiber in found:
        if not isinstance(fiber, Fiber):
            raise TypeError(f"{what} takes fibers, not {fiber!r}; `spawn` makes one of a function")
    return list(dict.fromkeys(found))


def gather(*fibers: Fiber[Any], return_exceptions: bool = False) -> list[Any]:
    """Wait for all the fibers and return their results in the given order. They may be of any thread.

    The first that fails (or was cancelled: FiberCancelled) has the others cancelled; when they are done too, its error is
    raised. With `return_exceptions`, errors stand among the results, and nobody is cancelled. If this call is
    interrupted, all are cancelled. The same fiber may be given twice. Raises TypeError for what is no fiber.
    """
    ends = _Ends(_checked(fibers, "gather()"))
    me = get_scheduler().current
    if me is not None and me in ends._pending:
        ends.close()
        raise _for_itself(me)
    failed: Fiber[Any] | None = None
    try:
        while ends._pending or ends._ended:
            fiber = ends.next(None)
            assert fiber is not None
            if fiber._error is not None and failed is None and not return_exceptions:
                failed = fiber
                for other in list(ends._pending):
                    other.cancel()
    except BaseException:
        ends.close()
        for other in list(ends._pending):
            other.cancel()
        raise
    if failed is not None:
        error = failed.exception()
        assert error is not None
        try:
            raise error
        finally:
            del error, failed, fiber, fibers, ends  # the traceback refers to this frame
    if return_exceptions:
        return [fiber._result if fiber.exception() is None else fiber.exception() for fiber in fibers]
    return [fiber.result() for fiber in fibers]


def wait(
    fibers: Iterable[Fiber[T]], timeout: float | None = None, count: int | None = None
) -> tuple[list[Fiber[T]], list[Fiber[T]]]:
    """Wait until `count` of the fibers are done (None: all), at most `timeout` seconds (>= 0; None: no limit).

    Returns those that are done and those that are not, each list in the given order. Errors are not raised, and nobody is
    cancelled. The fibers may be of any thread. Raises TypeError or ValueError for what is no fiber, count or timeout.
    """
    every = _checked(fibers, "wait()")
    if count is not None and (not isinstance(count, int) or isinstance(count, bool)):
        raise TypeError(f"count must be a whole number, not {count!r}")
    if count is not None and count < 0:
        raise ValueError(f"count must be 0 or more, not {count!r}")
    goal = len(every) if count is None else min(count, len(every))
    deadline = get_scheduler().deadline(timeout)
    ends = _Ends(every)
    reached = 0
    try:
        while reached < goal and ends.next(deadline) is not None:
            reached += 1
    except Cancelled:
        me = get_scheduler().current
        if timeout is None or me is None or surfaces(me) is None:
            raise
    finally:
        ends.close()
    return [fiber for fiber in every if fiber._done], [fiber for fiber in every if not fiber._done]


def as_completed(fibers: Iterable[Fiber[T]], timeout: float | None = None) -> Iterator[Fiber[T]]:
    """The fibers one after the other, in the order in which they end. Those that are done come first.

    Raises TimeoutError if not all are done within `timeout` seconds (>= 0; None: no limit) of this call. Errors are not
    raised: `result()` does that. The fibers may be of any thread. Raises TypeError or ValueError for bad arguments.
    """
    every = _checked(fibers, "as_completed()")
    return _as_completed(every, get_scheduler().deadline(timeout), timeout)


def _as_completed(every: list[Fiber[Any]], deadline: float | None, timeout: float | None) -> Iterator[Fiber[Any]]:
    count = len(every)
    ends = _Ends(every)
    del every
    try:
        for number in range(count):
            try:
                fiber = ends.next(deadline)
            except Cancelled:
                me = get_scheduler().current
                if timeout is not None and me is not None:
                    surface(me, f"{count - number} of {count} fibers were not done when a deadline passed")
                raise
            if fiber is None:
                raise TimeoutError(f"{count - number} of {count} fibers were not done after {timeout} seconds")
            yield fiber
            del fiber
    finally:
        ends.close()
