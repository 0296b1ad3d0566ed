"""Task groups: fibers that begin and end inside one block.

    with fibers.TaskGroup() as group:
        for url in urls:
            group.spawn(fetch, url)

The block is left when every fiber spawned in the group is done, and not before, whatever happens: so no fiber outlives
what it works with, and no error goes unseen. The first failure (of the body or of a fiber) cancels all that is left of
the group; then everything that failed arrives as one ExceptionGroup (PEP 654). What ends by being cancelled or killed has
not failed. KeyboardInterrupt and SystemExit are not wrapped; what else has failed then goes into the log.

A group is a cancel scope (cancel.py): it has a deadline and `cancel()`, and its fibers are inside the scopes that it
stands in. While its owner waits for the end, cancellation is handed on to the fibers, once, and the wait goes on.

The idea is M. Sústrik's and N. J. Smith's ("Notes on structured concurrency"); that a group's errors are always wrapped,
also a single one, makes its callers write one kind of handler.
"""

import sys
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import partial
from types import TracebackType
from typing import Any, Final, TypeVar

from greenlet import GreenletExit

from ..core.cancel import LEFT, CancelScope
from ..core.fiber import Cancellation, Fiber, Report, Scope, cancelling
from ..core.scheduler import Scheduler, get_scheduler, state
from ..core.waitqueue import WaitQueue
from ..errors import Cancelled, DeadlockError, FiberKilled

T = TypeVar("T")

_URGENT: Final = (KeyboardInterrupt, SystemExit)
#: What ends code from outside and is no failure of it: not wrapped, where nothing has failed beside it.
_STOPS: Final = (FiberKilled, GeneratorExit, GreenletExit)


