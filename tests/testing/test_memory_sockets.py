"""An in-memory socket is a socket: every test in here holds for a pair of real ones and for one in memory, as it stands."""

import errno
import gc
import socket as std
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.sockets import tcp_pair

import fibers
from fibers.errors import ClosedError
from fibers.io import socket
from fibers.io.stream import Stream
from fibers.testing import memory_pair, wait_all_parked

Pair = tuple[Any, Any]
KINDS: dict[str, Callable[[], Pair]] = {"memory": memory_pair, "unix": socket.socketpair, "tcp": tcp_pair}
#: TCP learns of a closed peer from its answer to the next packet, unix and memory at once.
AT_ONCE = ["memory", "unix"]


@pytest.fixture(params=list(KINDS))
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    left, right = KINDS[request.param]()
    with left, right:
        yield left, right


def fill(sock: Any) -> int:
    """Send until nothing fits; how much that was."""
    sent = 0
    sock.setblocking(False)
    while True:
        try:
            sent += sock.send(b"x" * 65_536)
        except BlockingIOError:
            # The kernel may make room behind our back: believe it when it has said so twice.
            wait_all_parked()
            try:
                sent += sock.send(b"x")
            except BlockingIOError:
                sock.settimeout(None)
                return sent


def drain(sock: Any, count: int) -> bytes:
    received = bytearray()
    while len(received) < count:
        data = sock.recv(min(65_536, count - len(received)))
        assert data, "the data ended early"
        received += data
    return bytes(received)


# -- bytes ----------------------------------------------------------------------------------------------------------


def test_bytes_arrive_in_order_both_ways(pair: Pair) -> None:
    left, right = pair
    assert left.send(b"ping") == 4
    assert right.recv(100) == b"ping"
    right.sendall(b"pong")
    right.sendall(b"pong")
    assert drain(left, 8) == b"pongpong"


def test_a_receive_waits(pair: Pair) -> None:
    left, right = pair
    reader = fibers.spawn(right.recv, 10)
    wait_all_parked()
    assert not reader.done()
    left.sendall(b"x")
    assert reader.result() == b"x"


def test_a_receive_takes_what_it_asked_for(pair: Pair) -> None:
    left, right = pair
    left.sendall(b"abcdef")
    assert right.recv(2) == b"ab"
    assert right.recv(0) == b""
    assert right.recv(2, std.MSG_PEEK) == b"cd"
    assert right.recv(4) == b"cdef"


@pytest.mark.parametrize("nbytes", [0, 3])
def test_recv_into(pair: Pair, nbytes: int) -> None:
    left, right = pair
    left.sendall(b"abcdef")
    buffer = bytearray(b"......")
    count = right.recv_into(memoryview(buffer)[1:6], nbytes)
    assert count == (nbytes or 5)
    assert buffer == b"." + b"abcdef"[:count] + b"." * (5 - count)


def test_waitall(pair: Pair) -> None:
    left, right = pair
    reader = fibers.spawn(right.recv, 6, std.MSG_WAITALL)
    for piece in (b"ab", b"cd", b"ef"):
        assert not reader.done()
        left.sendall(piece)
        wait_all_parked()
    assert reader.result() == b"abcdef"
    reader = fibers.spawn(right.recv, 6, std.MSG_WAITALL)
    left.sendall(b"end")
    left.shutdown(std.SHUT_WR)
    assert reader.result() == b"end"


def test_dontwait(pair: Pair) -> None:
    left, right = pair
    with pytest.raises(BlockingIOError):
        right.recv(1, std.MSG_DONTWAIT)
    left.send(b"x", std.MSG_DONTWAIT)
    wait_all_parked()
    assert right.recv(1) == b"x"


@pytest.mark.parametrize("data", [b"abc", bytearray(b"abc"), memoryview(b"abc"), memoryview(b"abc")[:], b""])
def test_anything_with_a_buffer_can_be_sent(pair: Pair, data: Any) -> None:
    left, right = pair
    assert left.send(data) == len(data)
    left.sendall(data)
    left.sendall(b"!")
    assert drain(right, 2 * len(data) + 1) == bytes(data) * 2 + b"!"


def test_sendmsg(pair: Pair) -> None:
    left, right = pair
    assert left.sendmsg([b"ab", b"", memoryview(b"cd")]) == 4
    assert drain(right, 4) == b"abcd"


