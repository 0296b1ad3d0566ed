"""`python -m fibers.compat.gevent script.py …`: a program of gevent or eventlet, unchanged, on fibers.

As `python -m fibers run`, with the same options; before that, `import gevent` (or `import eventlet`) is made to mean ours.
"""

import argparse
from collections.abc import Callable

from .. import choice
from ..patch import program


def main(name: str, install: Callable[[], None]) -> int:
    """The command for the package `name`, whose `install` this is."""
    parser = argparse.ArgumentParser(
        prog=f"python -m fibers.compat.{name}",
        description=f"Run a program of {name} on fibers: `import {name}` means fibers.compat.{name}, and the standard "
        "library is patched.",
        parents=[choice.option()],
    )
    program.add_arguments(parser)
    options = parser.parse_args()
    choice.obey(options)
    install()
    return program.run(options)
