"""gevent.signal: `signal_handler`, which has a function called in a fiber when a signal comes."""

import signal as _signal
from collections.abc import Callable
from signal import getsignal, set_wakeup_fd, signal
from typing import Any

from greenlet import GreenletExit

from ...errors import Cancelled, FiberKilled
from .greenlet import Greenlet
from .hub import get_hub


class signal_handler:  # noqa: N801 - as gevent calls it
    """Have `handler(*args, **kwargs)` called in a fiber of its own at each signal, until `cancel`. Main thread only."""

    greenlet_class: Any = Greenlet
    #: Means nothing here.
    ref = False

    def __init__(self, signalnum: int, handler: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        if not callable(handler):
            raise TypeError("signal handler must be callable.")
        self.handler, self.args, self.kwargs = handler, args, kwargs
        self._signal = _signal.Signals(signalnum)
        self._before = _signal.signal(signalnum, self._strike)

    def _strike(self, signum: int, frame: object) -> None:
        get_hub().loop.run_callback(self.handle)

    def handle(self) -> None:
        """Have it called. What it raises is raised in the main greenlet, as from a handler of the standard kind."""
        self.greenlet_class.spawn(self._call)

    def _call(self) -> None:
        try:
            self.handler(*self.args, **self.kwargs)
        except (Cancelled, FiberKilled, GreenletExit):
            raise
        except BaseException as error:
            get_hub().handle_error(None, type(error), error, error.__traceback__)

    def cancel(self) -> None:
        """Do what was done before."""
        if _signal.getsignal(self._signal) == self._strike:
            _signal.signal(self._signal, _signal.SIG_DFL if self._before is None else self._before)


__all__ = ["getsignal", "set_wakeup_fd", "signal", "signal_handler"]
