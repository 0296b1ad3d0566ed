"""Doing something to a module as soon as it has been loaded, whether that is already the case or comes later.

A finder at the head of `sys.meta_path` looks for nothing itself. It asks those behind it, and puts itself between a module
that somebody waits for and its loader, for the moment of loading alone: the module's `__loader__` and `__spec__` are what
they would have been.
"""

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Final

from .journal import Journal

#: What is done to a module.
Action = Callable[[Journal, ModuleType], None]


class _Finder:
    """Who waits for which module."""

    def __init__(self) -> None:
        self.waiting: dict[str, list[tuple[Journal, Action]]] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As importlib has it. None also for a module that only a loader of the old kind can load: it is left alone."""
        if name not in self.waiting:
            return None
        for finder in sys.meta_path:
            if finder is not self and (find := getattr(finder, "find_spec", None)) is not None:
                spec: ModuleSpec | None = find(name, path, target)
                if spec is not None:
                    if not hasattr(spec.loader, "exec_module"):
                        return None
                    spec.loader = _Loader(spec.loader)  # type: ignore[assignment]
                    return spec
        return None


class _Loader:
    """The loader of a module that somebody waits for. What it is asked besides, it asks the real one."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._real.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        assert spec is not None
        spec.loader = module.__loader__ = self._real
        self._real.exec_module(module)
        for journal, action in _finder.waiting.pop(spec.name, ()):
            action(journal, module)


_finder: Final = _Finder()


def when_imported(journal: Journal, name: str, action: Action) -> None:
    """`action(journal, module)` now if the module `name` is loaded, else when it has been.

    What the action does goes through the journal, so that it is undone with the patch. What it raises, the import raises.
    """
    module = sys.modules.get(name)
    if module is not None:
        action(journal, module)
        return
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
        journal.record(sys.meta_path.remove, _finder)
    entry = (journal, action)
    _finder.waiting.setdefault(name, []).append(entry)
    journal.record(_forget, name, entry)


def _forget(name: str, entry: tuple[Journal, Action]) -> None:
    waiting = _finder.waiting.get(name, [])
    if entry in waiting:
        waiting.remove(entry)
