"""The command: see the package's text."""

from __future__ import annotations

import argparse
import datetime
import statistics
import sys
from pathlib import Path
from typing import Final

from bench.machine import commit, machine, versions
from bench.programs.run import CONTENDERS, Load, measure
from bench.report import aligned
from bench.results import Results

ROOT: Final = Path(__file__).resolve().parents[2]
RESULTS: Final = ROOT / "bench" / "results" / "programs.json"
TESTS: Final = str(ROOT / "tests")
if TESTS not in sys.path:
    sys.path.append(TESTS)  # the real servers are those of the tests

from support.nginx import Nginx  # noqa: E402
from support.servers import Redis  # noqa: E402

ROW: Final = "flask_requests_redis"
COLUMNS: Final = (
    ("rate", "requests/s", 0),
    ("p50", "p50 ms", 0),
    ("p99", "p99 ms", 0),
    ("cpu", "CPU ms a request", 2),
    ("memory", "peak memory MB", 0),
)


def table(results: Results) -> list[list[str]]:
    """Two rows for each contender: the medians over the rounds, and the round with most requests."""
    cells = [["the program on", *(title for _, title, _ in COLUMNS)]]
    for contender, metrics in results.rows[ROW].items():
        rates = metrics.get("rate")
        if not rates:
            cells.append([contender, *["–"] * len(COLUMNS)])
            continue
        best = rates.index(max(rates))
        medians = [f"{statistics.median(metrics[name]):,.{digits}f}" for name, _, digits in COLUMNS]
        cells.append([f"{contender}, median of {len(rates)}", *medians])
        cells.append([f"{contender}, best", *(f"{metrics[name][best]:,.{digits}f}" for name, _, digits in COLUMNS)])
    return cells


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.programs", description="A Flask program on three runtimes.")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="of all contenders, taking turns (5)")
    parser.add_argument("--seconds", type=int, default=20, metavar="S", help="of load in a round (20)")
    parser.add_argument("--connections", type=int, default=1000, metavar="N", help="requests at once (1000)")
    parser.add_argument("--late", type=float, default=0.1, metavar="S", help="after which the service answers (0.1)")
    parser.add_argument("--keep", action="store_true", help=f"write {RESULTS.relative_to(ROOT)}")
    parser.add_argument("contenders", nargs="*", metavar="CONTENDER", help=f"of {', '.join(CONTENDERS)} (all)")
    options = parser.parse_args()
    contenders = options.contenders or list(CONTENDERS)
    for name in contenders:
        if name not in CONTENDERS:
            parser.error(f"there is no contender {name!r}; known are {', '.join(CONTENDERS)}")
    results = Results(
        date=datetime.date.today().isoformat(),
        commit=commit(ROOT),
        machine=machine(),
        versions=versions(),
        options={name: getattr(options, name) for name in ("rounds", "seconds", "connections", "late")},
    )
    with Nginx() as nginx, Redis() as redis:
        load = Load(
            service=f"http://{nginx.host}:{nginx.port}/slow/{options.late}",
            redis_port=redis.port,
            connections=options.connections,
            warm=2,
            seconds=options.seconds,
        )
        for turn in range(options.rounds):
            shift = turn % len(contenders)
            for name in contenders[shift:] + contenders[:shift]:
                try:
                    figures = measure(name, load)
                except RuntimeError as error:
                    print(error, file=sys.stderr)
                    continue
                results.add(ROW, name, figures)
                told = ", ".join(f"{title} {figures[key]:,.{digits}f}" for key, title, digits in COLUMNS)
                print(f"round {turn + 1}, {name}: {told}", flush=True)
    results.rows[ROW] = {name: results.rows.get(ROW, {}).get(name, {}) for name in contenders}
    print(aligned(table(results)))
    if options.keep:
        results.write(RESULTS)
    return 0 if all(results.rows[ROW].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
