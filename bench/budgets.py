"""What is to be reached, as ratios on one machine in one run, and how far a run is from it.

A budget compares two measured places. "At least" is how many times cheaper fibers must be than a peer; "at
most" bounds a cost that fibers may have. Memory has no peer: it is bounded in kilobytes.
"""

from __future__ import annotations

from typing import NamedTuple

from bench.results import Results
from bench.runtimes import C_LOOP

SUBJECT = "fibers"


class Budget(NamedTuple):
    """`value` is measured as `over` / `under`; both are (row, contender)."""

    text: str
    metric: str
    over: tuple[str, str]
    under: tuple[str, str] | None
    reach: float
    at_least: bool


class Verdict(NamedTuple):
    """A budget and what was measured; `value` None means not measured in this run."""

    budget: Budget
    value: float | None

    @property
    def met(self) -> bool | None:
        """None when not measured."""
        if self.value is None:
            return None
        return self.value >= self.budget.reach if self.budget.at_least else self.value <= self.budget.reach

    @property
    def margin(self) -> str:
        """In words: met, or missed by how much of the goal."""
        if self.value is None:
            return "not measured"
        if self.met:
            return "met"
        return f"missed by {abs(self.value / self.budget.reach - 1):.0%}"


def cheaper(row: str, title: str, peer: str, reach: float, metric: str = "cpu") -> Budget:
    """fibers must be `reach` times cheaper than `peer`."""
    what = {"cpu": "CPU", "user": "user CPU"}[metric]
    return Budget(f"{title}: {what} against {peer}", metric, (row, peer), (row, SUBJECT), reach, True)


def _pingpong() -> list[Budget]:
    found = []
    for count in (1, 100):
        row, title = f"pingpong_unix_{count}", f"ping-pong, unix, {count}"
        found.append(cheaper(row, title, "gevent", 1.7))
        found.append(cheaper(row, title, "uvloop/sock", 2.0))
        found.append(cheaper(row, title, "asyncio/sock", 4.0))
    for count in (1, 100):
        row, title = f"pingpong_tcp_{count}", f"ping-pong, TCP, {count}"
        found.append(cheaper(row, title, "gevent", 2.2, "user"))
        found.append(cheaper(row, title, "uvloop/sock", 2.2, "user"))
    return found


def _echo() -> list[Budget]:
    found = []
    for count in (100, 1_000):
        row, title = f"echo_{count}", f"TCP echo, {count:,}"
        found.append(cheaper(row, title, "gevent", 1 / 0.45, "user"))
        found.append(cheaper(row, title, "uvloop/streams", 1 / 0.5, "user"))
    return found


def _own(text: str, metric: str, over: str, under: str, reach: float) -> Budget:
    return Budget(text, metric, (over, SUBJECT), (under, SUBJECT), reach, False)


def _sync() -> list[Budget]:
    found = [
        Budget(
            f"uncontended lock, {title}: CPU against threading.Lock",
            "cpu",
            (row, SUBJECT),
            (row, "threads"),
            3.0,
            False,
        )
        for row, title in (("lock_with", "with"), ("lock_calls", "acquire + release"))
    ]
    for row, title in (
        ("queue_put_get", "queue, put + get"),
        ("queue_hand_off", "queue, hand-off"),
        ("queue_narrow", "queue with room for one"),
    ):
        found += [cheaper(row, title, peer, 3.0) for peer in ("gevent", "asyncio")]
    return found


BUDGETS = (
    cheaper("spawn_join", "spawn + join", "gevent", 8.0),
    cheaper("spawn_join", "spawn + join", "uvloop", 3.0),
    cheaper("yield_100", "yield", "gevent", 2.0),
    cheaper("yield_100", "yield", "uvloop", 1.0),
    *_sync(),
    *_pingpong(),
    *_echo(),
    cheaper("channel_0", "channel without room", "gevent", 3.0),
    cheaper("channel_1", "channel of 1", "gevent", 3.0),
    cheaper("channel_1", "channel of 1", "asyncio", 3.0),
    cheaper("timers_1e6", "timers, 1,000,000 pending", "gevent", 1.0),
    cheaper("group_100", "task group of 100", "gevent", 3.0),
    cheaper("group_100", "task group of 100", "asyncio", 3.0),
    cheaper("timeout_scope", "timeout scope, enter + exit", "gevent", 3.0),
    cheaper("timeout_scope", "timeout scope, enter + exit", "asyncio", 3.0),
    # "Flat" for a person: what is left is the cost of missing the cache, which any structure of this size
    # pays.
    _own("timers: 1,000,000 pending against 1,000 (flat)", "cpu", "timers_1e6", "timers_1e3", 1.5),
    _own("recv: timeout set against none", "cpu", "recv_timeout", "recv_plain", 1.15),
    Budget("memory of a parked fiber, kB", "kb", ("memory_parked", SUBJECT), None, 8.0, False),
)
GROWTH = Budget(
    "TCP echo: growth from 10 to 1,000, against the C loop's", "cpu", ("echo_1000", SUBJECT), None, 1.3, False
)


def verdicts(results: Results) -> list[Verdict]:
    """Every budget with what this run measured."""
    found = []
    for budget in BUDGETS:
        if budget.under is None:
            value = results.median(*budget.over, budget.metric)
        else:
            value = results.ratio(budget.metric, budget.over, budget.under)
        found.append(Verdict(budget, value))
    found.append(Verdict(GROWTH, growth(results)))
    return found


def growth(results: Results) -> float | None:
    """How much more fibers' cost grows from 10 to 1,000 connections than the C loop's own."""
    ours = results.ratio("cpu", ("echo_1000", SUBJECT), ("echo_10", SUBJECT))
    limit = results.ratio("cpu", ("echo_1000", C_LOOP), ("echo_10", C_LOOP))
    return ours / limit if ours is not None and limit else None
