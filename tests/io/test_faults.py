"""What the system does to a program: no descriptors, resets, half-closed and dark connections, short writes, slow readers.

Errors have the type and the errno of the standard library. Refused connects and black holes are in test_connecting.py,
resets of who waits in test_closing.py, what happens in the middle of TLS in test_tls_faults.py.
"""

import errno
import os
import resource
import socket as std
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import netns
from support.sockets import Pair, tcp_pair

import fibers
from fibers.io import Stream, socket


@contextmanager
def no_descriptors(but: int = 0) -> Iterator[None]:
    """Nothing can be opened inside, or only so many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    first_free = os.dup(0)
    os.close(first_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (first_free + but, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def reset(sock: socket.socket) -> None:
    """Close it so that the peer gets a RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


# -- EMFILE

OPENERS: dict[str, Callable[[Any, Any], Any]] = {
    "socket": lambda module, listener: module.socket(),
    "socketpair": lambda module, listener: module.socketpair(),
    "dup": lambda module, listener: listener.dup(),
    "fromfd": lambda module, listener: module.fromfd(listener.fileno(), module.AF_INET, module.SOCK_STREAM),
    "create_connection": lambda module, listener: module.create_connection(listener.getsockname()),
    "create_server": lambda module, listener: module.create_server(("127.0.0.1", 0)),
}


@pytest.mark.parametrize("opener", OPENERS)
def test_emfile_is_raised_as_by_the_standard_library_and_leaves_nothing(opener: str) -> None:
    told = []
    for module in (std, socket):
        with module.create_server(("127.0.0.1", 0)) as listener:
            with no_descriptors(), pytest.raises(OSError, match="Too many open files") as caught:
                OPENERS[opener](module, listener)
            told.append((type(caught.value), caught.value.errno))
            opened = OPENERS[opener](module, listener)  # it is over
            for each in opened if isinstance(opened, tuple) else (opened,):
                each.close()
    assert told == [(OSError, errno.EMFILE)] * 2


