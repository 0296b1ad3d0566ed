"""gevent.server: StreamServer, a fiber for each connection; DatagramServer, one for each datagram."""

import ssl
from socket import socket as std_socket
from typing import Any

from ...io.socket import AF_INET, AF_INET6, create_server
from ...server.listeners import BACKLOG
from ...server.servers import TCPServer, UDPServer
from ...server.serving import Serving
from .baseserver import BaseServer

_CONTEXT_OPTIONS = (
    "keyfile",
    "certfile",
    "ssl_context",
    "cert_reqs",
    "ca_certs",
    "server_side",
    "ciphers",
    "ssl_version",
)


def context_of(ssl_args: dict[str, Any]) -> ssl.SSLContext | None:
    """The context that is meant by `ssl_context`, or by `keyfile`, `certfile` and the like. None: no TLS."""
    for name in ssl_args:
        if name not in _CONTEXT_OPTIONS:
            raise TypeError(f"there is no option {name!r}; of TLS there are {', '.join(_CONTEXT_OPTIONS)}")
    if not ssl_args:
        return None
    context: ssl.SSLContext | None = ssl_args.get("ssl_context")
    if context is None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(ssl_args["certfile"], ssl_args.get("keyfile"))
        if ssl_args.get("ca_certs"):
            context.load_verify_locations(ssl_args["ca_certs"])
        context.verify_mode = ssl_args.get("cert_reqs", ssl.CERT_NONE)
        if ssl_args.get("ciphers"):
            context.set_ciphers(ssl_args["ciphers"])
    return context


class StreamServer(BaseServer):
    """Calls `handle(socket, address)` for each connection, and closes it afterwards. TLS with `keyfile`, `certfile` …"""

    backlog = BACKLOG

    def __init__(
        self, listener: Any, handle: Any = None, backlog: int | None = None, spawn: Any = "default", **ssl_args: Any
    ) -> None:
        super().__init__(listener, handle, spawn)
        if backlog is not None:
            if isinstance(listener, std_socket):
                raise TypeError("backlog must be None when a socket instance is passed")
            self.backlog = backlog
        self._context = context_of(ssl_args)

    @property
    def ssl_enabled(self) -> bool:
        """Does it serve TLS?"""
        return self._context is not None

    def init_socket(self) -> None:
        if self._server is None and isinstance(self._listener, tuple):
            family = AF_INET6 if ":" in self._listener[0] else AF_INET
            self._listener = create_server(self._listener, family=family, backlog=self.backlog)

    def _make(self) -> Serving:
        return TCPServer(
            self._listener, self._handle, ssl_context=self._context, max_connections=self._limit, backlog=self.backlog
        )


class DatagramServer(BaseServer):
    """Calls `handle(data, address)` for each datagram; bytes that it returns are sent back."""

    def _make(self) -> Serving:
        options: dict[str, Any] = {} if self._limit is None else {"max_handlers": self._limit}
        return UDPServer(self._listener, self._answer, **options)

    def _answer(self, data: bytes, address: Any) -> bytes | None:
        answer = self.handle(data, address) if self._spawn is None else self._spawn(self.handle, data, address).get()
        return answer if isinstance(answer, bytes) else None


__all__ = ["DatagramServer", "StreamServer"]
