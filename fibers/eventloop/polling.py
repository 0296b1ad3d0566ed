"""The loop over a poller: one turn after the other.

Facts (Linux 6.18, and as documented for kqueue), and what follows:

* Edge-triggered epoll reports an arrival once. What is not drained raises no second event, hence the latch and the turn
  (turns.py). An event is a hint: epoll hands back only a number, so an event may be of the file that had the number
  before. Every woken operation tries again, so that costs a system call and nothing else.
* ERR and HUP count as an edge in both directions and are not remembered otherwise: refused UDP sockets, FIFOs, ptys and
  re-connected sockets block again afterwards. Only "hang-up seen" is kept, and all it does is to forbid the shortcut
  that takes a short read for an empty buffer (data and FIN can share one edge).
* CPython runs signal handlers wherever it likes, also right after `poll()` has returned its list, and a handler that
  raises throws that list away. So an exception between the wait and the end of dispatch means "a batch is lost": every
  file counts as ready and every waiter tries again.

Level-triggered pollers (poll, select) serve under the same rules: what they are asked to watch they report once, and
the loop arms them again at the next wait.
"""

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Final
from weakref import WeakSet

from . import ownership
from .clock import MONOTONIC, Clock
from .contract import LoopStats
from .descriptor import Descriptor
from .lifetime import LifetimeFiles
from .pollers import Poller
from .posts import run_posts, throw
from .timers import Timer, TimerWheel
from .turns import READ, WRITE
from .waiter import CLOSED, RETRY, Waiter
from .waker import SignalWaker, Waker

_log: Final = logging.getLogger("fibers.eventloop")


