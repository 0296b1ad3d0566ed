"""Links that misbehave as they are told: latency, bandwidth, partial writes, bounded buffers, outages, lost peers.

All on a virtual clock, so that times are exact and nothing is waited for.
"""

import random
import socket as std
from collections.abc import Callable
from typing import Any

import pytest
from support.scale import SEED, scaled

import fibers
from fibers import testing
from fibers.testing import Link, MemorySocket, VirtualClock, memory_pair, wait_all_parked


@pytest.fixture(autouse=True)
def _virtual(virtual_clock: VirtualClock) -> None:
    """Everything here is on a virtual clock."""


def now() -> float:
    return fibers.current_time()


def at(call: Callable[..., Any], *args: Any) -> tuple[Any, float]:
    return call(*args), now()


# -- delay ----------------------------------------------------------------------------------------------------------


def test_latency_is_exact_and_does_not_hold_up_the_sender() -> None:
    left, right = memory_pair(Link(latency=0.25))
    with left, right:
        left.sendall(b"a")
        fibers.sleep(0.1)
        left.sendall(b"b")
        assert now() == 0.1
        assert at(right.recv, 10) == (b"a", 0.25)
        assert at(right.recv, 10) == (b"b", 0.35)


def test_what_has_arrived_meanwhile_is_received_together() -> None:
    left, right = memory_pair(Link(latency=1))
    with left, right:
        for letter in b"abc":
            left.sendall(bytes([letter]))
        fibers.sleep(2)
        assert at(right.recv, 10) == (b"abc", 2.0)


def test_directions_have_latencies_of_their_own() -> None:
    left, right = memory_pair()
    with left, right:
        left.outgoing.latency = 3
        assert right.incoming.latency == 3
        assert left.incoming.latency == 0
        left.sendall(b"there")
        assert at(right.recv, 10) == (b"there", 3.0)
        right.sendall(b"back")
        assert at(left.recv, 10) == (b"back", 3.0)


def test_a_latency_may_be_drawn_and_never_reorders() -> None:
    draw = random.Random(7)
    left, right = memory_pair(Link(latency=lambda: draw.uniform(0, 5)))
    with left, right:
        for number in range(100):
            left.sendall(bytes([number]))
            fibers.sleep(0.1)
        left.shutdown(std.SHUT_WR)
        received = b""
        while data := right.recv(1000):
            received += data
        assert received == bytes(range(100))


def test_a_changed_latency_holds_from_then_on() -> None:
    left, right = memory_pair(Link(latency=5))
    with left, right:
        left.sendall(b"slow")
        left.outgoing.latency = 1
        left.sendall(b"fast, but behind it")
        assert at(right.recv, 4) == (b"slow", 5.0)
        assert at(right.recv, 100) == (b"fast, but behind it", 5.0)


def test_news_travel_behind_the_data() -> None:
    left, right = memory_pair(Link(latency=2))
    with left, right:
        left.sendall(b"last words")
        left.close()
        right.send(b"he does not know yet")
        assert at(right.recv, 100) == (b"last words", 2.0)
        assert at(right.recv, 100) == (b"", 2.0)
        with pytest.raises(BrokenPipeError):
            right.send(b"now he does")


def test_an_end_that_closes_before_data_arrive_resets_the_sender() -> None:
    left, right = memory_pair(Link(latency=2))
    with left, right:
        left.sendall(b"on its way")
        right.close()
        with pytest.raises(ConnectionResetError):
            left.recv(1)
        assert now() == 2.0


def test_timeouts_and_latency_meet_exactly() -> None:
    """Data beats timeout: what arrives at the deadline is in time."""
    left, right = memory_pair(Link(latency=1))
    with left, right:
        right.settimeout(1)
        left.sendall(b"in time")
        assert at(right.recv, 10) == (b"in time", 1.0)
        left.outgoing.latency = 1.000_001
        left.sendall(b"late")
        with pytest.raises(TimeoutError):
            right.recv(10)
        assert now() == 2.0
        assert right.recv(10) == b"late"


def test_scopes_cover_latency() -> None:
    left, right = memory_pair(Link(latency=10))
    with left, right:
        left.sendall(b"x")
        with pytest.raises(TimeoutError), fibers.timeout(3):
            right.recv(1)
        assert now() == 3.0
        assert at(right.recv, 1) == (b"x", 10.0)


# -- bandwidth and buffers --------------------------------------------------------------------------------------------


def test_bandwidth_spreads_bytes_over_time() -> None:
    left, right = memory_pair(Link(bandwidth=1460, capacity=1 << 20))
    with left, right:
        left.sendall(b"x" * 1460 * 5)
        assert now() == 0.0
        arrivals = [at(right.recv, 1 << 20) for _ in range(5)]
        assert arrivals == [(b"x" * 1460, float(second)) for second in range(1, 6)]


