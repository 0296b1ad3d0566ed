"""celery's signal handlers, run by a fiber.

Facts, and what follows:

* celery does in its handlers what handlers should not: a cold shutdown waits for tasks, talks to the broker, stores
  results. A handler strikes in the middle of any fiber, or in the runtime, where nothing may wait.
* celery's loop stands still meanwhile, and so no new tasks come. So a handler is run by the fiber of that loop, at its next
  turn, which comes at once. If it does not come (the broker is gone, the worker has only just begun, or ends already), a
  fiber of its own runs it a second later; and at once, where celery has no loop.
* What a handler raises to end the worker is a SystemExit. From any fiber, that goes to the main one.
* All of celery's handlers are installed in one place, `celery.platforms.signals`.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from celery import platforms

from ..core.runtime import sleep, spawn

#: Seconds in which celery's loop may take a handler.
PATIENCE: Final = 1.0

Handler = Callable[..., object]


class Relay:
    """Handlers that have been struck, and not run. In the main thread."""

    def __init__(self) -> None:
        self._struck: deque[tuple[Handler, tuple[Any, ...]]] = deque()
        self.wake: Callable[[], None] | None = None  # has celery's loop call `run`; may be called in a signal handler

    def struck(self, handler: Handler, *args: Any) -> None:
        """A signal has come. In a signal handler."""
        self._struck.append((handler, args))
        if self.wake is None:
            spawn(self.run)
        else:
            spawn(self._otherwise)
            self.wake()

    def run(self) -> None:
        """Run what has been struck."""
        while self._struck:
            handler, args = self._struck.popleft()
            handler(*args)

    def _otherwise(self) -> None:
        sleep(PATIENCE)
        self.run()


relay: Final = Relay()


class RelayedSignals(platforms.Signals):  # type: ignore[misc] # celery has no types
    """As `celery.platforms.Signals`; the handlers are run by a fiber."""

    def __setitem__(self, name: Any, handler: Any) -> None:
        if callable(handler):
            super().__setitem__(name, lambda *args: relay.struck(handler, *args))
        else:
            super().__setitem__(name, handler)


def install() -> None:
    """Before celery installs any handler."""
    if not isinstance(platforms.signals, RelayedSignals):
        platforms.signals = RelayedSignals()