def test_much_data_flows_through_a_bounded_buffer(pair: Pair) -> None:
    left, right = pair
    data = bytes(range(256)) * 20_000
    writer = fibers.spawn(left.sendall, data)
    wait_all_parked()
    assert not writer.done(), "5 MB do not fit into a buffer"
    assert drain(right, len(data)) == data
    writer.result()


def test_a_send_waits_for_room(pair: Pair) -> None:
    left, right = pair
    filled = fill(left)
    writer = fibers.spawn(left.send, b"more")
    wait_all_parked()
    assert not writer.done()
    drain(right, filled)
    assert writer.result() == 4
    assert drain(right, 4) == b"more"


def test_sendalls_of_two_fibers_do_not_interleave(pair: Pair) -> None:
    left, right = pair
    size = 1_000_000
    every = [fibers.spawn(left.sendall, letter * size) for letter in (b"a", b"b", b"c")]
    data = drain(right, 3 * size)
    for fiber in every:
        fiber.result()
    assert data == b"a" * size + b"b" * size + b"c" * size


def test_two_readers_take_turns(pair: Pair) -> None:
    left, right = pair
    got: list[tuple[str, bytes]] = []

    def reader(name: str) -> None:
        for _ in range(3):
            got.append((name, right.recv(1)))

    every = [fibers.spawn(reader, name) for name in ("first", "second")]
    wait_all_parked()
    left.sendall(b"abcdef")
    for fiber in every:
        fiber.join()
    assert sorted(data for _, data in got) == [b"a", b"b", b"c", b"d", b"e", b"f"]
    assert got[0] == ("first", b"a")


# -- timeouts and interruption -----------------------------------------------------------------------------------------


def test_timeouts(pair: Pair) -> None:
    left, right = pair
    assert left.gettimeout() is None
    assert left.getblocking()
    left.settimeout(0.001)
    assert left.gettimeout() == left.timeout == 0.001
    with pytest.raises(TimeoutError, match="timed out"):
        left.recv(1)
    right.sendall(b"x")
    assert left.recv(1) == b"x"
    left.settimeout(0)
    assert not left.getblocking()
    with pytest.raises(BlockingIOError) as refused:
        left.recv(1)
    assert refused.value.errno == errno.EAGAIN
    left.setblocking(True)
    assert left.gettimeout() is None


def test_a_send_times_out_and_says_how_much_went_out(pair: Pair) -> None:
    left, right = pair
    left.settimeout(0.01)
    data = b"y" * 10_000_000
    with pytest.raises(TimeoutError) as late:
        left.sendall(data)
    sent: int = late.value.bytes_sent  # type: ignore[attr-defined]
    assert 0 < sent < len(data)
    assert drain(right, sent) == data[:sent]


def test_the_timeout_of_who_queues_counts_too(pair: Pair) -> None:
    left, right = pair
    first = fibers.spawn(left.recv, 1)
    wait_all_parked()
    left.settimeout(0.001)
    with pytest.raises(TimeoutError):
        left.recv(1)
    right.sendall(b"x")
    assert first.result() == b"x"


def test_a_scopes_deadline_surfaces_as_the_timeout_of_the_call(pair: Pair) -> None:
    left, _ = pair
    with fibers.move_on_after(0.001) as scope:
        with pytest.raises(TimeoutError):
            left.recv(1)
        left.recv(1)  # the second time it is Cancelled
    assert scope.cancelled_caught


def test_a_cancelled_receive_takes_nothing(pair: Pair) -> None:
    left, right = pair
    reader = fibers.spawn(left.recv, 1)
    wait_all_parked()
    reader.cancel()
    reader.join()
    assert reader.cancelled()
    right.sendall(b"x")
    assert left.recv(1) == b"x"


def test_a_receive_that_need_not_wait_is_not_interrupted(pair: Pair) -> None:
    left, right = pair
    right.sendall(b"ab")
    wait_all_parked()

    def main() -> bytes:
        me = fibers.current()
        me.cancel()
        return bytes(left.recv(1) + left.recv(1))

    assert fibers.spawn(main).result() == b"ab"


def test_a_reader_that_was_cancelled_in_the_queue_leaves_the_others_their_turns(pair: Pair) -> None:
    left, right = pair
    every = [fibers.spawn(left.recv, 1) for _ in range(3)]
    wait_all_parked()
    every[1].cancel()
    every[1].join()
    right.sendall(b"ab")
    assert (every[0].result(), every[2].result()) == (b"a", b"b")


