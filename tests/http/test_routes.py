"""Functions by path."""

import json
import os
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from support.http_serving import answer, request, site

import fibers
from fibers.http import File, Request, RequestError, Response, Server
from fibers.http.census import UPGRADED


@pytest.fixture
def server() -> Server:
    return Server()


def test_a_service_in_ten_lines(server: Server) -> None:
    @server.route("/hello/{name}")
    def hello(request: Request, name: str) -> str:
        return f"Hello, {name}!"

    @server.otherwise
    def others(request: Request) -> Response:
        return Response(f"nothing at {request.path}", 404)

    with site(server) as served:
        assert served.ask("/hello/J%C3%BCrgen").body.decode() == "Hello, Jürgen!"
        assert served.ask("/hello/a%2Fb").body == b"Hello, a/b!"
        assert served.ask("/hello/")[::2] == (404, b"nothing at /hello/")
        assert served.ask("/hello/a/b", "DELETE").status == 404


def test_the_exact_route_goes_before_braces_and_braces_before_the_rest(server: Server) -> None:
    server.route("/a/{rest*}")(lambda request, rest: f"rest {rest}")
    server.route("/a/{one}")(lambda request, one: f"one {one}")
    server.route("/a/b")(lambda request: "b")
    server.route("/a/{x}/c/{y}")(lambda request, x, y: f"{x},{y}")
    server.route("/")(lambda request: "root")
    with site(server) as served:
        for path, body in (
            ("/", "root"), ("/a/b", "b"), ("/a/%62", "b"), ("/a/c", "one c"), ("/a/b/d", "rest b/d"), ("/a/", "rest "),
            ("/a/b/c/d", "b,d"), ("/a/b/c/d/e", "rest b/c/d/e"),
        ):  # fmt: skip
            assert served.ask(path).body.decode() == body, path
        assert served.ask("/b").status == 404
        assert served.ask("*", "OPTIONS").status == 204
        assert served.ask("h:1", "CONNECT").status == 404


def test_methods(server: Server) -> None:
    server.route("/x")(lambda request: "get")
    server.route("/x", methods=["POST", "PURGE"])(lambda request: request.method)
    with site(server) as served:
        assert served.ask("/x", "PURGE").body == b"PURGE"
        head = served.ask("/x", "HEAD")
        assert (head.status, head.fields["content-length"], head.body) == (200, "3", b"")
        refused = served.ask("/x", "PUT")
        assert (refused.status, refused.fields["allow"]) == (405, "GET, HEAD, OPTIONS, POST, PURGE")
        options = served.ask("/x", "OPTIONS")
        assert (options.status, options.fields["allow"]) == (204, "GET, HEAD, OPTIONS, POST, PURGE")


def test_what_a_function_may_return(server: Server) -> None:
    def pieces(request: Request) -> Iterator[Any]:
        yield "text "
        yield b"bytes"

    answers = {
        "/text": (lambda request: "ä", 200, "text/plain; charset=utf-8", "ä"),
        "/bytes": (lambda request: b"\xff", 200, "application/octet-stream", "\udcff"),
        "/dict": (lambda request: {"a": 1}, 200, "application/json", '{"a": 1}'),
        "/list": (lambda request: [1], 200, "application/json", "[1]"),
        "/none": (lambda request: None, 204, None, ""),
        "/pieces": (pieces, 200, "text/plain; charset=utf-8", "text bytes"),
        "/response": (lambda request: Response({"no": 1}, 418, [("X", "y")]), 418, "application/json", '{"no": 1}'),
        "/typed": (lambda request: Response("<p>", content_type="text/html"), 200, "text/html", "<p>"),
    }
    for path, (function, *_) in answers.items():
        server.route(path)(function)
    with site(server) as served:
        for path, (_, status, kind, body) in answers.items():
            told = served.ask(path)
            assert (told.status, told.fields.get("content-type")) == (status, kind), path
            assert told.body.decode("utf-8", "surrogateescape") == body, path


def test_fields_are_pairs_or_a_mapping() -> None:
    assert Response("x", headers={"X": "y"}).headers == Response("x", headers=iter([("X", "y")])).headers  # type: ignore[arg-type]
    assert Response("x", headers={"content-type": "text/css"}).headers == [("content-type", "text/css")]
    for wrong in ["X: y"], [("X", 1)], [b"X"], {"X": 1}:
        with pytest.raises(TypeError, match="pairs of names and values are needed"):
            Response("x", headers=wrong)  # type: ignore[arg-type]


