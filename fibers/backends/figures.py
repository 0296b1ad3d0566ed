"""What is measured of the event loops, as plain data that can be kept in JSON, and the ratios that are shown of it."""

import statistics
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured. A window is the time in which one server is under load."""

    rounds: int = 5
    seconds: float = 0.4
    """Of a window."""
    connections: int = 100
    size: int = 1024
    """Bytes of a message."""
    idle: float = 1.0
    """Seconds in which nothing happens on the connections."""
    messages: int = 100
    """Received by each end of the connection on which is counted."""


@dataclass(slots=True)
class Figures:
    """Of one event loop. The lists hold a number for each round."""

    calls: dict[str, float] = field(default_factory=dict)
    """System calls for each `recv` that has to wait, by name. Empty: not counted."""
    registrations: float | None = None
    """For each end of a connection on which `Plan.messages` messages were received, each of them waited for."""
    rate: list[float] = field(default_factory=list)
    """Requests a second."""
    cpu: list[float] = field(default_factory=list)
    """Seconds of the server's CPU time, user and system, a request."""
    wakeups: int | None = None
    """Of the server, in `Plan.idle` seconds with `Plan.connections` idle connections."""


@dataclass(slots=True)
class Comparison:
    """All of them. `reference` is the event loop that the others are related to."""

    reference: str
    plan: Plan
    rows: dict[str, Figures]
    not_counted: str = ""
    """Why no system calls were counted; "" if they were."""
    failed: dict[str, str] = field(default_factory=dict)
    """Event loops whose measurement failed, and how."""

    def ratio(self, name: str, figure: str) -> float | None:
        """The median over the rounds of `rate` or `cpu` relative to the reference; None if one was not measured."""
        own: list[float] = getattr(self.rows[name], figure)
        its: list[float] = getattr(self.rows[self.reference], figure) if self.reference in self.rows else []
        # A loop that failed was left out from then on: the first rounds are common to both.
        quotients = [a / b for a, b in zip(own, its, strict=False) if b > 0]
        return statistics.median(quotients) if quotients else None

    def median(self, name: str, figure: str) -> float | None:
        """The median of `rate` or `cpu`, absolute; None if it was not measured."""
        values: list[float] = getattr(self.rows[name], figure)
        return statistics.median(values) if values else None


def read(kept: dict[str, Any]) -> Comparison:
    """From what `dataclasses.asdict` made of one, perhaps by way of JSON."""
    rows = {name: Figures(**figures) for name, figures in kept["rows"].items()}
    return Comparison(kept["reference"], Plan(**kept["plan"]), rows, kept["not_counted"], kept["failed"])
