"""The table: each figure with what it was divided by, or where it comes from.

What was not measured is said not to be; nothing here is an estimate.
"""

import platform
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version

from ..measure.latency import Latencies
from ..measure.snapshot import Snapshot

#: Calls of which fewer than this come to a request are not worth a name in the table.
WORTH_NAMING = 0.005


@dataclass(frozen=True)
class Counted:
    """System calls by name while `requests` were answered, by strace; or why strace could not say."""

    calls: Counter[str]
    requests: int
    why_not: str = ""


@dataclass(frozen=True)
class Result:
    """`before` and `after` enclose `requests`; `closed` is when all connections were over."""

    backend: str
    connections: int
    size: int
    requests: int
    seconds: float
    latencies: Latencies
    before: Snapshot
    after: Snapshot
    closed: Snapshot
    counted: Counted


def table(result: Result) -> str:
    """For people."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    requests, before, after = result.requests, result.before, result.after
    user = (after.user - before.user) / requests * 1e6
    system = (after.system - before.system) / requests * 1e6
    switches = (after.switches - before.switches) / requests
    p50, p99 = (result.latencies.percentile(share) * 1e3 for share in (0.50, 0.99))
    served, closed = result.closed.connections, result.closed
    extra = closed.registrations - served
    rows = [
        ("event loop", result.backend, f"{python}, greenlet {version('greenlet')}"),
        (
            "requests/s",
            f"{requests / result.seconds:,.0f}",
            f"{_many(result.connections, 'connection')}, {_many(result.size, 'byte')} each way, {result.seconds:.1f} s",
        ),
        ("latency, p50", f"{p50:,.2f} ms", "one request at a time on each connection"),
        ("latency, p99", f"{p99:,.2f} ms", ""),
        ("server CPU", f"{user + system:.1f} µs", f"a request: {user:.1f} user + {system:.1f} system"),
        ("connections", f"{served:,}", "served"),
        ("registrations", f"{closed.registrations:,}", _registrations(extra)),
        ("modifications", f"{closed.modifications:,}", "of a registration, for a second direction"),
        ("unregistrations", f"{closed.unregistrations:,}", "one when a connection closes"),
        ("switches", f"{switches:.2f}", "of greenlets, a request"),
        _system_calls(result.counted, result),
    ]
    return "\n".join(f"{label:<16}{value:>12}   {note}".rstrip() for label, value, note in rows)


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" + "s" * (count != 1)


def _registrations(extra: int) -> str:
    if extra == 2:
        return "one a connection, and two: the listener and the line to the clients"
    return f"{extra:+,} against one a connection"


def _system_calls(counted: Counted, result: Result) -> tuple[str, str, str]:
    label = "system calls"
    if counted.why_not:
        turns = (result.after.turns - result.before.turns) / result.requests
        changes = sum(
            getattr(result.after, name) - getattr(result.before, name)
            for name in ("registrations", "modifications", "unregistrations")
        )
        known = f"the loop's own counters: {turns:.2f} waits, {changes / result.requests:.3f} changes a request"
        return label, "not counted", f"{counted.why_not}; {known}"
    parts = [(name, calls / counted.requests) for name, calls in counted.calls.most_common()]
    named = ", ".join(f"{name} {share:.2f}" for name, share in parts if share >= WORTH_NAMING)
    return label, f"{sum(share for _, share in parts):.2f}", f"a request: {named} (strace, {counted.requests:,} more)"