def test_emfile_in_one_of_several_acceptors_loses_no_connection() -> None:
    """Each that is told of a connection tells its caller; the connection waits in the backlog."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        acceptors = [fibers.spawn(listener.accept) for _ in range(3)]
        fibers.yield_now()
        clients = [socket.socket() for _ in range(3)]
        with no_descriptors():
            for client in clients:
                client.connect(listener.getsockname())
            errors = [acceptor.exception() for acceptor in acceptors]
        assert [(type(error), getattr(error, "errno", None)) for error in errors] == [(OSError, errno.EMFILE)] * 3
        listener.settimeout(5)
        served = [listener.accept()[0] for _ in clients]
        assert {each.getpeername() for each in served} == {each.getsockname() for each in clients}
        for each in (*served, *clients):
            each.close()


@pytest.mark.parametrize("free", range(8))
def test_emfile_when_a_thread_needs_a_loop_is_an_error_and_no_hang(free: int) -> None:
    """The loop of a new thread is made of descriptors. Without enough its first wait fails; later it can be tried again."""
    told: list[object] = []
    tried, relieved = threading.Event(), threading.Event()

    def work() -> None:
        try:
            fibers.sleep(0.001)
            told.append("slept")
        except OSError as error:
            told.append((type(error), error.errno))
        tried.set()
        relieved.wait(30)
        fibers.sleep(0.001)
        told.append("slept")

    with no_descriptors(free):
        thread = threading.Thread(target=work)
        thread.start()
        assert tried.wait(30)
    relieved.set()
    thread.join(30)
    assert not thread.is_alive()
    assert told[0] == (OSError, errno.EMFILE) or (free > 0 and told[0] == "slept")
    assert told[1:] == ["slept"]


# -- resets and half-closed connections


def test_a_reset_ends_whoever_waits_in_either_direction() -> None:
    near, far = tcp_pair()
    with near, far:
        readers = [fibers.spawn(near.recv, 1) for _ in range(3)]
        writers = [fibers.spawn(near.sendall, bytes(20_000_000)) for _ in range(3)]
        fibers.yield_now()
        reset(far)
        with fibers.timeout(30):
            read = [reader.exception() for reader in readers]
            written = [writer.exception() for writer in writers]
        # The kernel tells the reset once; then the connection has simply ended.
        assert sorted(type(error).__name__ for error in [*read, *written]) == [
            *["BrokenPipeError"] * (3 - sum(isinstance(error, ConnectionResetError) for error in written)),
            "ConnectionResetError",
            *["NoneType"] * (3 - sum(isinstance(error, ConnectionResetError) for error in read)),
        ]
        for error in (*read, *written):
            assert error is None or getattr(error, "errno", None) in (errno.ECONNRESET, errno.EPIPE)


def test_what_a_stream_has_received_survives_a_reset() -> None:
    near, far = tcp_pair()
    with Stream(near) as stream, far:
        far.sendall(b"half a rec")
        assert stream.peek(10) == b"half a rec"
        reader = fibers.spawn(stream.read_exactly, 13)
        fibers.yield_now()
        reset(far)
        error = reader.exception()
        assert isinstance(error, ConnectionResetError)
        assert error.errno == errno.ECONNRESET
        assert stream.read_exactly(10) == b"half a rec"


def test_a_connection_that_was_reset_in_the_backlog_does_not_stop_the_acceptor() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        reset(socket.create_connection(listener.getsockname()))
        with socket.create_connection(listener.getsockname()) as client:
            listener.settimeout(5)
            served: list[socket.socket] = []
            while not any(each.getpeername() == client.getsockname() for each in served if alive(each)):
                try:
                    served.append(listener.accept()[0])
                except ConnectionAbortedError:  # what the BSDs say
                    continue
            for each in served:
                each.close()


def alive(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise
        return False
    return True


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_half_closed_connections_carry_the_other_direction_for_as_long_as_it_lasts(kind: str) -> None:
    near, far = tcp_pair() if kind == "tcp" else socket.socketpair()
    with Stream(near) as stream, Stream(far) as other:
        stream.write_eof()
        assert other.read_some() == b""
        block = bytes(range(256)) * 8000
        writer = fibers.spawn(other.write_all, block)
        assert stream.read_exactly(len(block)) == block
        writer.result()
        with pytest.raises(BrokenPipeError) as caught:
            stream.write_all(b"x")
        assert caught.value.errno == errno.EPIPE
        other.close()
        assert stream.read_all() == b""


# -- networks that fail


def test_a_network_that_cannot_be_reached_says_so_at_once() -> None:
    def reach() -> None:
        address = ("203.0.113.1", 9)
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            calls: list[Callable[[], object]] = [
                lambda: socket.create_connection(address, 30),
                lambda: tcp.connect(address),
                lambda: udp.sendto(b"x", address),
            ]
            for call in calls:
                with pytest.raises(OSError, match="unreachable") as caught:
                    call()
                assert caught.value.errno == errno.ENETUNREACH
            assert tcp.connect_ex(address) == errno.ENETUNREACH

    netns.run(reach)


@pytest.mark.skipif(not hasattr(std, "TCP_USER_TIMEOUT"), reason="TCP_USER_TIMEOUT is Linux's")
def test_a_connection_that_goes_dark() -> None:
    """No packet arrives any more. Own timeouts pass as always; the kernel's verdict is a TimeoutError with ETIMEDOUT."""

    def go_dark() -> None:
        near, far = tcp_pair()
        with near, far:
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 100)
            reader = fibers.spawn(near.recv, 10)
            fibers.yield_now()
            netns.set_loopback(False)
            near.sendall(b"into the dark")
            with near.dup() as own:
                own.settimeout(0.01)
                with pytest.raises(TimeoutError) as caught:
                    own.recv(1)
            assert caught.value.errno is None
            with fibers.timeout(30):
                error = reader.exception()
            assert isinstance(error, TimeoutError)
            assert error.errno == errno.ETIMEDOUT
            netns.set_loopback(True)

    netns.run(go_dark)


