"""The command line's first page: `python -m fibers`, `info`, and `--backend` on it.

A report about a misbehaving program begins with what `info` says, so it must be right about the loop in use, above all
when it was chosen by an option that can only work by starting the interpreter again.
"""

import json
import platform
import sys
from importlib.metadata import version
from typing import Any

import pytest
from support.once import once
from support.process import run_python

import fibers
from fibers.eventloop import BACKEND, BACKENDS, available

pytestmark = once

USABLE = [name for name, why_not in available().items() if why_not is None]
UNUSABLE = [name for name, why_not in available().items() if why_not is not None]
OTHER = next(name for name in USABLE if name != BACKEND)


def info(*arguments: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    """What `info --json` says."""
    child = run_python("-m", "fibers", "info", "--json", *arguments, env=env)
    assert child.returncode == 0, child.stderr
    facts: dict[str, Any] = json.loads(child.stdout)
    return facts


def test_json_says_what_this_process_can_see_for_itself() -> None:
    facts = info()
    assert facts["fibers"] == fibers.__version__
    assert facts["backend"] == BACKEND
    assert facts["backends"] == available()
    assert facts["python"]["version"] == platform.python_version()
    assert facts["python"]["executable"] == sys.executable
    assert facts["greenlet"] == version("greenlet")
    assert facts["platform"] == platform.platform()


def test_text_says_the_same() -> None:
    child = run_python("-m", "fibers", "info")
    assert child.returncode == 0, child.stderr
    rows = [(line[:12].strip(), line[12:]) for line in child.stdout.splitlines()]
    labels = [label for label, _ in rows]
    said = dict(rows)
    assert said["event loop"].startswith(f"{BACKEND}, ")
    assert said["available"] == ", ".join(USABLE)
    assert labels.count("not here") == len(UNUSABLE)
    for name in UNUSABLE:
        assert ("not here", f"{name}: {available()[name]}") in rows
    assert platform.python_version() in said["Python"]
    assert said["greenlet"] == version("greenlet")
    assert said["platform"] == platform.platform()


def test_it_says_who_chose_the_loop() -> None:
    chosen = info(env={"FIBERS_EVENTLOOP": OTHER})
    assert (chosen["backend"], chosen["chosen_by"]) == (OTHER, "FIBERS_EVENTLOOP")
    assert info(env={"FIBERS_EVENTLOOP": ""})["chosen_by"] == "default"


@pytest.mark.skipif("libevent" not in USABLE, reason="libevent cannot be used here")
def test_it_says_which_libevent_and_what_that_waits_with() -> None:
    for environment in ({}, {"EVENT_NOEPOLL": "1", "EVENT_NOKQUEUE": "1"}):
        loop = run_python(
            "-c", "from fibers.eventloop import new_loop; loop = new_loop('libevent'); print(loop.version, loop.method)",
            env=environment,
        )  # fmt: skip
        version_, method = loop.stdout.split()
        assert info(env=environment)["libevent"] == {"version": version_, "method": method}
        child = run_python("-m", "fibers", "info", env=environment)
        assert f"\nlibevent    {version_}, waits with {method}\n" in child.stdout
    assert method == "poll"


def test_it_does_not_pretend_to_use_a_loop_that_it_looks_at() -> None:
    """The log has no line of a loop that was started."""
    code = (
        "import logging, runpy, sys\n"
        "logging.basicConfig(level=logging.INFO)\n"
        "sys.argv[1:] = ['info']\n"
        "runpy.run_module('fibers', run_name='__main__', alter_sys=True)\n"
    )
    child = run_python("-c", code)
    assert "available" in child.stdout
    assert child.stderr == ""


@pytest.mark.parametrize("debug", ["", "loop"])
def test_it_says_whether_loops_check_themselves(debug: str) -> None:
    assert info(env={"FIBERS_DEBUG": debug})["debug"] == debug
    child = run_python("-m", "fibers", "info", env={"FIBERS_DEBUG": debug})
    assert ("\ndebug       loop: " in child.stdout) == bool(debug)
    assert ("\ndebug       off; FIBERS_DEBUG=loop makes" in child.stdout) != bool(debug)


@pytest.mark.parametrize("mode", ["default", "strict"])
def test_it_says_the_rule_of_ownership(mode: str) -> None:
    assert info(env={"FIBERS_OWNERSHIP": mode})["ownership"] == mode
    child = run_python("-m", "fibers", "info", env={"FIBERS_OWNERSHIP": mode})
    assert f"ownership   {mode}: " in child.stdout


@pytest.mark.parametrize("name", USABLE)
def test_backend_option_chooses_the_loop(name: str) -> None:
    assert info("--backend", name)["backend"] == name


def test_backend_option_beats_the_environment() -> None:
    assert info("--backend", OTHER, env={"FIBERS_EVENTLOOP": BACKEND})["backend"] == OTHER


def test_backend_option_keeps_the_interpreters_own_options() -> None:
    """The second start has the first one's flags: each prints the header of `-X importtime`."""
    child = run_python("-X", "importtime", "-m", "fibers", "info", "--backend", OTHER)
    assert child.returncode == 0
    assert child.stderr.count("self [us]") == 2


def test_alone_it_prints_help() -> None:
    child = run_python("-m", "fibers")
    assert child.returncode == 0
    for word in ("usage: python -m fibers", "info", "demo"):
        assert word in child.stdout


@pytest.mark.parametrize("command", ["info", "demo"])
def test_every_command_takes_a_backend(command: str) -> None:
    child = run_python("-m", "fibers", command, "--help")
    assert child.returncode == 0
    assert "--backend NAME" in child.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "'nonsense'"),
        (["info", "--nonsense"], "--nonsense"),
        (["info", "nonsense"], "nonsense"),
        (["info", "--backend"], "expected one argument"),
        (["info", "--backend", "nonsense"], f"no event loop 'nonsense'; known are {', '.join(BACKENDS)}"),
        *((["info", "--backend", name], f"{name} cannot be used: {available()[name]}") for name in UNUSABLE),
        (["info", "--rounds", "3"], "--rounds is for the measurement: info --backends --rounds …"),
        (["info", "--seconds", "1"], "--seconds is for the measurement: info --backends --seconds …"),
        (["info", "--backends", "--rounds", "0"], "must be a number from 1 to 1,000, not '0'"),
        (["info", "--backends", "--seconds", "61"], "must be a number from 0.05 to 60.0, not '61'"),
        (["demo", "--connections", "0"], "must be a number from 1 to 25,000, not '0'"),
        (["demo", "--connections", "many"], "not 'many'"),
        (["demo", "--seconds", "nan"], "not 'nan'"),
        (["demo", "--seconds", "-1"], "from 0.1 to 3,600.0, not '-1'"),
        (["demo", "--size", "65537"], "from 1 to 65,536, not '65537'"),
    ],
)
def test_wrong_command_lines_are_refused(arguments: list[str], said: str) -> None:
    child = run_python("-m", "fibers", *arguments)
    assert child.returncode == 2
    assert child.stdout == ""
    assert said in child.stderr.splitlines()[-1], child.stderr
    assert "Traceback" not in child.stderr
