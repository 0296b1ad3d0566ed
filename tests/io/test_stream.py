"""Streams: what a read returns, what it leaves, and that nothing is lost when it ends early."""

import pickle
import socket as std_socket
import ssl
from collections.abc import Callable, Iterable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import tls
from support.scale import scaled
from support.sockets import tcp_pair

import fibers
from fibers import BusyError
from fibers.io import IncompleteReadError, LimitExceededError, Stream, socket


class Pieces:
    """A transport that delivers what it was given, piece by piece; an exception among the pieces is raised."""

    def __init__(self, pieces: Iterable[bytes | BaseException]) -> None:
        self.pieces = list(pieces)
        self.sent: list[bytes] = []
        self.closed = False

    def recv(self, size: int, /) -> bytes:
        if not self.pieces:
            return b""
        piece = self.pieces.pop(0)
        if isinstance(piece, BaseException):
            raise piece
        if len(piece) > size:
            self.pieces.insert(0, piece[size:])
        return piece[:size]

    def sendall(self, data: Any, /) -> None:
        self.sent.append(bytes(data))

    def close(self) -> None:
        self.closed = True


def over(*pieces: bytes | BaseException) -> Stream:
    return Stream(Pieces(pieces))


# -- what the reads return


def test_read_exactly_joins_and_keeps_the_rest() -> None:
    stream = over(b"ab", b"cde", b"f")
    assert stream.read_exactly(4) == b"abcd"
    assert stream.buffered == 1
    assert stream.read_exactly(0) == b""
    assert stream.read_exactly(2) == b"ef"


def test_read_until_includes_the_delimiter_and_finds_one_that_was_torn_apart() -> None:
    stream = over(b"head\r", b"\n\r", b"\nbody")
    assert stream.read_until(b"\r\n\r\n") == b"head\r\n\r\n"
    assert stream.read_all() == b"body"


def test_read_some_returns_what_is_there() -> None:
    stream = over(b"abc", b"de")
    assert stream.read_some(2) == b"ab"
    assert stream.read_some() == b"c"
    assert stream.read_some() == b"de"
    assert stream.read_some() == b""


def test_lines_strip_their_ends_and_a_last_one_may_have_none() -> None:
    assert list(over(b"one\ntw", b"o\r\n\n", b"last")) == [b"one", b"two", b"", b"last"]
    assert list(over()) == []


def test_an_iteration_may_be_left_and_the_rest_stays() -> None:
    stream = over(b"one\ntwo\nthree\n")
    for line in stream:
        assert line == b"one"
        break
    assert stream.read_all() == b"two\nthree\n"


def test_peek_takes_nothing() -> None:
    stream = over(b"a", b"bc")
    assert stream.peek(2) == b"ab"
    assert stream.peek(9) == b"abc"
    assert stream.read_all() == b"abc"


def test_the_end_is_not_remembered() -> None:
    transport = Pieces([b"a"])
    stream = Stream(transport)
    assert stream.read_all() == b"a"
    transport.pieces.append(b"b")  # a FIFO has got another writer
    assert stream.read_all() == b"b"


# -- ends and limits


def test_data_that_ends_too_early_is_in_the_error() -> None:
    stream = over(b"abc")
    with pytest.raises(IncompleteReadError, match="after 3 bytes, 5 were wanted") as caught:
        stream.read_exactly(5)
    assert caught.value.partial == b"abc"
    assert isinstance(caught.value, EOFError)
    with pytest.raises(IncompleteReadError, match="b'x' was wanted") as caught:
        over(b"ab", b"c").read_until(b"x")
    assert caught.value.partial == b"abc"


def test_a_limit_takes_nothing() -> None:
    stream = over(b"abcdef", b"gh\n")
    with pytest.raises(LimitExceededError, match=r"no b'\\n' within 4 bytes"):
        stream.read_until(b"\n", limit=4)
    with pytest.raises(LimitExceededError):
        stream.read_until(b"\n", limit=8)
    assert stream.read_until(b"\n", limit=9) == b"abcdefgh\n"


