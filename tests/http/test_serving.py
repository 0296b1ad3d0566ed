"""A whole server: where it listens, how it ends, and that nobody's request is lost with it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.http_serving import answer, request, site
from support.process import environment
from support.scale import scaled

import fibers
from fibers.eventloop import BACKEND
from fibers.http import HttpServer, Request, Server
from fibers.http.census import KEEP_ALIVE, RUNNING
from fibers.http.command import load
from fibers.http.connection import Connection
from fibers.io import Stream, socket
from fibers.threads.to_thread import to_thread


def service() -> Server:
    server = Server()
    server.otherwise(lambda request: f"{os.getpid()}")

    @server.route("/slow")
    def slow(request: Request) -> str:
        fibers.sleep(0.02)
        return "slow"

    return server


def test_unix_sockets_and_several_addresses(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with site(service(), bind=[("127.0.0.1", 0), f"unix:{path}"], status="/s") as served:
        assert served.ask().status == 200
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)
            client = Stream(sock)
            client.write_all(request("/s?auto"))
            assert b"ConnsTotal: 1\n" in answer(client).body
    assert not os.path.exists(path)


@pytest.mark.parametrize("bind", ["nonsense", "localhost:x", "localhost:", 1.5])
def test_addresses_that_are_none(bind: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        HttpServer(service(), bind)


def test_applications_that_are_none() -> None:
    with pytest.raises(TypeError, match="an application is"):
        HttpServer(5)
    with pytest.raises(ValueError, match="forwarded_dialect"):
        HttpServer(service(), forwarded_dialect="x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_requests"):
        HttpServer(service(), max_requests=0)


def test_a_stop_lets_requests_finish_and_says_that_they_were_the_last() -> None:
    with site(service(), last_idle=0.5) as served:
        with served.connect() as working, served.connect() as idle, served.connect() as late:
            for client in (idle, late):
                client.write_all(request())
                answer(client)
            working.write_all(request("/slow"))
            while served.hub.census.count(RUNNING) != 1 or served.hub.census.count(KEEP_ALIVE) != 2:
                fibers.sleep(0)
            hub = served.hub
            stopping = fibers.spawn(served.server.stop)
            while not hub.stopping:
                fibers.sleep(0)
            late.write_all(request())  # it did not know
            told = answer(late)
            assert (told.status, told.fields["connection"]) == (200, "close")
            assert answer(working).fields["connection"] == "close"
            assert idle.read_all() == b""
            report = stopping.result()
            assert not report.cut
        with pytest.raises(ConnectionRefusedError):
            served.connect()


def test_what_does_not_finish_is_cut_and_named() -> None:
    server = service()
    server.route("/ever")(lambda request: fibers.sleep(60))
    with site(server, graceful_timeout=0.02) as served, served.connect() as client:
        client.write_all(request("/ever"))
        while served.hub.census.count(RUNNING) != 1:
            fibers.sleep(0)
        report = served.server.stop()
        assert client.read_all() == b""
        assert [name for name in report.cut if "GET /ever of 127.0.0.1" in str(name)], report


def test_connections_are_shared_by_threads() -> None:
    with site(service(), threads=2) as served:
        clients = [served.connect() for _ in range(40)]
        for client in clients:
            client.write_all(request())
            assert answer(client).status == 200
        counts = [hub.census.open() for hub in served.server.board.hubs()]
        assert sum(counts) == 40
        assert len(counts) == 2
        assert all(counts)
        for client in clients:
            client.close()


def test_a_server_with_no_room_leaves_clients_in_the_queue() -> None:
    with site(service(), max_handlers=1, factor=1.0, keep_alive_timeout=60.0) as served:
        clients = [served.connect() for _ in range(5)]
        for client in clients:
            client.write_all(request())
        assert answer(clients[0]).status == 200
        assert answer(clients[1]).status == 200
        while served.hub.census.count(KEEP_ALIVE) != 2:  # 1 handler + 1.0 * 1 that is idle
            fibers.sleep(0)
        clients[0].close()
        assert answer(clients[2]).status == 200
        for client in clients:
            client.close()


@pytest.mark.skipif(BACKEND == "libevent", reason="its handles have events of libevent's besides")
def test_an_idle_connection_is_a_few_small_objects() -> None:
    with site(service()) as served, served.connect() as client:
        client.write_all(request())
        answer(client)
        while served.hub.census.count(KEEP_ALIVE) != 1:
            fibers.sleep(0)
        (member,) = served.hub.census.everybody()
        assert isinstance(member, Connection)
        state = member._io
        parts = [member, member.sock, state, state.handle, state.reading, state.writing]
        assert not any(hasattr(part, "__dict__") for part in parts)
        assert sum(map(sys.getsizeof, parts)) <= 744  # the rest of a kilobyte: entries in four dicts, and numbers


# -- the command


@contextmanager
def serving(folder: Path, code: str, *options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`python -m fibers serve app:app` on a free port, until the end of the block."""
    (folder / "app.py").write_text(code)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "fibers", "serve", "app:app", "--bind", f"127.0.0.1:{port}", *options]
    process = subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        _await(port, process)
        yield process, port
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _await(port: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except ConnectionRefusedError:
            if process.poll() is not None:
                assert process.stdout is not None
                raise AssertionError(f"it did not start: {process.stdout.read()}") from None
            fibers.sleep(0.02)
        else:
            return
    raise AssertionError("it does not listen")


def ask(port: int, target: str = "/") -> Any:
    with Stream(socket.create_connection(("127.0.0.1", port), timeout=10)) as client:
        client.write_all(request(target))
        return answer(client)


WSGI = """
import os
def app(environ, start):
    start("200 OK", [("Content-Type", "text/plain")])
    return [f"{environ['wsgi.multiprocess']} {os.getpid()}".encode()]
"""


def test_the_command_serves_and_stops(tmp_path: Path) -> None:
    options = ("--access-log", "log", "--log-format", "json", "--status", "/status", "--threads", "2")
    with serving(tmp_path, WSGI, *options) as (process, port):
        assert ask(port).body == f"False {process.pid}".encode()
        while b"Loops: 2" not in ask(port, "/status?auto").body:
            fibers.sleep(0.001)  # the second one is about to start
        (tmp_path / "log").rename(tmp_path / "old")
        while not (tmp_path / "log").exists():
            process.send_signal(signal.SIGHUP)  # the log is opened anew
            ask(port)
            fibers.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert to_thread(process.wait, 20) == 0
        lines = ((tmp_path / "old").read_text() + (tmp_path / "log").read_text()).splitlines()
        assert [json.loads(line)["status"] for line in lines] == [200] * len(lines)
        assert process.stdout is not None
        assert f"serving app:app on 127.0.0.1:{port}" in process.stdout.read()


def test_processes_and_a_reload_that_drops_nobody(tmp_path: Path) -> None:
    count = scaled(10_000, least=300)
    with serving(tmp_path, WSGI, "--processes", "2") as (process, port):
        pids: set[bytes] = set()
        failed: list[str] = []
        done = 0

        def load() -> None:
            nonlocal done
            client: Stream | None = None
            while done < count:
                try:
                    if client is None:
                        client = Stream(socket.create_connection(("127.0.0.1", port), timeout=10))
                    client.write_all(request())
                    told = answer(client)
                    pids.add(told.body)
                    if told.status != 200:
                        failed.append(f"{told}")
                    if told.fields.get("connection") == "close":
                        client.close()
                        client = None
                except (OSError, EOFError) as error:
                    failed.append(repr(error))
                    client = None
                done += 1
            if client is not None:
                client.close()

        with fibers.TaskGroup() as group:
            for _ in range(8):
                group.spawn(load)
            while done < count // 4:
                fibers.sleep(0.001)
            process.send_signal(signal.SIGHUP)
        fibers.sleep(0.2)
        assert failed == []
        assert ask(port).body.startswith(b"True ")
        assert f"True {process.pid}".encode() not in pids
        process.send_signal(signal.SIGTERM)
        assert to_thread(process.wait, 30) == 0


def test_a_process_retires_after_its_requests(tmp_path: Path) -> None:
    with serving(tmp_path, WSGI, "--processes", "2", "--max-requests", "20") as (process, port):
        pids: set[bytes] = set()
        closing = 0
        deadline = time.monotonic() + 30
        while len(pids) < 4 and time.monotonic() < deadline:
            told = ask(port)
            assert told.status == 200
            closing += told.fields.get("connection") == "close"
            pids.add(told.body)
        assert len(pids) >= 4
        assert closing  # it says so to its clients
        process.send_signal(signal.SIGTERM)
        assert to_thread(process.wait, 30) == 0


def test_reload_starts_anew_when_a_source_changes(tmp_path: Path) -> None:
    with serving(tmp_path, WSGI, "--reload") as (process, port):
        assert ask(port).body.startswith(b"False")
        path = tmp_path / "app.py"
        fibers.sleep(0.6)  # it has looked once
        path.write_text(WSGI.replace("{environ['wsgi.multiprocess']}", "changed"))
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                if ask(port).body == f"changed {process.pid}".encode():
                    break
            except OSError:
                pass
            fibers.sleep(0.02)
        else:
            raise AssertionError("it has not changed")
        process.send_signal(signal.SIGINT)
        assert to_thread(process.wait, 20) == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nothing:app"], "there is no module 'nothing'"),
        (["json:nothing"], "json has no 'nothing'"),
        (["json"], "'json' is not module:app"),
        (["json:__name__"], "an application is"),
        (["json:dumps", "--bind", "nonsense"], "an address is"),
        (["json:dumps", "--reload", "--processes", "2"], "one process"),
        (["json:dumps", "--log-format", "%z", "--access-log", "-"], "%z is not known"),
    ],
)
def test_the_command_says_what_is_wrong(arguments: list[str], says: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fibers", "serve", *arguments]
    done: Any = to_thread(
        subprocess.run, command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert re.search(says, done.stderr), done.stderr
    assert "Traceback" not in done.stderr


def test_applications_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "factory_app.py").write_text("def make():\n    return len\nclass a:\n    b = max\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load("factory_app:make()") is len
    assert load("factory_app:a.b") is max
