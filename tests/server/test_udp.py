"""UDPServer: a fiber for each datagram, and how many."""

import logging
import socket as std
import threading
from typing import Any

import pytest
from support.settling import settle

import fibers
from fibers.io import socket
from fibers.server import UDPServer

ANY = ("127.0.0.1", 0)
THREADS = pytest.mark.parametrize("threads", [1, 3])


def client_of(server: UDPServer) -> socket.socket:
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.settimeout(10)
    client.connect(server.address)
    return client


@THREADS
def test_what_a_handler_returns_is_the_answer(threads: int) -> None:
    def handler(data: bytes, address: Any) -> bytes | None:
        return None if data == b"nothing" else data.upper() + b" %d" % address[1]

    with UDPServer(ANY, handler, threads=threads) as server:
        for _ in range(20):
            with client_of(server) as client:
                client.send(b"nothing")
                client.send(b"hello")
                assert client.recv(100) == b"HELLO %d" % client.getsockname()[1]


@THREADS
def test_the_largest_datagram_and_the_empty_one(threads: int) -> None:
    with UDPServer(ANY, lambda data, address: data, threads=threads) as server, client_of(server) as client:
        for data in (b"", b"x" * 65_507):
            client.send(data)
            assert client.recv(65_535) == data


def test_no_more_handlers_than_allowed() -> None:
    began, go_on = fibers.Semaphore(0), fibers.Event()
    running = most = 0

    def handler(data: bytes, address: Any) -> bytes:
        nonlocal running, most
        running += 1
        most = max(most, running)
        began.release()
        go_on.wait()
        running -= 1
        return data

    with UDPServer(ANY, handler, max_handlers=3) as server, client_of(server) as client:
        for number in range(10):
            client.send(b"%d" % number)
        for _ in range(3):
            began.acquire()
        settle()
        assert running == 3
        go_on.set()
        assert sorted(client.recv(10) for _ in range(10)) == [b"%d" % number for number in range(10)]
    assert most == 3


def test_a_handler_that_fails_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    def handler(data: bytes, address: Any) -> bytes:
        return b"%d" % int(data)

    with UDPServer(ANY, handler) as server, client_of(server) as client:
        client.send(b"many")
        client.send(b"7")
        assert client.recv(10) == b"7"
    (record,) = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert "serving 127.0.0.1:" in record.getMessage()


def test_an_answer_of_the_wrong_type_is_the_handlers_mistake(caplog: pytest.LogCaptureFixture) -> None:
    with UDPServer(ANY, lambda data, address: "text") as server, client_of(server) as client:  # type: ignore[arg-type, return-value]
        client.send(b"x")
        while not caplog.records:
            fibers.yield_now()
    assert "TypeError" in caplog.text


@THREADS
def test_at_the_stop_what_has_come_is_answered(threads: int) -> None:
    go_on = fibers.Event()
    began = fibers.Semaphore(0)

    def handler(data: bytes, address: Any) -> bytes:
        began.release()
        go_on.wait()
        return data

    server = UDPServer(ANY, handler, threads=threads).start()
    with client_of(server) as client:
        client.send(b"first")
        began.acquire()
        stopping = fibers.spawn(server.stop)
        settle()
        go_on.set()
        assert client.recv(10) == b"first"
        assert stopping.result().cut == ()


def test_a_client_that_is_gone_is_nobodys_trouble() -> None:
    with UDPServer(ANY, lambda data, address: data) as server:
        for _ in range(5):
            with client_of(server) as gone:
                gone.send(b"x")
        with client_of(server) as client:
            client.send(b"y")
            assert client.recv(1) == b"y"


def test_a_given_socket() -> None:
    with std.socket(std.AF_INET, std.SOCK_DGRAM) as mine:
        mine.bind(ANY)
        with UDPServer(mine, lambda data, address: data) as server, client_of(server) as client:
            client.send(b"y")
            assert client.recv(1) == b"y"


def test_threads_share_the_port() -> None:
    def handler(data: bytes, address: Any) -> bytes:
        return b"%d" % threading.get_ident()

    with UDPServer(ANY, handler, threads=3) as server:
        found = set()
        for _ in range(60):
            with client_of(server) as client:
                client.send(b"?")
                found.add(client.recv(100))
        assert b"%d" % threading.get_ident() not in found
