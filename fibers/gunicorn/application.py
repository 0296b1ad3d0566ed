"""The application in a worker: between the exchanges of `fibers.http` and gunicorn's environ, hooks and logs.

Facts, and what follows:

* gunicorn leaves REMOTE_ADDR the peer's address, and applications behind proxies have middleware that counts on it. So
  does this: of what a proxy says only the scheme and the script name are heard, from those in `forwarded_allow_ips`.
* What proxies alone may say (a field with an underscore in its name, as SCRIPT_NAME) has passed the parser, which knows
  nobody's address; from others it is dropped here.
* An error of an application belongs into gunicorn's error log. An application may also end by SystemExit: that is no
  reason to end a worker with a thousand other requests. But when the master has given the worker up (SIGABRT), the very
  same exception is what ends it.
* An application that answers on the socket behind our back (`gunicorn.socket`, as WebSocket libraries do) says so by
  raising StopIteration: nothing is to be added, and the connection ends.
* A `fibers.http.Server` with routes is no WSGI application, and needs none: it gets the exchange. Then hooks and logs have
  no environ.
"""

import io
import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, ClassVar, Final

from gunicorn import SERVER_SOFTWARE
from gunicorn.http.wsgi import WSGIErrorsWrapper

from ..http.errors import ClientGoneError, RequestError
from ..http.exchange import Exchange
from ..http.wsgi import FileWrapper, WsgiHandler
from ..io.socket import AF_UNIX
from . import settings
from .views import RequestView, ResponseView

#: What stands in the access log for a request that could not be read.
_UNREADABLE: Final = {"REQUEST_METHOD": "-", "RAW_URI": "-", "SERVER_PROTOCOL": "-", "REMOTE_ADDR": "-"}


class ErrorLog(io.TextIOBase):
    """`wsgi.errors`: gunicorn's error log, wherever that goes at the moment (SIGUSR1 opens it anew)."""

    def __init__(self, cfg: Any) -> None:
        self._cfg = cfg

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        WSGIErrorsWrapper(self._cfg).write(text)
        return len(text)


class PlainFileWrapper(FileWrapper):
    """`wsgi.file_wrapper` with `--no-sendfile`: the file is read, piece by piece."""


