"""Child processes for tests: what may crash, fork, hang or end an interpreter does so outside the test's
process.

A child must find the package when nobody has installed it, and must never outlive its test: every run has a
time limit, after which the child is killed and the test fails with what the child had printed so far.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

#: Does this run stand on a kqueue that its children have only if they get PYTHONPATH? (make test-fake-kqueue)
FAKE_KQUEUE: Final = os.environ.get("FIBERS_TEST_FAKE_KQUEUE") == "1"

ROOT: Final = Path(__file__).resolve().parents[2]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment with the repository importable, plus `extra`. Its PYTHONPATH comes first, not instead."""
    extra = dict(extra or {})
    paths = [extra.pop("PYTHONPATH", ""), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **extra}


def run_python(
    *arguments: str | os.PathLike[str],
    timeout: float = 60.0,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run this interpreter with `arguments` (`"-c", code` or a path) for at most `timeout` seconds.

    Never raises for an exit status: the caller asserts on `.returncode`, `.stdout` and `.stderr`. Raises
    AssertionError, with the output so far, when the time is up.
    """
    command: Sequence[str | os.PathLike[str]] = [sys.executable, *arguments]
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=environment(env),
            cwd=cwd,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        raise AssertionError(
            f"{command} was still running after {timeout:g} s\n"
            f"-- stdout\n{_text(late.stdout)}\n-- stderr\n{_text(late.stderr)}"
        ) from None


def _text(output: str | bytes | None) -> str:
    if output is None:
        return ""
    return output.decode(errors="replace") if isinstance(output, bytes) else output
