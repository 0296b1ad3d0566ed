"""Capacity limiters: at most so many at once, in order of arrival.

A limiter has tokens. Whoever borrows one is its *borrower*: a fiber, or a call in a worker thread, which keeps the token
until the call is over, also if nobody waits for it any more. A token that comes back goes straight to whoever has waited
longest; so nobody is overtaken, and a fiber that was given a token and is then cancelled ends its call well, with the
token.

Several threads may use one limiter, so its state changes under a lock, one for all of them. That is a C lock, which is held
exactly as long as its block is, whatever a signal handler may raise in there; what a handler has cut short is done again.
Who comes back in the middle of a step (a finaliser) is refused.

The idea is trio's `CapacityLimiter`.
"""

import math
import os
from _thread import RLock
from types import TracebackType
from typing import Any, Final
from weakref import WeakSet

from ..core.fiber import Fiber
from ..core.scheduler import get_scheduler, state, undisturbed
from ..core.waitqueue import WaitQueue


class CapacityLimiter:
    """At most `total_tokens` (an int >= 1, or infinity) borrowers at once: `with limiter:`, or for `fibers.to_thread`.

    Fibers of any thread may use it. Who waits for a token can be cancelled. A fiber has at most one token of a limiter.
    """

    __slots__ = ("__weakref__", "_borrowers", "_queue", "_total", "_wanted")

    def __init__(self, total_tokens: float) -> None:
        self._total = _check(total_tokens)
        self._borrowers: dict[object, bool] = {}
        self._queue = WaitQueue()
        self._wanted: dict[Fiber[Any], object] = {}  # for whom each waiting fiber wants its token
        _limiters.add(self)

    @property
    def total_tokens(self) -> float:
        """How many there are. May be changed from any thread: more are handed out at once, fewer as they come back."""
        return self._total

    @total_tokens.setter
    def total_tokens(self, total_tokens: float) -> None:
        _check(total_tokens)
        undisturbed(self._set_total, total_tokens)

    @property
    def borrowed(self) -> int:
        """How many tokens are out; more than there are, while `total_tokens` has been lowered under them."""
        return len(self._borrowers)

    @property
    def available(self) -> float:
        """How many can be borrowed now, >= 0."""
        return max(0, self._total - len(self._borrowers))

    @property
    def waiting(self) -> int:
        """How many fibers wait for a token."""
        return len(self._queue)

    def acquire(self) -> None:
        """Borrow a token for the current fiber, waiting for one. RuntimeError if it has one already."""
        me = get_scheduler().current
        self.acquire_for(me)

    def acquire_nowait(self) -> bool:
        """As `acquire`, and returns False where that would wait."""
        scheduler = get_scheduler()
        me = scheduler.current
        if me is None:
            raise scheduler.refuse()
        self._refuse_second(me)
        return undisturbed(self._take, me, None)

    def release(self) -> None:
        """Give back the token of the current fiber. RuntimeError if it has none."""
        me = get_scheduler().current
        if not self.release_for(me):
            raise RuntimeError(f"{me!r} has no token of {self!r} that it could give back")

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<CapacityLimiter {self.borrowed} of {self._total} borrowed, {self.waiting} fibers wait>"

    # -- for those who borrow in the name of others -----------------------------------------------------------------

    def acquire_for(self, borrower: object) -> None:
        """As `acquire`, in the name of any object, compared by identity and hashed."""
        scheduler = get_scheduler()
        me = scheduler.current
        if me is None:
            raise scheduler.refuse()
        self._refuse_second(borrower)
        scheduler.check_interrupt(me)
        try:
            while not undisturbed(self._take, borrower, me):
                scheduler.park(me, self._queue)
        except BaseException:
            undisturbed(self._give_up, borrower, me)
            raise

    def release_for(self, borrower: object) -> bool:
        """Give its token back; False if it has none. Any thread."""
        return undisturbed(self._give, borrower)

    def _refuse_second(self, borrower: object) -> None:
        if borrower in self._borrowers:
            raise RuntimeError(f"{borrower!r} has a token of {self!r} already, and would wait for itself")

    # -- single steps -----------------------------------------------------------------------------------------------

    def _take(self, borrower: object, me: Fiber[Any] | None) -> bool:
        with _alone():
            if borrower in self._borrowers:
                return True  # it was handed one while it waited
            if len(self._borrowers) < self._total and not self._queue:
                self._borrowers[borrower] = True
                if me is not None:
                    self._wanted.pop(me, None)
                return True
            if me is not None:
                self._wanted[me] = borrower
                self._queue.add(me, self)
            return False

    def _give(self, borrower: object) -> bool:
        with _alone():
            try:
                return self._borrowers.pop(borrower, False)
            finally:
                self._hand_on()

    def _give_up(self, borrower: object, me: Fiber[Any]) -> None:
        """The wait has been interrupted; if a token has come in spite of that, it goes on to the next."""
        with _alone():
            self._queue.abandon(me)
            self._wanted.pop(me, None)
            try:
                self._borrowers.pop(borrower, False)
            finally:
                self._hand_on()

    def _set_total(self, total: float) -> None:
        with _alone():
            self._total = total
            self._hand_on()

    def _hand_on(self) -> None:
        try:
            self._hand_out()
        except BaseException:
            # A signal handler has raised in here, perhaps between taking a fiber out of the queue and waking it.
            for fiber, borrower in list(self._wanted.items()):
                if borrower in self._borrowers:
                    self._queue.abandon(fiber)
                    scheduler: Any = fiber.scheduler
                    scheduler.struck = True
                    scheduler.post(scheduler.arrive, fiber)
            self._hand_out()
            raise

    def _hand_out(self) -> None:
        for fiber in self._queue:
            if len(self._borrowers) >= self._total:
                return
            borrower = self._wanted[fiber]
            self._borrowers[borrower] = True
            if self._queue.abandon(fiber):
                fiber.scheduler.wake(fiber)
                del self._wanted[fiber]
            else:
                del self._borrowers[borrower]  # it has been interrupted, and will come with `_give_up`

    def after_fork(self) -> None:
        """In the child: what others have borrowed will not come back."""
        survivor = state.scheduler.current if state.scheduler is not None else None
        self._borrowers = {survivor: True} if survivor in self._borrowers else {}
        self._queue = WaitQueue()
        self._wanted = {}


_lock = RLock()


def _alone() -> Any:
    """The lock, if this thread is not in the middle of a step already."""
    if _lock._is_owned():  # type: ignore[attr-defined]
        raise RuntimeError(
            "a signal handler or a finaliser uses a limiter while its thread is in the middle of using one; spawn a fiber "
            "that does it"
        )
    return _lock


def _check(total: float) -> float:
    if total != math.inf and (not isinstance(total, int) or isinstance(total, bool)):
        raise TypeError(f"the number of tokens must be an int or infinity, not {total!r}")
    if total < 1:
        raise ValueError(f"the number of tokens must be at least 1, not {total!r}")
    return total


_limiters: Final[WeakSet[CapacityLimiter]] = WeakSet()


def _after_fork_in_child() -> None:
    global _lock
    _lock = RLock()
    for limiter in list(_limiters):
        limiter.after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