def test_a_cancelled_holder_hands_the_turn_on(pair: Pair) -> None:
    left, right = pair
    every = [fibers.spawn(left.recv, 1) for _ in range(3)]
    wait_all_parked()
    every[0].cancel()
    every[0].join()
    right.sendall(b"ab")
    assert (every[1].result(), every[2].result()) == (b"a", b"b")


# -- the end ---------------------------------------------------------------------------------------------------------


def test_the_end_of_the_data(pair: Pair) -> None:
    left, right = pair
    left.sendall(b"last")
    left.shutdown(std.SHUT_WR)
    assert drain(right, 4) == b"last"
    assert right.recv(1) == b""
    assert right.recv(1) == b""
    right.sendall(b"half open")
    assert drain(left, 9) == b"half open"
    with pytest.raises(BrokenPipeError):
        left.send(b"x")


def test_a_reader_is_woken_by_the_end(pair: Pair) -> None:
    left, right = pair
    reader = fibers.spawn(right.recv, 1)
    wait_all_parked()
    left.close()
    assert reader.result() == b""


def test_shutting_down_the_own_reading_half(pair: Pair) -> None:
    left, right = pair
    right.sendall(b"before")
    wait_all_parked()
    left.shutdown(std.SHUT_RD)
    assert drain(left, 6) == b"before"
    assert left.recv(1) == b""


def test_a_shutdown_of_both_halves(pair: Pair) -> None:
    left, right = pair
    left.shutdown(std.SHUT_RDWR)
    assert left.recv(1) == b""
    assert right.recv(1) == b""
    with pytest.raises(BrokenPipeError):
        left.sendall(b"x")


@pytest.mark.parametrize("pair", AT_ONCE, indirect=True)
def test_sending_to_an_end_that_does_not_receive(pair: Pair) -> None:
    left, right = pair
    right.shutdown(std.SHUT_RD)
    with pytest.raises(BrokenPipeError):
        left.send(b"x")
    right.sendall(b"still sends")
    assert drain(left, 11) == b"still sends"


@pytest.mark.parametrize("pair", AT_ONCE, indirect=True)
def test_sending_to_a_closed_end(pair: Pair) -> None:
    left, right = pair
    right.close()
    for _ in range(2):
        with pytest.raises(BrokenPipeError) as broken:
            left.sendall(b"x")
        assert broken.value.errno == errno.EPIPE


def test_sending_to_a_closed_end_fails_in_the_end(pair: Pair) -> None:
    left, right = pair
    right.close()

    def send_on() -> None:
        while True:
            left.sendall(b"x")
            fibers.sleep(0.001)

    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        send_on()


def test_a_sender_that_waits_for_room_is_told_that_the_other_end_has_gone(pair: Pair) -> None:
    left, right = pair
    writer = fibers.spawn(left.sendall, b"x" * 10_000_000)
    wait_all_parked()
    right.close()
    assert isinstance(writer.exception(), ConnectionError)
    assert writer.exception().bytes_sent > 0  # type: ignore[union-attr]


def test_an_end_that_is_closed_with_something_unread_resets_the_other(pair: Pair) -> None:
    left, right = pair
    left.sendall(b"unread")
    right.sendall(b"read")
    wait_all_parked()
    right.close()
    if left.recv(10, std.MSG_PEEK | std.MSG_DONTWAIT) == b"read":
        assert left.recv(10) == b"read"
    with pytest.raises(ConnectionResetError) as reset:
        left.recv(10)
    assert reset.value.errno == errno.ECONNRESET
    assert left.recv(10) == b""


def test_closed_means_closed(pair: Pair) -> None:
    left, _ = pair
    left.close()
    left.close()
    assert left.fileno() == -1
    calls: list[Callable[[], object]] = [
        lambda: left.recv(1),
        lambda: left.send(b"x"),
        lambda: left.sendall(b"x"),
        lambda: left.recv_into(bytearray(1)),
        lambda: left.shutdown(std.SHUT_WR),
        lambda: left.getsockname(),
        lambda: left.getpeername(),
        lambda: left.settimeout(1),
        lambda: left.setsockopt(std.SOL_SOCKET, std.SO_KEEPALIVE, 1),
    ]
    for call in calls:
        with pytest.raises(OSError, match=r"closed|Bad file descriptor") as closed:
            call()
        assert closed.value.errno == errno.EBADF
    assert "closed" in repr(left)


