"""Running it: which server, under which load, in which order.

Each measurement has a server of its own, except that one serves all points of the picture, one after the other. In each
round every contender is measured once; the order turns by one place each round.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from bench import material
from bench.http.calls import counted
from bench.http.idle import held
from bench.http.load import Shape, Tools, find_tools, window
from bench.http.process import serving
from bench.http.servers import MANY_THREADS, SERVERS, THREADS, Server
from bench.progress import Progress
from bench.results import Results

CHECKS = 200
"""Answers that are compared with the right one before a window; they warm the server up, too."""


class Case(NamedTuple):
    """A load that all servers are put under."""

    title: str
    shape: Shape
    threads: int = THREADS
    sleeps: bool = False


CASES = {
    "hello": Case("hello, 64 connections", Shape("/", 64)),
    "10k": Case("10 KB, 64 connections", Shape("/10k", 64)),
    "sleep": Case("a handler that sleeps 10 ms, 512 connections", Shape("/sleep", 512), MANY_THREADS, True),
    "pipelined": Case("hello, 16 pipelined on each of 64 connections", Shape("/", 64, 16)),
}
SECTIONS = (*CASES, "sweep", "idle", "calls")


class Plan(NamedTuple):
    """How much. `warm` and `seconds` are of a window of the project's own client; wrk knows whole seconds only."""

    rounds: int = 3
    warm: float = 0.3
    seconds: float = 2.0
    sweep: tuple[int, ...] = (10, 100, 1_000, 3_000, 10_000)
    sweep_rounds: int = 2
    sweep_seconds: float = 0.7
    idle: int = 10_000
    sections: tuple[str, ...] = SECTIONS
    servers: tuple[str, ...] = tuple(SERVERS)


FULL = Plan()
QUICK = Plan(1, 0.2, 1.0, (10, 100, 1_000), 1, 0.3, 1_000)


Keep = Callable[[str, dict[str, float]], None]
"""Takes a row's name, and the figures of one round."""


class Job(NamedTuple):
    """One measurement of one server."""

    row: str
    server: Server
    run: Callable[[Keep], None]


def jobs(plan: Plan, tools: Tools, folder: Path) -> list[list[Job]]:
    """The jobs, in the order in which they are run; contenders that are compared stand together."""
    servers = [SERVERS[name] for name in plan.servers]
    found: list[list[Job]] = []

    def add(number: int, row: str, run: Callable[[Server, Keep], None], members: list[Server]) -> None:
        place = number % max(1, len(members))  # another one begins in each round
        found.append([Job(row, server, partial(run, server)) for server in members[place:] + members[:place]])

    for number in range(plan.rounds):
        for name, case in CASES.items():
            if name in plan.sections:
                able = [server for server in servers if server.sleeps or not case.sleeps]
                add(number, name, partial(one_case, name, plan, tools, folder), able)
        if "sweep" in plan.sections and number < plan.sweep_rounds:
            add(number, "sweep", partial(one_sweep, plan, tools, folder), servers)
    if "idle" in plan.sections:
        add(0, "idle", partial(one_idle, plan, folder), servers)
    if "calls" in plan.sections:
        add(0, "calls", partial(one_count, folder), servers)
    return found


def one_case(name: str, plan: Plan, tools: Tools, folder: Path, server: Server, keep: Keep) -> None:
    """Figures of a window, with the memory that the server has at its end."""
    case = CASES[name]
    with serving(server, folder, case.threads) as running:
        running.check(case.shape.path, 1 if case.sleeps else CHECKS)
        figures = window(running, tools, case.shape, plan.warm, plan.seconds)
        keep(name, {**figures, "pss": running.memory().pss})


def one_sweep(plan: Plan, tools: Tools, folder: Path, server: Server, keep: Keep) -> None:
    """A row for each number of connections."""
    with serving(server, folder, THREADS) as running:
        running.check("/", CHECKS)
        for count in plan.sweep:
            shape = Shape("/", count)
            keep(f"sweep_{count}", window(running, tools, shape, plan.warm, plan.sweep_seconds, own=True))


def one_idle(plan: Plan, folder: Path, server: Server, keep: Keep) -> None:
    """See idle.py."""
    with serving(server, folder, THREADS) as running:
        keep("idle", held(running, plan.idle))


def one_count(folder: Path, server: Server, keep: Keep) -> None:
    """See calls.py."""
    keep("calls", counted(server, folder, THREADS))


def run(plan: Plan, results: Results) -> None:
    """Fill `results`. What cannot be measured is named in `missing`, and not tried again.

    RuntimeError where nothing can: there is no /proc, or no load.
    """
    if not Path("/proc/self/smaps_rollup").exists():
        raise RuntimeError("what servers cost is read in /proc, which this system does not have")
    material.raise_fd_limit()
    with tempfile.TemporaryDirectory(prefix="fibers-bench-") as name:
        folder = Path(name)
        tools = find_tools(folder)
        results.options["load"] = tools.named
        for server in (SERVERS[name] for name in plan.servers):
            lack = server.lacks()
            if lack:
                results.missing[server.name] = lack
        groups = jobs(plan, tools, folder)
        progress = Progress(sum(map(len, groups)))
        for job in itertools.chain(*groups):
            progress.show(f"{job.row} {job.server.name}")
            if not results.missing.keys() & {job.server.name, f"{job.row} {job.server.name}"}:
                measure(job, results)
            progress.step()
        progress.close()


def measure(job: Job, results: Results) -> None:
    """Keep what a job measures, or why it could not."""

    def keep(row: str, figures: dict[str, float]) -> None:
        results.add(row, job.server.name, figures)

    try:
        job.run(keep)
    except (RuntimeError, OSError) as error:
        results.missing[f"{job.row} {job.server.name}"] = str(error)
