"""One process, one runtime, one workload.

`python -m bench.child <contender> <name>[,<name>] <scale> <samples>`.

How much work a sample does is found out here: a small first run (which also warms caches, pools and the
allocator) tells the cost of one unit, and the samples are sized to the CPU seconds that the table of
workloads names -> fast and slow runtimes are measured for about equally long. Two names are measured turn
by turn, in one process: their ratio is then free of the drift between processes. Prints one line of JSON:
name -> list of samples.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable

from bench import material
from bench.runtimes import split, workload
from bench.sample import Sample

READABLE = 0.03
"""Seconds of CPU that a run must cost to tell the cost of a unit."""


def units_for(work: Callable[[int], Sample], seconds: float) -> int:
    """How many units of `work` cost about `seconds` of CPU.

    At least 1. A unit can be a message or a thousand spawns.
    """
    n = 1
    while (first := work(n)).cpu < min(READABLE, seconds):
        n *= 4
    return max(1, round(seconds * n / first.cpu))


def measure(contender: str, names: list[str], scale: float, samples: int) -> dict[str, list[Sample]]:
    """Samples of each named workload, interleaved. `scale` multiplies the seconds of the table."""
    runtime, flavour = split(contender)
    table = importlib.import_module(f"bench.runtimes.on_{runtime}").WORKLOADS
    work = {name: table[name, flavour] for name in names}
    count = {}
    for name in names:
        row = workload(name)
        count[name] = row.units or units_for(work[name], row.seconds * scale)
    results: dict[str, list[Sample]] = {name: [] for name in names}
    # Work of a fixed size is done once: what it leaves behind would serve a second sample.
    for _ in range(1 if any(workload(name).units for name in names) else samples):
        for name in names:
            results[name].append(work[name](count[name]))
    return results


def main() -> None:
    """Measure, print, and leave without tearing down a million timers."""
    contender, names, scale, samples = sys.argv[1:]
    material.raise_fd_limit()
    results = measure(contender, names.split(","), float(scale), int(samples))
    print(json.dumps(results), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
