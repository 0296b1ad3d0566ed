"""Scenarios that need a process of their own (signals, fork), run on every kind of loop in one child process.

A scenario is the source of a function `scenario(kind)`, in whose process `kind` makes loops for the main thread. What it
prints for each kind is what its tests look at. One child for all kinds, because to start an interpreter costs more than
most scenarios do; a kind that dies takes those behind it along, and each of their tests shows how.
"""

import os
from functools import cache
from textwrap import dedent
from typing import Final

from .loops import OF_THIS_RUN, USABLE, Kind
from .process import ROOT, run_python

TESTS: Final = ROOT / "tests"

_HEAD: Final = """
import faulthandler, os, signal, socket as std, sys, threading, time
faulthandler.enable()
import fibers
from fibers import lowlevel
from fibers.eventloop import ownership
from fibers.io import socket
from fibers.core.scheduler import get_scheduler
from fibers.threads.to_thread import to_thread
from support.loops import BY_NAME
from support.waiting import Target, Waiter, looks, wait, woken
"""

_TAIL: Final = """
for kind in [BY_NAME[name] for name in sys.argv[1:]]:
    print("==", kind, flush=True)
    scenario(kind)
    sys.stdout.flush()
print("== all", flush=True)
"""


@cache
def _run(scenario: str, kinds: tuple[str, ...]) -> tuple[dict[str, list[str]], str]:
    program = _HEAD + dedent(scenario) + _TAIL
    env = {"PYTHONPATH": f"{ROOT}{os.pathsep}{TESTS}"}
    child = run_python("-W", "ignore::DeprecationWarning", "-c", program, *kinds, env=env, timeout=100)
    lines: dict[str, list[str]] = {}
    kind = ""
    for line in child.stdout.splitlines():
        if line.startswith("== "):
            kind = line[3:]
            lines[kind] = []
        else:
            lines.setdefault(kind, []).append(line)
    return lines, child.stderr


def printed(scenario: str, kind: Kind) -> list[str]:
    """What the scenario printed for this kind. Fails if the child did not come to its end, or said anything on stderr."""
    every = [each for each in OF_THIS_RUN if each in USABLE]
    lines, errors = _run(scenario, tuple(map(str, every if kind in every else [kind])))
    assert "all" in lines, f"it ended at {list(lines)[-1:]}\n{errors}"
    assert errors == ""
    return lines[str(kind)]