def test_bandwidth_and_latency_add_up_and_an_idle_wire_starts_anew() -> None:
    left, right = memory_pair(Link(latency=10, bandwidth=100))
    with left, right:
        left.sendall(b"x" * 200)
        assert at(right.recv, 1000) == (b"x" * 200, 12.0)
        fibers.sleep(100)
        left.sendall(b"y" * 100)
        assert at(right.recv, 1000) == (b"y" * 100, 123.0)


def test_a_bounded_buffer_holds_up_the_sender() -> None:
    left, right = memory_pair(Link(capacity=10))
    with left, right:
        assert left.send(b"x" * 25) == 10
        writer = fibers.spawn(left.send, b"y" * 25)
        fibers.sleep(5)
        assert not writer.done()
        assert right.recv(4) == b"xxxx"
        assert writer.result() == 4
        left.setblocking(False)
        with pytest.raises(BlockingIOError):
            left.send(b"z")


def test_bytes_on_their_way_count_as_well() -> None:
    left, right = memory_pair(Link(latency=5, capacity=10))
    with left, right:
        writer = fibers.spawn(left.sendall, b"x" * 30)
        received: list[tuple[bytes, float]] = []
        while sum(len(data) for data, _ in received) < 30:
            received.append(at(right.recv, 100))
        assert received == [(b"x" * 10, 5.0), (b"x" * 10, 10.0), (b"x" * 10, 15.0)]
        writer.result()


def test_partial_writes() -> None:
    left, right = memory_pair(Link(max_send=3))
    with left, right:
        assert left.send(b"abcdef") == 3
        left.sendall(b"ghijklmn")
        assert right.recv(100) == b"abcghijklmn"


def test_partial_reads() -> None:
    left, right = memory_pair(Link(max_receive=2))
    with left, right:
        left.sendall(b"abcdef")
        assert right.recv(100) == b"ab"
        assert right.recv(100, std.MSG_PEEK) == b"cd"
        assert right.recv(4, std.MSG_WAITALL) == b"cdef"


def test_random_links_lose_and_reorder_nothing() -> None:
    """Whatever the links and the sizes of the calls are, a stream is a stream."""
    for round_ in range(scaled(300, least=15)):
        draw = random.Random(SEED + round_)
        latencies: list[float | Callable[[], float]] = [0.0, 0.1, draw.random]
        link = Link(
            latency=draw.choice(latencies),
            bandwidth=draw.choice([None, 10_000, 1e6]),
            capacity=draw.choice([1, 10, 1000, 65_536]),
            max_send=draw.choice([None, 1, 7, 100]),
            max_receive=draw.choice([None, 1, 7, 100]),
        )
        data = draw.randbytes(draw.choice([0, 1, 500, 5000]))
        there, back = memory_pair(link)
        with there, back:
            stream(draw, data, there, back)


def stream(draw: random.Random, data: bytes, left: MemorySocket, right: MemorySocket) -> None:
    def echo() -> None:
        while received := right.recv(draw.randrange(1, 2000)):
            right.sendall(received)
        right.shutdown(std.SHUT_WR)

    def send() -> None:
        sent = 0
        while sent < len(data):
            sent += left.send(data[sent : sent + draw.randrange(1, 3000)])
        left.shutdown(std.SHUT_WR)

    with fibers.TaskGroup() as group:
        group.spawn(echo)
        group.spawn(send)
        received = b""
        while more := left.recv(draw.randrange(1, 3000)):
            received += more
    assert received == data


# -- losses -----------------------------------------------------------------------------------------------------------


def test_a_reset() -> None:
    left, right = memory_pair()
    with left, right:
        left.sendall(b"before")
        left.reset()
        assert right.recv(100) == b"before"
        with pytest.raises(ConnectionResetError):
            right.recv(100)
        assert right.recv(100) == b""
        with pytest.raises(BrokenPipeError):
            right.send(b"x")


def test_a_reset_hits_a_sender_too_once() -> None:
    left, right = memory_pair()
    with left, right:
        left.reset()
        with pytest.raises(ConnectionResetError):
            right.sendall(b"x")
        with pytest.raises(BrokenPipeError):
            right.sendall(b"x")
        assert right.recv(1) == b""


@pytest.mark.parametrize("loss", ["close", "reset"])
def test_who_waits_learns_of_a_loss_when_the_news_arrive(loss: str) -> None:
    left, right = memory_pair(Link(latency=4, capacity=1))
    with left, right:
        left.sendall(b"x")
        writer = fibers.spawn(at, left.sendall, b"y")
        reader = fibers.spawn(at, left.recv, 1)
        fibers.sleep(1)
        getattr(right, loss)()
        assert isinstance(writer.exception(), ConnectionError)
        assert now() == 5.0
        if loss == "reset":
            # One of the two is told of the reset; the other sees the end.
            assert reader.exception() is None or isinstance(reader.exception(), ConnectionResetError)
        else:
            assert isinstance(reader.exception(), ConnectionResetError)  # closed with a byte on its way
        assert now() == 5.0


