"""A clock that jumps: tests of deadlines in which hours pass at once, and no instant is a matter of luck.

`run_virtual(main)` runs `main(clock)` in a thread of its own on a loop whose clock stands still while anything can run.
When the loop is about to sleep, the clock jumps to the next deadline. (libevent keeps its own time; there the loop is one
over poll.)
"""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import fibers
from fibers.core.scheduler import get_scheduler
from fibers.eventloop import BACKEND, PollingLoop, new_loop

T = TypeVar("T")


class VirtualClock:
    """Called as a clock; `advance` moves it by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class _Jump:
    """The scheduler's `on_idle`, in front of the one that was there."""

    def __init__(self, clock: VirtualClock, loop: PollingLoop, following: Callable[[], object] | None) -> None:
        self._clock = clock
        self._loop = loop
        self._following = following

    def __call__(self) -> None:
        deadline = self._loop.timers.next_deadline()
        if deadline is not None and not self._loop.ready and not self._loop._inbox:
            self._clock.now = max(self._clock.now, deadline)
        elif self._following is not None:
            self._following()


def run_virtual(main: Callable[[VirtualClock], T]) -> T:
    """See the module's text."""
    results: list[T] = []
    errors: list[BaseException] = []

    def inside(clock: VirtualClock) -> T:
        scheduler = get_scheduler()
        loop: Any = scheduler.loop
        scheduler.on_idle = _Jump(clock, loop, scheduler.on_idle)
        return main(clock)

    def in_thread() -> None:
        clock = VirtualClock()
        try:
            loop = new_loop("poll" if BACKEND == "libevent" else BACKEND, clock)
            results.append(fibers.run(inside, clock, loop=loop))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    try:
        if errors:
            raise errors[0]
        return results[0]
    finally:
        errors.clear()
