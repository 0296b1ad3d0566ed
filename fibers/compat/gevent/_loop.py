"""What programs call of gevent's event loops: callbacks at the next turn, and timers. Both are run in fibers.

A hub makes its loop, and says how a fiber is spawned: one of its own, whose errors it handles.
"""

import time
from collections.abc import Callable
from typing import Any

from ...core.scheduler import get_scheduler
from ...eventloop.timers import Timer

Spawn = Callable[[Callable[[], object]], None]


class Callback:
    """What `run_callback` and a started timer return."""

    def __init__(self) -> None:
        self.stopped = False

    @property
    def pending(self) -> bool:
        """Is it still to be called?"""
        return not self.stopped

    def stop(self) -> None:
        """Do not call it any more."""
        self.stopped = True

    close = stop


class LoopTimer(Callback):
    """`hub.loop.timer(after, repeat)`: calls a function in a fiber of its own, once or again and again."""

    def __init__(self, spawn: Spawn, after: float, repeat: float) -> None:
        super().__init__()
        self._spawn = spawn
        self.stopped = True
        self._after, self._repeat = after, repeat
        self._timer: Timer | None = None
        self._call: Callable[[], object] = _nothing

    def start(self, callback: Callable[..., object], *args: Any, update: Any = None) -> None:
        """Begin. It is called in a fiber, and may block."""
        self.stop()
        self.stopped = False
        self._call = lambda: callback(*args)
        self._schedule(self._after)

    def again(self, callback: Callable[..., object], *args: Any, update: Any = None) -> None:
        """As `start`, with the time of the repetitions."""
        self.start(callback, *args)

    def _schedule(self, seconds: float) -> None:
        scheduler = get_scheduler()
        scheduler.ask(self._set, scheduler.loop.clock() + max(seconds, 0.0))

    def _set(self, deadline: float) -> None:
        if not self.stopped:
            self._timer = get_scheduler().loop.schedule(deadline, self)

    def expire(self, timer: Timer) -> None:
        """The loop calls this."""
        self._timer = None
        self._spawn(self._call)
        if self._repeat > 0:
            self._set(get_scheduler().loop.clock() + self._repeat)
        else:
            self.stopped = True

    def stop(self) -> None:
        """Do not call any more."""
        self.stopped = True
        timer, self._timer = self._timer, None
        if timer is not None:
            get_scheduler().ask(get_scheduler().loop.unschedule, timer)  # type: ignore[arg-type]

    close = stop


def _nothing() -> None:
    """Before `start`."""


class Loop:
    """`hub.loop`: a face for the few functions of gevent's loops that programs call."""

    def __init__(self, spawn: Spawn) -> None:
        self._scheduler: Any = get_scheduler()
        self._spawn = spawn

    def now(self) -> float:
        """The time in seconds since the epoch."""
        return time.time()

    def update_now(self) -> None:
        """Nothing to do: a loop here reads its clock when it needs the time."""

    update = update_now

    def run_callback(self, function: Callable[..., object], *args: Any) -> Callback:
        """Call a function in a fiber, at the next turn."""
        return self.run_callback_threadsafe(function, *args)

    def run_callback_threadsafe(self, function: Callable[..., object], *args: Any) -> Callback:
        """As `run_callback`, from any thread."""
        callback = Callback()

        def call() -> None:
            if not callback.stopped:
                callback.stopped = True
                function(*args)

        self._scheduler.ask(self._spawn, call)
        return callback

    def timer(self, after: float, repeat: float = 0.0, ref: bool = True, priority: int | None = None) -> LoopTimer:
        """A timer, to be started with a function."""
        return LoopTimer(self._spawn, after, repeat)
