"""A request, as the functions of a `Server` get it."""

import json
from collections.abc import Callable, Iterator
from typing import Any, Final
from urllib.parse import parse_qs, unquote

from ..io.stream import Stream
from .body import Body
from .errors import RequestError
from .exchange import Exchange
from .response import Fields
from .websocket import WebSocket, WebSocketLimits, accept_websocket

#: The most that `text`, `json` and `form` read, unless they are told (bytes).
LARGEST: Final = 16 << 20


class Headers:
    """The fields of a request. Names in any case; `[]` raises KeyError, and joins several by commas."""

    __slots__ = ("_fields",)

    def __init__(self, fields: list[tuple[str, str]]) -> None:
        self._fields = fields

    def __getitem__(self, name: str) -> str:
        values = self.all(name)
        if not values:
            raise KeyError(name)
        return ", ".join(values)

    def get(self, name: str, default: str | None = None) -> str | None:
        """The value, or `default`."""
        values = self.all(name)
        return ", ".join(values) if values else default

    def all(self, name: str) -> list[str]:
        """The values of all fields of that name."""
        lower = name.lower()
        return [value for each, value in self._fields if each == lower]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and any(each == name.lower() for each, _ in self._fields)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Pairs of name (lower case) and value, as they came."""
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return f"Headers({self._fields!r})"


class Request:
    """What a client asks for. For the fiber of its handler.

    `path` is decoded, `target` and `query` are as sent. `params` are what the braces of the route stood for. `client` is
    the address of the client, as far as trusted proxies tell.
    """

    __slots__ = ("exchange", "headers", "method", "params", "path", "query", "target")

    def __init__(self, exchange: Exchange, params: dict[str, str]) -> None:
        head = exchange.head
        self.exchange = exchange
        self.method = head.method
        self.target = head.target
        self.path = unquote(head.path) if "%" in head.path else head.path
        self.query = head.query
        self.headers = Headers(head.fields)
        self.params = params

    @property
    def client(self) -> str:
        """The client's address ("" on a unix socket)."""
        return self.exchange.origin.client

    @property
    def scheme(self) -> str:
        """ "http" or "https"."""
        return self.exchange.origin.scheme

    @property
    def host(self) -> str | None:
        """What the request is meant for, with the port if it was given."""
        return self.exchange.origin.host

    @property
    def args(self) -> dict[str, str]:
        """The query, decoded; of several values of one name the last."""
        return {name: values[-1] for name, values in parse_qs(self.query, keep_blank_values=True).items()}

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies, as sent."""
        pairs = (each.strip().partition("=") for each in (self.headers.get("cookie") or "").split(";"))
        return {name: value for name, _, value in pairs if name}

    @property
    def body(self) -> Body:
        """The body, as a binary file for reading: nothing of it is received before it is read."""
        return self.exchange.body

    def read(self, limit: int = LARGEST) -> bytes:
        """The whole body. A larger one than `limit` bytes is refused (413)."""
        if self.exchange.head.length > limit:
            raise RequestError(413, f"a body of more than {limit} bytes")
        data = self.body.read(limit)
        if not self.body.done and self.body.read1(1):
            raise RequestError(413, f"a body of more than {limit} bytes")
        return data

    def text(self, limit: int = LARGEST) -> str:
        """The body as text, in UTF-8. What is none is refused (400)."""
        try:
            return self.read(limit).decode()
        except UnicodeDecodeError as error:
            raise RequestError(400, f"a body that is not UTF-8: {error}") from None

    def json(self, limit: int = LARGEST) -> Any:
        """The body as JSON. What is none is refused (400)."""
        try:
            return json.loads(self.text(limit))
        except (ValueError, RecursionError) as error:
            raise RequestError(400, f"a body that is not JSON: {error}") from None

    def form(self, limit: int = LARGEST) -> dict[str, str]:
        """The body as a form (application/x-www-form-urlencoded); of several values of one name the last."""
        return {name: values[-1] for name, values in parse_qs(self.text(limit), keep_blank_values=True).items()}

    def upgrade(
        self, protocol: str, fields: Fields = (), leaving: Callable[[], object] | None = None
    ) -> tuple[Any, bytes]:
        """The socket, and what has come on it: from now on another protocol is spoken. See `Exchange.upgrade`."""
        return self.exchange.upgrade(protocol, fields, leaving)

    def upgrade_stream(self, protocol: str, fields: Fields = ()) -> Stream:
        """As `upgrade`, as a Stream."""
        sock, unread = self.upgrade(protocol, fields)
        return Stream(sock, unread)

    def websocket(
        self,
        subprotocols: tuple[str, ...] = (),
        limits: WebSocketLimits = WebSocketLimits(),  # noqa: B008 - immutable
    ) -> WebSocket:
        """Speak WebSocket from now on: see websocket.py. A request that does not ask for it is refused (426)."""
        return accept_websocket(self.exchange, subprotocols, limits)

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.target}>"
