"""A fiber as its users hold it: a function that runs, waits, and comes to a result.

A Fiber is data, not a greenlet. `greenlet` is what to switch to for it to go on, or None while it has not started:
one greenlet runs many fibers, one after the other (scheduler.py). It is also the *waiter* of the loops: they append
it to a ready queue and set `outcome`.

How a fiber is interrupted. `interrupt` is the one flag that every blocking call looks at before it waits. Behind it
are one-shot exceptions (`kill`, Ctrl-C for a main fiber) and cancellation, which stays. A fiber that waits is taken
out of its place and raises there. A fiber that has been woken already is left alone, so that what it was woken for is
not lost; its next wait raises. An unstarted fiber never runs.

Cancellation is a matter of *scopes* (cancel.py), which form a tree: the scopes that a fiber has entered, the innermost
first, then the fiber itself (a scope too: `cancel()` cancels it), then the task group it was spawned in, which is a
scope of the group's owner, and so on. A fiber is cancelled where it stands if a scope on that way outwards is, and no
shield stands between. That is looked up whenever a scope changes, not when a fiber waits: waiting costs one flag. If
several scopes on that way are cancelled, the outermost of them is what the fiber is cancelled *by*: it ends there.

Errors nobody looks at are not lost: a failed fiber carries a Report, whose end (the fiber was collected, or the
thread's scheduler shut down) without `result()` or `exception()` having been called logs it. Fibers that succeed pay
nothing for this.
"""

import logging
from collections import deque
from collections.abc import Callable, Collection, Generator
from contextvars import Context
from functools import partial
from types import CodeType
from typing import Any, ClassVar, Final, Generic, Protocol, TypeVar
from weakref import WeakSet

from greenlet import greenlet as Greenlet  # noqa: N812

from ..errors import Cancelled, FiberCancelled, FiberKilled
from ..eventloop.clock import FOREVER
from ..eventloop.timers import Timer
from ..eventloop.waiter import TIMED_OUT, Outcome

_log: Final = logging.getLogger("fibers")

T = TypeVar("T")

#: Outcome of a wait that an interrupter ended: the exception is in the fiber.
INTERRUPTED: Final = Outcome("INTERRUPTED")


class Place(Protocol):
    """Where a fiber waits."""

    def abandon(self, fiber: Any) -> bool:
        """Take the fiber out. True if it was there: the caller must wake it. False: somebody has woken it already."""

    def holds(self, fiber: Any) -> bool:
        """Is it still there?"""


class Cancellation:
    """That a scope is cancelled, and how."""

    __slots__ = ("by_deadline", "caught", "final", "final_at", "grace", "told")

    def __init__(self, by_deadline: bool = False) -> None:
        self.by_deadline = by_deadline
        self.caught = False  # the block was cut short by it
        self.grace: float | None = None  # seconds that shields inside have, counted from the entry of the scope
        self.final_at = FOREVER  # when that is over
        self.final = False  # it is over: shields inside do not help any more
        self.told: WeakSet[Fiber[Any]] | None = None  # who has got it as a timeout: see `surfaces`


class Scope(Protocol):
    """What the runtime needs of a cancel scope. A Fiber is one as well, its own outermost."""

    _cancelled: Cancellation | None
    _shield: bool  # cancellation from further out stops here, unless it is final

    # Read-only here: the types of their values differ.
    @property
    def _parent(self) -> "Scope | None":
        """The next scope outwards."""

    @property
    def _children(self) -> "Collection[Fiber[Any]]":
        """The fibers spawned in it, if it is a task group."""

    def check_deadlines(self, now: float) -> float:
        """Cancel it if its deadline has passed; when to look again."""

    def forsake(self) -> None:
        """It is over, and was never left: its fiber has ended, or has left a scope further out."""


class Group(Scope, Protocol):
    """What the runtime needs of a task group."""

    @property
    def _fiber(self) -> "Fiber[Any] | None":
        """Whose block it is."""

    def left(self, fiber: "Fiber[Any]") -> None:
        """A child is done. Runtime code; may be called again for the same one."""


