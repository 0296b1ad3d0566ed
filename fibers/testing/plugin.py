"""The pytest plugin: tests that run in a fiber, on a virtual clock, in a shuffled order. Loaded by entry point; without
a marker or an option it does nothing.

    @pytest.mark.fibers             this test (or class) runs in a fiber
    fibers_mode = auto              in the ini file: every test does
    virtual_clock                   a fixture: the time of this test is virtual
    leak_guard                      a fixture: no fd, thread or fiber is left behind
    --fibers-seed=N                 the order of fibers is shuffled; a failure tells how to repeat it
    --fibers-timeout=SECONDS        (also an ini option) how long a test may take

What runs where. A marked test runs in a fiber of its own in the main thread, with setUp and tearDown if it is unittest's.
Fixtures are set up and torn down in the main fiber, where they may wait, spawn and use sockets just as well; what they
spawn runs beside the test. Context variables set by fixtures are seen by the test, not the other way round.

The main fiber waits for the test. So it is there that Ctrl-C arrives, that a deadlock is reported and a time limit
strikes, whatever the test does, as long as it waits; and it can then cancel the test, which unwinds in order.

`virtual_clock` gives the test a runtime of its own (runtime.py), set up before every other fixture of function scope and
torn down after them. Fixtures of wider scope live in the thread's own runtime, which stands still meanwhile.

Whose fiber is it? Fibers inherit the `root` of who spawned them. The test has one of its own, and so has what each fixture
has spawned. What is left with the root of the test, or of its fixtures of function scope, has been left behind by it.
"""

import inspect
import random
import re
import shlex
from collections.abc import Callable, Generator, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any, Final

import pytest

from ..core.cancel import move_on_after
from ..core.dump import picture
from ..core.fiber import Fiber
from ..core.lifecycle import GRACE, all_fibers, end_fibers
from ..core.runtime import spawn
from ..core.scheduler import Scheduler, check_seconds, get_scheduler, state
from ..core.tracebacks import PACKAGE
from ..errors import DeadlockError
from .clock import VirtualClock, VirtualClockError
from .idle import wait_all_parked
from .leaks import check, describe, take
from .runtime import runtime
from .shuffle import shuffle
from .virtual import VirtualLoop, new_virtual_loop

#: pytest leaves the frames of this file out of its reports.
__tracebackhide__ = True

#: Seconds that fibers which are about to end get before they count as left behind.
_SETTLE: Final = 1.0
#: Lines of a picture that say where pytest and the runtime stand.
_NOT_THE_PROGRAM: Final = re.compile(rf" +at (<frozen runpy>|.*/(_?pytest|pluggy)/[\w/]+\.py|{re.escape(PACKAGE)}.*):")
_MODES: Final = ("strict", "auto")


class _Settings:
    """What the options say."""

    def __init__(self, config: pytest.Config) -> None:
        mode = config.getini("fibers_mode")
        if mode not in _MODES:
            raise pytest.UsageError(f"fibers_mode = {mode} is not known; use one of {', '.join(_MODES)}")
        self.auto = mode == "auto"
        given = config.getoption("fibers_timeout")
        self.timeout = _seconds(config.getini("fibers_timeout") if given is None else given, "fibers_timeout")
        self.seed: int | None = None
        seed = config.getoption("fibers_seed")
        if seed is not None:
            try:
                self.seed = random.randrange(2**32) if seed == "random" else int(seed)
            except ValueError:
                raise pytest.UsageError(f"--fibers-seed={seed} is neither a whole number nor 'random'") from None
            config.option.fibers_seed = str(self.seed)  # the processes that xdist starts get the same


class _Notes:
    """What is known of a running test."""

    def __init__(self) -> None:
        self.timeout: float | None = None
        self.leaks = True
        self.root = object()  # of what its fixtures have spawned
        self.picture: str | None = None  # of the moment of its failure


class _Late(BaseException):
    """The time limit of a test on a virtual clock has passed."""


_settings: Final = pytest.StashKey[_Settings]()
_notes: Final = pytest.StashKey[_Notes]()
_failed: Final = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fibers", "tests in fibers")
    group.addoption(
        "--fibers-seed",
        metavar="N",
        help="shuffle the order in which fibers of marked tests run; the same N gives the same order ('random': draw one)",
    )
    group.addoption("--fibers-timeout", metavar="SECONDS", help="how long a marked test may take, in real seconds")
    parser.addini("fibers_mode", "which tests run in a fiber: strict (the marked ones) or auto (all)", default="strict")
    parser.addini("fibers_timeout", "how long a marked test may take, in real seconds; empty: no limit", default="")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "fibers(timeout=None, leaks=True, run=True): run the test in a fiber, for at most `timeout` real seconds; fail "
        "it if it leaves fibers behind, unless `leaks` is false. With `run` false it runs as usual, also in mode auto.",
    )
    config.stash[_settings] = _Settings(config)


