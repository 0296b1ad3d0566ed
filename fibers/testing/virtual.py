"""An event loop whose time is virtual: where all fibers wait and nothing real is on its way, it jumps to the next deadline.

The order in one turn that may sleep:

1. Look without sleeping: posts, files, passed deadlines. If that made somebody ready, nothing else happens.
2. May time jump? Not while a worker thread is busy, another thread runs that may wake a fiber, a post waits, or a fiber
   waits for a file descriptor: what they bring comes before any deadline, as far as virtual time is concerned. (Workers
   are looked at before posts: a worker posts what it has before it becomes idle.)
3. If it may: set the clock to the next deadline, and look again.
4. If not: sleep in the kernel, for real, until something happens. Virtual deadlines do not count there, so the wait is
   not as long as the loop thinks; that is what `_Patient` sees to. After `patience` seconds without any event it is
   plain that the program waits for something that time alone does not bring. Then the main fiber is told, by name.

Threads that end wake nobody. So while time stands still because of one, the waits are short.

This takes a loop with a clock of its own. libevent's timers run in C, on real time; where that is the backend, the loop
here runs over the platform's own poller instead. (Hazards 12 and 13 of the design.)
"""

import threading
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from ..core.choosing import Choice
from ..core.dump import awaited, of_thread
from ..core.scheduler import state
from ..eventloop import BACKEND, BACKENDS, CHECKED, DEFAULT, _class
from ..eventloop.checked_polling import CheckedPollingLoop
from ..eventloop.clock import FOREVER
from ..eventloop.polling import PollingLoop
from ..eventloop.turns import Direction
from ..threads.workers import under_way
from .clock import VirtualClock, VirtualClockError
from .leaks import POOL_PREFIX

#: Seconds between two looks at threads that run.
THREAD_SLICE: Final = 0.01


class _Patient:
    """A poller whose sleeps last as long as it is told, not as long as its loop thinks (which is virtual)."""

    def __init__(self, poller: Any) -> None:
        self.poller = poller
        self.limit: float | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.poller, name)

    def wait(self, timeout: float | None) -> Any:
        return self.poller.wait(timeout if timeout == 0.0 else self.limit)


class VirtualLoop(PollingLoop):
    """See the module's text. Made in the thread that it will belong to, for `fibers.run(main, loop=…)`."""

    __slots__ = ("_alarm", "_patience", "_since", "_threads", "time")

    def __init__(self, clock: VirtualClock, backend: str = BACKEND) -> None:
        if backend not in BACKENDS:
            raise ValueError(f"there is no event loop {backend!r}; known are {', '.join(BACKENDS)}")
        if not isinstance(clock, VirtualClock):
            raise TypeError(f"a VirtualLoop needs a VirtualClock, not {clock!r}")
        clock.attach(self)
        self.time = clock
        self._threads = set(threading.enumerate())
        self._since: float | None = None  # when, in real time, nothing was left to do
        self._alarm: tuple[float, Callable[[], object]] | None = None
        make: Any = _class(DEFAULT if backend == "libevent" else backend)
        super().__init__(make, clock)
        self.name = f"virtual {self.name}"

    def _open(self) -> None:
        super()._open()
        patient: Any = _Patient(self._poller)
        self._poller = self._patience = patient

    def next_deadline(self) -> float | None:
        return self.timers.next_deadline()

    def set_alarm(self, seconds: float, function: Callable[[], object]) -> None:
        """Call `function()`, as runtime code in a turn, when `seconds` of real time have passed. One at a time."""
        self._alarm = monotonic() + seconds, function

    def stop_alarm(self) -> None:
        self._alarm = None

    def turn(self, block: bool) -> None:
        super().turn(False)
        if self._alarm is not None and monotonic() >= self._alarm[0]:
            function, self._alarm = self._alarm[1], None
            function()
        if self.ready:
            self._since = None
        elif block:
            self._pass_time()

    def _pass_time(self) -> None:
        """Nobody is ready: let time pass, virtual if possible."""
        workers = under_way()
        threads = self._running_threads()
        if self._inbox or self.ready:
            return  # by a worker just now, or by a finaliser
        deadline = self.timers.next_deadline()
        if self.time.auto and deadline is not None and not (workers or threads or self._watched()):
            self.time.jump(deadline)
            super().turn(False)
            self._since = None
            return
        now = monotonic()
        if self._since is None or workers:
            self._since = now
        left = self._since + self.time.patience - now
        if left <= 0:
            self._since = None
            self._complain(threads, deadline)
            return
        if workers or threads:
            left = min(left, THREAD_SLICE)
        if self._alarm is not None:
            left = min(left, max(0.0, self._alarm[0] - now))
        self._patience.limit = None if left == FOREVER else left
        super().turn(True)
        if self.ready:
            self._since = None

    def _running_threads(self) -> list[threading.Thread]:
        if not self.time.watch_threads:
            return []
        return [
            thread
            for thread in threading.enumerate()
            if thread not in self._threads and not thread.name.startswith(POOL_PREFIX)
        ]

    def _watched(self) -> bool:
        """Does somebody wait for a file?"""
        for handle in self._table.values():
            for direction in (handle.reading, handle.writing):
                if direction.waiter is not None or direction.queue or direction.observers:
                    return True
        return False

    def _complain(self, threads: list[threading.Thread], deadline: float | None) -> None:
        """Tell main that, and why, time stands still."""
        scheduler = state.scheduler
        if scheduler is None or scheduler.loop is not self:
            return
        reasons = []
        for fiber in [scheduler.main, *scheduler.fibers]:
            if _waits_for_a_file(fiber.waiting):
                reasons.append(f"fiber {fiber.name!r} waits for {awaited(fiber)}")
        remedy = "In-memory sockets (memory_pair, memory_network) obey a virtual clock, real files do not"
        if not reasons and threads:
            reasons = [f"thread {thread.name!r} is alive and may wake a fiber" for thread in threads]
            remedy = "Let the threads end, or make the clock with watch_threads=False"
        elif not reasons and deadline is not None:
            reasons = ["it does not jump by itself (auto=False)"]
            remedy = "Call its advance()"
        elif not reasons:
            reasons = ["nothing is left that could happen: no fiber has a deadline"]
            remedy = "Somebody has to wake these fibers"
        text = (
            f"virtual time has stood still at {self.time():.6f} for {self.time.patience:g} real seconds: "
            f"{'; '.join(reasons)}. {remedy}.\n{of_thread(scheduler)}"
        )
        scheduler.throw(scheduler.main, VirtualClockError(text))


def _waits_for_a_file(place: object) -> bool:
    if isinstance(place, Choice):
        return any(isinstance(offer.queue, Direction) for offer in place.offers)
    return isinstance(place, Direction)


class CheckedVirtualLoop(VirtualLoop, CheckedPollingLoop):
    """VirtualLoop, checking its contract (FIBERS_DEBUG=loop)."""


def new_virtual_loop(clock: VirtualClock, checked: bool = CHECKED) -> VirtualLoop:
    """The loop for a clock, over the poller that this process uses (with libevent: that of the platform)."""
    return CheckedVirtualLoop(clock) if checked else VirtualLoop(clock)
