"""Lock and RLock.

A lock is one attribute: its holder, or None. To take a free one is one step; so is letting go of one that nobody waits
for. If somebody does, the lock is handed to whoever has waited longest, and is not free in between (waiting.py).

The holder is remembered for reports ("who holds that lock"), at the price of one look at the thread's state, 30 ns of a
pair of 90; RLock needs it anyway. A thread that has no fibers is remembered by its number. So is code inside the runtime
(a done-callback, a finaliser that strikes there); it may take a free lock, and may not wait for one.

CPython may deliver a signal where `__exit__` begins. A handler that raises there leaves the lock locked, as it does with
every primitive written in Python.
"""

import threading
from _thread import get_ident
from types import TracebackType
from typing import Any, Final

from ..core.fiber import Fiber
from ..core.scheduler import state
from ..core.waitqueue import Giver, WaitQueue
from ..eventloop.waiter import RETRY
from .waiting import check_timeout, here, until, wait


class _Held(Giver):
    """What both kinds have in common: a holder, and a queue."""

    __slots__ = ("__weakref__", "_holder", "_line", "_waiting")

    def __init__(self) -> None:
        self._holder: Fiber[Any] | int | None = None  # None: free. A number: that of a thread.
        self._waiting: Final = WaitQueue()
        self._line: Final = self._waiting._waiting  # true if somebody waits

    def locked(self) -> bool:
        """Does somebody hold it?"""
        return self._holder is not None

    def _acquire(self, blocking: bool, timeout: float) -> bool:
        """`acquire` where it is not a matter of one step."""
        if timeout != -1:
            if not blocking:
                raise ValueError("can't specify a timeout for a non-blocking call")
            check_timeout(timeout)
            if timeout < 0:
                raise ValueError(f"timeout value must be a non-negative number, not {timeout!r}")
        if self._take():
            return True
        if not blocking or timeout == 0:
            return False
        scheduler, me = here()
        deadline = until(scheduler, None if timeout == -1 else timeout)
        while (outcome := wait(scheduler, me, self._waiting, self, self._free, deadline, self)) is RETRY:
            if self._take():
                return True
        return outcome is self

    def _free(self) -> bool:
        return self._holder is None

    def _take(self) -> bool:
        """Take it if it is free."""
        scheduler = state.scheduler
        me = get_ident() if scheduler is None or scheduler.current is None else scheduler.current
        if self._holder is None: self._holder = me; return True  # one step # fmt: skip
        return False

    def _pass_on(self) -> None:
        """Its holder is done with it: hand it to whoever has waited longest, or leave it free."""
        while True:
            if not self._line: self._holder = None; return  # one step # fmt: skip
            if self._waiting.give(self, None, self):
                return

    def take_back(self, fiber: Fiber[Any]) -> None:
        """See `Giver`."""
        if self._holder is fiber:
            self._pass_on()

    def _at_fork_reinit(self) -> None:
        """Free it, in a forked child whose parent may hold it (`logging` asks for that)."""
        self._waiting._waiting.clear()
        self._holder = None

    def __repr__(self) -> str:
        state = "unlocked" if self._holder is None else "locked"
        return f"<{state} fibers.{type(self).__name__} object {self._told()}at {id(self):#x}>"

    def _told(self) -> str:
        holder = self._holder
        if holder is None:
            return ""
        if isinstance(holder, int):
            names = [repr(thread.name) for thread in threading.enumerate() if thread.ident == holder]
            return f"held by thread {names[0] if names else f'{holder}, which is done,'} "
        return f"held by fiber {holder.name!r}{', which is done, ' if holder.done() else ' '}"


class Lock(_Held):
    """As threading.Lock, for fibers and threads at once. First come, first served.

    Any fiber or thread may release it. A fiber that ends while it holds it leaves it locked. `release`, and `acquire`
    without waiting, may be called from signal handlers and finalisers.
    """

    __slots__ = ()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it, waiting if it is held: at most `timeout` seconds (-1: no limit), not at all unless `blocking`.

        Returns whether it was taken. A fiber that is cancelled while it waits does not hold it. ValueError for other
        negative timeouts, or one without `blocking`; OverflowError over threading.TIMEOUT_MAX.
        """
        scheduler = state.scheduler
        if scheduler is not None and timeout == -1:
            me = scheduler.current
            if self._holder is None and me is not None: self._holder = me; return True  # one step # fmt: skip
        return self._acquire(blocking, timeout)

    __enter__ = acquire

    def release(self) -> None:
        """Let it go: to whoever has waited longest, if somebody waits. RuntimeError if nobody holds it."""
        if not self._line and self._holder is not None: self._holder = None; return  # one step # fmt: skip
        if self._holder is None:
            raise RuntimeError("release unlocked lock")
        self._pass_on()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


class RLock(_Held):
    """As threading.RLock, for fibers and threads at once: its holder, a fiber, may take it again.

    It is free when it has been released as often as acquired. Only the holder may release it. A thread without fibers of
    its own, and the main fiber that it gets, are one holder.
    """

    __slots__ = ("_again",)

    def __init__(self) -> None:
        super().__init__()
        self._again = 0  # how many times more than once the holder has it

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """As `Lock.acquire`; returns True at once if the calling fiber holds it."""
        scheduler = state.scheduler
        if scheduler is not None and timeout == -1:
            me = scheduler.current
            if self._holder is None and me is not None: self._holder = me; return True  # one step # fmt: skip
            if self._holder is me is not None:
                self._again += 1
                return True
        return self._acquire(blocking, timeout)

    def _take(self) -> bool:
        if self._is_owned():
            self._again += 1
            return True
        return super()._take()

    __enter__ = acquire

    def release(self) -> None:
        """Let it go once. RuntimeError if the calling fiber does not hold it."""
        if not self._is_owned():
            raise RuntimeError(f"cannot release un-acquired lock: this fiber or thread does not hold {self!r}")
        if self._again:
            self._again -= 1
        else:
            self._pass_on()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    # What Condition asks for, as of the standard library's.

    def _is_owned(self) -> bool:
        """Does the calling fiber hold it?"""
        scheduler = state.scheduler
        me = None if scheduler is None else scheduler.current
        holder = self._holder
        if holder is me:
            return holder is not None
        if isinstance(holder, int):
            return holder == get_ident() and (me is None or me is scheduler.main)  # type: ignore[union-attr]
        # The main fiber of an event loop that is closed by now: what was taken in `run` is released after it.
        home: Any = None if holder is None else holder.scheduler
        if home is None or home.thread != get_ident() or holder is not home.main:
            return False
        return scheduler is None or me is scheduler.main

    def _release_save(self) -> int:
        if not self._is_owned():
            raise RuntimeError(f"cannot release un-acquired lock: this fiber or thread does not hold {self!r}")
        again, self._again = self._again, 0
        self._pass_on()
        return again

    def _acquire_restore(self, again: int) -> None:
        self.acquire()
        self._again = again

    def _recursion_count(self) -> int:
        return self._again + 1 if self._is_owned() else 0

    def _at_fork_reinit(self) -> None:
        super()._at_fork_reinit()
        self._again = 0

    def _told(self) -> str:
        return super()._told() + (f"{self._again + 1} times " if self._again else "")
