"""Hazard 2: the latch is a comparison of two counters, every event is an edge, and what must not wait ignores it.

Facts. A reader that comes up short drains the latch, and from then on it waits before it tries. So each case below
first drains the latch (by a wait that times out), and then asks for something that the latch must not swallow.
"""

import errno
import select
import socket as std
import time
from collections.abc import Callable, Iterator

import pytest
from support.backends import lifetime_only
from support.sockets import Pair, tcp_pair

import fibers
from fibers.core.scheduler import get_scheduler
from fibers.eventloop import BACKEND
from fibers.io import socket, waiting
from fibers.io.state import state_of


@pytest.fixture(autouse=True)
def nothing_waits_for_its_time_limit() -> Iterator[None]:
    """Data beats a timeout, so a lost edge would show as a success at the end of the limit (30 s) only."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < 10


def drain_latch(sock: socket.socket) -> None:
    """Wait in vain, so that the next reader would wait before it tries."""
    before = sock.gettimeout()
    sock.settimeout(0.005)
    with pytest.raises(TimeoutError):
        sock.recv(1)
    sock.settimeout(before)
    reading = state_of(sock).reading
    assert reading.edges == reading.drained


def closed_udp_port() -> tuple[str, int]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        address: tuple[str, int] = free.getsockname()
        return address


def let_events_in() -> None:
    """Two turns of the loop, with no socket waited for."""
    loop = get_scheduler().loop
    turns = loop.stats.turns
    while loop.stats.turns < turns + 2:
        fibers.sleep(0.001)


def test_hazard_2_an_edge_between_reading_the_count_and_draining_is_not_lost() -> None:
    """Hazard 2: `drained` gets the count seen *before* the call, so an edge that comes during the call stays."""
    a, b = socket.socketpair()
    with a, b:
        drain_latch(a)
        state = state_of(a)
        loop = get_scheduler().loop
        calls = []

        def short_call_during_which_data_arrives(sock: socket.socket) -> bytes:
            calls.append(1)
            if len(calls) > 1:
                return std.socket.recv(sock, 10, socket.MSG_DONTWAIT)
            b.send(b"x")
            if loop.stats.registrations and BACKEND == "epoll":
                loop.turn(False)  # the event of the arrival is dispatched inside our "system call"
            else:
                state.reading.edges += 1
            raise BlockingIOError(errno.EAGAIN, "as if the call had looked a moment earlier")

        state.reading.edges += 1  # try at once
        state.timeout = 30.0
        assert waiting.blocking(a, state, state.reading, 0, short_call_during_which_data_arrives) == b"x"
        assert len(calls) == 2


@pytest.mark.parametrize("call", ["recv", "recv_into", "recvfrom"])
def test_hazard_2_hidden_econnrefused_on_udp(call: str) -> None:
    """Hazard 2: an ERR that finds no waiter still lets the next reader try once."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.connect(closed_udp_port())
        drain_latch(udp)
        if BACKEND == "epoll":
            udp.send(b"x")  # refused: the kernel keeps the error, nobody waits
            let_events_in()
        else:
            # A level-triggered poller watches only while somebody waits: the next wait is told at once.
            udp.send(b"x")
        udp.settimeout(30)
        calls: dict[str, Callable[[], object]] = {
            "recv": lambda: udp.recv(10),
            "recv_into": lambda: udp.recv_into(bytearray(10)),
            "recvfrom": lambda: udp.recvfrom(10),
        }
        with pytest.raises(ConnectionRefusedError):
            calls[call]()
        drain_latch(udp)  # and it blocks again afterwards: not sticky


