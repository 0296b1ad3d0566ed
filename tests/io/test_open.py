"""`fibers.io.open`: what the standard `open` does, in fibers; turns; what an interruption means."""

import errno
import os
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from support.process import run_python

import fibers
from fibers import io as fio
from fibers.io import file as file_module
from fibers.io import hop, rawfile
from fibers.threads import workers

standard_open: Final[Callable[..., Any]] = open


class Gate:
    """Holds a worker up in a system call until it is opened; knows when one has come."""

    def __init__(self) -> None:
        self.arrived = fibers.Event()
        self.open = threading.Event()
        self.calls: list[str] = []

    def wrap(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def gated(*args: Any) -> Any:
            self.calls.append(name)
            self.arrived.set()
            assert self.open.wait(30)
            return call(*args)

        return gated


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """Every call in a worker waits for the gate."""
    gate = Gate()
    true_hop = hop.hop

    def gated(fn: Callable[..., Any], *args: Any) -> Any:
        return true_hop(gate.wrap(fn.__name__, fn), *args)

    monkeypatch.setattr(rawfile, "hop", gated)
    yield gate
    gate.open.set()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"".join(b"line %d\n" % number for number in range(100_000)))
    return path


# -- as the standard library's


@pytest.mark.parametrize("mode", ["r", "w", "a", "r+", "w+", "a+", "rb", "wb", "ab", "rb+", "r+b", "wb+", "ab+", "rt"])
@pytest.mark.parametrize("buffering", [-1, 0, 1, 77])
@pytest.mark.filterwarnings("ignore:line buffering")
def test_the_same_objects(mode: str, buffering: int, path: Path) -> None:
    try:
        standard = standard_open(path, mode, buffering)
    except ValueError as error:
        with pytest.raises(ValueError, match=str(error)):
            fio.open(path, mode, buffering)
        return
    with standard, fio.open(path, mode, buffering) as ours:
        assert isinstance(ours, type(standard))
        for name in ("mode", "name", "closed", "encoding", "errors", "newlines", "line_buffering", "write_through"):
            assert getattr(ours, name, None) == getattr(standard, name, None)
        for name in ("readable", "writable", "seekable", "isatty"):
            assert getattr(ours, name)() == getattr(standard, name)()
        assert not ours.closed
    assert ours.closed
    for use in (ours.fileno, ours.flush, ours.__enter__):
        with pytest.raises(ValueError, match="closed file"):
            use()


BAD: list[tuple[Any, ...]] = [
    ("rw",), ("rr",), ("",), ("b",), ("q",), ("rbt",), ("rb", -1, "utf-8"), ("rb", -1, None, "strict"),
    ("rb", -1, None, None, "\n"), ("r", 0), ("r", -1, "no such encoding"), ("r", -1, None, None, "x"), (5,), ("r", "x"),
]  # fmt: skip


@pytest.mark.parametrize("arguments", BAD)
def test_the_same_errors_for_bad_arguments(arguments: tuple[Any, ...], path: Path) -> None:
    with pytest.raises((ValueError, TypeError, LookupError)) as standard:
        standard_open(path, *arguments)
    with pytest.raises(type(standard.value)):
        fio.open(path, *arguments)
    with pytest.raises(TypeError):
        fio.open(1.5)


def test_the_same_errors_of_the_system(tmp_path: Path) -> None:
    cases: list[tuple[Any, str]] = [
        (tmp_path / "none", "r"), (tmp_path, "r"), (tmp_path, "w"), (tmp_path / "none" / "x", "w"), (987_654, "r"),
        (b"\0", "r"), ("x" * 5000, "r"),
    ]  # fmt: skip
    for file, mode in cases:
        with pytest.raises((OSError, ValueError)) as standard:
            standard_open(file, mode)
        with pytest.raises(type(standard.value)) as ours:
            fio.open(file, mode)
        assert ours.value.args == standard.value.args
        assert getattr(ours.value, "filename", None) == getattr(standard.value, "filename", None)
    (tmp_path / "there").touch()
    with pytest.raises(FileExistsError):
        fio.open(tmp_path / "there", "x")
    if os.geteuid():
        (tmp_path / "there").chmod(0)
        with pytest.raises(PermissionError):
            fio.open(tmp_path / "there")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk() -> None:
    file = fio.open("/dev/full", "wb")
    file.write(b"x")
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        file.flush()
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        file.close()
    assert file.closed


