"""What there is to do when a fiber is over: for those who waited for it, and for those who never will.

A fiber that is done wakes whoever joined it, calls the callbacks, and leaves its task group. A fiber that can never go
on (its thread has ended, or it lives on in the parent of a fork) is *buried*: marked done, its stack kept for ever, so
that no `finally` block of it runs where it should not. It is taken out of the queue in which it waits, and what it has been
handed there since it last ran (a lock, an item) goes back. What it held before, it holds for ever, as a thread would.
"""

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from .carriers import _log
from .choosing import HoldingCase
from .fiber import Fiber
from .waitqueue import Giver, WaitQueue


class End(WaitQueue):
    """Who waits for the end of a fiber, and what is to be called then."""

    __slots__ = ("callbacks",)

    def __init__(self) -> None:
        self._waiting = {}
        self.callbacks: deque[Callable[[Fiber[Any]], object]] | None = None

    def announce(self, fiber: Fiber[Any]) -> None:
        """The fiber is marked done: wake everybody. Runtime code of the fiber's thread."""
        if self._waiting:
            self.wake_all()
        while self.callbacks:
            call_back(self.callbacks.popleft(), fiber)

    def watch(self, function: Callable[[Fiber[Any]], object]) -> "deque[Callable[[Fiber[Any]], object]]":
        """Have `function` called then."""
        callbacks = self.callbacks
        if callbacks is None:
            made: deque[Callable[[Fiber[Any]], object]] = deque()
            with _lock:
                if self.callbacks is None:
                    self.callbacks = made
                callbacks = self.callbacks
        callbacks.append(function)
        return callbacks


def forget_watch(fiber: Fiber[Any], function: Callable[[Fiber[Any]], object]) -> None:
    """Take back what `watch_end` was told. It may be called all the same, if the end comes at this moment. Any thread."""
    callbacks = None if fiber._ended is None else fiber._ended.callbacks
    if callbacks is not None:
        try:
            callbacks.remove(function)
        except ValueError:
            pass  # it has been called


def call_back(function: Callable[[Fiber[Any]], object], fiber: Fiber[Any]) -> None:
    """Call a done-callback; an error in it stops nobody."""
    try:
        function(fiber)
    except Exception:
        _log.exception("a done-callback of fiber %r failed", fiber.name)


_lock: Final = threading.RLock()


class Finishing(HoldingCase):
    """A fiber is done."""

    __slots__ = ("fiber",)

    def __init__(self, fiber: Fiber[Any]) -> None:
        self.fiber = fiber

    def holds(self) -> bool:
        return self.fiber._done

    def queue(self) -> End:
        return end_of(self.fiber)

    def value(self) -> object:
        return self.fiber

    def __repr__(self) -> str:
        return f"the end of fiber {self.fiber.name!r}"


class _Nobody:
    """The scheduler of fibers that will never be resumed: they keep their stacks, and nothing reaches them."""

    thread = 0
    current: Fiber[Any] | None = None
    closed = True

    def __init__(self) -> None:
        self.ready: deque[Any] = deque(maxlen=0)

    def ask(self, function: Callable[..., None], *args: object) -> None: ...

    def wake(self, fiber: Fiber[Any]) -> None:
        """Somebody did not know yet."""
        give_back(fiber)

    def cancel(self, fiber: Fiber[Any]) -> None: ...
    def kill(self, fiber: Fiber[Any], error: BaseException) -> None: ...
    def ring(self, fiber: Fiber[Any]) -> None: ...
    def join(self, fiber: Fiber[Any], timeout: float | None) -> None: ...

    def watch_end(self, fiber: Fiber[Any], function: Callable[[Fiber[Any]], object]) -> None:
        call_back(function, fiber)

    def finishing(self, fiber: Fiber[Any]) -> Finishing:
        return Finishing(fiber)


_NOBODY: Final = _Nobody()
_buried: Final[list[Fiber[Any]]] = []


def forsake(fiber: Fiber[Any]) -> None:
    """It will never be resumed: nobody shall wake it or hand it anything."""
    fiber.scheduler = _NOBODY
    if fiber.waiting is not None:
        fiber.waiting.abandon(fiber)


def give_back(fiber: Fiber[Any]) -> None:
    """What it has been handed and will never use goes to the next."""
    giver, fiber.outcome = fiber.outcome, None
    if isinstance(giver, Giver):
        giver.take_back(fiber)


def bury(fiber: Fiber[Any], error: BaseException) -> None:
    """Mark a fiber done without running it. Its greenlet is kept: dropping it would run its `finally` blocks here."""
    forsake(fiber)
    _buried.append(fiber)
    fiber._error = error
    fiber._done = True
    give_back(fiber)
    if fiber._parent is not None:
        fiber._parent.left(fiber)
    if fiber._ended is not None:
        fiber._ended.announce(fiber)


def end_of(fiber: Fiber[Any]) -> End:
    end: End | None = fiber._ended
    if end is None:
        made = End()  # outside the lock: what runs in a finaliser here may come this way
        with _lock:
            if fiber._ended is None:
                fiber._ended = made
        end = fiber._ended
    return end
