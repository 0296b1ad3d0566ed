"""gevent.pywsgi: WSGIServer, over the HTTP server of `fibers.http`."""

import sys
from typing import Any

from ...http.serving import HttpServer
from ...http.wsgi import WsgiHandler
from ...server.listeners import BACKLOG
from ...server.serving import Serving
from .baseserver import BaseServer


class _Environed:
    """A WSGI application with more in its environ."""

    def __init__(self, application: Any, environ: dict[str, Any]) -> None:
        self._application, self._environ = application, environ

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        environ.update(self._environ)
        return self._application(environ, start_response)


class WSGIServer(BaseServer):
    """Serves a WSGI application. `spawn` bounds the requests that are handled at once.

    `log`: a file, a logger, "default" (standard error) or None, for a line for each request. `environ` is a part of every
    request's. TLS with `keyfile` and `certfile`.
    """

    def __init__(
        self,
        listener: Any,
        application: Any = None,
        backlog: int | None = None,
        spawn: Any = "default",
        log: Any = "default",
        error_log: Any = "default",
        handler_class: Any = None,
        environ: dict[str, Any] | None = None,
        *,
        keyfile: str | None = None,
        certfile: str | None = None,
    ) -> None:
        if handler_class is not None:
            raise TypeError("handler_class cannot be chosen here: the HTTP server is that of fibers.http")
        super().__init__(listener, None, spawn)
        self.application = application
        self.backlog = BACKLOG if backlog is None else backlog
        self.environ = {} if environ is None else dict(environ)
        if error_log != "default":
            self.environ.setdefault("wsgi.errors", error_log)
        self.log = sys.stderr if log == "default" else log
        self._tls = None if certfile is None else (certfile, keyfile)

    def set_environ(self, environ: dict[str, Any] | None = None) -> None:
        """What is a part of every request's environ. Before the start."""
        self.environ = {} if environ is None else dict(environ)

    def _make(self) -> Serving:
        app = self.application
        if not callable(app):
            raise TypeError(f"a WSGI application is callable, which {app!r} is not")
        if self.environ:
            app = _Environed(app, self.environ)
        if self.pool is not None:
            app = self._pooled(app)
        log = self.log
        if log is not None and not hasattr(log, "write"):
            log = LoggingLogAdapter(log)
        options = {} if self._limit is None else {"max_handlers": self._limit}
        return HttpServer(
            app,
            self._listener,
            tls=self._tls,
            access_log=log,
            backlog=self.backlog,
            **options,  # type: ignore[arg-type]
        )

    def _pooled(self, app: Any) -> Any:
        """An application that counts in the pool, too, which others may share."""
        pool: Any = self.pool

        def application(environ: dict[str, Any], start_response: Any) -> Any:
            return pool.spawn(app, environ, start_response).get()

        return application


class LoggingLogAdapter:
    """A logger as a file."""

    def __init__(self, logger: Any, level: int = 20) -> None:
        self._logger, self._level = logger, level

    def write(self, text: str) -> None:
        """Log a line, or several."""
        for line in text.splitlines():
            self._logger.log(self._level, "%s", line)

    def writelines(self, lines: Any) -> None:
        """Log lines."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Nothing is kept back."""


__all__ = ["LoggingLogAdapter", "WSGIServer", "WsgiHandler"]
