"""CPython's own tests of asyncio, on the loop of `fibers.asyncio`: `make test-asyncio`.

    python -m support.asyncio_suite                     every module of MODULES
    python -m support.asyncio_suite test_streams …      these, in one process
    python -m support.asyncio_suite --plain             on asyncio's own loop: what fails there is not ours

Each module runs in a process of its own, in the main fiber, beside a fiber that ticks: if it never did in all of them, no
loop has let other fibers run, and that is a failure. `asyncio.SelectorEventLoop` is ours, and so is what
`asyncio.new_event_loop()` makes. The tests of loops come once for each selector of the standard library; ours takes none,
so they run once.

What is left out stands in LEFT_OUT, each with its reason.
"""

import argparse
import asyncio
import importlib.util
import json
import signal
import subprocess
import sys
import unittest
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

#: Modules that run tests on a loop. Those on the parts of asyncio that need none, or on mocks of its loops, are not here.
MODULES: Final = (
    "test_buffered_proto",
    "test_context",
    "test_eager_task_factory",
    "test_events",
    "test_free_threading",
    "test_futures",
    "test_futures2",
    "test_locks",
    "test_pep492",
    "test_queues",
    "test_runners",
    "test_sendfile",
    "test_server",
    "test_sock_lowlevel",
    "test_ssl",
    "test_sslproto",
    "test_staggered",
    "test_streams",
    "test_subprocess",
    "test_taskgroups",
    "test_tasks",
    "test_threads",
    "test_timeouts",
    "test_unix_events",
    "test_waitfor",
)

_SELECTOR: Final = "one of several runs that differ in the selector, which this loop does not take"
_SELF_PIPE: Final = "counts the descriptors of the self-pipe, which this loop does not have"
_WAKEUP_FD: Final = "mocks the wakeup fd of signals, which stays with the event loop of the thread"

#: Patterns of test names, and why they do not run.
LEFT_OUT: Final[dict[str, str]] = {
    "*.PollEventLoopTests.*": _SELECTOR,
    "*.SelectEventLoopTests.*": _SELECTOR,
    "*.EPollEventLoopTests.test_internal_fds": _SELF_PIPE,
    "*.KqueueEventLoopTests.test_internal_fds": _SELF_PIPE,
    "*.SelectorEventLoopSignalTests.test_add_signal_handler_install_error": _WAKEUP_FD,
    "*.SelectorEventLoopSignalTests.test_add_signal_handler_install_error2": _WAKEUP_FD,
    "*.SelectorEventLoopSignalTests.test_add_signal_handler_install_error3": _WAKEUP_FD,
    "*.SelectorEventLoopSignalTests.test_add_signal_handler_setup_error": _WAKEUP_FD,
    "*.SelectorEventLoopSignalTests.test_close": _WAKEUP_FD,
    "*.SelectorEventLoopSignalTests.test_remove_signal_handler": _WAKEUP_FD,
    "*.SelectorEventLoopSignalTests.test_remove_signal_handler_2": _WAKEUP_FD,
    "*.SelectorEventLoopSignalTests.test_remove_signal_handler_error": _WAKEUP_FD,
    "*.SelectorEventLoopSignalTests.test_remove_signal_handler_error2": _WAKEUP_FD,
}

