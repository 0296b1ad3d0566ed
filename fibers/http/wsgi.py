"""WSGI (PEP 3333): an application as the handler of a server.

* What an environ holds of the server and the connection is the same for many requests: a dict that is copied.
* Names of fields become CGI variables in the same way each time: a dict remembers them.
* Most applications return a list of one bytes object. Then the length is known, and head and body go out together.
* An application may hand back a file (`wsgi.file_wrapper`). One of the file system's goes out by `sendfile`, from where it
  stands, without the handler.
* What belongs to one connection (Connection, Transfer-Encoding and the like) is the server's business: PEP 3333 forbids it
  to applications, and an application that sets it is told so.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, ClassVar, Final
from urllib.parse import unquote_to_bytes

from .exchange import Exchange
from .filepart import regular

Application = Callable[..., Iterable[bytes]]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]

_variables: Final[dict[str, str]] = {"content-type": "CONTENT_TYPE", "content-length": "CONTENT_LENGTH"}
_HOP_BY_HOP: Final = frozenset(
    ("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "trailers",
     "transfer-encoding", "upgrade")
)  # fmt: skip


def _variable(name: str) -> str:
    variable = "HTTP_" + name.upper().replace("-", "_")
    if len(_variables) < 1024:
        _variables[name] = variable
    return variable


class FileWrapper:
    """`wsgi.file_wrapper`: an open binary file as a response's body, in pieces of `block` bytes."""

    def __init__(self, file: Any, block: int = 65_536) -> None:
        self.file = file
        self.block = block

    def __iter__(self) -> Iterator[bytes]:
        while data := self.file.read(self.block):
            yield data

    def close(self) -> None:
        if hasattr(self.file, "close"):
            self.file.close()


class WsgiHandler:
    """A WSGI application as a handler. `base` are variables that every request has, beside or instead of the usual ones."""

    __slots__ = ("_app", "_base")

    #: Is an application told that it has set a field of the connection's? Else such fields are left out.
    strict: ClassVar[bool] = True

    def __init__(self, app: Application, base: dict[str, Any]) -> None:
        if not callable(app):
            raise TypeError(f"a WSGI application is callable, which {app!r} is not")
        self._app = app
        self._base = {
            "SCRIPT_NAME": "",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_SOFTWARE": "fibers",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            "wsgi.input_terminated": True,
            "wsgi.file_wrapper": FileWrapper,
            **base,
        }

    def __call__(self, exchange: Exchange) -> None:
        response = _Response(exchange, self.strict)
        result = self._app(self.environ(exchange), response.start)
        if result.__class__ is list and len(result) == 1 and response.status is not None and not response.begun:
            exchange.respond(response.status, response.fields, result[0])
            return  # a list has nothing to be closed
        try:
            if result.__class__ is FileWrapper and response.send_file(result.file):
                return
            for data in result:
                if data:
                    response.write(data)
            response.end()
        finally:
            if hasattr(result, "close"):
                result.close()

    def environ(self, exchange: Exchange) -> dict[str, Any]:
        """The environ of a request. May raise RequestError."""
        head, environ, origin = exchange.head, self._base.copy(), exchange.origin
        path = head.path
        environ["REQUEST_METHOD"] = head.method
        environ["PATH_INFO"] = unquote_to_bytes(path).decode("latin-1") if "%" in path else path
        environ["RAW_URI"] = environ["REQUEST_URI"] = head.target
        environ["QUERY_STRING"] = head.query
        environ["SERVER_PROTOCOL"] = "HTTP/1.1" if head.version == (1, 1) else "HTTP/1.0"
        environ["REMOTE_ADDR"] = origin.client
        environ["REMOTE_PORT"] = str(origin.port)
        if origin.scheme != "http":
            environ["wsgi.url_scheme"] = origin.scheme
            environ["HTTPS"] = "on"
        environ["wsgi.input"] = exchange.body
        environ["fibers.exchange"] = exchange
        for name, value in head.fields:
            variable = _variables.get(name) or _variable(name)
            if variable in environ:
                separator = "; " if variable == "HTTP_COOKIE" else ","
                value = f"{environ[variable]}{separator}{value}"
            environ[variable] = value
        if origin.host is not None:
            environ["HTTP_HOST"] = origin.host
        return environ


class _Response:
    """What `start_response` is a method of."""

    __slots__ = ("_exchange", "_strict", "begun", "fields", "status")

    def __init__(self, exchange: Exchange, strict: bool) -> None:
        self._exchange = exchange
        self._strict = strict
        self.begun = False
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
            self.begun = False
        elif self.status is not None:
            raise AssertionError("start_response() was called before; a second call needs exc_info")
        for name, _ in headers:
            if name.lower() in _HOP_BY_HOP:
                if self._strict:
                    raise ValueError(f"{name} belongs to the connection, and so to the server (PEP 3333)")
                headers = [field for field in headers if field[0].lower() not in _HOP_BY_HOP]
                break
        self.status, self.fields = status, headers
        return self.write

    def _begin(self) -> None:
        if self.status is None:
            raise AssertionError("start_response() has not been called")
        self.begun = True
        self._exchange.begin(self.status, self.fields)

    def write(self, data: bytes) -> None:
        """What `start_response` returns, and what each piece of the result goes through."""
        if not self.begun:
            self._begin()
        self._exchange.write(data)

    def send_file(self, file: Any) -> bool:
        """Send a file from where it stands: the Content-Length that was announced, or all of it. False if it is none."""
        found = regular(file)
        if found is None or self.begun or self.status is None:
            return False
        fd, offset, size = found
        count = max(size - offset, 0)
        for name, value in self.fields:
            if name.lower() == "content-length" and value.isdecimal():
                if int(value) > count:
                    raise ValueError(f"Content-Length is {value}, and the file has {count} bytes left")
                count = int(value)
        self._exchange.send_file(self.status, self.fields, fd, offset, count)
        return True

    def end(self) -> None:
        if not self.begun:
            if self.status is None:
                raise AssertionError("start_response() has not been called")
            length = next((value for name, value in self.fields if name.lower() == "content-length"), None)
            if length not in (None, "0"):
                self._begin()  # HEAD, or a promise that is not kept
                self._exchange.end()
            else:
                self._exchange.respond(self.status, self.fields, b"")
        else:
            self._exchange.end()
