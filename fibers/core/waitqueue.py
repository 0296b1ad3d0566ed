"""One wait queue under every primitive: fibers of any thread wait in it, anybody wakes them.

Facts. A fiber waits in one place at a time, but a wake, a timeout and a cancellation may reach for it at once, from
different threads. Exactly one of them may have it. So taking a fiber out of the queue *is* the decision: who gets it
out wakes it, the others find it gone. `dict.pop(key, default)` is one atomic step in CPython, keeps the order of
arrival, and takes from the middle without a search. It is an OrderedDict because a plain dict that loses its first key
again and again looks through all the holes before the next.

Handing over. A primitive that hands something (a lock, a permit, an item) to whoever has waited longest leaves no moment
in which a newcomer could take it. The primitive is then the *outcome* of that wait, and `handed` in the fiber is the
thing. A fiber that was given something is never interrupted before it has it (carriers.py). If it can never go on, which
happens to those that a fork or the end of their thread has left behind, the giver takes it back.
"""

from _thread import get_ident
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Final, NoReturn

from ..eventloop.waiter import Outcome
from .fiber import Fiber

#: What `pop` finds of a fiber that is gone.
_GONE: Final = object()
#: Outcome of a fiber that has been put into a queue, and of which nobody has taken notice so far.
ENLISTED: Final = Outcome("ENLISTED")


class Giver(Outcome):
    """What hands something to waiting fibers: it is the outcome of a wait in which it did."""

    __slots__ = ()

    def take_back(self, fiber: Fiber[Any]) -> None:
        """The fiber has been given something (`fiber.handed`) and will never use it: pass it on. Any thread."""

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"cannot pickle or copy a {type(self).__name__}: fibers of this process wait in it")


class WaitQueue:
    """Fibers waiting in order of arrival. Every method may be called from any thread."""

    __slots__ = ("_waiting",)

    #: Only fibers and threads of this process wake who waits here: a deadlock can be proved (deadlock.py).
    inside = True

    def __init__(self) -> None:
        self._waiting: dict[Fiber[Any], object] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Fiber[Any]]:
        return iter(list(self._waiting))

    def add(self, fiber: Fiber[Any], what: object = None) -> None:
        """Put a fiber at the end. It is the current fiber of the calling thread, which parks next.

        `what` is the thing that it waits for (a lock, a fiber …), for reports.
        """
        self._waiting[fiber] = what

    def awaited(self, fiber: Fiber[Any]) -> object:
        """What it waits for, as far as `add` was told."""
        return self._waiting.get(fiber)

    def holds(self, fiber: Fiber[Any]) -> bool:
        """Does it wait here?"""
        return fiber in self._waiting

    def abandon(self, fiber: Fiber[Any]) -> bool:
        """Take a fiber out; True if it was still waiting, and then the caller must wake it (or go on, if it is itself)."""
        return self._waiting.pop(fiber, _GONE) is not _GONE

    def take(self) -> Fiber[Any] | None:
        """Take out whoever has waited longest; the caller must wake it. None: nobody waits, or it was just taken."""
        waiting: Any = self._waiting
        fiber: Any = None
        try:
            for fiber in waiting:  # noqa: B007 - the first; no call stands between, so nobody changes it
                break
            else:
                return None
            return fiber if waiting.pop(fiber, _GONE) is not _GONE else None
        except BaseException:  # a signal handler has raised: nothing has happened
            if fiber is not None and self._lost(fiber):
                self.put_back(fiber)
            raise

    def put_back(self, fiber: Fiber[Any], what: object = None) -> None:
        """As if it had not been taken."""
        waiting: Any = self._waiting
        waiting[fiber] = what
        waiting.move_to_end(fiber, last=False)

    def give(self, giver: Giver, handed: object = None, lock: Any = None) -> bool:
        """Hand something to whoever has waited longest, and wake it. False: nobody waits.

        `lock`: something whose `_holder` the fiber becomes, before it wakes.
        """
        waiting = self._waiting
        fiber: Any = None
        woken = False
        try:
            while True:
                for fiber in waiting:  # noqa: B007 - the first; no call stands between, so nobody changes it
                    break
                else:
                    return False
                if waiting.pop(fiber, _GONE) is not _GONE:
                    if lock is not None:
                        lock._holder = fiber
                    fiber.handed = handed
                    fiber.outcome = giver
                    woken = True
                    home = fiber.scheduler
                    if home.current is not None and home.thread == get_ident():  # `wake`, without the call
                        home.ready.append(fiber)
                    else:
                        home.wake(fiber)
                    return True
        except BaseException:
            # A signal handler has raised. What has been begun is finished; a second wake-up is only a spurious one.
            if woken:
                fiber.scheduler.wake(fiber)
            elif fiber is not None and self._lost(fiber):
                if lock is not None:
                    lock._holder = fiber
                fiber.handed = handed
                fiber.outcome = giver
                fiber.scheduler.wake(fiber)
            raise

    def wake_all(self, outcome: Outcome | None = None) -> None:
        """Wake every fiber that waits now."""
        fiber = None
        woken = False
        try:
            for fiber in list(self._waiting):
                woken = False
                if self._waiting.pop(fiber, _GONE) is not _GONE:
                    fiber.outcome = outcome
                    woken = True
                    fiber.scheduler.wake(fiber)
        except BaseException:  # as in `give`
            if fiber is not None and (woken or self._lost(fiber)):
                if not woken:
                    fiber.outcome = outcome
                fiber.scheduler.wake(fiber)
            self.wake_all(outcome)
            raise

    def _lost(self, fiber: Fiber[Any]) -> bool:
        """Has it been taken out by somebody who was struck before he could say what for?"""
        return fiber.waiting is self and fiber not in self._waiting and fiber.outcome in (None, ENLISTED)
