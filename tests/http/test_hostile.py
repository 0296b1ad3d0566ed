"""Clients that mean harm: slow, endless, oversized, greedy. Each costs itself something, and others nothing."""

import re
import sys
from typing import Any

import pytest
from support.http_serving import answer, request, site
from support.once import once
from support.process import run_python
from support.scale import SCALE, scaled

import fibers
from fibers.eventloop import BACKEND, CHECKED
from fibers.http import Limits, Request, Response, Server, Settings
from fibers.http.census import ACCEPTED, CLOSING, HEAD, RUNNING, WRITING


def service() -> Server:
    server = Server()
    server.route("/large")(lambda request: bytes(20_000_000))
    server.route("/body", methods=["POST"])(lambda request: str(len(request.read())))
    server.otherwise(lambda request: "hello")

    @server.route("/stream")
    def stream(request: Request) -> Response:
        return Response(bytes(65_536) for _ in range(400))

    return server


def empty(served: Any) -> None:
    """Everything that was held is given back."""
    while served.hub.census.open():
        fibers.sleep(0.001)
    assert served.hub.running == 0
    assert not served.hub.queued


def test_slowloris_has_the_time_of_a_head_whatever_it_sends_and_holds_no_fiber() -> None:
    count = scaled(2000, least=50)
    with site(service(), head_timeout=0.3, factor=1e9) as served:
        before = len(fibers.all_fibers())
        clients = [served.connect() for _ in range(count)]
        for client in clients:
            client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nX: ")
        while served.hub.census.count(HEAD) != count:
            fibers.sleep(0.001)
        assert len(fibers.all_fibers()) == before
        assert served.ask().body == b"hello"
        drip = fibers.spawn(_drip, clients[0])
        for client in clients:
            assert b" 408 " in client.read_all()[:20]
            client.close()
        drip.cancel()
        drip.join()
        empty(served)


def _drip(client: Any) -> None:
    """A byte from time to time, so that something always comes."""
    try:
        while True:
            client.write_all(b"x")
            fibers.sleep(0.02)
    except OSError:
        return


def test_who_connects_and_says_nothing_is_closed() -> None:
    with site(service(), head_timeout=0.05) as served:
        clients = [served.connect() for _ in range(20)]
        while served.hub.census.count(ACCEPTED) != 20:
            fibers.sleep(0)
        for client in clients:
            assert client.read_all() == b""
            client.close()
        empty(served)


def test_a_body_that_stops_and_one_that_drips() -> None:
    post = b"POST /body HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n"
    with site(service(), body_timeout=0.05, body_rate=1000.0) as served:
        with served.connect() as client:
            client.write_all(post + b"x")
            assert answer(client).status == 408
        with served.connect() as client:
            client.write_all(post)
            drip = fibers.spawn(_drip, client)
            told = answer(client)
            assert (told.status, told.body) == (408, b"a body of less than 1000 bytes a second\n")
            drip.cancel()
            drip.join()
        empty(served)


@pytest.mark.parametrize("path", ["/large", "/stream"])
def test_a_client_that_does_not_read_is_given_up(path: str, caplog: pytest.LogCaptureFixture) -> None:
    with site(service(), write_timeout=0.05) as served, served.connect() as client:
        client.write_all(request(path))
        while not served.hub.census.count(WRITING) and not served.hub.census.count(RUNNING):
            fibers.sleep(0)
        empty(served)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_flood_of_pipelined_requests_lets_others_have_their_turn() -> None:
    count = scaled(20_000, least=2000)
    with site(service(), max_pipelined=16) as served, served.connect() as greedy:
        sender = fibers.spawn(greedy.write_all, request() * count)
        reader = fibers.spawn(lambda: [answer(greedy).status for _ in range(count)])
        while served.hub.census.requests_total < 100:
            fibers.sleep(0)
        assert served.ask().body == b"hello"
        assert served.hub.census.requests_total < count  # it was not its turn yet
        assert reader.result() == [200] * count
        sender.join()


def test_a_flood_that_is_not_read_stops_at_the_socket() -> None:
    with site(service(), write_timeout=0.2) as served, served.connect() as greedy:
        sender = fibers.spawn(_ignore_errors, greedy.write_all, request("/stream") * 100_000)
        while not served.hub.running:
            fibers.sleep(0)
        assert served.ask().body == b"hello"
        empty(served)
        sender.join()


def _ignore_errors(call: Any, *args: Any) -> None:
    try:
        call(*args)
    except OSError:
        return


LIMITS = Limits(line=200, field=150, fields=5, head=600)


