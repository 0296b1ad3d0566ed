"""Channels: values go from fiber to fiber, in order, each to exactly one; the fibers may be of any threads.

    jobs = fibers.Channel(capacity=10)

    def worker():
        for job in jobs:              until it is closed, and nothing is left in it
            results.send(job.run())

A channel holds at most `capacity` values. With 0 it holds none: each `send` waits until somebody receives. The semantics
are those of Go, but for what there is a panic: sending on a closed channel raises ChannelClosed, and closing twice is
nothing.

Who waits stands in one of two lines, a fiber or the offer of a `select` (choosing.py). Every operation goes through the
guard (guard.py), and looks for a partner before it enters a line. So between two operations it is always true that

* nobody waits to receive while there is a value or, in another choice, a sender;
* nobody waits to send while there is room;
* of a closed channel nobody waits, but for those whom `close` is about to wake.

What passes a value is written without a call from the claim to the last step, so nothing parts it. A signal handler that
raises strikes before, and comes out of the operation, which has not happened; or behind, and then its error is main's,
while the operation ends well.

The lines are OrderedDicts: the first of a plain dict is found slowly when many have left before it.
"""

from _thread import get_ident
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, Final, Generic, Self, TypeVar
from weakref import ref

from .cancel import as_timeout
from .choosing import CLOSED, NOTHING, TAKEN, Choice, Offer, PassingCase, claim
from .errors import Cancelled, ChannelClosed
from .eventloop.clock import FOREVER
from .eventloop.waiter import TIMED_OUT
from .fiber import Fiber
from .guard import guard
from .scheduler import Scheduler, get_scheduler, state
from .waitqueue import WaitQueue

T = TypeVar("T")

#: How often a channel may serve fibers without a wait before one of them lets the others of its thread run.
CREDIT: Final = 256

_free: Final = guard.free


class _Line(WaitQueue):
    """Who waits to receive, or to send. What a sender has is the value of its entry."""

    __slots__ = ("_channel", "_verb")

    def __init__(self, channel: "ref[Channel[Any]]", verb: str, waiting: "OrderedDict[Any, Any]") -> None:
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


