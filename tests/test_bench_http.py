"""The benchmark of the HTTP server: it can measure, what it counts and concludes is right, and what the pages say is what
was measured. (Ours alone is run here; the peers are for `make bench-http`.)
"""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.once import once
from support.process import ROOT

from bench.http import __main__ as command
from bench.http import goals, load, report
from bench.http.calls import between, kinds
from bench.http.conduct import FULL, QUICK, Plan
from bench.http.idle import held
from bench.http.load import Shape, Tools, find_tools
from bench.http.process import serving
from bench.http.servers import SERVERS, SUBJECT, Place, Server, version_in
from bench.marks import taken
from bench.results import Results, read

pytestmark = once

needs_compiler = pytest.mark.skipif(
    shutil.which("cc") is None or not Path("/proc/self/smaps_rollup").exists(),
    reason="the load of the benchmarks needs a C compiler, and their figures /proc",
)


@needs_compiler
def test_a_tiny_round_of_ours(tmp_path: Path) -> None:
    found = find_tools(tmp_path)
    tools = Tools("", found.own)  # wrk's shortest window is a second
    plan = Plan(rounds=1, warm=0.02, seconds=0.1, idle=60, servers=(SUBJECT,))
    results = empty()

    def keep(row: str, figures: dict[str, float]) -> None:
        results.add(row, SUBJECT, figures)

    with serving(SERVERS[SUBJECT], tmp_path, 8) as running:
        for path in ("/", "/10k", "/sleep"):
            running.check(path)
        for name, shape in (("hello", Shape("/", 8)), ("pipelined", Shape("/", 4, 16)), ("sleep", Shape("/sleep", 8))):
            figures = load.window(running, tools, shape, plan.warm, plan.seconds)
            assert figures["failures"] == figures["reopened"] == 0
            assert figures["rate"] > 10
            assert 0 < figures["p50"] <= figures["p99"]
            keep(name, {**figures, "pss": running.memory().pss})
        assert results.rows["sleep"][SUBJECT]["p50"][0] >= 9_900
        keep("idle", held(running, plan.idle, probes=20, quiet=0.02))
        assert len(running.processes()) == 1
        wrong = load.window(running, tools, Shape("/nowhere", 2), 0.0, 0.02)
        assert wrong["failures"] > 0
        with pytest.raises(RuntimeError, match="fibers has answered /nowhere with 404"):
            running.check("/nowhere")
    idle = {metric: values[0] for metric, values in results.rows["idle"][SUBJECT].items()}
    assert idle["held"] == idle["open"] == 60
    assert 0 < idle["p50"] <= idle["p99"]
    assert "hello, 64 connections" in report.text(results)
    assert running.processes() == []


def test_a_server_that_does_not_come_up_is_quoted(tmp_path: Path) -> None:
    def fails(_: Place) -> list[str]:
        return ["sh", "-c", "echo first; echo no such thing >&2; exit 3"]

    with (
        pytest.raises(RuntimeError, match="broken did not come up: no such thing"),
        serving(Server("broken", fails, lambda: ""), tmp_path, 8),
    ):
        pass


def test_a_machine_without_any_load_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="install wrk, or a C compiler"):
        find_tools(tmp_path)


def test_calls_are_counted_between_two_moments() -> None:
    log = """7 99.9 recvfrom(5, ""..., 10) = 3
7 100.0 recvfrom(5, ""..., 10) = 3
100.1 sendto(5, ""..., 3) = 3
8 100.2 epoll_wait(3,  <unfinished ...>
8 100.3 <... epoll_wait resumed>) = 1
8 100.4 futex(0x1, FUTEX_WAKE) = 1
8 100.5 epoll_ctl(3, EPOLL_CTL_MOD, 5) = 0
7 100.6 recvfrom(5, ""..., 10) = 3"""
    names = between(log.splitlines(), 100.0, 100.5)
    assert names == Counter(recvfrom=1, sendto=1, epoll_wait=1, futex=1, epoll_ctl=1)
    assert kinds(names) == {"recv": 1, "send": 1, "wait": 1, "epoll_ctl": 1, "other": 1}


def test_versions_are_read_from_what_programs_say() -> None:
    lines = ("nginx version: nginx/1.22.1", "go version go1.19.8 linux/amd64", "wrk debian/4.1.0-3 [epoll] (C) 2012")
    assert [version_in(line) for line in lines] == ["1.22.1", "1.19.8", "4.1.0-3"]


# -- goals and tables, of figures that are made up


