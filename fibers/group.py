"""Task groups: fibers that begin and end inside one block.

    with fibers.TaskGroup() as group:
        for url in urls:
            group.spawn(fetch, url)

The block is left when every fiber spawned in the group is done, and not before, whatever happens: so no fiber outlives
what it works with, and no error goes unseen. The first failure (of the body or of a fiber) cancels all that is left of
the group; then everything that failed arrives as one ExceptionGroup (PEP 654). What ends by being cancelled or killed has
not failed. KeyboardInterrupt and SystemExit are not wrapped.

A group is a cancel scope (cancel.py): it has a deadline and `cancel()`, and its fibers are inside the scopes that it
stands in. While its owner waits for the end, cancellation is handed on to the fibers, once, and the wait goes on.

The idea is M. Sústrik's and N. J. Smith's ("Notes on structured concurrency"); that a group's errors are always wrapped,
also a single one, makes its callers write one kind of handler.
"""

import sys
from collections.abc import Callable
from contextvars import Context
from types import TracebackType
from typing import Any, Final, TypeVar

from greenlet import GreenletExit

from .cancel import CancelScope, is_timeout_of
from .errors import Cancelled, FiberKilled
from .fiber import Fiber, cancelling
from .runtime import spawn
from .scheduler import Scheduler, get_scheduler, state
from .waitqueue import WaitQueue

T = TypeVar("T")

_URGENT: Final = (KeyboardInterrupt, SystemExit, GeneratorExit)


