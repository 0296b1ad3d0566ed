"""WebSocket, with wsproto's client side as the other end."""

from collections.abc import Iterator
from typing import Any

import pytest
from support.http_serving import Site, request, site

import fibers
from fibers.http import Request, Server, WebSocket, WebSocketClosed, WebSocketLimits
from fibers.http.census import UPGRADED

wsproto = pytest.importorskip("wsproto", reason="wsproto is not installed: pip install 'fibers-runtime[websocket]'")

from wsproto import ConnectionType, WSConnection  # noqa: E402
from wsproto.events import (  # noqa: E402
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Message,
    Ping,
    Pong,
    RejectConnection,
    TextMessage,
)
from wsproto.events import Request as Opening  # noqa: E402


class Client:
    """The other side."""

    def __init__(self, served: Site, path: str = "/", subprotocols: tuple[str, ...] = ()) -> None:
        self.stream = served.connect()
        self.engine = WSConnection(ConnectionType.CLIENT)
        self.say(Opening(host="h", target=path, subprotocols=list(subprotocols)))

    def say(self, event: Any) -> None:
        self.stream.write_all(self.engine.send(event))

    def events(self) -> Iterator[Any]:
        while True:
            yield from self.engine.events()
            data = self.stream.read_some()
            if not data:
                return
            self.engine.receive_data(data)

    def next(self) -> Any:
        return next(self.events())

    def close(self) -> None:
        self.stream.close()


def echoing(limits: WebSocketLimits = WebSocketLimits()) -> Server:  # noqa: B008
    server = Server()

    @server.route("/")
    def echo(request: Request) -> None:
        with request.websocket(("v2", "v1"), limits) as socket:
            for message in socket:
                socket.send(message)

    return server


def test_a_conversation() -> None:
    with site(echoing()) as served:
        client = Client(served, subprotocols=("v1", "v2"))
        accepted = client.next()
        assert isinstance(accepted, AcceptConnection)
        assert accepted.subprotocol == "v2"  # the server's preference
        client.say(TextMessage(data="hällo"))
        assert client.next().data == "hällo"
        client.say(BytesMessage(data=b"a" * 70_000, message_finished=False))
        client.say(BytesMessage(data=b"b"))
        got = b""
        for event in client.events():
            got += event.data
            if event.message_finished:
                break
        assert got == b"a" * 70_000 + b"b"
        client.say(Ping(payload=b"p"))
        pong = client.next()
        assert isinstance(pong, Pong)
        assert pong.payload == b"p"
        assert served.hub.census.count(UPGRADED) == 1
        assert served.hub.running == 0
        client.say(CloseConnection(code=1000, reason="bye"))
        closed = client.next()
        assert (closed.code, closed.reason) == (1000, "bye")
        assert list(client.events()) == []  # the server closes the connection
        client.close()


def test_what_comes_with_the_request_is_not_lost() -> None:
    with site(echoing()) as served, served.connect() as stream:
        key: dict[str, Any] = {"Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec_WebSocket_Version": "13"}
        masked = bytes([0x81, 0x82, 0, 0, 0, 0]) + b"hi"
        stream.write_all(request(Upgrade="websocket", Connection="Upgrade", **key) + masked)
        head = stream.read_until(b"\r\n\r\n")
        assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in head  # the example of RFC 6455
        assert stream.read_exactly(4) == b"\x81\x02hi"


def test_a_request_for_something_else_is_told_what_this_is() -> None:
    with site(echoing()) as served:
        told = served.ask()
        assert (told.status, told.fields["upgrade"], told.fields["sec-websocket-version"]) == (426, "websocket", "13")
        old: dict[str, Any] = {"Sec_WebSocket_Key": "x", "Sec_WebSocket_Version": "8"}
        assert served.ask(Upgrade="websocket", Connection="Upgrade", **old).status == 426


