"""Throughput against connections, as a picture: `python -m bench.http.picture <json> <png>`.

A process of its own, because drawing needs matplotlib and measuring must not.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from bench.http.report import conditions, swept
from bench.http.servers import SERVERS, SUBJECT
from bench.results import Results, read

OURS = "#c2410c"
COLOURS = ("#1d4ed8", "#60a5fa", "#15803d", "#86efac", "#7e22ce", "#c084fc", "#334155", "#94a3b8", "#a16207")
MARKERS = "osD^vP*Xd"


def draw(results: Results, path: Path) -> None:
    """Write the PNG."""
    matplotlib.use("Agg")
    figure = Figure(figsize=(11, 6), layout="constrained")
    left, right = figure.subplots(1, 2)
    counts = swept(results)
    peers = iter(zip(COLOURS, MARKERS, strict=True))
    for name in SERVERS:
        colour, marker = (OURS, "o") if name == SUBJECT else next(peers)
        for axes, metric in ((left, "rate"), (right, "cpu")):
            points = [(n, value) for n in counts if (value := results.median(f"sweep_{n}", name, metric))]
            if points:
                width = 3.0 if name == SUBJECT else 1.2
                axes.plot(*zip(*points, strict=True), color=colour, marker=marker, lw=width, ms=5, label=name)
    for axes, title in (
        (left, "requests a second (higher is better)"),
        (right, "µs of CPU a request (lower is better)"),
    ):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(counts, [f"{count:,}" for count in counts])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.set_xlabel("keep-alive connections, each with one request in flight")
        axes.set_title(title, fontsize=11, loc="left")
        axes.grid(alpha=0.25)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    figure.supxlabel("\n".join(conditions(results, sweep=True).split("; ")), fontsize=7)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    draw(read(Path(sys.argv[1])), Path(sys.argv[2]))
