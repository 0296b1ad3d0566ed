"""What the HTTP server is to reach, and how far a run is from it."""

from __future__ import annotations

from typing import NamedTuple

from bench.http.servers import SUBJECT
from bench.results import Results


class Goal(NamedTuple):
    """`reach` None: no goal, only the gap is shown. `unit` is behind the figures: × for a ratio."""

    text: str
    value: float | None
    unit: str
    reach: float | None = None
    at_least: bool = True

    @property
    def met(self) -> bool | None:
        """None when there is no goal, or it was not measured."""
        if self.value is None or self.reach is None:
            return None
        return self.value >= self.reach if self.at_least else self.value <= self.reach

    @property
    def verdict(self) -> str:
        """pass, or by how much of the goal it is missed."""
        if self.value is None:
            return "not measured"
        if self.reach is None:
            return "no goal"
        if self.met:
            return "pass"
        return f"fail, by {abs(self.value / self.reach - 1):.0%}" if self.reach else "fail"


def times(results: Results, row: str, peer: str) -> float | None:
    """How many times our CPU a request the peer's is."""
    return results.ratio("cpu", (row, peer), (row, SUBJECT))


def goals(results: Results) -> list[Goal]:
    """All of them, measured or not; the gaps to those who are faster behind."""
    found = [
        Goal("hello: CPU a request of gunicorn's gevent workers", times(results, "hello", "gunicorn gevent"), "×", 4.0),
        Goal("hello: CPU a request of uvicorn with httptools", times(results, "hello", "uvicorn"), "×", 1.0),
        Goal("hello: the same on uvloop", times(results, "hello", "uvicorn uvloop"), "×", 1.0),
    ]
    for call, most in (("recv", 1.0), ("send", 1.0), ("epoll_ctl", 0.0)):
        value = results.median("calls", SUBJECT, call)
        found.append(Goal(f"{call} a request on a keep-alive connection", value, "", most, False))
    idle = results.median("idle", SUBJECT, "bytes")
    found.append(Goal("memory of an idle connection, bytes", idle, "", 1_000.0, False))
    found.append(Goal("failed requests and broken connections", failures(results), "", 0.0, False))
    for peer in ("granian", "nginx", "Go net/http"):
        found.append(Goal(f"the gap, hello: CPU a request of {peer}", times(results, "hello", peer), "×"))
    return found


def failures(results: Results) -> float | None:
    """Ours, in all rounds of everything."""
    found = [metrics[SUBJECT].get("failures", []) for metrics in results.rows.values() if SUBJECT in metrics]
    return sum(map(sum, found)) if found else None
