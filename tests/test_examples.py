"""Every example is a program that checks itself: `examples/x.py --check` does its work on a small scale and
ends.

Example code is copied into other people's programs, so it must also be tidy: a warning about an unclosed
resource counts as a failure, although the interpreter, which prints it from a finaliser, cannot turn it into
an exit status.
"""

from pathlib import Path

import pytest
from support.process import ROOT, run_python

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def test_there_are_examples() -> None:
    assert EXAMPLES


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path: Path, tmp_path: Path) -> None:
    child = run_python(path, "--check", timeout=60, cwd=tmp_path, env={"PYTHONWARNINGS": "error::ResourceWarning"})
    said = f"{child.stdout}\n{child.stderr}"
    assert child.returncode == 0, said
    assert "ResourceWarning" not in child.stderr, said
    assert "Traceback" not in child.stderr, said
