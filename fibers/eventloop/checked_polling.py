"""PollingLoop, checked, over a checked poller: see checked.py and checked_poller.py."""

from collections.abc import Callable

from . import ownership
from .checked import CheckedLoop
from .checked_poller import CheckedPoller, check_poller
from .clock import MONOTONIC, Clock
from .descriptor import Descriptor
from .pollers import Poller
from .polling import PollingLoop
from .turns import Handle


class CheckedPollingLoop(CheckedLoop, PollingLoop):
    """See the module's text. `make_poller` makes the poller that is to be checked."""

    def __init__(self, make_poller: Callable[[], Poller], clock: Clock = MONOTONIC) -> None:
        PollingLoop.__init__(self, lambda: check_poller(make_poller()), clock)
        self.start_checking()

    def handle(self, fd: int, fresh: bool) -> Descriptor:
        self._check_thread("handle")
        return PollingLoop.handle(self, fd, fresh)

    def handles(self) -> list[Handle]:
        return list(self._table.values())

    def books(self) -> tuple[int, int]:
        with ownership.lock:  # another thread may be taking a file away
            return self.stats.registrations - self.stats.unregistrations, len(self._table)

    def _look_at_books(self) -> None:
        super()._look_at_books()
        poller = self._poller
        if not isinstance(poller, CheckedPoller):
            return  # a test has put its own in its place
        with ownership.lock:
            mine = {waker.fd for waker in (self._waker, self._signals) if waker is not None}
            for fd, armed in poller.certainly_armed():
                known = self._table.get(fd)
                if known is None:
                    if fd not in mine:
                        self.note("balance", f"fd {fd} is armed in the poller, and unknown to the loop")
                elif poller.edge_triggered and known.registered != armed:
                    what = f"fd {fd} is registered for {known.registered}, and armed in the poller for {armed}"
                    self.note("balance", what)
