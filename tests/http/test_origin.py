"""Who the client is: PROXY headers and forwarding fields, from those that are believed, and nobody else."""

from typing import Any

import pytest
from support.http_serving import Site, answer, request, site

import fibers
from fibers.http import Request, Server
from fibers.http.census import ACCEPTED
from fibers.http.errors import RequestError
from fibers.http.head import parse_head
from fibers.http.networks import Networks
from fibers.http.origin import Forwarding, Origin
from fibers.http.proxy import SIGNATURE, Proxied, parse_proxy


def who(request: Request) -> dict[str, Any]:
    return request.exchange.origin._asdict()


def service() -> Server:
    server = Server()
    server.otherwise(who)
    return server


# -- networks


def test_networks() -> None:
    networks = Networks(["10.0.0.0/8", "::1", "2001:db8::/32", "192.168.1.7"])
    for host in ("10.1.2.3", "::1", "2001:db8::5", "192.168.1.7", "::ffff:10.0.0.1", "::1%lo"):
        assert host in networks, host
        assert host in networks
    for host in ("11.0.0.1", "::2", "192.168.1.8", "", "nonsense"):
        assert host not in networks, host
    assert "" in Networks(["unix"])
    assert all(host in Networks(["*"]) for host in ("1.2.3.4", "::5", ""))
    with pytest.raises(ValueError, match=r"'10\.0\.0\.0/99' is no network"):
        Networks(["10.0.0.0/99"])


# -- fields

PEER = Origin("10.0.0.1", 5, "http", "h")


def origin(fields: str, dialect: Any = "x-forwarded", peer: Origin = PEER) -> Origin:
    head = parse_head(f"GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n".encode("latin-1"))
    return Forwarding(Networks(["10.0.0.0/8"]), dialect)(peer, head)


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ("", PEER),
        ("X-Forwarded-For: 1.2.3.4\r\n", Origin("1.2.3.4", 0, "http", "h")),
        ("X-Forwarded-For: 6.6.6.6, 1.2.3.4, 10.0.0.9\r\n", Origin("1.2.3.4", 0, "http", "h")),
        ("X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 1.2.3.4\r\n", Origin("1.2.3.4", 0, "http", "h")),
        ("X-Forwarded-For: 10.0.0.2, 10.0.0.3\r\n", Origin("10.0.0.2", 0, "http", "h")),
        ("X-Forwarded-For: 6.6.6.6, unknown, 10.0.0.9\r\n", Origin("10.0.0.9", 0, "http", "h")),
        ("X-Forwarded-For: 1.2.3.4:99\r\n", Origin("1.2.3.4", 99, "http", "h")),
        ("X-Forwarded-For: 2001:db8::1\r\n", Origin("2001:db8::1", 0, "http", "h")),
        ("X-Forwarded-For: [2001:db8::1]:99\r\n", Origin("2001:db8::1", 99, "http", "h")),
        ("X-Forwarded-For: ,,\r\n", PEER),
        ("X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: a.b:1\r\n",
         Origin("1.2.3.4", 0, "https", "a.b:1")),
        ("X-Forwarded-Proto: gopher\r\nX-Forwarded-Host: a/b\r\n", PEER),
        ("Forwarded: for=1.2.3.4\r\n", PEER),
    ],
)  # fmt: skip
def test_the_x_forwarded_family(fields: str, wanted: Origin) -> None:
    assert origin(fields) == wanted


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ("", PEER),
        ("Forwarded: for=1.2.3.4;proto=https;host=a.b\r\n", Origin("1.2.3.4", 0, "https", "a.b")),
        ('Forwarded: For="[2001:db8::1]:47"; Proto=HTTPS\r\n', Origin("2001:db8::1", 47, "https", "h")),
        ("Forwarded: for=6.6.6.6;proto=https, for=1.2.3.4, for=10.0.0.7\r\n", Origin("1.2.3.4", 0, "http", "h")),
        ("Forwarded: for=6.6.6.6\r\nForwarded: for=1.2.3.4\r\n", Origin("1.2.3.4", 0, "http", "h")),
        ("Forwarded: for=_hidden, for=10.0.0.7\r\n", Origin("10.0.0.7", 0, "http", "h")),
        ('Forwarded: for="1.2.3.4\r\n', PEER),
        ("Forwarded: nonsense, for=1.2.3.4\r\n", Origin("1.2.3.4", 0, "http", "h")),
        ("X-Forwarded-For: 1.2.3.4\r\n", PEER),
    ],
)
def test_forwarded(fields: str, wanted: Origin) -> None:
    assert origin(fields, "forwarded") == wanted


