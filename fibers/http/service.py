"""One loop's share of an HTTP server: what an acceptor (server/service.py) gives connections to.

Stopping without losing anybody's request. A client may be sending a request on an idle connection at the very moment at
which the server wants to close it, and cannot tell whether it has been looked at. So nobody is cut off in silence at once:
from the beginning of the stop each response says that it was the last one, and connections that stay idle have half a
second (`Settings.last_idle`) left. A client that is at it learns of the end in a response.
"""

import logging
from collections.abc import Callable
from typing import Any, Final

from ..core.runtime import spawn
from ..core.scheduler import get_scheduler
from ..core.waitqueue import WaitQueue
from ..io.socket import socket
from ..server.scoreboard import Row
from ..server.service import Changed
from ..threads.to_thread import to_thread
from .accesslog import RequestLog
from .census import ACCEPTED, HEAD, KEEP_ALIVE, UPGRADED, Census
from .connection import Connection
from .crowding import AddressLimit
from .exchange import Exchange
from .hub import NEVER, Hub, Settings
from .secure import SecureConnection

_log: Final = logging.getLogger("fibers.http")


class Board:
    """What the loops of one process have to show: their books. Any thread."""

    def __init__(self) -> None:
        self._books: dict[Hub, bool] = {}

    def enter(self, hub: Hub) -> None:
        self._books[hub] = True

    def leave(self, hub: Hub) -> None:
        self._books.pop(hub, None)

    def hubs(self) -> list[Hub]:
        """The loops that serve now."""
        return list(self._books)

    def books(self) -> list[Census]:
        return [hub.census for hub in self.hubs()]


class HttpService:
    """See the module's text. `changed` is the way back to the engine; `turns`: requests after which that is to retire us."""

    def __init__(
        self,
        handler: Callable[[Exchange], None],
        settings: Settings,
        changed: Changed,
        *,
        board: Board,
        log: RequestLog | None = None,
        secure: Callable[[], Any] | None = None,
        server: tuple[str, int] = ("", 0),
        turns: int = NEVER,
        crowding: AddressLimit | None = None,
        row: Row | None = None,
    ) -> None:
        hub = self.hub = Hub(handler, settings, row)
        hub.crowding = crowding
        hub.changed, hub.log, hub.secure, hub.server, hub.turns = changed, log, secure, server, turns
        hub.spent = self._spent
        self._changed = changed
        self._connection = Connection if secure is None else SecureConnection
        self._board = board
        self._gone = WaitQueue()
        board.enter(hub)

    def _spent(self) -> None:
        self._changed.retire("as many requests as it was to serve")

    def room(self) -> bool:
        return self.hub.room()

    def take(self, sock: socket, address: Any) -> None:
        crowding = self.hub.crowding
        if crowding is not None and isinstance(address, tuple) and not crowding.admit(address[0], address[1]):
            _log.info("closed a connection of %s, which has too many", address[0])
            sock.close()
            return
        self._connection(self.hub, sock, address).start()

    def give_back(self) -> bool:
        return self.hub.shed(1) > 0

    def open(self) -> int:
        return self.hub.census.open()

    def names(self) -> list[str]:
        """Of each connection, what it is doing, and for whom."""
        return [str(member) for member in self.hub.census.everybody()]

    def begin_stop(self) -> None:
        hub = self.hub
        hub.stopping = True
        settings = hub.settings
        hub.census.hurry(KEEP_ALIVE, settings.last_idle)
        for state in (ACCEPTED, HEAD):  # its request may be under way
            hub.census.hurry(state, max(settings.last_idle, settings.linger))
        for member in hub.census.members(UPGRADED):
            spawn(member.leave)  # type: ignore[attr-defined]

    def wait_stopped(self) -> None:
        hub = self.hub
        hub.emptied = self._look
        scheduler = get_scheduler()
        while hub.census.open():
            me = scheduler.current
            if me is None:
                raise scheduler.refuse()
            self._gone.add(me, self)
            try:
                scheduler.park(me, self._gone)
            except BaseException:
                self._gone.abandon(me)
                raise
        hub.census.close()
        self._board.leave(hub)
        if hub.log is not None:
            to_thread(hub.log.flush)

    def _look(self) -> None:
        if not self.hub.census.open():
            self._gone.wake_all()

    def cut(self) -> int:
        members = self.hub.census.everybody()
        for member in members:
            fiber = member.fiber  # type: ignore[attr-defined]
            if fiber is not None:
                fiber.cancel()  # and drops the connection at its end
            else:
                member.drop()  # type: ignore[attr-defined]
        return len(members)

    def __repr__(self) -> str:
        return f"<HttpService, {self.open()} connections>"
