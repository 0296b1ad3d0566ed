"""One file of CPython's own test suite, run in this process: plain, or on fibers.

The parent (running.py) starts it with an order in JSON and reads what is appended to the order's `report`, a line of JSON
for each step: so what a process has told survives its crash. Each test has a time limit of its own. When it is up
faulthandler writes where every thread stands and ends the process, which needs neither the interpreter nor the event loop
to be in a good state; the parent starts another one for the tests that are left.

Everything that is used while tests run is held by objects made here before anything is patched, or is written in C and not
patched at all: the recorder must tell the truth about a program in which `time` and `os` are under test.
"""

import faulthandler
import importlib
import json
import resource
import signal
import sys
import time
import traceback
import unittest
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from .prepare import neutralise

#: Of a traceback: enough to see what went wrong.
LONGEST_DETAIL = 6000


class Recorder(unittest.TestResult):
    """Appends each test's begin and end to the report, and counts the waits of fibers meanwhile."""

    def __init__(self, report: BinaryIO, limit: float, waits: Callable[[], int]) -> None:
        super().__init__()
        self._report = report
        self._limit = limit
        self._waits = waits
        self._clock = time.perf_counter
        self._began = 0.0
        self._waits_before = 0
        self._outcome = ""
        self._detail = ""

    def tell(self, **line: object) -> None:
        self._report.write(json.dumps(line).encode() + b"\n")  # unbuffered: one call of write(2)

    def startTest(self, test: unittest.TestCase) -> None:  # noqa: N802 (unittest's name, as those below)
        super().startTest(test)
        self._outcome, self._detail = "ok", ""
        self.tell(begin=identity(test))
        self._waits_before = self._waits()
        self._began = self._clock()
        faulthandler.dump_traceback_later(self._limit, exit=True, file=2)

    def stopTest(self, test: unittest.TestCase) -> None:  # noqa: N802
        faulthandler.cancel_dump_traceback_later()
        self.tell(
            end=identity(test),
            outcome=self._outcome,
            detail=self._detail[-LONGEST_DETAIL:],
            seconds=round(self._clock() - self._began, 3),
            waits=self._waits() - self._waits_before,
        )
        super().stopTest(test)

    def _failed(self, test: unittest.TestCase, outcome: str, detail: str) -> None:
        if isinstance(test, unittest.TestCase):
            self._outcome = outcome
            self._detail += detail
        else:  # the set-up of a class or of the module: none of its tests begins
            self.tell(end=identity(test), outcome=outcome, detail=detail[-LONGEST_DETAIL:], seconds=0.0, waits=0)

    def addSuccess(self, test: unittest.TestCase) -> None:  # noqa: N802
        pass

    def addError(self, test: unittest.TestCase, err: Any) -> None:  # noqa: N802
        self._failed(test, "error", "".join(traceback.format_exception(*err)))

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:  # noqa: N802
        self._failed(test, "fail", "".join(traceback.format_exception(*err)))

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:  # noqa: N802
        if err is not None:
            self._failed(test, "fail", f"{subtest}\n" + "".join(traceback.format_exception(*err)))

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:  # noqa: N802
        if self._outcome == "ok" or not isinstance(test, unittest.TestCase):  # a skipped part hides no failure
            self._failed(test, "skip", reason)

    def addExpectedFailure(self, test: unittest.TestCase, err: Any) -> None:  # noqa: N802
        self._outcome = "xfail"

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:  # noqa: N802
        self._outcome = "fail"
        self._detail = "unexpected success"


def identity(test: unittest.TestCase) -> str:
    """The name of a test in skips.txt and everywhere else: without the package in which CPython keeps all of them."""
    return test.id().removeprefix("test.").replace("(test.", "(")


def flat(suite: Any) -> Iterator[unittest.TestCase]:
    for each in suite:
        if isinstance(each, unittest.TestSuite):
            yield from flat(each)
        else:
            yield each


def patch() -> Callable[[], int]:
    """Put fibers under the standard library. Returns what counts the waits of fibers so far, in all threads."""
    # Not at the top of the file: a plain run must not have loaded the package.
    from fibers.core.lifecycle import schedulers
    from fibers.patch import patch_all

    patch_all()

    def waits() -> int:
        return sum(scheduler.switches + scheduler.loop.stats.turns for scheduler in schedulers())

    return waits


def main(argument: str) -> int:
    """Run the tests that `argument` orders. Returns the exit status, 0 whatever they came to."""
    order = json.loads(argument)
    resource.setrlimit(resource.RLIMIT_AS, (order["memory"], order["memory"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell hands it to a job in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    report = open(order["report"], "ab", buffering=0)  # noqa: SIM115 (until the process ends, however it ends)
    waits = patch() if order["patched"] else int
    recorder = Recorder(report, order["limit"], waits)

    support: Any = importlib.import_module("test.support")
    if order["folder"] is not None:
        sys.modules["test"].__path__.append(order["folder"])
    support.use_resources = order["resources"]
    support.verbose = 0
    if order["patched"]:
        neutralise()
    try:
        module = importlib.import_module("test." + order["file"])
    except unittest.SkipTest as reason:
        recorder.tell(end=order["file"] + " (the file)", outcome="skip", detail=str(reason), seconds=0.0, waits=0)
        recorder.tell(ran=True)
        return 0
    left_out = set(order["leave"])
    tests = list(flat(unittest.defaultTestLoader.loadTestsFromModule(module)))
    recorder.tell(tests=[identity(test) for test in tests])
    unittest.TestSuite(test for test in tests if identity(test) not in left_out).run(recorder)
    recorder.tell(ran=True)
    return 0
