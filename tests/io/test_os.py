"""`fibers.io.os` and `copyfile`: the standard library's results and errors, from worker threads."""

import errno
import os as std
import shutil
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fibers
from fibers.io import copyfile, copying, os
from fibers.threads import workers


def test_everything_of_the_standard_module_is_there() -> None:
    assert [name for name in std.__all__ if not hasattr(os, name)] == []
    assert os.O_RDONLY == std.O_RDONLY
    assert os.path is std.path


def test_a_tour_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    os.makedirs(folder, exist_ok=True)
    fd = os.open(folder / "file", os.O_RDWR | os.O_CREAT)
    assert os.write(fd, b"0123456789") == 10
    assert os.pwrite(fd, b"ab", 4) == 2
    assert os.pread(fd, 4, 3) == b"3ab6"
    os.fsync(fd)
    os.fdatasync(fd)
    os.lseek(fd, 0, os.SEEK_SET)
    assert os.read(fd, 3) == b"012"
    buffers = [bytearray(2), bytearray(2)]
    assert os.readv(fd, buffers) == 4
    assert buffers == [b"3a", b"b6"]
    os.ftruncate(fd, 5)
    assert os.fstat(fd).st_size == 5
    assert os.writev(fd, [b"x", b"y"]) == 2
    os.close(fd)
    assert os.stat(folder / "file").st_size == 9
    os.link(folder / "file", folder / "other")
    os.symlink("file", folder / "link")
    assert os.readlink(folder / "link") == "file"
    assert stat.S_ISLNK(os.lstat(folder / "link").st_mode)
    assert sorted(os.listdir(folder)) == ["file", "link", "other"]
    with os.scandir(folder) as entries:
        assert sorted((entry.name, entry.is_symlink()) for entry in entries) == [
            ("file", False),
            ("link", True),
            ("other", False),
        ]
    assert list(os.walk(tmp_path)) == list(std.walk(tmp_path))
    os.rename(folder / "other", folder / "renamed")
    (folder / "renamed").unlink()
    (folder / "new").write_bytes(b"new")
    os.replace(folder / "new", folder / "file")
    os.chmod(folder / "file", 0o600)
    os.utime(folder / "file", (1, 2))
    assert os.stat(folder / "file").st_mtime == 2
    assert os.access(folder / "file", os.R_OK)
    assert os.statvfs(folder).f_bsize > 0
    os.truncate(folder / "file", 0)
    os.unlink(folder / "link")
    os.remove(folder / "file")
    os.removedirs(folder)
    assert not (tmp_path / "a").exists()


def test_the_same_errors(tmp_path: Path) -> None:
    calls: list[Callable[[Any], Any]] = [
        lambda os: os.stat(tmp_path / "none"),
        lambda os: os.listdir(tmp_path / "none"),
        lambda os: os.scandir(tmp_path / "none"),
        lambda os: os.mkdir(tmp_path),
        lambda os: os.remove(tmp_path),
        lambda os: os.rmdir(tmp_path / "none"),
        lambda os: os.rename(tmp_path / "none", tmp_path / "x"),
        lambda os: os.read(987_654, 1),
        lambda os: os.write(987_654, b""),
        lambda os: os.fsync(987_654),
        lambda os: os.read(0, "x"),
        lambda os: os.stat(),
        lambda os: os.fdopen("x"),
    ]
    for call in calls:
        with pytest.raises((OSError, TypeError)) as expected:
            call(std)
        with pytest.raises(type(expected.value)) as ours:
            call(os)
        assert getattr(ours.value, "errno", None) == getattr(expected.value, "errno", None)
        assert getattr(ours.value, "filename", None) == getattr(expected.value, "filename", None)


def test_a_read_of_a_pipe_suspends_its_fiber_only() -> None:
    for blocking in (True, False):
        reading, writing = std.pipe()
        std.set_blocking(reading, blocking)
        reader = fibers.spawn(os.read, reading, 10)
        fibers.yield_now()
        assert not reader.done()
        reader.cancel()
        with pytest.raises(fibers.FiberCancelled):
            reader.result()
        assert os.write(writing, b"x") == 1
        assert os.read(reading, 10) == b"x"
        assert std.get_blocking(reading) == blocking
        with os.fdopen(writing, "wb") as file:
            file.write(b"rest")
        assert os.read(reading, 10) == b"rest"
        assert os.read(reading, 10) == b""
        os.close(reading)


