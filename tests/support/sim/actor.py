"""A thread with fibers on a simulated poller, which does one thing at a time, when it is told to.

The test's thread gives it a function, which runs as code of the thread's main fiber, and waits for the answer. So two
such threads take turns as the test says, and whatever happens is the same each time. Between two functions the thread
stands still, in the middle of its main fiber: its loop makes no turn, and whoever is ready does not run.

    run_ready   let those run that are ready now
    turn        one turn of the loop, whoever it wakes does not run yet
    settle      let everybody run and the loop turn, until it would sleep

While it settles, no time passes: the poller asks `sleep`, and is told that the wait is over by a wake-up as another thread
would send it. `free` lets time pass instead, for an end that waits for fibers to unwind.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import fibers
from fibers.eventloop import TIMED_OUT, PollingLoop
from fibers.scheduler import Scheduler, get_scheduler

from .kernel import READ, SimKernel
from .poller import SimPoller

R = TypeVar("R")


class Strike(Exception):
    """What a signal handler raises."""


def run_all(actions: deque[Callable[[], None]]) -> None:
    while actions:
        actions.popleft()()


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


class Actor:
    """See the module's text. Made and used by one other thread."""

    def __init__(self, name: str, kernel: SimKernel, make_poller: Callable[[], SimPoller]) -> None:
        self.name = name
        self.kernel = kernel
        self._make_poller = make_poller
        self._commands: queue.SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...]] | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        self._settling = _Settling()
        self.busy = False  # somebody waits for its answer
        self._woken = False  # a wake-up is on its way
        self.struck = False  # a signal handler has raised in it
        self.at_clock: deque[Callable[[], None]] = deque()  # to be done when it reads the clock
        self.at_call: deque[Callable[[], None]] = deque()  # in its next system call on a file, at the beginning
        self.at_result: deque[Callable[[], None]] = deque()  # and at the end
        self._thread = threading.Thread(target=self._live, name=f"simulated {name}", daemon=True)
        self._thread.start()
        self._answer()

    def __repr__(self) -> str:
        return self.name

    # -- for the test -------------------------------------------------------------------------------------------

    def call(self, function: Callable[..., R], *args: Any) -> R:
        """Run something in the thread, in its main fiber, and return or raise what it does."""
        assert self._thread.is_alive(), f"thread {self.name} has ended"
        self.busy = True
        try:
            self._commands.put((function, args))
            return self._answer()  # type: ignore[no-any-return]
        finally:
            self.busy = False

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
        self.poller.sleep = self.poller._sleep
        self._commands.put(None)
        try:
            self._answer()
        finally:
            self._thread.join(5)

    def _answer(self) -> Any:
        try:
            result, error = self._answers.get(timeout=10)
        except queue.Empty:
            raise AssertionError(f"thread {self.name} hangs") from None
        if error is not None:
            raise error
        return result

    # -- in the thread ------------------------------------------------------------------------------------------

    def _live(self) -> None:
        error: BaseException | None = None
        try:
            self.loop = PollingLoop(self._poller, self._clock)
            fibers.run(self._serve, loop=self.loop)
        except BaseException as caught:
            error = caught
        self._answers.put((None, error))

    def _poller(self) -> SimPoller:
        self.poller = self._make_poller()
        self.poller.sleep = self._sleep
        return self.poller

    def _clock(self) -> float:
        run_all(self.at_clock)
        return self.kernel.now

    def _serve(self) -> None:
        self.scheduler: Scheduler = get_scheduler()
        self._answers.put((None, None))
        while (command := self._commands.get()) is not None:
            function, args = command
            try:
                answer = (function(*args), None)
            except BaseException as error:
                answer = (None, error)
            self._answers.put(answer)

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