def test_hazard_2_a_refusal_wakes_the_reader_that_waits() -> None:
    """ERR counts as an edge: a reader that waits hears of the refusal, once."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.connect(closed_udp_port())
        udp.settimeout(30)
        reader = fibers.spawn(udp.recv, 10)
        fibers.yield_now()
        udp.send(b"x")
        with pytest.raises(ConnectionRefusedError):
            reader.result(5)
        drain_latch(udp)


def test_hazard_2_recv_0_returns_at_once(pair: Pair) -> None:
    """Hazard 2: size 0 ignores the latch; so it is in the standard library."""
    a, _b = pair
    assert a.recv(0) == b""
    drain_latch(a)
    a.settimeout(30)
    turns = get_scheduler().loop.stats.turns
    assert a.recv(0) == b""
    assert a.recv_into(bytearray()) == 0
    assert get_scheduler().loop.stats.turns == turns


def test_hazard_2_recv_0_returns_at_once_although_another_fiber_reads(pair: Pair) -> None:
    a, b = pair
    reader = fibers.spawn(a.recv, 10)
    fibers.yield_now()
    zero = fibers.spawn(a.recv, 0)
    assert zero.result(5) == b""
    assert not reader.done()
    b.send(b"x")
    assert reader.result(5) == b"x"


def test_hazard_2_peeking_at_nothing_returns_at_once(pair: Pair) -> None:
    a, _b = pair
    drain_latch(a)
    a.settimeout(30)
    peek = fibers.spawn(a.recv, 0, socket.MSG_PEEK)
    assert peek.result(1) == b""


def test_hazard_2_msg_dontwait_ignores_the_latch_and_never_waits(pair: Pair) -> None:
    a, b = pair
    drain_latch(a)
    a.settimeout(30)
    turns = get_scheduler().loop.stats.turns
    for attempt in (
        lambda: a.recv(10, socket.MSG_DONTWAIT),
        lambda: a.recv_into(bytearray(10), 0, socket.MSG_DONTWAIT),
        lambda: a.recvfrom(10, socket.MSG_DONTWAIT),
        lambda: a.recvfrom_into(bytearray(10), 0, socket.MSG_DONTWAIT),
        lambda: a.recvmsg(10, 0, socket.MSG_DONTWAIT),
        lambda: a.recvmsg_into([bytearray(10)], 0, socket.MSG_DONTWAIT),
    ):
        with pytest.raises(BlockingIOError):
            attempt()
    b.send(b"data")
    assert select.select([a], [], [], 5)[0]
    assert a.recv(10, socket.MSG_DONTWAIT) == b"data", "the loop has seen no edge yet, the kernel has the data"
    assert get_scheduler().loop.stats.turns == turns


def test_hazard_2_msg_dontwait_send_into_a_full_buffer(pair: Pair) -> None:
    a, _b = pair
    try:
        while True:
            a.send(bytes(65536), socket.MSG_DONTWAIT)
    except BlockingIOError:
        pass
    with pytest.raises(BlockingIOError):
        a.sendmsg([b"x"], (), socket.MSG_DONTWAIT)


def test_hazard_2_non_blocking_mode_ignores_the_latch(pair: Pair) -> None:
    a, b = pair
    drain_latch(a)
    a.setblocking(False)
    with pytest.raises(BlockingIOError):
        a.recv(10)
    b.send(b"data")
    assert select.select([a], [], [], 5)[0]
    assert a.recv(10) == b"data"
    with pytest.raises(BlockingIOError):
        a.recv(10)


@lifetime_only
def test_hazard_2_a_short_read_on_tcp_saves_the_failing_call() -> None:
    """The shortcut exists: after a short read the latch is drained, on TCP and without flags."""
    a, b = tcp_pair()
    with a, b:
        fibers.sleep(0)
        b.send(b"abc")
        assert a.recv(100) == b"abc"
        reading = state_of(a).reading
        assert reading.edges == reading.drained
        reader = fibers.spawn(a.recv, 100)
        b.send(b"def")
        assert reader.result(5) == b"def"


@pytest.mark.parametrize("how", ["full read", "peek", "recvmsg", "recvfrom"])
def test_hazard_2_no_shortcut_where_a_short_read_proves_nothing(how: str) -> None:
    """The shortcut is for raw recv and recv_into, flags 0, and only if less came than was asked for."""
    a, b = tcp_pair()
    with a, b:
        b.send(b"abc")
        assert select.select([a], [], [], 5)[0]
        reads: dict[str, Callable[[], object]] = {
            "full read": lambda: a.recv(3),
            "peek": lambda: a.recv(100, socket.MSG_PEEK),
            "recvmsg": lambda: a.recvmsg(100),
            "recvfrom": lambda: a.recvfrom(100),
        }
        reads[how]()
        reading = state_of(a).reading
        assert reading.edges != reading.drained


def test_hazard_2_on_unix_sockets_a_short_read_with_data_behind_it_proves_nothing() -> None:
    """A unix read stops short behind ancillary data, with data queued behind it and no further edge to come."""
    a, b = socket.socketpair()
    with a, b:
        drain_latch(a)
        socket.send_fds(b, [b"abc"], [b.fileno()])
        b.send(b"def")
        a.settimeout(30)
        assert a.recv(100) == b"abc"
        reading = state_of(a).reading
        assert reading.edges != reading.drained
        assert a.recv(100) == b"def"


def test_data_and_end_that_share_an_edge_are_both_read() -> None:
    """`read_closed` forbids the shortcut: after data and FIN in one edge no event ever comes again."""
    for _ in range(20):
        a, b = tcp_pair()
        with a, b:
            a.settimeout(30)
            reader = fibers.spawn(a.recv, 100)
            fibers.yield_now()  # it waits, registered
            b.send(b"last words")
            b.close()
            assert reader.result(5) == b"last words"
            assert a.recv(100) == b""


def test_end_after_a_hang_up_seen_while_nobody_waited() -> None:
    a, b = tcp_pair()
    with a, b:
        drain_latch(a)
        b.send(b"data")
        b.shutdown(socket.SHUT_WR)
        let_events_in()
        a.settimeout(30)
        assert a.recv(100) == b"data"
        assert a.recv(100) == b""
        assert a.recv(100) == b""


def test_room_that_no_edge_tells_of_is_used_at_once() -> None:
    """The kernel tells of room in a socket when a third of it is free. A write that finds less, when its time is up, has
    found some all the same; those that follow must not each wait for the end of their own time.
    """
    near, far = tcp_pair()
    stats = get_scheduler().loop.stats
    waited = 0

    def fill() -> None:
        nonlocal waited
        while waited < 60:
            before = stats.turns
            near.sendmsg([b"a" * 512])
            waited += stats.turns != before

    with near, far:
        near.settimeout(0.01)
        with pytest.raises(TimeoutError):
            fill()