def pytest_report_header(config: pytest.Config) -> str | None:
    seed = config.stash[_settings].seed
    return None if seed is None else f"fibers: the order of fibers is shuffled with --fibers-seed={seed}"


def _seconds(value: object, name: str) -> float | None:
    if value is None or value == "":
        return None
    try:
        return check_seconds(name, float(value))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise pytest.UsageError(f"{name} must be a number of seconds, not {value!r}") from None


def _marked(item: pytest.Item) -> _Notes | None:
    """The notes of a test that is to run in a fiber; None: it is not."""
    known = item.stash.get(_notes, None)
    if known is not None:
        return known
    settings = item.config.stash[_settings]
    marker = item.get_closest_marker("fibers")
    if (marker is None and not settings.auto) or not isinstance(item, pytest.Function):
        return None
    function = inspect.unwrap(item.function)
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return None
    notes = item.stash[_notes] = _Notes()
    options = dict(marker.kwargs) if marker is not None else {}
    if marker is not None and marker.args:
        raise pytest.UsageError(f"{item.nodeid}: the marker `fibers` takes keywords only, not {marker.args}")
    run = options.pop("run", True)
    notes.leaks = bool(options.pop("leaks", True))
    notes.timeout = _seconds(options.pop("timeout", settings.timeout), f"{item.nodeid}: timeout")
    if options:
        raise pytest.UsageError(f"{item.nodeid}: the marker `fibers` does not know {', '.join(sorted(options))}")
    if not run:
        del item.stash[_notes]
        return None
    return notes


# -- running a test -------------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    notes = _marked(item)
    if notes is None:
        return (yield)
    item.runtest = partial(_run, item, item.runtest, notes)  # type: ignore[method-assign]
    try:
        return (yield)
    finally:
        del item.runtest


def _run(item: pytest.Item, runtest: Callable[[], None], notes: _Notes) -> None:
    """`item.runtest` in a fiber. In the main fiber."""
    scheduler = get_scheduler()
    root = object()
    try:
        with _order(item):
            test = spawn(_test, item, runtest, notes, name=item.name)
            test.root = root
            _wait(scheduler, test, notes)
        test.result()
        left = _left(scheduler, root) if notes.leaks else []
        if (error := scheduler.left_over()) is not None:
            raise error
        if left and not _has_failed(item):
            notes.picture = _picture(1)
            pytest.fail(_complaint("the test", left), pytrace=False)
    finally:
        end_fibers(scheduler, lambda fiber: fiber.root is root)


def _order(item: pytest.Item) -> Any:
    seed = item.config.stash[_settings].seed
    return nullcontext() if seed is None else shuffle(f"{seed}:{item.nodeid}")


def _test(item: pytest.Item, runtest: Callable[[], None], notes: _Notes) -> None:
    """What the fiber of a test does."""
    try:
        runtest()
    except BaseException as error:
        if notes.picture is None:
            notes.picture = _picture()
        if not item.config.getoption("fulltrace", False):
            _end_at_the_call(error)
        raise
    if _has_failed(item):
        notes.picture = _picture()


def _end_at_the_call(error: BaseException) -> None:
    """Take this package's frames off the inner end of a traceback: what goes on in there is not the reader's."""
    last, traceback = None, error.__traceback__
    while traceback is not None:
        if not traceback.tb_frame.f_code.co_filename.startswith(PACKAGE):
            last = traceback
        traceback = traceback.tb_next
    if last is not None:
        last.tb_next = None


def _has_failed(item: pytest.Item) -> bool:
    """A unittest's failure is no exception here: pytest has noted it."""
    return bool(getattr(item, "_excinfo", None))


def _picture(least: int = 2) -> str | None:
    """What the fibers do, if there are at least so many, and where they stand in the program."""
    if len(all_fibers()) < least:
        return None
    return _of_the_program(picture())


def _of_the_program(text: str) -> str:
    """A picture without the lines that say where pytest and the runtime stand."""
    return "\n".join(line for line in text.splitlines() if not _NOT_THE_PROGRAM.match(line))


