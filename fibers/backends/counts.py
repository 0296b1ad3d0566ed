"""The counting: what an operation that has to wait costs, in system calls and in registrations.

A program of its own (measure/waits.py), under strace where there is one; its figures depend on nothing but the code, so the
event loops are counted side by side. Where strace is absent or may not trace, the program runs without it, for the
registrations alone.
"""

import os
import signal
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

from ..measure import syscalls
from ..measure.process import command, environment
from ..measure.waits import between_marks
from .figures import Comparison

#: Seconds that the program gets.
PATIENCE = 60
#: What each message costs its sender, and not who waits for it.
SEND = "sendto"


def run(comparison: Comparison) -> None:
    """Fill in what is counted. Blocks the thread."""
    with tempfile.TemporaryDirectory() as folder:
        logs = {name: Path(folder, name) for name in comparison.rows}
        if syscalls.command(Path(folder)) is None:
            comparison.not_counted = "strace is not installed"
        else:
            failed = _children(comparison, logs)
            if not failed:
                _read(comparison, logs)
                return
            comparison.not_counted = f"strace failed: {next(iter(failed.values()))}"
    comparison.failed.update(_children(comparison, {}))


def _read(comparison: Comparison, logs: dict[str, Path]) -> None:
    recvs = between_marks(comparison.plan.messages)
    for name, log in logs.items():
        with open(log, errors="replace") as lines:
            calls: Counter[str] | None = syscalls.count(lines)
        if calls is None:
            comparison.not_counted = "strace's log has gaps"
            continue
        comparison.rows[name].calls = {call: count / recvs for call, count in calls.most_common() if call != SEND}


def _children(comparison: Comparison, logs: dict[str, Path]) -> dict[str, str]:
    """Run the program on every event loop, under strace if there is a log for it. Returns those that failed, and how."""
    failed: dict[str, str] = {}
    children: dict[str, subprocess.Popen[str]] = {}
    try:
        for name in comparison.rows:
            prefix = syscalls.command(logs[name]) if name in logs else None
            children[name] = subprocess.Popen(
                [*(prefix or ()), *command("waits", comparison.plan.messages, PATIENCE)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment(name),
                process_group=0,
            )
        for name, child in children.items():
            out, err = child.communicate(timeout=2 * PATIENCE)
            if child.returncode == 0:
                comparison.rows[name].registrations = float(out)
            else:
                lines = err.splitlines() or [f"exit status {child.returncode}"]
                failed[name] = lines[0] if name in logs else lines[-1]
    finally:
        for child in children.values():
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)  # strace and what it traces
            child.wait()
            for pipe in (child.stdout, child.stderr):
                assert pipe is not None
                pipe.close()
    return failed
