"""Loops that check at run time that they keep the contract (contract.py): FIBERS_DEBUG=loop.

A broken loop shows itself late and elsewhere: a waiter that nobody wakes, or that is woken out of its next wait. These
classes raise ContractError, which names the rule that was broken and shows where that was noticed. For people who write
a loop or a poller, and for a program that misbehaves: it runs unchanged, some times slower.

The rules, as they are named in the errors:

    thread      only `post`, `wake`, `taken` and `release` are for other threads, and posts run in the loop's own
    closed      nothing is asked of a closed loop, and nobody waits in it
    run nobody  inside a turn no waiter leaves the ready queue, no turn begins, and nobody begins to wait
    waiter      dispatch wakes only who waited for a file when the turn began
    once        a waiter is in the ready queue at most once, and has then left the place where it waited; a timer expires
                once, and not when it has been unscheduled; a post runs once
    lost        who has left the place where it waited has been woken
    posts       what was posted before a turn has run when it ends
    never early a timer expires when its deadline has passed
    in order    the timers of a turn expire in the order of (deadline, sequence)
    late        a timer whose deadline has passed does expire
    alarm       `watch` leaves a timer no later than the deadline
    data first  no file is reported in a turn after its first deadline
    release     a released file is marked closed, nobody waits for it, then its fd is closed, once
    balance     registrations - unregistrations is what the tables of the loop, and its poller, hold
    asleep      `asleep` is false outside of a turn
    time        the clock of the loop does not go back

How certain is it? A ContractError is a fault, never bad luck: where a signal handler has raised in the loop, or another
thread may be in the middle of something, a rule is let pass rather than guessed at. The other way round, what looks at
all files and timers is done every turn for 500 of them, every second turn for a thousand, and so on.

The checks are mixed into the class of a loop and do not wrap it, because a handle knows its loop by identity. What a loop
promises about its poller is checked by CheckedPoller (checked_poller.py).
"""

import logging
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Final, cast

from ..errors import ContractError
from .checks import (
    DISPATCH,
    EXPIRING,
    OUTSIDE,
    POSTED,
    CheckedClock,
    CheckedFinish,
    CheckedPost,
    CheckedReady,
    CheckedTarget,
    foreign,
    waiters_of,
)
from .clock import FOREVER
from .contract import EventLoop
from .timers import Timer, TimerTarget
from .turns import Direction, Handle
from .waiter import Waiter

_log: Final = logging.getLogger("fibers.eventloop")

#: Where refusals come from: the modules of this package.
_HERE: Final = __name__.rpartition(".")[0] + "."
#: How many files and timers may be looked at in every turn.
PER_TURN: Final = 500
#: A timer is lost when it is this late (seconds) …
LATE: Final = 1.0
#: … and this many turns have seen it so.
LATE_TURNS: Final = 3


class _Disturbances:
    """How often a signal handler has raised in a checked loop of this process: the books of all may be wrong by one."""

    count = 0


