"""The head of a request: what is understood, and what is refused, with which status."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.once import once

from fibers.http.errors import RequestError
from fibers.http.head import Head, Limits, parse_head

pytestmark = once


def head(*lines: str) -> Head:
    return parse_head(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))


def get(*fields: str) -> Head:
    return head("GET / HTTP/1.1", "Host: h", *fields)


def test_a_plain_request() -> None:
    found = head("GET /a%20b?x=1&y HTTP/1.1", "Host: example.org:80", "Accept:  text/html \t", "accept: */*")
    assert (found.method, found.target, found.version) == ("GET", "/a%20b?x=1&y", (1, 1))
    assert (found.path, found.query, found.host) == ("/a%20b", "x=1&y", "example.org:80")
    assert found.fields == [("host", "example.org:80"), ("accept", "text/html"), ("accept", "*/*")]
    assert found.get("accept") == "text/html, */*"
    assert found.get("cookie") is None
    assert (found.length, found.chunked, found.keep_alive, found.expects_continue) == (0, False, True, False)


@pytest.mark.parametrize("method", ["GET", "M-SEARCH", "!#$%&'*+-.^_`|~09azAZ", "get"])
def test_a_method_is_any_token(method: str) -> None:
    assert head(f"{method} / HTTP/1.1", "Host: h").method == method


def test_bytes_beyond_ascii_in_a_value_are_latin_1() -> None:
    assert get("X: \xe4\xf6 \xff").get("x") == "\xe4\xf6 \xff"


@pytest.mark.parametrize(
    ("lines", "keep_alive"),
    [
        (("GET / HTTP/1.1", "Host: h"), True),
        (("GET / HTTP/1.1", "Host: h", "Connection: close"), False),
        (("GET / HTTP/1.1", "Host: h", "Connection: x , ClOsE"), False),
        (("GET / HTTP/1.1", "Host: h", "Connection: keep-alive", "Connection: close"), False),
        (("GET / HTTP/1.0",), False),
        (("GET / HTTP/1.0", "Connection: Keep-Alive"), True),
        (("GET / HTTP/1.0", "Host: h", "Connection: keep-alive, close"), False),
    ],
)
def test_whether_the_connection_stays(lines: tuple[str, ...], keep_alive: bool) -> None:
    assert head(*lines).keep_alive is keep_alive


@pytest.mark.parametrize(
    ("request_line", "path", "query", "host"),
    [
        ("GET http://x.org/p?q HTTP/1.1", "/p", "q", "x.org"),
        ("GET HTTPS://x.org:8080 HTTP/1.1", "/", "", "x.org:8080"),
        ("GET http://[::1]:80?q HTTP/1.1", "/", "q", "[::1]:80"),
        ("OPTIONS * HTTP/1.1", "*", "", "h"),
        ("CONNECT x.org:443 HTTP/1.1", "", "", "x.org:443"),
        ("GET //a//b?? HTTP/1.1", "//a//b", "?", "h"),
    ],
)
def test_the_forms_of_a_target(request_line: str, path: str, query: str, host: str) -> None:
    found = head(request_line, "Host: h")
    assert (found.path, found.query, found.host) == (path, query, host)


def test_the_length_of_the_body() -> None:
    assert get("Content-Length: 0").length == 0
    assert get("Content-Length: 0012").length == 12
    chunked = get("Transfer-Encoding: Chunked")
    assert chunked.chunked
    assert chunked.length == 0


def test_expectations_and_upgrades() -> None:
    assert get("Expect: 100-Continue").expects_continue
    assert not head("GET / HTTP/1.0", "Expect: 100-continue").expects_continue
    assert get("Upgrade: websocket", "Connection: Upgrade").upgrade == "websocket"
    assert get("Upgrade: websocket").upgrade is None
    assert head("GET / HTTP/1.0", "Upgrade: websocket", "Connection: upgrade").upgrade is None


def test_names_with_an_underscore_are_dropped_and_their_values_mean_nothing() -> None:
    found = get("Content_Length: 5", "X_Real_IP: 1.2.3.4", "X-Real-IP: 5.6.7.8")
    assert found.fields == [("host", "h"), ("x-real-ip", "5.6.7.8")]
    assert found.length == 0


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        # request lines
        (("GET /",), 400),
        (("GET  / HTTP/1.1", "Host: h"), 400),
        (("GET / HTTP/1.1 ", "Host: h"), 400),
        ((" GET / HTTP/1.1", "Host: h"), 400),
        (("GET\t/ HTTP/1.1", "Host: h"), 400),
        (("G@T / HTTP/1.1", "Host: h"), 400),
        (("GET / http/1.1", "Host: h"), 400),
        (("GET / HTTP/1.10", "Host: h"), 400),
        (("GET / HTTP/11", "Host: h"), 400),
        (("GET / HTTP/2.0", "Host: h"), 505),
        (("GET / HTTP/1.2", "Host: h"), 505),
        (("GET / HTTP/0.9",), 505),
        (("GET /a#b HTTP/1.1", "Host: h"), 400),
        (("GET /\xe4 HTTP/1.1", "Host: h"), 400),
        (("GET a HTTP/1.1", "Host: h"), 400),
        (("GET * HTTP/1.1", "Host: h"), 400),
        (("GET ftp://x/ HTTP/1.1", "Host: h"), 400),
        (("GET http:///p HTTP/1.1", "Host: h"), 400),
        (("GET http://u@x/ HTTP/1.1", "Host: h"), 400),
        (("CONNECT x.org HTTP/1.1", "Host: h"), 400),
        (("CONNECT /p HTTP/1.1", "Host: h"), 400),
        # fields
        (("GET / HTTP/1.1",), 400),
        (("GET / HTTP/1.1", "Host: a", "Host: a"), 400),
        (("GET / HTTP/1.1", "Host: a b"), 400),
        (("GET / HTTP/1.1", "Host: a/b"), 400),
        (("GET / HTTP/1.1", "Host: u@a"), 400),
        (("GET / HTTP/1.1", "Host: h", "X"), 400),
        (("GET / HTTP/1.1", "Host: h", ": x"), 400),
        (("GET / HTTP/1.1", "Host: h", "X : x"), 400),
        (("GET / HTTP/1.1", "Host: h", "X\xa0: x"), 400),
        (("GET / HTTP/1.1", "Host: h", " folded"), 400),
        (("GET / HTTP/1.1", "Host: h", "X: a", "\tfolded"), 400),
        (("GET / HTTP/1.1", "Host: h", "X: a\x00b"), 400),
        (("GET / HTTP/1.1", "Host: h", "X: a\rb"), 400),
        (("GET / HTTP/1.1", "Host: h", "X: a\nY: b"), 400),
        (("GET / HTTP/1.1", "Host: h", "X: \x7f"), 400),
        # where the body ends
        (("POST / HTTP/1.1", "Host: h", "Content-Length: +1"), 400),
        (("POST / HTTP/1.1", "Host: h", "Content-Length: -1"), 400),
        (("POST / HTTP/1.1", "Host: h", "Content-Length: +1_0"), 400),
        (("POST / HTTP/1.1", "Host: h", "Content-Length: 0x10"), 400),
        (("POST / HTTP/1.1", "Host: h", "Content-Length: 1_0"), 400),
        (("POST / HTTP/1.1", "Host: h", "Content-Length: \xb2"), 400),
        (("POST / HTTP/1.1", "Host: h", "Content-Length: 1 2"), 400),
        (("POST / HTTP/1.1", "Host: h", "Content-Length:"), 400),
        (("POST / HTTP/1.1", "Host: h", "Content-Length: 5, 5"), 400),
        (("POST / HTTP/1.1", "Host: h", "Content-Length: 5", "Content-Length: 5"), 400),
        (("POST / HTTP/1.1", "Host: h", "Content-Length: 9999999999999999999"), 400),
        (("POST / HTTP/1.1", "Host: h", "Content-Length: 5", "Transfer-Encoding: chunked"), 400),
        (("POST / HTTP/1.0", "Transfer-Encoding: chunked"), 400),
        (("POST / HTTP/1.1", "Host: h", "Transfer-Encoding: ,chunked"), 400),
        (("POST / HTTP/1.1", "Host: h", "Transfer-Encoding: \x0bchunked"), 400),
        (("POST / HTTP/1.1", "Host: h", "Transfer-Encoding: chunked\xa0"), 400),
        (("POST / HTTP/1.1", "Host: h", "Transfer-Encoding: chunked, chunked"), 400),
        (("POST / HTTP/1.1", "Host: h", "Transfer-Encoding: chunked, identity"), 400),
        (("POST / HTTP/1.1", "Host: h", "Transfer-Encoding: identity"), 400),
        (("POST / HTTP/1.1", "Host: h", "Transfer-Encoding: gzip, chunked"), 501),
        (("POST / HTTP/1.1", "Host: h", "Transfer-Encoding: gzip", "Transfer-Encoding: chunked"), 501),
        (("POST / HTTP/1.1", "Host: h", "Expect: coffee"), 417),
    ],
)
def test_what_is_refused(lines: tuple[str, ...], status: int) -> None:
    with pytest.raises(RequestError) as caught:
        head(*lines)
    assert caught.value.status == status
    assert caught.value.reason.isascii()
    assert caught.value.reason.isprintable()


@pytest.mark.parametrize("text", [b"GET / HTTP/1.1\nHost: h\n\r\n\r\n", b"GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n"])
def test_lines_end_with_cr_lf_and_nothing_else(text: bytes) -> None:
    with pytest.raises(RequestError, match="CR LF"):
        parse_head(text)


def test_a_target_has_no_character_but_visible_ascii() -> None:
    for number in range(256):
        character = chr(number)
        line = f"GET /{character}x HTTP/1.1"
        if "!" <= character <= "~" and character != "#":
            assert head(line, "Host: h").target == f"/{character}x"
        else:
            with pytest.raises(RequestError) as caught:
                head(line, "Host: h")
            assert caught.value.status == 400


def test_hosts_are_judged_also_when_no_more_are_remembered() -> None:
    for number in range(600):  # more than the memory holds
        assert get(f"Accept: {number}").host == "h"
        assert head("GET / HTTP/1.1", f"Host: h{number}.org").host == f"h{number}.org"
    for _ in range(2):
        assert head("GET / HTTP/1.1", "Host: another.org").host == "another.org"
        with pytest.raises(RequestError, match="a Host that is none"):
            head("GET / HTTP/1.1", "Host: an other")


def test_limits_hold_at_the_last_byte() -> None:
    limits = Limits(line=20, field=10, fields=3)

    def try_with(path: str, *fields: str) -> Head:
        lines = "\r\n".join((f"GET {path} HTTP/1.1", "Host: h", *fields))
        return parse_head(f"{lines}\r\n\r\n".encode(), limits)

    assert try_with("/" + "x" * 6).target == "/" + "x" * 6
    assert try_with("/", "A: 3456789", "B:").get("a") == "3456789"
    for path, fields, status in (
        ("/" + "x" * 7, (), 414),
        ("/", ("A: 34567890",), 431),
        ("/", ("A:", "B:", "C:"), 431),
    ):
        with pytest.raises(RequestError) as caught:
            try_with(path, *fields)
        assert caught.value.status == status


@given(st.binary(max_size=200))
def test_random_bytes_are_understood_or_refused(data: bytes) -> None:
    for text in (data, b"GET / HTTP/1.1\r\nHost: h\r\n" + data, b"GET " + data + b" HTTP/1.1\r\nHost: h"):
        found, status = None, 0
        try:
            found = parse_head(text + b"\r\n\r\n")
        except RequestError as error:
            status = error.status
        if found is None:
            assert 400 <= status < 600
        else:
            assert found.method
            assert all(name == name.lower() and "\n" not in value for name, value in found.fields)