class Channel(Generic[T]):
    """A queue of at most `capacity` values (an integer >= 0, or infinity) between fibers. See the module's text.

    Every method may be called from any thread, by its fibers or by plain code. Those that do not wait (`try_send`,
    `try_receive`, `close`) also where nothing may wait: in a done-callback, a signal handler, a finaliser. (If one of the
    latter strikes right inside a channel operation of its thread, the `try_` ones raise RuntimeError.)

    Raises TypeError or ValueError for what is not a capacity.
    """

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

    def __init__(self, capacity: float = 0) -> None:
        self._capacity = _check_capacity(capacity)
        self._closed = False
        self._credit = CREDIT
        self._buffer: deque[Any] = deque()
        mine = ref(self)
        self._receiving: OrderedDict[Any, Any] = OrderedDict()
        self._sending: OrderedDict[Any, Any] = OrderedDict()
        # The lines as places to wait in.
        self._receivers = _Line(mine, "a value from", self._receiving)
        self._senders = _Line(mine, "a taker for its value in", self._sending)

    # -- sending and receiving ----------------------------------------------------------------------------------

    def send(self, value: T, timeout: float | None = None) -> None:
        """Put a value in, or hand it to who receives; wait until there is room, or until somebody does.

        Raises ChannelClosed if the channel is or gets closed, TimeoutError after `timeout` seconds (>= 0; None: no
        limit); the value has then not been sent. If it was taken at the moment at which the fiber is cancelled, the call
        ends well.
        """
        scheduler = state.scheduler
        if scheduler is None:
            scheduler = get_scheduler()
        me = scheduler.current
        if me is None:
            raise scheduler.refuse()
        deadline = None if timeout is None else scheduler.deadline(timeout)
        last = False  # the time is up: only look
        while True:
            scheduler.current = None
            try:
                del _free[0]
            except KeyError:
                _enter(scheduler, me)
            guard.owner = scheduler.thread
            result: object = NOTHING
            taker: Fiber[Any] | None = None
            try:
                receivers = self._receiving
                if receivers:
                    for waiter in receivers:  # the first
                        if waiter.scheduler is scheduler and not self._closed:
                            del receivers[waiter]
                            waiter.handed = value
                            result = TAKEN
                            guard.owner = 0
                            _free[0] = None
                            scheduler.ready.append(waiter)
                            scheduler.current = me
                            return
                        break
                    result, taker = self._give_or_keep(value)
                elif self._closed:
                    result = CLOSED
                elif self._capacity and len(self._buffer) < self._capacity:
                    self._buffer += (value,)
                    result = TAKEN
                if result is NOTHING and not last:
                    me.handed = NOTHING
                    self._sending[me] = value
                guard.owner = 0
                _free[0] = None
                if taker is not None:
                    taker.scheduler.wake(taker)
                scheduler.current = me
            except BaseException as error:
                if not _survives(scheduler, me, self._senders, result is not NOTHING, taker):
                    raise
                scheduler._strike(error)
            if result is NOTHING:
                if last:
                    raise TimeoutError(f"nobody took a value from {self!r} within {timeout} seconds")
                self._credit = CREDIT
                try:
                    outcome = scheduler.park(me, self._senders, deadline)
                except BaseException as error:
                    if (late := self._left(self._senders, me, deadline, error)) is not None:
                        raise late from None
                    raise
                result = me.handed
                if result is NOTHING:  # the time is up, or it was woken for nothing
                    self._senders.abandon(me)
                    last = outcome is TIMED_OUT
                    continue
            else:
                self._credit -= 1
                if self._credit < 0:
                    self._give_way(scheduler, me)
            if result is CLOSED:
                raise ChannelClosed(f"{self!r} takes no values any more")
            return

    def receive(self, timeout: float | None = None) -> T:
        """Take the oldest value out; wait until there is one.

        Raises ChannelClosed if the channel is closed and nothing is left in it, TimeoutError after `timeout` seconds
        (>= 0; None: no limit). A value that was handed over at the moment at which the fiber is cancelled is returned.
        """
        scheduler = state.scheduler
        if scheduler is None:
            scheduler = get_scheduler()
        me = scheduler.current
        if me is None:
            raise scheduler.refuse()
        deadline = None if timeout is None else scheduler.deadline(timeout)
        last = False  # the time is up: only look
        while True:
            scheduler.current = None
            try:
                del _free[0]
            except KeyError:
                _enter(scheduler, me)
            guard.owner = scheduler.thread
            value: Any = NOTHING
            giver: Fiber[Any] | None = None
            try:
                buffer = self._buffer
                senders = self._sending
                if senders:
                    for waiter in senders:  # the first
                        if waiter.scheduler is scheduler and not self._closed:
                            value = senders[waiter]
                            del senders[waiter]
                            waiter.handed = TAKEN
                            if buffer:
                                buffer += (value,)
                                value = buffer[0]
                                del buffer[0]
                            guard.owner = 0
                            _free[0] = None
                            scheduler.ready.append(waiter)
                            scheduler.current = me
                            return value  # type: ignore[no-any-return]
                        break
                    value, giver = self._take()
                elif buffer:
                    value = buffer[0]
                    del buffer[0]
                elif self._closed:
                    value = CLOSED
                if value is NOTHING and not last:
                    me.handed = NOTHING
                    self._receiving[me] = None
                guard.owner = 0
                _free[0] = None
                if giver is not None:
                    giver.scheduler.wake(giver)
                scheduler.current = me
            except BaseException as error:
                if not _survives(scheduler, me, self._receivers, value is not NOTHING, giver):
                    raise
                scheduler._strike(error)
            if value is NOTHING:
                if last:
                    raise TimeoutError(f"no value came from {self!r} within {timeout} seconds")
                self._credit = CREDIT
                try:
                    outcome = scheduler.park(me, self._receivers, deadline)
                except BaseException as error:
                    if (late := self._left(self._receivers, me, deadline, error)) is not None:
                        raise late from None
                    raise
                value = me.handed
                if value is NOTHING:  # the time is up, or it was woken for nothing
                    self._receivers.abandon(me)
                    last = outcome is TIMED_OUT
                    continue
                me.handed = NOTHING  # what is received does not live on in here
            else:
                self._credit -= 1
                if self._credit < 0:
                    self._give_way(scheduler, me)
            if value is CLOSED:
                raise ChannelClosed(f"{self!r} has no more values")
            return value  # type: ignore[no-any-return]

    def try_send(self, value: T) -> bool:
        """As `send`, if it need not wait: True. Else False, and the value has not been sent. Raises ChannelClosed."""
        result = self._at_once(Channel._give_or_keep, value)
        if result is CLOSED:
            raise ChannelClosed(f"{self!r} takes no values any more")
        return result is TAKEN

    def try_receive(self, default: Any = None) -> Any:
        """As `receive`, if it need not wait; else returns `default`. Raises ChannelClosed."""
        value = self._at_once(Channel._take)
        if value is CLOSED:
            raise ChannelClosed(f"{self!r} has no more values")
        return default if value is NOTHING else value

    def close(self) -> None:
        """Nothing can be sent any more. What is in the channel can still be received; then it is at its end.

        Who waits to send or to receive gets ChannelClosed. A second call does nothing.
        """
        scheduler = state.scheduler
        if guard.owner == get_ident() and scheduler is not None:
            scheduler.post(self.close)  # inside an operation of this thread: at the next turn of its loop
            return
        self._closed = True
        try:
            while self._at_once(Channel._dismiss) is not NOTHING:
                pass
        except BaseException:  # from a signal handler: who waits is to be told all the same
            while self._at_once(Channel._dismiss) is not NOTHING:
                pass
            raise

    # -- what it is ---------------------------------------------------------------------------------------------

    @property
    def capacity(self) -> float:
        """How many values it holds at most."""
        return self._capacity

    @property
    def closed(self) -> bool:
        """Has it been closed? There may be values left in it."""
        return self._closed

    def __len__(self) -> int:
        """How many values are in it. (What a waiting sender has is not in it yet.)"""
        return len(self._buffer)

    def __bool__(self) -> bool:
        """True, also when it is empty: `if channel:` asks whether there is one."""
        return True

    def __iter__(self) -> Self:
        """Receive until it is closed. Any number of fibers may iterate over one channel: they share its values."""
        return self

    def __next__(self) -> T:
        try:
            return self.receive()
        except ChannelClosed:
            raise StopIteration from None

    def __repr__(self) -> str:
        capacity = self._capacity if self._capacity == FOREVER else int(self._capacity)
        return f"<Channel {'closed, ' if self._closed else ''}{len(self._buffer)} of {capacity} at {id(self):#x}>"

    # -- for select ---------------------------------------------------------------------------------------------

    def receiving(self) -> "Receiving[T]":
        """For `select`: the case that a value is received. Its value is that, or ChannelClosed."""
        return Receiving(self)

    def sending(self, value: T) -> "Sending[T]":
        """For `select`: the case that `value` is sent. Its value is None; or ChannelClosed, and then it was not sent."""
        return Sending(self, value)

    # -- under the guard: steps that return what came of it, and whom to wake ------------------------------------

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

    def _at_once(
        self, step: "Callable[[Channel[Any], object], tuple[object, Fiber[Any] | None]]", value: object = NOTHING
    ) -> object:
        """Do one step, from wherever this is called."""
        scheduler = state.scheduler
        me = None if scheduler is None else scheduler.current
        thread = get_ident()
        result: object = NOTHING
        partner: Fiber[Any] | None = None
        try:
            if scheduler is not None:
                scheduler.current = None
            try:
                del _free[0]
            except KeyError:
                guard.wait()
            guard.owner = thread
            try:
                result, partner = step(self, value)
            finally:
                guard.owner = 0
                _free[0] = None
            if partner is not None:
                partner.scheduler.wake(partner)
        except BaseException as error:
            if scheduler is None or me is None:
                raise
            if not _survives(scheduler, me, self._receivers, result is not NOTHING, partner):
                raise
            scheduler._strike(error)
        finally:
            if scheduler is not None:
                scheduler.current = me
        return result

    # -- waiting ------------------------------------------------------------------------------------------------

    def _left(
        self, line: _Line, me: "Fiber[Any]", deadline: float | None, error: BaseException
    ) -> BaseException | None:
        """A wait in a line was interrupted. What the operation raises in place of the error; None: the error."""
        line.abandon(me)
        return as_timeout(me) if deadline is not None and isinstance(error, Cancelled) else None

    def _give_way(self, scheduler: Scheduler, me: "Fiber[Any]") -> None:
        """A fiber that is always served without waiting lets the others run now and then. It is not interrupted here."""
        self._credit = CREDIT
        scheduler.ready.append(me)
        scheduler.park(me, None)