def test_a_connection_outlives_a_short_failure_of_the_network() -> None:
    def interrupt() -> None:
        near, far = tcp_pair()
        with near, far:
            reader = fibers.spawn(far.recv, 10)
            fibers.yield_now()
            netns.set_loopback(False)
            near.sendall(b"held up")
            fibers.sleep(0.01)
            assert not reader.done()
            netns.set_loopback(True)
            assert reader.result(30) == b"held up"

    netns.run(interrupt)


# -- short writes, slow readers


def small_pair(kind: str) -> Pair:
    """A buffer as small as the kernel allows: hardly anything fits into one write.

    That of the reader stays as it is. TCP would stop at a closed window, and find it open again a fifth of a second later.
    """
    near, far = tcp_pair() if kind == "tcp" else socket.socketpair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    return near, far


DATA = bytes(range(251)) * 600


def send_in_parts(near: socket.socket) -> None:
    sent = 0
    while sent < len(DATA):
        count = near.send(DATA[sent:])
        assert 0 < count <= len(DATA) - sent
        sent += count


def sendmsg_in_parts(near: socket.socket) -> None:
    sent = 0
    while sent < len(DATA):
        count = near.sendmsg([DATA[sent : sent + 10], DATA[sent + 10 :]])
        assert 0 < count <= len(DATA) - sent
        sent += count


WRITERS: dict[str, Callable[[socket.socket, Path], object]] = {
    "sendall": lambda near, folder: near.sendall(DATA),
    "sendall of a view": lambda near, folder: near.sendall(memoryview(DATA).cast("H")),
    "send": lambda near, folder: send_in_parts(near),
    "sendmsg": lambda near, folder: sendmsg_in_parts(near),
    "sendfile": lambda near, folder: send_file(near, folder),
    "file": lambda near, folder: write_file(near),
    "stream": lambda near, folder: Stream(near).write_all(DATA, timeout=60),
}


def send_file(near: socket.socket, folder: Path) -> None:
    (folder / "data").write_bytes(DATA)
    with open(folder / "data", "rb") as file:
        assert near.sendfile(file) == len(DATA)


def write_file(near: socket.socket) -> None:
    with near.makefile("wb") as file:
        assert file.write(DATA) == len(DATA)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("how", WRITERS)
def test_short_writes_and_a_slow_reader(kind: str, how: str, tmp_path: Path) -> None:
    """The reader takes little, and only when the writer can do no more."""
    near, far = small_pair(kind)
    with near, far:
        writer = fibers.spawn(WRITERS[how], near, tmp_path)
        received = bytearray()
        while len(received) < len(DATA):
            fibers.yield_now()
            received += far.recv(1500)
        writer.result()
        assert received == DATA


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_write_that_times_out_tells_how_much_went_out(kind: str) -> None:
    near, far = small_pair(kind)
    with near, far:
        near.settimeout(0.02)
        with pytest.raises(TimeoutError) as caught:
            near.sendall(DATA * 100)
        sent: int = caught.value.bytes_sent  # type: ignore[attr-defined]
        near.close()
        assert Stream(far).read_all() == (DATA * 100)[:sent]
        assert 0 < sent < len(DATA) * 100


def test_a_reader_that_never_reads_holds_nobody_else_up() -> None:
    near, far = small_pair("tcp")
    with near, far:
        stuck = fibers.spawn(near.sendall, DATA * 100)
        for _ in range(20):
            left, right = tcp_pair()
            with left, right:
                left.sendall(b"question")
                assert right.recv(100) == b"question"
        assert not stuck.done()
        stuck.cancel()
        stuck.join()
        assert stuck.cancelled()
