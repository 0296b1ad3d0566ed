"""Pipes, FIFOs and pseudo-terminals of our own: waiting, ending, closing, and what the kernel says of each."""

import errno
import os
import resource
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.process import run_python

import fibers
from fibers import ClosedError
from fibers.io import IncompleteReadError, Stream, open_fd, open_fifo, open_pipe
from fibers.io.pipe import Pipe


@pytest.fixture
def pipe() -> Iterator[tuple[Stream, Stream]]:
    reading, writing = open_pipe()
    with reading, writing:
        yield reading, writing


def test_a_reader_waits_and_the_others_run(pipe: tuple[Stream, Stream]) -> None:
    reading, writing = pipe
    reader = fibers.spawn(reading.read_until, b"\n")
    fibers.yield_now()
    assert not reader.done()
    writing.write_all(b"hello\n")
    assert reader.result() == b"hello\n"


def test_a_megabyte_goes_through_in_order(pipe: tuple[Stream, Stream]) -> None:
    reading, writing = pipe
    data = bytes(range(256)) * 4096

    def write() -> None:
        with writing:
            writing.write_all(data)

    writer = fibers.spawn(write)
    assert reading.read_all() == data
    writer.result()


def test_what_two_fibers_write_does_not_mix(pipe: tuple[Stream, Stream]) -> None:
    reading, writing = pipe
    size = 300_000
    writers = [fibers.spawn(writing.write_all, letter * size) for letter in (b"a", b"b")]
    first, second = reading.read_exactly(size), reading.read_exactly(size)
    for writer in writers:
        writer.result()
    assert (first, second) == (b"a" * size, b"b" * size)


def test_the_end_of_the_data(pipe: tuple[Stream, Stream]) -> None:
    reading, writing = pipe
    reader = fibers.spawn(reading.read_exactly, 10)
    fibers.yield_now()
    writing.write_all(b"abc")
    fibers.yield_now()
    writing.close()
    with pytest.raises(IncompleteReadError) as end:
        reader.result()
    assert end.value.partial == b"abc"
    assert reading.read_some() == b""


def test_a_write_without_reader_is_a_broken_pipe(pipe: tuple[Stream, Stream]) -> None:
    reading, writing = pipe
    writer = fibers.spawn(writing.write_all, b"x" * 1_000_000)
    fibers.yield_now()
    assert not writer.done()
    reading.close()
    with pytest.raises(BrokenPipeError) as broken:
        writer.result()
    assert broken.value.errno == errno.EPIPE
    assert 0 < broken.value.bytes_sent < 1_000_000  # type: ignore[attr-defined]


def test_closing_wakes_who_waits(pipe: tuple[Stream, Stream]) -> None:
    reading, writing = pipe
    reader = fibers.spawn(reading.read_some)
    writer = fibers.spawn(writing.write_all, b"x" * 1_000_000)
    other = fibers.spawn(writing.write_all, b"y")
    fibers.yield_now()
    fibers.yield_now()
    writing.close()
    for fiber in (writer, other):
        with pytest.raises(ClosedError) as closed:
            fiber.result()
        assert closed.value.errno == errno.EBADF
    reader.result()
    reader = fibers.spawn(reading.read_all)
    reader.result()
    with pytest.raises(ClosedError):
        writing.write_all(b"")
    writing.close()


def test_closing_from_another_thread_wakes_the_reader(pipe: tuple[Stream, Stream]) -> None:
    reading, _ = pipe
    reader = fibers.spawn(reading.read_some)
    fibers.yield_now()
    thread = threading.Thread(target=reading.close)
    thread.start()
    with pytest.raises(ClosedError):
        reader.result()
    thread.join()


def test_a_timeout_takes_nothing(pipe: tuple[Stream, Stream]) -> None:
    reading, writing = pipe
    writing.write_all(b"ab")
    with pytest.raises(TimeoutError):
        reading.read_exactly(3, timeout=0.001)
    writing.write_all(b"c")
    assert reading.read_exactly(3) == b"abc"
    transport = reading.transport
    assert isinstance(transport, Pipe)
    transport.settimeout(0.001)
    assert transport.gettimeout() == 0.001
    with pytest.raises(TimeoutError):
        reading.read_some()
    transport.settimeout(0)
    with pytest.raises(BlockingIOError):
        reading.read_some()


def test_a_cancelled_reader_leaves_the_pipe_usable(pipe: tuple[Stream, Stream]) -> None:
    reading, writing = pipe
    reader = fibers.spawn(reading.read_some)
    fibers.yield_now()
    reader.cancel()
    with pytest.raises(fibers.FiberCancelled):
        reader.result()
    writing.write_all(b"x")
    assert reading.read_some() == b"x"


def test_a_plain_thread_reads_what_a_fiber_writes(pipe: tuple[Stream, Stream]) -> None:
    reading, writing = pipe
    got: list[bytes] = []
    thread = threading.Thread(target=lambda: got.append(reading.read_all()))
    thread.start()
    writing.write_all(b"z" * 200_000)
    writing.close()
    thread.join()
    assert got == [b"z" * 200_000]


def test_the_transport_has_the_verbs_of_a_socket() -> None:
    reading, writing = (end.transport for end in open_pipe())
    assert isinstance(reading, Pipe)
    assert isinstance(writing, Pipe)
    assert writing.send(b"abc") == 3
    buffer = bytearray(8)
    assert reading.recv_into(buffer) == 3
    assert buffer[:3] == b"abc"
    fd = reading.detach()
    assert reading.fileno() == -1
    assert not os.get_blocking(fd)
    os.close(fd)
    writing.close()
    assert repr(writing) == "<closed fibers.io.pipe.Pipe>"


