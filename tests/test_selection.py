"""How an event loop is chosen, as a stranger meets it, in child processes: each way of choosing wrongly fails at once and
names what was asked for, why it cannot be had, and what can.

libevent is hidden by a folder of empty files with the library's names, which the dynamic linker finds first.
"""

import sys
from pathlib import Path
from typing import Any

import pytest
from support.once import once
from support.process import run_python

import fibers
from fibers.errors import LoopClosedError
from fibers.eventloop import BACKENDS, DEFAULT, available, new_loop
from fibers.threads.to_thread import to_thread

pytestmark = once

USABLE = [name for name, why_not in available().items() if why_not is None]
ABSENT = [name for name, why_not in available().items() if why_not is not None]
WITHOUT = ", ".join(name for name in USABLE if name != "libevent")
SAID = f"Usable here: {', '.join(USABLE)}"

INSTALL = ("install it", "'apt install libevent-core-2.1-7'", "'brew install libevent'", "'pkg install libevent'")

needs_a_linker_that_can_be_misled = pytest.mark.skipif(
    sys.platform != "linux", reason="the library is hidden by LD_LIBRARY_PATH"
)


@pytest.fixture
def hidden(tmp_path: Path) -> dict[str, str]:
    """An environment in which there is no libevent."""
    for name in ("libevent_core-2.1.so.7", "libevent-2.1.so.7"):
        (tmp_path / name).touch()
    return {"LD_LIBRARY_PATH": str(tmp_path), "FIBERS_EVENTLOOP": ""}


def refusal(env: dict[str, str], *arguments: str) -> str:
    """What a child says that must fail: the last line."""
    child = run_python(*(arguments or ("-c", "import fibers")), env=env)
    assert child.returncode == (2 if arguments else 1)
    assert child.stdout == ""
    return child.stderr.splitlines()[-1]


def test_an_unknown_name_fails_at_import_and_says_what_is_known() -> None:
    said = refusal({"FIBERS_EVENTLOOP": "foo"})
    assert said.startswith("ImportError: FIBERS_EVENTLOOP='foo' cannot be used: there is no such event loop. ")
    assert SAID in said
    assert all(f"{name} is not: {available()[name]}" in said for name in ABSENT)


@pytest.mark.parametrize("name", ["EPOLL", " epoll"])
def test_a_name_that_is_nearly_right_is_set_right(name: str) -> None:
    assert "there is no such event loop, but there is 'epoll'. " in refusal({"FIBERS_EVENTLOOP": name})


@pytest.mark.parametrize("name", ABSENT)
def test_a_loop_that_the_platform_lacks_fails_at_import(name: str) -> None:
    said = refusal({"FIBERS_EVENTLOOP": name})
    assert said.startswith(f"ImportError: FIBERS_EVENTLOOP={name!r} cannot be used: {available()[name]}. {SAID}")


@needs_a_linker_that_can_be_misled
def test_a_missing_library_fails_at_import_and_says_how_to_install_it(hidden: dict[str, str]) -> None:
    said = refusal({**hidden, "FIBERS_EVENTLOOP": "libevent"})
    assert said.startswith("ImportError: FIBERS_EVENTLOOP='libevent' cannot be used: libevent 2.1 was not found; ")
    assert all(words in said for words in INSTALL)
    assert f"Usable here: {WITHOUT}" in said
    assert all(f"{name} is not: " in said for name in ABSENT)
    assert said.count("apt install") == 1


@needs_a_linker_that_can_be_misled
def test_the_command_line_says_so_too(hidden: dict[str, str]) -> None:
    said = refusal(hidden, "-m", "fibers", "info", "--backend", "libevent")
    assert "argument --backend: libevent cannot be used: libevent 2.1 was not found; " in said
    assert all(words in said for words in INSTALL)
    assert said.endswith(f"usable are {WITHOUT}")


@needs_a_linker_that_can_be_misled
def test_info_works_without_the_library_and_says_how_to_install_it(hidden: dict[str, str]) -> None:
    child = run_python("-m", "fibers", "info", env=hidden)
    assert child.returncode == 0, child.stderr
    (line,) = [line for line in child.stdout.splitlines() if line.startswith("not here    libevent: ")]
    assert all(words in line for words in INSTALL)