class Application(WsgiHandler):
    """The handler of a worker. Counts requests in `worker.nr`."""

    __slots__ = ("_allowed", "_by_hand", "_named", "_post", "_pre", "_routed", "_schemes", "_script", "_worker")

    strict: ClassVar[bool] = False  # gunicorn leaves out what belongs to the connection, and so do we

    def __init__(self, worker: Any, app: Callable[..., Any], server: tuple[str, str] | None) -> None:
        cfg = worker.cfg
        base = {
            "SERVER_SOFTWARE": SERVER_SOFTWARE,
            "wsgi.errors": ErrorLog(cfg),
            "wsgi.multiprocess": cfg.workers > 1,
            "wsgi.url_scheme": "https" if cfg.is_ssl else "http",
            "wsgi.file_wrapper": FileWrapper if cfg.sendfile else PlainFileWrapper,
        }
        if server is not None:
            base["SERVER_NAME"], base["SERVER_PORT"] = server
        super().__init__(app, base)
        self._routed = bool(getattr(app, "takes_exchanges", False))
        self._by_hand = server is None  # where a request came in has to be asked each time
        self._worker = worker
        self._allowed = settings.forwarders(cfg)
        self._schemes = {name.lower(): value for name, value in cfg.secure_scheme_headers.items()}
        self._named = bool(settings.forwarder_names(cfg))
        self._script = os.environ.get("SCRIPT_NAME", "")
        self._pre, self._post = cfg.pre_request, cfg.post_request

    def __call__(self, exchange: Exchange) -> None:
        worker = self._worker
        worker.nr += 1
        trusted = exchange.peer.client in self._allowed
        if not trusted and any("_" in name for name, _ in exchange.head.fields):
            exchange.head.fields = [field for field in exchange.head.fields if "_" not in field[0]]
        view = RequestView(exchange, self._scheme(exchange) if trusted else exchange.peer.scheme)
        exchange.left = (view, None)
        try:
            self._pre(worker, view)
            if self._routed:
                self._app(exchange)
            else:
                super().__call__(exchange)
        except StopIteration:
            raise ClientGoneError("the application has answered by itself") from None
        except (RequestError, ClientGoneError):
            raise
        except (Exception, SystemExit) as error:
            if worker.aborted or (isinstance(error, TimeoutError) and hasattr(error, "scope")):
                raise  # the worker is to end; or a time limit, which the connection tells its client of
            self._failed(exchange)
        finally:
            self._after(exchange)

    def _failed(self, exchange: Exchange) -> None:
        """In an `except`: the application has failed."""
        head = exchange.head
        self._worker.log.exception("Error handling request %s %s", head.method, head.target)
        if exchange.started:
            raise ClientGoneError("the application has failed in the middle of its response")
        exchange.fail(500, "the server has failed to answer")

    def _after(self, exchange: Exchange) -> None:
        view, environ = exchange.left
        try:
            self._post(self._worker, view, environ or {}, ResponseView(exchange))
        except Exception:
            self._worker.log.exception("Exception in post_request hook")

    def _scheme(self, exchange: Exchange) -> str:
        """What a trusted proxy says it is. Raises RequestError if its fields contradict each other."""
        said = {value == self._schemes[name] for name, value in exchange.head.fields if name in self._schemes}
        if len(said) > 1:
            raise RequestError(400, f"fields that contradict each other about the scheme: {', '.join(self._schemes)}")
        return exchange.peer.scheme if not said else "https" if said.pop() else "http"

    def environ(self, exchange: Exchange) -> dict[str, Any]:
        environ = super().environ(exchange)
        view = exchange.left[0]
        environ["wsgi.url_scheme"] = view.scheme
        if view.scheme == "https":
            environ["HTTPS"] = "on"
        else:
            environ.pop("HTTPS", None)
        environ["gunicorn.socket"] = exchange.sock
        if self._by_hand:
            environ["SERVER_NAME"], environ["SERVER_PORT"] = _where(exchange, view.scheme)
        script = self._script
        for name, value in exchange.head.fields if self._named else ():
            if name == "script_name":  # and not what becomes the same variable, but anybody may send: Script-Name
                script = value
        if script:
            environ["SCRIPT_NAME"] = script
            if not environ["PATH_INFO"].startswith(script):
                raise RequestError(500, f"the path does not begin with the script name {script!r}")
            environ["PATH_INFO"] = environ["PATH_INFO"].removeprefix(script)
        exchange.left = (view, environ)
        return environ


def _where(exchange: Exchange, scheme: str) -> tuple[str, str]:
    """Name and port of the server that was asked: where the request came in, or, on a unix socket, what Host says."""
    if exchange.sock.family != AF_UNIX:
        address = exchange.sock.getsockname()
        return address[0], str(address[1])
    host, colon, port = (exchange.head.host or "").rpartition(":")
    if colon and port.isdecimal():
        return host, port
    return exchange.head.host or "localhost", "443" if scheme == "https" else "80"


class RequestLog:
    """gunicorn's access log, in the place of ours."""

    dropped = 0

    def __init__(self, log: Any) -> None:
        self._log = log

    def note(self, exchange: Exchange, server: tuple[str, int], seconds: float, number: int, gone: bool) -> None:
        """See `fibers.http.accesslog.RequestLog`. The line is written at once, by whatever logger gunicorn has."""
        view, environ = exchange.left or (None, None)
        if environ is None:  # refused before there was one, or not a matter of WSGI
            head, peer = exchange.head, exchange.peer
            environ = {**_UNREADABLE, "REMOTE_ADDR": peer.client}
            view = view or RequestView(exchange, peer.scheme)
            if head.method != "-":
                environ.update(REQUEST_METHOD=head.method, RAW_URI=head.target, QUERY_STRING=head.query)
                environ["SERVER_PROTOCOL"] = "HTTP/{}.{}".format(*head.version)
                environ["HTTP_REFERER"], environ["HTTP_USER_AGENT"] = (
                    head.get("referer", "-"),
                    head.get("user-agent", "-"),
                )
        try:
            self._log.access(ResponseView(exchange), view, environ, timedelta(seconds=seconds))
        except Exception:
            self._log.exception("Exception in the access log")

    def flush(self) -> None:
        """There is nothing that waits."""
