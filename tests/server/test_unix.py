"""UnixServer: the file, its permissions, and what is left behind."""

import errno
import os
import socket as std
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from support.server_program import ask

from fibers.io import socket
from fibers.server import UnixServer
from fibers.server.listeners import UnixEndpoint, _check_stale

THREADS = pytest.mark.parametrize("threads", [1, 3])


def echo(sock: Any, address: Any) -> None:
    while data := sock.recv(65_536):
        sock.sendall(data)


def ask_here(path: str, data: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        return client.recv(1000)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "socket")


@THREADS
def test_serves_and_removes_the_file(path: str, threads: int) -> None:
    with UnixServer(path, echo, threads=threads) as server:
        assert server.address == path
        assert server.addresses == [path]
        assert [ask_here(path, b"x") for _ in range(10)] == [b"x"] * 10
        if threads > 1:
            assert ask(path, b"x") == b"x"
    assert os.listdir(os.path.dirname(path)) == []


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666, 0o000])
def test_the_mode_is_as_asked_for_whatever_the_umask(path: str, mode: int) -> None:
    before = os.umask(0o022)
    try:
        with UnixServer(path, echo, mode=mode):
            assert stat.S_IMODE(os.stat(path).st_mode) == mode
    finally:
        os.umask(before)


def test_at_no_moment_is_the_mode_too_wide(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    rename = os.rename

    def look(source: str, target: str) -> None:
        seen.append((os.path.exists(target), stat.S_IMODE(os.stat(source).st_mode)))
        seen.append((False, stat.S_IMODE(os.stat(os.path.dirname(source)).st_mode)))
        rename(source, target)

    monkeypatch.setattr(os, "rename", look)
    with UnixServer(path, echo, mode=0o600):
        pass
    assert seen == [(False, 0o600), (False, 0o700)]


def test_the_owner(path: str) -> None:
    with UnixServer(path, echo, user=os.getuid(), group=os.getgid()):
        status = os.stat(path)
        assert (status.st_uid, status.st_gid) == (os.getuid(), os.getgid())


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give files away")
def test_another_owner_by_name_and_number(path: str) -> None:
    with UnixServer(path, echo, user="nobody", group=12345):
        status = os.stat(path)
        assert status.st_uid != 0
        assert status.st_gid == 12345


def test_an_owner_that_does_not_exist(path: str) -> None:
    with pytest.raises(ValueError, match="no-such-user-here"):
        UnixServer(path, echo, user="no-such-user-here").start()
    assert os.listdir(os.path.dirname(path)) == []


def test_a_stale_socket_is_replaced(path: str) -> None:
    with std.socket(std.AF_UNIX) as dead:
        dead.bind(path)
    assert os.path.exists(path)
    with UnixServer(path, echo):
        assert ask_here(path, b"x") == b"x"


def test_one_that_somebody_listens_on_is_not(path: str) -> None:
    with UnixServer(path, echo):
        with pytest.raises(OSError, match="somebody listens on") as caught:
            UnixServer(path, echo).start()
        assert caught.value.errno == errno.EADDRINUSE
        assert ask_here(path, b"x") == b"x"


def test_neither_is_one_whose_queue_is_full(path: str) -> None:
    with std.socket(std.AF_UNIX) as busy, std.socket(std.AF_UNIX) as first:
        busy.bind(path)
        busy.listen(0)
        first.connect(path)
        with pytest.raises(OSError, match="somebody listens on"):
            _check_stale(path)


def test_what_is_no_socket_is_left_alone(path: str) -> None:
    Path(path).write_text("precious")
    with pytest.raises(OSError, match="is no socket"):
        UnixServer(path, echo).start()
    assert Path(path).read_text() == "precious"


def test_the_file_of_a_successor_is_not_removed(path: str) -> None:
    with UnixServer(path, echo):
        os.unlink(path)
        successor = UnixEndpoint(path)
        [[listener]] = successor.open(1)
    assert os.path.exists(path)
    listener.close()
    successor.remove()
    assert not os.path.exists(path)
    successor.remove()


@pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="abstract addresses are Linux's")
def test_an_abstract_address() -> None:
    name = f"\0fibers test {os.getpid()}"
    with UnixServer(name, echo) as server:
        assert server.address == name
        assert ask_here(name, b"x") == b"x"


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_path_as_long_as_paths_may_be(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * (107 - 3 - len(os.fsencode(str(tmp_path)))))
    folder.mkdir()
    path = str(folder / "s")
    with UnixServer(path, echo, mode=0o600):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert ask_here(path, b"x") == b"x"
    assert os.listdir(folder) == []
