"""What CI relies on to say that no event loop was left out: a run of the whole suite that went well notes its loop, and
`make tested` compares the notes with what is usable.

The runs are small suites of their own, in child processes.
"""

from pathlib import Path

import pytest
from support import tested
from support.once import once
from support.process import ROOT, run_python

from fibers.eventloop import BACKEND, DEFAULT, available

pytestmark = once

USABLE = [name for name, why_not in available().items() if why_not is None]
CONFTEST = """
from support import tested

def pytest_sessionfinish(session, exitstatus):
    tested.note(session, exitstatus)
"""


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "record"
    monkeypatch.setenv(tested.VARIABLE, str(path))
    return path


def run_suite(folder: Path, *arguments: str, **env: str) -> int:
    """A suite of two tests, one of which fails where BAD is set. Returns the exit status."""
    suite = folder / "suite"
    suite.mkdir(exist_ok=True)
    (folder / "pytest.ini").write_text(f"[pytest]\ntestpaths = suite\npythonpath = {ROOT / 'tests'}\n")
    (suite / "conftest.py").write_text(CONFTEST)
    (suite / "test_good.py").write_text("def test_good(): pass\n")
    (suite / "test_other.py").write_text("import os\n\ndef test_other(): assert not os.environ.get('BAD')\n")
    known = {"FIBERS_DEBUG": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return run_python("-m", "pytest", "-q", *arguments, cwd=folder, env={**known, **env}).returncode


def test_a_whole_run_notes_the_loop_that_it_ran_on(record: Path, tmp_path: Path) -> None:
    for name in USABLE:
        assert run_suite(tmp_path, FIBERS_EVENTLOOP=name) == 0
    assert record.read_text() == "".join(f"{name}\n" for name in USABLE)
    assert tested.noted() == USABLE
    if "libevent" in USABLE:
        assert tested.faults() == []
        assert tested.main("check") == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["-k", "good"],
        ["--deselect", "suite/test_other.py::test_other"],
        ["--ignore", "suite/test_other.py"],
        ["--ignore-glob", "*other*"],
        ["suite/test_good.py"],
        ["suite"],
    ],
    ids=" ".join,
)
def test_a_part_of_the_suite_notes_nothing(arguments: list[str], record: Path, tmp_path: Path) -> None:
    assert run_suite(tmp_path, *arguments) == 0
    assert not record.exists()


def test_a_run_that_found_a_fault_notes_nothing(record: Path, tmp_path: Path) -> None:
    assert run_suite(tmp_path, BAD="1") == 1
    assert not record.exists()


def test_a_run_on_checked_loops_is_no_run_on_the_loops_themselves(record: Path, tmp_path: Path) -> None:
    assert run_suite(tmp_path, FIBERS_DEBUG="loop") == 0
    assert not record.exists()


def test_this_suite_takes_notes() -> None:
    assert "tested.note(session, exitstatus)" in (ROOT / "tests" / "conftest.py").read_text("utf-8")


def test_what_is_left_is_what_is_usable_and_not_noted(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tested.main("left") == 0
    assert capsys.readouterr().out.split() == USABLE
    record.write_text(f"{BACKEND}\n")
    assert tested.main("left") == 0
    assert capsys.readouterr().out.split() == [name for name in USABLE if name != BACKEND]


def test_a_loop_that_was_left_out_is_a_fault_and_named(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record.write_text("".join(f"{name}\n" for name in USABLE if name != BACKEND))
    assert tested.main("check") == 1
    said = capsys.readouterr().err
    assert f"{BACKEND} is usable here, and the whole suite has not passed on it\n" in said
    assert said.count("usable here, and") == 1


def test_a_missing_libevent_is_a_fault_a_missing_system_call_is_none(
    record: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record.write_text("epoll\n")
    known = {"epoll": None, "kqueue": "this platform (linux) has no kqueue", "libevent": "install it"}
    monkeypatch.setattr(tested, "available", lambda: known)
    assert tested.faults() == ["libevent is not usable here: install it"]


def test_the_others_are_all_but_the_default(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = dict.fromkeys(("one", DEFAULT, "two")) | {"three": "no such thing"}
    monkeypatch.setattr(tested, "available", lambda: known)
    assert tested.main("others") == 0
    assert capsys.readouterr().out == "one two\n"


def test_no_record_no_judgement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(tested.VARIABLE, raising=False)
    (fault,) = tested.faults()
    assert fault.startswith("FIBERS_TESTED does not name the file")


def test_no_usable_loop_is_an_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(tested, "available", lambda: {"epoll": "no luck"})
    assert tested.main("left") == 1
    assert capsys.readouterr().err == "no event loop is usable here\n"


def test_ci_runs_them_all_and_asks_in_the_end() -> None:
    lines = (ROOT / ".ci/run").read_text("utf-8").splitlines()
    steps = [line.strip() for line in lines if line.strip().startswith("step ")]
    assert "step make test" in steps
    backends = [step for step in steps if "make test-other-backends" in step]
    assert len(backends) == 1
    assert "TEST_BACKENDS" not in backends[0], "with a list of loops, one could be forgotten"
    assert steps[-1] == lines[-1] == "step make tested"
    assert "export FIBERS_TESTED" in lines
