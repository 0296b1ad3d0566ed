"""A run as a picture: `python -m bench.picture <json> <png>`.

Small bars, one panel a workload; shorter is better. User CPU is dark, system CPU light.

A process of its own, because drawing needs matplotlib and measuring must not.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from bench.budgets import SUBJECT
from bench.report import conditions
from bench.results import Results, read
from bench.runtimes import ECHO_CONNECTIONS, WORKLOADS

OURS, PEER = ("#c2410c", "#fdba74"), ("#475569", "#cbd5e1")
COLUMNS = 4


def panels(results: Results) -> list[tuple[str, str, str]]:
    """(row, title, metric) of what was measured."""
    found = []
    for row in WORKLOADS:
        metric = "kb" if row.name == "memory_parked" else "cpu"
        found.append((row.name, f"{row.title}\n{'kB a task' if metric == 'kb' else 'µs CPU an operation'}", metric))
    found += [(f"echo_{n}", f"TCP echo, {n:,} connections\nµs server CPU a request", "cpu") for n in ECHO_CONNECTIONS]
    return [panel for panel in found if panel[0] in results.rows]


def draw_panel(axes: Any, results: Results, row: str, title: str, metric: str) -> None:
    """One workload: user CPU dark, system CPU light, the sum in figures."""
    contenders = sorted(results.rows[row], key=lambda name: results.median(row, name, metric) or 0.0)
    largest = max(results.median(row, name, metric) or 0.0 for name in contenders)
    for place, name in enumerate(contenders):
        dark, light = OURS if name == SUBJECT else PEER
        total = results.median(row, name, metric) or 0.0
        user = min(total, results.median(row, name, "user") or 0.0) if metric == "cpu" else total
        axes.barh(place, user, color=dark, height=0.7)
        axes.barh(place, total - user, left=user, color=light, height=0.7)
        axes.text(total + largest * 0.02, place, f"{total:.3g}", va="center", fontsize=8)
    axes.set_yticks(range(len(contenders)), contenders, fontsize=8)
    for label, name in zip(axes.get_yticklabels(), contenders, strict=True):
        label.set_fontweight("bold" if name == SUBJECT else "normal")
    axes.invert_yaxis()
    axes.set_xlim(0, largest * 1.18)
    axes.set_xticks([])
    axes.set_title(title, fontsize=9, loc="left")
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)


def draw(results: Results, path: Path) -> None:
    """Write the PNG."""
    matplotlib.use("Agg")
    found = panels(results)
    lines = -(-len(found) // COLUMNS)
    figure = Figure(figsize=(15, 0.9 + 2.5 * lines), layout="constrained")
    grid = figure.subplots(lines, COLUMNS, squeeze=False).flatten()
    for axes, (row, title, metric) in zip(grid, found, strict=False):
        draw_panel(axes, results, row, title, metric)
    for axes in grid[len(found) :]:
        axes.axis("off")
    figure.suptitle("Cost of the same work: shorter is better. Dark: user CPU, light: system CPU", fontsize=12)
    figure.supxlabel(conditions(results), fontsize=8)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    draw(read(Path(sys.argv[1])), Path(sys.argv[2]))
