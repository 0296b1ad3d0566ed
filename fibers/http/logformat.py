r"""The lines of an access log: Apache's formats, and JSON.

A format is compiled into a list of functions, one for each directive, once. What comes from a client may hold anything:
quotes, backslashes and what is not printable are escaped as Apache does (`\"`, `\x0a`), so that a line is a line, and a
field that is quoted in the format ends where it seems to.
"""

import json
import os
import re
from binascii import a2b_base64
from collections.abc import Callable
from time import gmtime, localtime, strftime
from typing import Any, Final

from .exchange import Exchange

COMMON: Final = '%h %l %u %t "%r" %>s %b'
COMBINED: Final = '%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i"'
JSON: Final = "json"

_DIRECTIVE: Final = re.compile(r"%(!?[0-9]{3}(?:,[0-9]{3})*)?[<>]?(?:\{([^}]*)\})?([a-zA-Z%])|([^%]+)|(%)")
_UNSAFE: Final = re.compile(r'["\\\x00-\x1f\x7f-\xff]|[^\x00-\xff]')


class Record:
    """A request that has been answered: at `ended` (seconds since 1970), in `seconds`, as the connection's `number`th."""

    __slots__ = ("ended", "exchange", "gone", "number", "seconds", "server")

    def __init__(
        self, exchange: Exchange, server: tuple[str, int], ended: float, seconds: float, number: int, gone: bool
    ) -> None:
        self.exchange = exchange
        self.server = server
        self.ended = ended
        self.seconds = seconds
        self.number = number
        self.gone = gone  # the client went before it had everything

    @property
    def began(self) -> float:
        return self.ended - self.seconds

    @property
    def request(self) -> str:
        """The request line; "-" of one that could not be read."""
        head = self.exchange.head
        if head.method == "-":
            return "-"
        return f"{head.method} {head.target} HTTP/{head.version[0]}.{head.version[1]}"

    @property
    def user(self) -> str | None:
        """Who the client says it is, by basic authentication. Nobody has checked that."""
        from_field = self.exchange.head.get("authorization", "") or ""
        scheme, _, secret = from_field.partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            return a2b_base64(secret).decode("utf-8", "replace").partition(":")[0]
        except ValueError:
            return None


Part = Callable[[Record], str]


def escaped(text: str) -> str:
    r"""As Apache escapes: `\"`, `\\`, `\n` and its kin, `\xhh`."""
    return _UNSAFE.sub(_escape, text)


def _escape(found: "re.Match[str]") -> str:
    sign = found[0]
    if sign in '"\\':
        return "\\" + sign
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\v": "\\v", "\f": "\\f"}.get(sign)
    return named or "".join(f"\\x{byte:02x}" for byte in _bytes(sign))