def test_select_takes_a_pipe(pipe: tuple[Stream, Stream]) -> None:
    reading, writing = pipe
    case = fibers.readable(reading.transport)
    chooser = fibers.spawn(fibers.select, case)
    fibers.yield_now()
    assert not chooser.done()
    writing.write_all(b"x")
    assert chooser.result()[0] is case


def test_a_dropped_pipe_is_closed_with_a_warning() -> None:
    reading, writing = open_pipe()
    reader = fibers.spawn(reading.read_some)
    with pytest.warns(ResourceWarning, match="unclosed"):
        del writing
    assert reader.result() == b""
    reading.close()


def test_no_more_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = os.open("/dev/null", os.O_RDONLY)
    os.close(taken)
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken + 1, hard))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
            open_pipe()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_forked_child_writes_into_the_pipe(pipe: tuple[Stream, Stream]) -> None:
    reading, writing = pipe
    reader = fibers.spawn(reading.read_some)
    fibers.yield_now()
    child = os.fork()
    if not child:
        writing.write_all(b"from the child")
        os._exit(0)
    assert reader.result() == b"from the child"
    assert os.waitpid(child, 0)[1] == 0


# -- FIFOs


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def test_a_fifo_is_opened_by_the_reader_first(fifo: Path) -> None:
    with open_fifo(fifo) as reading:
        reader = fibers.spawn(reading.read_until, b"\n")
        fibers.sleep(0.001)
        assert not reader.done()
        with open_fifo(fifo, "w") as writing:
            writing.write_all(b"one\n")
            assert reader.result() == b"one\n"
        assert reading.read_some() == b""


def test_another_writer_comes_to_a_fifo(fifo: Path) -> None:
    with open_fifo(fifo) as reading:
        for word in (b"one", b"two", b"three"):
            with open_fifo(fifo, "w") as writing:
                writing.write_all(word)
                assert reading.read_exactly(len(word)) == word
                reader = fibers.spawn(reading.read_some)
                fibers.sleep(0.001)
                assert not reader.done()
            assert reader.result() == b""


def test_a_fifo_opened_both_ways_has_no_end(fifo: Path) -> None:
    with open_fifo(fifo, "r+") as reading:
        with open_fifo(fifo, "w") as writing:
            writing.write_all(b"x")
        assert reading.read_some() == b"x"
        with pytest.raises(TimeoutError):
            reading.read_some(timeout=0.001)


def test_the_writer_of_a_fifo_waits_for_a_reader(fifo: Path) -> None:
    with pytest.raises(TimeoutError, match="nobody has opened"):
        open_fifo(fifo, "w", timeout=0.002)
    opener = fibers.spawn(open_fifo, fifo, "w")
    fibers.sleep(0.001)
    assert not opener.done()
    with open_fifo(fifo) as reading, opener.result() as writing:
        writing.write_all(b"x")
        assert reading.read_some() == b"x"


def test_what_is_no_fifo(tmp_path: Path, fifo: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is no FIFO"):
        open_fifo(tmp_path / "file")
    with pytest.raises(FileNotFoundError):
        open_fifo(tmp_path / "none")
    with pytest.raises(ValueError, match="not 'x'"):
        open_fifo(fifo, "x")


# -- pseudo-terminals


def test_a_terminal_of_our_own() -> None:
    master, slave = os.openpty()
    with open_fd(master, "r+", shared=False) as ours, open_fd(slave, "r+", shared=False) as theirs:
        reader = fibers.spawn(theirs.read_until, b"\n")
        fibers.yield_now()
        ours.write_all(b"typed\n")
        assert reader.result() == b"typed\n"
        assert ours.read_until(b"\n") == b"typed\r\n"  # the echo
        ours.write_all(b"\x04")
        assert theirs.read_some(timeout=10) == b""  # Ctrl-D
        reader = fibers.spawn(ours.read_some)
        fibers.yield_now()
        theirs.close()
        assert reader.result() == b""


def test_a_terminal_that_hangs_up() -> None:
    master, slave = os.openpty()
    with open_fd(slave, "r+", shared=False) as theirs:
        with open_fd(master, "r+", shared=False):
            reader = fibers.spawn(theirs.read_some)
            fibers.yield_now()
        assert reader.result() == b""
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            theirs.write_all(b"x")


def test_a_terminal_is_opened_again_by_its_name() -> None:
    master, slave = os.openpty()
    with open_fd(master, "r+", shared=False) as ours:
        name = os.ttyname(slave)
        os.close(slave)
        assert ours.read_some() == b""
        slave = os.open(name, os.O_RDWR | os.O_NOCTTY)
        with open_fd(slave, "r+", shared=False) as theirs:
            theirs.write_all(b"again\n")
            assert ours.read_until(b"\n") == b"again\r\n"


def test_a_killed_reader_of_our_pipe_is_a_broken_pipe() -> None:
    result = run_python(
        "-c",
        "import os, signal, fibers\n"
        "from fibers.io import open_pipe\n"
        "r, w = open_pipe()\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    w.close(); r.read_some(); os.kill(os.getpid(), signal.SIGKILL)\n"
        "r.close()\n"
        "try:\n"
        "    w.write_all(b'x' * 10_000_000)\n"
        "except BrokenPipeError: print('broken')\n"
        "print(os.waitpid(child, 0)[1])\n",
    )
    assert result.stdout.split() == ["broken", str(int(signal.SIGKILL))], result.stderr