class TaskGroup(CancelScope):
    """A block that waits for the fibers spawned in it: `with TaskGroup() as group`. See the module's text.

    Raises, at its end, a BaseExceptionGroup of what has failed, if anything has. Fibers may be spawned in it by whoever
    is in its thread (its own fibers, too) until it has ended. `name` is for people.
    """

    __slots__ = ("_children", "_ending", "_errors", "_open", "_starting", "_urgent", "name")

    def __init__(self, name: str | None = None) -> None:
        super().__init__()
        self.name = name
        self._open = True
        self._starting: dict[Fiber[Any], _Started] | None = None
        self._children: dict[Fiber[Any], None] = {}  # in the order of spawning
        self._errors: list[BaseException] = []
        self._urgent: BaseException | None = None
        self._ending = WaitQueue()

    def spawn(
        self, fn: Callable[..., T], *args: Any, name: str | None = None, context: Context | None = None, **kwargs: Any
    ) -> Fiber[T]:
        """As `fibers.spawn`, in this group. In a group that is cancelled already the fiber never runs.

        Raises RuntimeError if the group has not been entered, has ended, or belongs to another thread.
        """
        # As in `fibers.spawn`, written out: the fiber must be in the group before anybody can know of it.
        owner = self._fiber
        scheduler = state.scheduler
        if owner is None or not self._open or scheduler is None or owner.scheduler is not scheduler:
            raise self._refuse()
        if not callable(fn):
            raise TypeError(f"spawn() takes a function, not {fn!r}")
        if scheduler.closed:
            raise scheduler.refuse()
        caller = sys._getframe(1)
        current = scheduler.current
        fiber: Fiber[T] = Fiber(
            scheduler,
            partial(fn, **kwargs) if kwargs else fn,
            args,
            context or copy_context(),
            (current or scheduler.main).root,
            caller.f_code,
            caller.f_lasti,
        )
        if context is not None:
            fiber._shared_context = True
            fiber._context = context  # also one without variables, which is false
        if name is not None:
            fiber.name = name
        fiber._parent = self
        self._children[fiber] = None
        scheduler.fibers.add(fiber)
        if current is None:
            scheduler.wake(fiber)
        else:
            scheduler.ready.append(fiber)
        # With the owner in this very scope and nothing to be raised in it, no scope further out is cancelled either.
        if self._cancelled is not None or (
            (owner.interrupt or owner.scope is not self) and cancelling(self) is not None
        ):
            scheduler.ask(scheduler.refresh, fiber, fiber)
        return fiber

    def start(
        self, fn: Callable[..., Any], *args: Any, name: str | None = None, context: Context | None = None, **kwargs: Any
    ) -> Any:
        """Spawn `fn(*args, started=…, **kwargs)` and wait until it calls `started(value)`; returns the value.

        For services: when `start` returns, the listener listens. What the fiber raises before is raised here, and is no
        failure of the group. RuntimeError if it returns without having called `started`; FiberCancelled if it was
        cancelled, and not the caller with it. If this call is interrupted, so is the fiber. `started` may be called
        once, from any thread.
        """
        scheduler = get_scheduler()
        me = scheduler.current
        if me is None:
            raise scheduler.refuse()
        scheduler.check_interrupt(me)
        started = _Started()
        fiber = self.spawn(fn, *args, name=name, context=context, started=started, **kwargs)
        caller = sys._getframe(1)
        fiber._site_code, fiber._site_instruction = caller.f_code, caller.f_lasti
        if self._starting is None:
            self._starting = {}
        self._starting[fiber] = started
        try:
            while not started.called and not fiber._done:
                started.queue.add(me, fiber)
                if (started.called or fiber._done) and started.queue.abandon(me):
                    break
                scheduler.park(me, started.queue)
        except BaseException:
            started.queue.abandon(me)
            del self._starting[fiber]
            if not fiber._done:
                fiber.cancel()
            elif not started.called:
                self._note(fiber)  # it has failed meanwhile, and this call tells of something else
            raise
        del self._starting[fiber]
        if started.called:
            return started.value
        error = fiber._error
        if error is None or isinstance(error, (Cancelled, FiberKilled)):
            scheduler.check_interrupt(me)  # cancelled with the caller
            fiber.result()
            raise RuntimeError(f"fiber {fiber.name!r} ended without having called started()")
        try:
            raise error
        finally:
            del error, fiber  # the traceback refers to this frame

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        me = self._fiber
        if me is None or me.scope is not self or self._scheduler.current is not me:
            return self._leave_misplaced(error)
        ends = None
        if error is not None:
            ends = _Ends()
            ends.add(self, error)
            self._scheduler.ask(self._cancel, None)
        if self._children or self._busy():
            ends = self._wait(self._scheduler, me, ends)
        self._open = False
        parent = self._parent
        me.scope = None if parent is me else parent
        self._fiber = LEFT
        if self._cancelled is not None or self._shield:
            me.look()
        try:
            if ends is None and not self._errors and self._urgent is None:
                return False
            return self._raise(ends or _Ends(), error)
        finally:
            self._parent = None
            del ends, error, traceback, me, parent  # tracebacks refer to this frame, and a fiber to its error

    def _wait(self, scheduler: Scheduler, me: Fiber[Any], ends: "_Ends | None") -> "_Ends | None":
        """Wait until no child is left, whatever comes."""
        ending = self._ending
        try:
            while self._busy():
                if ends is not None:
                    # That it is cancelled has been handed on; a kill comes through. (First down and then up: see `look`.)
                    me.interrupt = False
                    if me._pending:
                        me.interrupt = True
                try:
                    ending.add(me, self)
                    scheduler.park(me, ending)
                except BaseException as late:
                    if isinstance(late, GreenletExit) and scheduler.current is not me:
                        raise  # see `_leave_misplaced`
                    ending.abandon(me)
                    if ends is None:
                        ends = _Ends()
                    ends.add(self, late)
                    # A second deadlock: they are cancelled, and wait for each other behind shields. These must give way.
                    stuck = isinstance(late, DeadlockError) and self._cancelled is not None
                    scheduler.ask(self._cancel, 0.0 if stuck else None)
            return ends
        finally:
            del ends  # the tracebacks of what is in it refer to this frame

    def _busy(self) -> bool:
        """Is there somebody to wait for?"""
        return bool(self._children)

    def _raise(self, ends: "_Ends", error: BaseException | None) -> bool:
        """The end of the block, where something has come in between. True: `error` has been dealt with."""
        errors, self._errors = [*ends.errors, *self._errors], []
        end, self._urgent = self._urgent or ends.urgent, None
        try:
            if end is not None:
                self._drop([*ends.stops, *errors])
            elif errors:
                where = "a task group" if self.name is None else f"task group {self.name!r}"
                raise BaseExceptionGroup(f"unhandled errors in {where}", [*ends.stops, *errors]) from None
            elif ends.stops:
                end = ends.stops[0]
            else:
                end = ends.cancelled
                if end is None or self.catches(end):
                    if end is not None and self._cancelled is not None:
                        self._cancelled.caught = True
                    return True
            if end is error:
                return False
            raise end
        finally:
            del errors, end, ends, error  # their tracebacks refer to this frame

    def _drop(self, errors: list[BaseException]) -> None:
        """Something else is raised, bare; these are not lost."""
        for error in errors:
            Report(f"(in {self!r})", "a task group", error).publish()

    def left(self, fiber: Fiber[Any]) -> None:
        """A child is done. Runtime code; may be called again for the same one."""
        children = self._children
        if (fiber._error is not None or self._starting) and fiber in children:
            self._note(fiber)
        children.pop(fiber, None)
        if not children:
            self._ending.wake_all()

    def _note(self, fiber: Fiber[Any]) -> None:
        """A child has ended, with an error or while it was being started. Keep a failure, and cancel the others."""
        error = fiber._error
        starting = self._starting.get(fiber) if self._starting else None
        if starting is not None and not starting.called:
            starting.queue.wake_all()  # `start` raises it
        elif error is not None and not isinstance(error, (Cancelled, FiberKilled)) and not _is_told(self, error):
            if self._fiber is LEFT:
                Report(fiber.name, fiber.spawned_at, error).publish()  # the block is over: nobody will raise it
                return
            if isinstance(error, _URGENT):
                self._urgent = self._urgent or error
            elif not any(error is known for known in self._errors):
                self._errors.append(error)
            if self._cancelled is None:
                if self._scheduler.current is None:
                    self._cancel(None)  # before any other child runs
                else:
                    self._scheduler.in_runtime(self._cancel, None)

    def forsake(self) -> None:
        self._open = False
        if self._cancelled is None:
            self._cancelled = Cancellation()
        scheduler = self._scheduler
        super().forsake()
        for child in list(self._children):
            scheduler.ask(scheduler.refresh, child, child)

    def __repr__(self) -> str:
        name = "" if self.name is None else f" {self.name!r}"
        told = "cancelled, " if self._cancelled is not None else ""
        return f"<{type(self).__name__}{name} {told}{len(self._children)} fibers left>"

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

    __slots__ = ("cancelled", "errors", "stops", "urgent")

    def __init__(self) -> None:
        self.errors: list[BaseException] = []
        self.stops: list[BaseException] = []
        self.cancelled: BaseException | None = None
        self.urgent: BaseException | None = None

    def add(self, group: TaskGroup, error: BaseException) -> None:
        if isinstance(error, Cancelled) or _is_told(group, error):
            self.cancelled = error
        elif isinstance(error, _URGENT):
            self.urgent = self.urgent or error
        elif isinstance(error, _STOPS):
            self.stops.append(error)
        else:
            self.errors.append(error)


def _is_told(group: TaskGroup, error: BaseException) -> bool:
    """Is this the deadline of a cancelled scope that the group stands in (or its own), in the guise of a timeout?"""
    told = getattr(error, "scope", None) if isinstance(error, TimeoutError) else None
    scope: Scope | None = group
    while scope is not None and told is not None:
        if scope is told:
            return scope._cancelled is not None
        scope = scope._parent
    return False
