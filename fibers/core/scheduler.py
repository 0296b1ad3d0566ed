"""The scheduler of one thread: what may be asked of it, from its own fibers and from outside.

Switching is in carriers.py. Here: waking, waiting with a deadline, interrupting and joining, and which thread has which
scheduler. One is made on a thread's first use of anything that waits.

Thread-safety. `wake`, `post`, `cancel`, `kill`, `join` and `watch_end` may be called from any thread, a signal handler or
a finaliser. What changes data that runtime code may be in the middle of goes through the loop's inbox unless the caller
is ordinary fiber code of this thread, and that code is marked as runtime code (`current` None) meanwhile: a finaliser
that runs in there finds None and uses the inbox.
"""

import threading
from collections.abc import Callable
from contextvars import Context
from types import FrameType
from typing import Any, Final, TypeVar

from greenlet import getcurrent

from ..errors import Cancelled, LoopClosedError, OwnershipError
from ..eventloop import new_loop
from ..eventloop.clock import FOREVER
from ..eventloop.contract import EventLoop
from ..eventloop.turns import Direction
from ..eventloop.waiter import TIMED_OUT
from .carriers import Carriers
from .endings import Finishing, bury, call_back, end_of, give_back
from .fiber import Cancellation, Fiber, Scope, cancelling, surface
from .tracebacks import PACKAGE

R = TypeVar("R")


