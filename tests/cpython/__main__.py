"""`make test-cpython`: CPython's own test suite, first as it is, then on fibers.

The suite is the package `test` of the interpreter that runs this. One process a file, and never regrtest's own `-j` or
second tries. The interpreters that tests start are patched as well (FIBERS_PATCH), unless a test empties their environment.
What the files come to without fibers is kept in `.cpython/VERSION/` and measured anew when RUNNER or the interpreter
changes, or with `--fresh`. Results of a run go there, too: `results.json`, `table.md`, and what each file printed.

Exit status: 0 if every test that passes without fibers passes on them or is named in skips.txt; else 1.
"""

import argparse
import importlib.util
import json
import os
import pkgutil
import platform
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from fibers.patch import startup

from . import skips
from .running import ROOT, FileRun, Order, run_file
from .verdict import MOST_SKIPS, PASSED, Verdict, judge, summary, table

FILES = [
    "test_socket",
    "test_select",
    "test_selectors",
    "test_poll",
    "test_epoll",
    "test_queue",
    "test_threading",
    "test_thread",
    "test_threading_local",
    "test_timeout",
    "test_socketserver",
    "test_ssl",
    "test_httplib",
    "test_httpservers",
    "test_urllib",
    "test_urllib2",
    "test_urllib2_localnet",
    "test_wsgiref",
    "test_xmlrpc",
    "test_ftplib",
    "test_smtplib",
    "test_poplib",
    "test_imaplib",
    "test_subprocess",
    "test_signal",
    "test_fork1",
    "test_logging",
    "test_concurrent_futures",
    "test_context",
]

#: Failures of one file that are shown.
MOST_SHOWN = 20

#: Raise it with each change of the runner that may change what tests come to without fibers.
RUNNER = 1


def shipped(names: list[str]) -> list[str]:
    """Those of the files that this interpreter has; a folder of tests is its files."""
    found = []
    for name in names:
        try:
            spec = importlib.util.find_spec(f"test.{name}")
        except ModuleNotFoundError:
            spec = None
        if spec is None:
            print(f"{name}: not shipped with this interpreter", flush=True)
        elif spec.submodule_search_locations:
            inside = sorted(each.name for each in pkgutil.iter_modules(spec.submodule_search_locations))
            found += [f"{name}.{each}" for each in inside if each.startswith("test_")]
        else:
            found.append(name)
    return found


class Kept:
    """The runs of one interpreter in `.cpython/`."""

    def __init__(self) -> None:
        self.folder = ROOT / ".cpython" / platform.python_version()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.key = f"{RUNNER} {sys.version}"

    def log(self, kind: str, file: str) -> Path:
        path = self.folder / f"{kind}-{file}.log"
        path.unlink(missing_ok=True)
        return path

    def plain(self, file: str, fresh: bool) -> FileRun:
        """The run without fibers, from the folder if it is there."""
        path = self.folder / f"plain-{file}.json"
        if not fresh and path.exists():
            data = json.loads(path.read_text())
            if data["key"] == self.key:
                return FileRun.from_dict(data["run"])
        run = run_file(Order(file, patched=False), self.log("plain", file), environment())
        path.write_text(json.dumps({"key": self.key, "run": run.as_dict()}, indent=1))
        return run


def environment(patched: bool = False) -> dict[str, str]:
    """For a child: without what changes how an interpreter behaves, since the tests start many and expect them as they come.

    With FIBERS_PATCH, if `patched`: then those that the tests start run on fibers, too, where `python -m fibers pth install`
    has been called.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "PYTEST", "LC_", "COV_", "FIBERS_PATCH")) and name != "LANG"
    } | {"LC_ALL": "C.UTF-8", **({"FIBERS_PATCH": "1"} if patched else {})}


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="make test-cpython ARGS=", description="CPython's own tests, on fibers.")
    parser.add_argument("files", nargs="*", metavar="FILE", help="test_socket and so on (default: all that matter)")
    parser.add_argument("-j", type=int, default=2, metavar="N", dest="jobs", help="files at the same time (2)")
    parser.add_argument("--fresh", action="store_true", help="run without fibers again, too")
    parser.add_argument("--skipped", action="store_true", help="run also what skips.txt leaves out")
    parser.add_argument("--plain", action="store_true", help="without fibers only")
    parser.add_argument(
        "-v", action="count", default=0, dest="verbose", help="show the ends of tracebacks; -vv: more of them"
    )
    options = parser.parse_args()
    version = ".".join(platform.python_version_tuple()[:2])
    known = skips.load(version)
    leave = () if options.skipped else tuple(known)
    kept = Kept()

    if not startup.path().exists():
        print("interpreters that the tests start are not patched: python -m fibers pth install", flush=True)

    def examine(file: str) -> Verdict:
        plain = kept.plain(file, options.fresh)
        if options.plain:
            ok = sum(result.outcome == "ok" for result in plain.results.values())
            print(f"{file}: {ok} of {len(plain.results)} pass without fibers ({plain.seconds} s)", flush=True)
            return Verdict(file)
        stuck = tuple(name for name, result in plain.results.items() if result.outcome in ("hung", "died"))
        run = run_file(Order(file, True, leave + stuck), kept.log("patched", file), environment(patched=True))
        (kept.folder / f"patched-{file}.json").write_text(json.dumps(run.as_dict(), indent=1))
        verdict = judge(plain, run, {} if options.skipped else known)
        text = f"{file}: {verdict.passed} of {verdict.judged} pass, {verdict.left_out} left out ({verdict.seconds} s)"
        for name, result in sorted(verdict.failed.items(), key=lambda each: each[1].outcome == "missing")[:MOST_SHOWN]:
            text += f"\n  {result.outcome.upper()} {name}"
            if options.verbose:
                text += "\n    " + "\n    ".join(result.detail.strip().splitlines()[-options.verbose * 14 :])
        if options.skipped:
            passing = [name for name in known if (found := run.results.get(name)) and found.outcome in PASSED]
            text += "".join(f"\n  PASSES {name}: its line in skips.txt can go" for name in passing)
        if len(verdict.failed) > MOST_SHOWN:
            text += f"\n  … and {len(verdict.failed) - MOST_SHOWN} more; what the processes said is in {kept.folder}"
        print(text, flush=True)
        return verdict

    files = shipped(options.files or list(FILES))
    if options.files and len(files) < len(options.files):
        parser.error("name files that this interpreter has, such as test_socket")
    with ThreadPoolExecutor(options.jobs) as pool:
        verdicts = list(pool.map(examine, files))
    if options.plain:
        return 0
    print("", table(verdicts), "", summary(verdicts, version), sep="\n")
    if not options.files:
        (kept.folder / "results.json").write_text(json.dumps([asdict(each) for each in verdicts], indent=1))
        (kept.folder / "table.md").write_text(table(verdicts) + "\n")
    bad = any(each.failed or each.needless for each in verdicts)
    return int(bad or sum(each.left_out for each in verdicts) > MOST_SKIPS)


if __name__ == "__main__":
    sys.exit(main())
