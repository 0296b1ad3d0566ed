"""What `select` (selecting.py) chooses between, and how exactly one of them happens.

A *case* is one thing that may happen: a value can be received, a fiber is done, a file can be read. It belongs to no
select; any number of them may use it, at once and one after the other. A *choice* is one fiber waiting for one of several
cases, and the place where it waits. An *offer* stands for the choice in one of the queues where it may be found.

Two kinds of cases:

* Some *pass* something, and must happen once for both sides: the send of a value and its receive. They are looked at and
  entered while the guard is held (guard.py), so that of two who would meet, the later one finds the earlier, also where
  both are selects, in two threads. The idea is that of Go's `selectgo`, which locks all channels of a select.
* Others *hold*, once they have come: a fiber that is done, an event, a file with data, a time. They need no guard: who
  has entered looks once more, and then cannot miss it.

Whoever makes a case happen *claims* the choice: takes its fiber out, one atomic step. Then it writes down what has
happened and wakes the fiber. Offers in other queues are stale from that moment; who finds one drops it, and the fiber
withdraws the rest. So a choice that is interrupted or times out (which is a claim, too) has passed nothing, and one that
was claimed before that has passed exactly one thing.

That order, claim, write, wake, is kept without a call in between where a value is passed (see guard.py on signal
handlers).
"""

from collections.abc import Sequence
from typing import Any, Final, Protocol

from .fiber import Fiber
from .waitqueue import WaitQueue


class Sign:
    """What is handed over where there is no value. Compared by identity."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


NOTHING: Final = Sign("NOTHING")  # nothing so far
TAKEN: Final = Sign("TAKEN")  # the value that was offered is somebody's
CLOSED: Final = Sign("CLOSED")  # the channel was closed

# How far a choice has got.
ENTERING: Final = Sign("ENTERING")  # its fiber does not wait yet; who claims it wakes it all the same
WAITING: Final = Sign("WAITING")
WAITED: Final = Sign("WAITED")  # the fiber has been woken, or has claimed it itself


class Case:
    """One of the things that `select` waits for. Made by `channel.receiving()`, `after()` and the like."""

    __slots__ = ()

    #: Does it pass something, under the guard? Then it is a PassingCase.
    passing = False
    #: Can only fibers and threads of this process make it happen? See deadlock.py.
    inside = True

    def look(self, fiber: Fiber[Any]) -> object:
        """The value that it has for `fiber`, which selects, if it holds now; else NOTHING."""
        raise NotImplementedError(f"{type(self).__name__} does not say when it holds")

    def enter(self, choice: "Choice") -> bool:
        """Make sure that the choice is claimed when it may hold. True: look again at once.

        Called by the fiber that selects. Adds an offer to `choice.offers`, which it will withdraw.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how to wait for it")


class PassingCase(Case):
    """A case that passes something. All under the guard, and without calling what is not the runtime's."""

    __slots__ = ()

    passing = True

    def may_pass(self) -> bool:
        """Is there somebody to pass with, as far as can be seen?"""
        raise NotImplementedError(f"{type(self).__name__} does not say when it can pass")

    def pass_now(self, choice: "Choice") -> bool:
        """Do it, and write into the choice: its `case`, its `value`, and in `partner` whom to wake. False: too late."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it passes")


class Choice(WaitQueue):
    """One fiber that waits for one of several cases; see the module's text."""

    __slots__ = ("case", "cases", "fiber", "inside", "offers", "partner", "progress", "value")

    def __init__(self, fiber: Fiber[Any], cases: "Sequence[Case | None]", inside: bool) -> None:
        self._waiting = {fiber: None}
        self.fiber = fiber
        self.cases = cases
        self.inside = inside
        self.offers: list[Offer] = []
        self.case: Case | None = None  # which has happened
        self.value: object = NOTHING
        self.partner: Fiber[Any] | None = None
        self.progress = ENTERING

    def awaited(self, fiber: Fiber[Any]) -> object:
        return None  # for reports it is best described as a whole

    def wake(self, offer: "Offer") -> None:
        """The queue of a holding case wakes an offer, as it wakes a fiber. Any thread."""
        fiber = self.fiber
        if self.abandon(fiber):
            self.case, self.value = offer.case, offer.value
            fiber.scheduler.wake(fiber)

    def withdraw(self) -> None:
        """Take the offers out of the queues. By its fiber; may be done again."""
        for offer in self.offers:
            offer.withdraw()

    def __repr__(self) -> str:
        return "one of: " + ", ".join(repr(case) for case in self.cases if case is not None)


class Offer:
    """Stands for a choice in a queue. To a WaitQueue it is a fiber whose scheduler is the choice."""

    __slots__ = ("case", "choice", "outcome", "queue", "scheduler", "value")

    waiting = None  # in no place of its own

    def __init__(self, choice: Choice, case: Case, queue: Any, value: object = None) -> None:
        self.choice = self.scheduler = choice
        self.case = case
        self.queue = queue
        self.value = value  # the value of the case, if the queue wakes it
        self.outcome: object = None  # written by queues, of no use here

    def withdraw(self) -> None:
        self.queue.abandon(self)


class HoldingCase(Case):
    """Something of this process comes true and stays so, and then wakes all who wait in a queue."""

    __slots__ = ()

    def holds(self) -> bool:
        """Is it true?"""
        raise NotImplementedError(f"{type(self).__name__} does not say when it holds")

    def queue(self) -> WaitQueue:
        """Where those wait who are woken when it comes true."""
        raise NotImplementedError(f"{type(self).__name__} does not say where to wait for it")

    def value(self) -> object:
        """What the select returns beside the case."""
        return None

    def look(self, fiber: Fiber[Any]) -> object:
        return self.value() if self.holds() else NOTHING

    def enter(self, choice: Choice) -> bool:
        queue = self.queue()
        offer: Any = Offer(choice, self, queue, self.value())
        choice.offers.append(offer)
        queue.add(offer, self)
        return self.holds()


class Settable(Protocol):
    """What `Setting` needs of an event."""

    def is_set(self) -> bool: ...


class Setting(HoldingCase):
    """An event is set. `queue`: where its waiters are, all of whom `set()` wakes after it has made `is_set()` true."""

    __slots__ = ("_queue", "event")

    def __init__(self, event: Settable, queue: WaitQueue) -> None:
        self.event = event
        self._queue = queue

    def holds(self) -> bool:
        return self.event.is_set()

    def queue(self) -> WaitQueue:
        return self._queue

    def __repr__(self) -> str:
        return repr(self.event)


def claim(line: "dict[Any, Any]", waiter: Any, handed: object) -> Fiber[Any] | None:
    """Take a waiter, a fiber or an offer, out of the line where it waits to pass something, and hand it what it gets.

    Under the guard. Returns the fiber, which the caller wakes; None if it is gone, and its place was only left over.
    """
    if waiter.__class__ is Offer:
        choice = waiter.choice
        fiber: Fiber[Any] = choice.fiber
        del line[waiter]
        if fiber.scheduler.closed:
            return None
        try:
            del choice._waiting[fiber]
        except KeyError:
            return None
        choice.value = handed
        choice.case = waiter.case
        return fiber
    del line[waiter]
    if waiter.scheduler.closed:  # it has not lived to see this: in a forked child, or its thread has ended
        return None
    waiter.handed = handed
    gone: Fiber[Any] = waiter
    return gone
