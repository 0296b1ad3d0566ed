"""Draws the table of docs/cpython-tests.md from the last whole runs of `make test-cpython`, and keeps them as JSON.

    PYTHONPATH=tests python -m cpython.publish

It takes what lies in `.cpython/`, one run of each version of Python, and refuses runs in which a test failed: what is
published is what the checkout does.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

from .running import ROOT

KEPT: Final = Path(__file__).with_name("results.json")
PAGE: Final = ROOT / "docs" / "cpython-tests.md"
BEGIN: Final = "<!-- results:begin -->"
END: Final = "<!-- results:end -->"

#: What is kept of each file.
FIGURES: Final = ("judged", "passed", "left_out", "waited")

#: {version: {file: {figure: number}}}
Results = dict[str, dict[str, dict[str, int]]]


def gather(folder: Path) -> Results:
    """The last whole run of each version. Raises ValueError if one has failures, or if there is none."""
    results: Results = {}
    for path in sorted(folder.glob("*/results.json")):
        verdicts: list[dict[str, Any]] = json.loads(path.read_text())
        failed = [name for verdict in verdicts for name in verdict["failed"]]
        if failed:
            raise ValueError(
                f"{path.parent.name} has {len(failed)} failures, the first of them {failed[0]}: nothing written"
            )
        results[path.parent.name] = {each["file"]: {name: each[name] for name in FIGURES} for each in verdicts}
    if not results:
        raise ValueError(f"there is no result in {folder}: make test-cpython")
    return results


def sums(files: dict[str, dict[str, int]]) -> dict[str, int]:
    """The figures of all files together."""
    return {name: sum(each[name] for each in files.values()) for name in FIGURES}


def draw(results: Results) -> str:
    """The table: tests that pass of each file, and how many are left out."""
    versions = list(results)
    # The files of a folder are one row; a file that came later than the first version comes last.
    grouped = {version: _by_row(files) for version, files in results.items()}
    rows = list(dict.fromkeys(row for files in grouped.values() for row in files))
    lines = ["| | " + " | ".join(versions) + " |", "|---|" + "--:|" * len(versions)]
    for row in rows:
        lines.append(f"| {row} | " + " | ".join(_cell(grouped[version].get(row)) for version in versions) + " |")
    totals = [sums(files) for files in results.values()]
    lines += [
        "| **pass on fibers** | " + " | ".join(f"**{each['passed']:,}**" for each in totals) + " |",
        "| of them, a fiber waited in | " + " | ".join(f"{each['waited']:,}" for each in totals) + " |",
        "| fail on fibers | " + " | ".join(str(each["judged"] - each["passed"]) for each in totals) + " |",
        "| **left out** | " + " | ".join(f"**{each['left_out']}**" for each in totals) + " |",
    ]
    return "\n".join(lines)


def _by_row(files: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    rows: dict[str, dict[str, dict[str, int]]] = {}
    for file, figures in files.items():
        rows.setdefault(file.split(".")[0], {})[file] = figures
    return {row: sums(inside) for row, inside in rows.items()}


def _cell(figures: dict[str, int] | None) -> str:
    if figures is None:
        return "–"
    left_out = f", {figures['left_out']} left out" if figures["left_out"] else ""
    return f"{figures['passed']:,}{left_out}"


def put(page: str, table: str) -> str:
    """The page with this table in the place of the old one."""
    before, mark, rest = page.partition(BEGIN)
    _, mark_behind, after = rest.partition(END)
    if not mark or not mark_behind:
        raise ValueError(f"the page has no place for the table: {BEGIN} … {END}")
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def main() -> int:
    """Publish, or say why not."""
    try:
        results = gather(ROOT / ".cpython")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    KEPT.write_text(json.dumps(results, indent=1) + "\n")
    PAGE.write_text(put(PAGE.read_text("utf-8"), draw(results)), "utf-8")
    print(draw(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
