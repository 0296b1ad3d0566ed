"""System calls a request, from strace's log of a server that ran under it.

A summary (`strace -c`) would mix the start of the interpreter with the requests. So every call is logged, and those
count that stand between the first and the second of the marks that the server makes (server.py). strace makes every call
some ten times slower, hence a run of its own whose other figures are not used. The calls do not depend on the speed,
save for the kernel waits: a slower server finds more requests at each.
"""

import re
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

MARK = "getppid"
_CALL = re.compile(r"(?:\d+ +)?(\w+)\(")


def command(log: Path) -> list[str] | None:
    """The command to run a server under, or None where strace is not installed."""
    strace = shutil.which("strace")
    if strace is None:
        return None
    return [strace, "-f", "-qq", "-s", "0", "-e", "signal=none", "-o", str(log), "--"]


def count(lines: Iterable[str]) -> Counter[str] | None:
    """Calls by name between the first two marks of a log; None if it does not have them both."""
    found: Counter[str] = Counter()
    began = False
    for line in lines:
        call = _CALL.match(line)
        if call is None:
            continue  # the end of an interrupted call, an exit
        if call[1] != MARK:
            found[call[1]] += began
        elif began:
            return +found
        else:
            began = True
    return None