class CheckedLoop(EventLoop):
    """To be mixed into the class of a loop, in front of it. See the module's text."""

    phase: str = OUTSIDE
    _time: CheckedClock  # this is `clock`
    _queue: CheckedReady  # this is `ready`
    _fault: ContractError | None = None
    _waiters: "Sequence[tuple[Direction, Waiter]] | None" = None  # who waited when the turn began; None: not looked at
    _waiting: frozenset[int] | set[int] = frozenset()  # their ids
    _skip = 0  # turns in which nobody looks at all files and timers
    _disturbed = False  # the turn before raised, so a timer may be expired once more
    _expired = False  # a deadline has come in this turn
    _last = (-FOREVER, 0)  # deadline and sequence of the last timer that expired in this turn
    _difference = (0, 0)  # by how much the books differ, as of which disturbance

    def start_checking(self) -> None:
        """To be called once the loop has been made, before anybody uses it."""
        self.clock = self._time = CheckedClock(self, self.clock)
        self.ready = self._queue = CheckedReady(self)
        self._start_over()
        _log.info("the %s event loop checks that it keeps its contract (FIBERS_DEBUG=loop)", self.name)

    def _start_over(self) -> None:
        self._schedule, self.schedule = self.schedule, self._checked_schedule
        self._unschedule, self.unschedule = self.unschedule, self._checked_unschedule
        self._timers: dict[CheckedTarget, Timer] = {}
        self._posts: dict[CheckedPost, None] = {}
        self._due_posts: Sequence[CheckedPost] = ()  # that have to run in this turn
        self._waiters = self._fault = None
        counted, known = self.books()
        self._difference = counted - known, _Disturbances.count

    # -- what differs from loop to loop -------------------------------------------------------------------------

    def handles(self) -> list[Handle]:
        """The files in its tables."""
        raise NotImplementedError(f"{type(self).__name__} has to tell which files it knows")

    def books(self) -> tuple[int, int]:
        """Registrations - unregistrations by its counters, and registrations by its tables, at one and the same moment."""
        raise NotImplementedError(f"{type(self).__name__} has to tell what it has registered")

    def loop_below(self) -> EventLoop:
        """The loop without its checks."""
        return cast(EventLoop, super())

    # -- the turn -----------------------------------------------------------------------------------------------

    def turn(self, block: bool) -> None:
        self._check("turn")
        if self.phase is not OUTSIDE:
            raise ContractError("run nobody", f"a turn began while the loop was {self.phase}")
        for post in [*self._posts]:
            if post.ran:  # it was in question
                self._posts.pop(post, None)
        self._due_posts = [*self._posts]
        made = self.stats.turns
        self._waiters = None
        if self._skip:
            self._skip -= 1
        else:
            self._waiters = waiters = self._all_waiters()
            self._waiting = {id(waiter) for _, waiter in waiters}
        self._expired, self._last = False, (-FOREVER, 0)
        queue = self._queue
        queue.begin(None if self._waiters is None else self._waiting)
        # No call stands in these lines, nor in those that undo them: a raising signal handler cannot part them.
        queue.append, queue.popleft = queue.judged_append, queue.judged_popleft  # type: ignore[method-assign]
        self.phase = DISPATCH
        try:
            self.loop_below().turn(block)
        except BaseException:
            self.phase = OUTSIDE
            del queue.append, queue.popleft
            self._struck()
            raise
        self.phase = OUTSIDE
        del queue.append, queue.popleft
        self._disturbed = False
        try:
            for post in self._due_posts:
                if not post.ran:
                    self.note("posts", f"{post!r} was posted before the turn, and has not run")
            if self.asleep:
                self.note("asleep", "the loop says after its turn that it is asleep")
            if self._waiters is not None:
                self._look_at_waiters(self._waiters)
                self._look_at_timers(made)
                self._look_at_books()
                self._skip = (len(self._waiters) + len(self._timers) + len(self.ready)) // PER_TURN
        finally:
            self._waiters = None
            self._due_posts = ()
        self._raise_fault()

    def _struck(self) -> None:
        """What came out of the turn may have struck between the two halves of waking somebody: do the second half."""
        _Disturbances.count += 1
        self._disturbed = True
        before, self._waiters = self._waiters, None
        self._fault = None  # what recovery does looks like a fault
        if before:
            there = {id(waiter) for _, waiter in self._all_waiters()} | self._queue.ids()
            self._queue.extend(waiter for _, waiter in before if id(waiter) not in there)

    # -- the other verbs ----------------------------------------------------------------------------------------

    def post(self, function: Callable[..., None], *args: object) -> None:
        post = CheckedPost(self, function, args)
        self.loop_below().post(post)
        self._posts[post] = None
        if post.ran:  # already, in the loop's thread
            self._posts.pop(post, None)

    def quiet(self) -> bool:
        self._check_thread("quiet")
        return self.loop_below().quiet()

    def handle(self, fd: int, fresh: bool) -> Handle:
        self._check_thread("handle")
        return self.loop_below().handle(fd, fresh)

    def claim(self, handle: Handle) -> Handle:
        self._check("claim")
        try:
            claimed = self.loop_below().claim(handle)
        except BaseException as error:
            self._disturb(error)
            raise
        if claimed.loop is not self:
            raise ContractError("thread", f"fd {handle.fd} was claimed here, and belongs to another loop still")
        return claimed

    def watch(self, direction: Direction, deadline: float) -> bool:
        self._check("watch")
        try:
            watched = self.loop_below().watch(direction, deadline)
        except BaseException as error:
            self._disturb(error)
            raise
        if watched and deadline < direction.alarm:
            raise ContractError("alarm", f"fd {direction.handle.fd} is watched without an alarm at {deadline!r}")
        return watched

    def unwatch(self, direction: Direction) -> None:
        if not self.closed:  # as the loops of threads are that do not exist in a forked child
            self._check_thread("unwatch")
        self.loop_below().unwatch(direction)

    def release(self, handle: Handle, finish: Callable[[], None]) -> None:
        try:
            self.loop_below().release(handle, CheckedFinish(self, handle, finish))
        except BaseException as error:
            self._disturb(error)
            raise
        if not handle.closed:
            self.fault("release", f"fd {handle.fd} was released, and is not marked as closed")

    def close(self) -> None:
        if self.closed:
            self.loop_below().close()
            return
        self._check("close")
        waiters = self._all_waiters()
        self.phase = POSTED  # waiters are woken, posts are run
        try:
            self.loop_below().close()
        finally:
            self.phase = OUTSIDE
        ready = self._queue.ids()
        for direction, waiter in waiters:
            if direction.holds(waiter):
                self.note("closed", f"{waiter!r} waits for fd {direction.handle.fd} in a closed loop")
            elif id(waiter) not in ready:
                self.note("lost", f"{waiter!r} waited for fd {direction.handle.fd} in a loop that was closed")
        for handle in self.handles():
            self.note("balance", f"the loop is closed, and knows fd {handle.fd} still")
        self._raise_fault()

    def after_fork(self) -> None:
        self.loop_below().after_fork()
        self._start_over()

    def _checked_schedule(self, deadline: float, target: TimerTarget) -> Timer:
        self._check_thread("schedule")
        if self.closed:
            raise ContractError("closed", f"a timer for {target!r} is to be kept by a closed loop")
        checked = CheckedTarget(self, target, self.stats.turns)
        timer = self._schedule(deadline, checked)
        self._timers[checked] = timer
        return timer

    def _checked_unschedule(self, timer: Timer) -> bool:
        if not self.closed:
            self._check_thread("unschedule")
        target = timer.target
        if not isinstance(target, CheckedTarget):  # it has been unscheduled before
            return self._unschedule(timer)
        self._timers.pop(target, None)
        done = self._unschedule(timer)
        target.over = True
        return done

    # -- what the parts report ----------------------------------------------------------------------------------

    def fault(self, rule: str, what: str) -> None:
        """A rule is broken: raise ContractError; if that is inside a turn, when it is over."""
        if self.phase is OUTSIDE or threading.get_ident() != self.thread:
            raise ContractError(rule, what)
        self.note(rule, what)

    def note(self, rule: str, what: str) -> None:
        """Have ContractError raised at the end of the turn. The first one counts."""
        if self._fault is None:
            error = ContractError(rule, what)
            error.add_note("noticed here:\n" + "".join(traceback.format_stack(limit=8)[:-1]))
            self._fault = error

    def _raise_fault(self) -> None:
        error, self._fault = self._fault, None
        if error is not None:
            raise error

    def judge_wake(self, waiter: Waiter) -> None:
        """Dispatch is waking somebody."""
        if self._waiters is not None and id(waiter) not in self._waiting:
            self.fault("waiter", f"{waiter!r} was woken by a turn, and did not wait for a file when it began")
        if self._expired:
            self.fault("data first", f"{waiter!r} was woken for a file after a deadline of the same turn had come")

    def run_post(self, post: CheckedPost) -> None:
        """It is a post's turn."""
        if threading.get_ident() != self.thread:
            raise foreign(self, f"{post!r}, which was posted, ran")
        if post.ran:
            self.fault("once", f"{post!r}, which was posted once, ran twice")
            return
        self._posts.pop(post, None)
        before, self.phase = self.phase, POSTED
        post.called, post.place = True, None  # no call stands between this and the function, nor in what follows it
        try:
            post.function(*post.args)
        except BaseException as error:
            traceback = error.__traceback__
            if traceback is not None and traceback.tb_next is not None:  # perhaps it has not begun: see posts.py
                post.place = traceback.tb_next
                self._posts[post] = None
            raise
        finally:
            self.phase = before

    def expiring(self, timer: Timer, target: CheckedTarget) -> None:
        """A timer has come to its end."""
        now = self.clock()
        inner = target.target
        if self.phase is OUTSIDE:
            self.fault("run nobody", f"a timer of {inner!r} expired outside of a turn")
        if timer.deadline > now:
            self.fault("never early", f"a timer of {inner!r} expired {timer.deadline - now:g} s before its deadline")
        if not self._disturbed:
            if target.over:
                self.fault("once", f"a timer of {inner!r} expired after it had expired or been unscheduled")
            if (timer.deadline, timer.sequence) < self._last:
                self.fault("in order", f"a timer of {inner!r} expired after one that was due later")
        self._expired, self._last = True, (timer.deadline, timer.sequence)
        before, self.phase = self.phase, EXPIRING
        try:
            inner.expire(timer)
        finally:
            self.phase = before
        target.over = True
        self._timers.pop(target, None)

    # -- the rules ----------------------------------------------------------------------------------------------

    def _check(self, verb: str) -> None:
        """For verbs that nothing inside a dispatch may call: also the thread, and that the loop is open."""
        self._check_thread(verb)
        if self.closed:
            raise ContractError("closed", f"{verb}() was called on a closed loop")
        if self.phase is DISPATCH and verb != "turn":
            raise ContractError("run nobody", f"{verb}() was called while the loop was {self.phase}")

    def _check_thread(self, verb: str) -> None:
        if threading.get_ident() != self.thread:
            raise foreign(self, f"{verb}() was called")

    def _disturb(self, error: BaseException) -> None:
        """A verb has raised. A refusal leaves the books in order; what a signal handler raises in there may not."""
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        if trace is None or not trace.tb_frame.f_globals.get("__name__", "").startswith(_HERE):
            _Disturbances.count += 1

    def _all_waiters(self) -> list[tuple[Direction, Waiter]]:
        return [each for handle in self.handles() for each in waiters_of(handle)]

    def _look_at_waiters(self, before: Sequence[tuple[Direction, Waiter]]) -> None:
        there, ready = {id(waiter) for _, waiter in self._all_waiters()}, self._queue.ids()
        for direction, waiter in before:
            fd = direction.handle.fd
            if id(waiter) not in there and id(waiter) not in ready:
                self.note("lost", f"{waiter!r} waited for fd {fd}, does so no more, and was not woken")
            if id(waiter) in there and id(waiter) in ready and id(waiter) not in self._queue.spurious:
                self.note("once", f"{waiter!r} was woken, and waits for fd {fd} still")

    def _look_at_timers(self, made: int) -> None:
        """`made`: the number of the turn. Timers with that number or a later one were made in it."""
        passed = self.clock() - LATE if self._timers else -FOREVER
        for target in list(self._timers):
            timer = self._timers.get(target)
            if timer is not None and timer.target is target and timer.deadline <= passed and target.made < made:
                target.overdue += 1
                if target.overdue >= LATE_TURNS:
                    self.note("late", f"a timer of {target.target!r}, due at {timer.deadline!r}, has not expired")

    def _look_at_books(self) -> None:
        now = _Disturbances.count
        counted, known = self.books()
        if self._difference[1] != now:
            self._difference = counted - known, now
        elif counted - known != self._difference[0]:
            self.note("balance", f"{counted} registrations by its counters, and {known} by its tables")
            self._difference = counted - known, now
