"""The demo, run small as a child process, and its parts alone.

What the table says is compared with what must be so (one registration a connection, two system calls a request), never
with how fast a machine is. "No process is left behind" is seen at the pipes: the server inherits stdout and stderr, so
they come to their end only when all processes have.
"""

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from support.backends import LIFETIME, lifetime_only
from support.once import once
from support.process import FAKE_KQUEUE, environment, run_python

from fibers.eventloop import BACKEND
from fibers.measure import syscalls
from fibers.measure.latency import RESOLUTION, Latencies
from fibers.measure.limits import BESIDES, SELECT_MAX, fit
from fibers.measure.process import Server

SMALL = ("-m", "fibers", "demo", "--connections", "20", "--seconds", "0.3")
LABELS = [
    *("event loop", "requests/s", "latency, p50", "latency, p99", "server CPU"),
    *("connections", "registrations", "modifications", "unregistrations", "switches", "system calls"),
]
CHILDREN = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
END_S = 40.0


def rows_of(table: str) -> dict[str, tuple[str, str]]:
    """label -> (figure, note)"""
    found = {}
    for line in table.splitlines():
        figure, _, note = line[16:].strip().partition("   ")
        found[line[:16].strip()] = (figure, note.strip())
    return found


def number(figure: str) -> float:
    return float(figure.split()[0].replace(",", ""))


def without_strace(folder: Path) -> dict[str, str]:
    """An environment whose PATH is one empty folder; the interpreter is started by its full name."""
    return {"PATH": str(folder)}


def test_the_table_holds_what_must_be_so(tmp_path: Path) -> None:
    child = run_python(*SMALL, env=without_strace(tmp_path))
    assert child.returncode == 0, child.stderr
    assert "Traceback" not in child.stderr
    rows = rows_of(child.stdout)
    assert list(rows) == LABELS
    assert rows["event loop"][0] == BACKEND
    assert number(rows["requests/s"][0]) > 0
    assert "20 connections, 1,024 bytes" in rows["requests/s"][1]
    assert 0 < number(rows["latency, p50"][0]) <= number(rows["latency, p99"][0])
    assert number(rows["server CPU"][0]) > 0
    assert rows["connections"][0] == "20"
    if LIFETIME:
        assert rows["registrations"] == ("22", "one a connection, and two: the listener and the line to the clients")
        assert number(rows["modifications"][0]) <= 20
        assert rows["unregistrations"][0] == "20"
    assert 0 < number(rows["switches"][0]) <= 1.5
    figure, note = rows["system calls"]
    assert figure == "not counted"
    counted = re.fullmatch(
        r"strace is not installed; the loop's own counters: [\d.]+ waits, ([\d.]+) changes a request", note
    )
    assert counted is not None
    assert (counted[1] == "0.000") == LIFETIME


@once
def test_progress_goes_to_stderr_and_says_each_phase(tmp_path: Path) -> None:
    child = run_python(*SMALL, env=without_strace(tmp_path))
    said = child.stderr.splitlines()
    assert said[0] == "starting the server"
    assert any(line.startswith("connecting") for line in said)
    assert any(line.startswith("20 connections talking") for line in said)
    assert "\x1b" not in child.stderr, "no terminal, no terminal codes"


def strace_works() -> bool:
    strace = shutil.which("strace")
    return (
        strace is not None and subprocess.run([strace, "-o", os.devnull, "true"], capture_output=True).returncode == 0
    )


@lifetime_only
@pytest.mark.skipif(not strace_works(), reason="strace is not installed, or may not trace here")
@pytest.mark.skipif(FAKE_KQUEUE, reason="the fake kqueue makes more system calls than a kqueue")
def test_system_calls_are_counted_by_strace() -> None:
    rows = rows_of((child := run_python(*SMALL)).stdout)
    assert child.returncode == 0, child.stderr
    figure, note = rows["system calls"]
    assert 2.0 <= number(figure) <= 3.2  # at most one kernel wait a request besides recv and send
    assert "recvfrom 1.0" in note
    assert "sendto 1.0" in note
    assert "epoll_ctl" not in note
    assert "(strace, " in note


