"""Loops that check at run time that they keep the contract (contract.py): FIBERS_DEBUG=loop.

A broken loop shows itself late and elsewhere: a waiter that nobody wakes, or that is woken out of its next wait. These
classes raise ContractError at the step that breaks a rule, and name the rule. For people who write a loop or a poller,
and for a program that misbehaves: it runs unchanged, some times slower.

The rules, as they are named in the errors:

    thread      only `post`, `wake`, `taken` and `release` may be called by other threads
    closed      nothing is asked of a closed loop
    run nobody  no waiter leaves the ready queue inside a turn, no turn begins inside a turn, and between the kernel wait
                and the end of dispatch nothing is asked of the loop but to post, to wake and to release
    waiter      a turn wakes only who waits: in a direction, or by a timer
    once        a waiter is in the ready queue at most once, and has then left the place where it waited
    never early a timer expires when its deadline has passed, in the order of deadlines
    data first  no file is reported in a turn after its first deadline
    balance     files known = registrations - unregistrations
    time        the clock of the loop does not go back

They are mixed into the class of a loop and do not wrap it, because a handle knows its loop by identity. What a loop
promises about its poller is checked by CheckedPoller (checked_poller.py).
"""

import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from ..errors import ContractError
from .clock import FOREVER, MONOTONIC, Clock
from .contract import EventLoop
from .polling import PollingLoop
from .timers import Timer, TimerTarget
from .turns import Direction, Handle
from .waiter import Waiter

#: What a loop is doing.
OUTSIDE: Final = "outside of a turn"
DISPATCH: Final = "waiting and dispatching"
POSTED: Final = "running a post"
EXPIRING: Final = "expiring a timer"


def broken(rule: str, what: str) -> ContractError:
    """The error that names a broken rule."""
    return ContractError(f"an event loop has broken the rule {rule!r}: {what}")


class CheckedReady(deque[Any]):
    """The ready queue of a checked loop."""

    def __init__(self, loop: "CheckedLoop") -> None:
        super().__init__()
        self._loop = loop
        self._inside: set[int] = set()

    def append(self, waiter: Waiter, /) -> None:
        if id(waiter) in self._inside:
            raise broken("once", f"{waiter!r} is in the ready queue already")
        self._loop.check_wake(waiter)
        self._inside.add(id(waiter))
        super().append(waiter)

    def popleft(self) -> Waiter:
        if self._loop.phase is not OUTSIDE:
            raise broken("run nobody", f"{self[0]!r} left the ready queue while the loop was {self._loop.phase}")
        waiter: Waiter = super().popleft()
        self._inside.discard(id(waiter))
        return waiter

    def clear(self) -> None:
        self._inside.clear()
        super().clear()

    def holds(self, waiter: Waiter) -> bool:
        return id(waiter) in self._inside


class _CheckedTarget:
    """Stands between a timer and its target."""

    __slots__ = ("_loop", "_target")

    def __init__(self, loop: "CheckedLoop", target: TimerTarget) -> None:
        self._loop = loop
        self._target = target

    def expire(self, timer: Timer) -> None:
        self._loop.expiring(timer, self._target)