def head(line: int = 0, field: int = 0, fields: int = 0, total: int = 0) -> bytes:
    """A request whose parts have exactly these sizes (bytes), where they are given."""
    first = "GET /{} HTTP/1.1"
    first = first.format("x" * (line - len(first) + 2) if line else "")
    lines = [first, "Host: h"]
    if field:
        lines.append("A: ".ljust(field, "x"))
    lines += ["B: c"] * (fields - 1)
    while total and (left := total - len("\r\n".join([*lines, "", ""]))) > 0:
        lines.append("C: ".ljust(min(left - 2, 140 if left > 150 else left - 2), "x"))
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.mark.parametrize(
    ("fits", "too_much", "status"),
    [
        (head(line=200), head(line=201), 414),
        (head(field=150), head(field=151), 431),
        (head(fields=5), head(fields=6), 431),
        (head(total=600), head(total=608), 431),
    ],
)
def test_each_limit_of_a_head_at_the_limit_and_beyond(fits: bytes, too_much: bytes, status: int) -> None:
    with site(service(), limits=LIMITS) as served:
        for split in (1 << 20, 7):
            for sent, wanted in ((fits, 200), (too_much, status)):
                with served.connect() as client:
                    for at in range(0, len(sent), split):
                        client.write_all(sent[at : at + split])
                        fibers.sleep(0)
                    assert answer(client).status == wanted
        empty(served)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /" + b"x" * 1_000_000,
        b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 1_000_000,
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200_000,
        b"POST /body HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 100_000,
        b"POST /body HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"1\r\nx\r\n" * 10
        + b"f" * 16
        + b"\r\n",
        b"POST /body HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 100_000,
        b"POST /body HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000000000000\r\n\r\n",
        b"\r\n" * 1000,
        b"\0" * 100_000,
    ],
    ids=["line", "field", "fields", "extension", "size", "trailers", "length", "nothing", "zeros"],
)
def test_what_is_too_much_is_told_so_and_closed(sent: bytes) -> None:
    with site(service()) as served:
        with served.connect() as client:
            sender = fibers.spawn(_ignore_errors, client.write_all, sent)
            try:
                assert 400 <= answer(client).status < 500
            except OSError:
                pass  # more than the linger reads: reset
            sender.cancel()
            sender.join()
        empty(served)
        assert served.ask().body == b"hello"


def test_who_is_refused_and_goes_on_sending_is_not_read_for_ever() -> None:
    with site(service(), linger=0.05) as served, served.connect() as client:
        client.write_all(b"NONSENSE\r\n\r\n")
        sender = fibers.spawn(_ignore_errors, _endlessly, client)
        assert answer(client).status == 400
        while served.hub.census.count(CLOSING):
            fibers.sleep(0.001)
        empty(served)
        sender.join()


def _endlessly(client: Any) -> None:
    while True:
        client.write_all(bytes(10_000))


def test_a_handler_has_its_time(caplog: pytest.LogCaptureFixture) -> None:
    server = service()
    server.route("/slow")(lambda request: fibers.sleep(60))
    with site(server, handler_timeout=0.02) as served:
        told = served.ask("/slow")
        assert (told.status, told.body) == (503, b"the server has taken too long to answer\n")
        assert served.ask().status == 200
    assert "has taken more than 0.02 seconds" in caplog.text


@pytest.mark.skipif(CHECKED or BACKEND in ("poll", "select"), reason="this loop looks at all that wait, in every turn")
def test_the_work_of_others_is_theirs() -> None:
    """What a good client's requests take, alone and beside hostile ones that have done their worst.

    Counted in calls: processor time says little on a machine that is shared. `make bench-hostile` measures that.
    """

    def calls(served: Any) -> int:
        counted = 0

        def count(frame: object, event: str, argument: object) -> None:
            nonlocal counted
            counted += event in ("call", "c_call")

        with served.connect() as client:
            answered(client)
            sys.setprofile(count)
            try:
                for _ in range(50):
                    answered(client)
            finally:
                sys.setprofile(None)
        return counted

    def answered(client: Any) -> None:
        client.write_all(request())
        assert answer(client).status == 200

    with site(service(), factor=1e9) as served:
        alone = calls(served)
        hostile = [served.connect() for _ in range(100)]
        for number, client in enumerate(hostile):
            client.write_all((b"GET / HT", request("/body", "POST", b"x" * 100)[:-50], b"")[number % 3])
        beside = calls(served)
        for client in hostile:
            client.close()
        assert alone > 1000
        assert beside < 1.05 * alone


@once
@pytest.mark.skipif(SCALE < 1, reason="it starts five processes: for a soak")
def test_the_benchmark_of_hostile_clients() -> None:
    options = ("--rounds", "1", "--seconds", "0.2", "--only", "flood", "--limit", "1000")
    ran = run_python("-m", "bench.hostile", *options, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"^flood +\d+\.\d µs +-?\d+\.\d µs +-?\d+\.\d\d ", ran.stdout, re.M), ran.stdout


def test_settings_that_make_no_sense() -> None:
    for wrong in ({"max_handlers": 0}, {"head_timeout": -1.0}, {"max_pipelined": 0}):
        with pytest.raises(ValueError, match=r"at least 1|negative"):
            with site(service(), **wrong):
                pass
    with pytest.raises(TypeError, match="no option 'max_bodies'; of Settings there are limits, max_body"):
        with site(service(), max_bodies=1):
            pass
    assert Settings().max_handlers == 1000
