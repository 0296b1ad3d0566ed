"""What a handler of a `Server` may return, and how that is sent.

    "text"                 200, text/plain; charset=utf-8
    b"bytes"               200, application/octet-stream
    a dict or a list       200, JSON
    None                   204
    a Response             as it says
    any other iterable     200, its pieces (bytes, or text) as they come, in chunks

`File` is a Response, too: a file of the file system by `sendfile`, with ranges and validators (RFC 9110, 13 and 14).
"""

import json
import mimetypes
import os
from collections.abc import Iterable, Mapping
from email.utils import formatdate, parsedate_to_datetime
from stat import S_ISREG
from typing import Any, Final

from .errors import RequestError
from .exchange import Exchange
from .response import Fields, status_line

TEXT: Final = "text/plain; charset=utf-8"


class Response:
    """A status, fields and a body: text, bytes, an iterable of either, or (as dict or list) JSON.

    `headers` are pairs of names and values, or a mapping. `content_type` goes by the body where it is not given. Raises
    ValueError for a status that is none, TypeError for fields that are no pairs of text.
    """

    def __init__(
        self,
        body: Any = b"",
        status: int | str = 200,
        headers: Fields | Mapping[str, str] = (),
        content_type: str | None = None,
    ) -> None:
        self.status = status_line(status) if isinstance(status, int) else status
        self.headers = list(headers.items() if isinstance(headers, Mapping) else headers)
        for field in self.headers:
            if not (isinstance(field, tuple) and len(field) == 2 and all(isinstance(part, str) for part in field)):
                raise TypeError(
                    f"headers={headers!r}: pairs of names and values are needed, or a dict of them, all text"
                )
        if isinstance(body, str):
            body, kind = body.encode(), TEXT
        elif isinstance(body, dict | list):
            body, kind = json.dumps(body).encode(), "application/json"
        else:
            kind = "application/octet-stream"
        self.body: Any = bytes(body) if isinstance(body, bytearray | memoryview) else body
        if body != b"" and not any(name.lower() == "content-type" for name, _ in self.headers):
            self.headers.insert(0, ("Content-Type", content_type or kind))

    def send(self, exchange: Exchange) -> None:
        """Answer with it."""
        body = self.body
        if isinstance(body, bytes):
            exchange.respond(self.status, self.headers, body)
            return
        try:
            exchange.begin(self.status, self.headers)
            for piece in body:
                exchange.write(piece.encode() if isinstance(piece, str) else piece)
            exchange.end()
        finally:
            close = getattr(body, "close", None)
            if close is not None:
                close()


class File(Response):
    """A file, by its path: with type, length, ETag and Last-Modified, ranges, and 304 for who has it already.

    A missing one is a 404. The path is the program's: see that no client can make it up.
    """

    def __init__(
        self, path: str | os.PathLike[str], headers: Fields | Mapping[str, str] = (), content_type: str | None = None
    ) -> None:
        super().__init__(b"", 200, headers)
        self.path = os.fspath(path)
        self._type = content_type or mimetypes.guess_type(self.path)[0] or "application/octet-stream"

    def send(self, exchange: Exchange) -> None:
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError):
            raise RequestError(404, "there is no such file") from None
        try:
            status = os.fstat(fd)
            if not S_ISREG(status.st_mode):
                raise RequestError(404, "there is no such file")
            self._send(exchange, fd, status)
        finally:
            os.close(fd)

    def _send(self, exchange: Exchange, fd: int, status: os.stat_result) -> None:
        head = exchange.head
        size, changed = status.st_size, int(status.st_mtime)
        tag = f'"{status.st_mtime_ns:x}-{size:x}"'
        fields = [
            ("Content-Type", self._type),
            ("ETag", tag),
            ("Last-Modified", formatdate(changed, usegmt=True)),
            ("Accept-Ranges", "bytes"),
            *self.headers,
        ]
        tags, since = head.get("if-none-match"), head.get("if-modified-since")
        if tags is not None:
            known = tags.strip() == "*" or tag in [each.strip().removeprefix("W/") for each in tags.split(",")]
        else:
            known = since is not None and _is_since(since, changed)
        if known and head.method in ("GET", "HEAD"):
            exchange.respond(status_line(304), fields)
            return
        asked = head.get("range") if head.method == "GET" and self._range_holds(head.get("if-range"), tag) else None
        found = _range(asked, size) if asked is not None else None
        if found is None:
            exchange.send_file(status_line(200), fields, fd, 0, size)
            return
        first, last = found
        if first > last:
            fields = [("Content-Range", f"bytes */{size}"), *self.headers]
            exchange.respond(status_line(416), fields)
            return
        fields.append(("Content-Range", f"bytes {first}-{last}/{size}"))
        exchange.send_file(status_line(206), fields, fd, first, last - first + 1)

    @staticmethod
    def _range_holds(condition: str | None, tag: str) -> bool:
        return condition is None or condition.strip() == tag


def _is_since(text: str, changed: int) -> bool:
    try:
        return changed <= parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return False


def _range(text: str, size: int) -> tuple[int, int] | None:
    """First and last byte of a single range. None: not understood, or several, so all is sent. Empty: outside."""
    unit, _, spec = text.partition("=")
    first, dash, last = spec.strip().partition("-")
    if unit.strip().lower() != "bytes" or not dash or not all(_number(each) for each in (first, last)):
        return None
    if not first:
        if not last:
            return None
        count = int(last)
        return (max(size - count, 0), size - 1) if count and size else (1, 0)
    if last and int(last) < int(first):
        return None
    if int(first) >= size:
        return 1, 0
    return int(first), min(int(last), size - 1) if last else size - 1


def _number(text: str) -> bool:
    return not text or (text.isascii() and text.isdecimal() and len(text) < 19)


def send_answer(exchange: Exchange, answer: Any) -> None:
    """Send what a handler has returned, unless it has answered by itself. Raises TypeError for what is no answer."""
    if exchange.answered:
        if answer is not None:
            raise TypeError(f"a handler that has answered by itself returns None, not {answer!r}")
        return
    if isinstance(answer, Response):
        answer.send(exchange)
    elif answer is None:
        exchange.respond(status_line(204))
    elif isinstance(answer, int | float) or not isinstance(answer, str | bytes | dict | list | Iterable):
        raise TypeError(f"a handler returns text, bytes, a dict, a list, an iterable or a Response, not {answer!r}")
    else:
        Response(answer, content_type=None if not _streams(answer) else TEXT).send(exchange)


def _streams(answer: Any) -> bool:
    return not isinstance(answer, str | bytes | dict | list)