#: Seconds that one module has.
LIMIT: Final = 280.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="support.asyncio_suite", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="MODULE[.CLASS[.TEST]]")
    parser.add_argument("--plain", action="store_true", help="on asyncio's own loop")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if importlib.util.find_spec("test.test_asyncio") is None:
        print(f"this Python ({sys.executable}) comes without its own tests; another build has them", file=sys.stderr)
        return 2
    if options.child:
        return _child(options.names, options.plain)
    folder = Path(importlib.util.find_spec("test.test_asyncio").submodule_search_locations[0])  # type: ignore[union-attr,index]
    groups = [options.names] if options.names else [[name] for name in MODULES if (folder / f"{name}.py").exists()]
    total = {"run": 0, "failed": 0, "skipped": 0, "left_out": 0, "ticks": 0}
    bad: list[str] = []
    for names in groups:
        report = _group(names, options.plain)
        for key in total:
            total[key] += report[key]
        bad += report["bad"]
        print(
            f"{names[0]:28} {report['run']:5} run {report['failed']:3} failed {report['skipped']:3} skipped by themselves "
            f"{report['left_out']:3} left out {report['ticks']:6} ticks",
            flush=True,
        )
    if not (options.plain or options.names or total["ticks"]):
        bad.append("no other fiber has run beside these tests")
    for line in bad:
        print("FAILED", line)
    reasons = len(set(LEFT_OUT.values()))
    print(
        f"{total['run']} tests, {total['failed']} failed, {total['skipped']} skipped by themselves, "
        f"{total['left_out']} left out for {reasons} reasons"
    )
    return 1 if bad else 0


def _group(names: list[str], plain: bool) -> dict[str, Any]:
    name = names[0]
    command = [sys.executable, "-m", "support.asyncio_suite", "--child", *["--plain"] * plain, *names]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired as error:
        shown = error.stderr.decode(errors="replace") if isinstance(error.stderr, bytes) else str(error.stderr)
        return _broken(name, f"not done within {LIMIT:g} s; it ended with\n{shown[-3000:]}")
    lines = done.stdout.strip().splitlines()
    try:
        report: dict[str, Any] = json.loads(lines[-1])
    except (IndexError, ValueError):
        return _broken(name, f"exit status {done.returncode}\n{done.stderr[-3000:]}")
    return report


def _broken(name: str, why: str) -> dict[str, Any]:
    return {"run": 0, "failed": 1, "skipped": 0, "left_out": 0, "ticks": 0, "bad": [f"{name}: {why}"]}


# -- the process of one module --------------------------------------------------------------------------------------


def _child(names: list[str], plain: bool) -> int:
    if plain:
        report = _run(names)
        report["ticks"] = 0
    else:
        import fibers

        _replace()
        report = fibers.run(_beside, names)
    print("\n" + json.dumps(report))
    return 0


def _beside(names: list[str]) -> dict[str, Any]:
    """Run the tests while a fiber ticks."""
    import fibers

    ticks = 0

    def tick() -> None:
        nonlocal ticks
        while True:
            fibers.sleep(0.005)
            ticks += 1

    signal.signal(signal.SIGINT, signal.default_int_handler)  # as `fibers.asyncio.run` does it, for asyncio's Runner
    fibers.spawn(tick)
    report = _run(names)
    report["ticks"] = ticks
    return report


def _replace() -> None:
    """Let asyncio make our loops."""
    import fibers.asyncio

    class Loop(fibers.asyncio.FiberEventLoop):
        def __init__(self, selector: Any = None) -> None:
            if selector is not None:
                selector.close()
            super().__init__()

    policy: Any = asyncio.DefaultEventLoopPolicy
    policy._loop_factory = Loop
    if hasattr(asyncio, "EventLoop"):  # from Python 3.13 on
        asyncio.EventLoop = Loop
    asyncio.SelectorEventLoop = Loop


def _run(names: list[str]) -> dict[str, Any]:
    wanted = unittest.defaultTestLoader.loadTestsFromNames([f"test.test_asyncio.{name}" for name in names])
    suite = unittest.TestSuite()
    left_out = 0
    for test in _flat(wanted):
        if any(fnmatch(test.id(), f"*{pattern}") for pattern in LEFT_OUT):
            left_out += 1
        else:
            suite.addTest(test)
    result = unittest.TextTestRunner(sys.stderr, verbosity=2).run(suite)
    bad = [(test, text) for test, text in result.failures + result.errors]
    return {
        "run": result.testsRun,
        "failed": len(bad) + len(result.unexpectedSuccesses),
        "skipped": len(result.skipped),
        "left_out": left_out,
        "bad": [f"{test.id()}: {text.strip().splitlines()[-1]}" for test, text in bad],
    }


def _flat(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from _flat(test)
        else:
            yield test


if __name__ == "__main__":
    sys.exit(main())
