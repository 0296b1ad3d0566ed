"""A server in this thread, for the tests of what happens on one connection."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import fibers
from fibers.http import HttpServer
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


class Answer(NamedTuple):
    """A response."""

    status: int
    fields: dict[str, str]
    body: bytes


class Site:
    """A whole server in this thread, and ways to talk to it."""

    def __init__(self, server: HttpServer) -> None:
        self.server = server

    @property
    def hub(self) -> Hub:
        """Of its one loop."""
        (hub,) = self.server.board.hubs()
        return hub

    def connect(self) -> Stream:
        """A client's connection."""
        return Stream(socket.create_connection(self.server.address[:2], timeout=10))

    def ask(self, target: str = "/", method: str = "GET", body: bytes = b"", **fields: str) -> Answer:
        """One request on a connection of its own. Fields by name, with _ for -."""
        with self.connect() as client:
            client.write_all(request(target, method, body, **fields))
            return answer(client, method)

    def talk(self, *pieces: bytes) -> bytes:
        """Send, say that this was all, and return everything that comes back."""
        with self.connect() as client:
            for piece in pieces:
                client.write_all(piece)
            client.write_eof()
            return client.read_all()


def request(target: str = "/", method: str = "GET", body: bytes = b"", **fields: str) -> bytes:
    """The bytes of a request."""
    lines = [f"{method} {target} HTTP/1.1", "Host: h"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def answer(stream: Stream, method: str = "GET") -> Answer:
    """One response, with its fields as they are (names in lower case)."""
    head = stream.read_until(b"\r\n\r\n").decode("latin-1").split("\r\n")
    fields = {}
    for line in head[1:-2]:
        name, value = line.split(": ", 1)
        fields[name.lower()] = value
    status = int(head[0].split(" ")[1])
    body = b""
    if method == "HEAD" or status in (101, 204, 304):
        pass
    elif "content-length" in fields:
        body = stream.read_exactly(int(fields["content-length"]))
    elif "transfer-encoding" in fields:
        while size := int(stream.read_until(b"\r\n"), 16):
            body += stream.read_exactly(size)
            assert stream.read_exactly(2) == b"\r\n"
        while (line := stream.read_until(b"\r\n").decode()) != "\r\n":
            name, value = line.strip().split(": ", 1)
            fields["trailer " + name.lower()] = value
    else:
        body = stream.read_all()
    return Answer(status, fields, body)


@contextmanager
def site(app: Any, **options: Any) -> Iterator[Site]:
    """Serve an application on a free port of loopback, in the loop of this thread."""
    options = {"graceful_timeout": 5.0, "last_idle": 0.0, "linger": 0.05, **options}
    with HttpServer(app, options.pop("bind", ("127.0.0.1", 0)), **options) as server:
        yield Site(server)
    assert server.connections() == 0
