r"""The head of a request: from bytes to a method, a target and fields, or to the error that the client is told.

Facts, and what follows:

* A server, a proxy in front of it and a cache beside it must agree on where a request ends; where they differ, one client
  can put words into another's mouth (request smuggling). So this is strict where the standard allows leniency: lines end
  with CRLF and nothing else, no folded lines, no space before a colon, one Content-Length of digits or one Transfer-Encoding
  that is `chunked`, never both. What is wrong is refused and the connection closed; nothing behind it is looked at.
* One pass in C tells whether a head has any byte that it must not have. Take all bytes away that may stand in a line: what
  is left must be CR LF, once for each line. That leaves no bare CR, no bare LF, no NUL, no other control character.
* The same two dozen field names come in nearly every request. A name that has been found to be a token is remembered with
  its lower-case form, so checking it again is one look into a dict. So it is with hosts, of which a server has few. The
  memory is bounded, since clients choose both.
* A name with an underscore cannot be told from one with a hyphen once it is a CGI variable (`X_Real_IP`, `X-Real-IP`): a
  way to smuggle past a proxy that removes the latter. Such fields are dropped, as nginx does.

This is RFC 9110 and 9112. A general HTTP parser (llhttp, by httptools) was measured and left aside: beside a few callbacks
into Python it is no faster than this, it knows a fixed list of methods, and its own leniencies cannot be taken away.
"""

import re
from typing import Final, NamedTuple

from .errors import RequestError

#: What may stand in a line: visible ASCII, space and tab, and obs-text.
_TEXT: Final = bytes([9, *range(32, 127), *range(128, 256)])
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_AUTHORITY: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._~%!$&'()*+,;=]*)(?::[0-9]*)?")
_ABSOLUTE: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://([^/?#]*)(.*)")
_DIGITS: Final = re.compile(r"[0-9]{1,18}")
_VERSION: Final = re.compile(r"HTTP/[0-9]\.[0-9]")

_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"))
_NAMES_KEPT: Final = 1024
_HOSTS_KEPT: Final = 256


class Limits(NamedTuple):
    """How large the head of a request may be, in bytes without line ends; and how many fields it may have."""

    line: int = 8_190
    field: int = 8_190
    fields: int = 100
    head: int = 65_536  # everything together, line ends included
    underscored: frozenset[str] = frozenset()  # names with an underscore (lower case) that are not dropped; "*": all


class Head:
    """A request, without its body.

    `fields` are the header fields in order, names in lower case, values without surrounding space. `length` is the size of
    the body in bytes where it is told, else 0; a `chunked` body has no size beforehand. `path` and `query` are as sent,
    percent-encoded. `host` is what the request is meant for: of an absolute target, else of the field Host.
    """

    __slots__ = (
        "chunked",
        "expects_continue",
        "fields",
        "host",
        "keep_alive",
        "length",
        "method",
        "path",
        "query",
        "target",
        "upgrade",
        "version",
    )

    def __init__(self, method: str, target: str, version: tuple[int, int]) -> None:
        self.method = method
        self.target = target
        self.version = version
        self.path = target
        self.query = ""
        self.fields: list[tuple[str, str]] = []
        self.host: str | None = None
        self.length = 0
        self.chunked = False
        self.keep_alive = version == (1, 1)
        self.expects_continue = False
        self.upgrade: str | None = None

    def get(self, name: str, default: str | None = None) -> str | None:
        """The value of a field (name in lower case); of several, joined by commas."""
        values = [value for each, value in self.fields if each == name]
        return ", ".join(values) if values else default

    def __repr__(self) -> str:
        return f"<Head {self.method} {self.target} HTTP/{self.version[0]}.{self.version[1]}, {len(self.fields)} fields>"


#: Field names that have been found to be tokens: as sent -> in lower case, or "" for those that are dropped.
_names: Final[dict[str, str]] = {}

#: Values of Host that have been found to be proper ones.
_hosts: Final[set[str]] = set()

#: Fields that say something about the request itself.
_SPECIAL: Final = frozenset(
    ("connection", "content-length", "content-type", "expect", "host", "transfer-encoding", "upgrade")
)

#: Fields that say where a message ends, or whom it is for. One that comes behind it is an attempt at something.
NO_TRAILERS: Final = frozenset(
    ("connection", "content-length", "host", "te", "trailer", "transfer-encoding", "upgrade")
)


def parse_head(data: bytes, limits: Limits = Limits()) -> Head:  # noqa: B008 - immutable
    """The head that `data` is: all bytes up to and including the empty line. Raises RequestError, which see."""
    text = data.decode("latin-1")
    lines = text.split("\r\n")
    if data.translate(None, _TEXT) != b"\r\n" * (len(lines) - 1):
        raise RequestError(400, "a control character, or a line that does not end with CR LF")
    head = _request_line(lines[0], limits)
    if len(lines) - 3 > limits.fields:
        raise RequestError(431, f"more than {limits.fields} header fields")
    fields, longest = head.fields, limits.field
    special: dict[str, list[str]] | None = None
    for line in lines[1:-2]:
        if len(line) > longest:
            raise RequestError(431, f"a header field of more than {longest} bytes")
        name, colon, value = line.partition(":")
        known = _names.get(name)
        if known is None:
            known = _learn(name, colon)
        elif not colon:
            raise RequestError(400, f"a header field without a colon: {_shown(line)}")
        if known:
            value = value.strip(" \t")
            fields.append((known, value))
            if known in _SPECIAL:
                if special is None:
                    special = {}
                special.setdefault(known, []).append(value)
        elif limits.underscored and not limits.underscored.isdisjoint((name.lower(), "*")):
            fields.append((name.lower(), value.strip(" \t")))
    _understand(head, special or {})
    return head


