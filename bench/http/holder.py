"""The client of the idle connections: `python -m bench.http.holder PORT CONNECTIONS PROBES`, a process of its own.

Connects, asks once on each connection, and says how many it has: less than CONNECTIONS if the server takes longer than
CONNECTING to accept and answer them. Told to go on (a line on stdin), it asks again on PROBES of them (or as many as are
answered in PROBING), chosen at random, one at a time. It prints how long each answer took, in microseconds, and how many of
all connections are still open.

Connections come from several addresses of the loopback, and a hundred are answered before the next are made, as in
bench/limit/http.c.
"""

from __future__ import annotations

import json
import random
import socket
import sys
import time

from bench import material

CONNECTING, PROBING = 15.0, 4.0
"""Seconds."""
ADDRESSES = 8
TOGETHER = 100
REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
SEED = 8


def connect(port: int, number: int) -> socket.socket:
    """One connection, with a request on its way."""
    sock = socket.create_connection(("127.0.0.1", port), 15.0, (f"127.0.0.{1 + number % ADDRESSES}", 0))
    material.no_delay(sock)
    sock.sendall(REQUEST)
    return sock


def answered(sock: socket.socket) -> None:
    """Take an answer. Raises ConnectionError if it is none."""
    data = b""
    while True:
        received = sock.recv(65536)
        data += received
        head, end, body = data.partition(b"\r\n\r\n")
        if end:
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            if not head.startswith(b"HTTP/1.1 200") or len(body) > int(length[15:]):
                raise ConnectionError(f"this is no answer: {data[:100]!r}")
            if len(body) == int(length[15:]):
                return
        if not received:
            raise ConnectionError("a connection has ended")


def is_open(sock: socket.socket) -> bool:
    """Has the server said nothing more, in particular no goodbye?"""
    sock.setblocking(False)
    try:
        sock.recv(1)
    except BlockingIOError:
        return True
    except ConnectionError:
        return False
    return False


def main() -> None:
    """See the module's text."""
    port, count, probes = map(int, sys.argv[1:])
    material.raise_fd_limit()
    held: list[socket.socket] = []
    limit = time.monotonic() + CONNECTING
    for first in range(0, count, TOGETHER):
        new = [connect(port, number) for number in range(first, min(first + TOGETHER, count))]
        for sock in reversed(new):
            answered(sock)
        held += new
        if time.monotonic() > limit:
            break
    print(len(held), flush=True)
    sys.stdin.readline()
    took = []
    limit = time.monotonic() + PROBING
    for sock in random.Random(SEED).sample(held, min(probes, len(held))):
        began = time.perf_counter()
        sock.sendall(REQUEST)
        answered(sock)
        took.append(round((time.perf_counter() - began) * 1e6, 1))
        if time.monotonic() > limit:
            break
    print(json.dumps({"took": took, "open": sum(map(is_open, held))}), flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main()
