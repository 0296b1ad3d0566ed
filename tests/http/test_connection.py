"""What a client sees on one connection."""

import pytest
from support.http_serving import Served, response, serving

import fibers
from fibers.http.census import HEAD, KEEP_ALIVE, QUEUED, RUNNING, WRITING
from fibers.http.exchange import Exchange
from fibers.http.head import Limits
from fibers.io import Stream

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


def hello(exchange: Exchange) -> None:
    exchange.respond("200 OK", [("Content-Type", "text/plain")], b"hello " + exchange.head.path.encode())


def echo(exchange: Exchange) -> None:
    exchange.respond("200 OK", [], exchange.body.read())


def test_requests_on_one_connection() -> None:
    with serving(hello) as served, served.connect() as client:
        for path in ("/a", "/b"):
            client.write_all(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            status, fields, body = response(client)
            assert (status, body) == (200, b"hello " + path.encode())
            assert fields["content-type"] == "text/plain"
            assert fields["server"] == "fibers"
            assert fields["date"].endswith("gmt")
            assert "connection" not in fields
        assert served.hub.census.requests_total == 2


def test_pipelined_requests_are_answered_in_order() -> None:
    def slow_first(exchange: Exchange) -> None:
        if exchange.head.path == "/0":
            fibers.sleep(0.01)
        hello(exchange)

    with serving(slow_first, max_pipelined=3) as served, served.connect() as client:
        client.write_all(b"".join(b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % number for number in range(10)))
        assert [response(client)[2] for _ in range(10)] == [b"hello /%d" % number for number in range(10)]


def test_a_head_may_come_byte_by_byte_and_takes_no_fiber() -> None:
    with serving(hello) as served, served.connect() as client:
        for byte in GET:
            client.write_all(bytes([byte]))
            fibers.sleep(0)
        assert response(client)[2] == b"hello /"
        client.write_all(GET[:20])
        while served.hub.census.count(HEAD) != 1:
            fibers.sleep(0.001)
        assert [fiber.name for fiber in fibers.all_fibers()] == ["serving.<locals>.accept"]
        client.write_all(GET[20:])
        assert response(client)[2] == b"hello /"


def test_a_body_with_a_length_and_one_in_chunks() -> None:
    with serving(echo) as served, served.connect() as client:
        client.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhel")
        fibers.sleep(0)
        client.write_all(b"lo")
        assert response(client)[2] == b"hello"
        client.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhel")
        fibers.sleep(0)
        client.write_all(b"lo\r\nA\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n" + GET)
        assert response(client)[2] == b"hello0123456789"
        assert response(client)[2] == b""


def test_a_body_that_is_not_read() -> None:
    def ignore(exchange: Exchange) -> None:
        exchange.respond("200 OK", [], b"ok")

    with serving(ignore) as served:
        with served.connect() as client:
            client.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n" + bytes(1000) + GET)
            assert [response(client)[2], response(client)[2]] == [b"ok", b"ok"]
        with served.connect() as client:  # too long to be skipped: the client can read the answer all the same
            client.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5000000\r\n\r\n")
            sender = fibers.spawn(client.transport.sendall, bytes(1_000_000))
            assert response(client)[2] == b"ok"
            assert client.read_all() == b""
            sender.cancel()
            sender.join()


def test_continue_is_said_when_the_body_is_first_read() -> None:
    def refuse_or_read(exchange: Exchange) -> None:
        if exchange.head.path == "/no":
            exchange.respond("403 Forbidden", [], b"no")
        else:
            echo(exchange)

    head = "POST {} HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    with serving(refuse_or_read) as served:
        with served.connect() as client:
            client.write_all(head.format("/").encode())
            assert client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.write_all(b"ok")
            assert response(client)[2] == b"ok"
        with served.connect() as client:
            client.write_all(head.format("/no").encode())
            assert response(client)[0] == 403
            assert client.read_all() == b""  # what follows could be the body, or the next request


def test_head_requests_and_statuses_without_a_body() -> None:
    def answer(exchange: Exchange) -> None:
        if exchange.head.path == "/204":
            exchange.respond("204 No Content")
        else:
            exchange.respond("200 OK", [], b"body")

    with serving(answer) as served:
        told = served.talk(
            b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\nGET /204 HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n"
        )
    assert told.count(b"HTTP/1.1 ") == 3
    assert told.count(b"body") == 1
    assert told.count(b"Content-Length: 4") == 2  # as GET would say; 204 has none


def test_a_response_written_bit_by_bit() -> None:
    def write(exchange: Exchange) -> None:
        exchange.begin("200 OK", [], 6 if exchange.head.path == "/length" else None)
        for piece in (b"ab", b"", b"cdef"):
            exchange.write(piece)
            fibers.sleep(0)

    with serving(write) as served:
        with served.connect() as client:
            for path in (b"/length", b"/chunks"):
                client.write_all(b"GET %s HTTP/1.1\r\nHost: h\r\n\r\n" % path)
                status, fields, body = response(client)
                assert (status, body) == (200, b"abcdef")
                assert ("transfer-encoding" in fields) == (path == b"/chunks")
        assert served.talk(b"GET / HTTP/1.0\r\n\r\n").endswith(b"Connection: close\r\n\r\nabcdef")


def test_http_1_0_stays_open_only_if_asked() -> None:
    with serving(hello) as served:
        with served.connect() as client:
            client.write_all(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert response(client)[1]["connection"] == "keep-alive"
            client.write_all(b"GET / HTTP/1.0\r\n\r\n")
            assert response(client)[1]["connection"] == "close"
            assert client.read_all() == b""


def test_a_client_that_reads_slowly_holds_no_fiber() -> None:
    body = bytes(20_000_000)

    def large(exchange: Exchange) -> None:
        exchange.respond("200 OK", [], body)

    with serving(large, max_handlers=1) as served, served.connect() as slow:
        slow.write_all(GET + GET)
        while served.hub.census.count(WRITING) != 1:
            fibers.sleep(0.001)
        assert served.hub.running == 0
        assert [fiber.name for fiber in fibers.all_fibers()] == ["serving.<locals>.accept"]
        with served.connect() as other:
            other.write_all(GET)
            assert len(response(other)[2]) == len(body)
        assert len(response(slow)[2]) == len(body)
        assert len(response(slow)[2]) == len(body)


def test_requests_wait_for_a_handler_first_come_first_served() -> None:
    order = []

    def slow(exchange: Exchange) -> None:
        order.append(exchange.head.path)
        fibers.sleep(0.002)
        hello(exchange)

    with serving(slow, max_handlers=2) as served:
        clients = [served.connect() for _ in range(6)]
        for number, client in enumerate(clients):
            client.write_all(b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % number)
            while served.hub.census.requests_total + len(served.hub.queued) <= number:
                fibers.sleep(0)
        assert served.hub.census.count(QUEUED) == len(served.hub.queued)
        for number, client in enumerate(clients):
            assert response(client)[2] == b"hello /%d" % number
            client.close()
    assert order == [f"/{number}" for number in range(6)]


# -- what goes wrong


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", 200),
        (b"\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET /" + b"x" * 300, 414),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200, 431),
        (b"GET / HTTP/3.0\r\nHost: h\r\n\r\n", 505),
    ],
)
def test_bad_heads_are_answered_and_the_connection_ends(sent: bytes, status: int) -> None:
    with serving(hello, limits=Limits(line=200, field=100, head=1000)) as served, served.connect() as client:
        client.write_all(sent)
        assert response(client)[0] == status
        if status != 200:
            assert client.read_all() == b""
            assert served.hub.census.count(RUNNING) == 0


