"""Our own modules keep the standard library as it was.

Where one of them has imported a standard module in which something is replaced, it is given the copy (originals.py).
Names that it has imported from there are the old ones anyhow. `threading.Thread` is a class that keeps its identity; a
thread that the runtime makes is a thread of the system's, so what it finds under that name is `NativeThread`.
"""

import sys
import threading
from types import ModuleType
from typing import Any, Final

from .journal import Journal
from .names import is_ours
from .originals import STANDARD, module
from .threads import NativeThread

setattr(module("threading"), "Thread", NativeThread)  # noqa: B010 - the name is not one of a module's type

_COPIES: Final[dict[int, Any]] = {id(standard): module(name) for name, standard in STANDARD.items()}


def detach(journal: Journal) -> None:
    """Have our modules hold the copies."""
    for name, each in list(sys.modules.items()):
        if isinstance(each, ModuleType) and is_ours(name):
            namespace = each.__dict__
            if name == __package__ or name.startswith(f"{__package__}."):
                continue
            for key, value in list(namespace.items()):
                copy = _COPIES.get(id(value))
                if copy is not None:
                    journal.set_item(namespace, key, copy)
                elif value is threading.Thread:
                    journal.set_item(namespace, key, NativeThread)
