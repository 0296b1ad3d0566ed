"""A thread with an event loop of its own: `FiberThread`.

    thread = FiberThread(serve, listener)        a server with one loop per thread: as many of these as there are cores
    thread.start()
    thread.stop(); thread.join()                 join raises what `serve` has raised

    with FiberThread() as thread:                no function: a thread for fibers that others send
        thread.spawn(work, 1)
        thread.run_sync(work, 2)

The thread is the main fiber of a `fibers.run`, so it ends as that does: when its function returns, the fibers that are
left in it are cancelled. A thread without a function goes on until it is stopped.

As a block it is a task group that works elsewhere: the block is left when all that was spawned is done; if the block
fails, it is cancelled first. Errors arrive at `join` and at the end of the block. None is lost: what nobody asks for there
is logged.

A thread without a function, or one that is a daemon, does not hold up the end of the program: it is stopped then, and gets
a moment to unwind in.
"""

import atexit
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from weakref import WeakSet

from ..core.cancel import CancelScope
from ..core.endings import end_of
from ..core.fiber import Fiber, Report
from ..core.lifecycle import GRACE
from ..core.lifecycle import run as run_fibers
from ..core.scheduler import state
from ..errors import LoopClosedError
from ..from_thread import Portal, make, send
from .completion import Completion, Outside
from .to_thread import outlast

T = TypeVar("T")

#: Of fibers that failed and were not asked, so many are kept for `join`; older ones are logged.
ERRORS_MAX: Final = 100