def test_an_opener_and_an_fd_that_stays_open(path: Path) -> None:
    threads: list[int] = []

    def opener(name: str, flags: int) -> int:
        threads.append(threading.get_ident())
        return os.open(name, flags)

    with fio.open(path, opener=opener) as file:
        assert file.readline() == "line 0\n"
    assert threads != [threading.get_ident()]
    fd = os.open(path, os.O_RDONLY)
    with fio.open(fd, closefd=False) as file:
        assert file.readline() == "line 0\n"
    os.fstat(fd)
    with fio.open(fd) as file:
        pass
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


def test_line_buffering_of_bytes_is_warned_of(path: Path) -> None:
    with pytest.warns(RuntimeWarning, match="line buffering") as caught:
        fio.open(path, "rb", 1).close()
    assert caught[0].filename == __file__


def test_text_with_encodings_and_newlines(tmp_path: Path) -> None:
    path = tmp_path / "text"
    for encoding in ("utf-8", "utf-16", "latin-1", "utf-8-sig"):
        for newline in (None, "", "\n", "\r", "\r\n"):
            with fio.open(path, "w", encoding=encoding, newline=newline) as file:
                file.writelines(["grün\n", "blau\r\n", "rot\r", "ende"])
            with standard_open(path, encoding=encoding, newline=newline) as standard:
                expected = standard.readlines()
            with fio.open(path, encoding=encoding, newline=newline) as file:
                assert list(file) == expected
                assert file.newlines == standard.newlines


def test_layers_can_be_taken_apart(path: Path) -> None:
    file = fio.open(path)
    assert isinstance(file.buffer, file_module.BufferedReader)
    assert isinstance(file.buffer.raw, rawfile.FileIO)
    buffer = file.detach()
    assert buffer.readline() == b"line 0\n"
    raw = buffer.detach()
    raw.seek(0)
    assert raw.read(6) == b"line 0"
    assert raw.readall().startswith(b"\nline 1\n")
    raw.close()


def test_tell_seek_and_truncate_of_text(tmp_path: Path) -> None:
    with fio.open(tmp_path / "text", "w+", encoding="utf-8") as file:
        file.write("äöü\nxyz\n")
        file.seek(0)
        assert file.readline() == "äöü\n"
        where = file.tell()
        assert file.read() == "xyz\n"
        file.seek(where)
        file.truncate()
        assert os.path.getsize(tmp_path / "text") == 7
        file.reconfigure(line_buffering=True)
        file.write("x\n")
        assert os.path.getsize(tmp_path / "text") == 9


# -- what it costs, and whom it stops


