"""The result of a run: every figure of every round, and how figures become medians and ratios.

rows -> contender -> metric -> one number a round. A row is a workload or "echo_<connections>". Metrics:
`cpu`, `user`, `system` in microseconds an operation, `kb` in 1,000 bytes a task, `rate` in requests a
second, `p50` `p99` `p999` in microseconds. Rounds stay apart, because a ratio is taken inside a round and
only then the median: what the machine did between two rounds cancels out.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.echo.run import Echo
from bench.sample import Sample

Metrics = dict[str, list[float]]
Rows = dict[str, dict[str, Metrics]]

MICRO = 1e6


@dataclass(slots=True)
class Results:
    """A whole run, as it is kept in JSON."""

    date: str
    commit: str
    machine: dict[str, str | int]
    versions: dict[str, str]
    options: dict[str, str | int | float]
    rows: Rows = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    """Runtimes and measurements that are not here, and why."""

    def add(self, row: str, contender: str, figures: Mapping[str, float]) -> None:
        """Append one round."""
        metrics = self.rows.setdefault(row, {}).setdefault(contender, {})
        for name, value in figures.items():
            metrics.setdefault(name, []).append(value)

    def median(self, row: str, contender: str, metric: str) -> float | None:
        """The median over the rounds, or None if it was not measured."""
        values = self.rows.get(row, {}).get(contender, {}).get(metric)
        return statistics.median(values) if values else None

    def ratio(self, metric: str, over: tuple[str, str], under: tuple[str, str]) -> float | None:
        """The median over the rounds of `over` / `under`, each a (row, contender); None if one is missing."""
        above = self.rows.get(over[0], {}).get(over[1], {}).get(metric, [])
        below = self.rows.get(under[0], {}).get(under[1], {}).get(metric, [])
        quotients = [a / b for a, b in zip(above, below, strict=False) if b > 0.0]
        return statistics.median(quotients) if quotients else None

    def write(self, path: Path) -> None:
        """Keep as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read(path: Path) -> Results:
    """What `Results.write` wrote."""
    return Results(**json.loads(path.read_text(encoding="utf-8")))


def micro_figures(samples: Sequence[Sample]) -> dict[str, float]:
    """The samples of one process as one round.

    Sums, not medians: the split of user and system is itself sampled.
    """
    operations = sum(sample.operations for sample in samples)
    user = sum(sample.user for sample in samples) / operations * MICRO
    system = sum(sample.system for sample in samples) / operations * MICRO
    figures = {"cpu": user + system, "user": user, "system": system}
    if samples[0].bytes_per_operation:
        figures["kb"] = statistics.median(sample.bytes_per_operation for sample in samples) / 1000
    return figures


def echo_figures(echo: Echo) -> dict[str, float]:
    """One echo window as one round; without CPU figures where the server's clock cannot be read."""
    figures = {"rate": echo.requests / echo.seconds, "p50": echo.p50, "p99": echo.p99, "p999": echo.p999}
    if echo.user is not None and echo.system is not None:
        figures["user"] = echo.user / echo.requests * MICRO
        figures["system"] = echo.system / echo.requests * MICRO
        figures["cpu"] = figures["user"] + figures["system"]
    return figures