def cancelling(scope: Scope | None, shielded: bool = False) -> Scope | None:
    """The innermost cancelled scope, from `scope` outwards, whose cancellation is felt here; None: not cancelled."""
    while scope is not None:
        cancelled = scope._cancelled
        if cancelled is not None and (cancelled.final or not shielded):
            return scope
        shielded = shielded or scope._shield
        scope = scope._parent
    return None


def surfaces(me: "Fiber[Any]") -> Scope | None:
    """The scope whose deadline has interrupted a call of this fiber, if the call shall report that as its own timeout.

    That is so once for each scope and fiber, and only if the fiber is cancelled *by* a deadline; else it is Cancelled.
    """
    scope: Scope | None = me.scope or me
    shielded, cause = False, None
    while scope is not None:
        cancelled = scope._cancelled
        if cancelled is not None and (cancelled.final or not shielded):
            cause = scope
        shielded = shielded or scope._shield
        scope = scope._parent
    if cause is None or cause._cancelled is None or not cause._cancelled.by_deadline:
        return None
    told = cause._cancelled.told
    if told is None:
        told = cause._cancelled.told = WeakSet()
    if me in told:
        return None
    told.add(me)
    return cause


def as_timeout(me: "Fiber[Any]", text: str = "timed out") -> TimeoutError | None:
    """What a call that documents a timeout raises in place of the Cancelled that it has got; None: let that pass."""
    scope = surfaces(me)
    if scope is None:
        return None
    error = TimeoutError(text)
    error.scope = scope  # type: ignore[attr-defined]
    return error


def surface(me: "Fiber[Any]", text: str = "timed out") -> None:
    """Raise what `as_timeout` gives, if it gives something; for `except Cancelled: surface(me); raise`.

    (An error that a frame of its own traceback names is a cycle. So the caller does not get to see it.)
    """
    error = as_timeout(me, text)
    try:
        if error is not None:
            raise error from None
    finally:
        del error


class Home(Protocol):
    """What a fiber needs of its scheduler."""

    thread: int
    ready: "deque[Any]"
    current: "Fiber[Any] | None"  # the fiber that runs; None: runtime code does
    closed: bool

    def wake(self, fiber: "Fiber[Any]") -> None: ...
    def cancel(self, fiber: "Fiber[Any]") -> None: ...
    def kill(self, fiber: "Fiber[Any]", error: BaseException) -> None: ...
    def ring(self, fiber: "Fiber[Any]") -> None: ...
    def join(self, fiber: "Fiber[Any]", timeout: float | None) -> None: ...
    def watch_end(self, fiber: "Fiber[Any]", function: "Callable[[Fiber[Any]], object]") -> None: ...
    def finishing(self, fiber: "Fiber[Any]") -> Any: ...


class Report:
    """Stands by an error until somebody retrieves it; logs it otherwise."""

    __slots__ = ("__weakref__", "error", "name", "spawned")

    def __init__(self, name: str, spawned: str, error: BaseException) -> None:
        self.name = name
        self.spawned = spawned
        self.error: BaseException | None = error

    def publish(self) -> None:
        """Log the error if nobody has retrieved it; at most once."""
        error, self.error = self.error, None
        if error is not None:
            _log.error(
                "%s of fiber %r, spawned at %s, was never retrieved",
                type(error).__name__, self.name, self.spawned, exc_info=error,
            )  # fmt: skip

    __del__ = publish


