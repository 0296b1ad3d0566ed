"""A service in ten lines: functions for paths, and one for all others, as evhttp has `set_cb` and `set_gencb`.

    from fibers.http import Server

    server = Server()

    @server.route("/hello/{name}")
    def hello(request, name):
        return f"Hello, {name}!"

    server.serve(port=8000)

A path is matched segment by segment. `{name}` stands for one segment, `{name*}` at the end for all that is left; the
function gets both as keyword arguments, decoded. What is written out goes before what is in braces, whatever the order of
the routes. A path that is known with another method is a 405 with Allow; OPTIONS is answered, and HEAD goes to who answers
GET, unless there is a function for it.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar
from urllib.parse import unquote

from ..server.share import Report
from .answers import send_answer
from .exchange import Exchange
from .request import Request
from .response import status_line
from .serving import serve

Handler = Callable[..., Any]
H = TypeVar("H", bound=Handler)

_NAME: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(\*?)\}")
_METHOD: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class _Place:
    """What comes after some segments of a path."""

    __slots__ = ("any", "fixed", "handlers", "rest")

    def __init__(self) -> None:
        self.fixed: dict[str, _Place] = {}
        self.any: _Place | None = None
        self.rest: _Place | None = None
        self.handlers: dict[str, tuple[Handler, list[str]]] = {}


class Server:
    """Routes and their functions: a handler for `fibers.http.serve`. See the module's text.

    Routes are added before it serves; then it may be used by all loops at once.
    """

    #: For `serve`: this is no WSGI application.
    takes_exchanges: Final = True

    def __init__(self) -> None:
        self._root = _Place()
        self._plain: dict[str, dict[str, tuple[Handler, list[str]]]] = {}
        self._otherwise: Handler | None = None

    def route(self, path: str, *, methods: Iterable[str] = ("GET",)) -> Callable[[H], H]:
        """For a path (see the module's text) and some methods. Raises ValueError for what is none, or is there already."""
        methods = (methods,) if isinstance(methods, str) else tuple(methods)
        if not path.startswith("/"):
            raise ValueError(f"a path begins with a slash, which {path!r} does not")
        for method in methods:
            if not _METHOD.fullmatch(method):
                raise ValueError(f"{method!r} is no method")

        def add(function: H) -> H:
            if not callable(function):
                raise TypeError(f"a route needs a function, not {function!r}")
            self._add(path, methods, function)
            return function

        return add

    def otherwise(self, function: H) -> H:
        """For all paths that have no route, with any method. Raises ValueError if there is one already."""
        if self._otherwise is not None:
            raise ValueError("there is a function for all other paths already")
        self._otherwise = function
        return function

    def _add(self, path: str, methods: tuple[str, ...], function: Handler) -> None:
        place, names = self._root, []
        segments = path[1:].split("/")
        for index, segment in enumerate(segments):
            found = _NAME.fullmatch(segment)
            if found is None:
                if "{" in segment or "}" in segment:
                    raise ValueError(f"{segment!r} in {path!r}: braces stand for a whole segment")
                place = place.fixed.setdefault(unquote(segment), _Place())
                continue
            if found[1] in names:
                raise ValueError(f"{{{found[1]}}} comes twice in {path!r}")
            names.append(found[1])
            if found[2]:
                if index != len(segments) - 1:
                    raise ValueError(f"{segment} in {path!r}: what stands for the rest comes last")
                place.rest = place.rest or _Place()
                place = place.rest
            else:
                place.any = place.any or _Place()
                place = place.any
        for method in methods:
            if method in place.handlers:
                raise ValueError(f"{method} {path} has a function already")
            place.handlers[method] = (function, names)
        if not names:
            self._plain[path] = place.handlers

    def __call__(self, exchange: Exchange) -> None:
        """Answer a request."""
        head = exchange.head
        values: tuple[str, ...] = ()
        handlers = self._plain.get(head.path)
        if handlers is None and head.path.startswith("/"):
            found = _find(self._root, [unquote(each) for each in head.path[1:].split("/")], 0)
            if found is not None:
                handlers, values = found[0].handlers, found[1]
        if handlers is None:
            if head.target == "*":
                exchange.respond(status_line(204))
                return
            self._elsewhere(exchange)
            return
        chosen = handlers.get(head.method)
        if chosen is None and head.method == "HEAD":
            chosen = handlers.get("GET")
        if chosen is None:
            allowed = sorted({*handlers, "OPTIONS", *(["HEAD"] if "GET" in handlers else [])})
            fields = [("Allow", ", ".join(allowed))]
            if head.method == "OPTIONS":
                exchange.respond(status_line(204), fields)
            else:
                _refuse(exchange, 405, fields)
            return
        function, names = chosen
        params = dict(zip(names, values, strict=True))
        send_answer(exchange, function(Request(exchange, params), **params))

    def _elsewhere(self, exchange: Exchange) -> None:
        if self._otherwise is None:
            _refuse(exchange, 404)
        else:
            send_answer(exchange, self._otherwise(Request(exchange, {})))

    def serve(self, host: str = "127.0.0.1", port: int = 8000, **options: Any) -> Report:
        """Serve it, until a signal comes: `fibers.http.serve`."""
        return serve(self, host, port, **options)

    def __repr__(self) -> str:
        return f"<Server, {len(self._plain)} plain routes>"


def _refuse(exchange: Exchange, status: int, fields: Iterable[tuple[str, str]] = ()) -> None:
    line = status_line(status)
    exchange.respond(line, [("Content-Type", "text/plain; charset=utf-8"), *fields], f"{line}\n".encode())


def _find(place: _Place, segments: list[str], at: int) -> tuple[_Place, tuple[str, ...]] | None:
    """The place of a path, with what its braces stand for."""
    if at == len(segments):
        return (place, ()) if place.handlers else None
    fixed = place.fixed.get(segments[at])
    if fixed is not None:
        found = _find(fixed, segments, at + 1)
        if found is not None:
            return found
    if place.any is not None and segments[at]:
        found = _find(place.any, segments, at + 1)
        if found is not None:
            return found[0], (segments[at], *found[1])
    if place.rest is not None:
        return place.rest, ("/".join(segments[at:]),)
    return None
