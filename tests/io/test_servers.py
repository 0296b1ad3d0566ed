"""The servers that tests drive: what happens where there is none, and that none outlives its test."""

import shutil
import signal
import socket
import sys
import time
from pathlib import Path

import pytest
from support import servers
from support.process import ROOT, run_python

import fibers


def test_a_missing_program_skips_here_and_fails_on_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "IN_CI", False)
    with pytest.raises(pytest.skip.Exception, match="no-such-server is missing: install the package nothing"):
        servers.find("no-such-server", "nothing")
    monkeypatch.setattr(servers, "IN_CI", True)
    with pytest.raises(pytest.fail.Exception, match=r"no-such-server is missing: .*CI must not leave this out"):
        servers.find("no-such-server", "nothing", "/nowhere/*/bin")


def test_what_ci_installs_is_what_the_tests_look_for() -> None:
    script = (ROOT / ".ci/debian.sh").read_text("utf-8")
    assert "redis-server:redis-server" in script
    assert "missing+=(postgresql)" in script
    assert "/usr/lib/postgresql/*/bin" in script
    assert "/usr/lib/postgresql/*/bin" in servers.PostgreSQL.FOLDERS


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("setpriv"), reason="needs setpriv (util-linux)")
@pytest.mark.usefixtures("redis_server")
def test_a_server_does_not_outlive_a_test_process_that_is_killed() -> None:
    """Nobody tidies up then. The kernel does."""
    code = """
import os, signal
from support.servers import Redis
server = Redis()
server.start()
print(server.folder, server.port, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = run_python("-c", code, env={"PYTHONPATH": str(ROOT / "tests")})
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    folder, port = ended.stdout.split()
    try:
        give_up = time.monotonic() + 30
        while answers(int(port)):
            assert time.monotonic() < give_up, "the server lives on"
            fibers.sleep(0.002)
    finally:
        shutil.rmtree(Path(folder))


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