def test_a_limit_holds_for_a_delimiter_that_is_there_already() -> None:
    stream = over(b"abc\n")
    with pytest.raises(LimitExceededError):
        stream.read_until(b"\n", limit=3)
    assert stream.read_until(b"\n", limit=4) == b"abc\n"


def test_read_all_has_a_limit() -> None:
    stream = over(b"abc", b"def")
    with pytest.raises(LimitExceededError, match="within 5 bytes"):
        stream.read_all(limit=5)
    assert stream.read_all(limit=6) == b"abcdef"


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda stream: stream.read_exactly(-1), ValueError),
        (lambda stream: stream.read_exactly("3"), TypeError),
        (lambda stream: stream.read_some(0), ValueError),
        (lambda stream: stream.peek(True), TypeError),
        (lambda stream: stream.read_until(b""), ValueError),
        (lambda stream: stream.read_until("\n"), (TypeError, ValueError)),
        (lambda stream: stream.read_until(b"abc", limit=2), ValueError),
        (lambda stream: stream.read_all(limit=-1), ValueError),
        (lambda stream: stream.read_exactly(9, timeout=-1), ValueError),
        (lambda stream: (stream.peek(), stream.read_some(timeout=-1)), ValueError),
        (lambda stream: (stream.peek(), stream.read_exactly(1, timeout=float("nan"))), ValueError),
        (lambda stream: (stream.peek(), stream.read_until(b"b", timeout=cast(Any, "1"))), TypeError),
        (lambda stream: stream.lines(limit=0), ValueError),
        (lambda stream: Stream(cast(Any, object())), TypeError),
        (lambda stream: Stream(stream.transport, cast(Any, "abc")), TypeError),
        (lambda stream: Stream(stream.transport, cast(Any, 3)), TypeError),
    ],
)
def test_bad_input(call: Callable[[Stream], object], error: type[Exception]) -> None:
    stream = over(b"abc")
    with pytest.raises(error):
        call(stream)
    assert stream.read_all() == b"abc"


def test_a_socket_that_would_block_the_thread_is_refused() -> None:
    near, far = std_socket.socketpair()
    with near, far, pytest.raises(TypeError, match=r"would block the thread: make it with fibers.io.socket"):
        Stream(near)
    with (
        std_socket.socket() as unconnected,
        ssl.create_default_context().wrap_socket(
            unconnected, server_hostname="x", do_handshake_on_connect=False
        ) as secured,
        pytest.raises(TypeError, match="would block"),
    ):
        Stream(secured)


def test_unread_bytes_are_the_streams_own() -> None:
    given = bytearray(b"abc")
    stream = Stream(Pieces([b"def"]), cast(Any, given))
    assert stream.read_exactly(4) == b"abcd"
    assert given == b"abc"
    assert Stream(Pieces([b"\n"]), cast(Any, memoryview(b"line"))).read_until(b"\n") == b"line\n"


def test_errors_cross_to_other_processes() -> None:
    error = IncompleteReadError(b"abc", "5 were")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.partial) == (str(error), b"abc")


# -- nothing is lost

READS = st.one_of(
    st.tuples(st.just("exactly"), st.integers(0, 12)),
    st.tuples(st.just("some"), st.integers(1, 12)),
    st.tuples(st.just("until"), st.sampled_from([b"a", b"ab", b"aab", b"b"])),
    st.tuples(st.just("peek"), st.integers(1, 12)),
)


def perform(stream: Stream, verb: str, argument: Any) -> bytes:
    if verb == "exactly":
        return stream.read_exactly(argument)
    if verb == "some":
        return stream.read_some(argument)
    if verb == "peek":
        return stream.peek(argument)
    return stream.read_until(argument)


