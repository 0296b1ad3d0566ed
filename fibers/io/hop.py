"""Calls that only block, each made in a worker thread and waited for to its end, whatever comes.

Facts. A system call on a regular file cannot be waited for with a loop (it is always "ready"), and cannot be taken back
once a thread is in it: a cancelled read has moved the file's position or has not, a cancelled write may come a second
later, over what somebody else has written; and the worker fills a buffer that lies on the caller's stack.

What follows: such a call is interrupted before it begins, or not at all. `check` is the point at which it may be. After
that the fiber is *firm* until the worker is done: what would interrupt it stays with it, and comes at the next wait. So
the position, the buffers and the result are always those of a whole call. (`to_thread` is for calls that shall give way.)

The threads are a pool of their own: calls of a program that fill the common one do not stop its files. More than 32 at
once do not make a disk faster. The worker holds the interpreter only between its system calls.

Code inside the runtime (a finaliser that flushes a file that nobody closed) cannot wait: there the call is made in place.
"""

from collections.abc import Callable
from typing import Any, Final, TypeVar

from ..core.scheduler import get_scheduler
from ..core.scheduler import state as thread
from ..core.waitqueue import WaitQueue
from ..threads.to_thread import cut
from ..threads.workers import IDLE_SECONDS, WorkerPool

T = TypeVar("T")

#: Threads at most.
MAX_THREADS: Final = 32

pool: Final = WorkerPool(MAX_THREADS, "fibers-worker-file-", IDLE_SECONDS)


class _Errand:
    """One call on its way through a worker and back. A `workers.Job`."""

    __slots__ = ("args", "done", "error", "fn", "queue", "result")

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.fn = fn
        self.args = args
        self.queue = WaitQueue()
        self.done = False
        self.result: Any = None
        self.error: BaseException | None = None

    def work(self) -> None:
        try:
            self.result = self.fn(*self.args)
        except BaseException as error:
            self.error = cut(error)

    def deliver(self) -> None:
        self.done = True
        self.queue.wake_all()

    def fail(self, error: BaseException) -> None:
        self.error = error
        self.deliver()

    def lost(self) -> None:
        """In a forked child: who waits for it is in the parent, too."""

    def __repr__(self) -> str:
        return f"{getattr(self.fn, '__qualname__', self.fn)} in a worker thread"


def check() -> None:
    """What is to be raised in the calling fiber (cancelled, killed) is raised now. The start of every file operation."""
    scheduler = thread.scheduler
    if scheduler is not None:
        me = scheduler.current
        if me is not None and me.interrupt:
            scheduler.check_interrupt(me)


def hop(fn: Callable[..., T], *args: Any) -> T:
    """`fn(*args)` in a worker thread, waited for to its end. See the module's text.

    Raises what `fn` does, RuntimeError if no thread can be started; what was to interrupt the fiber comes at its next
    wait.
    """
    scheduler = thread.scheduler
    if scheduler is None:
        scheduler = get_scheduler()
    me = scheduler.current
    if me is None or scheduler.closed:
        return fn(*args)
    errand = _Errand(fn, args)
    firm, me.firm = me.firm, True
    late: BaseException | None = None
    try:
        scheduler.in_runtime(pool.submit, errand)
        queue = errand.queue
        while not errand.done:
            try:
                queue.add(me, errand)
                if errand.done and queue.abandon(me):
                    break
                scheduler.park(me, queue)
            except BaseException as error:  # a signal handler has raised
                queue.abandon(me)
                late = error
    finally:
        me.firm = firm
    if late is not None:
        me.kill(late)
    if errand.error is not None:
        try:
            raise errand.error
        finally:
            del errand  # the traceback refers to this frame
    return errand.result  # type: ignore[no-any-return]


def blocking(fn: Callable[..., T], *args: Any) -> T:
    """`check`, then `hop`: one whole operation in a worker."""
    check()
    return hop(fn, *args)
