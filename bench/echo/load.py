"""The load generator in Python, for machines without a C compiler.

Same arguments, same output as `limit/load.c`.

It is slower than the fastest servers. Their CPU per request is then measured in a server that is not
saturated: right in kind, a little high, because fewer requests share a turn of the loop. The result names
the generator that was used.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time

from bench import material


class Connection:
    """One connection with one message in flight."""

    __slots__ = ("left", "received", "sent", "sock")

    def __init__(self, port: int, requests: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        material.no_delay(self.sock)
        self.left = requests
        self.received = 0
        self.sent = 0.0

    def request(self, message: bytes) -> None:
        """Send the next message."""
        self.received = 0
        self.sent = time.perf_counter()
        self.sock.sendall(message)


def percentile(latencies: list[float], fraction: float) -> float:
    """Of sorted seconds, in microseconds."""
    return latencies[min(len(latencies) - 1, int(len(latencies) * fraction))] * 1e6


def load(port: int, count: int, size: int, warm: float, seconds: float, requests: int) -> dict[str, float]:
    """Drive `count` connections; prints "start" when measuring begins."""
    message = b"x" * size
    connections = [Connection(port, requests) for _ in range(count)]
    selector = selectors.DefaultSelector()
    for connection in connections:
        selector.register(connection.sock, selectors.EVENT_READ, connection)
    latencies: list[float] = []
    clock = time.perf_counter
    begin = clock()
    measuring = requests > 0
    if measuring:
        print("start", flush=True)
    for connection in connections:
        connection.request(message)
    while True:
        events = selector.select(10.0)
        if not events:
            raise TimeoutError("no answer for ten seconds")
        moment = clock()
        if not measuring and moment - begin >= warm:
            measuring = True
            print("start", flush=True)
            begin = moment = clock()
        if not requests and measuring and moment - begin >= seconds:
            break
        for key, _ in events:
            connection = key.data
            data = connection.sock.recv(65536)
            if not data:
                raise ConnectionResetError("the server closed a connection")
            connection.received += len(data)
            if connection.received < size:
                continue
            if measuring:
                latencies.append(clock() - connection.sent)
            connection.left -= 1
            if not requests or connection.left > 0:
                connection.request(message)
        if requests and len(latencies) == requests * count:
            break
    elapsed = clock() - begin
    latencies.sort()
    return {
        "requests": len(latencies),
        "seconds": elapsed,
        "p50": percentile(latencies, 0.50),
        "p99": percentile(latencies, 0.99),
        "p999": percentile(latencies, 0.999),
    }


def main() -> None:
    """Read the arguments of `limit/load.c`, measure, print, and hold the connections until stdin speaks."""
    port, count, size, warm, seconds, requests = sys.argv[1:]
    material.raise_fd_limit()
    print(
        json.dumps(load(int(port), int(count), int(size), float(warm), float(seconds), int(requests))),
        flush=True,
    )
    sys.stdin.read(1)


if __name__ == "__main__":
    main()
