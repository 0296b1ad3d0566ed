"""What a channel consists of: the values in it, two lines of those who wait, and the steps in which values pass.

Every step is made under the guard (guard.py), and looks for a partner before somebody enters a line. So between two steps
it is always true that

* nobody waits to receive while there is a value or, in another choice, a sender;
* nobody waits to send while there is room;
* of a closed channel nobody waits, but for those whom `close` is about to wake.

Who waits is a fiber, or the offer of a `select` (choosing.py). In the line of the senders each brings its value.

What passes a value is written without a call from the claim to the last assignment, so that nothing parts it. A signal
handler that raises strikes before, and its error comes out of the operation, which has not happened; or behind, and then
the error is main's and the operation ends well.

The lines are OrderedDicts: the first of a plain dict is found slowly when many have left before it.
"""

from _thread import get_ident
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, Final, Generic, NoReturn, TypeVar
from weakref import ref

from greenlet import GreenletExit

from ..core.cancel import as_timeout
from ..core.choosing import CLOSED, NOTHING, TAKEN, Offer, claim
from ..core.fiber import Fiber
from ..core.guard import guard
from ..core.scheduler import Scheduler, state
from ..core.waitqueue import WaitQueue
from ..errors import Cancelled

T = TypeVar("T")

#: How often a channel may serve fibers without a wait before one of them lets the others of its thread run.
CREDIT: Final = 256

_free: Final = guard.free


class Line(WaitQueue):
    """Who waits to receive, or to send. What a sender has is the value of its entry."""

    __slots__ = ("_channel", "_verb")

    def __init__(self, channel: "ref[Passage[Any]]", verb: str, waiting: "OrderedDict[Any, Any]") -> None:
        self._waiting = waiting
        self._channel = channel
        self._verb = verb

    def awaited(self, fiber: Fiber[Any]) -> object:
        return None  # it is described as a whole

    def abandon(self, fiber: Any) -> bool:
        # Under the guard, unlike that of other queues: nobody leaves a line while somebody else looks at it.
        thread = get_ident()
        try:
            del _free[0]
        except KeyError:
            guard.wait()
        guard.owner = thread
        try:
            if fiber in self._waiting:
                del self._waiting[fiber]
                return True
            return False
        finally:
            guard.owner = 0
            _free[0] = None

    def __repr__(self) -> str:
        return f"{self._verb} {self._channel()!r}"


