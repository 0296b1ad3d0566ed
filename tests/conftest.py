"""The rules that hold for every test: sizes and seeds of random tests, and the guard against leaks."""

import signal
from collections.abc import Generator, Iterator

import pytest
from hypothesis import settings
from support import tested
from support.scale import DERANDOMISED, SCALE, SEED, scaled

import fibers
import fibers.eventloop
from fibers.testing import leaks

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
    loop = fibers.eventloop.BACKEND
    return f"fibers: event loop {loop}, FIBERS_TEST_SCALE={SCALE:g}, FIBERS_TEST_SEED={SEED}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[_failed] = True
    return report


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
