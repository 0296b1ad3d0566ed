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

Scopes form a stack in each fiber. A generator that yields inside of one can break that: then its scope and the caller's
are not left in the reverse order of entering. A block that is left out of order takes the scopes further in with it, and
says so with a RuntimeError, unless an error is on its way already.

The ideas are those of trio (N. J. Smith, "Timeouts and cancellation for humans"); the grace for shields is its issue 147.
"""

from types import TracebackType
from typing import Any, Final, Self

from greenlet import GreenletExit

from ..errors import Cancelled
from ..eventloop.clock import FOREVER
from .fiber import Cancellation, Fiber, Scope, cancelling
from .fiber import as_timeout as as_timeout
from .fiber import surface as surface
from .fiber import surfaces as surfaces
from .scheduler import check_seconds, get_scheduler, state


def unsurface(me: Fiber[Any], error: BaseException) -> None:
    """The timeout that a call has got from `surface` is not passed on: the next call is to get it."""
    scope = getattr(error, "scope", None)
    if isinstance(error, TimeoutError) and scope is not None and scope._cancelled.told is not None:
        scope._cancelled.told.discard(me)


class _Left:
    """Stands for the fiber of a scope that has been left: nothing is asked of it any more."""

    _done = True
    scope = None


LEFT: Final[Any] = _Left()

#: How many errors `is_timeout_of` looks at before it takes a chain for a circle.
_LONGEST_CHAIN: Final = 10_000


class CancelScope:
    """A block that can be cancelled: `with CancelScope() as scope`. See the module's text.

    It is cancelled at `deadline`, a time in seconds on the clock of `current_time()`; infinity: never. With `shield`,
    cancellation from further out does not reach inside. It is entered once, by one fiber. `cancel()` may be called from
    any thread, also before it is entered; everything else is for the thread of its fiber. Once it has been left nothing
    changes it any more. Raises TypeError or ValueError for a bad deadline.
    """

    __slots__ = ("_cancelled", "_deadline", "_fiber", "_parent", "_seconds", "_shield")

    _children: Any = ()
    _raises = False
    _parent: Scope | None  # from the entry on

    def __init__(self, *, deadline: float = FOREVER, shield: bool = False) -> None:
        self._deadline = deadline if deadline == FOREVER else _check_time(deadline)
        self._seconds: float | None = None  # where the deadline counts from the entry
        self._shield = shield
        self._cancelled: Cancellation | None = None
        self._fiber: Fiber[Any] | None = None  # who has entered it; LEFT afterwards

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
        """Has `cancel()` been called, or has the deadline passed before the block was left?"""
        fiber: Any = self._fiber
        inside = fiber is not None and not fiber._done
        if inside and self._cancelled is None and self._deadline <= fiber.scheduler.loop.clock():
            self._ask(self._rearm)
        return self._cancelled is not None

    @property
    def cancelled_caught(self) -> bool:
        """Was the block cut short by this scope, and by none further out? Of interest once it has been left."""
        return self._cancelled is not None and self._cancelled.caught

    def cancel(self, grace: float | None = None) -> None:
        """Cancel the block. Any thread. Nothing happens if it has been left.

        Shields inside it protect what they enclose for `grace` seconds (>= 0) more; None: for as long as that takes. A
        second call can only shorten the grace. Before the block is entered: it will be cancelled from its beginning on,
        and the grace counts from there. Raises TypeError or ValueError for a bad grace.
        """
        if grace is not None:
            check_seconds("grace", grace)
        if self._fiber is None:
            early = self._cancelled or Cancellation()
            if grace is not None and (early.grace is None or grace < early.grace):
                early.grace = grace
            self._seconds, self._cancelled = None, early
        self._ask(self._cancel, grace)  # also then: another thread may have entered it meanwhile

    def __enter__(self) -> Self:
        scheduler = state.scheduler
        if scheduler is None:
            scheduler = get_scheduler()
        me = scheduler.current
        if me is None:
            raise scheduler.refuse()
        if self._fiber is not None:
            raise RuntimeError(f"{self!r} has been entered before; make a new one for each block")
        outer = me.scope
        self._parent = me if outer is None else outer
        self._fiber = me
        me.scope = self
        seconds = self._seconds
        if seconds is not None:
            self._deadline = deadline = scheduler.loop.clock() + seconds
            alarm = me.alarm
            if alarm is not None and alarm.deadline <= deadline and not self._shield:
                return self  # the alarm that is set will look
        if self._deadline < FOREVER or self._cancelled is not None or (self._shield and me.interrupt):
            scheduler.in_runtime(self._begin)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        me = self._fiber
        if me is None or me.scope is not self or me.scheduler.current is not me:
            return self._leave_misplaced(error)
        parent = self._parent
        me.scope = None if parent is me else parent
        self._fiber = LEFT
        cancelled = self._cancelled
        if cancelled is None:
            if self._shield:
                me.look()
            return False
        me.look()
        caught = error is not None and self.catches(error)
        self._parent = None  # errors refer to this scope, and fibers to their errors
        if not caught:
            return False
        cancelled.caught = True
        if self._raises and cancelled.by_deadline:
            raise TimeoutError(self._complaint()) from error
        return True

    @property
    def _scheduler(self) -> Any:
        """Of the fiber that is in it."""
        fiber = self._fiber
        return None if fiber is None else fiber.scheduler

    # -- the runtime's side -------------------------------------------------------------------------------------

    def _ask(self, function: Any, *args: object) -> None:
        """Have something done in the thread of its fiber, if it is in it. Any thread: it may be left at this moment."""
        fiber: Any = self._fiber
        if fiber is not None and not fiber._done:
            fiber.scheduler.ask(self._if_inside, function, args)

    def _if_inside(self, function: Any, args: tuple[object, ...]) -> None:
        fiber = self._fiber
        if fiber is not None and not fiber._done:
            function(*args)

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
        scheduler.refresh(fiber, self)

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

    def forsake(self) -> None:
        self._fiber = LEFT
        self._parent = None

    def _leave_misplaced(self, error: BaseException | None) -> bool:
        """The block is being left where that cannot be. Make the best of it."""
        me: Any = self._fiber
        here = state.scheduler
        current = None if here is None else here.current
        if isinstance(error, GreenletExit) and current is not me:
            return False  # the greenlet of a fiber that nobody can resume is being deallocated, in whatever runs now
        if me is None:
            where = "was never entered"
        else:
            where = "had been left before" if me is LEFT else f"was entered in {me!r}, innermost there is {me.scope!r}"
        problem = RuntimeError(
            f"{self!r} is left by another fiber or out of order: it {where}; scopes are left in the reverse order of "
            "entering (a generator that yields inside of one breaks this)"
        )
        try:
            if current is not None and current is me and _encloses(self, current):
                current.leave_scopes(self)
                current.look()
                if error is not None:
                    return self.__exit__(type(error), error, None)
                self.__exit__(RuntimeError, problem, None)
            elif me is not None and me is not LEFT:
                self._scheduler.ask(self._forget, me)
            if error is None:
                raise problem
            return False
        finally:
            del problem, error  # their tracebacks refer to this frame

    def _forget(self, fiber: Fiber[Any]) -> None:
        """It has been left by another fiber, or out of order: the block is over, and with it what is further in."""
        if self._fiber is fiber and not fiber._done and _encloses(self, fiber):
            outer = self._parent
            assert outer is not None
            fiber.leave_scopes(outer)
            fiber.look()

    def catches(self, error: BaseException) -> bool:
        """Is this error, which is leaving the block, the cancellation by this scope?"""
        if isinstance(error, Cancelled):
            return cancelling(self._parent, self._shield) is None
        return self._cancelled is not None and self._cancelled.by_deadline and is_timeout_of(self, error)

    def _complaint(self) -> str:
        seconds = 0 if self._deadline == -FOREVER else self._seconds
        return "the deadline has passed" if seconds is None else f"not done within {seconds} seconds"

    def __repr__(self) -> str:
        if self._cancelled is not None:
            told = "cancelled"
        elif self._fiber is None and self._seconds is not None:
            told = f"{self._seconds} s"
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
        self._seconds = seconds
        self._shield = shield
        self._cancelled = self._fiber = None
        try:
            if 0 < seconds < FOREVER:  # type: ignore[operator]
                return
        except TypeError:
            pass
        if seconds is not None and check_seconds("seconds", seconds) == 0:
            self._deadline = -FOREVER
        self._seconds = None


class timeout(move_on_after):  # noqa: N801 - read as a verb
    """As `move_on_after`, and raises TimeoutError where that goes on. (Not if `cancel()` has cut the block short.)"""

    __slots__ = ()

    _raises = True


class poll(timeout):  # noqa: N801 - as its base
    """A timeout of 0 for which the loop takes one turn: a wait inside of it sees what the kernel has by then.

    A deadline that has passed before a call waits leaves no such time; and where a loop watches only what is waited for,
    trying again and again would never see anything. For one wait: the next one finds the deadline passed.
    """

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(None)
        self._seconds = 0

    def _begin(self) -> None:
        self._scheduler.set_alarm(self._fiber, self._deadline)


def move_on_at(deadline: float | None) -> CancelScope:
    """As `move_on_after`, with a time in seconds on the clock of `current_time()`; None: never."""
    return CancelScope(deadline=FOREVER if deadline is None else deadline)


def timeout_at(deadline: float | None) -> CancelScope:
    """As `timeout`, with a time in seconds on the clock of `current_time()`; None: never."""
    scope = timeout(None)
    scope._deadline = FOREVER if deadline is None else _check_time(deadline)
    return scope


def shield() -> CancelScope:
    """A block that cancellation from further out does not reach, until it is over (or the grace of `cancel()` is)."""
    return CancelScope(shield=True)


def current_deadline() -> float:
    """The earliest deadline that holds here, on the clock of `current_time()`. Infinity: none; minus infinity: cancelled.

    Inside a shield, only what goes through it: the end of the grace of a cancelled scope further out. For code that hands
    it on (to a server, to a child process); calls inside the scope obey it anyway.
    """
    scheduler = get_scheduler()
    me = scheduler.current
    if me is None:
        raise scheduler.refuse()
    scope: Scope | None = me.scope or me
    if cancelling(scope) is not None:
        return -FOREVER
    earliest = FOREVER
    shielded = False
    while scope is not None:
        if scope._cancelled is not None:
            earliest = min(earliest, scope._cancelled.final_at)
        elif isinstance(scope, CancelScope) and not shielded:
            earliest = min(earliest, scope._deadline)
        shielded = shielded or scope._shield
        scope = scope._parent
    return earliest


def is_timeout_of(scope: CancelScope, error: BaseException) -> bool:
    """Is this error the timeout as which the deadline of the scope has surfaced, or what has been made of that?

    A driver makes an error of its own of it, with or without `from`; groups may have gathered some. An error of a class
    of Python's own that was raised while the timeout was being handled (KeyError …) is a mistake, and stays one.
    """
    pending = [error]
    for _ in range(_LONGEST_CHAIN):
        if not pending:
            return True
        error = pending.pop()
        if getattr(error, "scope", None) is scope and isinstance(error, TimeoutError):
            continue
        if isinstance(error, BaseExceptionGroup):
            pending += error.exceptions
            continue
        cause = error.__cause__
        if cause is None and (isinstance(error, OSError) or type(error).__module__ != "builtins"):
            cause = error.__context__
        if cause is None:
            return False
        pending.append(cause)
    return False  # made by hand, and a circle


def _encloses(scope: CancelScope, fiber: Fiber[Any]) -> bool:
    """Has the fiber entered the scope, and not left it?"""
    inner: Scope | None = fiber.scope
    while inner is not None and inner is not fiber:
        if inner is scope:
            return True
        inner = inner._parent
    return False


def _check_time(deadline: float) -> float:
    try:
        usable = deadline == deadline  # not NaN
        deadline < FOREVER  # noqa: B015 - a number?
    except TypeError:
        raise TypeError(f"a deadline is a time in seconds on the clock of current_time(), not {deadline!r}") from None
    if not usable:
        raise ValueError(f"a deadline is a time in seconds on the clock of current_time(), not {deadline!r}")
    return deadline