@once
def test_strace_that_may_not_trace_is_named(tmp_path: Path) -> None:
    fake = tmp_path / "strace"
    fake.write_text("#!/bin/sh\necho 'strace: ptrace(PTRACE_TRACEME): Operation not permitted' >&2\nexit 1\n")
    fake.chmod(0o755)
    child = run_python(*SMALL, env=without_strace(tmp_path))
    assert child.returncode == 0, child.stderr
    figure, note = rows_of(child.stdout)["system calls"]
    assert figure == "not counted"
    assert note.startswith("strace failed: strace: ptrace(PTRACE_TRACEME): Operation not permitted; the loop's own")


def test_the_largest_message_and_a_single_connection(tmp_path: Path) -> None:
    child = run_python(
        *SMALL[:3], "--connections", "1", "--seconds", "0.1", "--size", "65536", env=without_strace(tmp_path)
    )
    assert child.returncode == 0, child.stderr
    assert "1 connection, 65,536 bytes" in rows_of(child.stdout)["requests/s"][1]


# -- how it ends


def start(*arguments: str, folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(without_strace(folder)),
        process_group=0,
    )


def wait_for_load(demo: "subprocess.Popen[str]") -> None:
    assert demo.stderr is not None
    for line in demo.stderr:
        if "requests/s" in line:
            return
    raise AssertionError("it ended before the load began")


@once
def test_ctrl_c_ends_it_cleanly(tmp_path: Path) -> None:
    with start(*SMALL[:5], "--seconds", "60", folder=tmp_path) as demo:
        try:
            wait_for_load(demo)
            os.killpg(demo.pid, signal.SIGINT)
            out, err = demo.communicate(timeout=END_S)
        finally:
            demo.kill()
    assert demo.returncode == 1
    assert out == ""
    assert err.splitlines()[-1] == "interrupted"
    assert "Traceback" not in err


@once
def test_no_server_outlives_a_demo_that_was_killed(tmp_path: Path) -> None:
    with start(*SMALL[:5], "--seconds", "60", folder=tmp_path) as demo:
        try:
            wait_for_load(demo)
        finally:
            demo.kill()
        _, err = demo.communicate(timeout=END_S)
    assert "Traceback" not in err


@pytest.mark.skipif(
    not CHILDREN.exists(), reason="the server is found through /proc/PID/task/PID/children, absent here"
)
@once
def test_a_server_that_dies_under_load_is_one_error(tmp_path: Path) -> None:
    with start(*SMALL[:5], "--seconds", "60", folder=tmp_path) as demo:
        try:
            wait_for_load(demo)
            (server,) = Path(f"/proc/{demo.pid}/task/{demo.pid}/children").read_text().split()
            os.kill(int(server), signal.SIGKILL)
            _, err = demo.communicate(timeout=END_S)
        finally:
            demo.kill()
    assert demo.returncode == 1
    assert err.splitlines()[-1].startswith("the demo failed: ")
    assert "Traceback" not in err
    assert "never retrieved" not in err


@once
def test_a_server_that_does_not_come_up_is_an_error(tmp_path: Path) -> None:
    """A `fibers` without a server, found first by the child."""
    code = (
        "import sys\n"
        "from fibers.measure import process\n"
        "process._ROOT = sys.argv.pop(1)\n"
        "from fibers.__main__ import main\n"
        "sys.exit(main())\n"
    )
    (tmp_path / "fibers").mkdir()
    (tmp_path / "fibers" / "__init__.py").write_text("")
    child = run_python("-c", code, str(tmp_path), "demo", "--connections", "2", env=without_strace(tmp_path))
    assert child.returncode == 1
    assert child.stderr.splitlines()[-1] == "the demo failed: the server's process has ended"


HANGING = "import signal, time\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\ntime.sleep(600)\n"


