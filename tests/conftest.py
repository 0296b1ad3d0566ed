"""What holds for every test: sizes and seeds of random tests, the guard against leaks; and loops for those who want one.

A test runs on the event loop of its thread, which FIBERS_EVENTLOOP chooses. One that takes a fixture of the last section
runs on a loop that is given to it, once for each kind of loop (support/loops.py).
"""

import gc
import signal
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest
from hypothesis import settings
from support import tested
from support.loops import BY_NAME, OF_THIS_RUN, Kind
from support.scale import DERANDOMISED, SCALE, SEED, scaled
from support.servers import PostgreSQL, Redis

import fibers
import fibers.eventloop
from fibers.testing import leaks
from fibers.threads.to_thread import to_thread

# A shell that puts a job into the background may hand it SIGINT ignored, and every child inherits that: then no Ctrl-C
# that a test sends would arrive. A handler of our own is reset to the default in each child.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


settings.register_profile(
    "fibers",
    max_examples=scaled(2000, least=20),
    stateful_step_count=scaled(400, least=40),
    derandomize=DERANDOMISED,
    # The machine is shared: a slow example is no finding. Hangs are the time limit's business.
    deadline=None,
    print_blob=True,
)
settings.load_profile("fibers")

_failed = pytest.StashKey[bool]()


def pytest_report_header() -> str:
    loop = fibers.eventloop.BACKEND + " checked" * fibers.eventloop.CHECKED
    return f"fibers: event loop {loop}, FIBERS_TEST_SCALE={SCALE:g}, FIBERS_TEST_SEED={SEED}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[_failed] = True
    return report


def pytest_collection_finish() -> None:
    """Thousands of tests are objects that stay. Many tests have the collector run: it need not look at these each time."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    tested.note(session, exitstatus)


@pytest.fixture(scope="session", autouse=True)
def _main_loop() -> None:
    """Make the main thread's loop before any test looks at the open descriptors: it lives to the end."""
    fibers.sleep(0.001)


@pytest.fixture(autouse=True)
def _leak_guard(request: pytest.FixtureRequest, _main_loop: None) -> Iterator[None]:
    """Fail the test that leaves an fd, a thread or a fiber behind.

    A test that failed is left alone: its traceback holds its locals, and one report for one fault is enough.
    """
    before = leaks.take()
    yield
    if request.node.stash.get(_failed, False):
        return
    lines = leaks.check(before)
    if lines:
        pytest.fail("the test leaked\n  " + "\n  ".join(lines), pytrace=False)


# -- loops that are given to a test ------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fibers-loop",
        action="append",
        default=[],
        metavar="NAME",
        help=f"where tests are given an event loop: only this one; may be repeated. Known: {', '.join(BY_NAME)}",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "loops(wanted, reason): of those that are given to it, the loops it is for")
    for name in config.getoption("--fibers-loop"):
        if name not in BY_NAME:
            raise pytest.UsageError(f"--fibers-loop={name!r}: known here are {', '.join(BY_NAME)}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "loop_factory" in metafunc.fixturenames:
        names = metafunc.config.getoption("--fibers-loop")
        asked = [BY_NAME[name] for name in names] or OF_THIS_RUN
        kinds, reason = asked, ""
        for mark in metafunc.definition.iter_markers("loops"):
            kinds, reason = [kind for kind in kinds if mark.args[0](kind)], mark.args[1]
        given = [_of(kind) for kind in kinds] or [pytest.param(None, marks=pytest.mark.skip(reason=reason), id="none")]
        metafunc.parametrize("loop_factory", given, indirect=True)


def _of(kind: Kind) -> Any:
    skip = pytest.mark.skip(reason=f"{kind.backend} cannot be used here: {kind.problem}")
    return pytest.param(kind, marks=[skip] if kind.problem else [], id=str(kind))


@pytest.fixture
def loop_factory(request: pytest.FixtureRequest) -> Kind:
    """Makes loops of one kind, for the calling thread: `loop_factory()`, `loop_factory(clock)`."""
    given: Kind = request.param
    return given


@pytest.fixture
def loop(loop_factory: Kind) -> Iterator[fibers.eventloop.EventLoop]:
    """A loop to be used bare. The thread has one of its own, and both may live: nothing here parks a fiber in this one."""
    made = loop_factory()
    yield made
    made.close()


@pytest.fixture
def on_loop(loop_factory: Kind) -> Callable[..., Any]:
    """`on_loop(main, *args, clock=…)`: `fibers.run(main, *args, loop=…)` in a thread of its own, on a loop of this kind."""

    def run(main: Callable[..., Any], *args: Any, clock: fibers.eventloop.Clock = fibers.eventloop.MONOTONIC) -> Any:
        return to_thread(lambda: fibers.run(main, *args, loop=loop_factory(clock)))

    return run


# -- servers of other people -------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Redis]:
    """A real Redis that lives until the last test has ended. A test that kills it starts it again."""
    with Redis() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgreSQL]:
    """A real PostgreSQL, likewise."""
    with PostgreSQL() as server:
        yield server