def expected(rest: bytes, verb: str, argument: Any) -> int | None:
    """How many bytes the read returns, as far as the data alone tells; None: the data ends too early."""
    if verb == "exactly":
        size: int = argument
        return size if size <= len(rest) else None
    if verb == "until":
        at: int = rest.find(argument)
        end: int = at + len(argument)
        return None if at < 0 else end
    most: int = argument
    return min(most, len(rest))


@given(
    pieces=st.lists(st.text("ab", min_size=1, max_size=9).map(str.encode), max_size=12),
    failures=st.sets(st.integers(0, 20)),
    reads=st.lists(READS, max_size=20),
)
def test_reads_return_the_data_in_order_whatever_the_pieces_and_whenever_they_fail(
    pieces: list[bytes], failures: set[int], reads: list[tuple[str, Any]]
) -> None:
    script: list[bytes | BaseException] = list(pieces)
    for at in sorted(failures, reverse=True):
        script.insert(at, ConnectionError("in between"))
    stream, rest = Stream(Pieces(script)), b"".join(pieces)
    for verb, argument in reads:
        count = expected(rest, verb, argument)
        ended = False
        try:
            while True:
                try:
                    got = perform(stream, verb, argument)
                    break
                except ConnectionError:
                    continue  # has taken nothing: again
        except IncompleteReadError as error:
            got, ended = error.partial, True
        if ended:
            assert count is None
            count = len(rest)
        elif verb == "some":
            assert len(got) <= argument
            assert bool(got) == bool(rest)
            count = len(got)
        assert count is not None
        assert got == rest[:count]
        if verb != "peek":
            rest = rest[count:]
    while True:
        try:
            assert stream.read_all() == rest
            break
        except ConnectionError:
            continue


def test_a_read_that_times_out_has_taken_nothing() -> None:
    near, far = tcp_pair()
    with Stream(near) as stream, far:
        far.sendall(b"abc")
        with pytest.raises(TimeoutError):
            stream.read_exactly(6, timeout=0.01)
        with pytest.raises(TimeoutError):
            stream.read_until(b"\n", timeout=0.01)
        far.sendall(b"def")
        assert stream.read_exactly(6, timeout=5) == b"abcdef"


def test_a_read_that_is_cancelled_has_taken_nothing() -> None:
    near, far = tcp_pair()
    with Stream(near) as stream, far:
        far.sendall(b"abc")
        reader = fibers.spawn(stream.read_exactly, 6)
        while stream.buffered < 3:
            fibers.yield_now()
        reader.cancel()
        reader.join()
        assert reader.cancelled()
        far.sendall(b"def")
        assert stream.read_exactly(6) == b"abcdef"


def test_an_iteration_goes_on_after_a_timeout() -> None:
    """A generator would be over: the caller would take it for the end of the data."""
    near, far = tcp_pair()
    with Stream(near) as stream, far:
        lines = stream.lines(timeout=0.01)
        far.sendall(b"one\ntw")
        assert next(lines) == b"one"
        with pytest.raises(TimeoutError):
            next(lines)
        far.sendall(b"o\nlast")
        assert next(lines) == b"two"
        with pytest.raises(TimeoutError):
            next(lines)
        far.close()
        assert list(lines) == [b"last"]


def test_an_iteration_goes_on_after_a_line_that_was_too_long() -> None:
    stream = over(b"a long line\nshort\n")
    lines = stream.lines(limit=8)
    with pytest.raises(LimitExceededError):
        next(lines)
    assert stream.read_until(b"\n", limit=100) == b"a long line\n"
    assert list(lines) == [b"short"]


def test_a_timeout_of_zero_returns_what_has_arrived() -> None:
    near, far = tcp_pair()
    with Stream(near) as stream, far:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                stream.read_some(timeout=0)
            far.sendall(b"ab\nrest")
            assert stream.read_until(b"\n", timeout=0) == b"ab\n"
            with pytest.raises(TimeoutError):
                stream.read_exactly(5, timeout=0)
            assert stream.read_exactly(4, timeout=0) == b"rest"


