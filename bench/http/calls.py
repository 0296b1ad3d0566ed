"""System calls of a request on a keep-alive connection, counted by strace.

The server runs under strace from its start, which writes down every call with the time of day. Connections are made and ask
once; what counts is what happens between two moments after that, in which each of them asks again, one at a time. (A
summary, `-c`, would count start and connecting as well.)
"""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from bench.http.idle import Holder
from bench.http.process import serving
from bench.http.servers import Server
from bench.syscalls import RECEIVES, SENDS, WAITS

CONNECTIONS = 200
LINE = re.compile(r"^(?:\d+ +)?(\d+\.\d+) (\w+)\(")


def counted(server: Server, folder: Path, threads: int) -> dict[str, float]:
    """Figures, each a request: `recv`, `send`, `wait`, `epoll_ctl`, and `other` calls. RuntimeError without strace."""
    if shutil.which("strace") is None:
        raise RuntimeError("strace is not installed")
    with tempfile.TemporaryDirectory() as own:
        log = Path(own) / "calls"
        prefix = ["strace", "-f", "-qq", "-ttt", "-s", "0", "-e", "signal=none", "-o", str(log)]
        with serving(server, folder, threads, prefix) as running:
            with Holder(running, CONNECTIONS, CONNECTIONS) as holder:
                began = time.time()
                took, _ = holder.probe()
                ended = time.time()
        with log.open(encoding="utf-8", errors="replace") as lines:
            names = between(lines, began, ended)
    return {kind: number / len(took) for kind, number in kinds(names).items()}


def between(lines: Iterable[str], began: float, ended: float) -> Counter[str]:
    """How often each call was begun between two moments, in a log of `strace -ttt`."""
    found: Counter[str] = Counter()
    for line in lines:
        match = LINE.match(line)
        if match is not None and began <= float(match[1]) <= ended:
            found[match[2]] += 1
    return found


def kinds(names: Counter[str]) -> dict[str, int]:
    """The same by what the calls are for."""
    found = {"recv": 0, "send": 0, "wait": 0, "epoll_ctl": 0, "other": 0}
    for name, number in names.items():
        if name in RECEIVES:
            found["recv"] += number
        elif name in SENDS:
            found["send"] += number
        elif name in WAITS:
            found["wait"] += number
        elif name == "epoll_ctl":
            found["epoll_ctl"] += number
        else:
            found["other"] += number
    return found
