"""Cancel scopes: a block of code that can be told to stop, by a deadline or by anybody.

    with fibers.timeout(5):              TimeoutError after 5 seconds
    with fibers.move_on_after(5):        go on behind the block after 5 seconds
    with fibers.CancelScope() as scope:  scope.cancel() from anywhere
    with fibers.shield():                cancellation from further out waits until here

Cancellation is level-triggered: inside a cancelled scope every blocking call raises Cancelled, again and again, until
the scope is left. There it ends, unless a scope further out is cancelled too. Scopes nest, and a task group is one: what
is spawned in a group is inside all scopes that the group is inside (fiber.py has the tree). A fiber spawned by plain
`spawn` is not: it outlives the block, and the block's deadline is not its own.

Deadlines cost nothing per call. Each fiber has one timer for all its scopes, no later than their earliest deadline; it
is left behind when the scope is left, and looks again when it fires. So a scope entered over and over again, as around
each request of a server, does not touch the timers.

Code that was not written to be cancelled. Drivers handle the timeout error of a socket, and nothing else that may
strike between two bytes of an exchange. So a *deadline* that hits a socket operation, or a call that was given a timeout
of its own, surfaces there as the timeout that this call documents: once for each scope and fiber. Every further call
raises Cancelled, so that a loop which tries again after a timeout ends too. Such an error is the scope's: it may leave
the block bare, or as the cause of an error that a driver has made of it.

The ideas are those of trio (N. J. Smith, "Timeouts and cancellation for humans"); the grace for shields is its issue 147.
"""

from types import TracebackType
from typing import Any, Self

from greenlet import GreenletExit

from .errors import Cancelled
from .eventloop.clock import FOREVER
from .fiber import Cancellation, Fiber, Scope, cancelling
from .scheduler import Scheduler, check_seconds, get_scheduler, state


