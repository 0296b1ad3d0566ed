"""`python -m bench.http`: measure, print, and, if it was the whole of it, keep the result and draw the pages anew.

--quick is one short round of everything: for a look. It keeps nothing but what --json names.
"""

from __future__ import annotations

import argparse
import datetime
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from bench import machine, marks
from bench.echo.run import PYTHON, ROOT
from bench.http import report
from bench.http.conduct import FULL, QUICK, SECTIONS, Plan, run
from bench.http.servers import DISTRIBUTIONS, SERVERS, SUBJECT, program_versions
from bench.results import Results, read
from fibers.measure.options import within

KEPT = ROOT / "bench" / "results" / "http.json"
PICTURE = ROOT / "docs" / "http-connections.png"
GUIDE, README = ROOT / "docs" / "http.md", ROOT / "README.md"
MARKS = ("<!-- bench-http:begin -->", "<!-- bench-http:end -->")


def some_of(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    """Some of `known`, comma-separated."""

    def names(text: str) -> tuple[str, ...]:
        for name in text.split(","):
            if name not in known:
                raise argparse.ArgumentTypeError(f"there is no {name!r}; there are {', '.join(known)}")
        return tuple(text.split(","))

    return names


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.http", description="the HTTP server against its peers")
    add = parser.add_argument
    add("--quick", action="store_true", help="one short round, fewer connections; the pages stay as they are")
    add("--rounds", type=within(int, 1, 100), metavar="N", help=f"alternating rounds ({FULL.rounds})")
    add("--only", type=some_of(SECTIONS), default=SECTIONS, metavar="NAME,…", help=", ".join(SECTIONS))
    add("--servers", type=some_of(tuple(SERVERS)), default=tuple(SERVERS), metavar="NAME,…", help=", ".join(SERVERS))
    add("--json", type=Path, metavar="FILE", help="where the result is kept or read (bench/results/http.json)")
    add("--draw", action="store_true", help="measure nothing: draw the pages from the result that is kept")
    return parser.parse_args(words)


def plan_of(options: argparse.Namespace) -> Plan:
    """What the command line asks for."""
    plan = QUICK if options.quick else FULL
    return plan._replace(rounds=options.rounds or plan.rounds, sections=options.only, servers=options.servers)


def measure(plan: Plan) -> Results:
    """A run."""
    results = Results(
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        commit=machine.commit(ROOT),
        machine=machine.machine(),
        versions=machine.versions(DISTRIBUTIONS) | program_versions(),
        options={"rounds": plan.rounds, "seconds": plan.seconds, "idle": plan.idle, "sweep_rounds": plan.sweep_rounds},
    )
    run(plan, results)
    return results


def publish(results: Results, path: Path) -> None:
    """Draw the picture, and write the guide's tables and the README's sentence. Raises ValueError, changing nothing, where
    a page has no place for them, or the README's figures were not measured.
    """
    guide = marks.put(GUIDE.read_text("utf-8"), report.markdown(results), *MARKS)
    readme = marks.put(README.read_text("utf-8"), report.sentence(results), *MARKS)
    if find_spec("matplotlib") is None:
        print("no picture: matplotlib is not installed", file=sys.stderr)
    else:
        subprocess.run([*PYTHON, "bench.http.picture", str(path.resolve()), str(PICTURE)], cwd=ROOT, check=True)
    GUIDE.write_text(guide, "utf-8")
    README.write_text(readme, "utf-8")
    print(f"result: {path}; drawn: {GUIDE}, {README}, {PICTURE}")


def main() -> int:
    """Exit status 1 if ours could not be measured; a peer that could not is only named, and so is a goal that was missed."""
    options = arguments()
    if options.draw:
        publish(read(options.json or KEPT), options.json or KEPT)
        return 0
    plan = plan_of(options)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exception: no server outlives this
    whole = plan.rounds >= FULL.rounds and plan._replace(rounds=FULL.rounds) == FULL
    try:
        results = measure(plan)
    except RuntimeError as error:
        print(f"python -m bench.http: {error}", file=sys.stderr)
        return 1
    print(report.text(results))
    if options.json or whole:
        results.write(options.json or KEPT)
    if whole:
        publish(results, options.json or KEPT)
    return 1 if any(what.split(" ")[-1] == SUBJECT for what in results.missing) else 0


if __name__ == "__main__":
    raise SystemExit(main())
