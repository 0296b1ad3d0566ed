"""FIBERS_PATCH: patched from the start, in interpreters that somebody else starts (a server, a test runner, a spawn).

An interpreter looks at it if its environment has a file `fibers-patch.pth`, which `python -m fibers pth install` puts there
and `python -m fibers pth remove` takes away. It costs other programs nothing but a look at one variable.

    FIBERS_PATCH=1                  everything
    FIBERS_PATCH=socket,ssl         these groups only
    FIBERS_PATCH=-subprocess        all but these
"""

import argparse
import os
import sys
import sysconfig
from pathlib import Path
from typing import Final

from .applying import patch_all

#: What the file holds: one line, which `site` executes.
LINE: Final = (
    'import os; os.environ.get("FIBERS_PATCH", "") not in ("", "0") and '
    '__import__("fibers.patch.startup", fromlist=["begin"]).begin()\n'
)
NAME: Final = "fibers-patch.pth"


def begin() -> None:
    """Patch as FIBERS_PATCH says. Ends the interpreter, with a sentence, if it makes no sense."""
    wanted = os.environ.get("FIBERS_PATCH", "")
    try:
        patch_all(**_parse(wanted))
    except ValueError as error:
        raise SystemExit(f"FIBERS_PATCH={wanted!r}: {error}") from None


def _parse(wanted: str) -> dict[str, bool]:
    if wanted == "1":
        return {}
    names = [name.strip() for name in wanted.split(",")]
    return {name.removeprefix("-"): not name.startswith("-") for name in names if name}


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The arguments of `pth`."""
    command.add_argument(
        "action", choices=["install", "remove", "show"], help="show says whether it is there, and where"
    )


def path() -> Path:
    """Where the file is, or would be."""
    return Path(sysconfig.get_path("purelib")) / NAME


def run(options: argparse.Namespace) -> int:
    """The command itself."""
    file = path()
    try:
        if options.action == "install":
            file.write_text(LINE)
        elif options.action == "remove":
            file.unlink(missing_ok=True)
    except OSError as error:
        print(f"python -m fibers pth: {file}: {error.strerror}", file=sys.stderr)
        return 1
    print(f"{file}: {'there' if file.exists() else 'not there'}")
    return 0
