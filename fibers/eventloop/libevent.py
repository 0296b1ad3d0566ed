"""The loop over libevent: the way that it was always done, for when the lifetime loop is under suspicion.

Each operation that has to wait adds an event, one-shot, and each deadline is a timer of libevent's. Nothing is shared
with the lifetime loop but the contract, and what the contract is made of (turns, waiters, the wakers).

Facts (libevent 2.1.12), and what follows:

* The library's own means to end a wait from outside are no use. EVLOOP_ONCE is not ended by its internal notifications,
  and a break that is asked for between two runs is forgotten at the start of the next. So the loop has an fd of its own
  for that, as an ordinary persistent event, and another that signals write to: else a Python handler runs when the wait
  ends by itself.
* What a run of the base has collected stays collected until it is dispatched, and to dispatch twice is harmless. So an
  exception in between, which only a signal handler can raise, loses nothing: what is left is dispatched on the way out.
* A run fetches 32 kernel events at first, later more, and fires the timers behind them, although more files may be ready.
  So before timers expire the base is run again until there is no more, if the batch was not a small one.
* The methods of libevent differ in what they make of an fd closed behind our back: epoll forgets it, poll says that it is
  ready, select fails, each time. So when a run fails, the culprits are looked for.

What it does to the base is in libevent_base.py, files in libevent_files.py, timers in libevent_timers.py.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from .clock import MONOTONIC, Clock
from .contract import LoopStats
from .libevent_base import LOOK, WAIT, Base
from .libevent_binding import EV_PERSIST, EV_READ, VERSION
from .libevent_files import LibeventDirection, LibeventFiles, LibeventHandle, loops
from .libevent_timers import Group, LibeventTimers
from .posts import run_posts, throw
from .timers import Timer
from .waiter import RETRY, Waiter
from .waker import SignalWaker, Waker

_log: Final = logging.getLogger("fibers.eventloop")

#: A run that brought fewer files than this has left none behind (the smallest batch is 32 kernel events).
BATCH: Final = 16


class LibeventLoop(LibeventFiles):
    """See the module's text."""

    __slots__ = (
        "_due",
        "_follows_clock",
        "_inbox",
        "_signals",
        "_waker",
        "asleep",
        "clock",
        "name",
        "ready",
        "schedule",
        "stats",
        "thread",
        "timers",
        "unschedule",
    )

    def __init__(self, clock: Clock = MONOTONIC) -> None:
        self.name = "libevent"
        self.clock = clock
        self._follows_clock = clock is not MONOTONIC  # libevent knows nothing of any other
        self.thread = threading.get_ident()
        self.ready: deque[Waiter] = deque()
        self.stats = LoopStats()
        self.closed = False
        self.asleep = False
        self._inbox: deque[tuple[Callable[..., None], tuple[object, ...]]] = deque()
        self._due: deque[Timer] = deque()
        self._table: dict[int, LibeventHandle] = {}
        self._open()
        loops.add(self)
        _log.info("fibers is using the libevent event loop (libevent %s, %s)", self.version, self.method)

    def _open(self) -> None:
        self._base = Base()
        self.timers = LibeventTimers(self._base, self.clock)
        self.schedule = self.timers.add
        self.unschedule = self.timers.cancel
        try:
            self._waker = Waker()
            self._signals: SignalWaker | None = None
            if self.thread == threading.main_thread().ident:
                try:
                    self._signals = SignalWaker()
                except ValueError:
                    pass  # the main thread of a sub-interpreter gets no signals
            for waker in (self._waker, self._signals):
                if waker is not None:
                    refused = self._base.add(self._base.new_event(waker.fd, EV_READ | EV_PERSIST, waker))
                    if refused is not None:
                        raise refused
        except (OSError, ValueError):
            self._base.close()
            raise

    @property
    def version(self) -> str:
        """The version of the library, as "2.1.12-stable"."""
        return VERSION

    @property
    def method(self) -> str:
        """What libevent waits with here: "epoll", "poll", "select", "kqueue" …"""
        return self._base.method

    # -- from anywhere ------------------------------------------------------------------------------------------

    def post(self, function: Callable[..., None], *args: object) -> None:
        self._inbox.append((function, args))
        if self.asleep:
            self.asleep = False  # one wake is enough; the loop looks at its inbox whatever woke it
            self._waker.wake()

    def wake(self) -> None:
        self._waker.wake()

    def quiet(self) -> bool:
        return not (self._inbox or self._due or len(self.timers) or self._base.fired)

    def awaited(self) -> bool:
        return any(each.reading.waiter or each.writing.waiter for each in list(self._table.values()))

    # -- the turn -----------------------------------------------------------------------------------------------

    def turn(self, block: bool) -> None:
        base = self._base
        try:
            if self._inbox:
                self._run_inbox()
            if self._follows_clock:
                self.timers.follow_clock()
            flags = LOOK
            if block and not (self.ready or self._due or base.fired):
                self.asleep = True
                if not (self._inbox or self.ready):  # else posted before the poster could see that it must wake us
                    flags = WAIT
            self.stats.turns += 1
            try:
                base.run(flags)
            except OSError:
                if not self._release_closed():
                    raise
            self.asleep = False
            if base.fired:
                self._dispatch()
            if self._due:
                self._expire()
            if self._inbox:
                self._run_inbox()
        except BaseException:
            self._recover()
            raise

    def _dispatch(self) -> None:
        """Deal with everything that the base has collected; all files before any timer."""
        base, groups = self._base, dict[Group, None]()
        files = self._collect(groups)
        while groups and files >= BATCH:
            base.run(LOOK)
            files = self._collect(groups)
        if groups:
            self.timers.collect(list(groups), self._due)
            base.fired.clear()

    def _collect(self, groups: dict[Group, None]) -> int:
        """Wake the waiters of files; timers are added to `groups`, and stay in `fired`. Returns the number of files."""
        base, append, files = self._base, self.ready.append, 0
        for number in list(base.fired):
            event = base.events.get(number)
            target = None if event is None else event.target
            if target.__class__ is LibeventDirection:
                files += 1
                if target.asked:
                    target.asked = False
                    self.stats.unregistrations += 1
                target.edges += 1
                # No call stands between these: CPython looks for signals only after calls and at jumps.
                waiter = target.waiter
                if waiter is not None:
                    target.waiter = None
                    append(waiter)
                if target.observers:
                    target.notify()
            elif target.__class__ is Group:
                groups[target] = None
                continue
            elif isinstance(target, Waker | SignalWaker):
                target.drain()
            del base.fired[number]
        return files

    def _expire(self) -> None:
        due = self._due
        while due:
            timer = due[0]
            if timer.target is not None:
                timer.target.expire(timer)
            due.popleft()

    def _run_inbox(self) -> None:
        run_posts(self._inbox)

    def _recover(self) -> None:
        """Wake every waiter whose event has been collected. (Timers that have, expire in the next turn, which is short.)"""
        self.asleep = False
        while True:
            try:
                self._collect({})
                return
            except BaseException as error:
                # Another signal handler has raised. The batch is still lost; this error comes out of the next turn.
                self._inbox.append((throw, (error,)))

    # -- the end ------------------------------------------------------------------------------------------------

    def close(self) -> None:
        if self.closed:
            return
        self._end()
        for handle in self._table.values():
            handle.reading.wake_all(RETRY)
            handle.writing.wake_all(RETRY)
        while self._inbox:
            self._run_inbox()
        self._table.clear()
        self._base.close()
        self._shut()

    def _shut(self) -> None:
        self._waker.close()
        if self._signals is not None:
            self._signals.close()

    def after_fork(self) -> None:
        self.timers.abandon()
        self._base.abandon()  # not even freed: that would reach into the parent; see libevent_base.py
        self._shut()
        for handle in self._table.values():
            handle.forget_all()
        self._table.clear()
        self._inbox.clear()
        self._due.clear()
        self.ready.clear()
        self.asleep = False
        self._open()
