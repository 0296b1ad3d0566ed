"""`python -m bench.backends`: the event loops of fibers against each other, at length, for the README.

What is measured, and how, is the package's own affair (fibers/backends): `python -m fibers info --backends` is the same in
short. Here the rounds are more and longer, the result is kept as JSON together with machine, versions and commit, and the
README's table is drawn from what was kept, so that the two cannot differ.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import sys
from pathlib import Path
from typing import Any

from bench import machine, marks
from bench.echo.run import ROOT
from fibers import info
from fibers.backends import table
from fibers.backends.conduct import compare
from fibers.backends.figures import Comparison, Plan, read
from fibers.measure.options import within
from fibers.measure.progress import Progress

KEPT = ROOT / "bench" / "results" / "backends.json"
README = ROOT / "README.md"
BEGIN, END = "<!-- backends:begin -->", "<!-- backends:end -->"
PLAN = Plan(rounds=15, seconds=1.0)


def result(comparison: Comparison) -> dict[str, Any]:
    """What is kept."""
    versions = machine.versions()
    facts = info.collect()
    named = ("implementation", "python", "fibers-runtime", "greenlet")
    own: dict[str, str] = {name: versions[name] for name in named if name in versions}
    if facts["libevent"] is not None:
        own["libevent"] = "{version} ({method})".format(**facts["libevent"])
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": machine.commit(ROOT),
        "machine": machine.machine(),
        "versions": own,
        "debug": facts["debug"],
        "measured": dataclasses.asdict(comparison),
    }


def markdown(kept: dict[str, Any]) -> str:
    """The README's table, with what it was measured on below."""
    where, versions = kept["machine"], kept["versions"]
    libevent = f", libevent {versions['libevent']}" if "libevent" in versions else ""
    python = f"{versions['implementation']} {versions['python']}, greenlet {versions['greenlet']}{libevent}"
    commit = f", commit {kept['commit']}" if kept["commit"] else ""
    checked = "; the loops checked their contract (FIBERS_DEBUG=loop)" if kept["debug"] else ""
    conditions = (
        f"{where['cpu']}, {where['cores']} cores, {where['system']} {where['kernel']}; {python}{checked}; "
        f"{kept['date'][:10]}{commit}."
    )
    return f"{table.markdown(read(kept['measured']))} {conditions}"


def put(page: str, text: str) -> str:
    """A page with `text` between the two marks. Raises ValueError if it does not have each once, in this order."""
    return marks.put(page, text, BEGIN, END)


def taken(page: str) -> str:
    """What stands between the two marks."""
    return marks.taken(page, BEGIN, END)


def main() -> int:
    """Exit status 1 if a loop could not be measured: then nothing is kept."""
    parser = argparse.ArgumentParser(prog="python -m bench.backends", description="the event loops of fibers, compared")
    parser.add_argument("--rounds", type=within(int, 1, 1000), default=PLAN.rounds, metavar="N", help="of all loops")
    parser.add_argument(
        "--seconds", type=within(float, 0.05, 60.0), default=PLAN.seconds, metavar="S", help="of load in a round"
    )
    parser.add_argument("--json", type=Path, default=KEPT, metavar="FILE", help="where the result is kept")
    parser.add_argument(
        "--readme", type=Path, default=README, metavar="FILE", help="the page whose table is drawn anew"
    )
    options = parser.parse_args()
    put(options.readme.read_text(encoding="utf-8"), "")  # before all the work: has the page a place for it?
    comparison = compare(dataclasses.replace(PLAN, rounds=options.rounds, seconds=options.seconds), Progress())
    print(table.text(comparison))
    if comparison.failed or comparison.not_counted:
        print("not kept: something could not be measured", file=sys.stderr)
        return 1
    kept = result(comparison)
    options.json.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    page = options.readme.read_text(encoding="utf-8")
    options.readme.write_text(put(page, markdown(kept)), encoding="utf-8")
    print(f"result: {options.json}, {options.readme}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