def test_what_is_no_answer_is_a_500_and_the_server_goes_on(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.route("/number")(lambda request: 5)
    server.route("/bug")(lambda request: 1 / 0)
    server.route("/refuse")(lambda request: _raise(RequestError(402, "pay first", [("X", "y")])))
    with site(server) as served:
        assert served.ask("/number").status == 500
        assert served.ask("/bug").status == 500
        refused = served.ask("/refuse")
        assert (refused.status, refused.body, refused.fields["x"]) == (402, b"pay first\n", "y")
    assert "ZeroDivisionError" in caplog.text


def _raise(error: Exception) -> None:
    raise error


def test_what_a_request_tells(server: Server) -> None:
    seen: list[Request] = []

    @server.route("/p", methods=["POST"])
    def post(request: Request) -> Any:
        seen.append(request)
        return {"json": request.json()} if request.headers.get("Content-Type") == "application/json" else request.form()

    with site(server) as served:
        told = served.ask("/p?a=1&a=2&b=%20", "POST", b'{"x": [1]}', Content_Type="application/json", Cookie="k=v; l=w")
        assert json.loads(told.body) == {"json": {"x": [1]}}
        assert json.loads(served.ask("/p", "POST", b"q=%26&r=").body) == {"q": "&", "r": ""}
        assert served.ask("/p", "POST", b"{", Content_Type="application/json").status == 400
        assert served.ask("/p", "POST", b"\xff").status == 400
    first = seen[0]
    assert (first.method, first.path, first.query, first.target) == ("POST", "/p", "a=1&a=2&b=%20", "/p?a=1&a=2&b=%20")
    assert (first.args, first.cookies) == ({"a": "2", "b": " "}, {"k": "v", "l": "w"})
    assert (first.client, first.scheme, first.host) == ("127.0.0.1", "http", "h")
    assert "COOKIE" in first.headers
    assert dict(first.headers)["cookie"] == "k=v; l=w"
    with pytest.raises(KeyError):
        first.headers["x-none"]


def test_a_body_has_the_limit_that_its_reader_gives(server: Server) -> None:
    server.route("/", methods=["POST"])(lambda request: request.read(limit=5))
    with site(server) as served:
        assert served.ask("/", "POST", b"12345").body == b"12345"
        assert served.ask("/", "POST", b"123456").status == 413
        chunks = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert b"12345" in served.talk(chunks + b"5\r\n12345\r\n0\r\n\r\n")
        assert b" 413 " in served.talk(chunks + b"6\r\n123456\r\n0\r\n\r\n")


def test_streaming_both_ways_at_once(server: Server) -> None:
    @server.route("/", methods=["POST"])
    def shout(request: Request) -> Iterator[bytes]:
        for line in request.body:
            yield line.upper()

    with site(server) as served, served.connect() as client:
        client.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        for line in (b"one\n", b"two\n", b"three\n"):
            client.write_all(b"%x\r\n%b\r\n" % (len(line), line))
            assert client.read_until(line.upper() + b"\r\n")
        client.write_all(b"0\r\n\r\n" + request("/none"))
        assert client.read_until(b"0\r\n\r\n") == b"0\r\n\r\n"
        assert answer(client).status == 404


def test_trailers_both_ways(server: Server) -> None:
    @server.route("/", methods=["POST"])
    def post(request: Request) -> None:
        body = request.body.read()
        exchange = request.exchange
        exchange.begin("200 OK", [("Trailer", "X-Sum")])
        exchange.write(body)
        exchange.end([("X-Sum", dict(request.body.trailers)["x-in"])])

    with site(server) as served, served.connect() as client:
        client.write_all(
            b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-In: 7\r\n\r\n"
            + request("/no")
        )
        told = answer(client)
        assert (told.body, told.fields["trailer x-sum"]) == (b"a", "7")
        assert answer(client).status == 404


@pytest.mark.parametrize("trailer", [("Content-Length", "1"), ("X", "a\r\nb: c"), ("X:", "y"), ("Set-Cookie", "a=b")])
def test_trailers_that_are_none(server: Server, trailer: tuple[str, str], caplog: pytest.LogCaptureFixture) -> None:
    @server.route("/")
    def get(request: Request) -> None:
        request.exchange.begin("200 OK")
        request.exchange.end([trailer])

    with site(server) as served:
        assert served.ask().status == 500
    assert "ValueError" in caplog.text


@pytest.mark.parametrize(
    ("path", "methods", "says"),
    [
        ("x", ["GET"], "begins with a slash"),
        ("/{a}/{a}", ["GET"], "comes twice"),
        ("/a{b}", ["GET"], "a whole segment"),
        ("/{a*}/b", ["GET"], "comes last"),
        ("/", ["GE T"], "no method"),
        ("/there", ["GET"], "has a function already"),
    ],
)
def test_routes_that_are_none(server: Server, path: str, methods: list[str], says: str) -> None:
    server.route("/there")(lambda request: "")
    with pytest.raises(ValueError, match=says):
        server.route(path, methods=methods)(lambda request: "")


def test_only_one_function_is_for_all_others(server: Server) -> None:
    server.otherwise(lambda request: "")
    with pytest.raises(ValueError, match="already"):
        server.otherwise(lambda request: "")
    with pytest.raises(TypeError, match="a function"):
        server.route("/")(5)  # type: ignore[type-var]


# -- another protocol


def test_a_connection_is_handed_over_with_what_has_come_on_it(server: Server) -> None:
    @server.route("/")
    def shout(request: Request) -> None:
        with request.upgrade_stream("shout") as stream:
            while line := stream.read_until(b"\n"):
                stream.write_all(line.upper())
                if line == b"bye\n":
                    return

    with site(server, max_handlers=1) as served, served.connect() as client:
        client.write_all(request(Upgrade="other, shout", Connection="Upgrade") + b"early\n")
        told = answer(client)
        assert (told.status, told.fields["upgrade"], told.fields["connection"]) == (101, "shout", "Upgrade")
        assert client.read_until(b"\n") == b"EARLY\n"
        assert served.hub.census.count(UPGRADED) == 1
        assert served.hub.running == 0  # its handler holds no place
        assert served.ask("/none").status == 404
        client.write_all(b"bye\n")
        assert client.read_all() == b"BYE\n"


def test_nobody_is_upgraded_who_has_not_asked(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.route("/", methods=["GET", "POST"])(lambda request: request.upgrade("x") and None)
    with site(server) as served:
        assert served.ask().status == 500
        assert served.ask("/", Upgrade="y", Connection="Upgrade").status == 500
        assert served.ask("/", "POST", b"body", Upgrade="x", Connection="Upgrade").status == 500
    assert "the client has not asked" in caplog.text


def test_an_upgraded_connection_ends_with_the_server(server: Server) -> None:
    ended = fibers.Event()

    @server.route("/")
    def wait(request: Request) -> None:
        sock, _ = request.upgrade("x")
        try:
            sock.recv(1)
        finally:
            ended.set()

    with site(server) as served:
        client = served.connect()
        client.write_all(request(Upgrade="x", Connection="Upgrade"))
        assert answer(client).status == 101
    assert ended.is_set()
    assert client.read_all() == b""
    client.close()


# -- files


def test_files_with_ranges_and_validators(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_bytes(b"0123456789")
    os.utime(path, (1_000_000_000, 1_000_000_000))
    server.route("/f")(lambda request: File(path, [("X", "y")]))
    server.route("/missing")(lambda request: File(tmp_path / "none"))
    server.route("/folder")(lambda request: File(tmp_path))
    with site(server) as served:
        whole = served.ask("/f")
        assert (whole.status, whole.body, whole.fields["content-type"]) == (200, b"0123456789", "text/html")
        assert (whole.fields["accept-ranges"], whole.fields["x"]) == ("bytes", "y")
        tag = whole.fields["etag"]
        for asked, status, body, told in (
            ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
            ("bytes=7-", 206, b"789", "bytes 7-9/10"),
            ("bytes=-3", 206, b"789", "bytes 7-9/10"),
            ("bytes=-99", 206, b"0123456789", "bytes 0-9/10"),
            ("bytes=5-99", 206, b"56789", "bytes 5-9/10"),
            ("bytes=10-", 416, b"", "bytes */10"),
            ("bytes=-0", 416, b"", "bytes */10"),
            ("bytes=4-2", 200, b"0123456789", None),
            ("bytes=1-2,4-5", 200, b"0123456789", None),
            ("bytes=-", 200, b"0123456789", None),
            ("bytes=x-", 200, b"0123456789", None),
            ("lines=1-2", 200, b"0123456789", None),
        ):
            got = served.ask("/f", Range=asked)
            assert (got.status, got.body, got.fields.get("content-range")) == (status, body, told), asked
        assert served.ask("/f", Range="bytes=1-2", If_Range=tag).status == 206
        assert served.ask("/f", Range="bytes=1-2", If_Range='"other"').status == 200
        assert served.ask("/f", If_None_Match=tag).status == 304
        assert served.ask("/f", If_None_Match=f'"x", W/{tag}').status == 304
        assert served.ask("/f", If_None_Match='"x"').status == 200
        assert served.ask("/f", If_Modified_Since=formatdate(1_000_000_000, usegmt=True)).status == 304
        assert served.ask("/f", If_Modified_Since=formatdate(999_999_999, usegmt=True)).status == 200
        assert served.ask("/f", If_Modified_Since="yesterday").status == 200
        assert served.ask("/f", "HEAD").fields["content-length"] == "10"
        assert served.ask("/missing").status == 404
        assert served.ask("/folder").status == 404
