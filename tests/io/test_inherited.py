"""Inherited files: O_NONBLOCK is never changed for whoever shares them; standard streams, `input` and `print`."""

import errno
import os
import resource
import select
import signal
import socket as std
import subprocess
import sys
import threading
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.process import environment, run_python

import fibers
from fibers import ClosedError
from fibers.io import Stream, inherited, open_fd, open_pipe
from fibers.io import print as fibers_print

Ends = tuple[int, int]


def _socketpair() -> Ends:
    left, right = std.socketpair()
    return left.detach(), right.detach()


def _slave_first() -> Ends:
    master, slave = os.openpty()
    _raw(slave)
    return slave, master


def _master_first() -> Ends:
    master, slave = os.openpty()
    _raw(slave)
    return master, slave


def _raw(fd: int) -> None:
    tty.setraw(fd)


def _pipe_write_first() -> Ends:
    reading, writing = os.pipe()
    return writing, reading


READERS: dict[str, Callable[[], Ends]] = {
    "pipe": os.pipe, "socket": _socketpair, "terminal": _slave_first, "master": _master_first,
}  # fmt: skip
WRITERS: dict[str, Callable[[], Ends]] = {
    "pipe": _pipe_write_first, "socket": _socketpair, "terminal": _slave_first, "master": _master_first,
}  # fmt: skip


@pytest.fixture(params=["again", "no /proc", "no /proc, no RWF_NOWAIT"])
def ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of the ways in which an inherited file can be used."""
    if request.param != "again":
        monkeypatch.setattr(inherited, "_again", lambda *_: -1)
    if "RWF" in request.param:
        monkeypatch.setattr(inherited, "_NOWAIT", 0)
    return str(request.param)


@pytest.mark.parametrize("kind", READERS)
def test_reading_leaves_the_file_blocking(kind: str, ways: str) -> None:
    mine, other = READERS[kind]()
    try:
        with open_fd(mine, "r") as stream:
            assert os.get_blocking(mine)
            reader = fibers.spawn(stream.read_exactly, 5)
            fibers.yield_now()
            assert not reader.done()
            assert os.get_blocking(mine)
            os.write(other, b"he")
            fibers.yield_now()
            os.write(other, b"llo")
            assert reader.result() == b"hello"
            with pytest.raises(TimeoutError):
                stream.read_some(timeout=0.001)
            assert os.get_blocking(mine)
            os.write(other, b"x")
            assert stream.read_some() == b"x"
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(mine)
    finally:
        os.close(other)


@pytest.mark.parametrize("kind", WRITERS)
def test_writing_leaves_the_file_blocking(kind: str, ways: str) -> None:
    mine, other = WRITERS[kind]()
    data = bytes(range(32, 96)) * 4000
    try:
        with open_fd(mine, "w") as stream:
            writer = fibers.spawn(stream.write_all, data)
            for _ in range(3):
                fibers.yield_now()
            assert not writer.done()
            assert os.get_blocking(mine)
            got = b""
            while len(got) < len(data):
                got += fibers.to_thread(os.read, other, 65536)
            assert got == data
            writer.result()
            assert os.get_blocking(mine)
    finally:
        os.close(other)


@pytest.mark.parametrize("kind", READERS)
def test_the_end_of_an_inherited_file(kind: str, ways: str) -> None:
    mine, other = READERS[kind]()
    with open_fd(mine, "r") as stream:
        reader = fibers.spawn(stream.read_some)
        fibers.yield_now()
        os.close(other)
        assert reader.result() == b""


def test_a_broken_inherited_pipe(ways: str) -> None:
    reading, writing = os.pipe()
    with open_fd(writing, "w") as stream:
        os.close(reading)
        with pytest.raises(BrokenPipeError):
            stream.write_all(b"x")


def test_a_pipe_that_nobody_reads_cannot_be_opened_again() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open_fd(writing, "w") as stream, pytest.raises(BrokenPipeError):
        stream.write_all(b"x")


def test_closefd_is_heeded() -> None:
    reading, writing = os.pipe()
    with open_fd(reading, "r", closefd=False), open_fd(writing, "w", closefd=False):
        pass
    os.write(writing, b"x")
    assert os.read(reading, 1) == b"x"
    os.close(reading)
    os.close(writing)


def test_the_master_of_a_terminal_is_not_made_anew() -> None:
    master, slave = os.openpty()
    with open_fd(master, "r+") as stream, open_fd(slave, "w") as other:
        other.write_all(b"x")
        assert stream.read_some(timeout=10) == b"x"


def test_a_socket_with_a_default_timeout_about(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, other = _socketpair()
    std.setdefaulttimeout(5)
    try:
        with open_fd(mine, "r+") as stream:
            assert os.get_blocking(mine)
            stream.write_all(b"x")
            assert os.read(other, 1) == b"x"
    finally:
        std.setdefaulttimeout(None)
        os.close(other)


def test_regular_files_and_devices(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with open_fd(os.open(path, os.O_CREAT | os.O_WRONLY), "w") as stream:
        stream.write_all(b"one\ntwo\n")
    with open_fd(os.open(path, os.O_RDONLY), "r") as stream:
        assert list(stream) == [b"one", b"two"]
    with open_fd(os.open("/dev/null", os.O_RDWR), "r+") as stream:
        stream.write_all(b"x")
        assert stream.read_some() == b""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_device() -> None:
    with open_fd(os.open("/dev/full", os.O_WRONLY), "w") as stream:
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            stream.write_all(b"x")


def test_bad_input() -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        open_fd(987_654, "r")
    with pytest.raises(ValueError, match="not 'rb'"):
        open_fd(0, "rb")
    with pytest.raises(TypeError, match="number of an open file"):
        open_fd("0", "r")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("left", [0, 1])
def test_no_more_files(kind: str, left: int, ways: str) -> None:
    mine, other = READERS[kind]()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(mine)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + left, hard))
    try:
        if left == 0 or kind == "socket":  # which takes two
            with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
                open_fd(mine, "r", closefd=False)
        else:
            open_fd(mine, "r", closefd=False).close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert os.get_blocking(mine)
    os.close(mine)
    os.close(other)


@pytest.mark.parametrize("kind", READERS)
def test_a_timeout_of_0_returns_what_has_arrived(kind: str, ways: str) -> None:
    mine, other = READERS[kind]()
    with open_fd(mine, "r") as stream:
        with pytest.raises(TimeoutError):
            stream.read_exactly(1, timeout=0)
        _arrive(mine, other, b"ab")
        assert stream.read_exactly(1, timeout=0) == b"a"
        assert stream.read_exactly(1, timeout=0) == b"b"
        with pytest.raises(TimeoutError):
            stream.read_exactly(1, timeout=0)
        _arrive(mine, other, b"c")
        assert stream.read_exactly(1, timeout=0) == b"c"
    os.close(other)


def _arrive(fd: int, other: int, data: bytes) -> None:
    """Write, and wait for the kernel to hand it over: for a terminal that is a thread of the kernel's."""
    os.write(other, data)
    look = select.poll()
    look.register(fd, select.POLLIN)
    assert look.poll(10_000)


