"""`python -m fibers info --backends`: the table of what each usable event loop costs.

The command is run small, and its figures are compared with what must be so: counts to the letter, never how fast a machine
is. What is said where something cannot be measured, and that a loop which wakes up would be seen, is tested on the parts.
"""

import dataclasses
import json
import os
import pty
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.once import once
from support.process import FAKE_KQUEUE, environment, run_python

from fibers.backends import counts, rounds, table
from fibers.backends.figures import Comparison, Figures, Plan, read
from fibers.eventloop import BACKEND, DEFAULT, available
from fibers.measure import process
from fibers.measure.limits import BESIDES
from fibers.measure.process import Server
from fibers.measure.progress import Progress

pytestmark = once

USABLE = [name for name, why_not in available().items() if why_not is None]
SMALL = ("-m", "fibers", "info", "--backends", "--rounds", "1", "--seconds", "0.05")
#: What each lifetime loop waits with, as strace calls it.
WAITS = {"epoll": {"epoll_wait", "epoll_pwait"}, "poll": {"poll", "ppoll"}, "select": {"select", "pselect6"}}
QUIET = Progress(plain=False)
LIMIT_S = 60.0


def strace_works() -> bool:
    strace = shutil.which("strace")
    return (
        strace is not None and subprocess.run([strace, "-o", os.devnull, "true"], capture_output=True).returncode == 0
    )


needs_strace = pytest.mark.skipif(not strace_works(), reason="strace is not installed, or may not trace here")


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    """What one small run says, as JSON."""
    child = run_python(*SMALL, "--json", timeout=LIMIT_S)
    assert child.returncode == 0, child.stderr
    assert child.stderr == "", "no terminal, no progress"
    facts: dict[str, Any] = json.loads(child.stdout)
    assert facts["backends"] == available(), "the rest of what info says is there too"
    found: dict[str, Any] = facts["measured"]
    return found


# -- what must be so


def test_every_usable_loop_has_been_measured(measured: dict[str, Any]) -> None:
    comparison = read(measured)
    assert list(comparison.rows) == USABLE
    assert comparison.failed == {}
    assert comparison.reference == ("epoll" if "epoll" in USABLE else DEFAULT)
    for name, figures in comparison.rows.items():
        assert len(figures.rate) == len(figures.cpu) == comparison.plan.rounds == 1
        assert min(*figures.rate, *figures.cpu) > 0, name
    assert comparison.ratio(comparison.reference, "cpu") == comparison.ratio(comparison.reference, "rate") == 1.0


def test_a_lifetime_loop_registers_a_connection_once_and_libevent_for_each_wait(measured: dict[str, Any]) -> None:
    comparison = read(measured)
    messages = comparison.plan.messages
    wanted = {name: float(messages) if name == "libevent" else 1.0 for name in USABLE}
    assert {name: figures.registrations for name, figures in comparison.rows.items()} == wanted


@needs_strace
@pytest.mark.skipif(FAKE_KQUEUE, reason="a system with a kqueue asks what can be read, one call more")
def test_what_a_recv_that_waits_costs_in_system_calls(measured: dict[str, Any]) -> None:
    """A lifetime loop: the wait and the recv. libevent: a recv in vain, to register, to wait, to unregister, the recv."""
    comparison = read(measured)
    assert comparison.not_counted == ""
    for name in WAITS.keys() & comparison.rows.keys():
        calls = comparison.rows[name].calls
        assert calls.pop("recvfrom") == 1.0
        ((wait, number),) = [(call, number) for call, number in calls.items() if number >= 0.05]
        assert wait in WAITS[name]
        assert number == 1.0
    if "libevent" in comparison.rows and "EVENT_NOEPOLL" not in os.environ:
        calls = comparison.rows["libevent"].calls
        assert calls["recvfrom"] == calls["epoll_ctl"] == 2.0
        assert sum(calls.values()) >= 5.0


def test_idle_connections_wake_nobody(measured: dict[str, Any]) -> None:
    assert {name: figures["wakeups"] for name, figures in measured["rows"].items()} == dict.fromkeys(USABLE, 0)


RESTLESS = {
    "a fiber": "fibers.spawn(lambda: [fibers.sleep(0.01) for _ in iter(int, 1)])",
    "a thread": "threading.Thread(target=lambda: [time.sleep(0.01) for _ in iter(int, 1)], daemon=True).start()",
}


