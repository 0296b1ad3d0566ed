"""WebSocket (RFC 6455), through the library wsproto: `pip install fibers-runtime[websocket]`.

    @server.route("/echo")
    def echo(request):
        with request.websocket() as socket:
            for message in socket:
                socket.send(message)

wsproto turns bytes into events and back, and waits for nothing. What is here: the fiber that reads, answers to pings and to
the other side's close, and limits, since the size of a message is the client's choice.

One fiber receives; any may send, and what two send at once does not interleave: each message is made and handed to the
socket's queue of writers in one step.
"""

from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha1
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

try:
    from wsproto.connection import Connection, ConnectionState, ConnectionType
    from wsproto.events import BytesMessage, CloseConnection, Message, Ping, Pong, TextMessage
    from wsproto.utilities import LocalProtocolError, RemoteProtocolError
except ImportError as missing:
    _MISSING: ImportError | None = missing
else:
    _MISSING = None

from ..core.cancel import timeout as time_limit
from .errors import ClientGoneError, RequestError
from .exchange import Exchange

#: Of RFC 6455, 1.3.
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

_WANTED: Final = [("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")]

NORMAL: Final = 1000
GOING_AWAY: Final = 1001
PROTOCOL_ERROR: Final = 1002
TOO_BIG: Final = 1009


class WebSocketLimits(NamedTuple):
    """`message`: the most that one may have (bytes, of text as UTF-8). `silence`: seconds after which a ping is sent, and
    once more the same until the client counts as gone; None: never. `close`: seconds for the other side's goodbye.
    """

    message: int = 1 << 20
    silence: float | None = 30.0
    close: float = 5.0


