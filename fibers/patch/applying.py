"""Patching, and undoing it. See the package's text."""

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import entry_points
from typing import Any, Final

from . import existing, internals, names, processes
from .journal import Journal
from .originals import STANDARD, module, split
from .table import ALIASES, GROUPS, METHODS, NAMES
from .threads import living
from .verify import Escaped, escaped


class _Patch:
    """What is in force: the groups that are patched, and how to undo it."""

    __slots__ = ("groups", "hooked", "journal", "replaced")

    def __init__(self) -> None:
        self.groups: frozenset[str] = frozenset()
        self.journal = Journal()
        self.hooked = False
        self.replaced: dict[int, tuple[str, Any]] = {}  # names and originals, by the id of the original


_patch: Final = _Patch()


def _chosen(which: Mapping[str, bool]) -> frozenset[str]:
    """The groups that are asked for. All but those that are False; or, if some are True, these."""
    chosen = {ALIASES.get(name, name): wanted for name, wanted in which.items()}
    for name, wanted in chosen.items():
        if name not in GROUPS:
            raise ValueError(f"there is nothing called {name!r} to patch; known are {', '.join(GROUPS)}")
        if not isinstance(wanted, bool):
            raise TypeError(f"{name}={wanted!r}: True or False is needed")
    if any(chosen.values()):
        return frozenset(name for name, wanted in chosen.items() if wanted)
    return frozenset(name for name in GROUPS if chosen.get(name, True))


def patch_all(**which: bool) -> None:
    """Patch the standard library. Without arguments everything; see the package's text.

    `patch_all(subprocess=False)` leaves a group alone, `patch_all(socket=True, ssl=True)` patches these only. What has been
    patched before stays, so a second call adds to the first, or does nothing. Raises ValueError for an unknown group,
    RuntimeError in a thread other than the main one.
    """
    chosen = _chosen(which)
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            f"patch_all() was called in thread {threading.current_thread().name!r}: call it in the main thread, as the "
            "first thing that the program does"
        )
    new = chosen - _patch.groups
    if not new:
        return
    journal = _patch.journal
    internals.detach(journal)
    journal.record(setattr, _patch, "groups", _patch.groups)
    if not _patch.hooked:
        _patch.hooked = True
        os.register_at_fork(
            before=_if_threads(processes.before_fork),
            after_in_parent=_if_threads(processes.after_fork_in_parent),
            after_in_child=processes.after_fork_in_child,
        )
    ours: dict[int, Any] = {}
    for group in GROUPS:
        if group in new:
            for name, value in NAMES.get(group, {}).items():
                old = original(name)
                ours[id(old)] = value
                _patch.replaced.setdefault(id(old), (name, old))
            for name, methods in METHODS.get(group, {}).items():
                where, what = split(name)
                for method, function in methods.items():
                    journal.set_attribute(getattr(STANDARD[where], what), method, function)
    names.replace(journal, ours)
    if "locks" in new:
        existing.replace(journal)
    _patch.groups |= new
    for entry in entry_points(group="fibers.patches"):
        entry.load()(journal)


def _if_threads(function: Any) -> Any:
    def hook() -> None:
        if "thread" in _patch.groups:
            function()

    return hook


def original(name: str) -> Any:
    """The standard library's own, patched or not: `original("time.sleep")`. Raises ValueError, AttributeError."""
    where, what = split(name)
    value: Any = module(where)
    for part in what.split("."):
        value = getattr(value, part)
    return value


def is_patched(name: str) -> bool:
    """Is something else in its place now: `is_patched("time.sleep")`, `is_patched("socket.socket.recv")`?"""
    where, what = split(name)
    value: Any = STANDARD[where]
    for part in what.split("."):
        value = getattr(value, part)
    return value is not original(name)


@contextmanager
def applied(**which: bool) -> Iterator[None]:
    """A block in which the standard library is patched as by `patch_all(**which)`; undone at its end. For tests.

    Raises RuntimeError at the end, and leaves everything patched, if threads that are fibers have not ended.
    """
    before = _patch.groups
    if before:
        raise RuntimeError(
            "applied() is for programs that are not patched, and this one is: patch_all() has been called"
        )
    _patch.journal.keeps = True
    try:
        patch_all(**which)
        yield
    finally:
        undo()


def undo() -> None:
    """Take back what was patched."""
    left = [fiber.name for fiber in living if not fiber.done()]
    if left:
        raise RuntimeError(
            f"threads that are fibers have not ended: {', '.join(left)}; join them before the patch is undone"
        )
    _patch.journal.undo()
    _patch.replaced.clear()


def verify(strict: bool = False) -> list[Escaped]:
    """What holds on to the standard library as it was: see verify.py. With `strict`, RuntimeError if something does.

    Raises RuntimeError also if nothing is patched.
    """
    if not _patch.groups:
        raise RuntimeError("nothing is patched: call patch_all() before verify()")
    found = escaped(_patch.replaced)
    if strict and found:
        listed = "\n  ".join(map(str, found))
        raise RuntimeError(f"references have escaped; call patch_all() before these are imported or made:\n  {listed}")
    return found
