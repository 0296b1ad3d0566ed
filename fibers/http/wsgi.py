"""WSGI (PEP 3333): an application as the handler of a server.

* What an environ holds of the server and the connection is the same for many requests: a dict that is copied.
* Names of fields become CGI variables in the same way each time: a dict remembers them.
* Most applications return a list of one bytes object. Then the length is known, and head and body go out together.
"""

import sys
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from .exchange import Exchange

Application = Callable[..., Iterable[bytes]]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]

_variables: Final[dict[str, str]] = {"content-type": "CONTENT_TYPE", "content-length": "CONTENT_LENGTH"}


def _variable(name: str) -> str:
    variable = "HTTP_" + name.upper().replace("-", "_")
    if len(_variables) < 1024:
        _variables[name] = variable
    return variable


class WsgiHandler:
    """A WSGI application as a handler. `base` are the variables that every request has."""

    __slots__ = ("_app", "_base")

    def __init__(self, app: Application, base: dict[str, Any]) -> None:
        if not callable(app):
            raise TypeError(f"a WSGI application is callable, which {app!r} is not")
        self._app = app
        self._base = {
            "SCRIPT_NAME": "",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            "wsgi.input_terminated": True,
            **base,
        }

    def __call__(self, exchange: Exchange) -> None:
        response = _Response(exchange)
        result = self._app(self._environ(exchange), response.start)
        try:
            if result.__class__ is list and len(result) == 1 and response.status is not None:
                exchange.respond(response.status, response.fields, result[0])
                return
            for data in result:
                if data:
                    response.write(data)
            response.end()
        finally:
            if hasattr(result, "close"):
                result.close()

    def _environ(self, exchange: Exchange) -> dict[str, Any]:
        head, environ = exchange.head, self._base.copy()
        path = head.path
        environ["REQUEST_METHOD"] = head.method
        environ["PATH_INFO"] = unquote_to_bytes(path).decode("latin-1") if "%" in path else path
        environ["RAW_URI"] = head.target
        environ["QUERY_STRING"] = head.query
        environ["SERVER_PROTOCOL"] = "HTTP/1.1" if head.version == (1, 1) else "HTTP/1.0"
        environ["wsgi.input"] = exchange.body
        for name, value in head.fields:
            variable = _variables.get(name) or _variable(name)
            if variable in environ:
                value = f"{environ[variable]},{value}"
            environ[variable] = value
        return environ


class _Response:
    """What `start_response` is a method of."""

    __slots__ = ("_begun", "_exchange", "fields", "status")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._begun = False
        self.status: str | None = None
        self.fields: list[tuple[str, str]] = []

    def start(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        """`start_response`."""
        if exc_info is not None:
            try:
                if self._exchange.started:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self.status is not None:
            raise AssertionError("start_response() was called before; a second call needs exc_info")
        self.status, self.fields = status, headers
        return self.write

    def write(self, data: bytes) -> None:
        """What `start_response` returns, and what each piece of the result goes through."""
        if not self._begun:
            if self.status is None:
                raise AssertionError("start_response() has not been called")
            self._begun = True
            self._exchange.begin(self.status, self.fields)
        self._exchange.write(data)

    def end(self) -> None:
        if not self._begun:
            if self.status is None:
                raise AssertionError("start_response() has not been called")
            self._exchange.respond(self.status, self.fields, b"")
        else:
            self._exchange.end()
