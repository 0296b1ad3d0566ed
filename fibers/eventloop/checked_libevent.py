"""LibeventLoop, checked: see checked.py. Apart, because it loads the library."""

from .checked import CheckedLoop
from .clock import MONOTONIC, Clock
from .libevent import LibeventLoop
from .turns import Handle


class CheckedLibeventLoop(CheckedLoop, LibeventLoop):
    """LibeventLoop, checked."""

    def __init__(self, clock: Clock = MONOTONIC) -> None:
        super().__init__(clock)
        self.start_checking()

    def handles(self) -> list[Handle]:
        return list(self._table.values())

    def registered(self) -> int:
        return sum(handle.reading.asked + handle.writing.asked for handle in self._table.values())
