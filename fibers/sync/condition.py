"""Condition: wait, with a lock let go meanwhile, until another holder of the lock says that something has changed."""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, TypeVar

from greenlet import GreenletExit

from ..core.fiber import Fiber
from ..core.waitqueue import Giver, WaitQueue
from ..eventloop.waiter import RETRY
from .lock import Lock, RLock
from .waiting import here, until, wait

T = TypeVar("T")


class Condition(Giver):
    """As threading.Condition, for fibers and threads at once. Who has waited longest is notified first.

    `lock` is a Lock or RLock (of this package, or something with the same methods); by default a new RLock.
    """

    __slots__ = ("__weakref__", "_lock", "_waiting", "acquire", "release")

    acquire: Callable[..., bool]
    release: Callable[[], None]

    def __init__(self, lock: Any = None) -> None:
        if lock is None:
            lock = RLock()
        self._lock: Any = lock
        self.acquire = lock.acquire
        self.release = lock.release
        self._waiting: Final = WaitQueue()

    def __enter__(self) -> bool:
        return self._lock.__enter__()  # type: ignore[no-any-return]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.__exit__(kind, error, traceback)

    def wait(self, timeout: float | None = None) -> bool:
        """Let go of the lock, wait to be notified, take the lock again; True. False after `timeout` seconds.

        The lock is held afterwards in any case: a fiber that is cancelled waits for it too, and only then raises Cancelled.
        A notification that comes first is not lost, and is not given to two. RuntimeError if the lock is not held.
        """
        self._check("wait on")
        scheduler, me = here()
        deadline = until(scheduler, timeout)
        letting_go = _LettingGo(self._lock)
        try:
            outcome = wait(scheduler, me, self._waiting, self, letting_go, deadline, self)
            while outcome is RETRY:
                outcome = wait(scheduler, me, self._waiting, self, _never, deadline, self)
        except GreenletExit:
            raise  # the greenlet is being deallocated, in whatever fiber runs now
        except BaseException:
            letting_go.undo(me)
            raise
        letting_go.undo(me)
        return outcome is self

    def wait_for(self, predicate: Callable[[], T], timeout: float | None = None) -> T:
        """Wait until `predicate()`, called with the lock held, is true, and return what it returned.

        After `timeout` seconds (None: no limit) return what it returned last.
        """
        result = predicate()
        if result:
            return result
        if timeout is None:
            while not result:
                self.wait()
                result = predicate()
            return result
        clock = here()[0].loop.clock
        end = clock() + timeout
        while not result and self.wait(end - clock()):
            result = predicate()
        return result or predicate()

    def notify(self, n: int = 1) -> None:
        """Wake the `n` fibers that have waited longest, or as many as wait. RuntimeError if the lock is not held."""
        self._check("notify on")
        while n > 0 and self._waiting.give(self):
            n -= 1

    def notify_all(self) -> None:
        """Wake all that wait. RuntimeError if the lock is not held."""
        self.notify(len(self._waiting))

    def take_back(self, fiber: Fiber[Any]) -> None:
        """See `Giver`."""
        self._waiting.give(self)

    def _check(self, what: str) -> None:
        lock = self._lock
        if isinstance(lock, Lock):
            held: bool = lock.locked()
        elif hasattr(lock, "_is_owned"):
            held = lock._is_owned()
        elif held := not lock.acquire(False):
            pass
        else:
            lock.release()
        if not held:
            raise RuntimeError(f"cannot {what} un-acquired lock: {lock!r}")

    def __repr__(self) -> str:
        return f"<fibers.{type(self).__name__} at {id(self):#x}: {len(self._waiting)} waiting, on {self._lock!r}>"


def _never() -> bool:
    return False


class _LettingGo:
    """Lets go of a lock when the fiber stands in the queue, and takes it again."""

    __slots__ = ("_lock", "_saved")

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self._saved: Any = None

    def __call__(self) -> bool:
        save = getattr(self._lock, "_release_save", None)
        if save is None:
            self._lock.release()
            self._saved = self
        else:
            self._saved = (save(),)
        return False

    def undo(self, me: Fiber[Any]) -> None:
        """Take the lock again, whatever comes: nothing interrupts that."""
        saved = self._saved
        if saved is None:
            return
        me.firm = True
        try:
            if saved is self:
                self._lock.acquire()
            else:
                self._lock._acquire_restore(*saved)
        finally:
            me.firm = False