@pytest.mark.skipif("libevent" in ABSENT, reason="libevent cannot be used here")
def test_a_libevent_without_a_method_is_not_usable() -> None:
    none = {f"EVENT_NO{name}": "1" for name in ("EPOLL", "POLL", "SELECT", "KQUEUE", "DEVPOLL", "EVPORT")}
    said = refusal({**none, "FIBERS_EVENTLOOP": "libevent"})
    assert "cannot be used: libevent cannot wait here: " in said
    assert "EVENT_NOEPOLL" in said
    child = run_python("-m", "fibers", "info", env={**none, "FIBERS_EVENTLOOP": ""})
    assert child.returncode == 0, child.stderr


@pytest.mark.parametrize("name", USABLE)
def test_the_variable_and_the_option_choose_each_usable_loop(name: str) -> None:
    code = "import fibers, fibers.eventloop as e; fibers.sleep(0.001); print(e.BACKEND, fibers.run(int))"
    child = run_python("-c", code, env={"FIBERS_EVENTLOOP": name})
    assert (child.stdout, child.stderr) == (f"{name} 0\n", "")


def test_it_is_read_once() -> None:
    code = (
        "import os, fibers.eventloop as e\n"
        "before = e.BACKEND\n"
        "os.environ['FIBERS_EVENTLOOP'] = 'foo'\n"
        "loop = e.new_loop()\n"
        "print(before == e.BACKEND == loop.name)\n"
        "loop.close()\n"
    )
    child = run_python("-c", code, env={"FIBERS_EVENTLOOP": ""})
    assert child.stdout == "True\n", child.stderr


def test_the_log_says_which_loop_has_started() -> None:
    code = "import logging; logging.basicConfig(level=logging.INFO)\nimport fibers; fibers.sleep(0)"
    for name in USABLE:
        child = run_python("-c", code, env={"FIBERS_EVENTLOOP": name, "FIBERS_DEBUG": ""})
        (line,) = child.stderr.splitlines()
        assert line.startswith(f"INFO:fibers.eventloop:fibers is using the {name} event loop")


def test_available_names_every_loop_once() -> None:
    assert list(available()) == list(BACKENDS)
    assert available()[DEFAULT] is None
    assert all(reason for reason in available().values() if reason is not None)


def test_new_loop_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="no event loop 'foo'; known are epoll, kqueue, poll, select, libevent"):
        new_loop("foo")
    for name in ABSENT:
        with pytest.raises(ImportError):
            new_loop(name)


# -- run(loop=…)


@pytest.mark.parametrize("loop", ["poll", new_loop, 3])
def test_run_refuses_what_is_no_loop_and_says_how_to_make_one(loop: Any) -> None:
    def program() -> None:
        with pytest.raises(TypeError, match=r"fibers\.eventloop\.new_loop\(\), not ") as caught:
            fibers.run(int, loop=loop)
        assert repr(loop) in str(caught.value)
        assert fibers.run(int) == 0  # the thread is as it was

    to_thread(program)  # which has no loop yet


@pytest.mark.parametrize("name", USABLE)
def test_run_refuses_a_loop_that_it_has_closed(name: str) -> None:
    def program() -> None:
        loop = new_loop(name)
        assert fibers.run(int, loop=loop) == 0
        assert loop.closed
        with pytest.raises(LoopClosedError, match="make another"):
            fibers.run(int, loop=loop)
        assert fibers.run(int) == 0

    to_thread(program)  # which has no loop yet


def test_a_refused_loop_stays_the_callers() -> None:
    """Nothing is half done: the loop is neither closed nor used up."""
    loop = new_loop()
    to_thread(_refused, loop)
    assert not loop.closed
    loop.close()


def _refused(loop: Any) -> None:
    with pytest.raises(ValueError, match="belongs to thread"):
        fibers.run(int, loop=loop)


def test_unknown_debugging_fails_at_import() -> None:
    assert refusal({"FIBERS_DEBUG": "foo"}).startswith("ImportError: FIBERS_DEBUG='foo' is not known; known is 'loop'")
