"""TLS: the handshake belongs to the connection's own fiber."""

import logging
import ssl as std
from typing import Any

import pytest
from support.tls import certificates, needs_openssl

import fibers
from fibers.io import socket, ssl
from fibers.server import TCPServer

ANY = ("127.0.0.1", 0)
THREADS = pytest.mark.parametrize("threads", [1, 3])

pytestmark = needs_openssl


def echo(sock: Any, address: Any) -> None:
    assert sock.version() is not None  # the handshake is done
    while data := sock.recv(65_536):
        if data == b"fail":
            raise LookupError
        if data == b"enough":
            return
        sock.sendall(data)


@pytest.fixture
def server_context() -> std.SSLContext:
    context = std.SSLContext(std.PROTOCOL_TLS_SERVER)  # the standard class: nothing special is asked of it
    context.load_cert_chain(certificates().localhost)
    return context


def client_to(server: TCPServer) -> Any:
    context = ssl.create_default_context(cafile=certificates().ca)
    plain = socket.create_connection(server.address, timeout=10)
    return context.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False)


@THREADS
def test_echo_and_a_clean_end(threads: int, server_context: std.SSLContext) -> None:
    with TCPServer(ANY, echo, ssl_context=server_context, threads=threads) as server:
        with client_to(server) as client:
            client.sendall(b"hello")
            assert client.recv(100) == b"hello"
            client.sendall(b"enough")
            assert client.recv(100) == b""  # not SSLEOFError: the end was announced


def test_the_end_of_a_handler_that_fails_is_no_clean_one(server_context: std.SSLContext) -> None:
    with TCPServer(ANY, echo, ssl_context=server_context) as server:
        with client_to(server) as client:
            client.sendall(b"fail")
            with pytest.raises((std.SSLEOFError, ConnectionResetError)):
                client.recv(100)


@THREADS
def test_silent_clients_hold_up_nobody(threads: int, server_context: std.SSLContext) -> None:
    with TCPServer(ANY, echo, ssl_context=server_context, threads=threads) as server:
        silent = [socket.create_connection(server.address) for _ in range(30)]
        with client_to(server) as client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"
        for each in silent:
            each.close()


def test_a_handshake_has_a_deadline(server_context: std.SSLContext, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fibers.server")
    with TCPServer(ANY, echo, ssl_context=server_context, handshake_timeout=0.02) as server:
        with socket.create_connection(server.address, timeout=10) as silent:
            assert silent.recv(1) == b""
    (record,) = [each for each in caplog.records if each.name == "fibers.server"]
    assert record.levelno == logging.INFO
    assert "no TLS with 127.0.0.1:" in record.getMessage()


def test_who_speaks_no_tls_is_turned_away_without_a_traceback(
    server_context: std.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fibers.server")
    with TCPServer(ANY, echo, ssl_context=server_context) as server:
        with socket.create_connection(server.address, timeout=10) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
            try:
                while plain.recv(1000):
                    pass  # an alert, perhaps
            except ConnectionResetError:
                pass
    (record,) = [each for each in caplog.records if each.name == "fibers.server"]
    assert record.levelno == logging.INFO
    assert record.exc_info is None


@THREADS
def test_a_stop_while_handshakes_hang(threads: int, server_context: std.SSLContext) -> None:
    server = TCPServer(ANY, echo, ssl_context=server_context, threads=threads).start()
    silent = [socket.create_connection(server.address, timeout=10) for _ in range(5)]
    with client_to(server) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"  # so all before it have been accepted, or are in the queue
        report = server.stop(0.01)
        assert len(report.cut) == 6
        assert report.stubborn == ()
        for each in silent:
            assert each.recv(1) == b""
            each.close()


def test_a_stop_with_an_idle_client(server_context: std.SSLContext) -> None:
    server = TCPServer(ANY, echo, ssl_context=server_context).start()
    with client_to(server) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        report = server.stop(0.01)
        assert len(report.cut) == 1
        with pytest.raises((std.SSLEOFError, ConnectionResetError)):
            client.recv(1)
    assert fibers.all_fibers() == []
