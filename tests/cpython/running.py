"""Runs one file of CPython's test suite in a process of its own, and again for the tests behind one that killed it.

Each test comes to one outcome: `ok`, `skip`, `xfail`, `fail`, `error`, or, if it was the last thing that its process began,
`hung` (over its time limit) or `died`. What has no name in the test suite gets one in parentheses: `test_x (import)`,
`test_x (exit)` for a process that has run all its tests and does not end, or ends with another status than 0.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent

#: Bytes of address space of a process.
MEMORY = 4 << 30
#: Seconds for one test; for one file; and for the interpreter to end after the last test.
TEST_LIMIT = 90.0
FILE_LIMIT = 1200.0
EXIT_LIMIT = 30.0
#: Processes for one file, at most: so many of its tests may hang or crash.
PROCESSES = 30
#: What the tests may use. Two files ask for the network and mean the loopback interface, or an address that nobody has.
RESOURCES = ("cpu", "subprocess", "walltime", "decimal")
NETWORK = frozenset({"test_timeout", "test_socketserver"})

#: How a child begins: with the package of this checkout, whatever is installed.
FIRST_LINES = (
    f"import sys; sys.path[:0] = [{str(TESTS)!r}, {str(ROOT)!r}]; from cpython.child import main; "
    f"sys.path.remove({str(TESTS)!r}); sys.exit(main(sys.argv.pop()))"
)


@dataclass
class Result:
    """What a test came to. `waits`: kernel waits and switches of fibers while it ran."""

    outcome: str
    detail: str = ""
    seconds: float = 0.0
    waits: int = 0


@dataclass
class FileRun:
    """What the tests of one file came to, by name."""

    file: str
    seconds: float = 0.0
    results: dict[str, Result] = field(default_factory=dict)
    listed: list[str] = field(default_factory=list)  # the names of all tests in the file, also of those left out

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "FileRun":
        results = {name: Result(**result) for name, result in data["results"].items()}
        return cls(data["file"], data["seconds"], results, data["listed"])


@dataclass(frozen=True)
class Order:
    """What a child process is to do. `limit`: seconds for one test. `folder`: where else files of tests are, for tests."""

    file: str
    patched: bool
    leave: tuple[str, ...] = ()
    limit: float = TEST_LIMIT
    memory: int = MEMORY
    folder: str | None = None

    @property
    def resources(self) -> tuple[str, ...]:
        """What `test.support.requires` grants."""
        return (*RESOURCES, "network") if self.file in NETWORK else RESOURCES

    def as_json(self, report: Path, leave: Iterable[str]) -> str:
        """For the process that reports to that file, and runs the file without the tests of `leave`."""
        return json.dumps(
            asdict(self) | {"leave": [*self.leave, *leave], "report": str(report), "resources": self.resources}
        )


def run_file(order: Order, log: Path, environment: dict[str, str]) -> FileRun:
    """Run a file. What its processes print goes to `log`."""
    run = FileRun(order.file)
    began = time.monotonic()
    for _ in range(PROCESSES):
        left = FILE_LIMIT - (time.monotonic() - began)
        if left <= 0 or _run_rest(run, order, log, environment, left):
            break
    run.seconds = round(time.monotonic() - began, 1)
    return run


def _run_rest(run: FileRun, order: Order, log: Path, environment: dict[str, str], limit: float) -> bool:
    """Run what is left of a file in one process; True if that was all that can be done."""
    with tempfile.TemporaryDirectory(prefix="fibers-cpython-") as folder, log.open("ab") as output:
        report = Path(folder, "report")
        report.touch()
        work = Path(folder, "work")
        work.mkdir()
        process = subprocess.Popen(
            [sys.executable, "-u", "-c", FIRST_LINES, order.as_json(report, run.results)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=work,
            env=environment | {"TMPDIR": folder},
            start_new_session=True,
        )
        try:
            status = _wait(process, report, limit)
        finally:
            _end_session(process)
        return _read(run, report.read_bytes(), status)


def _wait(process: "subprocess.Popen[bytes]", report: Path, limit: float) -> int | None:
    """The exit status; None if its time was up."""
    end = time.monotonic() + limit
    finished = None
    while True:
        try:
            return process.wait(0.25)
        except subprocess.TimeoutExpired:
            pass
        now = time.monotonic()
        if finished is None and report.read_bytes().endswith(b'{"ran": true}\n'):
            finished = now
        if now >= end or (finished is not None and now >= finished + EXIT_LIMIT):
            return None


def _end_session(process: "subprocess.Popen[bytes]") -> None:
    """Kill whatever the tests have left running, and this process in any case."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def _read(run: FileRun, lines: bytes, status: int | None) -> bool:
    """Add what a process has told. True if no further one is of use."""
    begun = None
    ran = loaded = False
    for line in lines.splitlines():
        told = json.loads(line)
        if "tests" in told:
            loaded = True
            run.listed = told["tests"]
        elif "begin" in told:
            begun = told["begin"]
        elif "end" in told:
            loaded = True
            begun = None
            name = told.pop("end")
            run.results[name] = Result(**told)
        else:
            ran = True
    if ran:
        exit_name = f"{run.file} (exit)"
        if status == 0:
            run.results.setdefault(exit_name, Result("ok"))
        else:
            how = "did not end" if status is None else f"ended with status {status}"
            run.results[exit_name] = Result("hung" if status is None else "died", f"the interpreter {how}")
        return True
    if begun is not None:
        # faulthandler exits with 1 when a test's time is up.
        outcome = "hung" if status in (None, 1) else "died"
        run.results[begun] = Result(outcome, f"the process ended with status {status} in this test")
        return status is None
    if not loaded:
        run.results[f"{run.file} (import)"] = Result("error", f"status {status} before any test: see the log")
        return True
    run.results[f"{run.file} (between tests)"] = Result("died", f"the process ended with status {status}")
    return True
