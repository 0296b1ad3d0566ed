"""What idle keep-alive connections cost a server: memory, and how fast one of many comes back to life.

Memory is the difference between a server that has served some hundred connections, which have gone, and the same one with
thousands that have asked once and say nothing. It is the processes' own (PSS); what the kernel needs for a connection is the
same for everybody, does not show in any process, and is estimated from its slab caches: for both ends together, since both
are on this machine, and only if that is quiet.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from pathlib import Path
from typing import Self

from bench.echo.run import PYTHON, ROOT, answer
from bench.http.process import Running, cores

WARM = 200
"""Connections that have been and gone before memory is first read."""
PROBES = 1000
QUIET = 0.5
"""Seconds of idleness in which the server's CPU time is looked at."""


def slab() -> int:
    """Bytes in the kernel's slab caches; 0 if they are not shown."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("Slab:"):
            return int(line.split()[1]) * 1024
    return 0


def held(running: Running, count: int, probes: int = PROBES, quiet: float = QUIET) -> dict[str, float]:
    """Figures: `bytes` and `rss` a connection, `kernel` bytes a connection (both ends), `p50` and `p99` in microseconds of
    an answer on a connection that was idle, `idle_cpu` (milliseconds a second, while nothing happens), connections that
    were `held` at first, and `open` at the end. RuntimeError if the client could not do it.
    """
    with Holder(running, WARM, 1):
        pass
    before, kernel = running.memory(), slab()
    with Holder(running, count, probes) as holder:
        spent = sum(running.spent())
        time.sleep(quiet)  # not to wait for anything: it is what is measured
        idle = (sum(running.spent()) - spent) / quiet * 1000
        count = holder.count
        after, kernel_after = running.memory(), slab()
        took, still_open = holder.probe()
    return {
        "bytes": (after.pss - before.pss) / count,
        "rss": (after.rss - before.rss) / count,
        "kernel": (kernel_after - kernel) / count,
        "p50": statistics.median(took),
        "p99": sorted(took)[int(len(took) * 0.99)],
        "idle_cpu": idle,
        "held": count,
        "open": still_open,
    }


class Holder:
    """The client's process. Inside, all its `count` connections are idle."""

    def __init__(self, running: Running, count: int, probes: int) -> None:
        command = [*cores()[1], *PYTHON, "bench.http.holder", str(running.port), str(count), str(probes)]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.count = 0

    def __enter__(self) -> Self:
        try:
            self.count = int(self._answer())
        except BaseException:
            self.__exit__()
            raise
        return self

    def probe(self) -> tuple[list[float], int]:
        """How long the answers took, in microseconds; and how many connections are open still."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        result = json.loads(self._answer())
        return result["took"], result["open"]

    def _answer(self) -> str:
        try:
            return answer(self._process.stdout, "the client")
        except RuntimeError as error:
            assert self._process.stderr is not None
            words = self._process.stderr.read().strip().splitlines() or [str(error)]
            raise RuntimeError(words[-1]) from None

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
