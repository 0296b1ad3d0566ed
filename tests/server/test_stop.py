"""How a server ends: what is finished, what is cut, and what is told of it."""

import socket as std
import threading
from typing import Any

import pytest
from support.settling import settle

import fibers
from fibers.io import socket
from fibers.server import Changed, Serving, TCPServer
from fibers.server.listeners import endpoints_of

ANY = ("127.0.0.1", 0)
THREADS = pytest.mark.parametrize("threads", [1, 3])


class Slow:
    """A handler that says hello, and waits until it is released."""

    def __init__(self) -> None:
        self.began = fibers.Semaphore(0)
        self.release = fibers.Event()
        self.ended = 0

    def __call__(self, sock: Any, address: Any) -> None:
        self.began.release()
        sock.sendall(b"hello")
        try:
            self.release.wait()
            sock.sendall(b"bye")
        finally:
            self.ended += 1


def rest(client: socket.socket) -> bytes:
    data = b""
    while more := client.recv(1000):
        data += more
    return data


@THREADS
def test_what_is_being_handled_is_finished(threads: int) -> None:
    handler = Slow()
    server = TCPServer(ANY, handler, threads=threads).start()
    with socket.create_connection(server.address) as client:
        handler.began.acquire()
        stopping = fibers.spawn(server.stop)
        while True:  # the listeners are closed before anything is waited for
            try:
                socket.create_connection(server.address).close()
            except (ConnectionRefusedError, ConnectionResetError):
                break
        assert not stopping.done()
        handler.release.set()
        assert rest(client) == b"hellobye"
        report = stopping.result()
    assert report.finished >= 1
    assert report.cut == report.stubborn == ()
    assert server.stop() == report


@THREADS
def test_what_is_not_done_in_time_is_cut_and_named(threads: int) -> None:
    handler = Slow()
    server = TCPServer(ANY, handler, threads=threads).start()
    with socket.create_connection(server.address) as client:
        handler.began.acquire()
        report = server.stop(0.01)
        assert report.finished == 0
        assert len(report.cut) == 1
        host, port = client.getsockname()
        assert "Slow" in report.cut[0]
        assert f"{host}:{port}" in report.cut[0]
        assert report.stubborn == ()
        assert "1 cut" in str(report)
        assert rest(client) == b"hello"
    assert handler.ended == 1


def test_who_will_not_be_cut_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    began, release = fibers.Event(), fibers.Event()

    def handler(sock: Any, address: Any) -> None:
        with fibers.shield():
            began.set()
            release.wait()

    server = TCPServer(ANY, handler).start()
    with socket.create_connection(server.address):
        began.wait()
        report = server.stop(0)
        assert len(report.cut) == len(report.stubborn) == 1
        assert "go on after they were cut" in caplog.text
        release.set()
        settle()


@THREADS
def test_who_waits_in_the_queue_is_served_before_the_end(threads: int) -> None:
    handler = Slow()
    server = TCPServer(ANY, handler, threads=threads, max_connections=1).start()
    clients = [socket.create_connection(server.address) for _ in range(20)]
    handler.began.acquire()
    handler.release.set()
    report = server.stop()
    assert [rest(client) for client in clients] == [b"hellobye"] * 20
    assert report.cut == ()
    assert handler.ended == 20
    for client in clients:
        client.close()


@THREADS
def test_of_two_stops_the_shorter_time_holds(threads: int) -> None:
    handler = Slow()
    server = TCPServer(ANY, handler, threads=threads).start()
    with socket.create_connection(server.address):
        handler.began.acquire()
        patient = fibers.spawn(server.stop, None)
        settle()
        report = server.stop(0)
        assert len(report.cut) == 1
        assert patient.result() == report


def test_a_block_that_fails_cuts_at_once() -> None:
    handler = Slow()
    server = TCPServer(ANY, handler, graceful_timeout=None)

    def block() -> None:
        with server:
            clients.append(socket.create_connection(server.address))
            handler.began.acquire()
            raise LookupError

    with pytest.raises(LookupError):
        block()
    assert server.report is not None
    assert len(server.report.cut) == 1


