"""A network in memory: listeners by address, and connections to them.

    network = memory_network(latency=0.02)
    listener = network.create_server(("server", 80))
    client = network.create_connection(("server", 80), timeout=5)

A MemoryNetwork has those functions of the `socket` module that make connected sockets, with the same arguments, errors
and timeouts; so it can be handed to a program in the place of that module. An address is anything hashable: a pair of
host and port, or a name. Nothing is looked up.

Connecting takes what it takes on a wire: the request arrives at the listener after the latency of the link, and the
answer after as long again. A listener's backlog holds those that were not accepted; if it is full, connecting waits.
"""

import errno
import os
import socket as std
import warnings
from collections import deque
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, Final

from ...core.cancel import as_timeout
from ...core.guard import guard
from ...core.runtime import current, sleep
from ...core.scheduler import check_seconds, get_scheduler
from ...core.waitqueue import WaitQueue
from ...errors import Cancelled, ClosedError
from ...eventloop.clock import FOREVER, Clock
from ...eventloop.contract import EventLoop
from .flow import CAPACITY, Link
from .operation import BLOCKED, Blocked, Turn, Waiting
from .socket import MemorySocket, connected, memory_pair

#: Connections that a listener keeps until they are accepted, where nothing else is said.
BACKLOG: Final = 128
#: Ports that are given to those who ask for none begin here.
_FIRST_PORT: Final = 49_152


class MemoryListener(Waiting):
    """What accepts connections at an address. Made by `MemoryNetwork.create_server`."""

    __slots__ = (
        "_accepting",
        "_address",
        "_backlog",
        "_changes",
        "_connecting",
        "_limit",
        "_network",
        "acceptors",
        "room",
    )

    family = std.AF_UNIX
    type = std.SOCK_STREAM
    proto = 0

    def __init__(self, network: "MemoryNetwork", loop: EventLoop, address: Hashable, limit: int) -> None:
        super().__init__(loop.clock, std.getdefaulttimeout())
        self._network = network
        self._address = address
        self._limit = limit
        self._backlog: deque[MemorySocket] = deque()
        self._changes = 0
        self._accepting = Turn()
        self._connecting = Turn()
        self.acceptors = WaitQueue()
        self.room = WaitQueue()

    def accept(self) -> tuple[MemorySocket, Any]:
        """As `socket.accept`: a connection, and the address of its other end."""
        connection = self._operate(self._accepting, self.acceptors, self._timeout, self._try_accept)
        return connection, connection.getpeername()

    def _try_accept(self) -> MemorySocket | Blocked:
        with guard:
            if not self._backlog:
                return BLOCKED
            connection = self._backlog.popleft()
            self._changed(self.room)
            return connection

    def enter(self, connection: MemorySocket, timeout: float | None) -> None:
        """Put the server's end of a connection into the backlog, when there is room. For the network."""
        self._operate(self._connecting, self.room, timeout, partial(self._try_enter, connection))

    def _try_enter(self, connection: MemorySocket) -> Blocked | None:
        with guard:
            if len(self._backlog) >= self._limit:
                return BLOCKED
            self._backlog.append(connection)
            self._changed(self.acceptors)
            return None

    def close(self) -> None:
        """Refuse connections from now on; reset those that were not accepted. Who waits here gets ClosedError."""
        if self._closed:
            return
        self._closed = True
        self._network.forget(self)
        with guard:
            refused = list(self._backlog)
            self._backlog.clear()
            for queue in (self.acceptors, self.room, self._accepting.queue, self._connecting.queue):
                self._changed(queue)
        for connection in refused:
            connection.reset()

    def getsockname(self) -> Any:
        """The address that it listens at."""
        self._check_open()
        return self._address

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)

    def __repr__(self) -> str:
        return f"<MemoryListener{' [closed]' if self._closed else ''} at {self._address!r}>"

    def _changed(self, queue: WaitQueue) -> None:
        self._changes += 1
        queue.wake_all()

    def _version(self) -> int:
        return self._changes

    def _next_change(self) -> float:
        return FOREVER


