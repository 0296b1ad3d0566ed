"""What systemd hands over, and what it is told."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.process import run_python
from support.server_program import Program

from fibers.server import notify, passed_listeners
from fibers.server.systemd import ready, reloading, stopping, watchdog_seconds

ACTIVATED = """
import os, socket, sys
kept = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
for place, each in enumerate(kept):
    os.dup2(each.fileno(), 50 + place)
for place in range(2):
    os.dup2(50 + place, 3 + place)
os.environ.update(LISTEN_PID={pid}, LISTEN_FDS="2", LISTEN_FDNAMES={names!r}, PORT=str(kept[0].getsockname()[1]))
os.execv(sys.executable, [sys.executable, "-c", {then!r}])
"""

THEN = """
import os
from fibers.server import TCPServer, passed_listeners
found = passed_listeners()
print([name for name, _ in found])
assert not [name for name in os.environ if name.startswith("LISTEN_")], os.environ
assert passed_listeners() == []
if found:
    import fibers
    from fibers.io import socket
    assert not any(os.get_inheritable(sock.fileno()) for _, sock in found)
    with TCPServer([sock for _, sock in found], lambda sock, address: sock.sendall(b"hello")) as server:
        assert server.address[1] == int(os.environ["PORT"])
        with socket.create_connection(server.addresses[1]) as client:
            print(client.recv(100))
    for _, sock in found:
        sock.close()
"""


def activated(pid: str, names: str, then: str = THEN) -> list[str]:
    child = run_python("-c", ACTIVATED.format(pid=pid, names=names, then=then))
    assert child.returncode == 0, child.stderr
    return child.stdout.splitlines()


def test_listeners_are_taken_with_their_names() -> None:
    assert activated("str(os.getpid())", "web:api") == ["['web', 'api']", "b'hello'"]


def test_listeners_without_names() -> None:
    assert activated("str(os.getpid())", "only-one") == ["['', '']", "b'hello'"]


def test_what_is_meant_for_another_process_is_not_taken() -> None:
    assert activated("str(os.getppid())", "web:api") == ["[]"]


def test_nonsense_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert passed_listeners() == []
    monkeypatch.setenv("LISTEN_PID", "me")
    monkeypatch.setenv("LISTEN_FDS", "1")
    with pytest.raises(ValueError, match="'me'"):
        passed_listeners()


def test_what_does_not_listen_is_refused() -> None:
    then = """
from fibers.server import passed_listeners
import socket, os
sock = socket.socket()
os.dup2(sock.fileno(), 3)
try:
    passed_listeners()
except OSError as error:
    print(error)
"""
    assert "no listening socket" in activated("str(os.getpid())", "", then)[0]


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "told"))
        listener.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "told"))
        yield listener


def test_states(told: socket.socket) -> None:
    assert notify("STATUS=hello")
    assert ready()
    assert stopping()
    before = time.monotonic_ns() // 1000
    assert reloading()
    after = time.monotonic_ns() // 1000
    assert [told.recv(100) for _ in range(3)] == [b"STATUS=hello", b"READY=1", b"STOPPING=1"]
    state, stamp = told.recv(100).decode().split("\n")
    assert state == "RELOADING=1"
    assert before <= int(stamp.removeprefix("MONOTONIC_USEC=")) <= after


@pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="abstract addresses are Linux's")
def test_an_abstract_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0fibers notify {os.getpid()}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@fibers notify {os.getpid()}")
        assert notify("READY=1")
        assert listener.recv(100) == b"READY=1"


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    assert not notify("READY=1")


@pytest.mark.parametrize(
    ("limit", "pid", "seconds"),
    [
        ("3000000", "", 1.5),
        ("3000000", "me", 1.5),
        ("3000000", "1", None),
        ("", "", None),
        ("0", "", None),
        ("x", "", None),
    ],
)
def test_how_often_the_watchdog_wants_a_sign(
    limit: str, pid: str, seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", limit)
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "me" else pid)
    assert watchdog_seconds() == seconds


@pytest.mark.parametrize("how", ["threads=1", "threads=2", "processes=2"])
def test_a_server_tells_all_of_it(how: str, tmp_path: Path) -> None:
    code = f"""
server = TCPServer(("127.0.0.1", 0), pid, {how}, on_reload=lambda: say("reloaded"))
server.serve_forever()
"""
    with Program(tmp_path, code, {"WATCHDOG_USEC": "20000"}) as program:
        program.told("READY=1")
        for _ in range(3):
            program.told("WATCHDOG=1")
        program.signal(1)
        assert "MONOTONIC_USEC=" in program.told("RELOADING=1")
        program.told("READY=1")
        program.signal(15)
        program.told("STOPPING=1")
        assert program.end() == 0
        assert "Traceback" not in program.log()
