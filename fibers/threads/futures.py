"""A bridge to `concurrent.futures`: an executor of real threads, and futures that a fiber can wait for.

* `ThreadPoolExecutor` is the standard library's in all that it documents; its futures are real `concurrent.futures.Future`s.
  Two things differ. A fiber that waits for a result, or for `shutdown`, suspends only itself. And calls run in a copy of the
  context in which they were submitted, as everywhere in this package.
* `wait_future` waits for any future of anybody's: an executor of processes, a driver with threads of its own.
* `as_future` is the way back: a fiber as a future, for code that knows nothing of fibers.

A future tells of its end by a callback, and has no way to take one back. So one is left with a future for life, at its first
waiter, and serves all: a fiber that waits a hundred times for a second each leaves one, not a hundred.

Worker threads are those of workers.py. So an executor starts no thread that is not needed, and all are waited for at the end
of the program, as the standard library does it: what has been submitted is done.
"""

import atexit
import itertools
import logging
import os
import threading
from _thread import _local
from collections.abc import Callable
from concurrent.futures import Executor, Future, InvalidStateError
from concurrent.futures.thread import BrokenThreadPool
from contextvars import copy_context
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar
from weakref import WeakSet

from ..core.cancel import as_timeout
from ..core.fiber import Fiber
from ..core.scheduler import state, undisturbed
from ..core.waitqueue import WaitQueue
from ..errors import Cancelled, FiberCancelled
from .completion import Completion, Outside
from .to_thread import cut, outlast
from .workers import NEVER, WorkerPool, knows

_log: Final = logging.getLogger("concurrent.futures")  # where users of executors look

P = ParamSpec("P")
T = TypeVar("T")


def wait_future(future: "Future[T]", timeout: float | None = None) -> T:
    """Wait for a `concurrent.futures.Future`, and return or raise what it came to; only the calling fiber waits.

    Raises TimeoutError after `timeout` seconds (>= 0; None: no limit), `concurrent.futures.CancelledError` if the future
    was cancelled, TypeError if it is no such future (one of asyncio's belongs to its loop: use
    `asyncio.run_coroutine_threadsafe`). Waiting for it, and being cancelled in that, does nothing to the future.
    """
    if not isinstance(future, Future):
        raise TypeError(f"wait_future() takes a concurrent.futures.Future, not {future!r}")
    return future.result(_waited(future, timeout, Outside))


def as_future(fiber: Fiber[T]) -> "Future[T]":
    """A `concurrent.futures.Future` that comes to what the fiber comes to, for code that waits for those. Any thread.

    Cancelling the future cancels the fiber; a fiber that was cancelled cancels the future. The error of the fiber counts
    as retrieved.
    """
    if not isinstance(fiber, Fiber):
        raise TypeError(f"as_future() takes a fiber, not {fiber!r}")
    future: ThreadFuture[T] = ThreadFuture()
    future.add_done_callback(partial(_pass_cancellation, fiber))
    fiber.add_done_callback(partial(_settle, future))
    return future


def _pass_cancellation(fiber: Fiber[Any], future: "Future[Any]") -> None:
    if future.cancelled():
        fiber.cancel()


def _settle(future: "Future[Any]", fiber: Fiber[Any]) -> None:
    """The fiber is done."""
    error = fiber.exception()
    if isinstance(error, FiberCancelled):
        future.cancel()
    if not future.set_running_or_notify_cancel():
        return
    if error is None:
        future.set_result(fiber._result)
    else:
        future.set_exception(error)


def _waited(future: "Future[Any]", timeout: float | None, queue: type[WaitQueue]) -> float | None:
    """In a fiber: wait until a future is done, and return the timeout that is left for its own method: none."""
    scheduler = state.scheduler
    if scheduler is None or scheduler.closed or future.done():
        return timeout
    completion: Completion | None = future.__dict__.get("_fibers_completion")
    if completion is None:
        made = Completion(queue())
        future.add_done_callback(made.complete)
        completion = future.__dict__.setdefault("_fibers_completion", made)
    try:
        completion.wait(None if timeout is None else max(timeout, 0.0), future)
    except Cancelled:
        me = scheduler.current
        if timeout is not None and me is not None and (late := as_timeout(me)) is not None:
            raise late from None
        raise
    return 0.0


class ThreadFuture(Future[T]):
    """The futures of `ThreadPoolExecutor`: a fiber that waits in `result` or `exception` suspends only itself."""

    def result(self, timeout: float | None = None) -> T:
        return super().result(_waited(self, timeout, WaitQueue))

    def exception(self, timeout: float | None = None) -> BaseException | None:
        return super().exception(_waited(self, timeout, WaitQueue))

    def lost(self) -> None:
        """In a forked child: the thread that would come to a result is in the parent, and so is who holds our lock."""
        self._condition = threading.Condition()
        try:
            self.set_exception(BrokenThreadPool("the call goes on in the parent process only"))
        except InvalidStateError:
            pass


