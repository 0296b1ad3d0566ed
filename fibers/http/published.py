"""The books of a loop, written down where other processes can read them: in its row of a scoreboard.

Every change of a connection's state writes what has changed, in place, under the row's version (server/scoreboard.py); so
the row says at each moment what the books say, and that in a third of a microsecond: some 2 % of a small request. A server
of one process, or one without a status page, has plain books.

The counters: one for each state, in the order of NAMES, then those that are named here.
"""

from collections.abc import Mapping
from typing import Final

from ..eventloop.contract import EventLoop
from ..server.scoreboard import Row
from .census import NAMES, Census, Member

_FIRST: Final = len(NAMES)
ACCEPTED_TOTAL, REQUESTS_TOTAL, BYTES_TOTAL, LOG_DROPPED = range(_FIRST, _FIRST + 4)
#: How many there are.
COUNTERS: Final = _FIRST + 4
# Where they are in a row.
_REQUESTS: Final = 1 + REQUESTS_TOTAL
_BYTES: Final = 1 + BYTES_TOTAL


def counters_of(books: Census) -> list[int]:
    """What the row of these books would say, but for the log."""
    counts = [books.count(state) for state in range(_FIRST)]
    return [*counts, books.accepted_total, books.requests_total, books.bytes_total, 0]


class PublishedCensus(Census):
    """See the module's text."""

    __slots__ = ("_row", "_version")

    def __init__(self, loop: EventLoop, seconds: Mapping[int, float], row: Row) -> None:
        super().__init__(loop, seconds)
        self._row = row
        self._version = row[0]

    def enter(self, member: Member, state: int) -> None:
        """See Census."""
        super().enter(member, state)
        self._row[1 + ACCEPTED_TOTAL] = self.accepted_total
        self._publish(state)

    def change(self, member: Member, state: int) -> None:
        """See Census. All in one, since every request comes by twice."""
        before, row, states = member.state, self._row, self._states
        version = self._version
        row[0] = version + 1
        if before != state:
            queue = states[before]
            queue.leave(member)
            row[1 + before] = len(queue.deadlines)
            member.state = state
            queue = states[state]
            queue.enter(member)
            row[1 + state] = len(queue.deadlines)
        row[_REQUESTS] = self.requests_total
        row[_BYTES] = self.bytes_total
        row[0] = self._version = version + 2

    def leave(self, member: Member) -> bool:
        """See Census."""
        left = super().leave(member)
        self._publish(member.state)
        return left

    def _publish(self, state: int) -> None:
        """This state has changed, and perhaps the sums."""
        row, version = self._row, self._version
        row[0] = version + 1
        row[1 + state] = self.count(state)
        row[_REQUESTS] = self.requests_total
        row[_BYTES] = self.bytes_total
        row[0] = self._version = version + 2
