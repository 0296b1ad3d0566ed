"""The clients: one fiber a connection, each with one request under way at a time.

With one request under way per connection the latency is mostly the time that a request stands in line behind those of
the other connections: it is about connections / (requests/s), and says how evenly the fibers are served.

Connections are made by a few fibers side by side, and each is used once before the next is made: so the server's queue
of connections never overflows, which would cost whole seconds.
"""

from collections.abc import Callable
from time import perf_counter

import fibers
from fibers.io import socket
from fibers.measure.latency import RESOLUTION, Latencies

#: Connections made side by side.
CONNECTORS = 50
#: Bytes asked of `recv`.
BUFFER = 1 << 16
#: Seconds without an answer after which the server counts as dead.
PATIENCE = 30.0
#: Seconds between two looks at the progress.
TICK = 0.2


class Load:
    """`requests` answered so far, and how long they took. `size` is the length of a message in bytes."""

    def __init__(self, port: int, connections: int, size: int) -> None:
        self.requests = 0
        self.seconds = 0.0
        self.latencies = Latencies()
        self.sockets: list[socket.socket] = []
        self._port = port
        self._message = b"x" * size
        self._wanted = iter(range(connections))
        self._until = 0.0
        self._fibers: list[fibers.Fiber[None]] = []

    def connect(self, show: Callable[[int], None]) -> None:
        """Make the connections, calling `show` with their number now and then. Raises OSError."""
        self._fibers = [fibers.spawn(self._connect) for _ in range(CONNECTORS)]
        for connector in self._fibers:
            while not connector.done():
                show(len(self.sockets))
                _wait(connector, TICK)
            connector.result()

    def _connect(self) -> None:
        for _ in self._wanted:
            connection = socket.create_connection(("127.0.0.1", self._port), PATIENCE)
            self.sockets.append(connection)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._exchange(connection)

    def _exchange(self, connection: socket.socket) -> None:
        connection.sendall(self._message)
        missing = len(self._message)
        while missing:
            data = connection.recv(BUFFER)
            if not data:
                raise ConnectionResetError("the server closed a connection")
            missing -= len(data)

    def talk(self, seconds: float, show: Callable[[float, int], None]) -> None:
        """Send requests on all connections for so long, calling `show` with the time left (s) and `requests`.

        Returns when the last answer is there. Raises OSError.
        """
        begin = perf_counter()
        self._until = begin + seconds
        self._fibers = clients = [fibers.spawn(self._talk, connection) for connection in self.sockets]
        while (left := self._until - perf_counter()) > 0:
            show(left, self.requests)
            _wait(clients[0], min(TICK, left))
            if clients[0].done():
                break
        for client in clients:
            client.result()
        self.seconds = perf_counter() - begin

    def _talk(self, connection: socket.socket) -> None:
        buckets = self.latencies.buckets
        while (begin := perf_counter()) < self._until:
            self._exchange(connection)
            buckets[int((perf_counter() - begin) * RESOLUTION)] += 1
            self.requests += 1

    def close(self) -> None:
        """Close all connections. Clients that still talk, because something went wrong, are ended first."""
        for fiber in self._fibers:
            fiber.cancel()
        for fiber in self._fibers:
            fiber.exception()  # one of them has been reported; that the others failed as well is no news
        for connection in self.sockets:
            connection.close()


def _wait(fiber: fibers.Fiber[None], seconds: float) -> None:
    try:
        fiber.join(seconds)
    except TimeoutError:
        pass
