"""Every method of a socket, in each of the modes of `settimeout`: for ever, seconds, and not at all."""

import array
import os
import select
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.sockets import Pair, tcp_pair

import fibers
from fibers.io import socket


@pytest.fixture(autouse=True)
def nothing_waits_for_its_time_limit() -> Iterator[None]:
    """Data beats a timeout, so a lost edge would show as a success at the end of the limit (30 s) only."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < 10


def udp_pair() -> Pair:
    a, b = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    for each in (a, b):
        each.bind(("127.0.0.1", 0))
    a.connect(b.getsockname())
    b.connect(a.getsockname())
    return a, b


PAIRS: dict[str, Callable[[], Pair]] = {
    "tcp": tcp_pair,
    "unix": socket.socketpair,
    "unix datagram": lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM),
    "udp": udp_pair,
}


@pytest.fixture(params=list(PAIRS.values()), ids=list(PAIRS))
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    a, b = request.param()
    with a, b:
        yield a, b


def into(sock: socket.socket, name: str) -> bytes:
    buffer = bytearray(100)
    got = getattr(sock, name)(buffer)
    return bytes(buffer[: got if isinstance(got, int) else got[0]])


def scatter(sock: socket.socket) -> bytes:
    one, two = bytearray(2), bytearray(98)
    count = sock.recvmsg_into([one, two])[0]
    return bytes(one + two)[:count]


RECEIVE: dict[str, Callable[[socket.socket], bytes]] = {
    "recv": lambda sock: sock.recv(100),
    "recv_into": lambda sock: into(sock, "recv_into"),
    "recvfrom": lambda sock: sock.recvfrom(100)[0],
    "recvfrom_into": lambda sock: into(sock, "recvfrom_into"),
    "recvmsg": lambda sock: sock.recvmsg(100)[0],
    "recvmsg_into": scatter,
}
SEND: dict[str, Callable[[socket.socket], Any]] = {
    "send": lambda sock: sock.send(b"hello"),
    "sendall": lambda sock: sock.sendall(b"hello"),
    "sendmsg": lambda sock: sock.sendmsg([b"he", bytearray(b"llo")]),
    "sendmsg of an iterator": lambda sock: sock.sendmsg(iter([b"he", b"llo"])),
    "sendall of a view": lambda sock: sock.sendall(memoryview(b"-hello-")[1:6]),
    "sendall of an array": lambda sock: sock.sendall(array.array("B", b"hello")),
}


@pytest.mark.parametrize("receive", RECEIVE.values(), ids=RECEIVE)
@pytest.mark.parametrize("timeout", [None, 30])
def test_receiving_waits_for_data(pair: Pair, receive: Callable[[socket.socket], bytes], timeout: float | None) -> None:
    a, b = pair
    a.settimeout(timeout)
    for _ in range(3):
        reader = fibers.spawn(receive, a)
        fibers.yield_now()
        assert not reader.done()
        b.send(b"hello")
        assert reader.result(5) == b"hello"
    b.send(b"there already")
    assert select.select([a], [], [], 5)[0]
    assert receive(a) == b"there already"


@pytest.mark.parametrize("receive", RECEIVE.values(), ids=RECEIVE)
def test_receiving_times_out(pair: Pair, receive: Callable[[socket.socket], bytes]) -> None:
    a, b = pair
    a.settimeout(0.01)
    for _ in range(2):
        with pytest.raises(TimeoutError, match="timed out"):
            receive(a)
    b.send(b"late")
    a.settimeout(30)
    assert receive(a) == b"late"


@pytest.mark.parametrize("receive", RECEIVE.values(), ids=RECEIVE)
def test_receiving_does_not_wait_in_non_blocking_mode(pair: Pair, receive: Callable[[socket.socket], bytes]) -> None:
    a, b = pair
    a.setblocking(False)
    for _ in range(2):
        with pytest.raises(BlockingIOError):
            receive(a)
    b.send(b"data")
    assert select.select([a], [], [], 5)[0]
    assert receive(a) == b"data"


@pytest.mark.parametrize("send", SEND.values(), ids=SEND)
def test_sending(pair: Pair, send: Callable[[socket.socket], Any]) -> None:
    a, b = pair
    for timeout in (None, 30, 0):
        a.settimeout(timeout)
        assert send(a) in (5, None)
        assert b.recv(100) == b"hello"


STREAMS = pytest.mark.parametrize("make", [tcp_pair, socket.socketpair], ids=["tcp", "unix"])


@STREAMS
@pytest.mark.parametrize("name", ["send", "sendall", "sendmsg"])
def test_sending_waits_for_room_or_times_out_or_does_not_wait(make: Callable[[], Pair], name: str) -> None:
    a, b = make()
    with a, b:
        a.settimeout(0)
        data: Any = [bytes(65536)] if name == "sendmsg" else bytes(65536)
        filled = 0
        try:
            while True:
                filled += a.send(bytes(65536))
        except BlockingIOError:
            pass
        with pytest.raises(BlockingIOError):
            getattr(a, name)(data)
        a.settimeout(0.01)
        with pytest.raises(TimeoutError, match="timed out"):
            getattr(a, name)(data)
        a.settimeout(30)
        sender = fibers.spawn(getattr(a, name), data)
        fibers.yield_now()
        assert not sender.done()
        while not sender.done():
            assert b.recv(1 << 20)
        assert sender.result() in (None, *range(1, 65537))


@STREAMS
@pytest.mark.parametrize("call", ["recv", "recv_into"])
def test_msg_waitall_fills_the_buffer(make: Callable[[], Pair], call: str) -> None:
    a, b = make()
    with a, b:
        buffer = bytearray(10)
        if call == "recv":
            reader: fibers.Fiber[Any] = fibers.spawn(a.recv, 10, socket.MSG_WAITALL)
        else:
            reader = fibers.spawn(a.recv_into, buffer, 0, socket.MSG_WAITALL)
        for piece in (b"abc", b"defg", b"hij"):
            fibers.sleep(0.001)
            assert not reader.done()
            b.send(piece)
        result = reader.result(5)
        assert (result if call == "recv" else buffer[:result]) == b"abcdefghij"


@STREAMS
def test_msg_waitall_ends_with_the_stream(make: Callable[[], Pair]) -> None:
    a, b = make()
    with a, b:
        reader = fibers.spawn(a.recv, 10, socket.MSG_WAITALL)
        fibers.yield_now()
        b.send(b"abc")
        b.close()
        assert reader.result(5) == b"abc"


@STREAMS
def test_msg_waitall_that_times_out_keeps_what_has_come(make: Callable[[], Pair]) -> None:
    """What has been received is never thrown away: it is returned, short, as the kernel does."""
    a, b = make()
    with a, b:
        a.settimeout(0.05)
        b.send(b"abc")
        got = b""
        try:
            got = a.recv(10, socket.MSG_WAITALL)
        except TimeoutError:
            b.send(b"defghijklm")
            a.settimeout(30)
            got = a.recv(10)[:3]
        assert got == b"abc"


def test_sendto_and_recvfrom_with_names_numbers_and_flags() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as a, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as b:
        a.bind(("127.0.0.1", 0))
        b.bind(("127.0.0.1", 0))
        b.settimeout(30)
        host, port = b.getsockname()
        assert a.sendto(b"one", (host, port)) == 3
        assert b.recvfrom(10) == (b"one", a.getsockname())
        assert a.sendto(b"two", 0, ("localhost", port)) == 3
        assert b.recvfrom(10) == (b"two", a.getsockname())
        assert a.sendmsg([b"th", b"ree"], [], 0, (host, port)) == 5
        assert b.recvmsg(10)[0] == b"three"
        assert a.sendto(b"", (host, port)) == 0
        assert b.recvfrom(10) == (b"", a.getsockname())


def test_unix_datagrams_have_paths(tmp_path: Any) -> None:
    previous = os.getcwd()
    os.chdir(tmp_path)  # a unix address holds 107 characters
    try:
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as a,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as b,
        ):
            a.bind("a")
            b.bind("b")
            reader = fibers.spawn(b.recvfrom, 10)
            fibers.yield_now()
            assert a.sendto(b"hello", "b") == 5
            assert reader.result(5) == (b"hello", "a")
    finally:
        os.chdir(previous)


def test_unix_streams_have_paths(tmp_path: Any) -> None:
    previous = os.getcwd()
    os.chdir(tmp_path)
    try:
        with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
            listener.bind("s")
            listener.listen()
            acceptor = fibers.spawn(listener.accept)
            fibers.yield_now()
            client.connect("s")
            with acceptor.result(5)[0] as server:
                reader = fibers.spawn(server.recv, 10)
                fibers.yield_now()
                client.sendall(b"hello")
                assert reader.result(5) == b"hello"
    finally:
        os.chdir(previous)


@STREAMS
def test_dup_is_another_fd_on_the_same_stream(make: Callable[[], Pair]) -> None:
    a, b = make()
    with a, b:
        a.settimeout(30)
        with a.dup() as twin:
            assert twin.fileno() != a.fileno()
            assert twin.gettimeout() == 30
            assert not os.get_inheritable(twin.fileno())
            reader = fibers.spawn(twin.recv, 10)
            fibers.yield_now()
            b.send(b"hello")
            assert reader.result(5) == b"hello"
        assert a.send(b"a lives on") == 10


def test_detach_gives_the_fd_away_and_fromfd_and_fileno_take_it() -> None:
    a, b = socket.socketpair()
    with b:
        reader = fibers.spawn(a.recv, 1)
        fibers.yield_now()
        b.send(b"x")
        reader.result(5)
        fd = a.detach()
        assert a.fileno() == -1
        assert a.detach() == -1
        with socket.socket(fileno=fd) as again:
            assert (again.family, again.type) == (socket.AF_UNIX, socket.SOCK_STREAM)
            again.settimeout(30)
            with socket.fromfd(fd, socket.AF_UNIX, socket.SOCK_STREAM) as copy:
                copy.settimeout(30)
                second = fibers.spawn(copy.recv, 1)
                fibers.yield_now()
                b.send(b"y")
                assert second.result(5) == b"y"
            third = fibers.spawn(again.recv, 1)
            fibers.yield_now()
            b.send(b"z")
            assert third.result(5) == b"z"


def test_settimeout_during_a_wait_is_for_the_next_one() -> None:
    """As in the standard library: a call in progress keeps the timeout that it began with."""
    a, b = socket.socketpair()
    with a, b:
        reader = fibers.spawn(a.recv, 1)
        fibers.yield_now()
        a.settimeout(0.005)
        fibers.sleep(0.02)
        assert not reader.done()
        b.send(b"x")
        assert reader.result(5) == b"x"