class CheckedLoop(EventLoop):
    """To be mixed into the class of a loop, in front of it. See the module's text."""

    phase: str = OUTSIDE
    _waiting: frozenset[int] | set[int] = frozenset()
    _last_time = -FOREVER
    _last_deadline = -FOREVER
    _expired = False  # a deadline has come in this turn
    _schedule: Callable[[float, TimerTarget], Timer]

    def start_checking(self) -> None:
        """To be called when the loop has been made, before anybody uses it."""
        self.ready = CheckedReady(self)
        self._schedule = self.schedule
        self.schedule = self._checked_schedule

    # -- what differs from loop to loop -------------------------------------------------------------------------

    def handles(self) -> list[Handle]:
        """The files that it knows."""
        raise NotImplementedError(f"{type(self).__name__} has to tell which files it knows")

    def registered(self) -> int:
        """How many registrations there are, by its own tables."""
        raise NotImplementedError(f"{type(self).__name__} has to tell what it has registered")

    # -- the verbs ----------------------------------------------------------------------------------------------

    def turn(self, block: bool) -> None:
        self._check("turn")
        if self.phase is not OUTSIDE:
            raise broken("run nobody", f"a turn began inside a turn ({self.phase})")
        self._check_time()
        self._waiting = {id(waiter) for _, waiter in self._waiters()}
        self._expired, self._last_deadline = False, -FOREVER
        self.phase = DISPATCH
        try:
            super().turn(block)
        finally:
            self.phase = OUTSIDE
        self._check_time()
        self._check_places()
        self._check_balance()

    def post(self, function: Callable[..., None], *args: object) -> None:
        super().post(self._posted, function, args)

    def handle(self, fd: int, fresh: bool) -> Handle:
        self._check("handle")
        return super().handle(fd, fresh)

    def claim(self, handle: Handle) -> Handle:
        self._check("claim")
        claimed = super().claim(handle)
        if claimed.loop is not self:
            raise broken("thread", f"fd {handle.fd} was claimed here, and belongs to another loop still")
        return claimed

    def watch(self, direction: Direction, deadline: float) -> bool:
        self._check("watch")
        if self.closed:
            raise broken("closed", f"fd {direction.handle.fd} is to be watched by a closed loop")
        return super().watch(direction, deadline)

    def unwatch(self, direction: Direction) -> None:
        self._check("unwatch", inside=True)
        super().unwatch(direction)

    def close(self) -> None:
        self._check("close")
        if not self.closed:
            # The waiters of a closed loop are woken, and nothing of it is run.
            self.phase = POSTED
            try:
                super().close()
            finally:
                self.phase = OUTSIDE
            for handle in self.handles():
                raise broken("balance", f"the loop was closed and knows fd {handle.fd} still")

    def after_fork(self) -> None:
        self.phase = OUTSIDE
        super().after_fork()
        self._schedule = self.schedule
        self.schedule = self._checked_schedule

    # -- the rules ----------------------------------------------------------------------------------------------

    def _check(self, verb: str, inside: bool = False) -> None:
        here = threading.get_ident()
        if here != self.thread:
            raise broken("thread", f"{verb}() was called in thread {here}; the loop belongs to thread {self.thread}")
        if self.phase is DISPATCH and not inside:
            raise broken("run nobody", f"{verb}() was called while the loop was {self.phase}")

    def check_wake(self, waiter: Waiter) -> None:
        """Something is being appended to the ready queue, by the caller's caller."""
        if self.phase is not DISPATCH or threading.get_ident() != self.thread:
            return
        by = sys._getframe(2).f_locals.get("self")
        if by is not self and not isinstance(by, Direction):
            return  # by a signal handler or a finaliser, which may wake whom it likes
        if id(waiter) not in self._waiting:
            raise broken("waiter", f"{waiter!r} was woken by a turn, and did not wait for a file")
        if self._expired:
            raise broken("data first", f"{waiter!r} was woken for a file after a deadline of the same turn had come")

    def _checked_schedule(self, deadline: float, target: TimerTarget) -> Timer:
        self._check("schedule")
        if self.closed:
            raise broken("closed", f"a timer for {target!r} is to be kept by a closed loop")
        return self._schedule(deadline, _CheckedTarget(self, target))

    def expiring(self, timer: Timer, target: TimerTarget) -> None:
        """A timer comes to its end."""
        now = self.clock()
        if self.phase is OUTSIDE:
            raise broken("run nobody", f"a timer of {target!r} expired outside of a turn")
        if timer.deadline > now:
            raise broken(
                "never early", f"a timer of {target!r} expired {timer.deadline - now:.6f} s before its deadline"
            )
        if timer.deadline < self._last_deadline:
            raise broken("never early", f"a timer of {target!r} expired after one with a later deadline")
        self._expired, self._last_deadline = True, timer.deadline
        before, self.phase = self.phase, EXPIRING
        try:
            target.expire(timer)
        finally:
            self.phase = before

    def _posted(self, function: Callable[..., None], args: tuple[object, ...]) -> None:
        before, self.phase = self.phase, POSTED
        try:
            function(*args)
        finally:
            self.phase = before
            self._waiting = {id(waiter) for _, waiter in self._waiters()}

    def _waiters(self) -> list[tuple[Direction, Any]]:
        found: list[tuple[Direction, Any]] = []
        for handle in self.handles():
            for direction in (handle.reading, handle.writing):
                if direction.waiter is not None:
                    found.append((direction, direction.waiter))
                found += [(direction, waiter) for waiter in direction.queue or ()]
        return found

    def _check_time(self) -> None:
        now = self.clock()
        if now < self._last_time:
            raise broken("time", f"the clock went back from {self._last_time} to {now}")
        self._last_time = now

    def _check_places(self) -> None:
        assert isinstance(self.ready, CheckedReady)
        for direction, waiter in self._waiters():
            if self.ready.holds(waiter):
                raise broken("once", f"{waiter!r} was woken, and waits for fd {direction.handle.fd} still")

    def _check_balance(self) -> None:
        stats = self.stats
        told, known = stats.registrations - stats.unregistrations, self.registered()
        if told != known:
            raise broken(
                "balance",
                f"{stats.registrations} registrations - {stats.unregistrations} unregistrations = {told}, and {known} known",
            )


class CheckedPollingLoop(CheckedLoop, PollingLoop):
    """PollingLoop, checked."""

    def __init__(self, make_poller: Callable[[], Any], clock: Clock = MONOTONIC) -> None:
        super().__init__(make_poller, clock)
        self.start_checking()

    def handles(self) -> list[Handle]:
        return list(self._table.values())

    def registered(self) -> int:
        return len(self._table)