def test_an_outage_that_ends() -> None:
    left, right = memory_pair(Link(latency=1))
    with left, right:
        left.outgoing.held = True
        left.sendall(b"a")
        fibers.sleep(5)
        left.sendall(b"b")
        right.settimeout(3)
        with pytest.raises(TimeoutError):
            right.recv(10)
        assert now() == 8.0
        right.settimeout(None)
        reader = fibers.spawn(at, right.recv, 10)
        fibers.sleep(2)
        left.outgoing.held = False
        assert reader.result() == (b"ab", 10.0)


def test_room_may_be_made_for_a_sender_that_waits() -> None:
    left, right = memory_pair(Link(capacity=10))
    with left, right:
        writer = fibers.spawn(left.sendall, b"x" * 30)
        wait_all_parked()
        left.outgoing.capacity = 30
        writer.result()
        assert right.recv(100) == b"x" * 30


def test_an_outage_holds_up_news_too() -> None:
    left, right = memory_pair()
    with left, right:
        left.outgoing.held = True
        left.close()
        right.settimeout(1)
        with pytest.raises(TimeoutError):
            right.recv(1)


def test_a_peer_that_vanished_is_noticed_by_the_timeout_only() -> None:
    left, right = memory_pair(Link(capacity=100))
    with left, right:
        left.outgoing.latency = right.outgoing.latency = float("inf")
        left.settimeout(30)
        left.sendall(b"x" * 100)  # it fits into the buffer
        with pytest.raises(TimeoutError):
            left.recv(1)
        with pytest.raises(TimeoutError):
            left.sendall(b"x")
        assert now() == 60.0
        right.close()  # nothing is heard of that either
        with pytest.raises(TimeoutError):
            left.recv(1)


def test_where_nothing_is_on_its_way_a_deadlock_can_be_told() -> None:
    """What waits for an in-memory socket waits for fibers of this process: see test_deadlock.py for the rest."""
    left, right = memory_pair()
    with left, right:
        reader = fibers.spawn(left.recv, 1)
        wait_all_parked()
        assert getattr(reader.waiting, "inside", False)
        reader.cancel()
        reader.join()


def test_a_client_with_retries_and_a_server_that_dies() -> None:
    """A program of some size: requests with timeouts and back-off, over a network whose server is gone for a while."""
    network = testing.memory_network(latency=0.05)
    log: list[tuple[str, float]] = []

    def serve(listener: Any) -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                while data := connection.recv(100):
                    connection.sendall(data.upper())

    def request(text: bytes) -> bytes:
        pause = 0.1
        while True:
            try:
                with network.create_connection(("server", 80), timeout=1) as connection:
                    connection.sendall(text)
                    return bytes(connection.recv(100))
            except OSError as error:
                log.append((type(error).__name__, round(now(), 6)))
                fibers.sleep(pause)
                pause *= 2

    client = fibers.spawn(request, b"hello")
    fibers.sleep(0.6)
    with network.create_server(("server", 80)) as listener:
        server = fibers.spawn(serve, listener)
        assert client.result() == b"HELLO"
        assert round(now(), 6) == 1.2
        server.cancel()
        server.join()
    assert log == [
        ("ConnectionRefusedError", 0.1),
        ("ConnectionRefusedError", 0.3),
        ("ConnectionRefusedError", 0.6),
    ]


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"latency": -1}, ValueError, "latency must be 0 or more"),
        ({"latency": "x"}, TypeError, "latency must be a number"),
        ({"bandwidth": 0}, ValueError, "bandwidth must be more than 0"),
        ({"capacity": 0}, ValueError, "capacity must be 1 byte or more"),
        ({"capacity": 1.5}, TypeError, "capacity must be a whole number"),
        ({"max_send": 0}, ValueError, "max_send must be 1 byte or more"),
        ({"max_receive": "1"}, TypeError, "max_receive must be a whole number"),
    ],
)
def test_bad_links(options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Link(**options)
    left, right = memory_pair()
    with left, right:
        for name, value in options.items():
            with pytest.raises(error, match=text):
                setattr(left.outgoing, name, value)
        left.sendall(b"as before")
        assert right.recv(100) == b"as before"


def test_bad_use() -> None:
    with pytest.raises(TypeError, match=r"takes a Link, not 0\.5"):
        memory_pair(0.5)  # type: ignore[arg-type]
    left, right = memory_pair(Link(latency=lambda: -1.0))
    with right:
        with pytest.raises(ValueError, match="latency must be 0 or more"):
            left.send(b"x")
        with pytest.raises(ValueError, match="latency must be 0 or more"):
            left.close()
        assert right.recv(1) == b"", "it is closed all the same"
        right.outgoing.latency = 0
