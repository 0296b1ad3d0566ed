"""Look-ups of the C library: they block and cannot be interrupted, so they run in threads, and fibers that ask the same
question at the same time share one.

* The threads are a pool of their own that grows with need. A name server that does not answer holds up other look-ups no
  earlier than the 64th, and calls of `to_thread` not at all.
* The question (function and arguments) is the key under which a look-up that is under way is found, from every thread.
  An answer is not kept: how long it holds is known to the resolver, and not told by it.
* A fiber that is cancelled leaves; the others wait on. If it was the last one, the question is free to be asked anew: a
  look-up that somebody has lost patience with is likely to be stuck, and a second try must not get stuck in it. (Go's
  resolver does the same, its issue 22724.) One that no thread has begun is taken back.

No lock: a look-up is in `_under_way` by one atomic step, before it is submitted, and is taken out before it is over.
Whoever waits goes into its queue first and asks second whether it is over; whoever ends it does the reverse.
"""

import os
from collections.abc import Callable
from copy import copy
from typing import Any, Final

from ..core.lifecycle import end_thread
from ..core.scheduler import get_scheduler, state
from ..core.waitqueue import WaitQueue
from ..threads.to_thread import cut
from ..threads.workers import IDLE_SECONDS, WorkerPool

#: At most so many look-ups run at once.
MAX_LOOKUPS: Final = 64

_pool: Final = WorkerPool(MAX_LOOKUPS, "fibers-worker-names-", IDLE_SECONDS)
_under_way: Final[dict[Any, "_Lookup"]] = {}
os.register_at_fork(after_in_child=_under_way.clear)


class _Lookup:
    """A job of the pool; the answer is for everybody in `queue`."""

    __slots__ = ("error", "key", "over", "queue", "result", "withdrawn")

    def __init__(self, key: tuple[Any, ...]) -> None:
        self.key = key
        self.queue = WaitQueue()
        self.over = self.withdrawn = False
        self.result: Any = None
        self.error: BaseException | None = None

    def __repr__(self) -> str:
        function, *args = self.key
        return f"the look-up {getattr(function, '__name__', function)}({', '.join(map(repr, args))})"

    def work(self) -> None:
        function, *args = self.key
        try:
            try:
                self.result = function(*args)
            finally:
                if state.scheduler is not None:
                    end_thread()
        except BaseException as error:
            self.error = cut(error)

    def deliver(self) -> None:
        self._forget()
        self.over = True
        self.queue.wake_all()

    def fail(self, error: BaseException) -> None:
        self.error = error
        self.deliver()

    def lost(self) -> None:
        """In a forked child: whoever waits is in the parent, too."""

    def take_back(self) -> None:
        """Nobody has begun it, and nobody will. Who has come to wait for it meanwhile asks anew."""
        self.withdrawn = True
        self.deliver()

    def leave(self) -> None:
        """A fiber waits for it no longer."""
        if not self.queue._waiting and not self.over:
            self._forget()
            if _pool.withdraw(self):
                self.take_back()

    def _forget(self) -> None:
        if _under_way.get(self.key) is self:
            _under_way.pop(self.key, None)

    def answer(self) -> Any:
        """The result, or the error: a new object for each who asked, since raising changes it."""
        if self.error is None:
            return self.result
        raise copy(self.error) from self.error.__cause__


def look_up(function: Callable[..., Any], *args: Any) -> Any:
    """`function(*args)` in a thread. Only the calling fiber waits, and shares the call with those who ask the same.

    The result is shared, too: it is not to be changed. The arguments are hashable. A fiber that is cancelled waits no
    longer. Raises RuntimeError if no thread can be started.
    """
    scheduler = state.scheduler
    if scheduler is None:
        scheduler = get_scheduler()
    me = scheduler.current
    if me is None:
        raise scheduler.refuse()
    key = (function, *args)
    while True:
        lookup = _under_way.get(key) or scheduler.in_runtime(_begin, key)
        queue = lookup.queue
        try:
            while not lookup.over:
                queue.add(me, lookup)
                if lookup.over and queue.abandon(me):
                    break
                scheduler.park(me, queue)
        except BaseException:
            queue.abandon(me)
            scheduler.in_runtime(lookup.leave)
            raise
        if not lookup.withdrawn:
            return lookup.answer()


def _begin(key: tuple[Any, ...]) -> _Lookup:
    mine = _Lookup(key)
    try:
        lookup = _under_way.setdefault(key, mine)
        if lookup is mine:
            _pool.submit(mine)
        return lookup
    except RuntimeError as error:  # no thread
        mine.fail(error)
        return mine
    except BaseException:  # a signal handler has raised; others may have come to wait
        if _pool.withdraw(mine):
            mine.take_back()
        raise
