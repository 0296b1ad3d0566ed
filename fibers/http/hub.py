"""What the connections of one loop have in common: settings, counts, timeouts, and who may run.

Admission. A *worker* is a handler that runs; there are at most `max_handlers` at once. Connections are accepted while

    connections that are not closing  <  max_handlers + factor * (max_handlers - running)

with a factor that may be a fraction, taken exactly: a server whose handlers are all busy takes no more connections than
it has handlers, and an idle one holds `1 + factor` times as many. (Apache's event MPM documents such a factor and
truncates it.) A request that has arrived while all are busy waits in a queue, first come, first served.

Each loop has its own hub; nothing in here is for other threads, except to read the counts.
"""

import sys
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any, NamedTuple, Protocol, cast

from ..core.scheduler import get_scheduler
from ..server.scoreboard import Row
from . import census
from .accesslog import RequestLog
from .census import ACCEPTED, CLOSING, HEAD, KEEP_ALIVE, TLS, WRITING, Census
from .crowding import AddressLimit
from .head import Limits
from .networks import Networks
from .origin import Forwarding
from .published import PublishedCensus


class Settings(NamedTuple):
    """What a server allows. Times in seconds, sizes in bytes; None: no limit."""

    limits: Limits = Limits()
    max_body: int | None = 1 << 30
    max_handlers: int = 1_000
    factor: float = 10.0
    handshake_timeout: float = 10.0  # for TLS
    head_timeout: float = 10.0  # to begin a first request; and for the whole head of a request, from its first byte
    keep_alive_timeout: float = 75.0  # between two requests
    body_timeout: float = 30.0  # between two pieces of a body
    body_rate: float = 0.0  # bytes a second that a body must come with, on the average, after `body_timeout`
    write_timeout: float = 30.0  # in which a client must take something of the response
    handler_timeout: float | None = None
    linger: float = 2.0  # in which a client may read the end of a response before the connection is closed
    max_pipelined: int = 64  # requests in a row that one connection is served before others get their turn
    close_after: int | None = None  # requests of one connection
    last_idle: float = 0.5  # that a connection between two requests has when the server is to stop
    forwarding: Forwarding | None = None  # proxies that are believed when they say who the client is
    proxy_protocol: Networks | None = None  # peers whose connections begin with a PROXY header


#: More requests than a loop will ever serve.
NEVER = sys.maxsize


class Member(census.Member, Protocol):
    """What a hub needs of a connection."""

    @property
    def address(self) -> tuple[str, int]:
        """The client's host and port."""

    def granted(self) -> None:
        """A handler is free for the request that waits. Runtime or fiber code; returns at once."""

    def shed(self) -> bool:
        """Close it if it is idle, and nothing has arrived; True if so."""


class Hub:
    """See the module's text. `changed` is called when there may be room again; `row`: where the books are published."""

    __slots__ = (
        "census", "changed", "context", "crowding", "emptied", "handler", "log", "loop", "queued", "root", "running",
        "scheduler", "secure", "server", "settings", "spent", "stopping", "turns",
    )  # fmt: skip

    def __init__(self, handler: Callable[[Any], None], settings: Settings, row: Row | None = None) -> None:
        self.handler = handler
        self.settings = settings
        self.scheduler = get_scheduler()
        self.loop = self.scheduler.loop
        self.context: Context = copy_context()
        self.root = self.scheduler.main.root
        seconds = {
            ACCEPTED: settings.head_timeout,
            TLS: settings.handshake_timeout,
            HEAD: settings.head_timeout,
            WRITING: settings.write_timeout,
            KEEP_ALIVE: settings.keep_alive_timeout,
            CLOSING: settings.linger,
        }
        self.census = Census(self.loop, seconds) if row is None else PublishedCensus(self.loop, seconds, row)
        self.crowding: AddressLimit | None = None
        self.running = 0
        self.queued: deque[Member] = deque()
        self.stopping = False  # no connection gets another request
        self.changed: Callable[[], None] | None = None
        self.emptied: Callable[[], None] | None = None  # told of each connection that has ended
        self.spent: Callable[[], None] | None = None  # called when `turns` requests have been served
        self.turns = NEVER
        self.log: RequestLog | None = None
        self.secure: Callable[[], Any] | None = None  # gives the TLS context of a new connection
        self.server = ("", 0)  # where it listens: host, or path, and port

    # -- admission ----------------------------------------------------------------------------------------------

    def room(self) -> bool:
        """May another connection be accepted?"""
        settings, books = self.settings, self.census
        most = settings.max_handlers + settings.factor * (settings.max_handlers - self.running)
        return books.open() - books.count(CLOSING) < most

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
            self.queued.popleft().granted()
        else:
            self.running -= 1
            if self.changed is not None:
                self.changed()

    def leave(self, member: Member) -> None:
        """The connection is closed. A second call does nothing."""
        if self.census.leave(member) and self.crowding is not None:
            self.crowding.leave(*member.address)
        if self.changed is not None:
            self.changed()
        if self.emptied is not None:
            self.emptied()

    def exhausted(self) -> None:
        """As many requests have been served as this loop was to serve: say so, and let the others end their connections."""
        self.turns, self.stopping = NEVER, True
        if self.spent is not None:
            self.spent()

    def shed(self, count: int) -> int:
        """Close up to `count` idle connections, those first that have been idle longest; how many were closed."""
        shed = 0
        for member in self.census.members(KEEP_ALIVE):
            if shed >= count:
                break
            shed += cast(Member, member).shed()
        return shed