def _enter(scheduler: Scheduler, me: Fiber[Any]) -> None:
    """Wait for the guard, on behalf of a fiber that is marked as runtime code."""
    try:
        guard.wait()
    except BaseException:
        scheduler.current = me
        raise


def _survives(scheduler: Scheduler, me: Fiber[Any], line: _Line, done: bool, partner: Fiber[Any] | None) -> bool:
    """A signal handler has raised in an operation. Has that happened all the same, or will it?"""
    if guard.owner == scheduler.thread:
        guard.owner = 0
        _free[0] = None
    scheduler.current = me
    if not done and (not line.holds(me) or line.abandon(me)):
        return False
    scheduler.wake_again(partner)
    return True


class Receiving(PassingCase, Generic[T]):
    """A value is received from `channel`."""

    __slots__ = ("channel",)

    def __init__(self, channel: Channel[T]) -> None:
        self.channel = channel

    def may_pass(self) -> bool:
        channel = self.channel
        return bool(channel._buffer) or channel._closed or _somebody(channel._sending)

    def pass_now(self, choice: Choice) -> bool:
        value, partner = self.channel._take()
        if value is NOTHING:
            return False
        choice.case, choice.value, choice.partner = self, value, partner
        return True

    def enter(self, choice: Choice) -> bool:
        channel = self.channel
        offer = Offer(choice, self, channel._receivers)
        choice.offers.append(offer)
        channel._receiving[offer] = None
        return False

    def __repr__(self) -> str:
        return repr(self.channel._receivers)


