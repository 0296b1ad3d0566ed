"""The leak guard fails the test that leaked, names what leaked, and blames nobody else.

The guard lives in `conftest.py` and acts when a test ends, so it is watched from outside: a second pytest,
with this project's own configuration and a copy of the conftest, runs a small file of tests that leak on
purpose.
"""

import re

import pytest
from support.once import once
from support.process import ROOT, run_python

pytestmark = once

LEAKY = """
import os, socket, threading, time
import pytest
import fibers

kept = []


def test_clean():
    a, b = socket.socketpair()
    a.close(), b.close()
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()


def test_leaks_fd():
    kept.append(os.dup(1))


def test_leaks_listener():
    kept.append(socket.create_server(("127.0.0.1", 0)))


def test_clean_although_it_began_with_the_leaks_of_others():
    assert kept


def test_reuses_a_number_for_something_else():
    fd = kept[0]
    os.close(fd)
    read, write = os.pipe()
    assert read == fd
    kept[0] = read
    os.close(write)


def test_leaves_a_cycle_to_the_collector():
    cycle = [os.fdopen(os.dup(1), "w")]
    cycle[0].self = cycle


def test_leaks_thread():
    go = threading.Event()
    kept.append(go)
    threading.Thread(target=go.wait, name="forgotten", daemon=True).start()


def test_thread_on_its_way_out():
    threading.Thread(target=time.sleep, args=(0.2,)).start()


def test_pool_thread():
    threading.Thread(target=threading.Event().wait, name="fibers-worker-9", daemon=True).start()


def test_leaks_fiber():
    kept.append(fibers.spawn(fibers.sleep, 3600, name="sleeper"))


def test_fails_and_leaks():
    kept.append(os.dup(1))
    assert kept is None


@pytest.fixture
def late():
    read, write = os.pipe()
    yield read
    os.close(read), os.close(write)


def test_fixture_cleans_up_after_it(late):
    assert late
"""

LEAKS = {
    "test_leaks_fd": r"fd \d+: ",
    "test_leaks_listener": r"fd \d+: .* \('127\.0\.0\.1', \d+\)",
    "test_reuses_a_number_for_something_else": r"fd \d+: ",
    "test_leaks_thread": r"thread 'forgotten' \(daemon\)",
    "test_leaks_fiber": r"fiber .*sleeper",
}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("leaky")
    (folder / "conftest.py").write_text((ROOT / "tests/conftest.py").read_text("utf-8"))
    (folder / "test_leaky.py").write_text(LEAKY)
    # The deliberate cycle ends with a ResourceWarning from the collector, which is not what is tested here.
    options = ("-rA", "--tb=short", "-W", "ignore::ResourceWarning")
    child = run_python("-m", "pytest", "-c", ROOT / "pyproject.toml", *options, str(folder))
    assert child.returncode == 1, child.stdout + child.stderr
    return child.stdout


def test_blames_exactly_the_tests_that_leaked(report: str) -> None:
    blamed = re.findall(r"^ERROR \S*::(\w+)", report, re.MULTILINE)
    assert sorted(blamed) == sorted(LEAKS)


@pytest.mark.parametrize("name", LEAKS)
def test_names_what_leaked(report: str, name: str) -> None:
    section = report.split(f"ERROR at teardown of {name} ")[1].split("\n___")[0]
    assert "the test leaked" in section
    assert re.search(LEAKS[name], section), section


def test_a_failed_test_is_reported_once(report: str) -> None:
    assert re.findall(r"^FAILED \S*::(\w+)", report, re.MULTILINE) == ["test_fails_and_leaks"]
    assert "ERROR at teardown of test_fails_and_leaks" not in report


def test_prints_backend_scale_and_seed(report: str) -> None:
    head = r"^fibers: event loop \w+( checked)?, FIBERS_TEST_SCALE=[\d.]+, FIBERS_TEST_SEED=\d+$"
    assert re.search(head, report, re.MULTILINE)