class Nowhere:
    """The place of fibers that nobody but their own timer will wake."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def abandon(self, fiber: Fiber[Any]) -> bool:
        if fiber.waiting is self:
            fiber.waiting = None
            return True
        return False

    def holds(self, fiber: Fiber[Any]) -> bool:
        return fiber.waiting is self and fiber.timer is not None

    def __repr__(self) -> str:
        return self._name


SLEEPING: Final = Nowhere("its time to come")
FORKED: Final = Nowhere("gone with the fork")


class Scheduler(Carriers):
    """See the module's text."""

    __slots__ = ("_ctrl_c", "closed", "ending", "post")

    def __init__(self, loop: EventLoop) -> None:
        if loop.thread != threading.get_ident():
            raise ValueError(f"the loop belongs to thread {loop.thread}, not to this one")
        self.closed = False
        self.ending = False  # its fibers are being ended: see lifecycle.py
        self._ctrl_c = False  # one is on its way to main
        self.post = loop.post
        super().__init__(loop)

    def _main_fiber(self) -> Fiber[Any]:
        main: Fiber[Any] = Fiber(self, threading.current_thread, (), Context(), None, None, 0)
        main.name = f"main of {threading.current_thread().name}"
        main.greenlet = main.home = getcurrent()
        return main

    # -- waiting ------------------------------------------------------------------------------------------------

    def refuse(self) -> RuntimeError:
        """Why nothing can wait now (`current` is None)."""
        if self.closed:
            return LoopClosedError(f"the fibers of thread {threading.current_thread().name!r} have been shut down")
        return RuntimeError(
            "this would block inside the runtime: a done-callback, a signal handler or a finaliser that ran while the "
            "scheduler was at work may not wait (spawn a fiber from it instead)"
        )

    def check_interrupt(self, me: Fiber[Any]) -> None:
        """At the start of an operation that waits by other means than `park` alone: raise what is to be raised in `me`."""
        if me.interrupt:
            self.ready.append(me)
            self.park(me, None)  # others first, as in `park`
            me.interrupted()

    def deadline(self, timeout: float | None) -> float | None:
        """When a wait that starts now ends; None: never. Raises TypeError or ValueError for what is not a timeout."""
        if timeout is None or check_seconds("timeout", timeout) == FOREVER:
            return None
        return self.loop.clock() + timeout

    def wake(self, fiber: Fiber[Any]) -> None:
        """Make a fiber of this scheduler ready; the caller has taken it out of its place. Any thread."""
        if self.thread == threading.get_ident() and not self.loop.asleep:
            self.ready.append(fiber)
        else:
            self.post(self.arrive, fiber)

    def wake_again(self, fiber: Fiber[Any] | None) -> None:
        """A signal handler has raised in fiber code of this thread which was about to wake a fiber of any, or had just done
        so. Followed by `_strike`, which sees to those of this thread.
        """
        if fiber is not None and fiber.scheduler is not self:
            other: Any = fiber.scheduler
            other.struck = True  # from now on it looks whether who is woken has been woken before
            other.post(other.arrive, fiber)

    # -- asking from outside --------------------------------------------------------------------------------------

    def in_runtime(self, function: Callable[..., R], *args: Any) -> R:
        """Call something that changes the runtime's data, as fiber code of this thread: nothing may re-enter it."""
        me, self.current = self.current, None
        try:
            return function(*args)
        finally:
            self.current = me

    def watch(self, me: Fiber[Any], direction: Direction, deadline: float) -> bool:
        """`EventLoop.watch` from fiber code. What a signal handler raises in there is main's, and we ask once more."""
        struck = False
        while True:
            try:
                return self.in_runtime(self.loop.watch, direction, deadline)
            except BaseException as error:
                if struck or isinstance(error, OSError | OwnershipError | ValueError):
                    direction.edges += 1  # refused, so nothing will tell us of data: the next call tries again
                    raise
                struck = True
                self._strike(error)

    def ask(self, function: Callable[..., None], *args: object) -> None:
        """Run something that changes the runtime's data: now if this is fiber code of its thread, else by the inbox."""
        if self.current is None or self.thread != threading.get_ident():
            self.post(function, *args)
        else:
            self.in_runtime(function, *args)

    def cancel(self, fiber: Fiber[Any]) -> None:
        if not fiber._done:
            self.ask(self._cancel, fiber)

    def _cancel(self, fiber: Fiber[Any]) -> None:
        if not fiber._done:
            if fiber._cancelled is None:
                fiber._cancelled = Cancellation()
            self.refresh(fiber, fiber)

    def refresh(self, fiber: Fiber[Any], changed: Scope) -> None:
        """One of the fiber's scopes has changed: see who is cancelled now, among it and those in groups that are inside of
        that scope. Runtime code; may be done again.
        """
        reached = [fiber]
        for fiber in reached:  # which grows meanwhile: those in groups, in the order of spawning
            if fiber._done:
                continue
            scope: Scope | None = fiber.scope
            if cancelling(scope or fiber) is None:
                fiber.interrupt = bool(fiber._pending)
            elif fiber.greenlet is None:
                self._never(fiber, Cancelled(f"fiber {fiber.name!r} was cancelled before it started"))
            else:
                self.interrupt(fiber)
            while scope is not None and scope is not fiber:
                reached += scope._children
                if scope is changed:
                    break
                scope = scope._parent

    def set_alarm(self, fiber: Fiber[Any], deadline: float) -> None:
        """Look at the deadlines of the fiber's scopes at `deadline` (finite). Runtime code.

        A scope that is left in time leaves the alarm behind, so that a scope entered over and over again costs no timer.
        """
        if fiber.alarm is not None:
            self.loop.unschedule(fiber.alarm)
        fiber.alarm = self.loop.schedule(deadline, fiber)

    def ring(self, fiber: Fiber[Any]) -> None:
        """The alarm of the fiber has passed."""
        now, earliest = self.loop.clock(), FOREVER
        scope: Scope | None = fiber.scope
        changed = None
        while scope is not None and scope is not fiber:
            look = scope.check_deadlines(now)
            if look < earliest:
                earliest = look
            elif look == FOREVER and scope._cancelled is not None:
                changed = scope
            scope = scope._parent
        if changed is not None:
            self.refresh(fiber, changed)
        # Last: if a signal handler raises before, the loop calls again.
        fiber.alarm = self.loop.schedule(earliest, fiber) if earliest < FOREVER else None

    def kill(self, fiber: Fiber[Any], error: BaseException) -> None:
        if not fiber._done:
            self.ask(self._kill, fiber, error)

    def _kill(self, fiber: Fiber[Any], error: BaseException) -> None:
        if not fiber._done:
            if fiber.greenlet is None:
                self._never(fiber, error)
            else:
                self.throw(fiber, error)

    def _never(self, fiber: Fiber[Any], error: BaseException) -> None:
        """End a fiber that has not started. It stays in the ready queue; a carrier will pass over it."""
        fiber._error = error
        self._failed(fiber)
        fiber._args = fiber._context = None
        fiber._done = True
        self.fibers.discard(fiber)
        if fiber._parent is not None:
            fiber._parent.left(fiber)
        if fiber._ended is not None:
            fiber._ended.announce(fiber)

    def join(self, fiber: Fiber[Any], timeout: float | None) -> None:
        """Wait, in the calling thread, for the end of a fiber of this scheduler."""
        caller = get_scheduler()
        me = caller.current
        if me is None:
            raise caller.refuse()
        deadline = caller.deadline(timeout)
        end = end_of(fiber)
        while not fiber._done:
            if fiber is me:
                raise RuntimeError(f"fiber {me.name!r} would wait for its own end")
            try:
                end.add(me, fiber)
                if fiber._done and end.abandon(me):
                    return
                outcome = caller.park(me, end, deadline)
            except BaseException as error:
                end.abandon(me)
                if timeout is not None and isinstance(error, Cancelled):
                    surface(me, f"fiber {fiber.name!r} was not done when a deadline passed")
                raise
            if outcome is TIMED_OUT and not fiber._done:
                raise TimeoutError(f"fiber {fiber.name!r} was not done after {timeout} seconds")

    def watch_end(self, fiber: Fiber[Any], function: Callable[[Fiber[Any]], object]) -> None:
        callbacks = end_of(fiber).watch(function)
        if fiber._done:
            try:
                callbacks.remove(function)
            except ValueError:
                return  # the end came in between, and has called it
            if self.closed:
                call_back(function, fiber)
            else:
                self.ask(call_back, function, fiber)

    def finishing(self, fiber: Fiber[Any]) -> Finishing:
        return Finishing(fiber)

    # -- interrupts of the process ----------------------------------------------------------------------------------

    def on_ctrl_c(self, signum: int, frame: FrameType | None) -> None:
        """The handler of SIGINT: see lifecycle.py. In the main thread, between any two instructions."""
        if self.closed:  # somebody has put this handler back after its time
            raise KeyboardInterrupt
        current = self.current
        pending = self._ctrl_c or any(isinstance(error, KeyboardInterrupt) for error in self.main._pending or ())
        # A lock that has just been taken, a scope that is being entered, a group that is about to wait: main must not be
        # struck between two steps of ours. Its next wait raises.
        ours = frame is not None and frame.f_code.co_filename.startswith(PACKAGE)
        if (current is self.main and not ours) or (pending and current is not None):
            raise KeyboardInterrupt
        if not pending:
            self._ctrl_c = True
            if current is None:
                self.post(self._send_ctrl_c)
            else:
                self.in_runtime(self._send_ctrl_c)

    def _send_ctrl_c(self) -> None:
        self._ctrl_c = False
        self.throw(self.main, KeyboardInterrupt())

    def left_over(self) -> BaseException | None:
        """What is still to be raised in main, as it returns; None if nothing is."""
        if self._ctrl_c:
            self._send_ctrl_c()
        return self.main.interruption() if self.main._pending else None

    def close(self) -> None:
        """Take everything down. In main, with all fibers ended; those that would not end are never resumed."""
        self.closed = True
        self.current = None
        stubborn = list(self.fibers)
        for fiber in stubborn:
            bury(fiber, Cancelled("its thread has ended"))
        self.fibers.clear()
        self.ready.clear()
        self.end_carriers()
        self.loop.close()
        for report in list(self._reports):
            report.publish()
        if self.main._ended is not None:
            self.main._ended.announce(self.main)

    def after_fork(self) -> None:
        """In the child, in the forking fiber, the only one that lives on."""
        survivor, main = self.current, self.main
        for fiber in list(self.fibers):
            if fiber is not survivor:
                bury(fiber, Cancelled("it lives on in the parent process only"))
        self.fibers.intersection_update({survivor})
        self.thread = threading.get_ident()
        self.loop.after_fork()  # after the burials, which may have made somebody ready
        self.post = self.loop.post
        for living in (main, survivor):
            if living is not None and living.scope is not None:
                living.alarm = None  # it went with the timers
                self.post(self.ring, living)
        if survivor is not None and survivor is not main:
            group = survivor._parent
            if group is not None and group._fiber is not main:
                survivor._parent = None  # that group has no owner here
            if main.waiting is not None:
                main.waiting.abandon(main)
            give_back(main)
            main.waiting = FORKED
            end_of(survivor).watch(self._leave)

    def _leave(self, survivor: Fiber[Any]) -> None:
        """In a forked child: the fiber that forked is over, and so is the process."""
        self.throw(self.main, SystemExit(0 if survivor._error is None or survivor.cancelled() else 1))