class TaskGroup(CancelScope):
    """A block that waits for the fibers spawned in it: `with TaskGroup() as group`. See the module's text.

    Raises, at its end, a BaseExceptionGroup of what has failed, if anything has. Fibers may be spawned in it by whoever
    is in its thread (its own fibers, too) until it has ended. `name` is for people.
    """

    __slots__ = ("_children", "_ending", "_errors", "_open", "_starting", "name")

    def __init__(self, name: str | None = None) -> None:
        super().__init__()
        self.name = name
        self._open = True
        self._starting: dict[Fiber[Any], _Started] | None = None
        self._children: set[Fiber[Any]] = set()
        self._errors: list[BaseException] = []
        self._ending = WaitQueue()

    def spawn(
        self, fn: Callable[..., T], *args: Any, name: str | None = None, context: Context | None = None, **kwargs: Any
    ) -> Fiber[T]:
        """As `fibers.spawn`, in this group. In a group that is cancelled already the fiber never runs.

        Raises RuntimeError if the group has not been entered, has ended, or belongs to another thread.
        """
        owner = self._fiber
        if owner is None or not self._open or state.scheduler is not self._scheduler:
            raise self._refuse()
        fiber = spawn(fn, *args, name=name, context=context, **kwargs)
        caller = sys._getframe(1)
        fiber._site_code, fiber._site_instruction = caller.f_code, caller.f_lasti
        fiber._parent = self
        self._children.add(fiber)
        if owner.interrupt or self._cancelled is not None:
            self._scheduler.ask(self._scheduler.refresh, fiber)
        return fiber

    def start(self, fn: Callable[..., Any], *args: Any, name: str | None = None, **kwargs: Any) -> Any:
        """Spawn `fn(*args, started=…, **kwargs)` and wait until it calls `started(value)`; returns the value.

        For services: when `start` returns, the listener listens. What the fiber raises before is raised here, and is no
        failure of the group. RuntimeError if it returns without having called `started`; FiberCancelled if it was
        cancelled. If this call is interrupted, so is the fiber.
        """
        scheduler = get_scheduler()
        me = scheduler.current
        if me is None:
            raise scheduler.refuse()
        started = _Started()
        fiber = self.spawn(fn, *args, name=name, started=started, **kwargs)
        caller = sys._getframe(1)
        fiber._site_code, fiber._site_instruction = caller.f_code, caller.f_lasti
        if self._starting is None:
            self._starting = {}
        self._starting[fiber] = started
        try:
            while not started.called and not fiber._done:
                started.queue.add(me, fiber)
                scheduler.park(me, started.queue)
        except BaseException:
            started.queue.abandon(me)
            fiber.cancel()
            raise
        finally:
            self._starting.pop(fiber, None)
        if not started.called:
            fiber.result()
            raise RuntimeError(f"fiber {fiber.name!r} ended without having called started()")
        return started.value

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        me = self._fiber
        if me is None or me.scope is not self or self._scheduler.current is not me:
            return self._not_innermost(error)
        ends = None
        if error is not None:
            ends = _Ends()
            ends.add(self, error)
            self._scheduler.ask(self._cancel, None)
        if self._children:
            ends = self._wait(self._scheduler, me, ends)
        self._open = False
        parent = self._parent
        me.scope = None if parent is me else parent
        if self._cancelled is not None or self._shield:
            self._scheduler.refresh(me)
        if ends is None and not self._errors:
            return False
        return self._raise(ends or _Ends(), error)

    def _wait(self, scheduler: Scheduler, me: Fiber[Any], ends: "_Ends | None") -> "_Ends | None":
        """Wait until no child is left, whatever comes."""
        ending = self._ending
        while self._children:
            if ends is not None:
                me.interrupt = bool(me._pending)  # that it is cancelled has been handed on; a kill comes through
            try:
                ending.add(me, self)
                scheduler.park(me, ending)
            except GreenletExit:
                raise
            except BaseException as late:
                ending.abandon(me)
                if ends is None:
                    ends = _Ends()
                ends.add(self, late)
                scheduler.ask(self._cancel, None)
        return ends

    def _raise(self, ends: "_Ends", error: BaseException | None) -> bool:
        """The end of the block, where something has come in between. True: `error` has been dealt with."""
        errors = [*ends.errors, *self._errors]
        self._errors.clear()
        try:
            if ends.urgent is not None:
                if ends.urgent is error:
                    return False
                raise ends.urgent
            if errors:
                where = "a task group" if self.name is None else f"task group {self.name!r}"
                raise BaseExceptionGroup(f"unhandled errors in {where}", errors) from None
            cancelled = ends.cancelled
            if cancelled is None or self.catches(cancelled):
                if cancelled is not None and self._cancelled is not None:
                    self._cancelled.caught = True
                return True
            if cancelled is error:
                return False
            raise cancelled
        finally:
            del errors, ends, error  # their tracebacks refer to this frame

    def left(self, fiber: Fiber[Any]) -> None:
        """A child is done. Runtime code; may be called again for the same one."""
        if fiber not in self._children:
            return
        error = fiber._error
        starting = self._starting.get(fiber) if self._starting else None
        if starting is not None:
            starting.queue.wake_all()
        elif error is not None and not isinstance(error, (Cancelled, FiberKilled)) and not _is_told(self, error):
            if not isinstance(error, _URGENT) and not any(error is known for known in self._errors):
                self._errors.append(error)
            if self._cancelled is None:
                self._cancel(None)
        self._children.discard(fiber)
        if not self._children:
            self._ending.wake_all()

    def __repr__(self) -> str:
        name = "" if self.name is None else f" {self.name!r}"
        told = "cancelled, " if self._cancelled is not None else ""
        return f"<TaskGroup{name} {told}{len(self._children)} fibers left>"

    def _refuse(self) -> RuntimeError:
        what = "a task group" if self.name is None else f"task group {self.name!r}"
        if self._fiber is None:
            return RuntimeError(f"{what} has not been entered: use it as `with TaskGroup() as group`")
        if not self._open:
            return RuntimeError(f"{what} has ended; nothing can be spawned in it any more")
        return RuntimeError(f"{what} belongs to thread {self._scheduler.thread}; spawn in it from there only")


class _Started:
    """What `start` hands to its fiber."""

    __slots__ = ("called", "queue", "value")

    def __init__(self) -> None:
        self.called = False
        self.value: Any = None
        self.queue = WaitQueue()

    def __call__(self, value: Any = None) -> None:
        if self.called:
            raise RuntimeError("started() was called before")
        self.value = value
        self.called = True
        self.queue.wake_all()


class _Ends:
    """What the owner of a group has met with, in the block or while it waited for the end."""

    __slots__ = ("cancelled", "errors", "urgent")

    def __init__(self) -> None:
        self.errors: list[BaseException] = []
        self.cancelled: BaseException | None = None
        self.urgent: BaseException | None = None

    def add(self, group: TaskGroup, error: BaseException) -> None:
        if isinstance(error, Cancelled) or _is_told(group, error):
            self.cancelled = error
        elif isinstance(error, _URGENT):
            self.urgent = error
        else:
            self.errors.append(error)


def _is_told(group: TaskGroup, error: BaseException) -> bool:
    """Is this the deadline of a scope that the group stands in, in the guise of a timeout?"""
    return is_timeout_of(None, error, deep=False) and cancelling(group) is not None