class CancelScope:
    """A block that can be cancelled: `with CancelScope() as scope`. See the module's text.

    It is cancelled at `deadline`, a time in seconds on the clock of `current_time()`; infinity: never. With `shield`,
    cancellation from further out does not reach inside. It is entered once, by one fiber. `cancel()` may be called from
    any thread, also before it is entered; everything else is for the thread of its fiber.
    """

    __slots__ = ("_cancelled", "_deadline", "_fiber", "_parent", "_scheduler", "_seconds", "_shield")

    _children: Any = ()
    _raises = False
    _parent: Scope
    _scheduler: Scheduler  # this and `_parent` from the entry on

    def __init__(self, *, deadline: float = FOREVER, shield: bool = False) -> None:
        self._deadline = deadline if deadline == FOREVER else _check_time(deadline)
        self._seconds: float | None = None  # where the deadline counts from the entry
        self._shield = shield
        self._cancelled: Cancellation | None = None
        self._fiber: Fiber[Any] | None = None  # who has entered it

    @property
    def deadline(self) -> float:
        """When it is cancelled, in seconds on the clock of `current_time()`. May be changed; a passed one stays passed."""
        return self._deadline

    @deadline.setter
    def deadline(self, deadline: float) -> None:
        self._deadline = _check_time(deadline)
        self._seconds = None
        self._ask(self._rearm)

    @property
    def shield(self) -> bool:
        """Does cancellation from further out stop here? May be changed."""
        return self._shield

    @shield.setter
    def shield(self, shield: bool) -> None:
        self._shield = bool(shield)
        self._ask(self._rearm)

    @property
    def cancel_called(self) -> bool:
        """Has `cancel()` been called, or has the deadline passed?"""
        if self._cancelled is None and self._fiber is not None and self._deadline <= self._scheduler.loop.clock():
            self._ask(self._rearm)
        return self._cancelled is not None

    @property
    def cancelled_caught(self) -> bool:
        """Was the block cut short by this scope, and by none further out? Of interest once it has been left."""
        return self._cancelled is not None and self._cancelled.caught

    def cancel(self, grace: float | None = None) -> None:
        """Cancel the block. Any thread.

        Shields inside it protect what they enclose for `grace` seconds (>= 0) more; None: for as long as that takes. A
        second call can only shorten the grace.
        """
        if grace is not None:
            check_seconds("grace", grace)
        if self._fiber is None:
            cancellation = Cancellation()
            cancellation.grace = grace
            self._cancelled = cancellation
        self._ask(self._cancel, grace)

    def __enter__(self) -> Self:
        scheduler = state.scheduler
        if scheduler is None:
            scheduler = get_scheduler()
        me = scheduler.current
        if me is None:
            raise scheduler.refuse()
        if self._fiber is not None:
            raise RuntimeError(f"{self!r} has been entered before; make a new one for each block")
        self._parent = me.scope or me
        self._scheduler = scheduler
        self._fiber = me
        me.scope = self
        seconds = self._seconds
        if seconds is not None:
            deadline = self._deadline = scheduler.loop.clock() + seconds
            if seconds == 0 or me.alarm is None or deadline < me.alarm.deadline or self._shield:
                scheduler.in_runtime(self._begin)
        elif self._shield or self._deadline < FOREVER:
            scheduler.in_runtime(self._begin)
        if self._cancelled is not None:
            scheduler.in_runtime(self._begin)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        me = self._fiber
        if me is None or me.scope is not self or self._scheduler.current is not me:
            return self._not_innermost(error)
        parent = self._parent
        me.scope = None if parent is me else parent
        cancelled = self._cancelled
        if cancelled is not None or self._shield:
            self._scheduler.refresh(me)
        if error is None or cancelled is None or not self.catches(error):
            return False
        cancelled.caught = True
        if self._raises and cancelled.by_deadline:
            raise TimeoutError(self._complaint()) from error
        return True

    # -- the runtime's side -------------------------------------------------------------------------------------

    def _ask(self, function: Any, *args: object) -> None:
        """Have something done in the thread of its fiber, if it has one."""
        fiber = self._fiber
        if fiber is not None and not fiber._done:
            self._scheduler.ask(function, *args)

    def _begin(self) -> None:
        """It has been entered, and something about it is special."""
        if self._cancelled is not None:
            self._cancel(self._cancelled.grace)
        else:
            self._rearm()

    def _cancel(self, grace: float | None) -> None:
        if self._cancelled is None:
            self._cancelled = Cancellation()
        if grace is not None:
            self._cancelled.final_at = min(self._cancelled.final_at, self._scheduler.loop.clock() + grace)
        self._rearm()

    def _rearm(self) -> None:
        """Something about it has changed."""
        fiber = self._fiber
        assert fiber is not None
        scheduler = self._scheduler
        next_look = self.check_deadlines(scheduler.loop.clock())
        if next_look < FOREVER and (fiber.alarm is None or next_look < fiber.alarm.deadline):
            scheduler.set_alarm(fiber, next_look)
        scheduler.refresh(fiber)

    def check_deadlines(self, now: float) -> float:
        """Do what is due. When to look again."""
        cancelled = self._cancelled
        if cancelled is None:
            if self._deadline > now:
                return self._deadline
            cancelled = self._cancelled = Cancellation(by_deadline=True)
        if not cancelled.final and cancelled.final_at <= now:
            cancelled.final = True
        return FOREVER if cancelled.final else cancelled.final_at

    def _not_innermost(self, error: BaseException | None) -> bool:
        """The block is being left where that cannot be."""
        if isinstance(error, GreenletExit):
            return False  # the greenlet of a fiber that nobody can resume is being deallocated, in whatever runs now
        if self._fiber is None:
            where = "was never entered"
        else:
            where = f"was entered in {self._fiber!r}, whose innermost scope is {self._fiber.scope!r}"
        raise RuntimeError(
            f"{self!r} is left by another fiber or out of order: it {where}; scopes are left in the reverse order of "
            "entering (a generator that yields inside of one breaks this)"
        )

    def catches(self, error: BaseException) -> bool:
        """Is this error, which is leaving the block, the cancellation by this scope?"""
        if isinstance(error, Cancelled):
            return cancelling(self._parent, self._shield) is None
        by_deadline = self._cancelled is not None and self._cancelled.by_deadline
        return by_deadline and is_timeout_of(self, error, self._raises)

    def _complaint(self) -> str:
        seconds = self._seconds
        return "the deadline has passed" if seconds is None else f"not done within {seconds} seconds"

    def __repr__(self) -> str:
        if self._cancelled is not None:
            told = "cancelled"
        else:
            told = "no deadline" if self._deadline == FOREVER else f"deadline {self._deadline:.3f}"
        return f"<{type(self).__name__}{' shield' if self._shield else ''} {told} at {id(self):#x}>"