def test_an_open_that_is_given_up_leaves_no_file(tmp_path: Path) -> None:
    std.mkfifo(tmp_path / "fifo")
    opener = fibers.spawn(os.open, tmp_path / "fifo", os.O_RDONLY)
    fibers.sleep(0.005)
    assert not opener.done()
    opener.cancel()
    with pytest.raises(fibers.FiberCancelled):
        opener.result()
    fd = std.open(tmp_path / "fifo", os.O_RDWR | os.O_NONBLOCK)  # lets the worker go
    while workers.under_way():
        fibers.sleep(0.001)
    std.close(fd)


def test_calls_run_in_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []
    monkeypatch.setattr(copying, "_open_both", lambda *_: threads.append(threading.get_ident()))
    copyfile("a", "b")
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()


# -- copying

WAYS: list[Any] = [copying._WAYS[number:] for number in range(len(copying._WAYS))]


@pytest.mark.parametrize("ways", WAYS, ids=lambda ways: ways[0].__name__)
def test_a_copy_is_the_same_bytes(ways: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "_WAYS", ways)
    monkeypatch.setattr(copying, "PIECE", 10_000)
    monkeypatch.setattr(copying, "SMALL_PIECE", 10_000)
    for size in (0, 1, 10_000, 123_456):
        data = std.urandom(size)
        (tmp_path / "a").write_bytes(data)
        (tmp_path / "b").write_bytes(b"older and longer" * 10_000)
        assert copyfile(tmp_path / "a", tmp_path / "b") == tmp_path / "b"
        assert (tmp_path / "b").read_bytes() == data


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_way_that_does_not_work_here(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(reading: int, writing: int) -> int:
        raise OSError(code, std.strerror(code))

    monkeypatch.setattr(copying, "_WAYS", [refused, refused, copying._by_hand])
    (tmp_path / "a").write_bytes(b"data")
    copyfile(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"data"


def test_an_error_in_the_middle_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = [3]

    def breaks(reading: int, writing: int) -> int:
        if pieces:
            return std.write(writing, std.read(reading, pieces.pop()))
        raise OSError(errno.EINVAL, "broken")

    monkeypatch.setattr(copying, "_WAYS", [breaks, copying._by_hand])
    (tmp_path / "a").write_bytes(b"data")
    with pytest.raises(OSError, match="broken"):
        copyfile(tmp_path / "a", tmp_path / "b")


@pytest.mark.skipif(not std.path.exists("/proc/self/status"), reason="this system has no /proc")
def test_a_file_that_says_that_it_has_no_size(tmp_path: Path) -> None:
    copyfile("/proc/self/status", tmp_path / "b")
    assert b"Name:" in (tmp_path / "b").read_bytes()


def test_what_cannot_be_copied(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"data")
    std.mkfifo(tmp_path / "fifo")
    std.symlink("a", tmp_path / "link")
    cases = [
        ("none", "b"),
        (".", "b"),
        ("a", "."),
        ("a", "a"),
        ("a", "link"),
        ("fifo", "b"),
        ("a", "fifo"),
        ("a", "x/y"),
    ]
    for source, target in cases:
        with pytest.raises((OSError, ValueError)) as expected:
            shutil.copyfile(tmp_path / source, tmp_path / target)
        with pytest.raises(type(expected.value)) as ours:
            copyfile(tmp_path / source, tmp_path / target)
        assert getattr(ours.value, "errno", None) == getattr(expected.value, "errno", None)
    assert (tmp_path / "a").read_bytes() == b"data"
    copyfile(tmp_path / "link", tmp_path / "as link", follow_symlinks=False)
    assert std.readlink(tmp_path / "as link") == "a"


def test_a_copy_is_cancelled_between_two_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go = fibers.Event(), threading.Event()

    def slowly(reading: int, writing: int) -> int:
        data = std.read(reading, 4)
        begun.set()
        assert go.wait(30)
        return std.write(writing, data)

    monkeypatch.setattr(copying, "_WAYS", [slowly])
    (tmp_path / "a").write_bytes(b"longer than one piece")
    copy = fibers.spawn(copyfile, tmp_path / "a", tmp_path / "b")
    begun.wait()
    copy.cancel()
    fibers.yield_now()
    assert not copy.done()
    go.set()
    with pytest.raises(fibers.FiberCancelled):
        copy.result()
    assert (tmp_path / "b").read_bytes() == b"long"
