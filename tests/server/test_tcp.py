"""TCPServer inside of a program: serving, one loop or several, and who is refused."""

import contextvars
import errno
import logging
import socket as std
import struct
import threading
from collections.abc import Callable
from typing import Any

import pytest
from support.server_program import ask, connect

import fibers
from fibers.io import socket
from fibers.server import TCPServer, UDPServer, UnixServer
from fibers.server.listeners import BALANCED

ANY = ("127.0.0.1", 0)
THREADS = pytest.mark.parametrize("threads", [1, 3])


def echo(sock: Any, address: Any) -> None:
    while data := sock.recv(65_536):
        sock.sendall(data)


def thread(sock: Any, address: Any) -> None:
    sock.sendall(b"%d" % threading.get_ident())


def ask_here(address: Any, data: bytes = b"") -> bytes:
    """As `ask`, in a fiber: the server may be in this loop."""
    with socket.create_connection(address, timeout=10) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while more := client.recv(65_536):
            answer += more
        return answer


@THREADS
def test_serves_each_connection_in_its_fiber(threads: int) -> None:
    with TCPServer(ANY, echo, threads=threads) as server:
        clients = [socket.create_connection(server.address, timeout=10) for _ in range(30)]
        for number, client in enumerate(clients):
            client.sendall(b"%d" % number)
        assert [client.recv(10) for client in reversed(clients)] == [b"%d" % n for n in reversed(range(30))]
        assert server.connections() == 30
        for client in clients:
            client.close()
    assert server.report is not None
    assert server.report.cut == ()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(server.address)


def test_one_loop_serves_in_the_thread_of_the_caller() -> None:
    with TCPServer(ANY, thread) as server:
        assert ask_here(server.address) == b"%d" % threading.get_ident()


def test_several_loops_serve_in_threads_of_their_own_on_one_port() -> None:
    with TCPServer(ANY, thread, threads=3) as server:
        found = {ask(server.address) for _ in range(100)}  # this thread blocks: they do without it
        assert b"%d" % threading.get_ident() not in found
        assert len(found) == 3 or not BALANCED
        assert len(server.addresses) == 1


@pytest.mark.skipif(not std.has_dualstack_ipv6(), reason="there is no IPv6 here")
def test_no_host_is_all_addresses_of_both_families_with_one_port() -> None:
    with TCPServer(("", 0), echo, threads=2) as server:
        four, six = server.addresses
        assert (four[0], six[0]) == ("0.0.0.0", "::")
        assert four[1] == six[1] == server.address[1]
        assert ask(("127.0.0.1", four[1]), b"four") == b"four"
        assert ask(("::1", four[1]), b"six") == b"six"


def test_several_addresses() -> None:
    with TCPServer([ANY, ("127.0.0.1", 0)], echo) as server:
        first, second = server.addresses
        assert first != second
        assert ask_here(first, b"1") + ask_here(second, b"2") == b"12"


@THREADS
def test_a_listening_socket_stays_its_owners(threads: int) -> None:
    with std.create_server(("127.0.0.1", 0)) as listener:
        for _ in range(2):
            with TCPServer(listener, echo, threads=threads) as server:
                assert server.address == listener.getsockname()
                assert ask_here(server.address, b"x") == b"x"


@THREADS
def test_a_handler_that_fails_is_logged_once_and_disturbs_nobody(
    threads: int, caplog: pytest.LogCaptureFixture
) -> None:
    def handler(sock: Any, address: Any) -> None:
        if sock.recv(10) == b"fail":
            raise LookupError("as it was told")
        sock.sendall(b"fine")

    with TCPServer(ANY, handler, threads=threads) as server:
        with socket.create_connection(server.address) as other:
            assert ask_here(server.address, b"fail") == b""
            other.sendall(b"go on")
            assert other.recv(10) == b"fine"
    (record,) = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert "handler" in record.getMessage()
    assert "127.0.0.1:" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[0] is LookupError


def test_handlers_get_copies_of_the_context_in_which_the_server_was_started() -> None:
    variable = contextvars.ContextVar("variable", default="unset")

    def handler(sock: Any, address: Any) -> None:
        sock.sendall(variable.get().encode())
        variable.set("changed")

    variable.set("as at the start")
    for threads in (1, 2):
        with TCPServer(ANY, handler, threads=threads) as server:
            variable.set("later")
            assert {ask_here(server.address) for _ in range(5)} == {b"as at the start"}
            variable.set("as at the start")


def test_a_connection_that_is_reset_in_the_queue_is_passed_over() -> None:
    with std.create_server(("127.0.0.1", 0)) as listener:
        for _ in range(3):
            gone = std.create_connection(listener.getsockname())
            gone.setsockopt(std.SOL_SOCKET, std.SO_LINGER, struct.pack("ii", 1, 0))
            gone.close()
        with std.create_connection(listener.getsockname()) as client, TCPServer(listener, echo) as server:
            with socket.socket(fileno=client.detach()) as mine:
                mine.sendall(b"still here")
                assert mine.recv(100) == b"still here"
            assert ask_here(server.address, b"next") == b"next"


@THREADS
def test_a_second_server_on_the_port_is_refused_unless_both_allow_it(threads: int) -> None:
    with TCPServer(ANY, echo, threads=threads) as server:
        with pytest.raises(OSError, match=r"cannot listen on 127\.0\.0\.1 port") as caught:
            TCPServer(server.address, echo, threads=threads).start()
        assert caught.value.errno == errno.EADDRINUSE
    if BALANCED:
        with TCPServer(ANY, echo, threads=threads, reuse_port=True) as server:
            with TCPServer(server.address, echo, threads=threads, reuse_port=True) as other:
                assert other.address == server.address


