"""`--backend NAME`, an option of every command.

The event loop is chosen when the package is imported, and `python -m fibers` imports the package before it reads its
options. So `--backend NAME` cannot choose it any more; it starts the interpreter again, with the same arguments and
FIBERS_EVENTLOOP set, and finds the choice made.
"""

import argparse
import os
import sys

from .eventloop import BACKEND, available


def _backend(name: str) -> str:
    """An event loop that can be used here."""
    why_not = available()
    if name not in why_not:
        raise argparse.ArgumentTypeError(f"there is no event loop {name!r}; known are {', '.join(why_not)}")
    reason = why_not[name]
    if reason is not None:
        usable = ", ".join(each for each, problem in why_not.items() if problem is None)
        raise argparse.ArgumentTypeError(f"{name} cannot be used: {reason}; usable are {usable}")
    return name


def option() -> argparse.ArgumentParser:
    """A parent for the parsers of commands."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--backend", type=_backend, metavar="NAME", help="run on this event loop, as FIBERS_EVENTLOOP=NAME does"
    )
    return common


def obey(options: argparse.Namespace) -> None:
    """Start the interpreter again if another event loop than the one in use is asked for."""
    if options.backend not in (None, BACKEND):
        again = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, again, {**os.environ, "FIBERS_EVENTLOOP": options.backend})
