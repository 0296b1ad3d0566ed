"""The switching half of a scheduler: no hub, pooled carriers, direct hand-off.

* A fiber that must wait calls `park`. It takes the next fiber from the ready queue and switches straight to it. If none
  is ready it runs the event loop right there, on the stack of the fiber that waits; if it becomes ready itself, it goes
  on without any switch.
* Fibers are data; *carriers* are the greenlets that run them. A carrier that has finished a fiber runs the next
  unstarted one without a switch. Only when the next one has started already (and so stands on a greenlet of its own)
  does the carrier lie down in the idle pool, or, if that is full, end.
* A greenlet's C stack begins where its starter stands, and its recursion depth too. So all carriers are started by the
  *launcher*, a greenlet parked at the depth at which the scheduler was made, and replaced if main comes by at a
  shallower one. A carrier that ends returns into the launcher, which switches to whoever is next.
* What is saved at a suspension is `getcurrent()`, not the carrier: a fiber may run greenlets of its own.

`current` is the fiber that runs, and None while runtime code does. Code that finds None (a finaliser, a signal handler
in the kernel wait, a done-callback) is inside the runtime: it may not block, and what it asks for goes through the inbox.

Hand-off. Whoever switches writes `handoff` first, and the next fiber leaves the ready queue only when it runs; so an
exception anywhere before leaves everything as it was. Whoever is resumed checks `handoff`: a greenlet that ends, or is
thrown into, may bring control to a stack that nobody handed it to. Then it goes back to the home of the current
fiber, with a RuntimeError, and the parked fiber keeps waiting.

What surfaces in runtime code (a raising signal handler) belongs to the main fiber, and after it all waits are looked
over, since it may have struck between taking a fiber out of its place and making it ready.

Rule for every frame that stays below a switch for long: it names neither its own greenlet nor, while idle, a fiber.
greenlet cannot show such cycles to the garbage collector.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakSet

from greenlet import GreenletExit, getcurrent

from ..errors import Cancelled, FiberKilled
from ..eventloop.contract import EventLoop
from ..eventloop.waiter import RETRY, Outcome
from .carrierpool import IDLE_MAX, SHRINK_EVERY, CarrierPool
from .courtesy import PATIENCE, Courtesy
from .fiber import INTERRUPTED, Fiber, Place, Report
from .tracebacks import trim

_log: Final = logging.getLogger("fibers")

#: A fiber that never waits gives way to the kernel wait after this many switches, or sooner if these take long.
SWITCHES_PER_TURN: Final = 61


class Carriers(CarrierPool):
    """See the module's text. Everything here is for the owner's thread, and, where not said otherwise, for runtime code
    (`current` is None).
    """

    __slots__ = (
        "_allowed",
        "_courtesy",
        "_reports",
        "_since",
        "budget",
        "current",
        "fibers",
        "loop",
        "now",
        "on_idle",
        "ready",
        "struck",
        "switches",
        "thread",
    )

    def __init__(self, loop: EventLoop) -> None:
        self.loop = loop
        self.thread = threading.get_ident()
        self.ready: deque[Any] = loop.ready  # of fibers; the loop knows them as waiters
        self.idle = []
        self.fibers: set[Fiber[Any]] = set()  # all that are not done, but for main
        self.switches = 0
        self.struck = False  # a signal handler has raised in runtime code at some time
        self.budget = self._allowed = SWITCHES_PER_TURN
        self._since: float | None = None
        self.now = loop.clock()
        self._courtesy = Courtesy()
        # Called in runtime mode before the loop may sleep; it may make fibers ready. One callable: who wants to be called
        # as well puts his own here, which calls the one that was there when he is done, and in the end puts that back.
        self.on_idle: Callable[[], object] | None = None
        self._idle_low = 0
        self._reports: WeakSet[Report] = WeakSet()  # errors that nobody has retrieved so far
        self.main = self._main_fiber()
        self.current: Fiber[Any] | None = self.main
        self.handoff = self.main  # the fiber that control is being given to; None: retire
        self._launch()

    def _main_fiber(self) -> Fiber[Any]:
        """The fiber that the thread itself is."""
        raise TypeError("a Carriers is half a scheduler")

    # -- switching ----------------------------------------------------------------------------------------------

    def park(self, me: Fiber[Any], place: Place | None, deadline: float | None = None) -> Outcome | None:
        """Suspend the current fiber until somebody has appended it to `ready`, at most until `deadline` (finite).

        Called as fiber code (`current` is `me`). The caller has put `me` where it will be woken: in `place`, or, with
        None, in the ready queue. Returns why it was woken, None for a plain wake-up. Raises what `kill`, `cancel` or
        Ctrl-C have for it, unless it was woken before they came.
        """
        ready = self.ready
        me.waiting = place
        me.since = self.now
        if me.interrupt and place is not None and not me.firm and place.abandon(me):
            # Not at once: a fiber that goes on whatever it is told must not keep the others from running.
            deadline = None
            me.outcome = INTERRUPTED
            ready.append(me)
        # No call stands between the look at `interrupt` and this: what comes later finds `current` None, and `me` waiting.
        self.current = None
        while True:
            try:
                while True:
                    try:
                        if deadline is not None:
                            me.timer = self.loop.schedule(deadline, me)
                            deadline = None
                        self.budget -= 1
                        if self.budget <= 0:
                            self._turn(False)
                        while not ready:
                            self._turn(True)
                        following = ready[0]
                        if following is not me:
                            me.greenlet = getcurrent()
                            self.handoff = following
                            self.switches += 1
                            (following.greenlet or self._carrier(me)).switch()
                            while self.handoff is not me:
                                self._stray()
                        if me.timer is not None:
                            self.loop.unschedule(me.timer)
                            me.timer = None
                        self.current = me
                        ready.popleft()
                        break
                    except GreenletExit:
                        raise  # the greenlet is being deallocated: it unwinds where it stands, and touches nothing
                    except BaseException as error:
                        if self._struck(error, me):
                            break
                break
            except GreenletExit:
                raise
            except BaseException as error:  # one that came while the first was dealt with, or at the jump back
                if self._struck(error, me):
                    break
        me.waiting = None
        outcome = me.outcome
        if outcome is not None:
            me.outcome = None
            if outcome is INTERRUPTED:
                following = None  # its error may refer to this one, and this one to this frame
                me.interrupted()
                return RETRY
        return outcome

    def _turn(self, block: bool) -> None:
        """One turn of the loop, and what is due once a turn."""
        loop = self.loop
        if block:
            self._allowed, self._since = SWITCHES_PER_TURN, None
            self.now = now = loop.clock()
            if self.on_idle is not None:
                self.on_idle()
        else:
            # How long the switches since the last such turn took tells how many of them fit into PATIENCE.
            self.now = now = loop.clock()
            since, self._since = self._since, now
            if since is not None:
                fit = self._allowed * PATIENCE / max(now - since, 1e-9)
                self._allowed = max(1, int(fit)) if fit < SWITCHES_PER_TURN else SWITCHES_PER_TURN
        self.budget = self._allowed
        if now >= self._courtesy.due:
            self._courtesy.pause(now)
        loop.turn(block)
        idle = len(self.idle)
        if idle:
            if idle < self._idle_low:
                self._idle_low = idle
            if not loop.stats.turns % SHRINK_EVERY:
                self._shrink()

    def _struck(self, error: BaseException, me: Fiber[Any]) -> bool:
        """Something raised in runtime code on the stack of `me`. True if `me` is running again all the same."""
        if self.current is me:
            if self.ready and self.ready[0] is me:
                self.ready.popleft()
            self._strike(error)
            return True
        if self.current is not None:
            self._stray(error)  # thrown into a parked fiber by code of the current one: an error of that code
        else:
            self._strike(error)
        return False

    def _strike(self, error: BaseException) -> None:
        """A signal handler has raised in runtime code: that is main's. Some fiber may have got lost between two steps."""
        while True:
            try:
                self.struck = True
                self.throw(self.main, error)
                self._reconcile()
                return
            except GreenletExit:
                raise
            except BaseException as another:
                error = another

    def _stray(self, error: BaseException | None = None) -> None:
        """Control has come here without a hand-off: give it back to the fiber that is running."""
        current = self.current
        if current is None:
            # Nobody runs: the greenlet that was to take over has ended before it could. Hand over again.
            (self.handoff.greenlet or self._carrier(self.handoff)).switch()
            return
        problem = RuntimeError(
            "a greenlet ended in, or switched to, the greenlet of a fiber that is waiting; "
            "switch only between greenlets that this fiber itself has made and that end while it runs"
        )
        problem.__cause__ = error
        assert current.home is not None  # only a fiber that is done has none
        current.home.throw(problem)

    def _reconcile(self) -> None:
        """Wake every fiber that is neither running nor ready nor in the place where it waits. Such wakes are spurious."""
        ready = set(self.ready)
        for fiber in [*self.fibers, self.main]:
            if fiber is self.current or fiber.greenlet is None or fiber in ready:
                continue
            if fiber.waiting is None or not fiber.waiting.holds(fiber):
                self.ready.append(fiber)

    def arrive(self, fiber: Fiber[Any]) -> None:
        """A wake-up from outside has come through the inbox; whoever sent it has taken the fiber out of its place."""
        if self.struck:  # then it may have been woken meanwhile
            if fiber is self.current or fiber.greenlet is None or fiber in self.ready:
                return
            if fiber.waiting is not None:
                fiber.waiting.abandon(fiber)
        self.ready.append(fiber)

    # -- carriers -----------------------------------------------------------------------------------------------

    def _carry(self) -> None:
        """The body of a carrier: run the fiber handed over, then whoever is next.

        Each of its steps in runtime code can be done again, because a signal handler may raise between any two calls.
        """
        ready, idle = self.ready, self.idle
        while True:
            fiber: Any = self.handoff
            while True:
                try:
                    if fiber.stands_by:
                        made = fiber.embody()
                        self.fibers.add(made)
                        ready[0] = self.handoff = fiber = made
                    fiber.greenlet = fiber.home = getcurrent()
                    if ready and ready[0] is fiber:
                        ready.popleft()
                    break
                except BaseException as error:
                    self._strike(error)
            if not fiber._done:  # else it was cancelled before it started
                try:
                    self.current = fiber
                    if fiber._shared_context:
                        fiber._result = self._run_in_context(fiber)
                    else:
                        fiber._result = fiber._context.run(fiber._fn, *fiber._args)
                    self.current = None
                except GreenletExit:
                    if self.current is None or fiber is not self.current:
                        return  # this greenlet is being deallocated; nothing here is ours to touch
                    self.current = None
                    fiber._result = None  # how greenlets say "stop"
                except BaseException as error:
                    self.current = None
                    fiber._error = error
            while True:
                try:
                    if fiber._error is not None:
                        trim(fiber._error, _OWN_CODE)
                        self._failed(fiber)
                    if fiber.alarm is not None:
                        self.loop.unschedule(fiber.alarm)
                    if fiber.scope is not None:
                        fiber.leave_scopes(fiber)
                    fiber._args = fiber._context = fiber.greenlet = fiber.home = fiber.alarm = fiber._locals = None
                    fiber._done = True
                    self.fibers.discard(fiber)
                    if fiber._parent is not None:
                        fiber._parent.left(fiber)
                    if fiber._ended is not None:
                        fiber._ended.announce(fiber)
                    break
                except BaseException as error:
                    self._strike(error)
            del fiber
            while True:
                try:
                    while True:
                        try:
                            self.budget -= 1
                            if self.budget <= 0:
                                self._turn(False)
                            while not ready:
                                self._turn(True)
                            self.handoff = ready[0]
                            if self.handoff.greenlet is None:
                                break
                            if len(idle) >= IDLE_MAX:
                                return  # into the launcher, which hands over
                            idle.append(getcurrent())
                            self.switches += 1
                            self.handoff.greenlet.switch()
                            while self.current is not None:
                                self._stray()
                            if self.handoff is None:
                                return  # retired
                            break
                        except GreenletExit:
                            return
                        except BaseException as error:
                            self._struck_idle(error)
                    break
                except GreenletExit:
                    return
                except BaseException as error:
                    self._struck_idle(error)

    def _struck_idle(self, error: BaseException) -> None:
        """Something raised in a carrier that is between two fibers."""
        if self.idle and self.idle[-1] is getcurrent():
            self.idle.pop()
        if self.current is not None:
            self._stray(error)
        else:
            self._strike(error)

    def _run_in_context(self, fiber: Any) -> Any:
        """Run a fiber in a context that others may share: `Context.run` would refuse a second one."""
        fiber.home.gr_context = fiber._context
        try:
            return fiber._fn(*fiber._args)
        finally:
            fiber.home.gr_context = None

    def _failed(self, fiber: Fiber[Any]) -> None:
        """See to it that the error of a fiber is not lost if nobody asks for it. A second call does nothing."""
        error = fiber._error
        if error is None or fiber._report is not None or fiber._done:
            return
        if fiber._parent is not None:
            return  # its task group raises it
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            if error not in (self.main._pending or ()):
                self.throw(self.main, error)
        elif not isinstance(error, (Cancelled, FiberKilled)):
            fiber._report = Report(fiber.name, fiber.spawned_at, error)
            self._reports.add(fiber._report)

    def throw(self, fiber: Fiber[Any], error: BaseException) -> None:
        """Raise `error` in a fiber, once: where it waits, else at its next wait."""
        if fiber._pending is None:
            fiber._pending = deque()
        fiber._pending.append(error)
        self.interrupt(fiber)

    def interrupt(self, fiber: Fiber[Any]) -> None:
        """The fiber has something to raise: take it out of its wait, unless it has been woken already."""
        fiber.interrupt = True
        place = fiber.waiting
        if place is not None and fiber is not self.current and not fiber.firm and place.abandon(fiber):
            fiber.outcome = INTERRUPTED
            self.ready.append(fiber)


_OWN_CODE: Final = (Carriers._carry.__code__, Carriers._run_in_context.__code__)