@pytest.mark.parametrize("pieces", [1, 3])
def test_a_message_that_is_too_long_ends_it(pieces: int) -> None:
    with site(echoing(WebSocketLimits(message=100))) as served:
        client = Client(served)
        client.next()
        client.say(TextMessage(data="x" * 100))
        assert client.next().data == "x" * 100
        for piece in range(pieces):
            client.say(TextMessage(data="x" * (101 // pieces + 1), message_finished=piece == pieces - 1))
        closed = client.next()
        assert (type(closed), closed.code) == (CloseConnection, 1009)
        client.close()


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\x81\x01x", 1002),  # not masked
        (b"\xf1\x80\0\0\0\0", 1002),  # reserved bits
        (b"\x83\x80\0\0\0\0", 1002),  # no such frame
        (b"\x81\x81\0\0\0\0\xff", 1007),  # no UTF-8
        (b"\x89\xfe\x00\x7e\0\0\0\0" + bytes(126), 1002),  # a ping that is too long
    ],
)
def test_frames_that_are_none_end_it(sent: bytes, code: int) -> None:
    with site(echoing()) as served:
        client = Client(served)
        client.next()
        client.stream.write_all(sent)
        closed = client.next()
        assert isinstance(closed, CloseConnection)
        assert closed.code == code
        client.close()


def test_a_client_that_goes_without_a_word() -> None:
    ended: list[WebSocketClosed] = []
    server = Server()

    @server.route("/")
    def hear(request: Request) -> None:
        with request.websocket() as socket:
            try:
                socket.receive()
            except WebSocketClosed as error:
                ended.append(error)
            with pytest.raises(WebSocketClosed):
                socket.send("anybody?")
            assert socket.closed

    with site(server) as served:
        client = Client(served)
        client.next()
        client.close()
        while not ended:
            fibers.sleep(0)
    assert ended[0].code == 1006


def test_silence_is_asked_about_and_then_taken_for_the_end() -> None:
    with site(echoing(WebSocketLimits(silence=0.03))) as served:
        client = Client(served)
        client.next()
        ping = client.next()
        assert isinstance(ping, Ping)
        client.say(ping.response())
        assert isinstance(client.next(), Ping)
        while served.hub.census.count(UPGRADED):  # it does not answer this time
            fibers.sleep(0.001)
        client.close()


def test_the_server_says_goodbye_when_it_stops() -> None:
    with site(echoing()) as served:
        client = Client(served)
        client.next()
        stopped = fibers.spawn(served.server.stop)
        closed = client.next()
        assert (type(closed), closed.code) == (CloseConnection, 1001)
        client.say(closed.response())
        assert list(client.events()) == []
        assert not stopped.result().cut
        client.close()


def test_two_fibers_send_and_one_receives() -> None:
    server = Server()

    def count(socket: WebSocket, sign: str) -> None:
        for number in range(50):
            socket.send(f"{sign}{number}" * 100)

    @server.route("/")
    def talk(request: Request) -> None:
        with request.websocket(limits=WebSocketLimits(close=0.01)) as socket, fibers.TaskGroup() as group:
            group.spawn(count, socket, "a")
            group.spawn(count, socket, "b")
            with pytest.raises(TimeoutError):
                socket.receive(timeout=0.01)
            with pytest.raises(TypeError, match="text or bytes"):
                socket.send(5)  # type: ignore[arg-type]

    with site(server) as served:
        client = Client(served)
        client.next()
        got = [event.data for event in client.events() if isinstance(event, Message)]
        assert sorted(got) == sorted(f"{sign}{number}" * 100 for sign in "ab" for number in range(50))
        client.close()


def test_a_handler_that_fails_says_so_to_the_client(caplog: pytest.LogCaptureFixture) -> None:
    server = Server()

    @server.route("/")
    def fail(request: Request) -> None:
        with request.websocket(limits=WebSocketLimits(close=0.01)):
            raise LookupError("a bug")

    with site(server) as served:
        client = Client(served)
        assert not isinstance(client.next(), RejectConnection)
        assert client.next().code == 1011
        client.close()
    assert "a bug" in caplog.text
