"""What the standard library was before it was patched, kept from the moment this package is imported.

`module("threading")` is a copy of a standard module: its names are those of before, whatever is patched later. Our own
modules are given such copies in place of the modules that they have imported (internals.py), so that the runtime goes on
standing on the real thing.

A copy is made of the namespace. What the functions in it look up at call time they look up in the real module. That
matters for `threading` alone, whose classes are built on locks that are patched: Condition and Event are therefore copied
with their methods, over the copied namespace.
"""

import _multiprocessing  # type: ignore[import-not-found]
import _queue
import _socket
import _thread
import os
import queue
import select
import selectors
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from inspect import getattr_static
from types import FunctionType, MappingProxyType, ModuleType
from typing import Any, Final

#: The standard modules in which something is replaced, by name.
STANDARD: Final[Mapping[str, ModuleType]] = MappingProxyType(
    {
        module.__name__: module
        for module in (
            _multiprocessing, _queue, _socket, _thread, os, sys.modules[os.name], queue, select, selectors, signal, socket,
            ssl, subprocess, threading, time,
        )
    }
)  # fmt: skip


def _copied_class(kind: type, namespace: dict[str, Any]) -> type:
    """The class again, with methods that look names up in `namespace`."""
    body = {
        name: FunctionType(value.__code__, namespace, value.__name__, value.__defaults__, value.__closure__)
        if isinstance(value, FunctionType)
        else value
        for name, value in vars(kind).items()
        if name not in ("__dict__", "__weakref__")
    }
    return type(kind.__name__, kind.__bases__, body)


def _copied(module: ModuleType) -> ModuleType:
    copy = ModuleType(module.__name__, module.__doc__)
    copy.__dict__.update(module.__dict__)
    if module is threading:
        for name in ("Condition", "Event"):
            setattr(copy, name, _copied_class(getattr(threading, name), copy.__dict__))
    return copy


COPIES: Final[Mapping[str, ModuleType]] = {name: _copied(module) for name, module in STANDARD.items()}


#: What the classes had whose methods are replaced in place: all names, with those that they inherit.
_BODIES: Final[dict[type, dict[str, Any]]] = {
    kind: {name: value for each in reversed(kind.__mro__) for name, value in vars(each).items()}
    for kind in (socket.socket, ssl.SSLSocket, subprocess.Popen, threading._DummyThread)
}


def module(name: str) -> ModuleType:
    """The copy of a standard module. KeyError if nothing is replaced in a module of that name."""
    return COPIES[name]


def split(name: str) -> tuple[str, str]:
    """("time", "sleep") for "time.sleep". ValueError if it is no name in a module that can be patched."""
    if not isinstance(name, str):
        raise TypeError(f"a name such as 'time.sleep' is needed, not {name!r}")
    where, _, what = name.partition(".")
    if where not in STANDARD or not what:
        raise ValueError(f"{name!r} is not patched: names look like 'time.sleep', in {', '.join(sorted(STANDARD))}")
    return where, what


def find(start: Any, what: str) -> Any:
    """What a dotted name meant before: in a copy of a module, or what the classes had. Raises AttributeError."""
    for part in what.split("."):
        body = _BODIES.get(start) if isinstance(start, type) else None
        if body is not None and part not in body:
            raise AttributeError(f"{start!r} has no attribute {part!r}")
        start = getattr(start, part) if body is None else body[part]
    return start


def find_now(start: Any, what: str) -> Any:
    """The same, of what is there now."""
    for part in what.split("."):
        found = getattr_static(start, part)
        start = getattr(start, part) if isinstance(start, ModuleType) else found
    return start