def test_close_wakes_who_waits_here(pair: Pair) -> None:
    left, _ = pair
    filled = fill(left)
    assert filled
    waiting = [fibers.spawn(left.recv, 1), fibers.spawn(left.recv, 1)]
    waiting += [fibers.spawn(left.send, b"x"), fibers.spawn(left.sendall, b"x")]
    wait_all_parked()
    left.close()
    for fiber in waiting:
        assert isinstance(fiber.exception(), ClosedError)


def test_close_in_the_middle_of_a_sendall_says_how_much_went_out(pair: Pair) -> None:
    left, right = pair
    writer = fibers.spawn(left.sendall, b"x" * 10_000_000)
    wait_all_parked()
    left.close()
    error = writer.exception()
    assert isinstance(error, ClosedError)
    assert len(drain(right, error.bytes_sent)) == error.bytes_sent  # type: ignore[attr-defined]


def test_a_dropped_socket_is_closed_with_a_warning() -> None:
    for make in KINDS.values():
        left, right = make()
        with right:
            reader = fibers.spawn(right.recv, 1)
            wait_all_parked()
            ends = [left]
            del left
            with pytest.warns(ResourceWarning, match="unclosed"):
                ends.clear()
            gc.collect()
            assert reader.result() == b""


# -- what else programs do with sockets ---------------------------------------------------------------------------------


def test_makefile(pair: Pair) -> None:
    left, right = pair
    with left.makefile("wb") as out, right.makefile("rb") as lines, right.makefile("r", encoding="utf-8") as text:
        out.write(b"one\ntwo\n")
        out.flush()
        assert lines.readline() == b"one\n"
        assert lines.readline() == b"two\n"
        out.write("drei ü\n".encode())
        out.flush()
        assert text.readline() == "drei ü\n"
    both = left.makefile("rwb", buffering=0)
    right.close()
    assert both.read(1) == b""
    both.close()


def test_streams_read_lines_from_it(pair: Pair) -> None:
    left, right = pair
    stream = Stream(right)
    left.sendall(b"one\ntwo\nthr")
    assert stream.read_until(b"\n") == b"one\n"
    assert stream.read_until(b"\n") == b"two\n"
    left.sendall(b"ee\n")
    assert stream.read_until(b"\n") == b"three\n"


def test_a_file_keeps_the_socket_open(pair: Pair) -> None:
    left, right = pair
    lines = left.makefile("rb")
    left.close()
    right.sendall(b"line\n")
    assert lines.readline() == b"line\n"
    assert right.send(b"x") == 1
    reader = fibers.spawn(right.recv, 1)
    lines.read(1)
    lines.close()
    assert reader.result() == b""


def test_names(pair: Pair) -> None:
    left, right = pair
    assert left.getsockname() == right.getpeername()
    assert left.getpeername() == right.getsockname()
    assert left.type == std.SOCK_STREAM


def test_options_may_be_set_and_asked_for(pair: Pair) -> None:
    left, _ = pair
    left.setsockopt(std.SOL_SOCKET, std.SO_KEEPALIVE, 1)
    assert left.getsockopt(std.SOL_SOCKET, std.SO_KEEPALIVE)
    assert left.getsockopt(std.SOL_SOCKET, std.SO_ERROR) == 0


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda sock: sock.recv(-1), ValueError),
        (lambda sock: sock.recv_into(bytearray(1), -1), ValueError),
        (lambda sock: sock.recv_into(bytearray(1), 5), ValueError),
        (lambda sock: sock.recv_into(b"fixed"), (TypeError, BufferError)),
        (lambda sock: sock.send("text"), TypeError),
        (lambda sock: sock.sendall("text"), TypeError),
        (lambda sock: sock.settimeout(-1), ValueError),
        (lambda sock: sock.settimeout("x"), TypeError),
        (lambda sock: sock.shutdown(99), OSError),
        (lambda sock: sock.makefile("z"), ValueError),
    ],
)
def test_bad_input(pair: Pair, call: Callable[[Any], object], error: Any) -> None:
    left, right = pair
    right.sendall(b"x")
    wait_all_parked()
    with pytest.raises(error):
        call(left)
    assert left.recv(1) == b"x"


def test_plain_threads_may_use_it(pair: Pair) -> None:
    """The other end is used by a thread that has nothing to do with fibers but the calls on its socket."""
    left, right = pair
    data = bytes(range(256)) * 4000
    received: list[bytes] = []

    def receive() -> None:
        received.append(drain(right, len(data)))
        right.sendall(b"done")

    thread = threading.Thread(target=receive)
    thread.start()
    left.sendall(data)
    assert drain(left, 4) == b"done"
    thread.join()
    assert received == [data]