def check_seconds(what: str, seconds: float) -> float:
    """A duration: a real number of seconds, 0 or more; infinity is allowed. Raises TypeError or ValueError."""
    try:
        usable = seconds >= 0
    except TypeError:
        raise TypeError(f"{what} must be a number of seconds, not {seconds!r}") from None
    if not usable:
        raise ValueError(f"{what} must be 0 or more seconds, not {seconds!r}")
    return seconds


class _ThreadState(threading.local):
    """What each thread has of its own. `scheduler` is read on every blocking call."""

    scheduler: Scheduler | None = None
    ending: object = None  # see lifecycle.py
    key: object = None  # see local.py


state: Final = _ThreadState()

#: Called with each new scheduler, in its thread; lifecycle.py sees to its end.
on_new: list[Callable[[Scheduler], None]] = []


def get_scheduler(loop: EventLoop | None = None) -> Scheduler:
    """The scheduler of the calling thread, made if there is none."""
    scheduler = state.scheduler
    if scheduler is None:
        scheduler = state.scheduler = Scheduler(loop or new_loop())
        for function in on_new:
            function(scheduler)
    return scheduler


def undisturbed(function: Callable[..., R], *args: Any) -> R:
    """Do, in any thread, what must not be left halfway: Ctrl-C waits until it is over, and finalisers use the inbox."""
    scheduler = state.scheduler
    return function(*args) if scheduler is None or scheduler.closed else scheduler.in_runtime(function, *args)
