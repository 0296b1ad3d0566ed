"""`python -m bench`: run the suite, print the tables, keep the JSON, draw the picture.

--quick is one short round without the million timers and with one echo table: for a look, not for publishing.
"""

from __future__ import annotations

import argparse
import datetime
import subprocess
from importlib.util import find_spec
from pathlib import Path

from bench import driver, machine, report
from bench.budgets import SUBJECT
from bench.echo.run import PYTHON, ROOT
from bench.results import Results, read
from bench.runtimes import C_LOOP, ECHO_CONNECTIONS, RUNTIMES, WORKLOADS

ROWS = (*(row.name for row in WORKLOADS), *(f"echo_{count}" for count in ECHO_CONNECTIONS))
QUICK_LEAVES_OUT = ("timers_1e6", "echo_10", "echo_1000")
LATEST = ROOT / "bench" / "results" / "latest.json"


def row_names(text: str) -> tuple[str, ...]:
    """Workloads by name, or all whose names begin so, comma-separated."""
    chosen: list[str] = []
    for part in text.split(","):
        found = [part] if part in ROWS else [row for row in ROWS if part and row.startswith(part)]
        if not found:
            raise argparse.ArgumentTypeError(f"no workload {part!r}; there are {', '.join(ROWS)}")
        chosen += found
    return tuple(dict.fromkeys(chosen))


def runtime_names(text: str) -> tuple[str, ...]:
    """Runtimes by name, comma-separated."""
    for part in text.split(","):
        if part not in RUNTIMES:
            raise argparse.ArgumentTypeError(f"no runtime {part!r}; there are {', '.join(RUNTIMES)}")
    return tuple(text.split(","))


def rounds(text: str) -> int:
    """A whole number, 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"rounds must be a whole number from 1, got {text!r}")
    return int(text)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="fibers against its peers, on the same work")
    parser.add_argument("--rounds", type=rounds, help="alternating rounds (3; 1 with --quick)")
    parser.add_argument("--only", type=row_names, default=None, metavar="NAME,…", help=", ".join(ROWS))
    parser.add_argument("--runtimes", type=runtime_names, default=RUNTIMES, metavar="NAME,…", help=", ".join(RUNTIMES))
    parser.add_argument("--quick", action="store_true", help="one short round, less work")
    parser.add_argument("--json", type=Path, default=LATEST, metavar="FILE", help="where the result is kept or read")
    parser.add_argument("--no-picture", action="store_true", help="do not draw FILE with .png in place of .json")
    parser.add_argument("--markdown", action="store_true", help="measure nothing: print FILE as Markdown")
    return parser.parse_args()


def plan_of(options: argparse.Namespace) -> driver.Plan:
    """What the command line asks for."""
    rows = options.only or tuple(row for row in ROWS if not (options.quick and row in QUICK_LEAVES_OUT))
    if options.quick:
        return driver.Plan(options.rounds or 1, 1, 0.3, 0.4, rows, options.runtimes)
    return driver.Plan(options.rounds or 3, 2, 1.0, 0.8, rows, options.runtimes)


def draw(path: Path) -> str:
    """Draw the picture of a kept result; says where it is, or why there is none."""
    if find_spec("matplotlib") is None:
        return "no picture: matplotlib is not installed"
    target = path.with_suffix(".png")
    subprocess.run([*PYTHON, "bench.picture", str(path.resolve()), str(target.resolve())], cwd=ROOT, check=True)
    return f"picture: {target}"


def main() -> int:
    """Exit status 1 if fibers or a measurement failed; a peer that is not installed is only named."""
    options = arguments()
    if options.markdown:
        print(report.markdown(read(options.json)))
        return 0
    plan = plan_of(options)
    results = Results(
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        commit=machine.commit(ROOT),
        machine=machine.machine(),
        versions=machine.versions(),
        options={
            "rounds": plan.rounds,
            "samples": plan.samples,
            "scale": plan.scale,
            "echo_seconds": plan.seconds,
        },
    )
    driver.run(plan, results)
    results.write(options.json)
    print(report.text(results))
    print(f"result: {options.json}")
    if not options.no_picture:
        print(draw(options.json))
    absent = {*RUNTIMES, C_LOOP} - {SUBJECT}
    return 1 if results.missing.keys() - absent else 0


if __name__ == "__main__":
    raise SystemExit(main())