class Sending(PassingCase, Generic[T]):
    """`value` is sent on `channel`."""

    __slots__ = ("channel", "value")

    def __init__(self, channel: Channel[T], value: T) -> None:
        self.channel = channel
        self.value = value

    def may_pass(self) -> bool:
        channel = self.channel
        room = len(channel._buffer) < channel._capacity
        return room or channel._closed or _somebody(channel._receiving)

    def pass_now(self, choice: Choice) -> bool:
        result, partner = self.channel._give_or_keep(self.value)
        if result is NOTHING:
            return False
        choice.case, choice.value, choice.partner = self, result, partner
        return True

    def enter(self, choice: Choice) -> bool:
        channel = self.channel
        offer = Offer(choice, self, channel._senders)
        choice.offers.append(offer)
        channel._sending[offer] = self.value
        return False

    def __repr__(self) -> str:
        return repr(self.channel._senders)


def _somebody(line: "OrderedDict[Any, Any]") -> bool:
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


def _check_capacity(capacity: float) -> float:
    if isinstance(capacity, bool) or not (isinstance(capacity, int) or capacity == FOREVER):
        raise TypeError(f"capacity must be a whole number of values, or infinity, not {capacity!r}")
    if capacity < 0:
        raise ValueError(f"capacity must be 0 or more values, not {capacity!r}")
    return capacity
