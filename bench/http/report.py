"""A run as text: for the terminal, and as the tables of docs/http.md and the sentence of the README."""

from __future__ import annotations

import math
from collections.abc import Iterator

from bench.http.conduct import CASES
from bench.http.goals import Goal, goals, times
from bench.http.servers import SERVERS, SUBJECT
from bench.report import Cells, aligned, number, piped
from bench.results import Results


def milliseconds(value: float | None) -> str:
    """Of microseconds; a dash for 0: none was measured."""
    return number(value / 1000, 1 if value >= 10_000 else 2) if value else "–"


def ratio(value: float | None) -> str:
    """With its sign."""
    return "–" if value is None else f"{value:.2f}×"


def case_table(results: Results, row: str) -> Cells:
    """A row a server."""
    head = [CASES[row].title, "CPU µs", "user", "system", "× fibers", "req/s", "p50 ms", "p99 ms", "MB", "failures"]
    table = [head]
    for name in ordered(results, row):
        metrics = results.rows[row][name]
        figure = {metric: results.median(row, name, metric) for metric in metrics}
        cells = [name, *(number(figure[metric], 1) for metric in ("cpu", "user", "system"))]
        cells += [ratio(times(results, row, name)), number(figure["rate"], 0)]
        together = CASES[row].shape.depth > 1  # of such requests wrk does not know the latencies
        cells += ["–", "–"] if together else [milliseconds(figure["p50"]), milliseconds(figure["p99"])]
        table.append([*cells, number((figure["pss"] or 0.0) / 1e6, 0), number(sum(metrics["failures"]), 0)])
    return table


def calls_table(results: Results) -> Cells:
    """System calls a request."""
    kinds = ("recv", "send", "wait", "epoll_ctl", "other")
    table = [["system calls a request", *kinds]]
    for name in ordered(results, "calls"):
        table.append([name, *(number(results.median("calls", name, kind)) for kind in kinds)])
    return table


def idle_table(results: Results) -> Cells:
    """Idle connections."""
    table = [["idle connections", "held", "bytes each", "RSS each", "CPU ms/s", "an answer, p50 ms", "p99 ms"]]
    for name in ordered(results, "idle"):
        figure = {metric: results.median("idle", name, metric) for metric in results.rows["idle"][name]}
        cells = [name, number(figure["held"], 0), number(figure["bytes"], 0), number(figure["rss"], 0)]
        cells += [number(figure["idle_cpu"], 0), milliseconds(figure["p50"]), milliseconds(figure["p99"])]
        table.append(cells)
    return table


def sweep_table(results: Results) -> Cells:
    """Requests a second; a column a number of connections."""
    counts = swept(results)
    table = [["requests/s, by connections", *(f"{count:,}" for count in counts)]]
    for name in SERVERS:
        values = [results.median(f"sweep_{count}", name, "rate") for count in counts]
        if any(values):
            table.append([name, *(number(value, 0) for value in values)])
    return table


def swept(results: Results) -> list[int]:
    """The numbers of connections that were measured."""
    return sorted(int(row.removeprefix("sweep_")) for row in results.rows if row.startswith("sweep_"))


def goal_table(found: list[Goal]) -> Cells:
    """A row a goal."""
    table = [["goal", "reach", "measured", ""]]
    for goal in found:
        digits = 2 if goal.unit or (goal.reach or 0.0) < 10 else 0
        sign = "≥" if goal.at_least else "≤"
        reach = "–" if goal.reach is None else f"{sign} {number(goal.reach, digits)}{goal.unit}"
        measured = number(goal.value, digits) + (goal.unit if goal.value is not None else "")
        table.append([goal.text, reach, measured, goal.verdict])
    return table


def ordered(results: Results, row: str) -> list[str]:
    """Who was measured in a row, in the order of the table of servers."""
    return [name for name in SERVERS if name in results.rows.get(row, {})]


def tables(results: Results) -> Iterator[Cells]:
    """Everything that was measured."""
    for row in CASES:
        if row in results.rows:
            yield case_table(results, row)
    if swept(results):
        yield sweep_table(results)
    if "idle" in results.rows:
        yield idle_table(results)
    if "calls" in results.rows:
        yield calls_table(results)
    yield goal_table(goals(results))


def conditions(results: Results, sweep: bool = False) -> str:
    """One sentence: where, with what, when. `sweep`: of the picture."""
    machine, versions = results.machine, dict(results.versions)
    python = f"{versions.pop('implementation')} {versions.pop('python')}"
    versions.pop("fibers-runtime", None)
    peers = ", ".join(f"{name} {version}" for name, version in versions.items())
    commit = f", commit {results.commit}" if results.commit else ""
    where = f"{machine['cpu']}, {machine['cores']} cores, {machine['system']} {machine['kernel']}"
    count = results.options["sweep_rounds" if sweep else "rounds"]
    how = "one round" if count == 1 else f"medians of {count} alternating rounds"
    load = f"load by {'bench/limit/http.c' if sweep else results.options['load']}"
    return f"{where}; {python}, {peers}; one core for the server, {load}; {how}, {results.date[:10]}{commit}"


def absences(results: Results) -> list[str]:
    """What is not there, and why."""
    return [f"not measured: {what}: {why}" for what, why in results.missing.items()]


def kernel_note(results: Results) -> str:
    """What the kernel holds for a connection: the same whoever serves it, so one figure for all."""
    values = [results.median("idle", name, "kernel") for name in ordered(results, "idle")]
    known = sorted(value for value in values if value)
    if not known:
        return ""
    middle = known[len(known) // 2]
    return f"The kernel's slab caches grew by about {middle / 1000:.0f} kB a connection, both ends of it together."


def text(results: Results) -> str:
    """For the terminal."""
    parts = [aligned(table) for table in tables(results)]
    parts += [part for part in (kernel_note(results), "\n".join(absences(results))) if part]
    return "\n\n".join([*parts, conditions(results)])


def markdown(results: Results) -> str:
    """For docs/http.md."""
    parts = [piped(table) for table in tables(results)]
    parts += [part for part in (kernel_note(results), *(f"{each}." for each in absences(results))) if part]
    return "\n\n".join([*parts, f"{conditions(results)}."])


def sentence(results: Results) -> str:
    """For the README: what the most frequent case costs. Raises ValueError if that was not measured."""
    own = results.median("hello", SUBJECT, "cpu")
    gunicorn, uvicorn = times(results, "hello", "gunicorn gevent"), times(results, "hello", "uvicorn")
    idle = results.median("idle", SUBJECT, "bytes")
    if own is None or gunicorn is None or uvicorn is None or idle is None:
        raise ValueError(
            "the hello and the idle connections of fibers, gunicorn gevent and uvicorn were not all measured"
        )
    return (
        f"A hello of the HTTP server costs {own:.0f} µs of CPU on one core, kernel included; gunicorn's gevent workers need "
        f"{floor(gunicorn)} times as much, uvicorn with httptools {floor(uvicorn)} times. An idle connection holds "
        f"{idle / 1000:.1f} kB. ([All figures](docs/http.md#measured), `make bench-http`.)"
    )


def floor(value: float) -> str:
    """With one digit, never rounded up."""
    return f"{math.floor(value * 10) / 10:.1f}"
