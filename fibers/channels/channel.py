"""Channels: values go from fiber to fiber, in order, each to exactly one; the fibers may be of any threads.

    jobs = fibers.Channel(capacity=10)

    def worker():
        for job in jobs:              until it is closed, and nothing is left in it
            results.send(job.run())

A channel holds at most `capacity` values. With 0 it holds none: each `send` waits until somebody receives. The semantics
are those of Go, but for what there is a panic: sending on a closed channel raises ChannelClosed, and closing twice is
nothing.

What a channel consists of, and why a value is neither lost nor doubled, is in passage.py. Here is how a fiber sends and
receives. The plain cases are written out: a partner of the same thread waits, there is a value, there is room.
"""

from _thread import get_ident
from typing import Any, Final, Generic, Self, TypeVar

from ..core.choosing import CLOSED, NOTHING, TAKEN, Choice, Offer, PassingCase
from ..core.fiber import Fiber
from ..core.guard import guard
from ..core.scheduler import get_scheduler, state
from ..errors import ChannelClosed
from ..eventloop.clock import FOREVER
from ..eventloop.waiter import TIMED_OUT, Outcome
from .passage import CREDIT, Passage, enter, somebody, survives

T = TypeVar("T")

_free: Final = guard.free


class Channel(Passage[T]):
    """A queue of at most `capacity` values (an integer >= 0, or infinity) between fibers. See the module's text.

    Every method may be called from any thread, by its fibers or by plain code. Those that do not wait (`try_send`,
    `try_receive`, `close`) also where nothing may wait: in a done-callback, a signal handler, a finaliser. (If one of the
    latter strikes right inside a channel operation of its thread, the `try_` ones raise RuntimeError.)

    Raises TypeError or ValueError for what is not a capacity.
    """

    __slots__ = ()

    def __init__(self, capacity: float = 0) -> None:
        super().__init__(_check_capacity(capacity))

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
                enter(scheduler, me)
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
                if result is TAKEN:
                    self._credit -= 1
                    if self._credit < 0:
                        self.give_way(scheduler, me)
            except BaseException as error:
                if not survives(scheduler, me, self._senders, result is not NOTHING, taker, error):
                    raise
            if result is NOTHING:
                if last:
                    raise TimeoutError(f"nobody took a value from {self!r} within {timeout} seconds")
                self._credit = CREDIT
                outcome: Outcome | None = None
                try:
                    outcome = scheduler.park(me, self._senders, deadline)
                except BaseException as error:
                    late = self.left(scheduler, me, self._senders, deadline, error)
                    if late is error:
                        raise
                    if late is not None:
                        raise late from None
                result = me.handed
                if result is NOTHING:  # the time is up, or it was woken for nothing
                    self._senders.abandon(me)
                    last = outcome is TIMED_OUT
                    continue
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
                enter(scheduler, me)
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
                if value is not NOTHING:
                    self._credit -= 1
                    if self._credit < 0:
                        self.give_way(scheduler, me)
            except BaseException as error:
                if not survives(scheduler, me, self._receivers, value is not NOTHING, giver, error):
                    raise
            if value is NOTHING:
                if last:
                    raise TimeoutError(f"no value came from {self!r} within {timeout} seconds")
                self._credit = CREDIT
                outcome: Outcome | None = None
                try:
                    outcome = scheduler.park(me, self._receivers, deadline)
                except BaseException as error:
                    late = self.left(scheduler, me, self._receivers, deadline, error)
                    if late is error:
                        raise
                    if late is not None:
                        raise late from None
                value = me.handed
                if value is NOTHING:  # the time is up, or it was woken for nothing
                    self._receivers.abandon(me)
                    last = outcome is TIMED_OUT
                    continue
                me.handed = NOTHING  # what is received does not live on in here
            if value is CLOSED:
                raise ChannelClosed(f"{self!r} has no more values")
            return value  # type: ignore[no-any-return]

    def try_send(self, value: T) -> bool:
        """As `send`, if it need not wait: True. Else False, and the value has not been sent. Raises ChannelClosed."""
        result = self.at_once(Passage._give_or_keep, value)
        if result is CLOSED:
            raise ChannelClosed(f"{self!r} takes no values any more")
        return result is TAKEN

    def try_receive(self, default: Any = None) -> Any:
        """As `receive`, if it need not wait; else returns `default`. Raises ChannelClosed."""
        value = self.at_once(Passage._take)
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
            while self.at_once(Passage._dismiss) is not NOTHING:
                pass
        except BaseException:  # from a signal handler: who waits is to be told all the same
            while self.at_once(Passage._dismiss) is not NOTHING:
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


class Receiving(PassingCase, Generic[T]):
    """A value is received from `channel`."""

    __slots__ = ("channel",)

    def __init__(self, channel: Channel[T]) -> None:
        self.channel = channel

    def may_pass(self) -> bool:
        channel = self.channel
        return bool(channel._buffer) or channel._closed or somebody(channel._sending)

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
        return room or channel._closed or somebody(channel._receiving)

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


def _check_capacity(capacity: float) -> float:
    if isinstance(capacity, bool) or not (isinstance(capacity, int) or capacity == FOREVER):
        raise TypeError(f"capacity must be a whole number of values, or infinity, not {capacity!r}")
    if capacity < 0:
        raise ValueError(f"capacity must be 0 or more values, not {capacity!r}")
    return capacity
