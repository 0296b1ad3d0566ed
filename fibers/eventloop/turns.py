"""Turns: several waiters on one direction of one file, served first come, first served.

Facts. One edge may stand for many bytes or many connections: if it wakes one of two readers and that one takes a
single byte, no further edge will ever come for the rest. Two writers whose `sendall` is cut short would interleave
their bytes if both went on at the next edge.

So a direction has a *turn*. At most one operation holds it; the others queue behind it. Only the holder makes system
calls and waits for an edge; when its operation ends (however it ends) the turn goes to the next in the queue, which
tries at once. `sendall` is one operation. Everything here is the same on every loop.

The holder is one of three: None; CALLING, for an operation that is inside its first system call and has not had to
wait; or the waiter of an operation that has. CALLING is set without a lock by whatever thread makes the call. It is
not exclusive (two threads may call at once, as with any socket) and serves one purpose: whoever closes the file can
see that a call is in flight.

The latch says whether trying is worth it: `edges != drained`. Only the loop adds to `edges`, in its thread, at each
event of this direction. A caller reads `edges` *before* its system call and, if the call came up short, writes what
it read into `drained`. An edge that arrives in between leaves the two different, so no thread can clear another's
edge. At first they differ: nobody has tried yet.

Who only wants to know when a file becomes ready, and is not going to touch it (a select over several files), takes no
turn: it *observes*. Every edge is told to all observers, beside the one waiter; they are woken for nothing if somebody else
has been quicker, and look for themselves.
"""

from collections import deque
from collections.abc import Callable
from time import sleep
from typing import Final, Protocol

from .clock import FOREVER
from .timers import Timer, TimerTarget
from .waiter import CLOSED, TIMED_OUT, Outcome, Waiter

READ: Final = 1
WRITE: Final = 2


class Home(Protocol):
    """What a direction needs of the loop that it lives in. (The whole contract is in contract.py, above this file.)"""

    name: str
    thread: int
    closed: bool
    ready: deque[Waiter]
    schedule: Callable[[float, TimerTarget], Timer]
    unschedule: Callable[[Timer], bool]

    def unwatch(self, direction: "Direction") -> None: ...
    def post(self, function: Callable[..., None], *args: object) -> None: ...
    def release(self, handle: "Handle", finish: Callable[[], None]) -> None: ...


class Observer(Protocol):
    """Who wants to be told of the edges of a direction."""

    def notice(self) -> None:
        """There was an edge, or the file was closed, or its registration changed: look again. In the loop's thread."""


Observers = dict[Observer, None]


