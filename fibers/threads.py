"""Worker threads for what can only block: here a call that belongs in a thread, so that only its fiber waits.

The pool is one for the process. It grows by a thread whenever work comes and nobody is idle, up to MAX_WORKERS, and
each thread ends when it has been idle for a while. The threads are daemons: a name server that does not answer must not
hold up the end of the program. They have no event loop and run no fibers.

Only primitives of the C module `_thread` and a deque are used, so that the pool stays made of real threads and locks
whatever is patched in the modules above.
"""

import os
import threading
from _thread import allocate_lock
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any, Final, TypeVar

from .scheduler import get_scheduler
from .waitqueue import WaitQueue

T = TypeVar("T")

#: At most this many calls run at once; more wait for a thread.
MAX_WORKERS: Final = 64
#: Seconds after which an idle worker ends.
IDLE_SECONDS: Final = 5.0


class _Call:
    """One call on its way through a worker and back."""

    __slots__ = ("args", "context", "done", "error", "fn", "queue", "result")

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...], context: Context) -> None:
        self.fn = fn
        self.args = args
        self.context = context
        self.queue = WaitQueue()
        self.done = False
        self.result: Any = None
        self.error: BaseException | None = None

    def work(self) -> None:
        """In the worker: call, keep what came of it, wake the fiber if it still waits."""
        try:
            self.result = self.context.run(self.fn, *self.args)
        except BaseException as error:
            self.error = error
        self.done = True
        self.queue.wake_all()


class _Worker:
    """An idle or busy thread. `door` is locked while it has nothing to do."""

    __slots__ = ("call", "door")

    def __init__(self, call: _Call) -> None:
        self.door = allocate_lock()
        self.door.acquire()
        self.call: _Call | None = call


class _Pool:
    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._idle: list[_Worker] = []
        self._waiting: deque[_Call] = deque()
        self._count = 0
        self._made = 0

    def submit(self, call: _Call) -> None:
        with self._lock:
            if self._idle:
                worker = self._idle.pop()
                worker.call = call
                worker.door.release()
                return
            if self._count >= MAX_WORKERS:
                self._waiting.append(call)
                return
            self._count += 1
            self._made += 1
            name = f"fibers-worker-{self._made}"
        try:
            threading.Thread(target=self._run, args=(_Worker(call),), name=name, daemon=True).start()
        except BaseException:
            with self._lock:
                self._count -= 1
            raise

    def _run(self, worker: _Worker) -> None:
        while True:
            call = worker.call
            worker.call = None
            if call is not None:
                call.work()
                del call
            with self._lock:
                if self._waiting:
                    worker.call = self._waiting.popleft()
                    continue
                self._idle.append(worker)
            if not worker.door.acquire(timeout=IDLE_SECONDS):
                with self._lock:
                    if worker in self._idle:  # else work came at the last moment
                        self._idle.remove(worker)
                        self._count -= 1
                        return
                worker.door.acquire()


_pool = _Pool()


def idle_workers() -> int:
    """How many threads of the pool have nothing to do. Whatever they were asked for before has been delivered."""
    return len(_pool._idle)


def busy_workers() -> int:
    """How many threads of the pool are at work. 0 says that whatever they were asked for has been delivered."""
    return _pool._count - len(_pool._idle)


def _after_fork_in_child() -> None:
    """The threads, and whoever waited for them, are in the parent."""
    global _pool
    _pool = _Pool()


os.register_at_fork(after_in_child=_after_fork_in_child)


def to_thread(fn: Callable[..., T], *args: Any) -> T:
    """Call `fn(*args)` in a worker thread, in a copy of the caller's context, and wait for it; only this fiber waits.

    Returns or raises what `fn` does. A fiber that is cancelled meanwhile stops waiting; the call itself runs to its end
    and its result is dropped.
    """
    scheduler = get_scheduler()
    me = scheduler.current
    if me is None:
        raise scheduler.refuse()
    scheduler.check_interrupt(me)
    call = _Call(fn, args, copy_context())
    _pool.submit(call)
    while not call.done:
        try:
            call.queue.add(me)
            if call.done and call.queue.abandon(me):
                break
            scheduler.park(me, call.queue)
        except BaseException:
            call.queue.abandon(me)
            raise
    error, call.error = call.error, None
    if error is None:
        result: T = call.result
        return result
    try:
        raise error
    finally:
        del error, call  # the traceback refers to this frame
