"""The micro workloads under pytest-benchmark, for one runtime: what one edits code against.

    python -m pytest bench/test_micro.py -k yield --benchmark-autosave
    FIBERS_BENCH_RUNTIME=gevent python -m pytest bench/test_micro.py

A plug-in cannot alternate between runtimes -> compare a runtime with itself here, and runtimes with `python
-m bench`. The plug-in times whole calls, preparation included, on the CPU clock; the figure of the work
alone stands in `extra_info`.
"""

from __future__ import annotations

import importlib
import os
import time
from typing import Any

import pytest

from bench import material
from bench.child import units_for
from bench.results import micro_figures
from bench.runtimes import RUNTIMES, WORKLOADS, split, workload
from bench.sample import Sample

RUNTIME = os.environ.get("FIBERS_BENCH_RUNTIME", "fibers")
if RUNTIME not in RUNTIMES:
    raise ValueError(f"FIBERS_BENCH_RUNTIME is {RUNTIME!r}; it must be one of {', '.join(RUNTIMES)}")

CASES = [(row.name, name) for row in WORKLOADS for name in row.contenders if split(name)[0] == RUNTIME]
ROUNDS = 5


# eventlet announces its retirement when it is imported, and that is no error of ours.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize(("name", "contender"), CASES)
def test_micro(benchmark: Any, name: str, contender: str) -> None:
    runtime, flavour = split(contender)
    material.raise_fd_limit()
    work = importlib.import_module(f"bench.runtimes.on_{runtime}").WORKLOADS[name, flavour]
    row = workload(name)
    units = row.units or units_for(work, row.seconds)
    samples: list[Sample] = []
    benchmark.group = name
    benchmark.pedantic(
        lambda: samples.append(work(units)), rounds=1 if row.units else ROUNDS, iterations=1, warmup_rounds=0
    )
    benchmark.extra_info.update(micro_figures(samples))
    # Every sample did the same work, and did it.
    assert {sample.operations for sample in samples} == {samples[0].operations}
    assert all(sample.cpu > 0.0 for sample in samples)