class move_on_after(CancelScope):  # noqa: N801 - read as a verb
    """A scope that is cancelled `seconds` (>= 0; None: never) after it is entered. The block ends, and all is well.

    Afterwards `cancelled_caught` tells whether that has happened. Raises TypeError or ValueError for bad seconds.
    """

    __slots__ = ()

    def __init__(self, seconds: float | None, *, shield: bool = False) -> None:
        # Not by super().__init__(): a scope is made for each request of a server.
        self._deadline = FOREVER
        self._shield = shield
        self._cancelled = self._fiber = self._seconds = None
        if seconds is not None and check_seconds("seconds", seconds) < FOREVER:
            self._seconds = seconds


class timeout(move_on_after):  # noqa: N801 - read as a verb
    """As `move_on_after`, and raises TimeoutError where that goes on."""

    __slots__ = ()

    _raises = True


def move_on_at(deadline: float) -> CancelScope:
    """As `move_on_after`, with a time in seconds on the clock of `current_time()`."""
    return CancelScope(deadline=deadline)


def timeout_at(deadline: float) -> CancelScope:
    """As `timeout`, with a time in seconds on the clock of `current_time()`."""
    scope = timeout(None)
    scope._deadline = _check_time(deadline)
    return scope


def shield() -> CancelScope:
    """A block that cancellation from further out does not reach, until it is over (or the grace of `cancel()` is)."""
    return CancelScope(shield=True)


def current_deadline() -> float:
    """The earliest deadline that holds here, on the clock of `current_time()`. Infinity: none; minus infinity: cancelled.

    For code that hands it on (to a server, to a child process); calls inside the scope obey it anyway.
    """
    scheduler = get_scheduler()
    me = scheduler.current
    if me is None:
        raise scheduler.refuse()
    scope: Scope | None = me.scope
    if cancelling(scope or me) is not None:
        return -FOREVER
    earliest = FOREVER
    while scope is not None:
        if isinstance(scope, CancelScope):
            earliest = min(earliest, scope._deadline)
        if scope._shield:
            break
        scope = scope._parent
    return earliest


# -- for calls that document a timeout ------------------------------------------------------------------------------


def surfaces(me: Fiber[Any]) -> CancelScope | None:
    """The scope whose deadline has interrupted a call of this fiber, if the call shall report that as its own timeout.

    That is so once for each scope; what follows is Cancelled.
    """
    scope = cancelling(me.scope or me)
    if (
        isinstance(scope, CancelScope)
        and scope._cancelled is not None
        and scope._cancelled.by_deadline
        and (getattr(me, "_told", None) is not scope)
    ):
        me._told = scope
        return scope
    return None


def as_timeout(me: Fiber[Any]) -> TimeoutError | None:
    """What a socket operation raises in place of the Cancelled that it has got; None: let that pass."""
    scope = surfaces(me)
    if scope is None:
        return None
    error = TimeoutError("timed out")
    error.scope = scope  # type: ignore[attr-defined]
    return error


def is_timeout_of(scope: CancelScope | None, error: BaseException | None, deep: bool) -> bool:
    """Is this error the timeout as which the scope's deadline (None: any scope's) has surfaced?

    `deep`: or one that was raised because of it, as drivers do, or a group of nothing else.
    """
    seen = 0
    while error is not None and seen < 100:  # chains made by hand may be circles
        if isinstance(error, TimeoutError) and (found := getattr(error, "scope", None)) is not None:
            return scope is None or found is scope
        if not deep:
            return False
        if isinstance(error, BaseExceptionGroup):
            return all(is_timeout_of(scope, each, deep) for each in error.exceptions)
        error = error.__cause__ or error.__context__
        seen += 1
    return False


def _check_time(deadline: float) -> float:
    try:
        usable = deadline == deadline  # not NaN
        deadline < FOREVER  # noqa: B015 - a number?
    except TypeError:
        usable = False
    if not usable:
        raise ValueError(f"a deadline is a time in seconds on the clock of current_time(), not {deadline!r}")
    return deadline
