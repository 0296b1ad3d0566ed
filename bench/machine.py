"""Where and with what a run was made: kept with the figures, because figures without it say nothing."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

DISTRIBUTIONS = ("fibers-runtime", "greenlet", "gevent", "eventlet", "uvloop", "trio")


def processor() -> str:
    """The model of the CPU, as the system calls it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except FileNotFoundError:
        return platform.processor() or platform.machine()
    return platform.machine()


def machine() -> dict[str, str | int]:
    """CPU, cores, system and kernel; nothing that identifies the machine."""
    return {
        "cpu": processor(),
        "cores": os.cpu_count() or 1,
        "system": platform.system(),
        "kernel": platform.release(),
    }


def versions(distributions: Iterable[str] = DISTRIBUTIONS) -> dict[str, str]:
    """Python and those of the distributions that are installed."""
    found = {"python": platform.python_version(), "implementation": platform.python_implementation()}
    for name in distributions:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit(root: Path) -> str:
    """The commit of the checkout, "+" added when tracked files differ from it; "" outside a checkout."""
    try:
        head = git(root, "rev-parse", "--short=12", "HEAD")
    except (OSError, subprocess.CalledProcessError):
        return ""
    changed = git(root, "status", "--porcelain", "--untracked-files=no")
    return head + ("+" if changed else "")


def git(root: Path, *command: str) -> str:
    """What a git command prints; raises CalledProcessError when it fails, OSError without git."""
    done = subprocess.run(["git", "-C", str(root), *command], capture_output=True, text=True, check=True)
    return done.stdout.strip()