class WebSocketClosed(ConnectionError):
    """The conversation is over. `code` and `reason` are the other side's (1006: it went without a word)."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"the WebSocket was closed: {code} {reason}".rstrip())
        self.code = code
        self.reason = reason


class WebSocket:
    """One conversation. `subprotocol` is the one that was chosen, or None."""

    __slots__ = ("_closed", "_engine", "_limits", "_pieces", "_size", "_sock", "_unread", "subprotocol")

    def __init__(self, limits: WebSocketLimits, subprotocol: str | None) -> None:
        self._sock: Any = None
        self._limits = limits
        self._engine = Connection(ConnectionType.SERVER)
        self._pieces: list[Any] = []  # of a message that has not come to its end
        self._size = 0
        self._unread: list[str | bytes] = []
        self._closed: WebSocketClosed | None = None
        self.subprotocol = subprotocol

    @property
    def closed(self) -> bool:
        """Is the conversation over?"""
        return self._closed is not None

    def receive(self, timeout: float | None = None) -> str | bytes:
        """The next message: text, or bytes. Raises WebSocketClosed at the end, TimeoutError after `timeout` seconds.

        One fiber at a time. Pings are answered in here, so a server that only sends should receive in a fiber beside.
        """
        if timeout is not None:
            with time_limit(timeout):
                return self._receive()
        return self._receive()

    def _receive(self) -> str | bytes:
        pinged = False
        while not self._unread:
            if self._closed is not None:
                raise self._closed
            self._sock.settimeout(self._limits.silence)
            try:
                data = self._sock.recv(65_536)
            except TimeoutError as late:
                if hasattr(late, "scope"):
                    raise
                if pinged:
                    raise self._gone(
                        f"nothing has come for {self._limits.silence} seconds, not even to a ping"
                    ) from None
                pinged = True
                self.ping()
                continue
            except ConnectionError as error:
                raise self._gone(str(error)) from error
            pinged = False
            if not data:
                raise self._gone("without a word")
            self._hear(data)
        return self._unread.pop(0)

    def _hear(self, data: bytes) -> None:
        """Understand what has come."""
        try:
            self._engine.receive_data(data)
            for event in self._engine.events():
                if isinstance(event, Message):
                    self._gather(event)
                elif isinstance(event, Ping):
                    self._say(event.response())
                elif isinstance(event, CloseConnection):
                    if self._engine.state is ConnectionState.OPEN:  # wsproto's own: what came is no WebSocket
                        self._fail(int(event.code), event.reason or "")
                    self._closed = WebSocketClosed(int(event.code), event.reason or "")
                    if self._engine.state is ConnectionState.REMOTE_CLOSING:
                        self._say(event.response())
        except RemoteProtocolError as error:
            self._fail(PROTOCOL_ERROR, str(error))

    def _gather(self, event: Any) -> None:
        self._size += len(event.data if isinstance(event, BytesMessage) else event.data.encode())
        if self._size > self._limits.message:
            self._fail(TOO_BIG, f"more than {self._limits.message} bytes")
        self._pieces.append(event.data)
        if event.message_finished:
            empty: Any = "" if isinstance(event, TextMessage) else b""
            self._unread.append(empty.join(bytes(piece) if empty == b"" else piece for piece in self._pieces))
            self._pieces, self._size = [], 0

    def _fail(self, code: int, reason: str) -> None:
        self._closed = WebSocketClosed(code, reason)
        if self._engine.state is ConnectionState.OPEN:
            self._say(CloseConnection(code=code, reason=reason[:100]))
        raise self._closed

    def _gone(self, why: str) -> WebSocketClosed:
        self._closed = WebSocketClosed(1006, why)
        return self._closed

    def send(self, message: str | bytes | bytearray | memoryview) -> None:
        """Send a message; waits until the system has taken it. Raises WebSocketClosed, or TypeError for what is none."""
        if isinstance(message, str):
            event: Any = TextMessage(data=message)
        elif isinstance(message, bytes | bytearray | memoryview):
            event = BytesMessage(data=bytes(message))
        else:
            raise TypeError(f"a message is text or bytes, not {message!r}")
        self._say(event)

    def ping(self, payload: bytes = b"") -> None:
        """Ask whether the other side is there; the answer is taken notice of while receiving."""
        self._say(Ping(payload=payload))

    def _say(self, event: Any) -> None:
        if self._closed is not None and not isinstance(event, CloseConnection | Pong):
            raise self._closed
        try:
            data = self._engine.send(event)
        except LocalProtocolError:
            raise self._closed or WebSocketClosed(NORMAL, "closed on this side") from None
        try:
            self._sock.sendall(data)
        except TimeoutError:
            raise self._gone(f"the client has taken nothing for {self._limits.silence} seconds") from None
        except ConnectionError as error:
            raise self._gone(str(error)) from error

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Say goodbye, and wait for the other side's, for a few seconds. A second call does nothing."""
        if self._engine.state is not ConnectionState.OPEN or (self._closed is not None and self._closed.code == 1006):
            return
        try:
            self._say(CloseConnection(code=code, reason=reason))
            with time_limit(self._limits.close):
                while self._closed is None:
                    self._unread.clear()
                    self._receive()
        except (WebSocketClosed, TimeoutError):
            pass
        if self._closed is None:
            self._closed = WebSocketClosed(code, reason)

    def _leaving(self) -> None:
        """The server is to stop. Who receives finds the end."""
        if self._engine.state is ConnectionState.OPEN:
            try:
                self._say(CloseConnection(code=GOING_AWAY, reason="the server stops"))
            except WebSocketClosed:
                return

    def __iter__(self) -> Iterator[str | bytes]:
        """The messages, up to the end of the conversation."""
        while True:
            try:
                yield self.receive()
            except WebSocketClosed:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if kind is None:
            self.close()
        elif issubclass(kind, WebSocketClosed):
            return True  # the other side has ended it: that is no failure of the handler
        elif issubclass(kind, Exception):
            self.close(1011, "the server has failed")
        return False


def accept_websocket(exchange: Exchange, subprotocols: tuple[str, ...], limits: WebSocketLimits) -> WebSocket:
    """Answer a request for a WebSocket. Raises RequestError if it is none, ImportError without wsproto."""
    if _MISSING is not None:
        raise ImportError("WebSocket needs wsproto: pip install fibers-runtime[websocket]") from _MISSING
    head = exchange.head
    key = head.get("sec-websocket-key", "") or ""
    if head.method != "GET" or "websocket" not in (head.upgrade or "").lower() or not key:
        raise RequestError(426, "this is a WebSocket: it needs Upgrade and Sec-WebSocket-Key", _WANTED)
    if head.get("sec-websocket-version") != "13":
        raise RequestError(426, "only version 13 of WebSocket is spoken here", _WANTED)
    offered = [each.strip() for each in (head.get("sec-websocket-protocol", "") or "").split(",")]
    chosen = next((each for each in subprotocols if each in offered), None)
    fields = [("Sec-WebSocket-Accept", b64encode(sha1(key.encode("latin-1") + _GUID).digest()).decode())]
    if chosen is not None:
        fields.append(("Sec-WebSocket-Protocol", chosen))
    made = WebSocket(limits, chosen)
    sock, unread = exchange.upgrade("websocket", fields, made._leaving)
    made._sock = sock
    if unread:
        try:
            made._hear(unread)
        except WebSocketClosed as error:
            raise ClientGoneError(str(error)) from error
    return made
