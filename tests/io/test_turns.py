"""Hazard 8, #16209: several fibers on one direction take turns, and no turn is lost however its holder ends.

Facts. One edge may stand for many bytes or many connections, so who finishes hands the turn on and the next one tries
at once. A fiber that was cancelled, killed or timed out, while it held the turn or while it queued for it, must not
keep it.
"""

import socket as std
import threading
from collections.abc import Callable

import pytest
from support.sockets import Pair

import fibers
from fibers.io import socket
from fibers.io.state import state_of


def fill(sock: socket.socket) -> int:
    """Write until the kernel takes no more; how many bytes."""
    total = 0
    try:
        while True:
            total += sock.send(bytes(65536), socket.MSG_DONTWAIT)
    except BlockingIOError:
        return total


def read_exactly(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        data += sock.recv(min(65536, size - len(data)))
        assert data
    return bytes(data)


def test_16209_two_readers_of_one_byte_and_one_write_of_two(pair: Pair) -> None:
    """#16209: two readers, one edge, one woken, the other slept for ever."""
    a, b = pair
    readers = [fibers.spawn(a.recv, 1) for _ in range(2)]
    fibers.yield_now()
    b.send(b"xy")
    assert [reader.result(5) for reader in readers] == [b"x", b"y"]


def test_16209_three_acceptors_and_a_burst_of_three() -> None:
    """#16209: three queued connections give one edge on the listener."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        acceptors = [fibers.spawn(listener.accept) for _ in range(3)]
        fibers.yield_now()
        clients = []
        for _ in range(3):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
            clients.append(client)
        accepted = [acceptor.result(5)[0] for acceptor in acceptors]
        assert {each.getpeername() for each in accepted} == {each.getsockname() for each in clients}
        for each in (*clients, *accepted):
            each.close()


def test_hazard_8_readers_are_served_in_order_of_arrival(pair: Pair) -> None:
    a, b = pair
    readers = [fibers.spawn(a.recv, 1) for _ in range(50)]
    fibers.yield_now()
    b.send(bytes(range(50)))
    assert [reader.result(5)[0] for reader in readers] == list(range(50))


def test_hazard_8_a_newcomer_does_not_overtake(pair: Pair) -> None:
    """Data is there and the latch is up, but others queue: the newcomer queues too."""
    a, b = pair
    readers = [fibers.spawn(a.recv, 1) for _ in range(3)]
    fibers.yield_now()
    b.send(b"0123")
    assert a.recv(1) == b"3"
    assert [reader.result(5) for reader in readers] == [b"0", b"1", b"2"]


@pytest.mark.parametrize("end", ["cancel", "kill", "timeout"])
@pytest.mark.parametrize("place", [0, 1, 2], ids=["holder", "in the middle", "last"])
def test_hazard_8_the_turn_passes_on_whoever_leaves(pair: Pair, end: str, place: int) -> None:
    a, b = pair
    readers = []
    for number in range(3):
        a.settimeout(0.02 if end == "timeout" and number == place else None)
        readers.append(fibers.spawn(a.recv, 1))
        fibers.yield_now()
    a.settimeout(None)
    leaver = readers.pop(place)
    if end == "timeout":
        with pytest.raises(TimeoutError):
            leaver.result(5)
    else:
        leaver.cancel() if end == "cancel" else leaver.kill()
        with pytest.raises(fibers.FiberCancelled):
            leaver.result(5)
    b.send(b"xy")
    assert [reader.result(5) for reader in readers] == [b"x", b"y"]


@pytest.mark.parametrize("end", ["cancel", "kill"])
def test_hazard_8_an_heir_that_is_interrupted_before_it_runs_gives_the_turn_away(pair: Pair, end: str) -> None:
    """The holder ends and makes the next its heir; before that one runs it is interrupted."""
    a, b = pair
    holder, heir, last = (fibers.spawn(a.recv, 1) for _ in range(3))
    fibers.yield_now()
    holder.add_done_callback(lambda _: heir.cancel() if end == "cancel" else heir.kill())
    b.send(b"x")
    assert holder.result(5) == b"x"
    with pytest.raises(fibers.FiberCancelled):
        heir.result(5)
    b.send(b"y")
    assert last.result(5) == b"y"
    assert state_of(a).reading.holder is None


def test_hazard_8_a_timeout_in_the_queue_raises_without_a_last_try(pair: Pair) -> None:
    """Only the holder touches the fd: data that lies there is for the holder."""
    a, b = pair
    holder = fibers.spawn(a.recv, 5)
    fibers.yield_now()
    a.settimeout(0.02)
    queued = fibers.spawn(a.recv, 5)
    with pytest.raises(TimeoutError):
        queued.result(5)
    assert not holder.done()
    b.send(b"hello")
    assert holder.result(5) == b"hello"


def test_hazard_8_deadlines_belong_to_waiters(pair: Pair) -> None:
    """A direction's timer is the minimum of its waiters' deadlines, wherever they stand in the queue."""
    a, _b = pair
    waits = [0.12, 0.02, 0.07, None]
    order: list[float | None] = []

    def read(seconds: float | None) -> None:
        try:
            a.recv(1)
        except TimeoutError:
            order.append(seconds)

    readers = []
    for seconds in waits:
        a.settimeout(seconds)
        readers.append(fibers.spawn(read, seconds))
        fibers.yield_now()
    for reader in readers[:3]:
        reader.result(5)
    assert order == [0.02, 0.07, 0.12]
    assert not readers[3].done()
    readers[3].cancel()
    readers[3].join(5)


@pytest.mark.parametrize("end", ["cancel", "kill", "timeout"])
def test_hazard_8_an_interrupted_sendall_tells_how_many_bytes_went_out(pair: Pair, end: str) -> None:
    a, b = pair
    data = bytes(range(256)) * (1 << 16)
    a.settimeout(0.05 if end == "timeout" else None)
    seen: list[int] = []

    def send() -> None:
        try:
            a.sendall(data)
        except BaseException as error:
            seen.append(error.bytes_sent)  # type: ignore[attr-defined]
            raise

    sender = fibers.spawn(send)
    fibers.yield_now()
    if end == "timeout":
        with pytest.raises(TimeoutError):
            sender.result(5)
    else:
        sender.cancel() if end == "cancel" else sender.kill()
        with pytest.raises(fibers.FiberCancelled):
            sender.result(5)
    (count,) = seen
    assert 0 < count < len(data)
    a.shutdown(socket.SHUT_WR)
    got = bytearray()
    while chunk := b.recv(1 << 20):
        got += chunk
    assert got == data[:count]


def test_hazard_8_two_sendalls_never_interleave(pair: Pair) -> None:
    a, b = pair
    size = 1 << 20
    senders = [fibers.spawn(a.sendall, bytes([letter]) * size) for letter in b"abc"]
    got = read_exactly(b, 3 * size)
    for sender in senders:
        sender.result(5)
    assert [got[each * size : (each + 1) * size] == got[each * size : each * size + 1] * size for each in range(3)] == [
        True,
        True,
        True,
    ]


def test_hazard_8_send_does_not_cut_into_a_sendall(pair: Pair) -> None:
    a, b = pair
    size = 4 << 20
    sender = fibers.spawn(a.sendall, b"a" * size)
    fibers.yield_now()
    other = fibers.spawn(a.send, b"B")
    got = read_exactly(b, size + 1)
    assert got == b"a" * size + b"B"
    sender.result(5)
    assert other.result(5) == 1


def test_hazard_8_a_killed_sendall_lets_the_next_one_go_on(pair: Pair) -> None:
    a, b = pair
    already = fill(a)
    first = fibers.spawn(a.sendall, b"1" * (1 << 20))
    second = fibers.spawn(a.sendall, b"2" * 1000)
    fibers.yield_now()
    first.kill()
    first.join(5)
    assert not second.done()
    got = read_exactly(b, already + 1000)
    assert got[already:] == b"2" * 1000
    second.result(5)


def test_hazard_8_reading_and_writing_have_turns_of_their_own(pair: Pair) -> None:
    a, b = pair
    already = fill(a)
    writer = fibers.spawn(a.sendall, b"w" * (1 << 20))
    reader = fibers.spawn(a.recv, 10)
    fibers.yield_now()
    b.send(b"hello")
    assert reader.result(5) == b"hello"
    assert not writer.done()
    read_exactly(b, already + (1 << 20))
    writer.result(5)


@pytest.mark.parametrize(
    "operation",
    [
        lambda sock: sock.recv(10),
        lambda sock: sock.recv_into(bytearray(10)),
        lambda sock: sock.recvfrom(10),
        lambda sock: sock.recvfrom_into(bytearray(10)),
        lambda sock: sock.recvmsg(10),
        lambda sock: sock.recvmsg_into([bytearray(10)]),
    ],
    ids=["recv", "recv_into", "recvfrom", "recvfrom_into", "recvmsg", "recvmsg_into"],
)
def test_hazard_8_a_failing_operation_gives_its_turn_back(
    pair: Pair, operation: Callable[[socket.socket], object]
) -> None:
    """Each receiving operation, ended by an interruption while it waits, leaves the direction free."""
    a, b = pair
    fiber = fibers.spawn(operation, a)
    fibers.yield_now()
    assert state_of(a).reading.holder is not None
    fiber.kill(LookupError)
    with pytest.raises(LookupError):
        fiber.result(5)
    assert state_of(a).reading.holder is None
    b.send(b"next")
    assert a.recv(10) == b"next"


def test_5_no_wake_up_is_lost_with_many_readers_writers_and_threads() -> None:
    """Invariant 5: forty readers of one byte each; a plain thread writes in bursts."""
    a, b = socket.socketpair()
    rounds = 25
    with a, b:

        def write() -> None:
            for _ in range(rounds):
                writer.sendall(b"x" * 40)
                done.wait(5)
                done.clear()

        writer = std.fromfd(b.fileno(), socket.AF_UNIX, socket.SOCK_STREAM)
        writer.setblocking(True)
        done = threading.Event()
        thread = threading.Thread(target=write)
        with writer:
            thread.start()
            for _ in range(rounds):
                readers = [fibers.spawn(a.recv, 1) for _ in range(40)]
                assert [reader.result(5) for reader in readers] == [b"x"] * 40
                done.set()
            thread.join(5)