@THREADS
def test_a_deadline_around_the_block_cuts(threads: int) -> None:
    handler = Slow()
    server = TCPServer(ANY, handler, threads=threads, graceful_timeout=None)
    with fibers.CancelScope() as scope, server:
        client = socket.create_connection(server.address)
        handler.began.acquire()
        scope.cancel()
        fibers.sleep(1000)
    assert scope.cancelled_caught
    assert server.report is not None
    assert len(server.report.cut) == 1
    client.close()


def test_a_deadline_during_a_graceful_stop_cuts() -> None:
    handler = Slow()
    server = TCPServer(ANY, handler, graceful_timeout=None).start()
    with socket.create_connection(server.address):
        handler.began.acquire()
        with fibers.move_on_after(0.01) as scope:
            server.stop()
        assert scope.cancelled_caught
        assert handler.ended == 1
        assert len(server.stop().cut) == 1


@THREADS
def test_a_handler_may_ask_for_the_stop(threads: int) -> None:
    def handler(sock: Any, address: Any) -> None:
        server.request_stop()
        sock.sendall(b"as you like")

    server = TCPServer(ANY, handler, threads=threads)
    asked = fibers.spawn(lambda: rest(connection(server)))
    report = server.start().serve_forever(signals=False)
    assert asked.result() == b"as you like"
    assert report.cut == ()


def connection(server: TCPServer) -> socket.socket:
    """Closed when it is dropped by its caller, at the end of the test's fiber."""
    client = socket.create_connection(server.address)
    clients.append(client)
    return client


clients: list[socket.socket] = []


@pytest.fixture(autouse=True)
def _close_clients() -> Any:
    yield
    while clients:
        clients.pop().close()


def test_a_handler_that_waits_for_the_stop_is_cut_by_it() -> None:
    def handler(sock: Any, address: Any) -> None:
        server.stop(0.01)

    with TCPServer(ANY, handler) as server:
        with socket.create_connection(server.address) as client:
            assert client.recv(1) == b""
    assert server.report is not None
    assert len(server.report.cut) == 1


def test_the_end_of_run_ends_a_server_that_nobody_stopped() -> None:
    handler = Slow()
    found = []

    def main() -> None:
        server = TCPServer(ANY, handler).start()
        client = socket.create_connection(server.address)
        handler.began.acquire()
        found.append((server.address, client))

    thread = threading.Thread(target=fibers.run, args=(main,))
    thread.start()
    thread.join()
    assert handler.ended == 1
    (address, client) = found.pop()
    client.close()
    with pytest.raises(ConnectionRefusedError):
        std.create_connection(address)


# -- when the parts fail ----------------------------------------------------------------------------------------------


class Broken:
    """A service."""

    def __init__(self, changed: Changed) -> None:
        pass

    def room(self) -> bool:
        return True

    def take(self, sock: socket.socket, address: Any) -> None:
        sock.close()
        raise LookupError("a mistake in the service")

    def give_back(self) -> bool:
        return False

    def begin_stop(self) -> None: ...
    def wait_stopped(self) -> None: ...

    def cut(self) -> int:
        return 0

    def open(self) -> int:
        return 0


@THREADS
def test_a_loop_that_cannot_accept_any_more_stops_the_server_and_is_told(
    threads: int, caplog: pytest.LogCaptureFixture
) -> None:
    server = Serving(endpoints_of(ANY, backlog=10, shared=False), Broken, threads=threads).start()
    with socket.create_connection(server.address):
        with pytest.raises(LookupError, match="a mistake in the service"):
            server.serve_forever(signals=False)
    assert "a listener has failed" in caplog.text


@THREADS
def test_a_service_that_cannot_be_made_is_why_the_server_does_not_start(threads: int) -> None:
    made: list[Broken] = []

    def make(changed: Changed) -> Broken:
        if len(made) == threads - 1:
            raise LookupError("no database")
        made.append(Broken(changed))
        return made[-1]

    server = Serving(endpoints_of(ANY, backlog=10, shared=False), make, threads=threads)
    with pytest.raises(LookupError, match="no database"):
        server.start()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(server.address)
