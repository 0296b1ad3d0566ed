"""TCPServer, UnixServer, UDPServer: what most programs want of this package. The engine below is serving.py."""

import random
import ssl
from collections.abc import Callable
from socket import SOCK_DGRAM
from typing import Any, cast

from ..core.scheduler import check_seconds
from ..io.socket import socket
from .datagrams import Datagrams, Receiver
from .handlers import Connections, Tls
from .limits import ConnectionLimits
from .listeners import BACKLOG, Endpoint, UnixEndpoint, endpoints_of
from .service import Changed, Service
from .serving import Serving
from .share import Intake

Handler = Callable[[Any, Any], object]

#: Seconds for a TLS handshake.
HANDSHAKE: float = 10.0


class _ConnectionServer(Serving):
    """What TCPServer and UnixServer have in common."""

    def __init__(
        self,
        endpoints: list[Endpoint],
        handler: Handler,
        ssl_context: ssl.SSLContext | None,
        handshake_timeout: float,
        max_connections: int | None,
        max_connections_per_address: int | None,
        retire_after: int | None,
        options: dict[str, Any],
    ) -> None:
        _check_handler(handler, "(socket, address)")
        if ssl_context is not None and not isinstance(ssl_context, ssl.SSLContext):
            raise TypeError(f"ssl_context must be an ssl.SSLContext, not {ssl_context!r}")
        if retire_after is not None and (not isinstance(retire_after, int) or retire_after < 1):
            raise ValueError(f"retire_after must be a number of connections from 1 on, or None, not {retire_after!r}")
        super().__init__(endpoints, self._make_connections, **options)
        self._handler = handler
        self._tls = (
            None if ssl_context is None else Tls(ssl_context, check_seconds("handshake_timeout", handshake_timeout))
        )
        self._limits = ConnectionLimits(max_connections, max_connections_per_address)
        self._retire_after = retire_after

    def _make_connections(self, changed: Changed) -> Service:
        retire = None if self._retire_after is None else spread(self._retire_after)
        return Connections(changed, self._handler, self._limits, self._tls, retire)


class TCPServer(_ConnectionServer):
    """Calls `handler(socket, address)` in a fiber of its own for each connection; its end is that of the connection.

    `address` is (host, port), a port, a listening socket, or a list of those. Host "" or None: all addresses, of IPv4 and
    IPv6; a name: all that it has. Port 0: a free one, the same for all threads and processes; `address` tells it.

    ssl_context                  TLS, with a handshake in the handler's fiber, in at most `handshake_timeout` seconds;
                                 the handler gets a socket whose handshake is done
    max_connections              more are left in the kernel's queue; counted across the threads of each process
    max_connections_per_address  more are closed at once (limits.py)
    retire_after                 with processes: each is replaced after about so many connections in one of its loops
    backlog                      of connections that wait in the kernel
    reuse_port                   let other programs of this user listen on the port as well

    Further options, and how it is started and stopped: `Serving`. Raises TypeError and ValueError at once for bad
    arguments. An error of the handler goes into the log (`fibers.server`).
    """

    def __init__(
        self,
        address: Any,
        handler: Handler,
        *,
        ssl_context: ssl.SSLContext | None = None,
        handshake_timeout: float = HANDSHAKE,
        max_connections: int | None = None,
        max_connections_per_address: int | None = None,
        retire_after: int | None = None,
        backlog: int = BACKLOG,
        reuse_port: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(
            endpoints_of(address, backlog=backlog, shared=reuse_port), handler, ssl_context, handshake_timeout,
            max_connections, max_connections_per_address, retire_after, options,
        )  # fmt: skip


class UnixServer(_ConnectionServer):
    """As TCPServer, on a unix socket at `path`, with permission bits `mode` and owner `user` and `group` (names or ids).

    They hold from its first moment on. A socket there on which nobody listens any more is replaced; the file is removed
    at the end. A path that begins with a NUL is an abstract address. The handler's `address` is what the client is bound
    to, mostly "".
    """

    def __init__(
        self,
        path: str,
        handler: Handler,
        *,
        mode: int = 0o666,
        user: str | int | None = None,
        group: str | int | None = None,
        ssl_context: ssl.SSLContext | None = None,
        handshake_timeout: float = HANDSHAKE,
        max_connections: int | None = None,
        retire_after: int | None = None,
        backlog: int = BACKLOG,
        **options: Any,
    ) -> None:
        if not isinstance(path, str) or not path:
            raise TypeError(f"the path of a unix socket is a str that is not empty, not {path!r}")
        super().__init__(
            [UnixEndpoint(path, backlog=backlog, mode=mode, user=user, group=group)], handler, ssl_context,
            handshake_timeout, max_connections, None, retire_after, options,
        )  # fmt: skip


class UDPServer(Serving):
    """Calls `handler(data, address)` in a fiber of its own for each datagram; bytes that it returns are sent back.

    At most `max_handlers` at once in each loop; what comes meanwhile waits in the kernel's buffer, and is dropped when
    that is full. `address` and further options as for TCPServer. On a host with several addresses an answer comes from
    the one that the system chooses, unless the server is bound to one.
    """

    def __init__(
        self,
        address: Any,
        handler: Callable[[bytes, Any], bytes | None],
        *,
        max_handlers: int = 1000,
        reuse_port: bool = False,
        **options: Any,
    ) -> None:
        _check_handler(handler, "(data, address)")
        if not isinstance(max_handlers, int) or max_handlers < 1:
            raise ValueError(f"max_handlers must be a number from 1 on, not {max_handlers!r}")
        endpoints = endpoints_of(address, kind=SOCK_DGRAM, backlog=0, shared=reuse_port)
        super().__init__(endpoints, self._make_datagrams, make_intake=_receiver, **options)
        self._handler = handler
        self._max_handlers = max_handlers

    def _make_datagrams(self, changed: Changed) -> Service:
        return Datagrams(changed, self._handler, self._max_handlers)


def spread(count: int, jitter: float = 0.1) -> int:
    """`count` up to `jitter` (a fraction) less or more, by chance: so that not all processes retire at one moment."""
    return max(1, round(count * random.uniform(1 - jitter, 1 + jitter)))


def _receiver(sock: socket, service: Any, name: str) -> Intake:
    return Receiver(sock, cast(Datagrams, service), name)


def _check_handler(handler: object, takes: str) -> None:
    if not callable(handler):
        raise TypeError(f"the handler is a function of {takes}, not {handler!r}")
