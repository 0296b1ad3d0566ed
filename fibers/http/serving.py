"""An HTTP server: an application, where it listens, and what it allows. The engine is that of `fibers.server`.

    from fibers.http import serve

    serve(app, port=8000)                                  # the program: until a signal comes

    with HttpServer(app, ("127.0.0.1", 0)) as server:      # inside of one
        print(server.address)

An application is a WSGI callable, or a `Server` with routes. Every loop has its own hub (hub.py) and shares nothing with
the others but the application, the certificates and the access log.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, Literal

from ..server.listeners import BACKLOG, UnixEndpoint, endpoints_of
from ..server.scoreboard import Scoreboard
from ..server.servers import spread
from ..server.service import Changed, Service
from ..server.serving import GRACEFUL, Serving
from ..server.share import Report
from .accesslog import open_log
from .certificates import Certificates
from .crowding import AddressLimit
from .exchange import Exchange
from .figures import tell_board, tell_scoreboard
from .hub import NEVER, Settings
from .networks import Networks
from .origin import Forwarding
from .published import COUNTERS, LOG_DROPPED
from .service import Board, HttpService
from .status import LOCAL, StatusPage
from .wsgi import WsgiHandler

#: Fields of Settings that are given as options of their own.
_OWN: Final = frozenset(("forwarding", "proxy_protocol"))


class HttpServer(Serving):
    """Serves an application. `bind`: (host, port), a port, "host:port", "unix:/path", a listening socket, or a list of them.

    tls                  Certificates, or (certificate, key) as paths: HTTPS
    access_log           a path, "-" (standard output), a text stream, a function of a line, or an AccessLog
    log_format           of a log that is made here: Apache's directives, "" (combined), or "json"
    status               the path of a status page, as "/server-status"; `status_from`: networks that may see it
    forwarded_from       networks of proxies whose word is believed about who the client is, in `forwarded_dialect`
    proxy_protocol_from  networks of peers whose connections begin with a PROXY header
    max_connections_per_address  of one client, in each process; more are closed at once (crowding.py)
    max_requests         requests after which a process is replaced (a tenth more or less, with `processes` > 1)
    settings             what is allowed; or single fields of Settings as further options
    threads, processes, graceful_timeout …   as for fibers.server.Serving

    Raises ValueError and TypeError at once for what makes no sense.
    """

    def __init__(
        self,
        app: Any,
        bind: Any = ("127.0.0.1", 8000),
        *,
        tls: Certificates | tuple[str, str | None] | None = None,
        access_log: Any = None,
        log_format: str = "",
        status: str | None = None,
        status_from: Iterable[str] = LOCAL,
        forwarded_from: Iterable[str] = (),
        forwarded_dialect: Literal["x-forwarded", "forwarded"] = "x-forwarded",
        proxy_protocol_from: Iterable[str] = (),
        max_connections_per_address: int | None = None,
        max_requests: int | None = None,
        settings: Settings | None = None,
        backlog: int = BACKLOG,
        reuse_port: bool = False,
        threads: int = 1,
        processes: int = 1,
        graceful_timeout: float | None = GRACEFUL,
        worker_timeout: float | None = 60.0,
        on_worker_start: Callable[[], object] | None = None,
        **allowed: Any,
    ) -> None:
        if forwarded_dialect not in ("x-forwarded", "forwarded"):
            raise ValueError(f'forwarded_dialect is "x-forwarded" or "forwarded", not {forwarded_dialect!r}')
        if max_requests is not None and max_requests < 1:
            raise ValueError(f"max_requests is at least 1, not {max_requests}")
        self._app = app
        self._routed = bool(getattr(app, "takes_exchanges", False))
        if not callable(app):
            raise TypeError(f"an application is a WSGI callable or a Server, not {app!r}")
        self._settings = _settings(settings, allowed)._replace(
            forwarding=_forwarding(forwarded_from, forwarded_dialect),
            proxy_protocol=Networks(proxy_protocol_from) if proxy_protocol_from else None,
        )
        self._tls = tls if tls is None or isinstance(tls, Certificates) else Certificates(*tls)
        self._log = open_log(access_log, log_format)
        self._own_log = self._log is not access_log
        self._status = status
        self._seers = Networks(status_from)
        proxies = [*Networks(forwarded_from).texts, *Networks(proxy_protocol_from).texts]
        most = max_connections_per_address
        self._crowding = None if most is None else AddressLimit(most, Networks(proxies))
        self._max_requests = max_requests
        self._many = processes > 1
        self._loops = threads
        # Where there is one process, its loops are asked themselves.
        self._scoreboard = Scoreboard(COUNTERS, threads) if self._many and status is not None else None
        self._user_start = on_worker_start
        self.board = Board()
        self._handler: Callable[[Exchange], None] | None = None
        super().__init__(
            _endpoints(bind, backlog, reuse_port),
            self._make_http_service,
            threads=threads,
            processes=processes,
            graceful_timeout=graceful_timeout,
            worker_timeout=worker_timeout,
            on_reload=self.renew,
            on_worker_start=self._worker_starts,
            scoreboard=self._scoreboard,
        )

    def renew(self) -> None:
        """Open the log anew and read the certificates again: what SIGHUP does, where there is one process."""
        if self._log is not None:
            self._log.reopen()
        if self._tls is not None:
            self._tls.reload()

    def close_log(self) -> None:
        """Write the last lines of a log that was opened here. Blocks."""
        if self._log is not None and self._own_log:
            self._log.close()

    def stop(self, *args: Any, **kwargs: Any) -> Report:
        try:
            return super().stop(*args, **kwargs)
        finally:
            self.close_log()

    def _worker_starts(self) -> None:
        self.renew()
        if self._user_start is not None:
            self._user_start()

    def _make_http_service(self, changed: Changed) -> Service:
        address = self.address
        server = (str(address[0]), int(address[1])) if isinstance(address, tuple) else (str(address), 0)
        turns = NEVER if self._max_requests is None else spread(max(1, self._max_requests // self._loops))
        row = None if self._scoreboard is None else self._scoreboard.row()
        if row is not None and self._log is not None and self._log.on_drop is None:
            self._log.on_drop = partial(row.__setitem__, 1 + LOG_DROPPED)
        return HttpService(
            self._handler_for(server), self._settings, changed, board=self.board, log=self._log, secure=self._tls,
            server=server, turns=turns, crowding=self._crowding, row=row,
        )  # fmt: skip

    def _handler_for(self, server: tuple[str, int]) -> Callable[[Exchange], None]:
        handler: Callable[[Exchange], None] = self._app
        if not self._routed:
            port = server[1] or (443 if self._tls else 80)
            base = {
                "SERVER_NAME": server[0] if server[1] else "localhost",
                "SERVER_PORT": str(port),
                "wsgi.url_scheme": "https" if self._tls else "http",
                "wsgi.multiprocess": self._many,
            }
            handler = WsgiHandler(self._app, base)
        if self._status is not None:
            told = tell_board(self.board) if self._scoreboard is None else tell_scoreboard(self._scoreboard)
            handler = StatusPage(handler, told, self._settings.max_handlers, self._status, self._seers)
        return handler


def serve(app: Any, host: str = "127.0.0.1", port: int = 8000, *, bind: Any = None, **options: Any) -> Report:
    """Serve an application until a signal comes: SIGTERM and SIGINT stop gracefully, at the second time at once.

    `bind` instead of host and port, and all further options: see HttpServer. Returns a report of what was cut at the end.
    """
    server = HttpServer(app, (host, port) if bind is None else bind, **options)
    try:
        return server.serve_forever()
    finally:
        server.close_log()


def _settings(settings: Settings | None, allowed: dict[str, Any]) -> Settings:
    known = [name for name in Settings._fields if name not in _OWN]
    for name in allowed:
        if name not in known:
            raise TypeError(f"there is no option {name!r}; of Settings there are {', '.join(known)}")
    chosen = (settings or Settings())._replace(**allowed)
    for name in known:
        value = getattr(chosen, name)
        if isinstance(value, int | float) and value < 0:
            raise ValueError(f"{name} cannot be negative: {value}")
    if chosen.max_handlers < 1 or chosen.max_pipelined < 1:
        raise ValueError("max_handlers and max_pipelined are at least 1")
    return chosen


def _forwarding(networks: Iterable[str], dialect: Literal["x-forwarded", "forwarded"]) -> Forwarding | None:
    proxies = Networks(networks)
    return Forwarding(proxies, dialect) if proxies.texts else None


def _endpoints(bind: Any, backlog: int, reuse_port: bool) -> list[Any]:
    if isinstance(bind, list):
        return [endpoint for each in bind for endpoint in _endpoints(each, backlog, reuse_port)]
    if isinstance(bind, str):
        if bind.startswith("unix:"):
            return [UnixEndpoint(bind.removeprefix("unix:"), backlog=backlog)]
        host, colon, port = bind.rpartition(":")
        if not colon or not port.isdecimal() or not port.isascii():
            raise ValueError(f'an address is "host:port", "[host]:port" or "unix:/path", not {bind!r}')
        bind = (host.removeprefix("[").removesuffix("]"), int(port))
    return endpoints_of(bind, backlog=backlog, shared=reuse_port)
