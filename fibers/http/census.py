"""What the connections of a server are doing: each is in one state, and has its time there.

The books are one dict for each state, with the connections that are in it. A connection is entered once, moved from one
dict to another, and taken out once; so the counts are sizes, and cannot drift, and their sum is the number of open
connections. Within a state all have the same time, so the dict, which keeps the order of entering, is also the queue of
their deadlines: the first in is the first whose time is up (timeouts.py).
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final, Protocol

from ..eventloop.contract import EventLoop
from .timeouts import TimeoutQueue

#: The states, in the order in which a connection may come through them.
ACCEPTED: Final = 0  # has not said anything yet
TLS: Final = 1  # shaking hands
HEAD: Final = 2  # the head of a request has begun to come in
QUEUED: Final = 3  # its request has arrived, and waits until a handler is free
RUNNING: Final = 4  # a handler is at work
BODY: Final = 5  # a handler waits for the body of the request
WRITING: Final = 6  # the handler is done, and the client has not taken all of the response
KEEP_ALIVE: Final = 7  # waits for the next request
CLOSING: Final = 8  # the response has gone out; waits until the client has read it
UPGRADED: Final = 9  # speaks another protocol, and is somebody else's

NAMES: Final = (
    "accepted", "tls", "head", "queued", "running", "body", "writing", "keep-alive", "closing", "upgraded",
)  # fmt: skip


class Member(Protocol):
    """What the books need of a connection."""

    state: int

    def timed_out(self) -> None:
        """Its time in this state is up: it is in the books still. Runtime code."""


class Census:
    """The books of one loop. For its thread; others may read the counts. `seconds`: the time in a state, where it ends."""

    __slots__ = ("_states", "accepted_total", "bytes_total", "requests_total")

    def __init__(self, loop: EventLoop, seconds: Mapping[int, float]) -> None:
        expire: Callable[[Member], None] = _expire
        self._states = [TimeoutQueue(loop, seconds.get(state), expire) for state in range(len(NAMES))]
        self.accepted_total = 0
        self.requests_total = 0
        self.bytes_total = 0  # of the bodies of responses

    def enter(self, member: Member, state: int) -> None:
        """A new connection."""
        member.state = state
        self.accepted_total += 1
        self._states[state].enter(member)

    def change(self, member: Member, state: int) -> None:
        """It is in another state now; its time in that begins."""
        before = member.state
        if before != state:
            self._states[before].leave(member)
            member.state = state
            self._states[state].enter(member)

    def again(self, member: Member) -> None:
        """Its time in its state begins anew."""
        here = self._states[member.state]
        here.leave(member)
        here.enter(member)

    def leave(self, member: Member) -> bool:
        """It is closed. False: it was so before, and nothing happens."""
        return self._states[member.state].leave(member)

    def count(self, state: int) -> int:
        """How many are in a state."""
        return len(self._states[state])

    def open(self) -> int:
        """How many connections there are."""
        return sum(map(len, self._states))

    def members(self, state: int) -> Iterator[Member]:
        """Those in a state when this was called, who have been in it longest first."""
        return iter(self._states[state])

    def everybody(self) -> list[Member]:
        """All of them."""
        return [member for queue in self._states for member in queue]

    def hurry(self, state: int, seconds: float) -> None:
        """Those in a state have no more than `seconds` from now on, and so have those that come."""
        self._states[state].hurry(seconds)

    def close(self) -> None:
        """Forget everybody, and all timers."""
        for queue in self._states:
            queue.close()


def _expire(member: Member) -> None:
    member.timed_out()