class _Task:
    """A call that has been submitted."""

    __slots__ = ("_args", "_context", "_fn", "future")

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.future: ThreadFuture[Any] = ThreadFuture()
        self._fn = fn
        self._args = args
        self._context = copy_context()

    def work(self) -> None:
        """In the worker: call, and tell whoever waits. Done-callbacks are other people's code, hence part of the job."""
        future = self.future
        if not future.set_running_or_notify_cancel():
            return
        error: BaseException | None = None
        try:
            result = self._context.run(self._fn, *self._args)
        except BaseException as caught:
            error = cut(caught)
        if not knows(self):
            return  # the function has forked, and this is the child
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
            error = None  # its traceback may refer to this frame

    def deliver(self) -> None:
        """That has been done."""

    def lost(self) -> None:
        self.future.lost()

    def fail(self, error: BaseException) -> None:
        """It has been taken back: the future gets an error."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)

    def cancel(self) -> None:
        """It has been taken back: the future is cancelled."""
        self.future.cancel()
        self.future.set_running_or_notify_cancel()


class _Gone(Completion):
    """The end of all workers of an executor. Whoever is cancelled while it waits for that waits on."""

    __slots__ = ()

    def cancel(self) -> None: ...

    give_up = cancel


class _Pool(WorkerPool):
    """The workers of an executor, which are not to know it: then it can be collected."""

    __slots__ = ("broken", "gone", "initargs", "initializer")

    def __init__(
        self, limit: int, name: str, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]
    ) -> None:
        self.initializer = initializer
        self.initargs = initargs
        self.broken: str | None = None
        super().__init__(limit, name, NEVER)
        _executors.add(self)

    def reset(self) -> None:
        super().reset()
        self.gone = _Gone()
        if self.closing:
            self.gone.complete()

    @property
    def begins_slowly(self) -> bool:  # type: ignore[override]
        return self.initializer is not None

    def begin(self) -> bool:
        _here.pool = self
        if self.initializer is not None:
            try:
                self.initializer(*self.initargs)
            except BaseException:
                _log.critical("Exception in initializer:", exc_info=True)
                self.broken = "A thread initializer failed, the thread pool is not usable anymore"
                return False
        return True

    def failed(self) -> None:
        super().close()  # the end is told of when this worker is gone, too
        for task in self.drain():
            task.fail(BrokenThreadPool(self.broken))

    def left(self) -> None:
        if self.closing and not len(self):
            self.gone.complete()

    def close(self) -> None:
        super().close()
        self.left()


class _Here(_local):
    """What each thread has of its own."""

    pool: _Pool | None = None


_here: Final = _Here()

#: Those that have an executor, or threads.
_executors: Final[WeakSet[_Pool]] = WeakSet()


class ThreadPoolExecutor(Executor):
    """As `concurrent.futures.ThreadPoolExecutor`; a fiber that waits suspends only itself. See the module's text.

    Parameters, results and errors of `submit`, `map`, `shutdown` and of the `with` block are the standard library's. May
    be used from any thread. A fiber that is cancelled while it waits in `shutdown`, or at the end of the block, waits on,
    and raises Cancelled then.
    """

    _numbers = itertools.count()

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        if max_workers is None:
            cpus: int | None = getattr(os, "process_cpu_count", os.cpu_count)()
            max_workers = min(32, (cpus or 1) + 4)
        if max_workers <= 0:
            raise ValueError(f"max_workers must be greater than 0, not {max_workers!r}")
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer must be a callable, not {initializer!r}")
        name = thread_name_prefix or f"ThreadPoolExecutor-{next(self._numbers)}"
        self._pool = _Pool(max_workers, f"{name}_", initializer, initargs)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> ThreadFuture[T]:
        """As `Executor.submit`; the call runs in a copy of the caller's context. Never waits."""
        pool = self._pool
        if _exiting:
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")
        if pool.broken is None and not pool.closing:
            task = _Task(partial(fn, **kwargs) if kwargs else fn, args)
            try:
                undisturbed(pool.submit, task)
                return task.future
            except RuntimeError:
                if not pool.closing:
                    raise  # no thread could be started
        if pool.broken is not None:
            raise BrokenThreadPool(pool.broken)
        raise RuntimeError("cannot schedule new futures after shutdown")

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As `Executor.shutdown`. Waits for the calls that run, also if cancelled; RuntimeError in one of them."""
        pool = self._pool
        pool.close()
        if cancel_futures:
            for task in pool.drain():
                task.cancel()
        if not wait:
            return
        if _here.pool is pool:
            raise RuntimeError("a call cannot wait for the end of the executor that runs it: use shutdown(wait=False)")
        scheduler = state.scheduler
        if scheduler is None or scheduler.current is None:
            pool.gone.wait()
        elif (cancelled := outlast(pool.gone, scheduler, scheduler.current)) is not None:
            raise cancelled

    def __del__(self) -> None:
        pool = getattr(self, "_pool", None)
        if pool is not None:
            pool.close()


_exiting = False


def _at_exit() -> None:
    """The program ends: what has been submitted is done before, as with the standard library's executors."""
    global _exiting
    _exiting = True
    pools = list(_executors)
    for pool in pools:
        pool.close()
    for pool in pools:
        pool.gone.wait()


atexit.register(_at_exit)