def test_a_loop_of_reads_with_a_timeout_of_zero_lets_others_run() -> None:
    near, far = tcp_pair()
    with Stream(near) as stream, far:
        writer = fibers.spawn(far.sendall, b"at last")
        tries = 0
        while True:
            try:
                assert stream.read_some(timeout=0) == b"at last"
                break
            except TimeoutError:
                tries += 1
                assert tries < 1000, "whoever writes has not run"
        writer.result()


def test_bytes_that_come_as_the_deadline_passes_are_returned_or_kept() -> None:
    """Many times, with the writer near the deadline: what was not returned is there for the next read."""
    near, far = tcp_pair()
    with Stream(near) as stream, far:
        received = bytearray()
        count = scaled(2000, least=100)

        def write() -> None:
            for number in range(count):
                far.sendall(b"%06d\n" % number)
                fibers.sleep(0.0001)

        writer = fibers.spawn(write)
        while len(received) < 7 * count:
            try:
                received += stream.read_until(b"\n", timeout=0.0001)
            except TimeoutError:
                continue
        writer.result()
        assert received == b"".join(b"%06d\n" % number for number in range(count))


def test_the_deadline_of_a_scope_holds_for_reads() -> None:
    near, far = tcp_pair()
    with Stream(near) as stream, far:
        with fibers.move_on_after(0.01) as scope:
            stream.read_exactly(1)
        assert scope.cancelled_caught
        far.sendall(b"x")
        assert stream.read_exactly(1) == b"x"


def test_the_timeout_of_the_socket_applies_too() -> None:
    near, far = tcp_pair()
    with Stream(near) as stream, far:
        near.settimeout(0.01)
        with pytest.raises(TimeoutError):
            stream.read_exactly(1)


# -- several fibers


def test_a_second_reader_is_refused_at_once() -> None:
    near, far = tcp_pair()
    with Stream(near) as stream, far:
        reader = fibers.spawn(stream.read_exactly, 2)
        fibers.yield_now()
        reads: list[Callable[[], bytes]] = [
            lambda: stream.read_exactly(1),
            stream.read_some,
            lambda: stream.read_until(b"\n"),
        ]
        for read in reads:
            with pytest.raises(BusyError, match="another fiber is reading"):
                read()
        with pytest.raises(BusyError):
            stream.detach()
        far.sendall(b"ok")
        assert reader.result() == b"ok"


def test_writers_do_not_interleave() -> None:
    near, far = tcp_pair()
    with Stream(near) as stream, Stream(far) as other:
        blocks = [bytes([number]) * 300_000 for number in range(4)]
        writers = [fibers.spawn(stream.write_all, block) for block in blocks]
        assert [other.read_exactly(300_000) for _ in blocks] == blocks
        for writer in writers:
            writer.result()


def test_a_reader_is_woken_when_the_stream_is_closed() -> None:
    near, far = tcp_pair()
    stream = Stream(near)
    with far:
        reader = fibers.spawn(stream.read_some)
        fibers.yield_now()
        stream.close()
        assert isinstance(reader.exception(), fibers.ClosedError)
        stream.close()


# -- writing, ending


def test_write_eof_closes_one_half() -> None:
    near, far = tcp_pair()
    with Stream(near) as stream, Stream(far) as other:
        stream.write_all(b"question")
        stream.write_eof()
        assert other.read_all() == b"question"
        other.write_all(b"answer")
        assert stream.read_exactly(6) == b"answer"


@tls.needs_openssl
@pytest.mark.parametrize("version", [tls.TLS12, tls.TLS13])
def test_over_tls_write_eof_closes_one_half_and_deadlines_lose_nothing(version: Any) -> None:
    near, far = tls.tls_pair(version)
    with Stream(near) as stream, Stream(far) as other:
        stream.write_all(b"quest")
        with pytest.raises(TimeoutError):
            other.read_until(b"\n", timeout=0.01)
        reader = fibers.spawn(other.read_until, b"\n")
        fibers.yield_now()
        reader.cancel()
        reader.join()
        stream.write_all(b"ion\nrest")
        stream.write_eof(timeout=5)
        assert other.read_until(b"\n") == b"question\n"
        assert other.read_all() == b"rest"
        other.write_all(b"answer")
        other.write_eof()
        assert stream.read_all() == b"answer"


