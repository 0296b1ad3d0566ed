"""Rows "unix" and "OOB, PEEK": reads that stop before the buffer is empty, and peeks that leave it full.

Facts. A read of a unix stream stops at a message with file descriptors even if more is queued behind it. A TCP read
stops at the out-of-band mark. Neither stop is followed by an edge.
"""

import os
import select
import time
from collections.abc import Iterator

import pytest
from support.process import FAKE_KQUEUE
from support.sockets import Pair, tcp_pair

import fibers
from fibers.io import socket


@pytest.fixture(autouse=True)
def nothing_waits_for_its_time_limit() -> Iterator[None]:
    """Data beats a timeout, so a lost edge would show as a success at the end of the limit (30 s) only."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < 10


@pytest.fixture
def pair() -> Iterator[Pair]:
    a, b = socket.socketpair()
    a.settimeout(30)
    with a, b:
        yield a, b


@pytest.fixture
def tcp() -> Iterator[Pair]:
    a, b = tcp_pair()
    a.settimeout(30)
    with a, b:
        yield a, b


@pytest.mark.parametrize("waits", [True, False], ids=["a reader waits", "all is queued"])
def test_unix_recv_across_an_scm_rights_boundary(pair: Pair, waits: bool) -> None:
    """Row "unix": data behind an SCM_RIGHTS boundary: a short read, no further edge, no hang."""
    a, b = pair

    def read() -> bytes:
        got = b""
        while len(got) < 9:
            got += a.recv(100)
        return got

    reader = fibers.spawn(read)
    if waits:
        fibers.yield_now()
    b.send(b"one")
    with open(os.devnull) as null:
        socket.send_fds(b, [b"two"], [null.fileno()])
    b.send(b"333")
    assert reader.result(5) == b"onetwo333"


@pytest.mark.parametrize("call", ["recv", "recv_into", "recvmsg"])
def test_unix_reads_with_and_without_ancillary_data(pair: Pair, call: str) -> None:
    a, b = pair
    received: list[int] = []

    def read() -> bytes:
        got = b""
        while len(got) < 6:
            if call == "recv":
                got += a.recv(100)
            elif call == "recv_into":
                buffer = bytearray(100)
                got += buffer[: a.recv_into(buffer)]
            else:
                data, fds, _flags, _address = socket.recv_fds(a, 100, 4)
                got += data
                received.extend(fds)
        return got

    reader = fibers.spawn(read)
    fibers.yield_now()
    inner, outer = os.pipe()
    for piece in (b"ab", b"cd", b"ef"):
        socket.send_fds(b, [piece], [outer])
    assert reader.result(5) == b"abcdef"
    for fd in received:
        os.write(fd, b"!")
        os.close(fd)
    if call == "recvmsg":
        assert len(received) == 3
        assert os.read(inner, 10) == b"!!!"
    os.close(inner)
    os.close(outer)


def test_unix_recvmsg_into_fills_several_buffers(pair: Pair) -> None:
    a, b = pair
    first, second = bytearray(3), bytearray(10)
    reader = fibers.spawn(a.recvmsg_into, [first, second])
    fibers.yield_now()
    b.sendmsg([b"abc", b"def"])
    assert reader.result(5)[0] == 6
    assert bytes(first + second[:3]) == b"abcdef"


def test_peek_then_recv(tcp: Pair) -> None:
    """Row "OOB, PEEK": a peek consumes no edge; the recv after it need not wait."""
    a, b = tcp
    reader = fibers.spawn(a.recv, 100, socket.MSG_PEEK)
    fibers.yield_now()
    b.send(b"data")
    assert reader.result(5) == b"data"
    assert a.recv(2, socket.MSG_PEEK) == b"da"
    assert a.recv_into(bytearray(100), 0, socket.MSG_PEEK) == 4
    assert a.recv(100) == b"data"
    a.settimeout(0.01)
    with pytest.raises(TimeoutError):
        a.recv(1, socket.MSG_PEEK)


def test_peek_by_one_fiber_leaves_the_data_to_the_other(tcp: Pair) -> None:
    a, b = tcp
    peeker = fibers.spawn(a.recv, 100, socket.MSG_PEEK)
    reader = fibers.spawn(a.recv, 100)
    fibers.yield_now()
    b.send(b"data")
    assert peeker.result(5) == b"data"
    assert reader.result(5) == b"data"


@pytest.mark.parametrize("waits", [True, False], ids=["a reader waits", "all is queued"])
def test_oob_a_read_that_stops_at_the_inline_mark_goes_on_behind_it(tcp: Pair, waits: bool) -> None:
    """Row "OOB": with SO_OOBINLINE the read stops at the mark, and no further edge comes for what is behind."""
    a, b = tcp
    a.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)

    def read() -> list[bytes]:
        got: list[bytes] = []
        while sum(map(len, got)) < 7:
            got.append(a.recv(100))
        return got

    reader = fibers.spawn(read)
    if waits:
        fibers.yield_now()
    b.send(b"abc")
    b.send(b"!", socket.MSG_OOB)
    b.send(b"def")
    assert select.select([a], [], [], 5)[0]
    assert b"".join(reader.result(5)) == b"abc!def"


@pytest.mark.skipif(FAKE_KQUEUE, reason="Linux counts what can be read up to the urgent mark, the BSDs beyond it")
def test_oob_urgent_byte_out_of_line_does_not_stop_the_stream(tcp: Pair) -> None:
    a, b = tcp

    def read() -> bytes:
        got = b""
        while len(got) < 6:
            got += a.recv(100)
        return got

    reader = fibers.spawn(read)
    fibers.yield_now()
    b.send(b"abc")
    b.send(b"!", socket.MSG_OOB)
    b.send(b"def")
    assert reader.result(5) == b"abcdef"