def test_a_detached_file_is_the_callers() -> None:
    for ends in (os.pipe(), _socketpair()):
        transport: Any = open_fd(ends[0], "r").transport
        fd = transport.detach()
        os.write(ends[1], b"x")
        assert os.read(fd, 1) == b"x"
        os.close(fd)
        os.close(ends[1])


def test_two_readers_of_a_shared_file_are_served_in_order(ways: str) -> None:
    mine, other = os.pipe()
    with open_fd(mine, "r") as stream:
        transport: Any = stream.transport
        readers = [fibers.spawn(transport.recv, 1) for _ in range(3)]
        fibers.yield_now()
        for letter in (b"a", b"b", b"c"):
            os.write(other, letter)
        assert [reader.result() for reader in readers] == [b"a", b"b", b"c"]
        os.close(other)
        transport.settimeout(0.001)
        assert transport.gettimeout() == 0.001
        buffer = bytearray(4)
        assert transport.recv_into(buffer) == 0
    with pytest.raises(ClosedError):
        transport.recv(1)


def test_a_fiber_that_waits_on_a_closed_one(ways: str) -> None:
    mine, other = os.pipe()
    stream = open_fd(mine, "r", closefd=False)
    reader = fibers.spawn(stream.read_some)
    fibers.yield_now()
    stream.close()
    with pytest.raises(ClosedError):
        reader.result()
    os.close(mine)
    os.close(other)


# -- with other processes

_USE = (
    "import os, sys, fibers\n"
    "from fibers import io\n"
    "def tick():\n"
    "    while True: fibers.yield_now(); fibers.sleep(0.001)\n"
    "fibers.spawn(tick)\n"
)


@pytest.mark.parametrize("kind", ["pipe", "terminal", "master", "socket"])
@pytest.mark.parametrize("way", ["again", "shared"])
def test_a_process_that_is_killed_leaves_the_file_as_it_was(kind: str, way: str) -> None:
    mine, other = READERS[kind]()
    code = _USE
    if way == "shared":
        code += "io.inherited._again = lambda *_: -1\n"
    code += "reader = fibers.spawn(io.stdin().read_exactly, 100)\nio.stdout().write_all(b'!')\nreader.join()\n"
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=mine, stdout=subprocess.PIPE, env=environment(), start_new_session=True
    )
    assert child.stdout is not None
    try:
        assert child.stdout.read(1) == b"!"
        assert os.get_blocking(mine)
        os.write(other, b"abc")
        assert os.get_blocking(mine)
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    assert child.returncode == -signal.SIGKILL
    assert os.get_blocking(mine)
    os.close(mine)
    os.close(other)


