"""A few files of CPython's own test suite, on fibers: those that are done in a second or two. `make test-cpython` runs all.

On the default loop only: what differs between the loops has tests of its own.
"""

import importlib.util
import platform
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cpython import skips
from cpython.__main__ import environment
from cpython.running import FileRun, Order, run_file
from support.once import once

from fibers.eventloop import CHECKED

FILES = ("test_httpservers", "test_timeout", "test_thread", "test_threading_local", "test_epoll", "test_socketserver")

pytestmark = [
    once,
    pytest.mark.skipif(CHECKED, reason="checks take too long for this; the loops' own tests are run with them"),
    pytest.mark.skipif(
        importlib.util.find_spec("test.test_thread") is None, reason="this Python comes without its own tests"
    ),
]


def test_files_of_cpython_pass_on_fibers(tmp_path: Path) -> None:
    leave = tuple(skips.load(".".join(platform.python_version_tuple()[:2])))

    def run(file: str) -> FileRun:
        return run_file(Order(file, patched=True, leave=leave), tmp_path / f"{file}.log", environment())

    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(run, FILES))
    bad = {
        name: f"{result.outcome}: {result.detail}"
        for each in runs
        for name, result in each.results.items()
        if result.outcome not in ("ok", "skip", "xfail")
    }
    assert not bad, "\n".join(f"{name}\n{detail}" for name, detail in bad.items())
    waited = sum(result.waits > 0 for each in runs for result in each.results.values())
    assert waited > 70, f"only {waited} of the tests have waited in a fiber: is the library patched at all?"
