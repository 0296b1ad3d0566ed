"""A chat: what one member writes, all others read. `/kick NAME` closes another member's connection.

Many fibers write to one socket: they take turns, in order, and their lines never mix. Closing a socket wakes the fiber
that waits on it with ClosedError, an OSError. No lock is needed: fibers of a thread change over only where they wait.

    python examples/chat_server.py [PORT]       then, several times: nc 127.0.0.1 7000
    python examples/chat_server.py --check
"""

import sys
from collections.abc import Iterator
from contextlib import suppress

import fibers
from fibers.io import socket

members: dict[str, socket.socket] = {}


def lines_of(connection: socket.socket) -> Iterator[str]:
    """What the member writes, line by line, until it hangs up."""
    rest = b""
    while data := connection.recv(4096):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace").strip()


def deliver(connection: socket.socket, text: str) -> None:
    """Write one line to one member. One who has gone is seen to by its own fiber."""
    with suppress(OSError):
        connection.sendall(f"{text}\n".encode())


def tell(others_than: str, text: str) -> None:
    """To everybody else, in fibers of their own: a member who does not read keeps nobody waiting."""
    for name, connection in members.items():
        if name != others_than:
            fibers.spawn(deliver, connection, text)


def chat(connection: socket.socket) -> None:
    """One member, from the first line, its name, to the farewell."""
    with connection:
        lines = lines_of(connection)
        name = next(lines, "")
        if not name or name in members:
            return
        members[name] = connection
        tell(name, f"* {name} is here")
        with suppress(OSError):  # kicked, or the network failed
            for line in lines:
                if not line.startswith("/kick "):
                    tell(name, f"{name}: {line}")
                elif victim := members.get(line[6:]):
                    victim.close()
        del members[name]
        tell(name, f"* {name} has left")


def serve(listener: socket.socket) -> None:
    """Accept for ever."""
    with listener:
        while True:
            fibers.spawn(chat, listener.accept()[0])


def check() -> None:
    """Ann and Bob talk; Ann kicks Bob."""
    listener = socket.create_server(("127.0.0.1", 0))
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
    if "--check" in sys.argv:
        fibers.run(check)
    else:
        fibers.run(serve, socket.create_server(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 7000)))
