"""LibeventLoop, checked: see checked.py. In a file of its own, because it loads the library."""

from .checked import CheckedLoop
from .clock import MONOTONIC, Clock
from .libevent import LibeventLoop
from .libevent_files import LibeventHandle
from .turns import Handle


class CheckedLibeventLoop(CheckedLoop, LibeventLoop):
    """See the module's text."""

    def __init__(self, clock: Clock = MONOTONIC) -> None:
        LibeventLoop.__init__(self, clock)
        self.start_checking()

    def handle(self, fd: int, fresh: bool) -> LibeventHandle:
        self._check_thread("handle")
        return LibeventLoop.handle(self, fd, fresh)

    def handles(self) -> list[Handle]:
        return list(self._table.values())

    def books(self) -> tuple[int, int]:
        counted = self.stats.registrations - self.stats.unregistrations
        return counted, sum(each.reading.asked + each.writing.asked for each in list(self._table.values()))