def test_nothing_behind_an_error_is_looked_at() -> None:
    with serving(hello) as served:
        assert served.talk(b"BAD\r\n\r\n" + GET).count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    "chunks",
    [b"x\r\n", b"-1\r\n", b"0x5\r\n", b"5\nhello\r\n", b"5\r\nhelloX\r\n", b"0_2e\r\n", b"5 \r\nhello\r\n", b";\r\n"],
)
def test_bad_chunks(chunks: bytes) -> None:
    with serving(echo) as served, served.connect() as client:
        client.write_all(
            b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n" + GET
        )
        assert response(client)[0] == 400
        assert client.read_all() == b""


def test_a_handler_that_fails() -> None:
    def fail(exchange: Exchange) -> None:
        if exchange.head.path == "/begun":
            exchange.begin("200 OK", [], 10)
            exchange.write(b"12345")
        if exchange.head.path != "/nothing":
            raise LookupError("a bug")

    with serving(fail) as served:
        for path, expected in (("/", b"500"), ("/nothing", b"500"), ("/begun", b"12345")):
            told = served.talk(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            assert expected in told
            assert told.count(b"HTTP/1.1 ") == 1


def test_a_body_that_is_too_large() -> None:
    with serving(echo, max_body=10) as served:
        for sent in (
            b"Content-Length: 11\r\n\r\n" + bytes(11),
            b"Transfer-Encoding: chunked\r\n\r\nb\r\n" + bytes(11) + b"\r\n0\r\n\r\n",
        ):
            with served.connect() as client:
                client.write_all(b"POST / HTTP/1.1\r\nHost: h\r\n" + sent)
                assert response(client)[0] == 413
        assert b"200 OK" in served.talk(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n" + bytes(10))


def test_times() -> None:
    with serving(echo, head_timeout=0.03, body_timeout=0.03, keep_alive_timeout=0.03) as served:
        with served.connect() as client:
            assert client.read_all() == b""  # it has said nothing
        with served.connect() as client:
            client.write_all(GET[:10])
            assert response(client)[0] == 408
        with served.connect() as client:
            client.write_all(GET)
            assert response(client)[0] == 200
            assert client.read_all() == b""
        with served.connect() as client:
            client.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n12345")
            assert response(client)[0] == 408


def test_a_client_that_goes_away(caplog: pytest.LogCaptureFixture) -> None:
    def stream(exchange: Exchange) -> None:
        exchange.begin("200 OK")
        while True:
            exchange.write(bytes(100_000))

    with serving(stream) as served:
        client = served.connect()
        client.write_all(GET)
        client.read_exactly(1000)
        client.close()
        with served.connect() as half:
            half.write_all(b"GET / HT")
        while served.hub.census.open():
            fibers.sleep(0.001)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def idle(served: Served, count: int) -> list[Stream]:
    clients = [served.connect() for _ in range(count)]
    for client in clients:
        client.write_all(GET)
        assert response(client)[0] == 200
    return clients


def test_the_oldest_idle_connections_are_shed_and_none_whose_request_has_arrived() -> None:
    with serving(hello) as served:
        clients = idle(served, 5)
        while served.hub.census.count(KEEP_ALIVE) != 5:
            fibers.sleep(0)
        clients[0].write_all(GET)
        clients[1].transport.sendall(GET)
        assert served.hub.shed(2) == 2
        assert [response(client)[0] for client in clients[:2]] == [200, 200]
        assert [client.read_all() for client in clients[2:4]] == [b"", b""]
        clients[4].write_all(GET)
        assert response(clients[4])[0] == 200
        for client in clients:
            client.close()


def test_room_is_an_exact_fraction() -> None:
    with serving(hello, max_handlers=2, factor=0.5) as served:
        assert served.hub.room()
        clients = idle(served, 2)
        assert served.hub.room()  # 2 < 2 + 0.5 * 2
        clients += idle(served, 1)
        assert not served.hub.room()
        for client in clients:
            client.close()