def _wait(scheduler: Scheduler, test: Fiber[None], notes: _Notes) -> None:
    """Wait for the end of a test, and not for longer than it may take."""
    timeout, loop = notes.timeout, scheduler.loop
    try:
        if timeout is not None and isinstance(loop, VirtualLoop):
            loop.set_alarm(timeout, partial(scheduler.throw, scheduler.main, _Late()))
            try:
                test.join()
            finally:
                loop.stop_alarm()
        else:
            test.join(timeout)
    except (TimeoutError, _Late):
        notes.picture = _picture(1)
        test.cancel()
        with move_on_after(GRACE):
            test.join()
        raise TimeoutError(f"the test was not done after {timeout:g} seconds") from test._error
    except (DeadlockError, VirtualClockError) as error:  # they have a picture
        notes.picture = ""
        error.args = (_of_the_program(str(error)),)
        raise error.with_traceback(None)  # noqa: B904 - where main stood when it came is no news
    except BaseException:
        notes.picture = _picture()
        raise


def _left(scheduler: Scheduler, root: object) -> list[Fiber[Any]]:
    """The fibers of a root that go on, after those have ended that are about to."""

    def living() -> list[Fiber[Any]]:
        return [fiber for fiber in scheduler.fibers if fiber.root is root]

    if living():
        with move_on_after(_SETTLE):
            wait_all_parked()
    return sorted(living(), key=lambda fiber: fiber.name)


def _complaint(who: str, left: list[Fiber[Any]]) -> str:
    lines = "\n  ".join(describe(fiber) for fiber in left)
    return f"{who} left {len(left)} fiber{'s' * (len(left) > 1)} behind; join or cancel them, or use a TaskGroup:\n  {lines}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    item.stash[_failed] = item.stash.get(_failed, False) or report.failed
    notes = item.stash.get(_notes, None)
    if notes is not None and report.failed and report.when == "call":
        if notes.picture:
            report.sections.append(("fibers", notes.picture))
        seed = item.config.stash[_settings].seed
        if seed is not None:
            again = f"pytest --fibers-seed={seed} {shlex.quote(item.nodeid)}"
            report.sections.append(("order of fibers", f"shuffled; to repeat it:\n{again}"))
    return report


# -- fixtures -------------------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, Any, Any]:
    """See to it that `virtual_clock` comes first, and note whose fibers those are that a fixture spawns."""
    of_test = fixturedef.scope == "function"
    if of_test and fixturedef.argname != "virtual_clock" and "virtual_clock" in request.fixturenames:
        request.getfixturevalue("virtual_clock")
    before = set(all_fibers())
    try:
        return (yield)
    finally:
        notes = request.node.stash.get(_notes, None) if of_test else None
        root = object() if notes is None else notes.root
        scheduler = state.scheduler
        if scheduler is not None:
            for fiber in scheduler.fibers - before:
                if fiber.root is None:
                    fiber.root = root


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    _marked(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    try:
        return (yield)
    finally:
        notes, scheduler = _marked(item), state.scheduler
        if notes is not None and scheduler is not None and scheduler.current is scheduler.main:
            left = _left(scheduler, notes.root)
            if left:
                complaint = _complaint("a fixture of the test", left)
                end_fibers(scheduler, lambda fiber: fiber.root is notes.root)
                if notes.leaks and not item.stash.get(_failed, False):
                    pytest.fail(complaint, pytrace=False)


@pytest.fixture
def virtual_clock(request: pytest.FixtureRequest) -> Iterator[VirtualClock]:
    """A VirtualClock, on which the time of this test runs: it jumps to the next deadline when every fiber waits.

    The test and its fixtures of function scope are in a runtime of their own; fibers and sockets of wider fixtures stand
    still meanwhile. Change its attributes (`auto`, `patience`) before time passes.
    """
    clock = VirtualClock()
    notes = request.node.stash.get(_notes, None)
    with runtime(new_virtual_loop(clock)) as scheduler:
        yield clock
        left = _left(scheduler, notes.root) if notes is not None and notes.leaks else []
        complaint = _complaint("a fixture of the test", left) if left else None
    if complaint is not None and not request.node.stash.get(_failed, False):
        pytest.fail(complaint, pytrace=False)


@pytest.fixture
def leak_guard(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves an open fd, a thread or a fiber behind, its fixtures of function scope included that come
    after this one. A test that failed is left alone: its traceback keeps its locals.
    """
    before = take()
    yield
    if not request.node.stash.get(_failed, False) and (lines := check(before)):
        pytest.fail("the test left behind:\n  " + "\n  ".join(lines), pytrace=False)
