"""The README's programs run as written: a page whose first example fails costs every reader.

Programs marked `<!-- run: name -->` are written to files and run. Each server is started and serves while the
other programs that name its port run; what they print is compared with the block marked `<!-- output: name
-->` if the page has one. The text is changed in one case only: when another program of this machine holds the
server's port, or another run of these tests is about to, both sides get a free one. Of the console commands
those run that only look: `python -m fibers info …`.
"""

import fcntl
import os
import shlex
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.once import once
from support.process import ROOT, environment, run_python
from support.readme import Page, port_of, read

INFO = "python -m fibers info"
START_S = 20.0


@pytest.fixture(scope="module")
def page() -> Page:
    return read((ROOT / "README.md").read_text("utf-8"))


def test_readme_shows_a_server_a_client_and_the_info_command(page: Page) -> None:
    assert page.servers
    assert page.others
    assert any(command.startswith(INFO) for command in page.commands)


def test_programs_run_as_written(page: Page, tmp_path: Path) -> None:
    run_programs(page, tmp_path)


@once
def test_info_commands_run(page: Page, tmp_path: Path) -> None:
    for command in page.commands:
        if command.startswith(INFO):
            child = run_python(*shlex.split(command)[1:], cwd=tmp_path)
            assert child.returncode == 0, f"{command}\n{child.stdout}\n{child.stderr}"
            assert child.stdout.strip(), f"{command} printed nothing"


def run_programs(page: Page, folder: Path) -> None:
    """Run every program of the page. Raises AssertionError naming the first that misbehaves."""
    served: set[str] = set()
    for server in page.servers:
        written = port_of(page.programs[server])
        clients = [name for name in page.others if str(written) in page.programs[name]]
        assert clients, f"no program of the page talks to {server} on port {written}"
        with _reserved(written) as ours:
            port = written if ours and _free(written) else _free_port()
            with _serving(_file(page, server, folder, written, port), port):
                for client in clients:
                    _run(page, client, _file(page, client, folder, written, port))
        served.update(clients)
    for name in page.others:
        if name not in served:
            _run(page, name, _file(page, name, folder, 0, 0))


def _file(page: Page, name: str, folder: Path, written: int, port: int) -> Path:
    path = folder / f"{name.replace('-', '_')}.py"
    text = page.programs[name]
    path.write_text(text.replace(str(written), str(port)) if port != written else text)
    return path


def _run(page: Page, name: str, path: Path) -> None:
    child = run_python(path, cwd=path.parent)
    assert child.returncode == 0, f"{name} ended with {child.returncode}\n{child.stdout}\n{child.stderr}"
    assert not child.stderr, f"{name} complained\n{child.stderr}"
    if name in page.outputs:
        assert child.stdout.strip() == page.outputs[name].strip()
    else:
        assert child.stdout.strip(), f"{name} printed nothing"


@contextmanager
def _serving(path: Path, port: int) -> Iterator[None]:
    """A running server, from its first accepted connection on."""
    complaints = path.with_suffix(".stderr")
    with complaints.open("w") as stderr:
        server = subprocess.Popen(
            [sys.executable, path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env=environment(),
            cwd=path.parent,
        )
        try:
            _wait_until_accepts(server, port, complaints)
            yield
            assert server.poll() is None, f"the server ended by itself\n{complaints.read_text('utf-8')}"
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
    assert "Traceback" not in complaints.read_text("utf-8"), complaints.read_text("utf-8")


def _wait_until_accepts(server: "subprocess.Popen[bytes]", port: int, complaints: Path) -> None:
    pause = 0.02
    for _ in range(int(START_S / pause)):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=START_S).close()
        except ConnectionRefusedError:
            try:
                server.wait(pause)
            except subprocess.TimeoutExpired:
                continue
            raise AssertionError(f"the server ended at once\n{complaints.read_text('utf-8')}") from None
        return
    raise AssertionError(f"the server did not accept on port {port} within {START_S:g} s")


@contextmanager
def _reserved(port: int) -> Iterator[bool]:
    """Keep a port for this run, among the runs of these tests on this machine. Gives False if another one has it."""
    with (Path(tempfile.gettempdir()) / f"fibers-readme-{os.getuid()}-{port}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


# -- the machinery itself, on pages without this project in them

SERVER = """
import socket
with socket.create_server(("127.0.0.1", PORT)) as listener:
    while True:
        peer, _ = listener.accept()
        with peer:
            while data := peer.recv(100):
                peer.sendall(data)
"""
CLIENT = """
import socket
with socket.create_connection(("127.0.0.1", PORT)) as peer:
    peer.sendall(b"hello")
    print(peer.recv(5).decode())
"""


def block(mark: str, text: str, language: str = "python") -> str:
    return f"Prose.\n\n<!-- {mark} -->\n```{language}\n{text.strip()}\n```\n"


def echo_page(port: int, output: str = "hello", server: str = SERVER, client: str = CLIENT) -> Page:
    return read(
        block("run: echo-server", server.replace("PORT", str(port)))
        + block("run: echo-client", client.replace("PORT", str(port)))
        + block("output: echo-client", output, "text")
        + block("run: alone", "print('alone')")
        + "```console\n$ python -m fibers info\nbackend epoll\n```\n```python\nnever(run)\n```\n"
    )


def test_reader_finds_programs_outputs_and_commands() -> None:
    page = echo_page(7000)
    assert (page.servers, page.others) == (["echo-server"], ["echo-client", "alone"])
    assert page.outputs == {"echo-client": "hello\n"}
    assert page.commands == ["python -m fibers info"]
    assert port_of(page.programs["echo-server"]) == 7000


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (block("run: a", "1") * 2, "two blocks"),
        (block("run: a", "1", "sh"), "not python"),
        (block("output: a", "1"), "no such program"),
        ("<!-- run: a -->\nprose\n```python\n1\n```\n", "1 marks"),
    ],
)
def test_reader_refuses_marks_that_would_run_nothing(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        read(text)


@pytest.mark.parametrize("text", ["print(1)", "('127.0.0.1', 1), ('127.0.0.1', 2)"])
def test_port_must_be_one(text: str) -> None:
    with pytest.raises(ValueError, match="expected one"):
        port_of(text)


@once
def test_good_page_runs(tmp_path: Path) -> None:
    run_programs(echo_page(_free_port()), tmp_path)


@once
def test_taken_port_is_replaced_on_both_sides(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run_programs(echo_page(port), tmp_path)
    assert str(port) not in (tmp_path / "echo_client.py").read_text("utf-8")


@once
def test_port_that_another_run_keeps_is_replaced_too(tmp_path: Path) -> None:
    port = _free_port()
    with _reserved(port) as ours:
        assert ours
        run_programs(echo_page(port), tmp_path)
    assert str(port) not in (tmp_path / "echo_client.py").read_text("utf-8")


@pytest.mark.parametrize(
    ("page", "fault"),
    [
        ({"output": "goodbye"}, "goodbye"),
        ({"server": "raise ValueError(('127.0.0.1', PORT))"}, "ended at once"),
        ({"client": "raise SystemExit(('127.0.0.1', PORT))"}, "ended with 1"),
        ({"client": "print(1)"}, "no program of the page talks to"),
        ({"client": CLIENT + "import sys; print('oh', file=sys.stderr)"}, "complained"),
    ],
)
@once
def test_bad_page_fails(page: dict[str, str], fault: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=fault):
        run_programs(echo_page(_free_port(), **page), tmp_path)
