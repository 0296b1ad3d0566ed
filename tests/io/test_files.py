"""makefile and sendfile."""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.sockets import Pair

import fibers
from fibers.io import socket


def read_all(sock: socket.socket) -> bytes:
    data = bytearray()
    while chunk := sock.recv(1 << 16):
        data += chunk
    return bytes(data)


def test_lines_over_makefile(pair: Pair) -> None:
    a, b = pair

    def serve() -> None:
        with b.makefile("r", encoding="utf-8", newline="\n") as lines, b.makefile("w", encoding="utf-8") as answers:
            for line in lines:
                answers.write(line.upper())
                answers.flush()

    server = fibers.spawn(serve)
    with a.makefile("rw", encoding="utf-8", newline="\n") as talk:
        for word in ("eins", "zwei", "dreißig"):
            talk.write(word + "\n")
            talk.flush()
            assert talk.readline() == word.upper() + "\n"
    a.shutdown(socket.SHUT_WR)
    server.result(5)


@pytest.mark.parametrize("buffering", [0, -1, 8192])
def test_binary_makefile_reads_and_writes(pair: Pair, buffering: int) -> None:
    a, b = pair
    data = os.urandom(300_000)
    with a.makefile("wb", buffering=buffering) as out, b.makefile("rb", buffering=buffering) as into:

        def write() -> None:
            view = memoryview(data)
            while view:
                view = view[out.write(view) :]
            out.flush()

        writer = fibers.spawn(write)
        got = bytearray()
        while len(got) < len(data):
            got += into.read(min(7001, len(data) - len(got))) or b""
        assert got == data
        writer.result(5)


def test_makefile_with_a_timeout_raises_it_and_then_refuses(pair: Pair) -> None:
    """As in the standard library: a timed-out file object cannot be trusted any more."""
    a, b = pair
    a.settimeout(0.02)
    with a.makefile("rb") as file:
        b.send(b"half a li")
        with pytest.raises(TimeoutError):
            file.readline()
        with pytest.raises(OSError, match="timed out object"):
            file.readline()


def test_makefile_of_a_non_blocking_socket_returns_none(pair: Pair) -> None:
    a, b = pair
    a.setblocking(False)
    with a.makefile("rb", buffering=0) as raw:
        assert raw.read(10) is None
        b.send(b"x")


def test_readinto_peek_and_read1(pair: Pair) -> None:
    a, b = pair
    with a.makefile("rb") as file:
        assert isinstance(file, io.BufferedReader)
        b.send(b"abcdef")
        assert file.peek(1)[:1] == b"a"
        assert file.read1(3) == b"abc"
        buffer = bytearray(3)
        assert file.readinto(buffer) == 3
        assert buffer == b"def"


@pytest.fixture
def document(tmp_path: Path) -> Iterator[io.BufferedReader]:
    path = tmp_path / "document"
    path.write_bytes(bytes(range(256)) * 20_000)  # 5 MB: more than any socket buffer
    with path.open("rb") as file:
        yield file


@pytest.mark.parametrize(
    ("offset", "count"), [(0, None), (1000, None), (0, 3_000_000), (4_999_999, 10_000_000), (5_120_000, None), (77, 1)]
)
def test_sendfile(pair: Pair, document: io.BufferedReader, offset: int, count: int | None) -> None:
    a, b = pair
    whole = document.read()
    document.seek(0)
    expected = whole[offset:] if count is None else whole[offset : offset + count]
    reader = fibers.spawn(read_all, b)
    assert a.sendfile(document, offset, count) == len(expected)
    assert document.tell() == (offset + len(expected) if expected else 0)
    a.shutdown(socket.SHUT_WR)
    assert reader.result(10) == expected


def test_sendfile_times_out_for_the_whole_and_leaves_the_file_where_it_got_to(
    pair: Pair, document: io.BufferedReader
) -> None:
    a, b = pair
    a.settimeout(0.05)
    with pytest.raises(TimeoutError):
        a.sendfile(document)
    sent = document.tell()
    assert 0 < sent < 5_120_000
    a.shutdown(socket.SHUT_WR)
    document.seek(0)
    assert read_all(b) == document.read(sent)


def test_sendfile_of_what_is_no_regular_file_falls_back_to_send(pair: Pair) -> None:
    a, b = pair
    assert a.sendfile(io.BytesIO(b"from memory"), 5) == 6
    a.shutdown(socket.SHUT_WR)
    assert read_all(b) == b"memory"


def test_sendfile_uses_the_system_call(
    pair: Pair, document: io.BufferedReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = pair
    calls = []
    real = os.sendfile

    def spy(*args: int) -> int:
        calls.append(args)
        return real(*args)

    monkeypatch.setattr(os, "sendfile", spy)
    reader = fibers.spawn(read_all, b)
    a.sendfile(document)
    a.close()
    assert len(reader.result(10)) == 5_120_000
    assert calls


def test_sendfile_and_sendall_keep_their_turns(pair: Pair, document: io.BufferedReader) -> None:
    a, b = pair
    whole = document.read()
    document.seek(0)
    file = fibers.spawn(a.sendfile, document)
    fibers.yield_now()
    tail = fibers.spawn(a.sendall, b"tail" * 1000)
    reader = fibers.spawn(read_all, b)
    file.result(10)
    tail.result(10)
    a.shutdown(socket.SHUT_WR)
    assert reader.result(10) == whole + b"tail" * 1000


@pytest.mark.parametrize("end", ["close", "kill"])
def test_sendfile_that_waits_is_ended(pair: Pair, document: io.BufferedReader, end: str) -> None:
    a, _b = pair
    sender = fibers.spawn(a.sendfile, document)
    fibers.yield_now()
    assert not sender.done()
    if end == "close":
        a.close()
        with pytest.raises(fibers.ClosedError):
            sender.result(5)
    else:
        sender.kill()
        with pytest.raises(fibers.FiberCancelled):
            sender.result(5)
