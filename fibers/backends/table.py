"""The table: a row for each event loop, and notes that say what each figure is a figure of.

What was not measured is said not to be; nothing here is an estimate.
"""

import textwrap

from .figures import Comparison

Cells = list[list[str]]

#: Columns whose cells begin on the left: names.
_LEFT = (0, 6)
#: Of the notes, in a terminal.
_WIDTH = 120


def cells(comparison: Comparison) -> Cells:
    """Head and rows. A newline in the head is where it may be broken."""
    head = ["event loop", "system calls\na blocking recv", "registrations\na connection"]
    head += ["requests/s", "CPU\na request", "idle\nwake-ups", "the system calls"]
    return [head, *(_row(comparison, name) for name in comparison.rows)]


def _row(comparison: Comparison, name: str) -> list[str]:
    figures = comparison.rows[name]
    calls, named = "–", "–"
    if figures.calls:
        calls = _number(sum(figures.calls.values()))
        named = ", ".join(f"{call} {_number(share)}" for call, share in sorted(figures.calls.items()) if share >= 0.005)
    elif comparison.not_counted:
        calls, named = "not counted", comparison.not_counted
    ratios = [comparison.ratio(name, figure) for figure in ("rate", "cpu")]
    return [
        name,
        calls,
        "–" if figures.registrations is None else _number(figures.registrations),
        *("–" if ratio is None else f"{ratio:.2f}×" for ratio in ratios),
        "–" if figures.wakeups is None else str(figures.wakeups),
        named,
    ]


def _number(value: float) -> str:
    """With two decimals if it needs them."""
    return f"{value:,.0f}" if abs(value - round(value)) < 0.005 else f"{value:,.2f}"


def notes(comparison: Comparison) -> list[str]:
    """What the figures are of, a sentence each."""
    plan, reference = comparison.plan, comparison.reference
    found = [
        f"A connection is one on which {plan.messages:,} messages are received, each by a recv that has to wait.",
        f"requests/s and CPU are relative to {reference}{_absolute(comparison)}: an echo server in a process of its own, "
        f"whose CPU it is, {plan.connections:,} connections, {plan.size:,} bytes each way; "
        f"{_median(plan.rounds)} of {plan.seconds:g} s.",
        f"Idle is {plan.idle:g} s with {plan.connections:,} connections on which nothing happens.",
    ]
    found += [f"Not all of {name} could be measured: {why}." for name, why in comparison.failed.items()]
    return found


def _absolute(comparison: Comparison) -> str:
    if comparison.reference not in comparison.rows:
        return ""
    rate, cpu = (comparison.median(comparison.reference, figure) for figure in ("rate", "cpu"))
    return f" ({rate:,.0f}/s, {cpu * 1e6:.1f} µs)" if rate and cpu else ""


def _median(rounds: int) -> str:
    return "one round" if rounds == 1 else f"the median of {rounds} rounds in which the loops take turns"


def text(comparison: Comparison) -> str:
    """For a terminal."""
    table = cells(comparison)
    first = [cell.partition("\n") for cell in table[0]]
    lines = [[above for above, _, _ in first], [below for _, _, below in first], *table[1:]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    drawn = []
    for line in lines:
        parts = [
            cell.ljust(width) if index in _LEFT else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        drawn.append("  ".join(parts).rstrip())
    drawn.insert(2, "─" * max(map(len, drawn)))
    return "\n".join([*drawn, "", *(textwrap.fill(note, _WIDTH) for note in notes(comparison))])


def markdown(comparison: Comparison) -> str:
    """For the README."""
    table = [[cell.replace("\n", " ") for cell in line] for line in cells(comparison)]
    lines = ["| " + " | ".join(line) + " |" for line in table]
    lines.insert(1, "|" + "|".join("---" if index in _LEFT else "--:" for index in range(len(table[0]))) + "|")
    return "\n".join([*lines, "", " ".join(notes(comparison))])