def test_small_reads_and_writes_cost_no_hop(path: Path, gate: Gate) -> None:
    gate.open.set()
    size = path.stat().st_size
    with fio.open(path, "rb") as file:
        while file.read(16):
            pass
    assert len(gate.calls) <= size // file_module.BUFFER_SIZE + 3
    gate.calls.clear()
    with fio.open(path) as file:
        assert sum(1 for _ in file) == 100_000
    assert len(gate.calls) <= size // file_module.BUFFER_SIZE + 3
    gate.calls.clear()
    with fio.open(path, "wb") as file:
        for _ in range(size // 16):
            file.write(b"x" * 16)
    assert len(gate.calls) <= size // file_module.BUFFER_SIZE + 3


def test_the_others_run_meanwhile(path: Path, gate: Gate) -> None:
    file = fio.open(path, "rb")
    reader = fibers.spawn(file.read, 6)
    gate.arrived.wait()
    for _ in range(3):
        fibers.yield_now()
    assert not reader.done()
    gate.open.set()
    assert reader.result() == b"line 0"
    file.close()


def test_fibers_and_threads_take_turns(path: Path, gate: Gate) -> None:
    file = fio.open(path, "rb")
    readers = [fibers.spawn(file.readline) for _ in range(3)]
    gate.arrived.wait()
    lines: list[bytes] = []
    thread = threading.Thread(target=lambda: lines.append(file.readline()))
    fibers.yield_now()
    thread.start()
    gate.open.set()
    assert [reader.result() for reader in readers] == [b"line 0\n", b"line 1\n", b"line 2\n"]
    thread.join()
    assert lines == [b"line 3\n"]
    file.close()


def test_many_fibers_write_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with fio.open(path, "w", buffering=512) as file:

        def write(letter: str) -> None:
            for _ in range(20):
                file.write(letter * 99 + "\n")

        fibers.gather(*[fibers.spawn(write, str(number)) for number in range(8)])
    lines = path.read_text().splitlines()
    assert len(lines) == 160
    assert all(line == line[0] * 99 for line in lines)


# -- interruptions


def test_a_cancelled_read_is_done_and_the_next_one_raises(path: Path, gate: Gate) -> None:
    file = fio.open(path, "rb")
    got: list[bytes] = []

    def read() -> None:
        got.append(file.read(6))
        got.append(file.read(1))

    reader = fibers.spawn(read)
    gate.arrived.wait()
    reader.cancel()
    fibers.yield_now()
    assert not reader.done()
    gate.open.set()
    with pytest.raises(fibers.FiberCancelled):
        reader.result()
    assert got == [b"line 0"]
    assert file.tell() == 6
    assert file.read(8) == b"\nline 1\n"
    file.close()


def test_a_kill_comes_after_the_operation(path: Path, gate: Gate) -> None:
    file = fio.open(path, "rb", buffering=0)
    got: list[bytes] = []

    class Struck(Exception):
        pass

    def read() -> None:
        got.append(file.read(6))
        fibers.yield_now()
        fibers.sleep(60)

    reader = fibers.spawn(read)
    gate.arrived.wait()
    reader.kill(Struck())
    fibers.yield_now()
    assert not reader.done()
    gate.open.set()
    with pytest.raises(Struck):
        reader.result()
    assert got == [b"line 0"]
    assert file.tell() == 6
    file.close()


def test_a_deadline_that_passes_meanwhile(path: Path, gate: Gate) -> None:
    file = fio.open(path, "rb")
    got: list[bytes] = []

    scope = fibers.timeout(3600)

    def read() -> None:
        with scope:
            got.append(file.read(4))
            got.append(file.read(4))

    def let_go() -> None:
        gate.arrived.wait()  # the first read is under way
        scope.deadline = fibers.current_time()
        fibers.sleep(0.001)
        gate.open.set()

    fibers.spawn(let_go)
    with pytest.raises(TimeoutError):
        read()
    assert got == [b"line"]
    assert file.tell() == 4
    file.close()


def test_ctrl_c_comes_after_the_operation(path: Path) -> None:
    result = run_python(
        "-c",
        "import os, signal, sys, threading, fibers\n"
        "from fibers import io\n"
        "from fibers.io import rawfile\n"
        "true_hop = rawfile.hop\n"
        "def strike(fn, *args):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    asleep.wait(0.05)\n"
        "    return fn(*args)\n"
        "asleep = threading.Event()\n"
        "rawfile.hop = lambda fn, *args: true_hop(strike, fn, *args)\n"
        "file = io.open(sys.argv[1], 'rb')\n"
        "print(file.read(6))\n"
        "try:\n"
        "    fibers.sleep(60)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted at', file.tell())\n",
        path,
    )
    assert result.stdout == "b'line 0'\ninterrupted at 6\n", result.stderr


def test_whoever_waits_for_its_turn_is_cancelled_at_once(path: Path, gate: Gate) -> None:
    file = fio.open(path, "rb")
    first = fibers.spawn(file.read, 4)
    gate.arrived.wait()
    second = fibers.spawn(file.read, 4)
    fibers.yield_now()
    second.cancel()
    with pytest.raises(fibers.FiberCancelled):
        second.result()
    gate.open.set()
    assert first.result() == b"line"
    assert file.read(2) == b" 0"
    file.close()


def test_closing_comes_to_its_end_in_a_cancelled_fiber(tmp_path: Path) -> None:
    path = tmp_path / "file"

    def write() -> None:
        with fio.open(path, "w") as file:
            file.write("whole")
            fibers.sleep(60)

    writer = fibers.spawn(write)
    while not path.exists() or not writer.waiting:
        fibers.sleep(0.001)
    for _ in range(3):
        fibers.sleep(0.001)
    writer.cancel()
    with pytest.raises(fibers.FiberCancelled):
        writer.result()
    assert path.read_text() == "whole"


def test_close_waits_for_the_operation_of_another_fiber(path: Path, gate: Gate) -> None:
    file = fio.open(path, "rb")
    reader = fibers.spawn(file.read, 4)
    gate.arrived.wait()
    closer = fibers.spawn(file.close)
    late = fibers.spawn(file.read, 4)
    fibers.yield_now()
    assert not closer.done()
    gate.open.set()
    assert reader.result() == b"line"
    closer.result()
    with pytest.raises(ValueError, match="closed file"):
        late.result()


def test_an_open_that_is_given_up_leaves_no_file(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    opener = fibers.spawn(fio.open, fifo)
    fibers.sleep(0.005)
    assert not opener.done()
    opener.cancel()
    with pytest.raises(fibers.FiberCancelled):
        opener.result()
    fd = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)  # lets the worker go; the leak guard counts the files
    while workers.under_way():
        fibers.sleep(0.001)
    os.close(fd)


def test_a_fifo_is_waited_for_in_the_loop(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    keeping = os.open(fifo, os.O_RDWR)
    with fio.open(fifo, "rb", buffering=0) as file:
        reader = fibers.spawn(file.read, 10)
        fibers.sleep(0.001)
        reader.cancel()
        with pytest.raises(fibers.FiberCancelled):
            reader.result()
        os.write(keeping, b"hello")
        assert file.read(10) == b"hello"
        with fio.open(fifo, "wb") as writing:
            writer = fibers.spawn(lambda: (writing.write(b"x" * 300_000), writing.flush()))
            data = b""
            while len(data) < 300_000:
                data += file.read(65536)
            writer.result()
    os.close(keeping)


def test_a_dropped_file_is_written_and_closed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for mode, data in (("w", "text"), ("wb", b"data")):
        file = fio.open(path, mode)
        file.write(data)
        with pytest.warns(ResourceWarning, match="unclosed file"):
            del file
        assert path.read_bytes() in (b"text", b"data")


def test_a_program_that_ends_with_an_open_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    result = run_python("-c", f"from fibers import io\nf = io.open({str(path)!r}, 'w')\nf.write('kept')\n")
    assert (result.returncode, path.read_text()) == (0, "kept"), result.stderr


def test_a_forked_child_has_files_of_its_own(path: Path) -> None:
    with fio.open(path, "rb") as file:
        assert file.readline() == b"line 0\n"
        child = os.fork()
        if not child:
            status = 1
            try:
                with fio.open(path, "rb") as other:
                    status = int(not (file.readline() == other.readlines(20)[1] == b"line 1\n"))
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0


def test_many_files_at_once(path: Path) -> None:
    def first() -> str:
        with fio.open(path) as file:
            return str(file.readline())

    assert fibers.gather(*[fibers.spawn(first) for _ in range(100)]) == ["line 0\n"] * 100


def test_a_large_read_is_one_call(path: Path, gate: Gate) -> None:
    gate.open.set()
    with fio.open(path, "rb") as file:
        tracemalloc.start()
        data = file.read()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert len(data) == path.stat().st_size
    assert gate.calls.count("readall") == 1
    assert peak < 2 * len(data)


# -- the same operations on the standard library's file


class SameAsStandard(RuleBasedStateMachine):
    """Every operation on two files with the same contents: the same result, the same error, the same contents."""

    folder: Path

    @initialize(
        mode=st.sampled_from(["r+b", "w+b", "a+b", "rb", "wb", "r+", "w+", "a+", "r", "w"]),
        buffering=st.sampled_from([-1, -1, 16, 0]),
        newline=st.sampled_from([None, "", "\n", "\r\n"]),
        contents=st.binary(max_size=100) | st.text("abc\r\nä", max_size=100).map(str.encode),
    )
    def open(self, mode: str, buffering: int, newline: str | None, contents: bytes) -> None:
        self.binary = "b" in mode
        options: dict[str, Any] = {} if self.binary else {"newline": newline, "encoding": "latin-1"}
        if buffering == 0 and not self.binary:
            buffering = 16
        self.files = []
        for name, opener in (("standard", standard_open), ("ours", fio.open)):
            (self.folder / name).write_bytes(contents)
            self.files.append(opener(self.folder / name, mode, buffering, **options))

    def same(self, operation: Callable[[Any], Any]) -> None:
        outcomes = []
        for file in self.files:
            try:
                outcomes.append(operation(file))
            except (OSError, ValueError) as error:
                outcomes.append((type(error), error.args))
        assert outcomes[0] == outcomes[1]

    @rule(size=st.integers(-1, 40))
    def read(self, size: int) -> None:
        self.same(lambda file: file.read(size))

    @rule(size=st.integers(-1, 40))
    def readline(self, size: int) -> None:
        self.same(lambda file: file.readline(size))

    @rule(size=st.integers(0, 40))
    def readinto(self, size: int) -> None:
        if self.binary:
            buffers = [bytearray(size), bytearray(size)]
            left = list(buffers)
            self.same(lambda file: file.readinto(left.pop()))
            assert buffers[0] == buffers[1]

    @rule(hint=st.sampled_from([None, -1, 0, 1, 5, 20]))
    def readlines(self, hint: int | None) -> None:
        # A standard text file does not tell where it is until the iteration over its lines has come to the end (or ever,
        # if it cannot be read). Ours does.
        if self.binary or self.files[0].readable():
            self.same(lambda file: file.readlines(hint))
            if not self.binary:
                self.same(lambda file: file.readlines())

    @rule(data=st.text("xyz\nü", max_size=40))
    def write(self, data: str) -> None:
        self.same(lambda file: file.write(data.encode("latin-1") if self.binary else data))

    @rule(lines=st.lists(st.text("xyz\n", max_size=10), max_size=4))
    def writelines(self, lines: list[str]) -> None:
        self.same(lambda file: file.writelines([x.encode() for x in lines] if self.binary else lines))

    @rule(offset=st.integers(-5, 60), whence=st.sampled_from([0, 0, 1, 2]))
    def seek(self, offset: int, whence: int) -> None:
        self.same(lambda file: file.seek(offset, whence))

    @rule()
    def tell(self) -> None:
        self.same(lambda file: file.tell())

    @rule(size=st.none() | st.integers(0, 60))
    def truncate(self, size: int | None) -> None:
        self.same(lambda file: file.truncate(size))

    @rule()
    def flush(self) -> None:
        self.same(lambda file: file.flush())
        assert (self.folder / "standard").read_bytes() == (self.folder / "ours").read_bytes()

    @rule()
    def step(self) -> None:
        self.same(lambda file: next(file, None))

    def teardown(self) -> None:
        if hasattr(self, "files"):
            for file in self.files:
                file.close()
            assert (self.folder / "standard").read_bytes() == (self.folder / "ours").read_bytes()


def test_a_text_file_tells_where_it_is_when_an_iteration_has_come_to_the_end_in_readlines(tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("a\nb\nc\n")
    with fio.open(tmp_path / "lines") as file:
        assert next(file) == "a\n"
        with pytest.raises(OSError, match="telling position disabled"):
            file.tell()
        assert file.readlines() == ["b\n", "c\n"]
        assert file.tell() == 6


def test_the_same_as_the_standard_library(tmp_path: Path) -> None:
    SameAsStandard.folder = tmp_path
    run_state_machine_as_test(SameAsStandard)
