"""Replacing a function or a C type by identity, wherever a loaded module holds it.

Looked at are the namespaces of modules, the bodies of the classes in them, and the defaults of the functions in both: all
that a program has taken by `from time import sleep`, `_read = os.read` or `def f(pause=time.sleep)`. Our own modules are
passed over: they go on with what was there before (internals.py).
"""

import sys
from collections.abc import Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, Final

from .journal import Journal

_PACKAGE: Final = __name__.partition(".")[0]


def is_ours(name: str) -> bool:
    """Is that a module of this package?"""
    return name == _PACKAGE or name.startswith(f"{_PACKAGE}.")


def foreign_modules() -> Iterator[ModuleType]:
    """Those that are loaded and not ours."""
    for name, module in list(sys.modules.items()):
        if isinstance(module, ModuleType) and not is_ours(name):
            yield module


def replace(journal: Journal, ours: Mapping[int, Any]) -> None:
    """Replace objects everywhere; `ours` maps the `id` of each original to what comes in its place."""
    seen: set[int] = set()
    for module in foreign_modules():
        namespace = module.__dict__
        for name, value in list(namespace.items()):
            new = ours.get(id(value))
            if new is not None:
                journal.set_item(namespace, name, new)
            elif isinstance(value, type):
                if value.__module__ == module.__name__ and id(value) not in seen:
                    seen.add(id(value))
                    _in_class(journal, value, ours)
            elif isinstance(value, FunctionType) and id(value) not in seen:
                seen.add(id(value))
                _in_defaults(journal, value, ours)


def _in_class(journal: Journal, kind: type, ours: Mapping[int, Any]) -> None:
    for name, value in list(vars(kind).items()):
        function = getattr(value, "__func__", value) if isinstance(value, staticmethod | classmethod) else value
        new = ours.get(id(function))
        if new is not None:
            # A function in C does not bind to the instance, one in Python would.
            static = isinstance(value, staticmethod) or (
                isinstance(function, BuiltinFunctionType) and isinstance(new, FunctionType)
            )
            if _mutable(kind):
                journal.set_attribute(kind, name, staticmethod(new) if static else new)
        elif isinstance(function, FunctionType):
            _in_defaults(journal, function, ours)


def _mutable(kind: type) -> bool:
    return bool(kind.__flags__ & (1 << 9)) and not kind.__flags__ & (1 << 8)  # a heap type, and not immutable


def _in_defaults(journal: Journal, function: FunctionType, ours: Mapping[int, Any]) -> None:
    defaults = function.__defaults__
    if defaults is not None and any(id(value) in ours for value in defaults):
        journal.record(setattr, function, "__defaults__", defaults)
        function.__defaults__ = tuple(ours.get(id(value), value) for value in defaults)
    keywords = function.__kwdefaults__
    for name, value in (keywords or {}).items():
        if keywords is not None and id(value) in ours:
            journal.set_item(keywords, name, ours[id(value)])