def empty() -> Results:
    machine: dict[str, Any] = {"cpu": "a CPU", "cores": 2, "system": "Linux", "kernel": "6"}
    versions = {"python": "3.11", "implementation": "CPython", "wrk": "4.1"}
    return Results("2026-01-01T00:00:00", "abc", machine, versions, {"rounds": 2, "load": "wrk"})


def filled(ours: float = 20.0, idle: float = 990.0, failures: float = 0.0) -> Results:
    results = empty()
    figures = {"user": 1.0, "system": 1.0, "rate": 1000.0, "p50": 1500.0, "p99": 0.0, "reopened": 0.0, "pss": 2e7}
    for cpu in (ours, ours * 2):  # the second round on a machine that is half as fast
        scale = cpu / ours
        for name, cost in ((SUBJECT, ours), ("gunicorn gevent", 85.0), ("uvicorn", 50.0), ("nginx", 5.0)):
            failed = failures if name == SUBJECT else 0.0
            results.add("hello", name, {**figures, "cpu": cost * scale, "failures": failed})
    results.add("calls", SUBJECT, {"recv": 1.0, "send": 1.0, "wait": 1.0, "epoll_ctl": 0.0, "other": 0.0})
    results.add(
        "idle", SUBJECT, {"bytes": idle, "rss": 1.0, "held": 10, "idle_cpu": 0, "p50": 1, "p99": 2, "kernel": 7000.0}
    )
    return results


def verdicts(results: Results) -> dict[str, str]:
    return {goal.text: goal.verdict for goal in goals.goals(results)}


def test_goals_are_ratios_within_a_round() -> None:
    found = verdicts(filled())
    assert found["hello: CPU a request of gunicorn's gevent workers"] == "pass"  # 4.25 in each round
    assert found["hello: CPU a request of uvicorn with httptools"] == "pass"
    assert found["hello: the same on uvloop"] == "not measured"
    assert found["epoll_ctl a request on a keep-alive connection"] == "pass"
    assert found["memory of an idle connection, bytes"] == "pass"
    assert found["failed requests and broken connections"] == "pass"
    assert found["the gap, hello: CPU a request of nginx"] == "no goal"


def test_a_goal_that_is_missed_says_so() -> None:
    found = verdicts(filled(ours=25.0, idle=1_100.0, failures=3.0))
    assert found["hello: CPU a request of gunicorn's gevent workers"] == "fail, by 15%"
    assert found["memory of an idle connection, bytes"] == "fail, by 10%"
    assert found["failed requests and broken connections"] == "fail"


def test_the_sentence_never_flatters() -> None:
    assert report.floor(4.99) == "4.9"
    sentence = report.sentence(filled(ours=20.1))
    assert "gevent workers need 4.2 times as much" in sentence
    assert "uvicorn with httptools 2.4 times" in sentence
    with pytest.raises(ValueError, match="not all measured"):
        report.sentence(empty())


def test_a_peer_that_could_not_be_measured_is_named() -> None:
    results = filled()
    results.missing["granian"] = "not installed: granian"
    assert "not measured: granian: not installed: granian" in report.text(results)
    assert "not measured: granian: not installed: granian." in report.markdown(results)


def test_only_a_whole_run_is_published() -> None:
    assert command.plan_of(command.arguments([])) == FULL
    assert command.plan_of(command.arguments(["--quick"])) == QUICK
    options = command.arguments(["--only", "hello,idle", "--servers", "fibers,nginx", "--rounds", "1"])
    assert command.plan_of(options) == FULL._replace(rounds=1, sections=("hello", "idle"), servers=("fibers", "nginx"))
    with pytest.raises(SystemExit):
        command.arguments(["--servers", "apache"])


# -- the pages


@pytest.fixture(scope="module")
def kept() -> Results:
    return read(command.KEPT)


def test_the_pages_are_drawn_from_what_was_measured(kept: Results) -> None:
    assert taken(command.GUIDE.read_text("utf-8"), *command.MARKS) == report.markdown(kept)
    assert taken(command.README.read_text("utf-8"), *command.MARKS) == report.sentence(kept)
    assert command.PICTURE.read_bytes().startswith(b"\x89PNG")
    assert command.PICTURE.relative_to(ROOT / "docs").name in command.GUIDE.read_text("utf-8")


def test_it_was_a_whole_run_on_a_clean_checkout(kept: Results) -> None:
    assert kept.options["load"] == "wrk"
    assert int(kept.options["rounds"]) >= FULL.rounds
    assert not kept.commit.endswith("+")
    assert [goal.text for goal in goals.goals(kept) if goal.reach is not None and goal.value is None] == []


def test_the_goals_were_reached(kept: Results) -> None:
    assert [goal.text for goal in goals.goals(kept) if goal.met is False] == []
