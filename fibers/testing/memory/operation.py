"""How an operation on an in-memory socket waits: as one on a real socket does (io/waiting.py), without a file.

Of the operations in one direction that have to wait, one holds the turn; others queue behind it, first come, first
served. The holder tries, waits until something changes or arrives, and tries again; after its deadline it tries once
more, so that data beats a timeout. Whose deadline passes in the queue does not try. A call that need not wait is not
interrupted. A scope's deadline surfaces as the timeout error that the call documents.
"""

import errno
import io
import os
from collections.abc import Callable
from typing import Any, Final, Self, TypeVar

from ...core.cancel import as_timeout
from ...core.fiber import Fiber
from ...core.guard import guard
from ...core.scheduler import check_seconds, get_scheduler
from ...core.waitqueue import WaitQueue
from ...errors import Cancelled, ClosedError
from ...eventloop.clock import FOREVER, Clock

T = TypeVar("T")


class Blocked:
    """The type of BLOCKED."""

    __slots__ = ()


#: What an attempt returns that cannot be completed now.
BLOCKED: Final = Blocked()


class Turn:
    """Who of those that had to wait in one direction may try."""

    __slots__ = ("holder", "queue")

    def __init__(self) -> None:
        self.holder: Fiber[Any] | None = None
        self.queue = WaitQueue()

    def enter(self, me: Fiber[Any], deadline: float, owner: "Waiting") -> None:
        """Hold the turn. Raises TimeoutError, ClosedError, and what interrupts the fiber."""
        scheduler = get_scheduler()
        try:
            while True:
                with guard:
                    if self.holder is None or self.holder is me:
                        self.holder = me
                        return
                    self.queue.add(me, owner)
                scheduler.park(me, self.queue, deadline if deadline < FOREVER else None)
                owner._check_open()
                if self.holder is not me and scheduler.loop.clock() >= deadline:
                    raise TimeoutError("timed out")
        except BaseException:
            if not self.queue.abandon(me) and self.holder is me:
                self.leave()
            raise

    def leave(self) -> None:
        """Hand the turn to the next."""
        with guard:
            self.holder = None
            for fiber in self.queue:
                if self.queue.abandon(fiber):
                    self.holder = fiber
                    fiber.scheduler.wake(fiber)
                    return


class Waiting:
    """What in-memory sockets and listeners have in common: a timeout, being closed, and waiting."""

    __slots__ = ("__weakref__", "_clock", "_closed", "_timeout")

    def __init__(self, clock: Clock, timeout: float | None) -> None:
        self._clock = clock
        self._closed = False
        self._timeout = timeout

    def settimeout(self, value: float | None, /) -> None:
        """As `socket.settimeout`: None waits for ever, 0 never, else seconds."""
        self._check_open()
        self._timeout = None if value is None else float(check_seconds("timeout", value))

    def gettimeout(self) -> float | None:
        """The timeout in seconds, or None."""
        return self._timeout

    @property
    def timeout(self) -> float | None:
        """The timeout in seconds, or None."""
        return self._timeout

    def setblocking(self, flag: bool, /) -> None:
        """As `socket.setblocking`."""
        self.settimeout(None if flag else 0.0)

    def getblocking(self) -> bool:
        """True unless the timeout is 0."""
        return self._timeout != 0.0

    def fileno(self) -> int:
        """-1 if it is closed, as with any socket; else raises io.UnsupportedOperation: there is no fd."""
        if self._closed:
            return -1
        raise io.UnsupportedOperation("an in-memory socket has no file descriptor")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        raise NotImplementedError(f"{type(self).__name__} has to close")

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("this socket is closed")

    def _version(self) -> int:
        """Changes with everything that might let an attempt succeed."""
        raise NotImplementedError(f"{type(self).__name__} has to tell when something has changed")

    def _next_change(self) -> float:
        """When something changes by itself, on `_clock`; FOREVER: never."""
        raise NotImplementedError(f"{type(self).__name__} has to tell when something will change")

    def _operate(self, turn: Turn, queue: WaitQueue, timeout: float | None, attempt: Callable[[], T | Blocked]) -> T:
        """Make `attempt()` in its turn until it does not return BLOCKED. See the module's text."""
        if turn.holder is None or timeout == 0.0:
            self._check_open()
            result = attempt()
            if not isinstance(result, Blocked):
                return result
            if timeout == 0.0:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        scheduler = get_scheduler()
        me = scheduler.current
        if me is None:
            raise scheduler.refuse()
        clock = scheduler.loop.clock
        deadline = FOREVER if timeout is None else clock() + timeout
        try:
            turn.enter(me, deadline, self)
            try:
                late = False
                while True:
                    self._check_open()
                    version = self._version()
                    result = attempt()
                    if not isinstance(result, Blocked):
                        return result
                    if late:
                        raise TimeoutError("timed out")
                    queue.add(me, self)
                    if (self._closed or self._version() != version) and queue.abandon(me):
                        continue
                    change = self._next_change()
                    if clock is not self._clock and change < FOREVER:
                        change += clock() - self._clock()
                    wake_at = min(deadline, change)
                    scheduler.park(me, queue, wake_at if wake_at < FOREVER else None)
                    late = clock() >= deadline
            finally:
                queue.abandon(me)
                turn.leave()
        except Cancelled:
            if (told := as_timeout(me)) is not None:
                raise told from None
            raise
