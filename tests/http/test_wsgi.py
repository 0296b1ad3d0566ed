"""WSGI applications, as PEP 3333 has them."""

import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

import pytest
from support.http_serving import answer, request, site

import fibers
from fibers.http.census import WRITING

Environ = dict[str, Any]
Start = Callable[..., Callable[[bytes], None]]


def plain(environ: Environ, start: Start) -> Iterable[bytes]:
    start("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


def test_the_validator_finds_nothing_wrong() -> None:
    def app(environ: Environ, start: Start) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if environ["REQUEST_METHOD"] == "DELETE":
            start("204 No Content", [])
            return []
        write = start("200 OK", [("Content-Type", "text/plain"), ("X-Path", environ["PATH_INFO"])])
        write(b"<")
        return [body, b">"]

    checked: Any = validator
    with site(checked(app)) as served:
        assert served.ask("/a?x=1").body == b"<>"
        assert served.ask("/b%20c", "POST", b"body").body == b"<body>"
        assert served.ask("/", "DELETE").status == 204
        assert served.ask("/", "HEAD").status == 200


def test_what_the_environ_says() -> None:
    seen: list[Environ] = []

    def app(environ: Environ, start: Start) -> Iterable[bytes]:
        seen.append(environ)
        return plain(environ, start)

    with site(app) as served:
        served.ask("/p%C3%A4th%2F?q=%20", X_Two_Words="1", Cookie="a=1", Content_Type="text/x")
        host, port = served.server.address[:2]
    (environ,) = seen
    wanted = {
        "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/p\xc3\xa4th/", "QUERY_STRING": "q=%20",
        "RAW_URI": "/p%C3%A4th%2F?q=%20", "SERVER_PROTOCOL": "HTTP/1.1", "HTTP_X_TWO_WORDS": "1", "HTTP_COOKIE": "a=1",
        "CONTENT_TYPE": "text/x", "HTTP_HOST": "h", "SERVER_NAME": host, "SERVER_PORT": str(port),
        "REMOTE_ADDR": "127.0.0.1", "wsgi.url_scheme": "http", "wsgi.version": (1, 0), "wsgi.multithread": True,
        "wsgi.multiprocess": False, "wsgi.run_once": False,
    }  # fmt: skip
    assert {name: environ.get(name) for name in wanted} == wanted
    assert "HTTP_CONTENT_TYPE" not in environ


def test_fields_that_come_twice_are_joined_and_cookies_by_semicolons() -> None:
    def app(environ: Environ, start: Start) -> Iterable[bytes]:
        start("200 OK", [])
        return [f"{environ['HTTP_X']}|{environ['HTTP_COOKIE']}".encode()]

    with site(app) as served:
        told = served.talk(b"GET / HTTP/1.1\r\nHost: h\r\nX: 1\r\nX: 2\r\nCookie: a=1\r\nCookie: b=2\r\n\r\n")
    assert told.endswith(b"1,2|a=1; b=2")


def test_the_input_is_bounded_by_the_body_and_comes_as_it_is_read() -> None:
    def app(environ: Environ, start: Start) -> Iterable[bytes]:
        body = environ["wsgi.input"]
        first = body.readline()
        start("200 OK", [])
        yield first
        yield from body

    for fields, pieces in (
        ("Content-Length: 9", (b"one\n", b"two", b"\n3")),
        ("Transfer-Encoding: chunked", (b"4\r\none\n\r\n", b"3\r\ntwo\r\n2\r\n\n3\r\n0\r\n\r\n")),
    ):
        with site(app) as served, served.connect() as client:
            client.write_all(f"POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n".encode() + pieces[0])
            assert b"4\r\none\n\r\n" in client.read_until(b"one\n\r\n")
            client.write_all(b"".join(pieces[1:]) + request())
            rest = client.read_until(b"0\r\n\r\n")
            assert rest == b"4\r\ntwo\n\r\n1\r\n3\r\n0\r\n\r\n"


def test_start_response_may_be_called_again_with_an_error_before_anything_has_gone_out() -> None:
    def app(environ: Environ, start: Start) -> Iterable[bytes]:
        start("200 OK", [("X", "1")])
        try:
            raise LookupError("a bug")
        except LookupError as error:
            start("500 Oh", [("Content-Type", "text/plain")], (type(error), error, error.__traceback__))
        return [b"sorry"]

    with site(app) as served:
        status, fields, body = served.ask()
    assert (status, body, "x" in fields) == (500, b"sorry", False)


def test_start_response_with_an_error_after_the_head_raises_it(caplog: pytest.LogCaptureFixture) -> None:
    def app(environ: Environ, start: Start) -> Iterator[bytes]:
        start("200 OK", [])
        yield b"begun"
        try:
            raise LookupError("a bug")
        except LookupError as error:
            start("500 Oh", [], (type(error), error, error.__traceback__))
        yield b"never"

    with site(app) as served:
        told = served.talk(request())
    assert b"begun" in told
    assert b"never" not in told
    assert not told.endswith(b"0\r\n\r\n")  # the client can tell that this was not all
    assert "a bug" in caplog.text


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        ("200 OK", [("Connection", "close")]),
        ("200 OK", [("Transfer-Encoding", "chunked")]),
        ("200 OK", [("Keep-Alive", "timeout=5")]),
        ("200 OK", [("Upgrade", "h2c")]),
        ("200 OK", [("X", "a\r\nSet-Cookie: b=1")]),
        ("200 OK", [("X", "a\nb")]),
        ("200 OK", [("X\r\nY", "a")]),
        ("200 OK", [("", "a")]),
        ("200 OK\r\nX: y", []),
        ("200", []),
        ("2x0 OK", []),
        ("101 Switching Protocols", []),
        ("200 OK", [("Content-Length", "1")]),
        ("200 OK", [("Content-Length", "-5")]),
        ("200 OK", [("X", "\u20ac")]),
    ],
)
def test_what_an_application_must_not_say(
    status: str, fields: list[tuple[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    def app(environ: Environ, start: Start) -> Iterable[bytes]:
        start(status, fields)
        return [b"hello"]

    with site(app) as served:
        told = served.talk(request())
    assert told.startswith(b"HTTP/1.1 500 ")
    assert b"Set-Cookie" not in told
    assert "has failed" in caplog.text


def test_close_is_called_once_whatever_happens(caplog: pytest.LogCaptureFixture) -> None:
    closed = []

    class Result:
        def __init__(self, fails: bool) -> None:
            self.fails = fails

        def __iter__(self) -> Iterator[bytes]:
            yield b"piece"
            if self.fails:
                raise LookupError("a bug")

        def close(self) -> None:
            closed.append(self.fails)

    def app(environ: Environ, start: Start) -> Iterable[bytes]:
        start("200 OK", [])
        return Result(environ["PATH_INFO"] == "/fail")

    with site(app) as served:
        served.talk(request("/"))
        served.talk(request("/fail"))
        with served.connect() as client:  # the client is gone before the answer
            client.write_all(request("/"))
    assert closed == [False, True, False]


@pytest.mark.parametrize(
    "app",
    [
        lambda environ, start: [b"no start_response"],
        lambda environ, start: None,
        lambda environ, start: start("200 OK", []) and ["text"],
        lambda environ, start: start("200 OK", []) and start("200 OK", []) and [b""],
    ],
)
def test_applications_that_are_wrong_are_a_500(app: Any, caplog: pytest.LogCaptureFixture) -> None:
    with site(app) as served:
        assert served.ask().status == 500
        assert served.ask().status == 500


# -- files


def files(path: Path, fields: list[tuple[str, str]], at: int = 0) -> Any:
    def app(environ: Environ, start: Start) -> Iterable[bytes]:
        file = path.open("rb")
        file.seek(at)
        start("200 OK", fields)
        wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](file, 4096)
        return wrapped

    return app


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 10_000)
    return path


def test_a_file_is_sent_from_where_it_stands(file: Path) -> None:
    whole = file.read_bytes()
    with site(files(file, [])) as served:
        status, fields, body = served.ask()
        assert (status, fields["content-length"], body == whole) == (200, str(len(whole)), True)
        assert served.ask("/", "HEAD").fields["content-length"] == str(len(whole))
    with site(files(file, [("Content-Length", "300")], 1000)) as served, served.connect() as client:
        client.write_all(request() * 2)
        assert [answer(client).body for _ in range(2)] == [whole[1000:1300]] * 2
    with site(files(file, [], len(whole))) as served:
        assert served.ask().body == b""


def test_a_file_that_is_shorter_than_promised_is_a_500(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    with site(files(file, [("Content-Length", "9000000")])) as served:
        assert served.ask().status == 500


def test_a_file_that_is_cut_off_while_it_is_sent_costs_the_connection(file: Path) -> None:
    with file.open("r+b") as sparse:
        sparse.truncate(30_000_000)
    with site(files(file, [])) as served, served.connect() as client:
        client.write_all(request())
        client.read_until(b"\r\n\r\n")
        while served.hub.census.count(WRITING) != 1:
            fibers.sleep(0)
        with file.open("r+b") as other:
            other.truncate(10)
        assert len(client.read_all()) < 30_000_000
        assert served.hub.running == 0


def test_a_slow_reader_of_a_file_holds_no_handler(file: Path) -> None:
    file.write_bytes(bytes(30_000_000))
    with site(files(file, []), max_handlers=1) as served, served.connect() as slow:
        slow.write_all(request())
        while served.hub.census.count(WRITING) != 1:
            fibers.sleep(0)
        assert len(served.ask().body) == 30_000_000
        assert len(answer(slow).body) == 30_000_000


def test_something_that_is_no_file_of_the_system_is_read(file: Path) -> None:
    def app(environ: Environ, start: Start) -> Iterable[bytes]:
        start("200 OK", [])
        wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](io.BytesIO(b"x" * 10_000), 4096)
        return wrapped

    with site(app) as served:
        assert served.ask().body == b"x" * 10_000
