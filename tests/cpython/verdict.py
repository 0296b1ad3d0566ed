"""Compares a run on fibers with one without, and says what is ours.

A test is judged only if it passes without fibers: what fails or is skipped there is no affair of ours.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .running import FileRun, Result
from .skips import Skip

#: Tests that gevent disables under its own patch, by version of Python, as counted in its sources.
GEVENT = {"3.11": 126, "3.14": 132}
#: Our own limit.
MOST_SKIPS = 59

PASSED = ("ok", "xfail")


@dataclass
class Verdict:
    """One file. `judged`: tests that pass without fibers and are not left out."""

    file: str
    judged: int = 0
    passed: int = 0
    not_ours: int = 0  # fail or are skipped without fibers
    left_out: int = 0  # named in skips.txt
    waited: int = 0  # of those passed: in which a fiber waited
    failed: dict[str, Result] = field(default_factory=dict)
    needless: list[str] = field(default_factory=list)  # lines of skips.txt
    seconds: float = 0.0
    seconds_plain: float = 0.0


def judge(plain: FileRun, patched: FileRun, skips: Mapping[str, Skip]) -> Verdict:
    """What one file came to. `skips`: those of this version, by test."""
    verdict = Verdict(plain.file, seconds=patched.seconds, seconds_plain=plain.seconds)
    not_run = f"{plain.file} (import)" in patched.results
    for name, result in plain.results.items():
        if result.outcome not in PASSED:
            verdict.not_ours += 1
        elif name in skips:
            verdict.left_out += 1
        else:
            verdict.judged += 1
            ours = patched.results.get(name) or Result("missing", "passes without fibers, and was not run on them")
            if ours.outcome in PASSED:
                verdict.passed += 1
                verdict.waited += ours.waits > 0
            elif not not_run:  # else that is what failed
                verdict.failed[name] = ours
    for name, result in patched.results.items():  # set-up that fails on fibers only: it has no name without
        if name not in plain.results and result.outcome not in (*PASSED, "skip"):
            verdict.failed[name] = result
    for name, skip in skips.items():
        if skip.file == plain.file and (name not in plain.results or plain.results[name].outcome not in PASSED):
            verdict.needless.append(name)
    return verdict


def table(verdicts: Iterable[Verdict]) -> str:
    """In Markdown, with a line of sums."""
    verdicts = list(verdicts)
    lines = [
        "| file | pass | of | left out | waited | s | s without fibers |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for each in verdicts:
        lines.append(_row(each.file, each))
    total = Verdict("all")
    for each in verdicts:
        for name in ("judged", "passed", "left_out", "waited", "seconds", "seconds_plain"):
            setattr(total, name, getattr(total, name) + getattr(each, name))
    lines.append(_row("**all**", total))
    return "\n".join(lines)


def _row(name: str, each: Verdict) -> str:
    return (
        f"| {name} | {each.passed:,} | {each.judged:,} | {each.left_out} | {each.waited:,} "
        f"| {each.seconds:.0f} | {each.seconds_plain:.0f} |"
    )


def summary(verdicts: Iterable[Verdict], version: str) -> str:
    """The sums in words."""
    verdicts = list(verdicts)
    left_out = sum(each.left_out for each in verdicts)
    passed = sum(each.passed for each in verdicts)
    idle = passed - sum(each.waited for each in verdicts)
    gevent = GEVENT.get(version)
    beside = f"gevent {gevent}" if gevent else "gevent " + ", ".join(f"{n} on {v}" for v, n in GEVENT.items())
    lines = [
        f"{passed} of {sum(each.judged for each in verdicts)} tests pass on fibers; "
        f"{sum(each.not_ours for each in verdicts)} more fail or are skipped without fibers, too",
        f"{left_out} tests are left out (skips.txt; at most {MOST_SKIPS}; {beside})",
        f"{idle} of those that pass never waited in a fiber: they say little about fibers",
    ]
    lines += [f"NEEDLESS line of skips.txt: {name}" for each in verdicts for name in each.needless]
    lines += [f"{result.outcome.upper()} {name}" for each in verdicts for name, result in each.failed.items()]
    return "\n".join(lines)