class PollingLoop(LifetimeFiles):
    """The event loop over a Poller. `make_poller` is called again in a forked child."""

    __slots__ = (
        "__weakref__",
        "_due",
        "_inbox",
        "_make_poller",
        "_signals",
        "_waker",
        "asleep",
        "clock",
        "closed",
        "name",
        "ready",
        "schedule",
        "stats",
        "thread",
        "timers",
        "unschedule",
    )

    def __init__(self, make_poller: Callable[[], Poller], clock: Clock = MONOTONIC) -> None:
        self._make_poller = make_poller
        self.clock = clock
        self.thread = threading.get_ident()
        self.ready: deque[Waiter] = deque()
        self.stats = LoopStats()
        self.closed = False
        self._inbox: deque[tuple[Callable[..., None], tuple[object, ...]]] = deque()
        self.asleep = False
        self._table: dict[int, Descriptor] = {}
        self._due: deque[Timer] = deque()
        self._new_timers()
        self._open()
        self.name = self._poller.name
        _loops.add(self)
        _log.info("fibers is using the %s event loop", self.name)

    def _new_timers(self) -> None:
        self.timers = TimerWheel()
        self.schedule = self.timers.add  # bound: nothing stands between a sleeper and the wheel
        self.unschedule = self.timers.cancel

    def _open(self) -> None:
        self._poller = self._make_poller()
        self._signals: SignalWaker | None = None
        try:
            self._waker = Waker()
        except OSError:
            self._poller.close()
            raise
        try:
            if self.thread == threading.main_thread().ident:
                try:
                    self._signals = SignalWaker()
                except ValueError:
                    pass  # the main thread of a sub-interpreter gets no signals
            self._arm_wakers()
        except (OSError, ValueError):  # no descriptors are left, or with numbers only that are too high for the poller
            self._shut()
            raise

    def _arm_wakers(self) -> None:
        for waker in (self._waker, self._signals):
            if waker is not None:
                self._poller.arm(waker.fd, READ, 0)

    # -- from anywhere ------------------------------------------------------------------------------------------

    def post(self, function: Callable[..., None], *args: object) -> None:
        self._inbox.append((function, args))
        if self.asleep:
            self.asleep = False  # one wake is enough; the loop looks at its inbox whatever woke it
            self._waker.wake()

    def wake(self) -> None:
        self._waker.wake()

    def quiet(self) -> bool:
        return not (self._inbox or self._due or self.timers.occupied)

    def awaited(self) -> bool:
        return any(each.reading.waiter or each.writing.waiter for each in list(self._table.values()))

    # -- the turn -----------------------------------------------------------------------------------------------

    def turn(self, block: bool) -> None:
        poller, occupied = self._poller, self.timers.occupied
        try:
            if self._inbox:
                self._run_inbox()
            timeout: float | None = 0.0
            if block and not self.ready and not self._due:
                timeout = None
                if occupied:
                    deadline = self.timers.next_deadline()
                    if deadline is not None:
                        timeout = max(0.0, deadline - self.clock())
                self.asleep = True
                if self._inbox or self.ready:  # posted before the poster could see that it must wake us
                    timeout = 0.0
            self.stats.turns += 1
            events = poller.wait(timeout)
            self.asleep = False
            if events:
                self._dispatch(events)
                while len(events) >= poller.MAX_EVENTS:  # the kernel may have more: all data before any deadline
                    events = poller.wait(0.0)
                    self._dispatch(events)
            if occupied or self._due:
                deadline = self.timers.next_deadline()
                if self._due or (deadline is not None and deadline <= self.clock()):
                    self._expire(self.clock())
            if self._inbox:
                self._run_inbox()
        except BaseException:
            self._recover()
            raise

    def _dispatch(self, events: list[tuple[int, int]]) -> None:
        poller, table, append = self._poller, self._table, self.ready.append
        readable, writable, hangup = poller.READABLE, poller.WRITABLE, poller.HANGUP
        level = not poller.edge_triggered
        for fd, bits in events:
            handle = table.get(fd)
            if level or handle is None or handle.observers:
                if not self._unusual(fd, bits, handle):
                    continue
                assert handle is not None
            # Each waiter is cleared before it is appended, with no call in between: CPython looks for signals only
            # after calls and at jumps, so a raising handler cannot part the two.
            if bits & readable:
                direction = handle.reading
                direction.edges += 1
                if bits & hangup:
                    direction.hangup = True
                waiter = direction.waiter
                if waiter is not None:
                    direction.waiter = None
                    append(waiter)
            if bits & writable:
                direction = handle.writing
                direction.edges += 1
                waiter = direction.waiter
                if waiter is not None:
                    direction.waiter = None
                    append(waiter)

    def _unusual(self, fd: int, bits: int, handle: Descriptor | None) -> bool:
        """Events that need more than counting. True if there is an edge to be counted for the handle."""
        poller = self._poller
        if handle is None:
            for waker in (self._waker, self._signals):
                if waker is not None and waker.fd == fd:
                    waker.drain()
                    if not poller.edge_triggered:
                        poller.arm(fd, READ, 0)
            return False  # else an event of a file that has left: its number means nothing any more
        if bits & poller.INVALID:
            self._evict(handle, CLOSED)
            return False
        for direction, interest, mask in (
            (handle.reading, READ, poller.READABLE),
            (handle.writing, WRITE, poller.WRITABLE),
        ):
            if bits & mask:
                if direction.armed and not poller.edge_triggered:
                    direction.armed = False  # a level-triggered poller forgets what it has reported
                    handle.registered &= ~interest
                if direction.observers:
                    direction.notify()
        return True

    def _expire(self, now: float) -> None:
        due = self._due
        due.extend(self.timers.expire(now))
        while due:
            timer = due[0]
            if timer.target is not None:
                timer.target.expire(timer)
            due.popleft()

    def _run_inbox(self) -> None:
        run_posts(self._inbox)

    def _recover(self) -> None:
        """A batch of events may be lost: every file counts as ready, every waiter tries again."""
        self.asleep = False
        while True:
            try:
                for handle in list(self._table.values()):
                    for direction, interest in ((handle.reading, READ), (handle.writing, WRITE)):
                        direction.edges += 1
                        waiter = direction.waiter
                        if waiter is not None:
                            direction.waiter = None
                            self.ready.append(waiter)
                        direction.notify()
                        if not self._poller.edge_triggered:
                            # It has forgotten what it reported; to ask twice is harmless.
                            direction.armed = False
                            handle.registered &= ~interest
                if not self._poller.edge_triggered:
                    self._arm_wakers()
                self._waker.wake()  # its event may be among the lost ones
                return
            except BaseException as error:
                # Another signal handler has raised. The batch is still lost; this error comes out of the next turn.
                self._inbox.append((throw, (error,)))

    # -- the end ------------------------------------------------------------------------------------------------

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        with ownership.lock:
            for descriptor in list(self._table.values()):
                self._disown(descriptor)
                descriptor.registered = 0
                descriptor.reading.wake_all(RETRY)  # not closed: the files of a finished loop are free
                descriptor.writing.wake_all(RETRY)
        while self._inbox:
            self._run_inbox()
        self._shut()

    def _shut(self) -> None:
        self._poller.close()
        self._waker.close()
        if self._signals is not None:
            self._signals.close()

    def after_fork(self) -> None:
        # Closing our copy of the epoll fd is harmless; a DEL through it would reach into the parent.
        self._shut()
        for handle in self._table.values():
            handle.forget_all()
        self._table.clear()
        self._inbox.clear()
        self._due.clear()
        self.ready.clear()
        self.asleep = False
        self._new_timers()
        self._open()


_loops: WeakSet[PollingLoop] = WeakSet()


def _after_fork_in_child() -> None:
    """Loops of threads that do not exist here own nothing and are never touched again."""
    ownership.after_fork()
    for loop in list(_loops):
        if loop.thread != threading.get_ident():
            loop.closed = True


os.register_at_fork(after_in_child=_after_fork_in_child)