@pytest.mark.parametrize("who", RESTLESS)
def test_a_server_that_wakes_up_would_be_seen(who: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fiber by the loop's turns, the thread, of which the loop does not know, by the kernel."""
    program = tmp_path / "restless.py"
    program.write_text(
        "import sys, threading, time\n"
        "import fibers\n"
        "from fibers.measure import server\n"
        f"fibers.run(lambda: ({RESTLESS[who]}, server.main(int(sys.argv[1]))))\n"
    )
    monkeypatch.setattr(process, "command", lambda module, *numbers: [sys.executable, program, *map(str, numbers)])
    comparison = Comparison(BACKEND, Plan(rounds=1, seconds=0.05, connections=2, idle=0.5), {BACKEND: Figures()})
    rounds.run(comparison, QUIET)
    assert comparison.failed == {}
    assert (comparison.rows[BACKEND].wakeups or 0) > 3


# -- how it is said


def test_the_table_for_people(tmp_path: Path) -> None:
    """On a terminal progress is shown, on stderr. Without strace no number stands where it would have."""
    ours, theirs = pty.openpty()
    with open(ours, "rb", buffering=0) as terminal:
        with open(theirs, "wb", buffering=0) as stderr:
            child = subprocess.run(
                [sys.executable, *SMALL], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, text=True,
                timeout=LIMIT_S, env=environment({"PATH": str(tmp_path)}), check=False,
            )  # fmt: skip
        said = terminal.read(65536).decode()
    assert child.returncode == 0, said
    assert "round 1 of 1: starting" in said
    assert all(f"round 1 of 1: {name}" in said for name in USABLE)
    facts, _, below = child.stdout.partition("\n\n")
    assert facts.startswith("fibers  ")
    rows = below.partition("\n\n")[0].splitlines()
    assert [row.split()[0] for row in rows[3:]] == USABLE
    for row in rows[3:]:
        assert " not counted " in row
        assert row.endswith("  strace is not installed")


EXAMPLE = Comparison(
    "epoll",
    Plan(rounds=3, seconds=0.5),
    {
        "epoll": Figures({"epoll_wait": 1.0, "recvfrom": 1.004}, 1.0, [100.0, 50.0, 10.0], [1e-6, 2e-6, 4e-6], 0),
        "libevent": Figures({"epoll_ctl": 2.0, "mmap": 0.001}, 1234.5, [50.0, 50.0, 2.0], [2e-6, 5e-6, 8e-6], 3),
        "poll": Figures({}, None, [], [], None),
    },
    failed={"poll": "the server's process has ended: out of luck"},
)
TEXT = """\
event loop     system calls  registrations  requests/s        CPU      idle  the system calls
            a blocking recv   a connection              a request  wake-ups
─────────────────────────────────────────────────────────────────────────────────────────────────────
epoll                     2              1       1.00×      1.00×         0  epoll_wait 1, recvfrom 1
libevent                  2       1,234.50       0.50×      2.00×         3  epoll_ctl 2
poll                      –              –           –          –         –  –
"""


def test_the_table_to_the_letter() -> None:
    drawn, _, below = table.text(EXAMPLE).partition("\n\n")
    assert drawn + "\n" == TEXT
    assert "(50/s, 2.0 µs)" in below
    assert "the median of 3 rounds in which the loops take turns of 0.5 s" in below.replace("\n", " ")
    assert below.endswith("Not all of poll could be measured: the server's process has ended: out of luck.")


def test_a_ratio_is_taken_inside_a_round() -> None:
    assert EXAMPLE.ratio("libevent", "cpu") == 2.0  # of 2, 2.5 and 2; medians over medians would say 2.5
    assert EXAMPLE.ratio("poll", "cpu") is None
    assert EXAMPLE.median("poll", "rate") is None


def test_it_survives_json() -> None:
    assert read(json.loads(json.dumps(dataclasses.asdict(EXAMPLE)))) == EXAMPLE


# -- when something cannot be measured


def counted(plan: Plan | None = None, name: str = BACKEND) -> Comparison:
    comparison = Comparison(name, plan or Plan(messages=3), {name: Figures()})
    counts.run(comparison)
    return comparison


def test_without_strace_registrations_are_counted_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    comparison = counted()
    assert comparison.not_counted == "strace is not installed"
    assert comparison.rows[BACKEND].calls == {}
    assert comparison.rows[BACKEND].registrations == (3.0 if BACKEND == "libevent" else 1.0)
    assert comparison.failed == {}


def test_strace_that_may_not_trace_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "strace"
    fake.write_text("#!/bin/sh\necho 'strace: ptrace(PTRACE_TRACEME): Operation not permitted' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    comparison = counted()
    assert comparison.not_counted == "strace failed: strace: ptrace(PTRACE_TRACEME): Operation not permitted"
    assert comparison.rows[BACKEND].registrations is not None
    assert comparison.failed == {}


def test_a_log_with_gaps_is_no_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "strace"
    fake.write_text('#!/bin/sh\n: > "$8"\nshift 9\nexec "$@"\n')  # what stands behind -o, and behind --
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    comparison = counted()
    assert comparison.not_counted == "strace's log has gaps"
    assert comparison.rows[BACKEND].calls == {}
    assert comparison.rows[BACKEND].registrations is not None


def test_a_loop_that_fails_is_named_and_the_others_go_on() -> None:
    comparison = Comparison(
        BACKEND, Plan(rounds=2, seconds=0.05, connections=2, idle=0.05, messages=3),
        {"nonsense": Figures(), BACKEND: Figures()},
    )  # fmt: skip
    rounds.run(comparison, QUIET)
    assert list(comparison.failed) == ["nonsense"]
    why = comparison.failed["nonsense"]
    assert why.startswith("the server's process has ended: ImportError: FIBERS_EVENTLOOP='nonsense' cannot be used")
    assert len(comparison.rows[BACKEND].cpu) == 2
    assert comparison.rows["nonsense"].cpu == []
    counts.run(comparison)
    assert comparison.rows[BACKEND].registrations is not None
    assert comparison.rows["nonsense"].registrations is None
    assert comparison.ratio(BACKEND, "cpu") == 1.0


def test_a_server_that_dies_under_load_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """At its second window, so that one round of it stands."""
    asked: list[Server] = []
    now = Server.now

    def dying(self: Server) -> Any:
        asked.append(self)
        if len(asked) == 3:
            os.kill(self._process.pid, signal.SIGKILL)
        return now(self)

    monkeypatch.setattr(Server, "now", dying)
    comparison = Comparison(BACKEND, Plan(rounds=2, seconds=0.05, connections=2, idle=0.05), {BACKEND: Figures()})
    rounds.run(comparison, QUIET)
    assert list(comparison.failed) == [BACKEND]
    assert len(comparison.rows[BACKEND].cpu) == 1


def under_limit(limit: int) -> "subprocess.CompletedProcess[str]":
    code = (
        "import resource\n"
        "from fibers.backends.conduct import compare\n"
        "from fibers.backends.figures import Plan\n"
        "from fibers.measure.progress import Progress\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))\n"
        "found = compare(Plan(rounds=1, seconds=0.05, idle=0.05, messages=3), Progress(plain=False))\n"
        "print(found.plan.connections, found.failed)\n"
    )
    return run_python("-c", code, timeout=LIMIT_S)


needs_room = pytest.mark.skipif(
    0 <= resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 400, reason="the hard limit of open files is below 400"
)


@needs_room
def test_a_low_limit_of_open_files_means_fewer_connections_and_is_said() -> None:
    limit = BESIDES + 2 * len(USABLE)
    child = under_limit(limit)
    assert child.stdout == "2 {}\n", child.stderr
    assert f"this process may have {limit} open files (ulimit -n); so 2 to each event loop" in child.stderr


@needs_room
def test_a_limit_with_room_for_too_little_is_an_error() -> None:
    child = under_limit(BESIDES + 1)
    assert child.returncode == 1
    assert child.stderr.splitlines()[-1].startswith("ValueError: not one connection fits: ")


def test_ctrl_c_ends_it_and_all_its_children() -> None:
    """The servers inherit stdout: it comes to its end when they have."""
    ours, theirs = pty.openpty()
    with open(ours, "rb", buffering=0) as terminal:
        with open(theirs, "wb", buffering=0) as stderr:
            child = subprocess.Popen(
                [sys.executable, *SMALL[:4], "--rounds", "1000"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=stderr, env=environment(), process_group=0,
            )  # fmt: skip
        try:
            said = b""
            while b"round 1 of 1000: " + BACKEND.encode() not in said:
                said += terminal.read(4096)
            os.killpg(child.pid, signal.SIGINT)
            out, _ = child.communicate(timeout=LIMIT_S)
        finally:
            child.kill()
            child.communicate()
        said = terminal.read(65536)
    assert child.returncode == 1
    assert out == b""
    assert b"interrupted" in said
    assert b"Traceback" not in said
