"""Every example is a program that checks itself: `examples/x.py --check` does its work on a small scale and
ends, and prints the same on every event loop, byte by byte.

Example code is copied into other people's programs, so it must also be tidy: a warning about an unclosed
resource counts as a failure, although the interpreter, which prints it from a finaliser, cannot turn it into
an exit status.
"""

import subprocess
import sys
from pathlib import Path

import pytest
from support.once import once
from support.process import ROOT, environment

from fibers.eventloop import BACKEND, available

pytestmark = once

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
USABLE = [name for name, why_not in available().items() if why_not is None]
LIMIT_S = 60.0


def test_there_are_examples_and_loops_to_compare() -> None:
    assert EXAMPLES
    assert len(USABLE) > 1


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs_and_prints_the_same_on_every_loop(path: Path, tmp_path: Path) -> None:
    printed = run_everywhere(path, tmp_path)
    assert printed[BACKEND], "it says nothing of what it has done"
    assert printed == dict.fromkeys(USABLE, printed[BACKEND])


def run_everywhere(path: Path, folder: Path) -> dict[str, bytes]:
    """Run the program on every usable loop, side by side: what it printed on each. Fails if it is not clean on one."""
    children: dict[str, subprocess.Popen[bytes]] = {}
    printed: dict[str, bytes] = {}
    try:
        for name in USABLE:
            children[name] = subprocess.Popen(
                [sys.executable, path, "--check"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=folder,
                env=environment({"FIBERS_EVENTLOOP": name, "PYTHONWARNINGS": "error::ResourceWarning"}),
            )
        for name, child in children.items():
            out, err = child.communicate(timeout=LIMIT_S)
            said = f"on {name}:\n{out.decode(errors='replace')}\n{err.decode(errors='replace')}"
            assert child.returncode == 0, said
            assert b"ResourceWarning" not in err, said
            assert b"Traceback" not in err, said
            printed[name] = out
    finally:
        for child in children.values():
            child.kill()
            child.communicate()
    return printed


# -- the comparison itself, on programs that are not good


@pytest.mark.parametrize(
    ("program", "fault"),
    [
        ("raise SystemExit('no luck')", "no luck"),
        ("file = open(__file__); del file", "ResourceWarning"),
        ("import threading\nthreading.Thread(target=lambda: 1 / 0).start()", "Traceback"),
    ],
)
def test_bad_programs_fail(program: str, fault: str, tmp_path: Path) -> None:
    path = tmp_path / "example.py"
    path.write_text(program)
    with pytest.raises(AssertionError, match=fault):
        run_everywhere(path, tmp_path)


def test_a_program_that_tells_the_loops_apart_would_be_seen(tmp_path: Path) -> None:
    path = tmp_path / "example.py"
    path.write_text("from fibers.eventloop import BACKEND\nprint(BACKEND)\n")
    assert run_everywhere(path, tmp_path) == {name: f"{name}\n".encode() for name in USABLE}
