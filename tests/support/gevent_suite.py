"""gevent's own tests on our names: `python -m support.gevent_suite test__pool test__queue …` (make test-gevent).

gevent ships its tests, and what they are made with, in its wheel. Here `import gevent` is `fibers.compat.gevent`. Of the
wheel come the modules `gevent.tests` and `gevent.testing`, and two that those are written with; nothing else of it can be
imported, so nothing is tested by accident that is not ours. Each file runs in a process of its own.

tests/compat/gevent_skips.txt says which tests do not count, one a line with the reason: `test__pool.TestPool.test_x  why`,
or `test__pool.*.test_x`, or a whole class, or a whole file. `--all` runs them, too.
"""

import argparse
import importlib
import importlib.machinery
import importlib.util
import subprocess
import sys
import unittest
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

SKIPS = Path(__file__).parents[1] / "compat" / "gevent_skips.txt"

#: What may be imported from the wheel.
FOREIGN = ("gevent._compat", "gevent._util", "gevent.testing", "gevent.tests")

#: Files that run by `make test-gevent`.
FILES = (
    "test__GreenletExit", "test__api", "test__api_timeout", "test__backdoor", "test__event", "test__greenlet",
    "test__greenletset", "test__iwait", "test__joinall", "test__local", "test__lock", "test__pool", "test__queue",
    "test__select", "test__semaphore", "test__server", "test__signal", "test__socket_close", "test__socket_errors",
    "test__socket_timeout", "test__socketpair", "test__threadpool", "test__timeout",
)  # fmt: skip


class _Wheel:
    """Finds those modules where gevent is installed."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> Any:
        if not any(name == each or name.startswith(f"{each}.") for each in FOREIGN):
            return None
        where = [self._folder, *name.split(".")[1:-1]]
        return importlib.machinery.PathFinder.find_spec(name, ["/".join(where)])


def _module(name: str, **names: Any) -> None:
    module = ModuleType(name)
    module.__dict__.update(names)
    sys.modules[name] = module
    setattr(sys.modules["gevent"], name.rpartition(".")[2], module)


class loop:  # noqa: N801 - stands for the class of gevent's loops
    """Asked for its module alone."""


def prepare() -> None:
    """From now on `import gevent` is ours, with gevent's tests in it."""
    spec = importlib.util.find_spec("gevent")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("gevent is not installed here, and its tests come with it")
    from fibers.compat import gevent
    from fibers.compat.gevent._loop import Callback

    gevent.install()
    sys.meta_path.insert(0, _Wheel(spec.submodule_search_locations[0]))
    hub = gevent.hub
    _module("gevent.core", loop=loop, callback=Callback)
    _module("gevent.events", subscribers=[])
    _module(
        "gevent._hub_local",
        get_hub_class=hub.get_hub_class,
        get_hub_if_exists=hub.get_hub_if_exists,
        get_hub=hub.get_hub,
    )
    for name in FOREIGN:  # `from gevent import testing` asks for an attribute
        setattr(gevent, name.removeprefix("gevent."), importlib.import_module(name))


def reasons(file: str) -> dict[str, str]:
    """What is skipped of a file, by `Class.test`, `*.test`, `Class` or nothing (all of it)."""
    found = {}
    for line in SKIPS.read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, reason = line.partition(" ")
            if not reason.strip():
                raise SystemExit(f"{SKIPS.name}: {name} is skipped without a reason")
            module, _, rest = name.partition(".")
            if module == file:
                found[rest] = reason.strip()
    return found


def _flat(suite: Any) -> Iterator[Any]:
    for each in suite:
        if isinstance(each, unittest.TestSuite):
            yield from _flat(each)
        else:
            yield each


def run_file(file: str, only: Sequence[str], all_tests: bool) -> int:
    """Run one file here. 0 if all that count have passed."""
    module = importlib.import_module(f"gevent.tests.{file}")
    skipped = {} if all_tests else reasons(file)
    chosen = unittest.TestSuite()
    left_out = 0
    for test in _flat(unittest.defaultTestLoader.loadTestsFromModule(module)):
        name = test.id().removeprefix(f"gevent.tests.{file}.")
        kind, _, method = name.rpartition(".")
        if not skipped.keys().isdisjoint(("", name, kind, f"*.{method}")):
            left_out += 1
        elif not only or any(each in name for each in only):
            chosen.addTest(test)
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=1).run(chosen)
    print(f"{file}: {result.testsRun} run, {len(result.failures) + len(result.errors)} failed, {left_out} left out")
    return 0 if result.wasSuccessful() else 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m support.gevent_suite")
    parser.add_argument("files", nargs="*", default=FILES)
    parser.add_argument("-k", dest="only", action="append", default=[], help="only tests whose names contain this")
    parser.add_argument("--all", action="store_true", help="also what is skipped")
    parser.add_argument("--here", action="store_true", help="in this process")
    options = parser.parse_args()
    if options.here:
        prepare()
        return max(run_file(file, options.only, options.all) for file in options.files)
    failed = []
    for file in options.files:
        command = [sys.executable, "-m", "support.gevent_suite", "--here", file]
        command += [argument for each in options.only for argument in ("-k", each)] + ["--all"] * options.all
        done = subprocess.run(command, timeout=300, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        told = done.stdout.strip().splitlines()
        print("\n".join(told) if done.returncode else told[-1], flush=True)
        if done.returncode:
            failed.append(file)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
