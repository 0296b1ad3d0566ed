"""A server in this thread, for the tests of what happens on one connection."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import fibers
from fibers.http.connection import Connection
from fibers.http.exchange import Exchange
from fibers.http.hub import Hub, Settings
from fibers.io import Stream, socket

Handler = Callable[[Exchange], None]


class Served:
    """The server, and ways to talk to it."""

    def __init__(self, hub: Hub, address: Any) -> None:
        self.hub = hub
        self.address = address

    def connect(self) -> Stream:
        """A client's connection."""
        return Stream(socket.create_connection(self.address, timeout=10))

    def talk(self, *pieces: bytes) -> bytes:
        """Send, say that this was all, and return everything that comes back."""
        with self.connect() as client:
            for piece in pieces:
                client.write_all(piece)
            client.write_eof()
            return client.read_all()


@contextmanager
def serving(handler: Handler, **settings: Any) -> Iterator[Served]:
    """Serve on a free port of loopback, in fibers of the calling thread."""
    hub = Hub(handler, Settings(**settings))

    def accept() -> None:
        while True:
            sock, address = listener.accept()
            Connection(hub, sock, address).start()

    with socket.create_server(("127.0.0.1", 0), backlog=1000) as listener, fibers.TaskGroup() as group:
        group.spawn(accept)
        yield Served(hub, listener.getsockname())
        group.cancel()
    for member in hub.census.everybody():
        member.timed_out()
    while hub.census.open():
        fibers.sleep(0.001)
    hub.census.close()
    assert hub.running == 0


def response(stream: Stream) -> tuple[int, dict[str, str], bytes]:
    """One response: status, fields (names in lower case), body. For bodies with a length or in chunks."""
    head = stream.read_until(b"\r\n\r\n").decode("latin-1").split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in head[1:-2])
    status = int(head[0].split(" ")[1])
    body = b""
    if "content-length" in fields:
        body = stream.read_exactly(int(fields["content-length"]))
    elif "transfer-encoding" in fields:
        while size := int(stream.read_until(b"\r\n"), 16):
            body += stream.read_exactly(size)
            assert stream.read_exactly(2) == b"\r\n"
        assert stream.read_exactly(2) == b"\r\n"
    return status, fields, body