def test_of_several_addresses_all_are_listened_on_or_none() -> None:
    with std.create_server(("127.0.0.1", 0)) as taken, std.create_server(("127.0.0.1", 0)) as free:
        address = free.getsockname()
        free.close()
        with pytest.raises(OSError, match="cannot listen"):
            TCPServer([address, taken.getsockname()], echo).start()
        with TCPServer(address, echo):
            pass


def test_it_is_started_once() -> None:
    server = TCPServer(ANY, echo)
    with pytest.raises(RuntimeError, match="has not been started"):
        _ = server.address
    with pytest.raises(RuntimeError, match="has not been started"):
        server.stop()
    with server:
        with pytest.raises(RuntimeError, match="was started before"):
            server.start()
    with pytest.raises(RuntimeError, match="was started before"):
        server.start()


def test_processes_are_for_programs() -> None:
    with pytest.raises(RuntimeError, match="serve_forever"):
        TCPServer(ANY, echo, processes=2).start()
    server = TCPServer(ANY, echo, processes=2)
    with pytest.raises(RuntimeError, match="forks"):
        fibers.spawn(server.serve_forever).result()


@pytest.mark.parametrize(
    ("make", "error", "names"),
    [
        (lambda: TCPServer(ANY, 3), TypeError, "handler"),  # type: ignore[arg-type]
        (lambda: TCPServer("localhost", echo), ValueError, "localhost"),
        (lambda: TCPServer(("localhost", "80"), echo), ValueError, "80"),
        (lambda: TCPServer(65_536, echo), ValueError, "65536"),
        (lambda: TCPServer(-1, echo), ValueError, "-1"),
        (lambda: TCPServer(True, echo), ValueError, "True"),
        (lambda: TCPServer([], echo), ValueError, "at least one"),
        (lambda: TCPServer(ANY, echo, threads=0), ValueError, "threads"),
        (lambda: TCPServer(ANY, echo, processes=True), ValueError, "processes"),
        (lambda: TCPServer(ANY, echo, max_connections=0), ValueError, "max_connections"),
        (lambda: TCPServer(ANY, echo, max_connections_per_address=0), ValueError, "max_connections_per_address"),
        (lambda: TCPServer(ANY, echo, graceful_timeout=-1), ValueError, "graceful_timeout"),
        (lambda: TCPServer(ANY, echo, retire_after=0), ValueError, "retire_after"),
        (lambda: TCPServer(ANY, echo, ssl_context=True), TypeError, "ssl_context"),  # type: ignore[arg-type]
        (lambda: TCPServer(ANY, echo, colour="red"), TypeError, "colour"),
        (lambda: UnixServer("", echo), TypeError, "path"),
        (lambda: UDPServer(ANY, lambda data, address: None, max_handlers=0), ValueError, "max_handlers"),
    ],
)
def test_bad_arguments_are_refused_at_once(make: Callable[[], object], error: type[Exception], names: str) -> None:
    with pytest.raises(error, match=names):
        make()


def test_a_socket_that_does_not_listen_is_refused() -> None:
    with std.socket() as sock, pytest.raises(ValueError, match="does not listen"):
        TCPServer(sock, echo)
    with std.socket(type=std.SOCK_DGRAM) as sock, pytest.raises(ValueError, match="SOCK_STREAM"):
        TCPServer(sock, echo)


# -- limits ----------------------------------------------------------------------------------------------------------


@THREADS
def test_no_more_than_max_connections_are_served_at_once(threads: int) -> None:
    lock = threading.Lock()
    now = most = 0
    enough, go_on = fibers.Semaphore(0), fibers.Event()

    def handler(sock: Any, address: Any) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        enough.release()
        go_on.wait()
        sock.sendall(b"done")
        with lock:
            now -= 1

    with TCPServer(ANY, handler, threads=threads, max_connections=3) as server:
        with fibers.TaskGroup() as group:
            clients = [group.spawn(ask_here, server.address) for _ in range(20)]
            for _ in range(3):
                enough.acquire()
            fibers.yield_now()
            assert now == 3
            go_on.set()
        assert [client.result() for client in clients] == [b"done"] * 20
    assert most == 3


@THREADS
def test_who_has_too_many_from_his_address_is_closed(threads: int) -> None:
    with TCPServer(ANY, echo, threads=threads, max_connections_per_address=2) as server:
        kept = [socket.create_connection(server.address) for _ in range(2)]
        for client in kept:
            client.sendall(b"x")
            assert client.recv(1) == b"x"
        with socket.create_connection(server.address) as third:
            assert third.recv(1) == b""
        kept[0].close()
        while server.connections() > 1:
            fibers.sleep(0.001)
        assert ask_here(server.address, b"again") == b"again"
        kept[1].close()


def test_plain_threads_use_it_too() -> None:
    found = []

    def program() -> None:
        with TCPServer(ANY, echo) as server:
            found.append(ask_here(server.address, b"x"))

    worker = threading.Thread(target=program)
    worker.start()
    worker.join()
    assert found == [b"x"]
    with TCPServer(ANY, echo, threads=1) as server, connect(server.address):
        pass