def test_nobody_else_is_believed() -> None:
    stranger = Origin("9.9.9.9", 5, "http", "h")
    assert origin("X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\n", peer=stranger) == stranger
    with site(service()) as served:
        assert b'"127.0.0.1"' in served.ask(X_Forwarded_For="1.2.3.4").body
    with site(service(), forwarded_from=["127.0.0.1"]) as served:
        assert b'"client": "1.2.3.4"' in served.ask(X_Forwarded_For="1.2.3.4").body


def test_wsgi_applications_see_the_client() -> None:
    def app(environ: dict[str, Any], start: Any) -> list[bytes]:
        start("200 OK", [])
        return [" ".join(environ[name] for name in ("REMOTE_ADDR", "wsgi.url_scheme", "HTTP_HOST")).encode()]

    with site(app, forwarded_from=["127.0.0.0/8"]) as served:
        told = served.ask(X_Forwarded_For="1.2.3.4", X_Forwarded_Proto="https", X_Forwarded_Host="a.b")
        assert told.body == b"1.2.3.4 https a.b"


# -- the PROXY protocol


def second(command: int, family: int, block: bytes, version: int = 2) -> bytes:
    return SIGNATURE + bytes([version << 4 | command, family]) + len(block).to_bytes(2, "big") + block


V4 = bytes([1, 2, 3, 4, 5, 6, 7, 8]) + (99).to_bytes(2, "big") + (80).to_bytes(2, "big")
V6 = bytes(15) + b"\1" + bytes(16) + (99).to_bytes(2, "big") + (80).to_bytes(2, "big")


@pytest.mark.parametrize(
    ("header", "client", "port"),
    [
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 99 80\r\n", "1.2.3.4", 99),
        (b"PROXY TCP6 ::1 ::2 99 80\r\n", "::1", 99),
        (b"PROXY UNKNOWN\r\n", None, 0),
        (b"PROXY UNKNOWN ::1 ::2 99 80\r\n", None, 0),
        (second(1, 0x11, V4), "1.2.3.4", 99),
        (second(1, 0x11, V4 + b"\x04\0\1x"), "1.2.3.4", 99),
        (second(1, 0x21, V6), "::1", 99),
        (second(0, 0x11, V4), None, 0),
        (second(1, 0x31, bytes(216)), None, 0),
        (second(1, 0, b""), None, 0),
    ],
)
def test_proxy_headers(header: bytes, client: str | None, port: int) -> None:
    assert parse_proxy(header + b"GET") == Proxied(len(header), client, port)
    for end in range(1, len(header)):
        assert parse_proxy(header[:end]) is None


@pytest.mark.parametrize(
    "header",
    [
        b"GET / HTTP/1.1\r\n", b"PROXY TCP4 1.2.3.4 5.6.7.8 99\r\n", b"PROXY TCP4 ::1 ::2 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 99 66666\r\n", b"PROXY TCP4 1.2.3.4 5.6.7.8 99 80\n", b"PROXY " + b"x" * 101,
        b"PROXY TCP4 1.2.3.4.5 5.6.7.8 99 80\r\n", b"PROXY TCP5 1.2.3.4 5.6.7.8 99 80\r\n",
        second(2, 0x11, V4), second(1, 0x11, V4, 1), second(1, 0x11, V4[:8]), second(1, 0x11, bytes(5000)),
    ],
)  # fmt: skip
def test_proxy_headers_that_are_none(header: bytes) -> None:
    with pytest.raises(RequestError):
        parse_proxy(header)


@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize("header", [b"PROXY TCP4 1.2.3.4 5.6.7.8 99 80\r\n", second(1, 0x11, V4)])
def test_a_connection_through_a_balancer(header: bytes, step: int) -> None:
    with site(service(), proxy_protocol_from=["127.0.0.1"]) as served, served.connect() as client:
        sent = header + request() + request()
        for at in range(0, len(sent), step):
            client.write_all(sent[at : at + step])
            fibers.sleep(0)
        for _ in range(2):
            assert b'"client": "1.2.3.4", "port": 99' in answer(client).body


def test_a_trusted_peer_without_a_header_is_refused_and_others_are_not_heard() -> None:
    with site(service(), proxy_protocol_from=["127.0.0.1"]) as served:
        assert served.talk(request()) == b""
        assert served.talk(b"") == b""
        assert served.talk(b"PROXY ") == b""
    with site(service(), proxy_protocol_from=["10.0.0.0/8"]) as served:
        assert b'"127.0.0.1"' in served.ask().body
        assert served.talk(b"PROXY TCP4 1.2.3.4 5.6.7.8 99 80\r\n" + request()).startswith(b"HTTP/1.1 400 ")


def test_a_header_that_does_not_come_has_the_time_of_a_request() -> None:
    def left(served: Site) -> int:
        return served.hub.census.count(ACCEPTED)

    with site(service(), proxy_protocol_from=["127.0.0.1"], head_timeout=0.05) as served, served.connect() as client:
        client.write_all(b"PROX")
        assert client.read_all() == b""
        assert left(served) == 0