def test_standard_streams_of_a_process() -> None:
    code = _USE + (
        "name = io.input('who? ')\n"
        "io.print('hello', name, sep=', ', end='!\\n')\n"
        "io.print('to stderr', file=io.stderr())\n"
        "try: io.input()\n"
        "except EOFError as error: io.print(error)\n"
        "assert io.stdin() is io.stdin()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=b"w\xc3\xb6rld\n", capture_output=True, env=environment({"PYTHONUTF8": "1"})
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode() == "who? hello, wörld!\nEOF when reading a line\n"
    assert done.stderr == b"to stderr\n"


def test_output_to_a_regular_file_and_closed_input(tmp_path: Path) -> None:
    code = _USE + (
        "os.close(0)\ntry: io.stdin()\nexcept OSError as error: io.print(error.errno)\nfor i in range(3): io.print(i)\n"
    )
    with open(tmp_path / "out", "wb") as out:
        done = subprocess.run([sys.executable, "-c", code], stdout=out, stderr=subprocess.PIPE, env=environment())
    assert done.returncode == 0, done.stderr.decode()
    assert (tmp_path / "out").read_text().split() == [str(errno.EBADF), "0", "1", "2"]


def test_a_slow_reader_of_output_stops_one_fiber_only() -> None:
    code = _USE + (
        "done = fibers.spawn(io.print, 'x' * 1_000_000)\n"
        "for _ in range(5): fibers.sleep(0.001)\n"
        "assert not done.done()\n"
        "io.stderr().write_all(b'running\\n')\n"
        "done.join()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    )
    assert child.stderr is not None
    assert child.stderr.readline() == b"running\n"
    out, err = child.communicate()
    assert (len(out), err, child.returncode) == (1_000_001, b"", 0)


def test_dup2_makes_a_new_standard_stream() -> None:
    result = run_python(
        "-c",
        "import os\nfrom fibers import io\n"
        "first = io.stdout()\nr, w = os.pipe()\nsaved = os.dup(1)\nos.dup2(w, 1)\n"
        "io.print('into the pipe')\nassert io.stdout() is not first\n"
        "os.dup2(saved, 1)\nio.print(os.read(r, 100))\n",
    )
    assert result.stdout == "b'into the pipe\\n'\n", result.stderr


def test_reading_a_terminal_in_the_background_stops_the_process_or_is_an_error() -> None:
    """The child is in a process group that is not the terminal's, and ignores SIGTTIN: EIO, as in any program."""
    code = (
        "import fcntl, os, signal, sys, termios\n"
        "os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
        "child = os.fork()\n"
        "if child:\n"
        "    os.waitpid(child, 0); os._exit(0)\n"
        "os.setpgid(0, 0); signal.signal(signal.SIGTTIN, signal.SIG_IGN)\n"
        "from fibers import io\n"
        "try: io.stdin().read_some(timeout=20)\n"
        "except OSError as error: os.write(1, str(error.errno).encode())\n"
    )
    master, slave = os.openpty()
    child = subprocess.Popen([sys.executable, "-c", code], stdin=slave, stdout=subprocess.PIPE, env=environment())
    os.write(master, b"typed\n")
    out, _ = child.communicate(timeout=30)
    os.close(master)
    os.close(slave)
    assert out == str(errno.EIO).encode()


# -- print


@pytest.fixture
def pair() -> Iterator[tuple[Stream, Stream]]:
    reading, writing = open_pipe()
    with reading, writing:
        yield reading, writing


def test_print_as_the_builtin(pair: tuple[Stream, Stream], capsys: pytest.CaptureFixture[str]) -> None:
    reading, writing = pair
    fibers_print("a", 1, None, file=writing)
    fibers_print("a", 1, sep="", end="", file=writing)
    fibers_print(file=writing)
    fibers_print("x", sep=None, end=None, file=writing, flush=True)
    writing.close()
    assert reading.read_all() == b"a 1 None\na1\nx\n"
    fibers_print("elsewhere", file=sys.stdout)
    assert capsys.readouterr().out == "elsewhere\n"
    for bad in ({"sep": 1}, {"end": b""}):
        with pytest.raises(TypeError, match="must be None or a string"):
            fibers_print("x", file=writing, **bad)


def test_a_plain_thread_uses_a_shared_file(ways: str) -> None:
    mine, other = os.pipe()
    got: list[bytes] = []
    with open_fd(mine, "r") as stream, open_fd(other, "w") as writing:
        thread = threading.Thread(target=lambda: got.append(stream.read_exactly(3)))
        thread.start()
        writing.write_all(b"abc")
        thread.join()
    assert got == [b"abc"]
    assert isinstance(stream.transport, inherited.Shared) == (ways != "again")
