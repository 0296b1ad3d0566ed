"""The contract of an event loop: what it does, in which order, and for whom.

A loop knows file descriptors, deadlines and *waiters*; it runs nobody. Collect, then run: between the return of the
kernel wait and the end of dispatch no user code is started by the loop, so no user code ever sees it half done.

    one turn of a loop =  run what other threads posted
                          wait in the kernel (not at all if something is ready)
                          every ready descriptor: count an edge, wake its waiter
                          every passed deadline: wake its waiter, with TIMED_OUT
    always in this order, so that data beats a timeout.

Whose thread: a loop belongs to the thread that made it. Every method is for that thread only, except `post`, `wake`
and `release`, which any thread, signal handler or finaliser may call.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable

from .clock import Clock
from .timers import Timer, TimerTarget
from .turns import Direction, Handle
from .waiter import Waiter


class LoopStats:
    """Counters of one loop; they only grow. For tests, `python -m fibers info` and the demo."""

    __slots__ = ("modifications", "moves", "registrations", "turns", "unregistrations")

    def __init__(self) -> None:
        self.turns = 0  # kernel waits
        self.registrations = 0  # first registrations of a file
        self.modifications = 0  # second directions added to a registered file
        self.unregistrations = 0
        self.moves = 0  # files that came here from another thread's loop


class EventLoop(ABC):
    """See the module's text. Constructed in the thread that it will belong to."""

    __slots__ = ()

    name: str
    clock: Clock
    thread: int  # threading.get_ident() of the owner
    ready: deque[Waiter]
    stats: LoopStats
    closed: bool
    asleep: bool  # in the kernel, or about to be: only `post` gets its attention

    #: `schedule(deadline, target)`: call `target.expire(timer)` in the turn after `deadline` (finite, on `clock`) has
    #: passed, never early. An attribute, so that a loop can put the bound method of its timers there.
    schedule: Callable[[float, TimerTarget], Timer]
    #: `unschedule(timer)`: forget it; True if it had not expired and will not any more.
    unschedule: Callable[[Timer], bool]

    @abstractmethod
    def turn(self, block: bool) -> None:
        """One turn. With `block`, sleep until something is appended to `ready`, a timer fires or a post arrives.

        What CPython raises in here (a signal handler) comes out of it after every waiter that may have missed its
        event has been woken.
        """

    @abstractmethod
    def quiet(self) -> bool:
        """Is nothing on its way: no post, no timer? Then only a file, a signal or another thread can end a wait."""

    @abstractmethod
    def awaited(self) -> bool:
        """Does anybody wait for a file here? Looks at all of them: not for every turn."""

    @abstractmethod
    def post(self, function: Callable[..., None], *args: object) -> None:
        """Have `function(*args)` called in the loop's thread at its next turn. Any thread; must not raise or block."""

    @abstractmethod
    def wake(self) -> None:
        """End the kernel wait, if there is one. Any thread."""

    @abstractmethod
    def handle(self, fd: int, fresh: bool) -> Handle:
        """A handle for an open file. `fresh`: it was opened just now; if the number was known, that file is gone, and its
        waiters get CLOSED.
        """

    @abstractmethod
    def taken(self, fd: int) -> bool:
        """Is a file of this number known to a loop of this kind, in any thread? To wait for the number under another
        handle would disturb it: a borrowed fd is then waited for as a duplicate. Any thread.
        """

    @abstractmethod
    def claim(self, handle: Handle) -> Handle:
        """The handle under which this loop may wait for the file: the same one, or its successor after a move here.

        Raises ClosedError if it was closed, OwnershipError if it is another thread's and cannot move now.
        """

    @abstractmethod
    def watch(self, direction: Direction, deadline: float) -> bool:
        """`direction.waiter` or its queue has a new waiter: make sure that its edge and its deadline will wake it.

        Called when the direction is not armed or the deadline is earlier than its alarm. False: do not wait, the
        file never blocks (a regular file) or has moved; look again. Raises OSError if the kernel refuses.
        """

    @abstractmethod
    def unwatch(self, direction: Direction) -> None:
        """The waiter of a direction was taken out before its edge came."""

    @abstractmethod
    def release(self, handle: Handle, finish: Callable[[], None]) -> None:
        """The file is being closed: wake its waiters with CLOSED, unregister it, then call `finish`, which closes the fd.

        From any thread. Where another thread has an operation pending on the file, it is that thread which wakes and
        unregisters, at its next turn, since it may be between reading the number and using it; `finish` comes after that.
        """

    @abstractmethod
    def close(self) -> None:
        """Give up every fd and every kernel object. Waiters are woken with RETRY. A second call does nothing."""

    @abstractmethod
    def after_fork(self) -> None:
        """In the child: a new kernel object, no waiters, no timers; the parent's is not touched. Counters go on."""
