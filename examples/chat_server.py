"""A chat: what one member writes, all others read. `/kick NAME` closes another member's connection.

Fibers that write to one socket take turns, so lines never mix. Closing a socket wakes the fiber that waits on it with
ClosedError, an OSError. Start it (--check: a test of itself), then several times: nc 127.0.0.1 7000
"""

import sys
from collections.abc import Iterator
from contextlib import suppress

import fibers
from fibers.io import socket

members: dict[str, socket.socket] = {}


def lines_of(connection: socket.socket) -> Iterator[str]:
    """What comes in, line by line, until the other end hangs up."""
    rest = b""
    while data := connection.recv(4096):
        *lines, rest = (rest + data).split(b"\n")
        yield from (line.decode(errors="replace").strip() for line in lines)


def tell(others_than: str, text: str) -> None:
    """To everybody else, in fibers of their own: a member who does not read keeps nobody waiting."""

    def deliver(connection: socket.socket) -> None:
        with suppress(OSError):  # one who has gone is seen to by its own fiber
            connection.sendall(f"{text}\n".encode())

    for name in members.keys() - {others_than}:
        fibers.spawn(deliver, members[name])


def chat(connection: socket.socket) -> None:
    """One member, from the first line, its name, to the farewell."""
    with connection, suppress(OSError):  # kicked, or the network failed
        lines = lines_of(connection)
        name = next(lines, "")
        if not name or name in members:
            return
        members[name] = connection
        try:
            tell(name, f"* {name} is here")
            for line in lines:
                if not line.startswith("/kick "):
                    tell(name, f"{name}: {line}")
                elif victim := members.get(line[6:]):
                    victim.close()
        finally:
            del members[name]
            tell(name, f"* {name} has left")


def serve(listener: socket.socket) -> None:
    with listener:
        while True:
            fibers.spawn(chat, listener.accept()[0])


def check(listener: socket.socket) -> None:
    fibers.spawn(serve, listener)
    address = listener.getsockname()
    with socket.create_connection(address) as ann, socket.create_connection(address) as bob:
        ann.sendall(b"ann\n")
        while "ann" not in members:
            fibers.yield_now()
        bob.sendall(b"bob\nhello\n")
        heard = lines_of(ann)
        print(next(heard), next(heard), sep="\n")
        ann.sendall(b"/kick bob\n")
        print(next(heard))
        assert bob.recv(100) == b""


if __name__ == "__main__":
    checking = "--check" in sys.argv
    fibers.run(check if checking else serve, socket.create_server(("127.0.0.1", 0 if checking else 7000)))
