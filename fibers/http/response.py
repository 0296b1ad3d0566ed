r"""The head of a response, from what a handler gives: a status, and fields as (name, value).

* What a handler passes on from outside may hold line ends, and would become a field of its own, or a second response
  (response splitting). The head is counted when it is done: one CR and one LF for each line, or it is refused.
* Where the body ends has to be told: by its length, by chunks, or, to a client of HTTP/1.0, by closing the connection. The
  handler may give a Content-Length; everything else about the connection is the server's business.
* The date changes once a second, so it is made once a second.
"""

import re
from collections.abc import Sequence
from email.utils import formatdate
from http import HTTPStatus
from time import time
from typing import Final

from .head import NO_TRAILERS, Head

#: Sent as the field Server, unless the handler gives one.
SERVER: Final = "fibers"

_REASONS: Final[dict[int, str]] = {
    **{int(status): status.phrase for status in HTTPStatus},
    413: "Content Too Large", 414: "URI Too Long", 416: "Range Not Satisfiable",  # as they are called since RFC 9110
    422: "Unprocessable Content",
}  # fmt: skip

Fields = Sequence[tuple[str, str]]


_TRAILER: Final = re.compile(r"[\t -~\x80-\xff]*")
#: Fields that say how a message is to be read, or who may read it, do not come behind it (RFC 9110, 6.5.1).
_NO_TRAILERS: Final = NO_TRAILERS | {"content-encoding", "content-range", "content-type", "set-cookie"}
_STATUS: Final = re.compile(r"[2-9][0-9][0-9] [\t -~\x80-\xff]*")


class _Opening:
    """The first lines of a response: status, server and date. Kept for as long as a second lasts."""

    __slots__ = ("_known", "_second", "date")

    def __init__(self) -> None:
        self._second = 0
        self._known: dict[str, str] = {}
        self.date = ""

    def __call__(self, status: str) -> str:
        """Raises ValueError if `status` is none."""
        now = int(time())
        if now != self._second:
            self._second, self.date = now, formatdate(now, usegmt=True)
            self._known.clear()
        known = self._known.get(status)
        if known is None:
            if not _STATUS.fullmatch(status):
                raise ValueError(f"a status is three digits from 200, a space and a reason, not {status!r}")
            known = f"HTTP/1.1 {status}\r\nServer: {SERVER}\r\nDate: {self.date}\r\n"
            if len(self._known) < 100:
                self._known[status] = known
        return known


_opening: Final = _Opening()


def status_line(status: int) -> str:
    """The status with its reason, as WSGI has it: "404 Not Found"."""
    return f"{status} {_REASONS.get(status, 'Unknown')}"


class Plan:
    """How a response is sent: its head is known, its body comes."""

    __slots__ = ("chunked", "close", "head", "left", "no_body")

    def __init__(self, head: str, left: int | None, chunked: bool, no_body: bool, close: bool) -> None:
        self.head = head
        self.left = left  # bytes of the body that are still to come, where it has a length
        self.chunked = chunked
        self.no_body = no_body  # whatever the handler sends is not for the wire (HEAD, 204, 304)
        self.close = close  # the connection ends with this response


#: Field names of handlers that have been found to be tokens -> in lower case.
_names: Final[dict[str, str]] = {}
_OURS: Final = frozenset(("connection", "content-length", "date", "server", "transfer-encoding"))
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def plan(request: Head, status: str, fields: Fields, length: int | None, close: bool) -> Plan:
    """The head of the response to a request. `length` (bytes) is that of the whole body, if it is known already.

    Raises ValueError for a status or a field that is not one line of Latin-1, and for those that contradict each other.
    """
    text, lines = _opening(status), 4
    given = None
    for name, value in fields:
        lower = _names.get(name) or _learn(name)
        if lower in _OURS:
            if lower == "content-length":
                if given is not None or not value.isdecimal() or not value.isascii():
                    raise ValueError(f"Content-Length is one number, not {value!r}")
                given = int(value)
            elif lower == "connection":
                close = close or "close" in value.lower()
            elif lower == "transfer-encoding":
                raise ValueError("Transfer-Encoding is the server's business; leave it away")
            else:
                text = _without(text, lower) + f"{name}: {value}\r\n"
        else:
            text += f"{name}: {value}\r\n"
            lines += 1
    code = status[:3]
    without = code in ("204", "304")
    no_body = without or request.method == "HEAD"
    if no_body:
        if given is None and length and not without:
            given = length  # an empty body may be what an application gives to HEAD, and tells nothing
    elif length is not None:
        if given is not None and given != length:
            raise ValueError(f"Content-Length is {given}, and the body has {length} bytes")
        given = length
    chunked = False
    if given is not None and code != "204":
        text += f"Content-Length: {given}\r\n"
        lines += 1
    elif not without:
        if request.version == (1, 1):
            chunked = True
            text += "Transfer-Encoding: chunked\r\n"
            lines += 1
        elif not no_body:
            close = True
    if close or request.version == (1, 0):
        text += "Connection: close\r\n" if close else "Connection: keep-alive\r\n"
        lines += 1
    text += "\r\n"
    if text.count("\n") != lines or text.count("\r") != lines:
        raise ValueError(f"a header field with a line end in it: {list(fields)!r}")
    return Plan(text, given, chunked, no_body, close)


def switching(status: str, fields: Fields) -> Plan:
    """The head of a response after which another protocol is spoken. Errors as in `plan`."""
    text, lines = f"HTTP/1.1 {status}\r\n", 2
    for name, value in fields:
        if (_names.get(name) or _learn(name)) in ("content-length", "transfer-encoding"):
            raise ValueError(f"{name} has no place in the answer {status}")
        text += f"{name}: {value}\r\n"
        lines += 1
    text += "\r\n"
    if text.count("\n") != lines or text.count("\r") != lines:
        raise ValueError(f"a header field with a line end in it: {list(fields)!r}")
    return Plan(text, 0, False, True, True)


def check_trailers(trailers: Fields) -> str:
    """The trailers, as they are sent. Raises ValueError for those that are none, or must not be trailers."""
    text = ""
    for name, value in trailers:
        if (_names.get(name) or _learn(name)) in _NO_TRAILERS:
            raise ValueError(f"{name} cannot be a trailer: it says how the message is to be read")
        if not _TRAILER.fullmatch(value):
            raise ValueError(f"a trailer that is not one line of Latin-1: {name}: {value!r}")
        text += f"{name}: {value}\r\n"
    return text


def _without(text: str, lower: str) -> str:
    """The opening without a field of ours, in whose place the handler has put its own."""
    lines = [line for line in text.split("\r\n") if not line.lower().startswith(lower + ":")]
    return "\r\n".join(lines)


def _learn(name: str) -> str:
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"a header field name that is no token: {name!r}")
    lower = name.lower()
    if len(_names) < 1024:
        _names[name] = lower
    return lower