class MemoryNetwork:
    """See the module's text. `link` is how the connections behave that are made from now on; it may be changed."""

    __slots__ = ("_listeners", "_next_port", "link")

    def __init__(self, link: Link | None = None) -> None:
        if link is not None and not isinstance(link, Link):
            raise TypeError(f"a network has a Link, not {link!r}")
        self.link = link or Link()
        self._listeners: dict[Hashable, MemoryListener] = {}
        self._next_port = _FIRST_PORT

    def create_server(self, address: Hashable, *, backlog: int | None = None, **options: Any) -> MemoryListener:
        """Listen at `address`. As `socket.create_server`: port 0 of a pair asks for a free one; the other options of
        that function mean nothing here. Raises OSError (EADDRINUSE) if the address is taken.
        """
        unknown = set(options) - {"family", "reuse_port", "dualstack_ipv6"}
        if unknown:
            raise TypeError(f"create_server() does not know {', '.join(sorted(unknown))}")
        hash(address)
        if isinstance(address, tuple) and len(address) >= 2 and address[1] == 0:
            address = (address[0], self._free_port(), *address[2:])
        if address in self._listeners:
            raise OSError(errno.EADDRINUSE, f"{os.strerror(errno.EADDRINUSE)}: {address!r}")
        limit = BACKLOG if backlog is None else max(1, backlog)
        listener = self._listeners[address] = MemoryListener(self, get_scheduler().loop, address, limit)
        return listener

    def create_connection(
        self,
        address: Hashable,
        timeout: Any = std._GLOBAL_DEFAULT_TIMEOUT,  # type: ignore[attr-defined]
        source_address: Hashable = None,
        *,
        all_errors: bool = False,
    ) -> MemorySocket:
        """Connect to `address`. As `socket.create_connection`: `timeout` is also that of the socket.

        Raises ConnectionRefusedError if nobody listens there, TimeoutError.
        """
        if timeout is std._GLOBAL_DEFAULT_TIMEOUT:  # type: ignore[attr-defined]
            timeout = std.getdefaulttimeout()
        elif timeout is not None:
            check_seconds("timeout", timeout)
        scheduler = get_scheduler()
        clock = scheduler.loop.clock
        deadline = FOREVER if timeout is None else clock() + timeout
        name = self._client_address(address) if source_address is None else source_address
        client, server = connected(scheduler.loop, self.link, name, address)
        waits = False  # the listener has the server's end
        try:
            client.settimeout(timeout)
            _travel(client.outgoing.delay(), clock, deadline, timeout)
            listener = self._listeners.get(address)
            waits = listener is not None and _enter(listener, server, clock, deadline)
            _travel(client.incoming.delay(), clock, deadline, timeout)
            if not waits:
                raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        except BaseException:
            client.close()
            if not waits:
                server.close()
            raise
        return client

    def socketpair(self) -> tuple[MemorySocket, MemorySocket]:
        """A connected pair without addresses."""
        return memory_pair(self.link)

    def forget(self, listener: MemoryListener) -> None:
        """A listener has been closed; it calls this."""
        self._listeners = {address: known for address, known in self._listeners.items() if known is not listener}

    def _client_address(self, address: Hashable) -> Hashable:
        if isinstance(address, tuple) and len(address) >= 2:
            return ("127.0.0.1", self._free_port(), *address[2:])
        return f"client-{self._free_port()}"

    def _free_port(self) -> int:
        self._next_port += 1
        return self._next_port - 1


def _enter(listener: MemoryListener, server: MemorySocket, clock: Clock, deadline: float) -> bool:
    """A connection request has arrived. False if the listener refuses it."""
    try:
        listener.enter(server, None if deadline == FOREVER else max(deadline - clock(), 0.0))
    except BlockingIOError:
        raise TimeoutError("timed out") from None
    except ClosedError:
        return False  # it was closed while we waited for room
    return True


def _travel(delay: float, clock: Clock, deadline: float, timeout: float | None) -> None:
    """Wait as long as a packet takes."""
    if not delay:
        return
    if timeout == 0:
        raise BlockingIOError(errno.EINPROGRESS, os.strerror(errno.EINPROGRESS))
    left = deadline - clock()
    try:
        sleep(max(min(delay, left), 0.0))
    except Cancelled:
        if (late := as_timeout(current())) is not None:
            raise late from None
        raise
    if left < delay:
        raise TimeoutError("timed out")


def memory_network(
    latency: float | Callable[[], float] = 0.0,
    bandwidth: float | None = None,
    capacity: int = CAPACITY,
    max_send: int | None = None,
    max_receive: int | None = None,
) -> MemoryNetwork:
    """A network whose connections behave as the arguments say; see Link for what they mean."""
    return MemoryNetwork(Link(latency, bandwidth, capacity, max_send, max_receive))
