"""A run as text: ratios, the echo table, budgets; for the terminal and as Markdown.

A ratio is "how many times what fibers costs": above 1 fibers is cheaper. The first column is absolute, and
worth only as much as the machine was quiet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.budgets import SUBJECT, Verdict, verdicts
from bench.results import Results
from bench.runtimes import ECHO_CONNECTIONS, RUNTIMES, WORKLOADS, split

Cells = list[list[str]]

PEERS = RUNTIMES[1:]


def number(value: float | None, digits: int = 2) -> str:
    """A figure, or a dash."""
    return "–" if value is None else f"{value:,.{digits}f}"


def times(value: float | None) -> str:
    """A ratio, or a dash."""
    return "–" if value is None else f"{value:.2f}×"


def micro_table(results: Results) -> Cells:
    """A row a workload and flavour, a column a runtime."""
    table = [["CPU an operation", "fibers µs", *PEERS]]
    for row in WORKLOADS:
        if row.name not in results.rows:
            continue
        metric = "kb" if row.name == "memory_parked" else "cpu"
        flavours = list(dict.fromkeys(flavour for _, flavour in map(split, row.contenders) if flavour)) or [""]
        for flavour in flavours:
            cells = [row.title + (f" ({flavour})" if len(flavours) > 1 else "")]
            own = results.median(row.name, SUBJECT, metric)
            cells.append(number(own) + (" kB" if metric == "kb" else ""))
            for peer in PEERS:
                contender = f"{peer}/{flavour}"
                if contender not in row.contenders:
                    contender = peer if flavour == flavours[0] else ""
                cells.append(relation(results, row.name, contender, metric))
            table.append(cells)
    return table


def relation(results: Results, row: str, contender: str, metric: str) -> str:
    """The ratio to fibers, or the plain figure where fibers was not measured."""
    ratio = results.ratio(metric, (row, contender), (row, SUBJECT))
    if ratio is None and results.median(row, SUBJECT, metric) is None:
        return number(results.median(row, contender, metric))
    return times(ratio)


def echo_table(results: Results, connections: int) -> Cells:
    """A row a server: cost, speed, latencies."""
    row = f"echo_{connections}"
    head = [f"TCP echo, {connections:,}", "user µs", "system µs", "× fibers user", "× fibers CPU"]
    table = [[*head, "req/s", "p50 µs", "p99 µs", "p99.9 µs"]]
    for contender in results.rows[row]:
        cells = [contender]
        cells += [number(results.median(row, contender, metric)) for metric in ("user", "system")]
        cells += [times(results.ratio(m, (row, contender), (row, SUBJECT))) for m in ("user", "cpu")]
        cells += [number(results.median(row, contender, m), 0) for m in ("rate", "p50", "p99", "p999")]
        table.append(cells)
    table[1:] = sorted(table[1:], key=lambda cells: cells[0] != SUBJECT)
    return table


def budget_table(found: Iterable[Verdict]) -> Cells:
    """A row a budget."""
    table = [["budget", "reach", "measured", ""]]
    for verdict in found:
        budget, sign = verdict.budget, "≥" if verdict.budget.at_least else "≤"
        unit = "" if budget.metric == "kb" else "×"
        measured = "–" if verdict.value is None else f"{verdict.value:.2f}{unit}"
        table.append([budget.text, f"{sign} {budget.reach:.2f}{unit}", measured, verdict.margin])
    return table


def tables(results: Results) -> list[Cells]:
    """Everything that was measured."""
    found = [micro_table(results)]
    found += [echo_table(results, n) for n in ECHO_CONNECTIONS if f"echo_{n}" in results.rows]
    if any(SUBJECT in row for row in results.rows.values()):
        found.append(budget_table(verdicts(results)))
    return [table for table in found if len(table) > 1]


def conditions(results: Results) -> str:
    """One sentence: where, with what, when."""
    machine, versions = results.machine, results.versions
    peers = "".join(f", {name} {version}" for name, version in versions.items() if name in RUNTIMES)
    commit = f", commit {results.commit}" if results.commit else ""
    where = f"{machine['cpu']}, {machine['cores']} cores, {machine['system']} {machine['kernel']}"
    python = f"{versions['implementation']} {versions['python']}, greenlet {versions.get('greenlet', '–')}"
    rounds = results.options["rounds"]
    how = "one round" if rounds == 1 else f"median of {rounds} alternating rounds"
    return f"{where}; {python}{peers}; {how}, {results.date[:10]}{commit}"


def text(results: Results) -> str:
    """For the terminal."""
    parts = [aligned(table) for table in tables(results)]
    if results.missing:
        parts.append("\n".join(f"not measured: {what}: {why}" for what, why in results.missing.items()))
    return "\n\n".join([*parts, conditions(results)])


def aligned(table: Sequence[Sequence[str]]) -> str:
    """First column left, the others right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for cells in table:
        rest = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        lines.append("  ".join([cells[0].ljust(widths[0]), *rest]).rstrip())
    lines.insert(1, "─" * max(map(len, lines)))
    return "\n".join(lines)


def markdown(results: Results) -> str:
    """For the README."""
    parts = [piped(table) for table in tables(results)]
    return "\n\n".join([*parts, conditions(results) + "."])


def piped(table: Sequence[Sequence[str]]) -> str:
    """As Markdown: first column left, the others right."""
    lines = ["| " + " | ".join(cells) + " |" for cells in table]
    lines.insert(1, "|---" + "|--:" * (len(table[0]) - 1) + "|")
    return "\n".join(lines)