def _bytes(text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def compile_format(format: str) -> Callable[[Record], str]:
    """A function from records to lines. "" stands for COMBINED. Raises ValueError for what is no format."""
    if format == JSON:
        return as_json
    parts = [_compile(found) for found in _DIRECTIVE.finditer(format or COMBINED)]

    def line(record: Record) -> str:
        return "".join([part(record) for part in parts])

    return line


def _compile(found: "re.Match[str]") -> Part:
    codes, argument, letter, literal, stray = found.groups()
    if stray:
        raise ValueError("a format with a % that begins no directive; %% is a percent sign")
    if literal is not None or letter == "%":
        text = literal or "%"
        return lambda record: text
    part = _with_argument(letter, argument) if argument is not None else _PLAIN.get(letter)
    if part is None:
        known = ", ".join(f"%{each}" for each in sorted(_PLAIN))
        raise ValueError(f"%{letter} is not known; known are {known}, %{{…}} with one of i o e C t T a p P")
    if not codes:
        return part
    wanted, negated = frozenset(codes.lstrip("!").split(",")), codes.startswith("!")
    chosen = part
    return lambda record: chosen(record) if (record.exchange.status[:3] in wanted) != negated else "-"


_PLAIN: Final[dict[str, Part]] = {
    "a": lambda r: r.exchange.origin.client,
    "h": lambda r: r.exchange.origin.client,
    "A": lambda r: r.server[0],
    "B": lambda r: str(r.exchange.sent),
    "b": lambda r: str(r.exchange.sent) if r.exchange.sent else "-",
    "D": lambda r: str(round(r.seconds * 1e6)),
    "H": lambda r: "HTTP/{}.{}".format(*r.exchange.head.version),
    "k": lambda r: str(r.number - 1),
    "l": lambda r: "-",
    "m": lambda r: escaped(r.exchange.head.method),
    "P": lambda r: str(os.getpid()),
    "p": lambda r: str(r.server[1]),
    "q": lambda r: escaped("?" + r.exchange.head.query) if r.exchange.head.query else "",
    "r": lambda r: escaped(r.request),
    "s": lambda r: r.exchange.status[:3],
    "T": lambda r: str(int(r.seconds)),
    "t": lambda r: strftime("[%d/%b/%Y:%H:%M:%S %z]", localtime(r.began)),
    "U": lambda r: escaped(r.exchange.head.path),
    "u": lambda r: escaped(r.user) if r.user is not None else "-",
    "V": lambda r: escaped(r.exchange.origin.host or "-"),
    "v": lambda r: escaped(r.exchange.origin.host or "-"),
    "X": lambda r: "X" if r.gone else "-" if r.exchange.last_one else "+",
}


def _with_argument(letter: str, argument: str) -> Part | None:
    name = argument.lower()
    if letter == "i":
        return lambda r: escaped(r.exchange.head.get(name) or "-")
    if letter == "o":
        return lambda r: escaped(", ".join(value for each, value in r.exchange.fields if each.lower() == name) or "-")
    if letter == "e":
        return lambda r: escaped(os.environ.get(argument) or "-")
    if letter == "C":
        return lambda r: escaped(_cookie(r, argument) or "-")
    if letter == "t":
        return _time(argument)
    units = {"s": 1, "ms": 1e3, "us": 1e6}
    if letter == "T" and argument in units:
        factor = units[argument]
        return lambda r: str(int(r.seconds * factor))
    if letter == "a" and argument == "c":
        return lambda r: r.exchange.peer.client
    if letter == "p" and argument == "remote":
        return lambda r: str(r.exchange.origin.port)
    if letter == "p" and argument in ("local", "canonical"):
        return _PLAIN["p"]
    if letter == "P" and argument == "pid":
        return _PLAIN["P"]
    return None


def _time(argument: str) -> Part:
    """%{…}t: strftime, or one of Apache's words, of the beginning or (`end:`) the end."""
    at_end = argument.startswith("end:")
    form = argument.removeprefix("end:").removeprefix("begin:")
    words: dict[str, Callable[[float], str]] = {
        "sec": lambda at: str(int(at)),
        "msec": lambda at: str(int(at * 1e3)),
        "usec": lambda at: str(int(at * 1e6)),
        "msec_frac": lambda at: f"{int(at * 1e3) % 1000:03d}",
        "usec_frac": lambda at: f"{int(at * 1e6) % 1_000_000:06d}",
    }

    def by_strftime(at: float) -> str:
        return strftime(form, localtime(at))

    word = words.get(form, by_strftime)
    return lambda r: word(r.ended if at_end else r.began)


def _cookie(record: Record, name: str) -> str | None:
    for each in (record.exchange.head.get("cookie") or "").split(";"):
        key, _, value = each.strip().partition("=")
        if key == name:
            return value
    return None


def as_json(record: Record) -> str:
    """One object in one line."""
    exchange = record.exchange
    head, origin = exchange.head, exchange.origin
    began = record.began
    fields: dict[str, Any] = {
        "time": strftime("%Y-%m-%dT%H:%M:%S", gmtime(began)) + f".{int(began * 1e6) % 1_000_000:06d}Z",
        "client": origin.client,
        "port": origin.port,
        "scheme": origin.scheme,
        "host": origin.host,
        "method": head.method if head.method != "-" else None,
        "target": head.target if head.method != "-" else None,
        "version": "{}.{}".format(*head.version),
        "status": int(exchange.status[:3] or 0),
        "bytes": exchange.sent,
        "seconds": round(record.seconds, 6),
        "user_agent": head.get("user-agent"),
        "referer": head.get("referer"),
        "request_of_connection": record.number,
        "client_gone": record.gone,
    }
    return json.dumps(fields)
