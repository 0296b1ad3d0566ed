"""A request and its response as gunicorn's hooks and its access log know them.

Hooks (`pre_request`, `post_request`), loggers and what instruments them read attributes of gunicorn's own objects. These
show the same under the same names, over an exchange, and compute only what is asked for.
"""

from typing import Any

from ..http.exchange import Exchange


class RequestView:
    """As `gunicorn.http.message.Request`, for reading."""

    __slots__ = ("_exchange", "scheme")

    #: The address in a PROXY header is the client's here, as if there were no proxy.
    proxy_protocol_info = None

    def __init__(self, exchange: Exchange, scheme: str) -> None:
        self._exchange = exchange
        self.scheme = scheme

    @property
    def method(self) -> str:
        return self._exchange.head.method

    @property
    def uri(self) -> str:
        return self._exchange.head.target

    @property
    def path(self) -> str:
        return self._exchange.head.path

    @property
    def query(self) -> str:
        return self._exchange.head.query

    @property
    def fragment(self) -> str:
        return ""  # a target with one is refused

    @property
    def version(self) -> tuple[int, int]:
        return self._exchange.head.version

    @property
    def headers(self) -> list[tuple[str, str]]:
        return [(name.upper(), value) for name, value in self._exchange.head.fields]

    @property
    def trailers(self) -> list[tuple[str, str]]:
        return []

    @property
    def body(self) -> Any:
        return self._exchange.body

    @property
    def peer_addr(self) -> Any:
        peer = self._exchange.peer
        return (peer.client, peer.port) if peer.client else ""

    remote_addr = peer_addr

    def should_close(self) -> bool:
        return not self._exchange.head.keep_alive


class ResponseView:
    """As `gunicorn.http.wsgi.Response`, for reading."""

    __slots__ = ("_exchange",)

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    @property
    def status(self) -> str:
        return self._exchange.status

    @property
    def status_code(self) -> int:
        return int(self._exchange.status[:3] or 0)

    @property
    def headers(self) -> list[tuple[str, str]]:
        return list(self._exchange.fields)

    @property
    def headers_sent(self) -> bool:
        return self._exchange.started

    @property
    def sent(self) -> int:
        return self._exchange.sent

    @property
    def response_length(self) -> int | None:
        """The Content-Length that the application has given."""
        given = [value for name, value in self._exchange.fields if name.lower() == "content-length"]
        return int(given[0]) if given and given[0].isdecimal() else None

    def should_close(self) -> bool:
        return self._exchange.last_one
