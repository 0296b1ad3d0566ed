"""Which event loops the whole suite has passed on, as noted by the runs themselves.

CI must fail when an event loop that works here was left out. A list in a script says what was meant to be run; so each run
that was the whole suite, and found nothing wrong, appends the loop that it ran on to the file that FIBERS_TESTED names, and
that is compared with what is usable.

    python -m support.tested left     the usable loops that are not noted yet
    python -m support.tested others   the usable loops but the one that is used without a choice
    python -m support.tested check    exit status 1 if there are any, or if libevent is not usable

Every system that fibers runs on has a libevent to install, so its absence is no excuse. Any other loop is a system call: the
platform has it or not.
"""

import os
import sys
from pathlib import Path

import pytest

from fibers.eventloop import BACKEND, CHECKED, DEFAULT, available

VARIABLE = "FIBERS_TESTED"


def note(session: pytest.Session, exitstatus: int) -> None:
    """At the end of a session: note the loop, if that session was the whole suite and all was well."""
    file = os.environ.get(VARIABLE)
    if file and exitstatus == pytest.ExitCode.OK and not CHECKED and whole(session):
        with open(file, "a", encoding="utf-8") as record:
            record.write(f"{BACKEND}\n")


def whole(session: pytest.Session) -> bool:
    """Was nothing of the suite left out?"""
    config = session.config
    if (
        config.args_source is not pytest.Config.ArgsSource.TESTPATHS
        or config.option.ignore
        or config.option.ignore_glob
        or config.getoption("--fibers-loop", None)
    ):
        return False
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return reporter is not None and not reporter.stats.get("deselected") and session.testscollected > 0


def noted() -> list[str]:
    """The loops that have been noted."""
    file = os.environ.get(VARIABLE)
    return Path(file).read_text("utf-8").split() if file and os.path.exists(file) else []


def usable() -> list[str]:
    """The loops that can be used here."""
    return [name for name, why_not in available().items() if why_not is None]


def faults() -> list[str]:
    """Why it cannot be said that the suite passes on every loop."""
    if not os.environ.get(VARIABLE):
        return [f"{VARIABLE} does not name the file in which the runs of the suite note their event loops"]
    found = [
        f"{name} is usable here, and the whole suite has not passed on it" for name in usable() if name not in noted()
    ]
    libevent = available()["libevent"]
    return found if libevent is None else [*found, f"libevent is not usable here: {libevent}"]


def main(verb: str) -> int:
    """As the module's text says."""
    if verb in ("left", "others"):
        if not usable():
            print("no event loop is usable here", file=sys.stderr)
            return 1
        done = noted() if verb == "left" else [DEFAULT]
        print(*(name for name in usable() if name not in done))
        return 0
    found = faults()
    print(
        *found or [f"the whole suite has passed on {', '.join(noted())}"],
        sep="\n",
        file=sys.stderr if found else sys.stdout,
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
