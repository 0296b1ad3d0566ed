"""What the connections of one loop have in common: settings, counts, timeouts, and who may run.

Admission. A *worker* is a handler that runs; there are at most `max_handlers` at once. Connections are accepted while

    connections that are not closing  <  max_handlers + factor * (max_handlers - running)

with a factor that may be a fraction, taken exactly: a server whose handlers are all busy takes no more connections than
it has handlers, and an idle one holds `1 + factor` times as many. (Apache's event MPM documents such a factor and
truncates it.) A request that has arrived while all are busy waits in a queue, first come, first served.

Each loop has its own hub; nothing in here is for other threads, except to read the counts.
"""

from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any, NamedTuple, Protocol

from ..scheduler import get_scheduler
from .census import ACCEPTED, CLOSING, HEAD, KEEP_ALIVE, WRITING, Census
from .head import Limits
from .timeouts import TimeoutQueue


class Settings(NamedTuple):
    """What a server allows. Times in seconds, sizes in bytes; None: no limit."""

    limits: Limits = Limits()
    max_body: int | None = 1 << 30
    max_handlers: int = 1_000
    factor: float = 10.0
    head_timeout: float = 10.0  # for the whole head of a request, from its first byte (of the first: from the accept)
    keep_alive_timeout: float = 75.0  # between two requests
    body_timeout: float = 30.0  # between two pieces of a body
    body_rate: float = 0.0  # bytes a second that a body must come with, on the average, after `body_timeout`
    write_timeout: float = 30.0  # in which a client must take something of the response
    handler_timeout: float | None = None
    linger: float = 2.0  # in which a client may read the end of a response before the connection is closed
    max_pipelined: int = 64  # requests in a row that one connection is served before others get their turn
    close_after: int | None = None  # requests of one connection


class Member(Protocol):
    """What a hub needs of a connection."""

    state: int

    def timed_out(self) -> None:
        """Its time in this state is up. Runtime code."""

    def resume(self) -> None:
        """A handler is free for the request that waits. Runtime or fiber code; returns at once."""

    def shed(self) -> bool:
        """Close it if it is idle, and nothing has arrived; True if so."""


class Hub:
    """See the module's text."""

    __slots__ = (
        "_queues", "census", "context", "handler", "loop", "members", "queued", "root", "running", "scheduler", "settings",
        "stopping",
    )  # fmt: skip

    def __init__(self, handler: Callable[[Any], None], settings: Settings) -> None:
        self.handler = handler
        self.settings = settings
        self.scheduler = get_scheduler()
        self.loop = loop = self.scheduler.loop
        self.context: Context = copy_context()
        self.root = self.scheduler.main.root
        self.census = Census()
        self.members: set[Member] = set()
        self.running = 0
        self.queued: deque[Member] = deque()
        self.stopping = False
        expired = _expired
        idle = TimeoutQueue[Member](loop, settings.keep_alive_timeout, expired)
        head = TimeoutQueue[Member](loop, settings.head_timeout, expired)
        writing = TimeoutQueue[Member](loop, settings.write_timeout, expired)
        closing = TimeoutQueue[Member](loop, settings.linger, expired)
        #: By state: where a connection in it has its time, if it has one.
        self._queues: list[TimeoutQueue[Member] | None] = [None] * len(self.census.counts)
        for state, queue in (
            (ACCEPTED, head),
            (HEAD, head),
            (KEEP_ALIVE, idle),
            (WRITING, writing),
            (CLOSING, closing),
        ):
            self._queues[state] = queue

    # -- states -------------------------------------------------------------------------------------------------

    def enter(self, member: Member, state: int) -> None:
        """A new connection."""
        member.state = state
        self.members.add(member)
        self.census.accepted_total += 1
        self.census.counts[state] += 1
        queue = self._queues[state]
        if queue is not None:
            queue.enter(member)

    def change(self, member: Member, state: int) -> None:
        """The connection is in another state now; its time in that begins."""
        counts, queues, before = self.census.counts, self._queues, member.state
        if before == state:
            return
        counts[before] -= 1
        counts[state] += 1
        member.state = state
        here, there = queues[before], queues[state]
        if here is not there:
            if here is not None:
                here.leave(member)
            if there is not None:
                there.enter(member)

    def again(self, member: Member) -> None:
        """Its time in its state begins anew."""
        queue = self._queues[member.state]
        if queue is not None:
            queue.leave(member)
            queue.enter(member)

    def leave(self, member: Member) -> None:
        """The connection is closed. A second call does nothing."""
        if member in self.members:
            self.members.discard(member)
            self.census.counts[member.state] -= 1
            queue = self._queues[member.state]
            if queue is not None:
                queue.leave(member)

    # -- admission ----------------------------------------------------------------------------------------------

    def room(self) -> bool:
        """May another connection be accepted?"""
        settings, counts = self.settings, self.census.counts
        most = settings.max_handlers + settings.factor * (settings.max_handlers - self.running)
        return len(self.members) - counts[CLOSING] < most

    def begin(self, member: Member) -> bool:
        """A handler for this connection's request: True if one is free; else the connection waits, and will be run."""
        if self.running < self.settings.max_handlers:
            self.running += 1
            return True
        self.queued.append(member)
        return False

    def end(self) -> None:
        """A handler is done: the next request gets it."""
        if self.queued:
            self.queued.popleft().resume()
        else:
            self.running -= 1

    def shed(self, count: int) -> int:
        """Close up to `count` idle connections, those first that have been idle longest; how many were closed."""
        shed = 0
        for member in self._queues[KEEP_ALIVE] or ():
            if shed >= count:
                break
            shed += member.shed()
        return shed

    def close(self) -> None:
        """Forget the timers. All connections have been closed."""
        for queue in self._queues:
            if queue is not None:
                queue.close()


def _expired(member: Member) -> None:
    member.timed_out()
