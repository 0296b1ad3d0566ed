"""A clock on which hours pass in milliseconds.

Its time stands still while any fiber of the thread runs. When all wait, it jumps to the next deadline: nothing could
happen in between. So a program that sleeps, times out and retries does so in the right order, at exactly the right times,
and at once. How the loop decides that all wait is in virtual.py.
"""

from typing import Protocol

from ..core.scheduler import check_seconds, get_scheduler
from ..errors import LoopClosedError
from ..eventloop.clock import FOREVER
from .idle import wait_all_parked


class VirtualClockError(RuntimeError):
    """Virtual time cannot go on; the text says which fiber waits for what that time does not bring."""


class _Home(Protocol):
    """What a clock needs of its loop."""

    closed: bool

    def next_deadline(self) -> float | None: ...


class VirtualClock:
    """The clock of one loop (virtual.py). Calling it gives the time in seconds.

    It starts at `start`. With `auto` time jumps by itself, else by `advance` only. It belongs to the thread of its loop;
    others may read it.

    Time stands still while a fiber waits for something real: a file descriptor, a busy worker thread, with
    `watch_threads` also any other thread that was started since the loop was made. If nothing at all has happened for
    `patience` real seconds (> 0, infinity: no limit) in such a state, or where nothing is left that could happen, the
    main fiber gets VirtualClockError. Only for calls in worker threads, which have an end, there is no such limit.
    """

    __slots__ = ("_loop", "_now", "auto", "patience", "watch_threads")

    def __init__(
        self, start: float = 0.0, *, auto: bool = True, patience: float = 5.0, watch_threads: bool = True
    ) -> None:
        if not -FOREVER < start < FOREVER:
            raise ValueError(f"a clock starts at a finite number of seconds, not at {start!r}")
        if check_seconds("patience", patience) == 0:
            raise ValueError("patience must be more than 0 seconds")
        self._now = float(start)
        self._loop: _Home | None = None
        self.auto = auto
        self.patience = patience
        self.watch_threads = watch_threads

    def __call__(self) -> float:
        return self._now

    def attach(self, loop: _Home) -> None:
        """A loop calls this when it is made. A clock has one loop in its life: another's jumps would be wrong for it."""
        if self._loop is not None:
            raise RuntimeError(f"{self!r} is the clock of another loop; make a new one for each")
        self._loop = loop

    def jump(self, deadline: float) -> None:
        """Nothing happens before `deadline`. Never goes back. For the loop."""
        if deadline > self._now:
            self._now = deadline

    def advance(self, seconds: float) -> None:
        """Let `seconds` (>= 0, finite) pass, now: every deadline in that time comes, each at its time, and whoever it
        wakes runs until all wait again.

        For a clock that does not jump by itself, or to be done with it in one step. Fiber code of the loop's thread.
        """
        if check_seconds("seconds", seconds) == FOREVER:
            raise ValueError("a clock can be advanced by a finite time only, not by inf seconds")
        loop = self._loop
        running: object = get_scheduler().loop
        if loop is None or running is not loop:
            raise RuntimeError(f"{self!r} is not the clock of the loop that runs in this thread")
        if loop.closed:
            raise LoopClosedError(f"the loop of {self!r} has been closed")
        target = self._now + seconds
        wait_all_parked()
        while (deadline := loop.next_deadline()) is not None and deadline <= target:
            self.jump(deadline)
            wait_all_parked()
        self.jump(target)
        wait_all_parked()

    def __repr__(self) -> str:
        return f"<VirtualClock at {self._now:.6f}{'' if self.auto else ', by hand'}>"