class Calling:
    """The type of CALLING; see the module's text."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "CALLING"


CALLING: Final = Calling()

_ABSENT: Final = object()


class Direction:
    """One direction (reading or writing) of one file: its turn, its latch, its waiters. See the module's text.

    Belongs to the loop of its handle; other threads only read it, set CALLING where nobody holds the turn, and write
    `drained`.
    """

    __slots__ = (
        "alarm",
        "armed",
        "closed",
        "drained",
        "edges",
        "handle",
        "hangup",
        "holder",
        "loop",
        "queue",
        "timer",
        "waiter",
    )

    def __init__(self, handle: "Handle", loop: Home | None) -> None:
        self.handle = handle
        self.loop = loop
        self.edges = 1
        self.drained = 0
        self.holder: Waiter | Calling | None = None
        self.waiter: Waiter | None = None  # the holder, while it waits for an edge
        self.queue: deque[Waiter] | None = None  # who waits for the turn
        self.alarm = FOREVER  # the deadline of `timer`
        self.timer: Timer | None = None  # no later than the earliest deadline among waiter and queue
        self.armed = False  # the kernel will report the next edge; nothing to do before a wait
        self.closed = False
        self.hangup = False  # a hang-up or urgent data has been seen: a short read no longer proves "drained"

    @property
    def interest(self) -> int:
        """READ or WRITE."""
        return READ if self is self.handle.reading else WRITE

    @property
    def observers(self) -> Observers | None:
        """Who wants to be told of its edges; None: nobody."""
        observers = self.handle.observers
        return None if observers is None else observers.get(self)

    def enqueue(self, waiter: Waiter) -> None:
        """Put a waiter behind the holder of the turn. It is woken when the turn has become its own."""
        queue = self.queue
        if queue is None:
            queue = self.queue = deque()
        queue.append(waiter)

    def release(self) -> None:
        """The holder is done, whatever came of it: the turn goes to the next, who may try at once."""
        queue = self.queue
        if queue:
            heir = self.holder = queue.popleft()
            assert self.loop is not None
            self.loop.ready.append(heir)
        else:
            self.holder = None

    def abandon(self, waiter: Waiter) -> bool:
        """Take a waiter out, to wake it for a reason of one's own. False: it has been woken already."""
        if self.waiter is waiter:
            self.waiter = None
            assert self.loop is not None
            self.loop.unwatch(self)
            if self.observers and not self.armed:
                self.notify()  # they have to see to it that it is watched
            return True
        queue = self.queue
        if queue and waiter in queue:
            queue.remove(waiter)
            return True
        return False

    def observe(self, observer: Observer) -> None:
        """Tell it of every edge from now on. The caller then makes sure that the direction is watched."""
        handle = self.handle
        if handle.observers is None:
            handle.observers = {}
        handle.observers.setdefault(self, {})[observer] = None

    def unobserve(self, observer: Observer) -> None:
        """Do not any more. May be done again."""
        ours, all = self.observers, self.handle.observers
        if not ours or ours.pop(observer, _ABSENT) is _ABSENT or ours:
            return
        if all is not None:
            all.pop(self, None)
            if not all:
                self.handle.observers = None
        if self.waiter is None and self.loop is not None and not self.closed and not self.loop.closed:
            self.loop.unwatch(self)

    def notify(self) -> None:
        """Tell the observers."""
        for observer in list(self.observers or ()):
            observer.notice()

    def holds(self, waiter: Waiter) -> bool:
        """Does it wait here?"""
        return self.waiter is waiter or waiter in (self.queue or ())

    def expire(self, timer: Timer) -> None:
        """The loop calls this when `timer` has passed: wakes whose deadline it was, and looks who is next.

        A wait that has ended in time leaves its timer behind (moving a deadline is cheaper than cancelling and
        adding one for each read), so there may be nobody to wake.
        """
        loop = self.loop
        if timer is not self.timer or loop is None:
            return
        passed = timer.deadline
        waiting: list[Waiter] = list(self.queue or ())
        if self.waiter is not None:
            waiting.insert(0, self.waiter)
        earliest = FOREVER
        for waiter in waiting:
            if waiter.deadline <= passed:
                self.abandon(waiter)
                waiter.outcome = TIMED_OUT
                loop.ready.append(waiter)
            elif waiter.deadline < earliest:
                earliest = waiter.deadline
        # Last: if a signal handler raises before, the loop calls again.
        if earliest < FOREVER:
            self.set_alarm(earliest)
        else:
            self.timer = None
            self.alarm = FOREVER

    def set_alarm(self, deadline: float) -> None:
        """Have `expire` called at `deadline`, which is earlier than any alarm set."""
        assert self.loop is not None
        if self.timer is not None:
            self.loop.unschedule(self.timer)
        self.alarm = deadline
        self.timer = self.loop.schedule(deadline, self)

    def wake_all(self, outcome: Outcome) -> None:
        """Wake everybody who waits here. In the loop's thread; nothing is left behind but a running holder."""
        loop, waiter, queue, timer = self.loop, self.waiter, self.queue, self.timer
        self.waiter = self.queue = self.timer = None
        self.alarm = FOREVER
        if loop is None:
            return
        if timer is not None:
            loop.unschedule(timer)
        if waiter is not None:
            waiter.outcome = outcome
            loop.ready.append(waiter)
        for waiter in queue or ():
            waiter.outcome = outcome
            loop.ready.append(waiter)
        self.notify()


class Handle:
    """One open file as a loop sees it: two directions. What the socket layer holds for each of its sockets.

    `loop` is the loop that it was made for, or None for a file first used where no loop runs. A file that moves to
    another loop gets a new handle there, so that whatever is still under way for the old one (a posted request, a
    timer) can never hit the new one, nor a later file of the same number.
    """

    __slots__ = ("closed", "fd", "loop", "observers", "reading", "writing")

    def __init__(self, fd: int, loop: Home | None) -> None:
        self.fd = fd
        self.loop = loop
        self.closed = False
        self.observers: dict[Direction, Observers] | None = None  # mostly there are none
        self.reading = Direction(self, loop)
        self.writing = Direction(self, loop)

    def pending(self) -> bool:
        """Does an operation that had to wait hold a turn here? (One that is only inside a system call does not count.)"""
        reader, writer = self.reading.holder, self.writing.holder
        return (reader is not None and reader is not CALLING) or (writer is not None and writer is not CALLING)

    def calling(self) -> bool:
        """Is a thread inside a system call on this file, as far as it said so?"""
        return self.reading.holder is CALLING or self.writing.holder is CALLING

    def mark_closed(self) -> None:
        """No operation may begin to wait on it any more, nor try first. From any thread."""
        self.closed = self.reading.closed = self.writing.closed = True
        self.reading.drained = self.reading.edges
        self.writing.drained = self.writing.edges

    def close(self, outcome: Outcome = CLOSED) -> None:
        """Mark closed and wake all waiters. In the loop's thread, or where no loop runs."""
        self.mark_closed()
        self.reading.wake_all(outcome)
        self.writing.wake_all(outcome)

    def settle(self) -> None:
        """Wait until system calls in flight on the file have ended, before its number is given back to the system.

        They do not block, so this is a matter of microseconds. It gives up after some milliseconds: then the call is
        one that this thread itself was interrupted in, by the signal handler that is closing the file.
        """
        for _ in range(1000):
            if not self.calling():
                return
            sleep(0.000_01)
