"""Our own modules keep the standard library as it was.

Where one of them has imported a standard module in which something is replaced, it is given the copy (originals.py).
Functions and types that it has imported from there are the old ones anyhow. `threading.Thread` is a class that keeps its
identity; a thread that the runtime makes is a thread of the system's, so what it finds under that name is `NativeThread`.

Some of our modules are imported when they are needed (an event loop, a server), which may be later. Then they have got the
new things, and are given back the old ones as soon as they have been executed.
"""

import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any, Final

from .journal import Journal
from .names import is_ours
from .originals import STANDARD, module
from .threads import NativeThread

setattr(module("threading"), "Thread", NativeThread)  # noqa: B010 - mypy knows that it is another class

#: By the id of what our modules shall not hold.
_COPIES: Final[dict[int, Any]] = {id(standard): module(name) for name, standard in STANDARD.items()}
_COPIES[id(threading.Thread)] = NativeThread


class _Originals(dict[int, Any]):
    """By the id of what came in their place. (A class of its own tells `verify` whose it is.)"""


def detach(journal: Journal, replaced: Iterable[tuple[Any, Any]]) -> None:
    """Have our modules hold the copies, also those that are imported later. `replaced`: old, and new in its place.

    (Of the new things, what is of use without a patch, as `Local`, is theirs anyhow.)
    """
    originals = _Originals({id(new): old for old, new in replaced if str(new.__module__).startswith(f"{__package__}.")})
    for name, each in list(sys.modules.items()):
        if isinstance(each, ModuleType) and is_ours(name):
            _detach(journal, each, {})
    finder = _Finder(journal, originals)
    sys.meta_path.insert(0, finder)
    journal.record(sys.meta_path.remove, finder)


def _detach(journal: Journal, each: ModuleType, originals: Mapping[int, Any]) -> None:
    if each.__name__ == __package__ or each.__name__.startswith(f"{__package__}."):
        return  # this package knows both, and says which it means
    for key, value in list(each.__dict__.items()):
        old = _COPIES.get(id(value)) or originals.get(id(value))
        if old is not None:
            journal.set_item(each.__dict__, key, old)


class _Finder(MetaPathFinder):
    """Finds our modules as ever, and has them detached after they have been executed."""

    def __init__(self, journal: Journal, originals: Mapping[int, Any]) -> None:
        self.journal = journal
        self.originals = originals

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See MetaPathFinder. None for what is not ours."""
        if not is_ours(fullname):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(self, spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    def __init__(self, finder: _Finder, name: str, path: str) -> None:
        super().__init__(name, path)
        self._finder = finder

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        _detach(self._finder.journal, module, self._finder.originals)