@tls.needs_openssl
def test_over_tls_two_fibers_use_both_directions_at_once() -> None:
    near, far = tls.tls_pair()
    block = bytes(range(256)) * 4000
    with Stream(near) as stream, Stream(far) as other, fibers.timeout(60):
        writers = [fibers.spawn(each.write_all, block) for each in (stream, other)]
        assert stream.read_exactly(len(block)) == block
        assert other.read_exactly(len(block)) == block
        for writer in writers:
            writer.result()


def test_write_eof_needs_a_transport_that_can() -> None:
    with pytest.raises(TypeError, match="writing half"):
        over().write_eof()


def test_a_write_that_takes_too_long_times_out() -> None:
    near, far = socket.socketpair()
    with Stream(near) as stream, far, pytest.raises(TimeoutError):
        stream.write_all(bytes(10_000_000), timeout=0.02)


def test_detach_gives_the_transport_and_the_rest() -> None:
    transport = Pieces([b"GET\n\x81\x00"])
    stream = Stream(transport)
    assert stream.read_until(b"\n") == b"GET\n"
    assert stream.detach() == (transport, b"\x81\x00")
    for use in (stream.read_some, lambda: stream.write_all(b"x")):
        with pytest.raises(ValueError, match="detached"):
            use()
    stream.close()
    assert not transport.closed


# -- cost


def test_small_pieces_cost_no_more_than_their_number() -> None:
    """A line of a megabyte in pieces of 10 bytes: searching from the front for each, or copying, would take minutes."""
    line = b"x" * 1_000_000 + b"\n"
    stream = over(*(line[at : at + 10] for at in range(0, len(line), 10)))
    assert stream.read_until(b"\n", limit=2_000_000, timeout=20) == line


def test_whoever_waits_holds_no_memory_for_what_was_returned() -> None:
    """A few bytes of the next record stand behind a large one: only they are kept while the rest is waited for."""
    held = []

    class Watching(Pieces):
        def recv(self, size: int, /) -> bytes:
            held.append(len(stream._data))
            return super().recv(size)

    stream = Stream(Watching([bytes(900_000) + b"\nab", b""]))
    assert len(stream.read_until(b"\n", limit=1_000_000)) == 900_001
    with pytest.raises(IncompleteReadError):
        stream.read_exactly(3)
    assert held[-1] == 2
    stream = Stream(Watching([b"request\n", b""]))
    assert stream.read_until(b"\n") == b"request\n"
    assert stream.read_some() == b""
    assert held[-1] == 0


def test_small_reads_ask_the_transport_no_more_often_than_large_ones() -> None:
    calls = []

    class Counting(Pieces):
        def recv(self, size: int, /) -> bytes:
            calls.append(size)
            return super().recv(size)

    stream = Stream(Counting([b"abcdef"]))
    assert b"".join(stream.read_some(1) for _ in range(6)) == b"abcdef"
    assert len(calls) == 1


def test_receives_are_as_few_as_the_data_allows() -> None:
    calls = []

    class Counting(Pieces):
        def recv(self, size: int, /) -> bytes:
            calls.append(size)
            return super().recv(size)

    stream = Stream(Counting([b"a\nb\nc\nd\n" * 1000]))
    for _ in range(4000):
        stream.read_until(b"\n")
    assert len(calls) == 1
    stream = Stream(Counting([bytes(3_000_000)]))
    calls.clear()
    assert len(stream.read_exactly(3_000_000)) == 3_000_000
    assert len(calls) == 3
