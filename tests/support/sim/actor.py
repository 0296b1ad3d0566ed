"""A puppet with fibers on a simulated poller.

What it is told to do runs as code of its main fiber. Between two functions it stands still in the middle of that: its
loop makes no turn, and whoever is ready does not run.

    run_ready   let those run that are ready now
    turn        one turn of the loop; whoever it wakes does not run yet
    settle      let everybody run and the loop turn, until it would sleep

While it settles, no time passes: where the loop would sleep, its main fiber is woken as another thread would wake it. Only
at the end, while fibers unwind, does a wait let time pass.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

import fibers
from fibers.core.scheduler import Scheduler, get_scheduler
from fibers.eventloop import TIMED_OUT, PollingLoop

from .kernel import READ, SimKernel
from .poller import SimPoller
from .puppet import Actions, Puppet, Strike, run_all


class _Settling:
    """Where the main fiber waits for its thread to have nothing to do."""

    inside = True

    def __init__(self) -> None:
        self._fiber: Any = None

    def add(self, fiber: Any) -> None:
        self._fiber = fiber

    def abandon(self, fiber: Any) -> bool:
        was, self._fiber = self._fiber, None
        return was is fiber

    def holds(self, fiber: Any) -> bool:
        return self._fiber is fiber


class Actor(Puppet):
    """See the module's text."""

    def __init__(self, name: str, kernel: SimKernel, make_poller: Callable[[], SimPoller]) -> None:
        self.kernel = kernel
        self.struck = False  # a signal handler has raised in it
        self.at_clock: Actions = deque()  # to be done when it reads the clock
        self.at_call: Actions = deque()  # in its next system call on a file, at the beginning
        self.at_result: Actions = deque()  # and at the end
        self._make_poller = make_poller
        self._settling = _Settling()
        self._woken = False  # a wake-up is on its way
        super().__init__(name)

    # -- for the test -------------------------------------------------------------------------------------------

    def run_ready(self) -> None:
        self.call(self._run_ready)

    def turn(self) -> None:
        self.call(self._turn)

    def settle(self) -> None:
        self.call(self._settle)

    def has_something(self) -> bool:
        """Would it do anything before time passes?"""
        loop = self.loop
        deadline = loop.timers.next_deadline()
        late = deadline is not None and deadline <= self.kernel.now
        return bool(loop.ready or loop._inbox or loop._due or late or self.poller.has_something())

    def undisturbed(self) -> None:
        """Nothing is to happen in the middle of what it does."""
        for actions in (self.poller.before, self.poller.after, self.at_clock, self.at_call, self.at_result):
            actions.clear()

    def end(self) -> None:
        """End the fibers, close the loop, end the thread. Raises what could not come out before."""
        self.poller.sleep = self.poller.let_time_pass
        super().end()

    # -- in the thread ------------------------------------------------------------------------------------------

    def live(self) -> None:
        self.loop = PollingLoop(self._poller, self._clock)
        fibers.run(self._begin, loop=self.loop)

    def _begin(self) -> None:
        self.scheduler: Scheduler = get_scheduler()
        self.serve()

    def _poller(self) -> SimPoller:
        self.poller = self._make_poller()
        self.poller.sleep = self._sleep
        return self.poller

    def _clock(self) -> float:
        run_all(self.at_clock)
        return self.kernel.now

    def _run_ready(self) -> None:
        try:
            fibers.yield_now()
        except Strike:
            self.struck = True

    def _turn(self) -> None:
        poller, loop = self.poller, self.loop
        directions = [each for handle in loop._table.values() for each in (handle.reading, handle.writing)]
        waiting = [(each, each.waiter) for each in directions if each.waiter is not None]
        poller.reported.clear()
        try:
            self.scheduler.in_runtime(self.scheduler._turn, False)
        except Strike:
            self.struck = True
            return
        assert not poller.full, f"thread {self.name} has looked at one full batch of events, and not for more"
        for direction, waiter in waiting:
            mask = poller.READABLE if direction.interest == READ else poller.WRITABLE
            if waiter.outcome is TIMED_OUT and any(
                number == direction.handle.fd and bits & mask for number, bits in poller.reported
            ):
                raise AssertionError(f"{waiter} of thread {self.name} was timed out in a turn that had an event for it")

    def _settle(self) -> None:
        scheduler = self.scheduler
        while True:
            main = scheduler.main
            self._settling.add(main)
            try:
                scheduler.park(main, self._settling)
            except Strike:
                self.struck = True
                self._settling.abandon(main)
                continue
            if not scheduler.ready:
                return
            self._settling.abandon(main)

    def _sleep(self, until: float | None) -> bool:
        """For the poller: time does not pass in here. Who waits for it to settle wakes it, as another thread would."""
        loop = self.loop
        assert not loop.ready, f"the loop of thread {self.name} sleeps, and {loop.ready} is ready"
        assert not loop._inbox or self._woken, f"the loop of thread {self.name} sleeps, and something was posted"
        if until is not None and until <= self.kernel.now:
            return False
        assert not self._woken, f"the loop of thread {self.name} was woken, and has not heard of it"
        self._woken = True
        loop.post(self._wake_main)
        return True

    def _wake_main(self) -> None:
        self._woken = False
        if self._settling.abandon(self.scheduler.main):
            self.scheduler.ready.append(self.scheduler.main)
