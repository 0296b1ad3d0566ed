"""Closing, in order: mark closed, wake every waiter with ClosedError, unregister, close(2). And the ends a peer brings."""

import errno
import os
import struct
from collections.abc import Callable
from typing import Any

import pytest
from support.backends import lifetime_only
from support.sockets import Pair, tcp_pair

import fibers
from fibers import ClosedError
from fibers.core.scheduler import get_scheduler
from fibers.eventloop import ownership
from fibers.io import socket


def timed(sock: socket.socket) -> socket.socket:
    sock.settimeout(30)
    return sock


WAITS: dict[str, Callable[[socket.socket], Any]] = {
    "recv": lambda sock: sock.recv(1),
    "recv with a timeout": lambda sock: timed(sock).recv(1),
    "recv_into": lambda sock: sock.recv_into(bytearray(1)),
    "recvfrom": lambda sock: sock.recvfrom(1),
    "recvfrom_into": lambda sock: sock.recvfrom_into(bytearray(1)),
    "recvmsg": lambda sock: sock.recvmsg(1),
    "recvmsg_into": lambda sock: sock.recvmsg_into([bytearray(1)]),
    "peek": lambda sock: sock.recv(1, socket.MSG_PEEK),
    "waitall": lambda sock: sock.recv(10, socket.MSG_WAITALL),
    "sendall": lambda sock: sock.sendall(bytes(1 << 24)),
    "makefile": lambda sock: sock.makefile("rb", buffering=0).read(1),
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
@pytest.mark.parametrize("how", ["close", "detach"])
def test_closing_wakes_every_waiter_with_closed_error(
    pair: Pair, wait: Callable[[socket.socket], Any], how: str
) -> None:
    a, _b = pair
    waiters = [fibers.spawn(wait, a) for _ in range(3)]
    fibers.yield_now()
    a._io_refs = 0  # type: ignore[attr-defined]  # a file made of it would put the closing off
    if how == "close":
        a.close()
    else:
        os.close(a.detach())
    for waiter in waiters:
        with pytest.raises(ClosedError) as caught:
            waiter.result(5)
        assert caught.value.errno == errno.EBADF


def test_closing_a_listener_wakes_its_acceptors() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    acceptors = [fibers.spawn(listener.accept) for _ in range(3)]
    fibers.yield_now()
    listener.close()
    for acceptor in acceptors:
        with pytest.raises(ClosedError):
            acceptor.result(5)


@lifetime_only
def test_closing_leaves_no_trace(pair: Pair) -> None:
    """One unregistration, no owner, no fd."""
    a, b = pair
    a.settimeout(30)
    waiters = [fibers.spawn(a.recv, 1) for _ in range(3)]
    fibers.yield_now()
    loop = get_scheduler().loop
    number, before = a.fileno(), loop.stats.unregistrations
    assert number in ownership.owners
    a.close()
    assert loop.stats.unregistrations == before + 1
    assert number not in ownership.owners
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(number)
    for waiter in waiters:
        with pytest.raises(ClosedError):
            waiter.result(5)
    a.close()
    assert loop.stats.unregistrations == before + 1
    b.close()


def test_a_waiter_that_was_woken_by_data_before_the_close_gets_closed_error_or_its_data(pair: Pair) -> None:
    """Data and close meet: the waiter is resumed once, with one of the two."""
    a, b = pair
    resumed: list[object] = []

    def read() -> None:
        try:
            resumed.append(a.recv(10))
        except ClosedError:
            resumed.append(ClosedError)

    reader = fibers.spawn(read)
    fibers.yield_now()
    b.send(b"data")
    get_scheduler().loop.wake()
    fibers.yield_now()
    a.close()
    reader.result(5)
    assert len(resumed) == 1


def test_an_fd_closed_behind_our_back_is_evicted_when_the_number_comes_back() -> None:
    """`os.close` by other code: its waiters get ClosedError as soon as the number is seen on another file."""
    a, b = socket.socketpair()
    reader = fibers.spawn(a.recv, 1)
    fibers.yield_now()
    number = a.fileno()
    os.close(number)
    c, d = socket.socketpair()
    assert number in (c.fileno(), d.fileno())
    with pytest.raises(ClosedError):
        reader.result(5)
    successor = fibers.spawn(c.recv, 1)
    fibers.yield_now()
    assert a.detach() == number  # its number is another's now; it must not close it
    d.send(b"x")
    assert successor.result(5) == b"x"
    for each in (b, c, d):
        each.close()


def test_the_same_when_the_number_comes_back_unannounced() -> None:
    """A socket made by its constructor is noticed at its first wait."""
    a, b = socket.socketpair()
    reader = fibers.spawn(a.recv, 1)
    fibers.yield_now()
    number = a.fileno()
    os.close(number)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        assert udp.fileno() == number
        udp.bind(("127.0.0.1", 0))
        successor = fibers.spawn(udp.recv, 10)
        with pytest.raises(ClosedError):
            reader.result(5)
        a.detach()
        udp.sendto(b"x", udp.getsockname())
        assert successor.result(5) == b"x"
    b.close()


def test_a_closed_socket_can_be_made_anew_on_the_same_number_many_times() -> None:
    """Invariant 10: a re-used number never receives an old waiter's result."""
    for round_ in range(200):
        a, b = socket.socketpair()
        reader = fibers.spawn(a.recv, 10)
        fibers.yield_now()
        if round_ % 2:
            b.send(b"old")
            a.close()
            with pytest.raises(ClosedError):
                reader.result(5)
        else:
            b.send(b"%d" % round_)
            assert reader.result(5) == b"%d" % round_
            a.close()
        b.close()


def test_a_context_manager_and_a_file_close_as_in_the_standard_library() -> None:
    a, b = socket.socketpair()
    with a:
        file = a.makefile("rb")
    assert a.fileno() >= 0, "a file made of it keeps it open"
    b.sendall(b"line\n")
    assert file.readline() == b"line\n"
    file.close()
    assert a.fileno() == -1
    b.close()


def test_reset_by_peer_reaches_the_reader_that_waits() -> None:
    """RST: SO_LINGER 0 makes close(2) send one."""
    a, b = tcp_pair()
    with a:
        reader = fibers.spawn(a.recv, 1)
        fibers.yield_now()
        b.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        b.close()
        with pytest.raises(ConnectionResetError):
            reader.result(5)
        assert a.recv(1) == b"", "the error is told once, and is not sticky"
        with pytest.raises(BrokenPipeError):
            a.send(b"x")


def test_reset_by_peer_reaches_the_writer_that_waits() -> None:
    a, b = tcp_pair()
    with a:
        writer = fibers.spawn(a.sendall, bytes(1 << 24))
        fibers.yield_now()
        b.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        b.close()
        with pytest.raises((ConnectionResetError, BrokenPipeError)) as caught:
            writer.result(5)
        assert 0 < caught.value.bytes_sent < 1 << 24  # type: ignore[attr-defined]


def test_half_close_ends_one_direction_only(pair: Pair) -> None:
    a, b = pair
    reader = fibers.spawn(b.recv, 10)
    fibers.yield_now()
    a.shutdown(socket.SHUT_WR)
    assert reader.result(5) == b""
    with pytest.raises(BrokenPipeError):
        a.send(b"x")
    answer = fibers.spawn(a.recv, 10)
    fibers.yield_now()
    b.sendall(b"still here")
    assert answer.result(5) == b"still here"


def test_shutdown_of_the_own_reading_side_ends_the_read_that_waits(pair: Pair) -> None:
    a, _b = pair
    reader = fibers.spawn(a.recv, 10)
    fibers.yield_now()
    a.shutdown(socket.SHUT_RD)
    assert reader.result(5) == b""


def test_the_peer_leaves_while_readers_queue(pair: Pair) -> None:
    """Every one of them hears of the end: the end of a stream is for all."""
    a, b = pair
    readers = [fibers.spawn(a.recv, 10) for _ in range(5)]
    fibers.yield_now()
    b.close()
    assert [reader.result(5) for reader in readers] == [b""] * 5