class Fiber(Generic[T]):
    """A function running concurrently with others in its thread. Made by `spawn`.

    Methods may be called from any thread. A fiber, once done, stays done; its result or exception is kept.
    """

    __slots__ = (
        "__weakref__",
        "_args",
        "_cancelled",
        "_context",
        "_done",
        "_ended",
        "_error",
        "_fn",
        "_locals",
        "_name",
        "_parent",
        "_pending",
        "_permit",
        "_report",
        "_result",
        "_shared_context",
        "_site_code",
        "_site_instruction",
        "alarm",
        "deadline",
        "firm",
        "greenlet",
        "handed",
        "home",
        "interrupt",
        "outcome",
        "root",
        "scheduler",
        "scope",
        "since",
        "timer",
        "waiting",
    )

    # Assigned when first needed, not in __init__, which stands on the path of every spawn: `deadline` by waits for files,
    # `since` by each wait, `home` (the carrier) at the start, `_result` at the end, `handed` by channels (channel.py) and
    # givers (waitqueue.py), `_locals` by local.py.
    _result: T
    _locals: object  # stands for the fiber's own values; let go at its end
    handed: Any  # what it was given in a wait
    deadline: float
    since: float  # when it began to wait, to the turn of the loop: of the last wait
    home: Greenlet | None

    def __init__(
        self,
        scheduler: Home,
        fn: Callable[..., T],
        args: tuple[Any, ...],
        context: Context,
        root: object,
        code: CodeType | None,
        instruction: int,
    ) -> None:
        self.scheduler = scheduler
        self._fn: Callable[..., T] = fn  # kept when it is done, for its name; the arguments are not
        self._args: tuple[Any, ...] | None = args
        self._context: Context | None = context
        self.root = root
        self._site_code = code
        self._site_instruction = instruction
        self._name: str | None = None
        self._shared_context = self.interrupt = self._done = self._permit = False
        self.firm = False  # its waits are not interrupted
        self._cancelled: Cancellation | None = None
        self.greenlet: Greenlet | None = None
        self.outcome: Outcome | None = None
        self.scope: Scope | None = None  # the innermost one that it is in
        self._parent: Group | None = None  # the task group that it was spawned in
        self.alarm: Timer | None = None  # no later than the earliest deadline of its scopes
        self.waiting: Place | None = None
        self.timer: Timer | None = None  # of the current wait, where it has one of its own
        self._pending: deque[BaseException] | None = None
        self._error: BaseException | None = None
        self._report: Report | None = None
        self._ended: Any = None  # who waits for the end: made by the scheduler when first needed

    # -- what users see -----------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The name given to `spawn`, else that of the function."""
        if self._name is not None:
            return self._name
        fn = self._fn
        if isinstance(fn, partial):
            fn = fn.func  # where there were keywords
        name = getattr(fn, "__qualname__", None)
        return name if isinstance(name, str) else type(fn).__name__

    @name.setter
    def name(self, name: str) -> None:
        self._name = str(name)

    #: Not a Standby (standby.py).
    stands_by = False

    # A fiber as the outermost of its scopes: see `Scope`.
    _shield = False
    _children: tuple[()] = ()

    def check_deadlines(self, now: float) -> float:
        return FOREVER

    def forsake(self) -> None:
        """A fiber is in no scope's list."""

    @property
    def spawned_at(self) -> str:
        """Where it was spawned, as `file:line in function`."""
        code = self._site_code
        if code is None:
            return "the start of its thread"
        line = code.co_firstlineno
        for start, end, number in code.co_lines():
            if start <= self._site_instruction < end and number is not None:
                line = number
        return f"{code.co_filename}:{line} in {code.co_qualname}"

    def done(self) -> bool:
        """True once the function has returned, raised, or will never run."""
        return self._done

    def cancelled(self) -> bool:
        """True if it ended by cancellation or by `kill()`: `result()` raises FiberCancelled."""
        return self._done and isinstance(self._error, (Cancelled, FiberKilled))

    def join(self, timeout: float | None = None) -> None:
        """Wait until it is done. Raises TimeoutError after `timeout` seconds (>= 0; None: no limit).

        Joining does not retrieve an error; `result()` and `exception()` do.
        """
        if not self._done:
            self.scheduler.join(self, timeout)

    def result(self, timeout: float | None = None) -> T:
        """Wait until it is done and return what its function returned, or raise what it raised.

        Raises FiberCancelled if it was cancelled or killed, TimeoutError if it is not done after `timeout` seconds.
        """
        error = self.exception(timeout)
        if error is None:
            return self._result
        try:
            raise error
        finally:
            del error, self  # the traceback refers to this frame

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait until it is done and return what `result()` would raise, or None. Timeout as in `join`."""
        if not self._done:
            self.scheduler.join(self, timeout)
        error = self._error
        if error is None:
            return None
        if self._report is not None:
            self._report.error = None
            self._report = None
        if isinstance(error, (Cancelled, FiberKilled, KeyboardInterrupt, SystemExit)):
            ended = FiberCancelled(f"fiber {self.name!r} ended by {type(error).__name__}")
            ended.__cause__ = error
            return ended
        return error

    def finishing(self) -> Any:
        """For `select`: the case that it is done, however it ended. Its value is the fiber."""
        return self.scheduler.finishing(self)

    def cancel(self) -> None:
        """Ask it to stop: Cancelled is raised at its current and every further blocking call.

        As if all its code stood in a CancelScope that is cancelled: also what was spawned in its task groups stops, and a
        `shield()` holds. A fiber that has not started never runs. A call that completes without waiting is not disturbed.
        Nothing happens if it is done. Returns at once; `join()` waits for the end.
        """
        self.scheduler.cancel(self)

    def kill(self, exc: BaseException | type[BaseException] = FiberKilled) -> None:
        """Raise `exc` in it, once, at its current or next blocking call. Otherwise as `cancel`."""
        if isinstance(exc, type) and issubclass(exc, BaseException):
            exc = exc()
        if not isinstance(exc, BaseException):
            raise TypeError(f"kill() takes an exception or an exception class, not {exc!r}")
        self.scheduler.kill(self, exc)

    def add_done_callback(self, fn: "Callable[[Fiber[T]], object]") -> None:
        """Have `fn(fiber)` called in the fiber's thread when it is done, or at once (there) if it is.

        The callback runs inside the scheduler and must not block: blocking calls in it raise RuntimeError. What it
        raises is logged.
        """
        if not callable(fn):
            raise TypeError(f"add_done_callback() takes a function, not {fn!r}")
        self.scheduler.watch_end(self, fn)

    #: How a coroutine waits for a fiber: `fibers.asyncio` puts this here.
    awaiter: ClassVar[Callable[["Fiber[Any]"], Generator[Any, Any, Any]] | None] = None

    def __await__(self) -> "Generator[Any, Any, T]":
        """In a coroutine, `await fiber`: wait until it is done, as `result()` does in a fiber. See docs/asyncio.md.

        Raises RuntimeError if `fibers.asyncio` has not been imported, or if the coroutine's loop holds up the fiber.
        """
        if Fiber.awaiter is None:
            raise RuntimeError("to await a fiber takes the bridge to asyncio: import fibers.asyncio first")
        return Fiber.awaiter(self)

    def __repr__(self) -> str:
        if self._done:
            state = "done" if self._error is None else f"ended by {type(self._error).__name__}"
        elif self.greenlet is None:
            state = "not started"
        else:
            state = "cancelled, running" if self._cancelled else "running"
        return f"<Fiber {self.name!r} {state} at {id(self):#x}>"

    # -- what the runtime sees ----------------------------------------------------------------------------------

    def expire(self, timer: Timer) -> None:
        """The timer of the current wait, or the alarm, has passed (loops call this)."""
        if timer is self.timer:
            place = self.waiting
            if place is not None and place.abandon(self):
                self.outcome = TIMED_OUT
                self.scheduler.ready.append(self)
            self.timer = None  # last: if a signal handler raises before, the loop calls again
        elif timer is self.alarm:
            self.scheduler.ring(self)

    def interruption(self) -> BaseException | None:
        """What to raise at a blocking call while `interrupt` is set. Takes one one-shot exception, if there is one.

        None: there is nothing. A signal handler has raised in here, after taking the exception and before clearing the flag;
        what it has raised came in place of that.
        """
        if self._pending:
            error = self._pending.popleft()
            self.look()
            return error
        if cancelling(self.scope or self) is None:
            self.interrupt = False
            return None
        return Cancelled(f"fiber {self.name!r} was cancelled")

    def interrupted(self) -> None:
        """Raise that; returns if there is nothing."""
        error = self.interruption()
        if error is not None:
            try:
                raise error
            finally:
                del error  # the traceback refers to this frame

    def look(self) -> None:
        """Set `interrupt` anew. (First down and then up: what a signal handler has for it meanwhile is not lost.)"""
        self.interrupt = False
        if self._pending or cancelling(self.scope or self) is not None:
            self.interrupt = True

    def leave_scopes(self, scope: Scope) -> None:
        """It stands in `scope` (itself: in none) from now on; those further in were never left, and are over."""
        inner = self.scope
        while inner is not None and inner is not scope:
            outer = inner._parent
            inner.forsake()
            inner = outer
        self.scope = None if scope is self else scope
