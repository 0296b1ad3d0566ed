"""The pytest plugin, as a user meets it: small projects in folders of their own, run by a pytest of their own.

What has to be judged is what is printed, also for tests that fail, leak and hang; so every project here is run in a child
process, with nothing of this repository but the installed plugin.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.once import once
from support.process import environment

pytestmark = once

pytest_plugins = ["pytester"]

#: How long a child may take (seconds): a hang must fail here, with its output, not at the time limit of the suite.
CHILD_S = 60


@pytest.fixture(autouse=True)
def _environment(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package of this repository, its plugin and no other (that takes a second per child); no options from outside."""
    for name in ("PYTEST_ADDOPTS", "CI", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_PLUGINS", "fibers.testing.plugin")
    pytester.makeini(
        "[pytest]\naddopts = -p no:cacheprovider --strict-markers --strict-config\nfilterwarnings = error\n"
    )


@pytest.fixture
def _as_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """All plugins, by their entry points."""
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    monkeypatch.delenv("PYTEST_PLUGINS")


def run(pytester: pytest.Pytester, *options: str) -> tuple[pytest.RunResult, str]:
    result = pytester.runpytest_subprocess(*options, timeout=CHILD_S)
    return result, result.stdout.str()


def section(text: str, test: str) -> str:
    """What is printed of one failure."""
    parts = re.split(r"^_{3,} (?:ERROR at \w+ of )?(.+?) _{3,}$|^=+ short test summary", text, flags=re.MULTILINE)
    return next(body or "" for name, body in zip(parts[1::2], parts[2::2], strict=False) if name == test)


# -- what works -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_as_installed")
def test_marked_tests_run_in_a_fiber_and_fixtures_in_main(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
import contextvars, threading, unittest
import pytest
import fibers
from fibers.io import socket
from fibers.core.scheduler import get_scheduler

var = contextvars.ContextVar("var", default="unset")


def main():
    return get_scheduler().main


@pytest.fixture
def here():
    fibers.sleep(0.001)
    var.set("by the fixture")
    yield fibers.current()
    assert fibers.current() is main()
    assert var.get() == "by the fixture"


@pytest.fixture(scope="module")
def server():
    def handle(connection):
        with connection:
            while data := connection.recv(100):
                connection.sendall(data)

    def serve():
        while True:
            connection, _ = listener.accept()
            fibers.spawn(handle, connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        fiber = fibers.spawn(serve)
        yield listener.getsockname()
        fiber.cancel()
        fiber.join()


kept = []


def test_unmarked(here):
    assert fibers.current() is here is main()


@pytest.mark.fibers
def test_marked(here):
    assert threading.current_thread() is threading.main_thread()
    assert here is main()
    assert fibers.current() is not main()
    assert fibers.current().name == "test_marked"
    assert var.get() == "by the fixture"
    var.set("by the test")


@pytest.mark.fibers
def test_a_handler_of_a_wider_fixture_is_not_the_tests(server):
    kept.append(socket.create_connection(server))
    kept[0].sendall(b"x")
    assert kept[0].recv(1) == b"x"


@pytest.mark.fibers
def test_which_goes_on(server):
    with kept.pop() as connection:
        connection.sendall(b"y")
        assert connection.recv(1) == b"y"


@pytest.mark.fibers
class TestClass:
    @pytest.mark.parametrize("number", [1, 2])
    def test_method(self, number, request):
        assert fibers.current().name == f"test_method[{number}]"
        assert request.getfixturevalue("here") is fibers.current()  # set up here and now

    def test_skips(self):
        fibers.yield_now()
        pytest.skip("in a fiber")

    @pytest.mark.xfail(strict=True, raises=ZeroDivisionError)
    def test_xfails(self):
        fibers.yield_now()
        1 / 0

    @pytest.mark.fibers(run=False)
    def test_but_not_this(self):
        assert fibers.current() is main()


@pytest.mark.fibers
class TestUnit(unittest.TestCase):
    def setUp(self):
        self.fiber = fibers.current()
        fibers.sleep(0.001)

    def tearDown(self):
        assert fibers.current() is self.fiber is not main()

    def test_unit(self):
        self.assertIs(fibers.current(), self.fiber)

    @unittest.skip("unittest's way")
    def test_skipped(self):
        pass


@pytest.mark.fibers
def test_own_fibers_that_are_about_to_end_are_not_left_behind():
    left, right = socket.socketpair()
    reader = fibers.spawn(right.recv, 1)
    fibers.spawn(fibers.sleep, 3600).cancel()
    left.close()
    assert not reader.done()
    right_end.append(right)


right_end = []


@pytest.mark.fibers(leaks=False)
def test_what_is_left_on_purpose_is_ended_and_forgiven():
    fibers.spawn(fibers.sleep, 3600)


@pytest.mark.fibers
def test_and_is_gone_here():
    right_end.pop().close()
    assert {fiber.name for fiber in fibers.all_fibers()} == {"server.<locals>.serve", fibers.current().name}


@pytest.mark.fibers
def test_errors_of_the_test_arrive():
    with pytest.raises(ExceptionGroup):
        with fibers.TaskGroup() as group:
            group.spawn(int, "x")
"""
    )
    result, text = run(pytester, "-rA")
    result.assert_outcomes(passed=12, skipped=2, xfailed=1)
    assert "fibers:" not in text, "without a seed nothing is said"


def test_virtual_time_in_tests_and_their_fixtures(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
import pytest
import fibers
from fibers.core.scheduler import get_scheduler
from fibers.testing import VirtualClock

HOUR = 3600


@pytest.fixture(scope="module")
def wide():
    return get_scheduler()


@pytest.fixture(autouse=True)
def early():
    return get_scheduler()


@pytest.fixture
def timer():
    fiber = fibers.spawn(fibers.sleep, HOUR)
    yield fiber
    fiber.join()
    assert fibers.current_time() >= HOUR


@pytest.mark.fibers
def test_hours(virtual_clock):
    assert isinstance(virtual_clock, VirtualClock)
    for number in range(100):
        fibers.sleep(HOUR)
    assert virtual_clock() == fibers.current_time() == 100 * HOUR


@pytest.mark.fibers
def test_fixtures_of_the_test_are_on_it_wherever_they_stand(timer, early, wide, virtual_clock):
    assert early is get_scheduler()
    assert wide is not early
    timer.join()
    assert virtual_clock() == HOUR


@pytest.mark.fibers
def test_next_to_it_time_is_real(early, wide):
    assert early is wide
    assert type(early.loop.clock).__name__ != "VirtualClock"


def test_unmarked(virtual_clock, timer):
    assert fibers.current() is get_scheduler().main
    timer.join()
    assert virtual_clock() == HOUR


@pytest.mark.fibers
def test_by_hand(virtual_clock):
    virtual_clock.auto = False
    sleeper = fibers.spawn(fibers.sleep, 10)
    virtual_clock.advance(9)
    assert not sleeper.done()
    virtual_clock.advance(1)
    assert sleeper.done()


@pytest.mark.fibers(timeout=30)
def test_a_time_limit_is_real(virtual_clock):
    fibers.sleep(HOUR)
"""
    )
    result, _ = run(pytester)
    result.assert_outcomes(passed=6)


@pytest.mark.usefixtures("_as_installed")
def test_it_can_be_switched_off(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_plain(): pass")
    result, text = run(pytester, "-p", "no:fibers", "--fibers-seed=1")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "unrecognized arguments: --fibers-seed=1" in result.stderr.str() + text


# -- what fails -------------------------------------------------------------------------------------------------------

FAILING = """
import os, threading, unittest
import pytest
import fibers
from fibers import lowlevel
from fibers.io import socket


@pytest.mark.fibers
def test_fails():
    helper = fibers.spawn(lowlevel.park, name="helper")
    fibers.yield_now()
    assert helper.done(), "on purpose"


@pytest.mark.fibers
def test_leaves_fibers_behind():
    fibers.spawn(lowlevel.park, name="forgotten")
    fibers.spawn(fibers.spawn, fibers.sleep, 3600, name="grandchild")


@pytest.fixture
def careless():
    fibers.spawn(lowlevel.park, name="of the fixture")


@pytest.mark.fibers
def test_uses_a_careless_fixture(careless):
    pass


@pytest.mark.fibers
def test_uses_a_careless_fixture_on_a_virtual_clock(careless, virtual_clock):
    pass


@pytest.mark.fibers(timeout=0.1)
def test_hangs():
    try:
        stuck()
    finally:
        print("has been unwound")


def stuck():
    lowlevel.park()


@pytest.mark.fibers(timeout=0.1)
def test_hangs_in_virtual_time(virtual_clock):
    while True:
        fibers.sleep(1)


@pytest.mark.fibers
def test_deadlocks():
    fibers.spawn(fibers.current().join, name="other").join()


@pytest.mark.fibers
def test_waits_for_a_real_file_in_virtual_time(virtual_clock):
    virtual_clock.patience = 0.05
    left, right = socket.socketpair()
    with left, right, fibers.timeout(5):
        left.recv(1)


@pytest.mark.fibers
class TestUnit(unittest.TestCase):
    def test_unit_fails(self):
        helper = fibers.spawn(lowlevel.park, name="helper of unit")
        fibers.yield_now()
        self.assertTrue(helper.done())


@pytest.mark.fibers
def test_dies_of_an_error_of_the_runtime():
    left, right = socket.socketpair()
    with left, right:
        left.settimeout(0.001)
        left.recv(1)


def test_leaks(leak_guard):
    kept.append(os.dup(1))


def test_fails_and_leaks(leak_guard):
    kept.append(os.dup(1))
    assert not kept


kept = []


@pytest.mark.fibers
def test_all_is_well_afterwards():
    assert fibers.all_fibers() == [fibers.current()]


@pytest.mark.fibers(timeout=0.1)
def test_hangs_stubbornly():
    with fibers.shield():
        lowlevel.park()


@pytest.mark.fibers
def test_who_would_not_end_is_all_that_is_left():
    assert {fiber.name for fiber in fibers.all_fibers()} == {"test_hangs_stubbornly", fibers.current().name}
"""


@pytest.fixture
def failures(pytester: pytest.Pytester) -> str:
    pytester.makepyfile(FAILING)
    result, text = run(pytester)
    result.assert_outcomes(passed=5, failed=10, errors=3)
    return text


def test_failures_are_told_with_what_the_fibers_do(failures: str) -> None:
    def told(test: str, *lines: str) -> str:
        text = section(failures, test)
        for line in lines:
            assert re.search(line, text), f"{test} does not say {line!r}:\n{text}"
        return text

    text = told(
        "test_fails",
        "on purpose",
        "-- fibers --",
        r"fiber 'helper' has waited \d.\d+ s for lowlevel.unpark",
        "spawned at",
    )
    assert "_pytest" not in text.split("-- fibers --")[1], "pytest's own frames say nothing here"
    text = told(
        "test_leaves_fibers_behind",
        "the test left 2 fibers behind; join or cancel them, or use a TaskGroup:",
        r"\n  fiber <Fiber 'forgotten' running at 0x\w+>, waiting for lowlevel.unpark, spawned at .*\.py:\d+ in test_leaves",
        r"\n  fiber <Fiber 'sleep' running",
    )
    for name in ("test_uses_a_careless_fixture", "test_uses_a_careless_fixture_on_a_virtual_clock"):
        told(name, r"a fixture of the test left 1 fiber behind", r"<Fiber 'of the fixture'.* spawned at .* in careless")
    text = told(
        "test_hangs",
        r"TimeoutError: the test was not done after 0\.1 seconds",
        r"fiber 'test_hangs' has waited \d\.\d+ s for lowlevel.unpark",
        r"at .*\.py:\d+ in stuck",
        r"> +lowlevel\.park\(\)\nE +fibers\.errors\.Cancelled",
        "has been unwound",
    )
    assert "def park(" not in text, "the sources of the runtime say nothing to the reader"
    told(
        "test_hangs_in_virtual_time",
        r"TimeoutError: the test was not done after 0\.1 seconds",
        r"> +fibers\.sleep\(1\)",
    )
    told("test_hangs_stubbornly", r"TimeoutError: the test was not done after 0\.1 seconds")
    told("test_deadlocks", r"DeadlockError: every fiber waits", "the end of fiber 'other'")
    told(
        "test_waits_for_a_real_file_in_virtual_time",
        r"VirtualClockError: virtual time has stood still",
        r"fiber 'test_waits_for_a_real_file_in_virtual_time' waits for fd \d+ \(read\)",
        "memory_pair",
    )
    told("TestUnit.test_unit_fails", "False is not true", "fiber 'helper of unit' has waited")
    text = told("test_dies_of_an_error_of_the_runtime", r"> +left\.recv\(1\)\nE +TimeoutError: timed out")
    assert "blocking(" not in text
    told("test_leaks", r"the test left behind:\n  fd \d+: ")
    assert "test left behind" not in section(failures, "test_fails_and_leaks")


@pytest.mark.parametrize("full", [False, True])
def test_the_inside_of_the_runtime_is_shown_on_demand(pytester: pytest.Pytester, full: bool) -> None:
    pytester.makepyfile("import pytest, fibers\n@pytest.mark.fibers\ndef test_errs():\n    fibers.sleep(-1)\n")
    text = section(run(pytester, *["--full-trace"] * full)[1], "test_errs")
    assert ("scheduler.py" in text) is full
    assert "ValueError: seconds must be 0 or more seconds, not -1" in text


def test_mode_auto_and_a_time_limit_for_all_where_the_option_beats_the_ini_file(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nfibers_mode = auto\nfibers_timeout = 100")
    pytester.makepyfile(
        """
import pytest
import fibers
from fibers import lowlevel
from fibers.core.scheduler import get_scheduler

def test_hangs():
    assert fibers.current().name == "test_hangs"
    lowlevel.park()

@pytest.mark.fibers(timeout=None)
def test_has_none():
    with pytest.raises(TimeoutError):
        lowlevel.park(0.2)

@pytest.mark.fibers(run=False)
def test_not_this():
    assert fibers.current() is get_scheduler().main
"""
    )
    result, text = run(pytester, "--fibers-timeout=0.1")
    result.assert_outcomes(failed=1, passed=2)
    assert "the test was not done after 0.1 seconds" in text


@pytest.mark.parametrize(
    ("options", "ini", "said"),
    [
        (["--fibers-seed=x"], "", "--fibers-seed=x is neither a whole number nor 'random'"),
        (["--fibers-timeout=soon"], "", "fibers_timeout must be a number of seconds, not 'soon'"),
        (["--fibers-timeout=-1"], "", "fibers_timeout must be a number of seconds, not '-1'"),
        ([], "fibers_mode = always", "fibers_mode = always is not known; use one of strict, auto"),
    ],
)
def test_bad_options(pytester: pytest.Pytester, options: list[str], ini: str, said: str) -> None:
    pytester.makeini(f"[pytest]\n{ini}\n")
    pytester.makepyfile("def test_plain(): pass")
    result = pytester.runpytest_inprocess(*options)  # it does not come to running anything
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert said in result.stderr.str()


def test_bad_markers(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
import pytest

@pytest.mark.fibers(5)
def test_positional(): pass

@pytest.mark.fibers(timeuot=5)
def test_misspelt(): pass

@pytest.mark.fibers(timeout="soon")
def test_no_time(): pass
"""
    )
    result, text = run(pytester)
    result.assert_outcomes(errors=3)
    for said in (
        "test_positional: the marker `fibers` takes keywords only, not (5,)",
        "test_misspelt: the marker `fibers` does not know timeuot",
        "test_no_time: timeout must be a number of seconds, not 'soon'",
    ):
        assert said in text


# -- the order of fibers ------------------------------------------------------------------------------------------------

RACE = """
import pytest
import fibers

@pytest.mark.fibers
@pytest.mark.parametrize("size", [2, 3, 4, 5, 6, 7])
def test_transfer(virtual_clock, size):
    balance = [100]

    def withdraw(amount):
        fibers.sleep(1)
        enough = balance[0] >= amount
        if amount > 60:
            fibers.sleep(1)
        if enough:
            balance[0] -= amount

    with fibers.TaskGroup() as group:
        for amount in [30] * (size - 1) + [80]:
            group.spawn(withdraw, amount)
    assert balance[0] >= 0

def test_unmarked():
    order = []
    for number in range(20):
        fibers.spawn(order.append, number)
    fibers.yield_now()
    assert order == list(range(20))
"""


def test_a_seed_finds_a_race_and_tells_how_to_repeat_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(RACE)
    run(pytester)[0].assert_outcomes(passed=7)
    for seed in range(20):
        result, text = run(pytester, f"--fibers-seed={seed}")
        assert f"fibers: the order of fibers is shuffled with --fibers-seed={seed}" in text
        failed = result.parseoutcomes().get("failed", 0)
        if failed:
            break
    else:
        raise AssertionError("no seed finds the race")
    commands = re.findall(r"shuffled; to repeat it:\n(pytest .*)", text)
    assert len(commands) == failed
    for command in commands[:1]:
        again = subprocess.run(
            f"{sys.executable} -m {command}", shell=True, capture_output=True, text=True, timeout=CHILD_S, check=False
        )
        assert "1 failed" in again.stdout, again.stdout
        assert command in again.stdout


def test_a_random_seed_is_told(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import pytest\n@pytest.mark.fibers\ndef test_fails(): assert 0\n")
    _, text = run(pytester, "--fibers-seed=random")
    (seed,) = re.findall(r"shuffled with --fibers-seed=(\d+)", text)
    assert f"to repeat it:\npytest --fibers-seed={seed} test_a_random_seed_is_told.py::test_fails" in text


# -- Ctrl-C ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fixture", ["", "virtual_clock"])
def test_ctrl_c_ends_the_session_and_unwinds_the_test(pytester: pytest.Pytester, fixture: str) -> None:
    path = pytester.makepyfile(
        f"""
import pytest
import fibers
from fibers import lowlevel

@pytest.mark.fibers
def test_waits({fixture}):
    try:
        print("ready", flush=True)
        lowlevel.park()
    finally:
        print("unwound", flush=True)

def test_never_runs():
    print("the next one", flush=True)
"""
    )
    with subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-s", str(path)],
        cwd=path.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **environment()},
        text=True,
    ) as child:
        assert child.stdout is not None
        seen = []
        for line in child.stdout:
            seen.append(line)
            if line.startswith("ready"):
                child.send_signal(signal.SIGINT)
    text = "".join(seen)
    assert child.returncode == pytest.ExitCode.INTERRUPTED, text
    assert "unwound" in text
    assert "KeyboardInterrupt" in text
    assert "the next one" not in text


def test_the_kit_does_not_need_pytest(tmp_path: Path) -> None:
    code = "import sys; sys.modules['pytest'] = None; import fibers.testing; print(fibers.testing.run(int))"
    child = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), cwd=tmp_path, check=False
    )
    assert child.stdout == "0\n", child.stderr