@once
def test_a_server_that_hangs_is_killed_with_what_it_runs_under(tmp_path: Path) -> None:
    """The child of a shell, as it is the child of strace; the end of the pipes says that both are gone."""
    package = tmp_path / "fibers" / "measure"
    package.mkdir(parents=True)
    for name, source in {"../__init__": "", "__init__": "", "server": HANGING}.items():
        (package / f"{name}.py").write_text(source)
    code = (
        "import sys\n"
        "from fibers.measure import process\n"
        "process._ROOT, process.PATIENCE = sys.argv[1], 1.0\n"
        "with process.Server(600, ['/bin/sh', '-c', '\"$@\"; exit 0', 'sh']):\n"
        "    pass\n"
    )
    child = run_python("-c", code, str(tmp_path), timeout=END_S)
    assert child.stderr.splitlines()[-1].endswith("ServerEndedError: the server's process did not end and was killed")


@once
def test_the_kernel_ends_a_server_whose_time_is_over() -> None:
    with Server(1) as server:
        server.port()
        assert server._process.wait(END_S) == -signal.SIGALRM


# -- limits


def under_limit(soft: int, hard: int, *arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    code = (
        "import resource, runpy, sys\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
        "sys.argv[0] = 'fibers'\n"
        "runpy.run_module('fibers', run_name='__main__', alter_sys=True)\n"
    )
    return run_python("-c", code, *arguments, env=without_strace(folder))


needs_room = pytest.mark.skipif(
    0 <= resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 400, reason="the hard limit of open files is below 400"
)


@needs_room
@once
def test_a_low_soft_limit_is_raised(tmp_path: Path) -> None:
    child = under_limit(64, 400, "demo", "--connections", "200", "--seconds", "0.1", folder=tmp_path)
    assert child.returncode == 0, child.stderr
    assert rows_of(child.stdout)["connections"][0] == "200"
    assert "instead of" not in child.stderr


@needs_room
@once
def test_a_low_hard_limit_means_fewer_connections_and_is_said(tmp_path: Path) -> None:
    child = under_limit(128, 128, "demo", "--connections", "200", "--seconds", "0.1", folder=tmp_path)
    assert child.returncode == 0, child.stderr
    fits = 128 - BESIDES
    assert rows_of(child.stdout)["connections"][0] == str(fits)
    assert f"{fits} connections instead of 200: this process may have 128 open files" in child.stderr


@needs_room
@once
def test_a_limit_with_room_for_nothing_is_an_error(tmp_path: Path) -> None:
    child = under_limit(BESIDES, BESIDES, "demo", folder=tmp_path)
    assert child.returncode == 1
    assert "the demo failed: no connection fits" in child.stderr


def test_select_has_a_limit_of_its_own() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        count, remark = fit(5000, "select")
        assert count <= SELECT_MAX - BESIDES
        assert "instead of 5,000" in remark
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# -- the parts


def test_calls_are_counted_between_the_first_two_marks() -> None:
    log = [
        '10    recvfrom(5, ""..., 65536, 0, NULL, NULL) = 1024',
        "10    getppid() = 1",
        '10    recvfrom(5, ""..., 65536, 0, NULL, NULL) = 1024',
        '10    sendto(5, ""..., 1024, 0, NULL, 0 <unfinished ...>',
        "10    <... sendto resumed>) = 1024",
        '10    recvfrom(5, ""..., 65536, 0, NULL, NULL) = -1 EAGAIN (Resource temporarily unavailable)',
        "10    getppid() = 1",
        '10    sendto(5, ""..., 1024, 0, NULL, 0) = 1024',
        "10    +++ exited with 0 +++",
    ]
    assert syscalls.count(log) == Counter(recvfrom=2, sendto=1)
    assert syscalls.count(log[:6]) is None
    assert syscalls.count([]) is None


def test_no_strace_no_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("strace") is None
    assert syscalls.command(tmp_path / "log") is None


def test_percentiles() -> None:
    latencies = Latencies()
    with pytest.raises(ValueError, match="no request"):
        latencies.percentile(0.5)
    for milliseconds in range(1, 101):
        latencies.buckets[int(milliseconds * RESOLUTION / 1000)] += 1
    assert latencies.percentile(0.50) == pytest.approx(0.050, abs=2 / RESOLUTION)
    assert latencies.percentile(0.99) == pytest.approx(0.099, abs=2 / RESOLUTION)
    assert latencies.percentile(1.0) == pytest.approx(0.100, abs=2 / RESOLUTION)