class Passage(Generic[T]):
    """The inner half of a Channel. For a step: what came of it, and whom to wake when the guard has been left."""

    __slots__ = (
        "__weakref__",
        "_buffer",
        "_capacity",
        "_closed",
        "_credit",
        "_receivers",
        "_receiving",
        "_senders",
        "_sending",
    )

    def __init__(self, capacity: float) -> None:
        self._capacity = capacity
        self._closed = False
        self._credit = CREDIT
        self._buffer: deque[Any] = deque()
        mine = ref(self)
        self._receiving: OrderedDict[Any, Any] = OrderedDict()
        self._sending: OrderedDict[Any, Any] = OrderedDict()
        # The lines as places to wait in.
        self._receivers = Line(mine, "a value from", self._receiving)
        self._senders = Line(mine, "a taker for its value in", self._sending)

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"cannot pickle or copy a {type(self).__name__}: fibers of this process wait in it")

    # -- steps, under the guard -----------------------------------------------------------------------------------

    def _take(self, value: object = NOTHING) -> "tuple[object, Fiber[Any] | None]":
        """The next value; NOTHING, or CLOSED."""
        buffer = self._buffer
        senders = self._sending
        while senders and not self._closed:
            waiter = next(iter(senders))
            value = senders[waiter]
            giver = claim(senders, waiter, TAKEN)
            if giver is not None:
                if buffer:
                    buffer += (value,)
                    value = buffer[0]
                    del buffer[0]
                return value, giver
        if buffer:
            value = buffer[0]
            del buffer[0]
            return value, None
        return (CLOSED if self._closed else NOTHING), None

    def _give(self, value: object) -> "tuple[bool, Fiber[Any] | None]":
        """Hand a value to the first who waits for one, if there is one."""
        receivers = self._receiving
        while receivers:
            taker = claim(receivers, next(iter(receivers)), value)
            if taker is not None:
                return True, taker
        return False, None

    def _give_or_keep(self, value: object) -> "tuple[object, Fiber[Any] | None]":
        """TAKEN: by somebody, or there was room; NOTHING, or CLOSED."""
        if self._closed:
            return CLOSED, None
        given, taker = self._give(value)
        if given:
            return TAKEN, taker
        buffer = self._buffer
        if len(buffer) < self._capacity:
            buffer += (value,)
            return TAKEN, None
        return NOTHING, None

    def _dismiss(self, value: object = NOTHING) -> "tuple[object, Fiber[Any] | None]":
        """Closed: tell the next of those who wait; NOTHING: nobody is left."""
        for line in (self._receiving, self._sending):
            if line:
                return CLOSED, claim(line, next(iter(line)), CLOSED)
        return NOTHING, None

    def at_once(
        self, step: "Callable[[Passage[Any], object], tuple[object, Fiber[Any] | None]]", value: object = NOTHING
    ) -> object:
        """Do one step, from wherever this is called."""
        scheduler = state.scheduler
        me = None if scheduler is None else scheduler.current
        thread = get_ident()
        result: object = NOTHING
        partner: Fiber[Any] | None = None
        if scheduler is not None:
            scheduler.current = None
        try:
            del _free[0]
        except KeyError:
            enter(scheduler, me)
        guard.owner = thread
        try:
            result, partner = step(self, value)
            guard.owner = 0
            _free[0] = None
            if partner is not None:
                partner.scheduler.wake(partner)
        except BaseException as error:
            if scheduler is None or me is None:
                leave_guard(thread)
                raise
            if not survives(scheduler, me, self._receivers, result is not NOTHING, partner, error):
                raise
        finally:
            if scheduler is not None:
                scheduler.current = me
        return result

    # -- waiting ------------------------------------------------------------------------------------------------

    def left(
        self, scheduler: Scheduler, me: "Fiber[Any]", line: Line, deadline: float | None, error: BaseException
    ) -> BaseException | None:
        """A wait in a line has raised. What the operation raises; None: nothing, it has been served."""
        served = not line.abandon(me) and me.handed is not NOTHING
        if served and not isinstance(error, GreenletExit):
            # From a signal handler, which struck after somebody had served this fiber, and before it waited.
            scheduler.park(me, None)  # the wake-up is on its way
            scheduler._strike(error)
            return None
        if deadline is not None and isinstance(error, Cancelled):
            return as_timeout(me) or error
        return error

    def give_way(self, scheduler: Scheduler, me: "Fiber[Any]") -> None:
        """A fiber that is always served without waiting lets the others run now and then. It is not interrupted here."""
        self._credit = CREDIT
        scheduler.ready.append(me)
        scheduler.park(me, None)


def enter(scheduler: Scheduler | None, me: Fiber[Any] | None) -> None:
    """Wait for the guard, where `me` is marked as runtime code for the time of an operation."""
    try:
        guard.wait()
    except BaseException:
        if scheduler is not None:
            scheduler.current = me
        raise


def leave_guard(thread: int) -> None:
    """A signal handler has raised in an operation, which was inside, or had left already."""
    if guard.owner == thread:
        guard.owner = 0
        _free[0] = None


def survives(
    scheduler: Scheduler, me: Fiber[Any], line: Line, done: bool, partner: Fiber[Any] | None, error: BaseException
) -> bool:
    """A signal handler has raised in an operation of `me`. Has that happened all the same? Then the error goes to main."""
    if isinstance(error, GreenletExit):
        return False
    leave_guard(scheduler.thread)
    scheduler.current = me
    if not done and (not line.holds(me) or line.abandon(me)):
        return False
    if me in scheduler.ready:
        scheduler.ready.remove(me)  # it was about to give way
    scheduler.wake_again(partner)
    scheduler._strike(error)
    return True


def somebody(line: "OrderedDict[Any, Any]") -> bool:
    """Is there one in a line who can still be claimed? Forgets those who cannot."""
    while line:
        waiter = next(iter(line))
        if waiter.__class__ is Offer:
            if waiter.choice._waiting and not waiter.choice.fiber.scheduler.closed:
                return True
        elif not waiter.scheduler.closed:
            return True
        del line[waiter]
    return False
