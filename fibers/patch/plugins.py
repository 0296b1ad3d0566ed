"""Other packages that want something patched as well: the entry points `fibers.patches`.

Each names a function, which is called with the journal (journal.py) and makes its changes through it. To read entry points
takes `importlib.metadata`, which loads the whole of `email`. So the files are looked through first; mostly none says
anything of us, and then nothing is loaded.
"""

import os
import sys
from collections.abc import Iterator
from glob import escape, iglob
from importlib import import_module
from typing import Final

from .journal import Journal

GROUP: Final = "fibers.patches"


def apply(journal: Journal) -> None:
    """Call them all. Raises what they raise, with a note that says which it was."""
    if not any(map(_speaks_of_us, _files())):
        return
    for entry in import_module("importlib.metadata").entry_points(group=GROUP):
        try:
            entry.load()(journal)
        except Exception as error:
            error.add_note(f"in the entry point {entry.name!r} = {entry.value!r} of {GROUP!r}")
            raise


def _files() -> Iterator[str]:
    for folder in sys.path:
        for kind in ("dist-info", "egg-info"):
            yield from iglob(os.path.join(escape(folder or "."), f"*.{kind}", "entry_points.txt"))


def _speaks_of_us(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return GROUP.encode() in file.read()
    except OSError:
        return False