def _request_line(line: str, limits: Limits) -> Head:
    if len(line) > limits.line:
        raise RequestError(414, f"a request line of more than {limits.line} bytes")
    words = line.split(" ")
    if len(words) != 3:
        raise RequestError(400, f"a request line that is not method, target and version: {_shown(line)}")
    method, target, version = words
    if method not in _METHODS and not _TOKEN.fullmatch(method):
        raise RequestError(400, f"a method that is no token: {_shown(method)}")
    if version == "HTTP/1.1":
        head = Head(method, target, (1, 1))
    elif version == "HTTP/1.0":
        head = Head(method, target, (1, 0))
    elif _VERSION.fullmatch(version):
        raise RequestError(505, f"{version} is not spoken here")
    else:
        raise RequestError(400, f"a version that is none: {_shown(version)}")
    # Nothing but visible ASCII. (No other control character has got so far, and no space is in a word.)
    if not target or not target.isascii() or "\t" in target or "#" in target:
        raise RequestError(400, f"a request target with characters that it may not have: {_shown(target)}")
    if target[0] == "/" and method != "CONNECT":
        head.path, _, head.query = target.partition("?")
    else:
        _unusual_target(head)
    return head


def _unusual_target(head: Head) -> None:
    """The absolute form (to proxies), the authority form (CONNECT), and the asterisk (OPTIONS)."""
    method, target = head.method, head.target
    if method == "CONNECT":
        if not _AUTHORITY.fullmatch(target) or ":" not in target or not target.rpartition(":")[2]:
            raise RequestError(400, f"CONNECT needs host:port, not {_shown(target)}")
        head.host, head.path = target, ""
    elif target == "*":
        if method != "OPTIONS":
            raise RequestError(400, f"the target * is for OPTIONS, not for {method}")
    else:
        found = _ABSOLUTE.fullmatch(target)
        if found is None or found[1].lower() not in ("http", "https"):
            raise RequestError(400, f"a request target that is neither a path nor an http URL: {_shown(target)}")
        if not found[2] or not _AUTHORITY.fullmatch(found[2]):
            raise RequestError(400, f"a URL without a proper host: {_shown(target)}")
        head.host = found[2]
        path, _, head.query = found[3].partition("?")
        head.path = path or "/"


def _learn(name: str, colon: str) -> str:
    """A field name that is new: its lower-case form, or "" if it is to be dropped."""
    if not colon:
        raise RequestError(400, f"a header field without a colon: {_shown(name)}")
    if not _TOKEN.fullmatch(name):
        raise RequestError(400, f"a header field name that is no token: {_shown(name)}")
    known = "" if "_" in name else name.lower()
    if len(_names) < _NAMES_KEPT and len(name) < 64:
        _names[name] = known
    return known


def _learn_host(host: str) -> None:
    """A value of Host that is new. Raises RequestError if it is none."""
    if not _AUTHORITY.fullmatch(host):
        raise RequestError(400, f"a Host that is none: {_shown(host)}")
    if len(_hosts) < _HOSTS_KEPT and len(host) < 64:
        _hosts.add(host)


def _understand(head: Head, special: dict[str, list[str]]) -> None:
    """What the fields say of the request: whom it is for, how long its body is, whether the connection stays."""
    hosts = special.get("host")
    if hosts is not None:
        if len(hosts) > 1:
            raise RequestError(400, "more than one Host field")
        host = hosts[0]
        if host not in _hosts:
            _learn_host(host)
        if head.host is None:
            head.host = host
        if len(special) == 1:
            return  # as in most requests
    elif head.version == (1, 1):
        raise RequestError(400, "HTTP/1.1 needs a Host field")
    if len(special.get("content-type", ())) > 1:
        raise RequestError(400, "more than one Content-Type field")
    lengths, codings = special.get("content-length"), special.get("transfer-encoding")
    if codings is not None:
        _understand_coding(head, codings, lengths)
    elif lengths is not None:
        if len(lengths) > 1 or not _DIGITS.fullmatch(lengths[0]):
            raise RequestError(400, f"a Content-Length that is not one number: {_shown(', '.join(lengths))}")
        head.length = int(lengths[0])
    options = {option.strip(" \t").lower() for value in special.get("connection", ()) for option in value.split(",")}
    if "close" in options:
        head.keep_alive = False
    elif "keep-alive" in options:
        head.keep_alive = True
    if head.version == (1, 1):
        if "upgrade" in special and "upgrade" in options:
            head.upgrade = ", ".join(special["upgrade"])
        for expectation in special.get("expect", ()):
            if expectation.lower() != "100-continue":
                raise RequestError(417, f"an expectation that is not met: {_shown(expectation)}")
            head.expects_continue = True


def _understand_coding(head: Head, codings: list[str], lengths: list[str] | None) -> None:
    if lengths is not None:
        raise RequestError(400, "both Content-Length and Transfer-Encoding")
    if head.version != (1, 1):
        raise RequestError(400, "Transfer-Encoding in HTTP/1.0")
    names = [name.strip(" \t").lower() for value in codings for name in value.split(",")]
    if names.count("chunked") != 1 or names[-1] != "chunked" or not all(_TOKEN.fullmatch(name) for name in names):
        raise RequestError(
            400, f"a Transfer-Encoding that does not end with chunked, once: {_shown(', '.join(codings))}"
        )
    if len(names) > 1:
        raise RequestError(501, f"a Transfer-Encoding that is not known here: {_shown(names[0])}")
    head.chunked = True


def _shown(text: str) -> str:
    """Some bytes of a client, fit for a message and a log."""
    return ascii(text if len(text) <= 60 else text[:60] + "…")