class FiberThread(threading.Thread):
    """A `threading.Thread` that runs `fn(*args, **kwargs)` as the main fiber of its own event loop. See the module's text.

    `name` and `daemon` as for any Thread; without `fn`, `daemon` is True unless given. `start()` returns when the event
    loop stands, and raises what prevents it. Methods may be called from any thread; a fiber that calls `join` or
    `run_sync` waits as fibers do.
    """

    def __init__(
        self,
        fn: Callable[..., object] | None = None,
        *args: Any,
        name: str | None = None,
        daemon: bool | None = None,
        **kwargs: Any,
    ) -> None:
        if fn is not None and not callable(fn):
            raise TypeError(f"FiberThread() takes a function, not {fn!r}")
        super().__init__(name=name, daemon=True if daemon is None and fn is None else daemon)
        caller = sys._getframe(1)
        self._site = f"{caller.f_code.co_filename}:{caller.f_lineno} in {caller.f_code.co_qualname}"
        self._call: tuple[Callable[..., object], tuple[Any, ...], dict[str, Any]] | None = None
        if fn is not None:
            self._call = (fn, args, kwargs)
        self._portal: Portal | None = None
        self._scope = CancelScope()
        self._stopping = False
        self._stands = Completion()  # the loop stands, or will never
        self._asked = Completion(Outside())  # to stop: by whoever, whenever
        self._over = _Over(self)
        self._own: set[Fiber[Any]] = set()  # spawned from outside, and not done
        self._failed: deque[Fiber[Any]] = deque(maxlen=ERRORS_MAX)
        self._errors: list[BaseException] = []  # of those, when all is over
        self._error: BaseException | None = None  # for `join`
        self._report: Report | None = None

    # -- in the thread ----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """What the thread does. (To call a function in it, use `run_sync`.)"""
        errors: list[BaseException] = []
        try:
            run_fibers(self._main)
        except SystemExit:
            pass  # as in any thread: it ends, and that is all
        except BaseException as error:
            errors.append(error)
        self._stopping = True
        self._call = None
        if errors and not self._errors:
            self._error = errors[0]
        elif self._errors:
            self._error = BaseExceptionGroup(f"unhandled errors in thread {self.name!r}", errors + self._errors)
        if self._error is not None:
            self._report = Report(self.name, self._site, self._error)
        self._stands.complete()
        self._over.complete()

    def _main(self) -> None:
        self._portal = Portal()
        self._stands.complete()
        try:
            with self._scope:
                if self._call is not None:
                    fn, args, kwargs = self._call
                    fn(*args, **kwargs)
                else:
                    self._asked.wait(what=self)
                    while self._own:
                        next(iter(self._own)).join()
        finally:
            self._stopping = True
            while self._own:
                left = list(self._own)
                for fiber in left:
                    fiber.cancel()
                for fiber in left:
                    fiber.join()
            # Those of which nobody has asked for the error; from now on they count as asked.
            self._errors += [late for each in self._failed if _unasked(each) and (late := each.exception()) is not None]
            self._failed.clear()

    def _left(self, fiber: Fiber[Any]) -> None:
        """A done-callback."""
        self._own.discard(fiber)
        if _unasked(fiber):
            self._failed.append(fiber)

    # -- for everybody ------------------------------------------------------------------------------------------------

    @property
    def portal(self) -> Portal:
        """The way into it for `from_thread`. RuntimeError before the start."""
        if self._portal is None:
            raise RuntimeError(
                f"{self!r} has not been started: call start(), or use it as `with FiberThread() as thread`"
            )
        return self._portal

    def start(self) -> None:
        """Start it. Raises RuntimeError if it has been started before or there can be no thread, OSError if no loop."""
        _threads.add(self)
        super().start()
        self._stands.block()
        if self._portal is None:  # it has ended without having got as far as that
            self.join()

    def spawn(self, fn: Callable[..., T], *args: Any, name: str | None = None, **kwargs: Any) -> Fiber[T]:
        """Run `fn(*args, **kwargs)` in a new fiber of the thread; returns at once.

        Raises LoopClosedError if the thread has ended or is stopping, RuntimeError before the start.
        """
        portal = self.portal
        if self._stopping:
            raise LoopClosedError(f"{self!r} has ended or is stopping; nothing can be spawned in it any more")
        fiber = make(portal._scheduler, fn, args, kwargs, 2)
        if name is not None:
            fiber.name = name
        self._own.add(fiber)
        end_of(fiber).watch(self._left)
        try:
            send(portal._scheduler, fiber)
        except LoopClosedError:
            self._own.discard(fiber)
            raise
        return fiber

    def run_sync(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call `fn(*args, **kwargs)` in a new fiber of the thread and wait for it, as `Portal.run` does."""
        return self.portal.run(fn, *args, **kwargs)

    def stop(self, *, cancel: bool = True) -> None:
        """Ask it to end; returns at once. Nothing happens if it has ended. RuntimeError before the start.

        What runs in it is cancelled. Without `cancel` a thread without a function ends when what was spawned in it is
        done; one with a function ends when that returns, as it would anyhow. Nothing more can be spawned from outside.
        """
        self.portal  # noqa: B018 - has it been started?
        self._stopping = True
        if cancel:
            self._scope.cancel()
        self._asked.complete()

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end, at most for `timeout` seconds, as `Thread.join` does, and raise what has failed in it.

        That is what its function has raised; or, if fibers spawned from outside have failed and nobody has asked for
        their errors, an ExceptionGroup of all that.
        """
        if timeout is not None:
            timeout = max(timeout, 0)
        if self._portal is not None and threading.current_thread() is not self and not self._over.wait(timeout, self):
            return
        super().join(timeout)
        if self._over.done and self._error is not None:
            if self._report is not None:
                self._report.error = None
            raise self._error

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop(cancel=error is not None)
        scheduler, cancelled = state.scheduler, None
        if scheduler is None or scheduler.current is None:
            self._over.wait()
        else:
            cancelled = outlast(self._over, scheduler, scheduler.current)
        if not isinstance(error, KeyboardInterrupt | SystemExit):
            self.join()
        if cancelled is not None:
            raise cancelled


class _Over(Completion):
    """The end of a FiberThread, as the end of its block waits for it."""

    __slots__ = ("_thread",)

    def __init__(self, thread: FiberThread) -> None:
        super().__init__()
        self._thread = thread

    def cancel(self) -> None:
        self._thread.stop()

    give_up = cancel


def _unasked(fiber: Fiber[Any]) -> bool:
    report = fiber._report
    return report is not None and report.error is not None


_threads: Final[WeakSet[FiberThread]] = WeakSet()


def _at_exit() -> None:
    """The program ends. Only daemons are left."""
    left = [thread for thread in list(_threads) if thread.is_alive() and thread._portal is not None]
    for thread in left:
        thread.stop()
    for thread in left:
        thread._over.wait(GRACE)
    for thread in list(_threads):
        if thread._report is not None:
            thread._report.publish()


atexit.register(_at_exit)


def _after_fork_in_child() -> None:
    """Threads other than the one that forked are over."""
    for thread in list(_threads):
        if thread is not threading.current_thread():
            _threads.discard(thread)
            thread._over = _Over(thread)
            thread._over.complete()


os.register_at_fork(after_in_child=_after_fork_in_child)
