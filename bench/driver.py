"""Running the suite: which processes, in which order.

For each round and each workload, every contender once, in a process of its own: A B C ... A B C ... .
Contenders that are compared stand seconds apart. The order turns by one place each round, so that nobody is
always the one that comes after the most expensive neighbour.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench import material
from bench.echo.run import PYTHON, ROOT, Tools, build, measure
from bench.progress import Progress
from bench.results import Results, echo_figures, micro_figures
from bench.runtimes import C_LOOP, ECHO_AT, ECHO_CONNECTIONS, WORKLOADS, split
from bench.sample import Sample

CHILD_LIMIT = 120.0
"""Seconds after which a child counts as hung."""


class Plan(NamedTuple):
    """What to run.

    `scale` multiplies the CPU seconds of samples, `seconds` is the echo window; `rows` and `runtimes`
    choose.
    """

    rounds: int
    samples: int
    scale: float
    seconds: float
    rows: tuple[str, ...]
    runtimes: tuple[str, ...]


class Job(NamedTuple):
    """One process (micro) or two (echo).

    `names` holds the rows it measures; `connections` is 0 for a micro workload.
    """

    contender: str
    names: tuple[str, ...]
    connections: int


def jobs(plan: Plan) -> list[list[Job]]:
    """The jobs in groups: the contenders of one group are compared with each other."""
    groups = []
    covered: set[str] = set()
    for row in WORKLOADS:
        if row.name in plan.rows and row.name not in covered:
            # Partners are measured by one process, turn by turn.
            names = (row.name, row.partner) if row.partner in plan.rows else (row.name,)
            covered.update(names)
            groups.append([Job(contender, names, 0) for contender in row.contenders])
    for count in ECHO_CONNECTIONS:
        if f"echo_{count}" in plan.rows:
            groups.append([Job(contender, (f"echo_{count}",), count) for contender in ECHO_AT[count]])
    chosen = {*plan.runtimes, C_LOOP}
    return [[job for job in group if split(job.contender)[0] in chosen] for group in groups]


def probe(runtime: str) -> str:
    """Why a runtime cannot run here: the last line of what its import printed; "" if it can."""
    command = [PYTHON[0], "-W", "ignore", "-c", f"import bench.runtimes.on_{runtime}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else last_line(done.stderr)


def last_line(text: str) -> str:
    """The last line that says something."""
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else "no message"


def run_micro(job: Job, plan: Plan) -> dict[str, dict[str, float]]:
    """One child process: row -> figures. RuntimeError with the child's last words if it fails or hangs."""
    numbers = [job.contender, ",".join(job.names), str(plan.scale), str(plan.samples)]
    command = [*PYTHON, "bench.child", *numbers]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=CHILD_LIMIT, check=False)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"no result within {CHILD_LIMIT:.0f} s") from error
    if done.returncode != 0:
        raise RuntimeError(last_line(done.stderr))
    measured = json.loads(done.stdout)
    return {name: micro_figures([Sample(*sample) for sample in samples]) for name, samples in measured.items()}


def run_job(job: Job, plan: Plan, tools: Tools, results: Results) -> None:
    """Run one job and keep its figures, or why there are none."""
    try:
        if job.connections:
            echo = measure(job.contender, tools, job.connections, 0.3, plan.seconds)
            figures = {job.names[0]: echo_figures(echo)}
        else:
            figures = run_micro(job, plan)
    except RuntimeError as error:
        results.missing[f"{job.names[0]} {job.contender}"] = str(error)
        return
    for name, values in figures.items():
        results.add(name, job.contender, values)


def run(plan: Plan, results: Results) -> None:
    """Fill `results`.

    A contender that fails once is left out of that row from then on, and named in `missing`.
    """
    material.raise_fd_limit()
    reasons: dict[str, str] = {runtime: reason for runtime in plan.runtimes if (reason := probe(runtime))}
    with tempfile.TemporaryDirectory() as folder:
        tools = build(Path(folder))
        if tools.server is None and any(row.startswith("echo") for row in plan.rows):
            reasons[C_LOOP] = "needs a C compiler and epoll"
        results.options["load"] = tools.load_language
        results.missing.update(reasons)
        groups = [able(group, reasons) for group in jobs(plan)]
        progress = Progress(plan.rounds * max(1, sum(map(len, groups))))
        for number in range(plan.rounds):
            for group in groups:
                turn = number % max(1, len(group))
                for job in group[turn:] + group[:turn]:
                    progress.show(f"round {number + 1}: {job.names[0]} {job.contender}")
                    if f"{job.names[0]} {job.contender}" not in results.missing:
                        run_job(job, plan, tools, results)
                    progress.step()
        progress.close()


def able(group: Sequence[Job], reasons: dict[str, str]) -> list[Job]:
    """The jobs whose runtime works here."""
    return [job for job in group if split(job.contender)[0] not in reasons]
