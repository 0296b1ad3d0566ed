"""Patching, and undoing it. See the package's text.

One patch is in force in a process, or none. Each call of `patch_all` that adds to it is all or nothing: if something in it
fails, what it has changed is changed back.
"""

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from . import ending, existing, handles, internals, libraries, logs, names, plugins, processes, threads
from .journal import Journal
from .originals import STANDARD, find, find_now, module, split
from .table import ALIASES, GROUPS, METHODS, NAMES
from .verify import Escaped, escaped


class _Patch:
    """What is in force: the groups that are patched, and how to undo it."""

    __slots__ = ("groups", "hooked", "journal", "new", "old")

    def __init__(self) -> None:
        self.groups: frozenset[str] = frozenset()
        self.journal = Journal()
        self.journal.keeps = False  # what nobody will undo need not be kept alive
        self.hooked = False  # at forks; that cannot be undone
        self.new: dict[int, Any] = {}  # what is in the place of what, by the id of the original
        self.old: dict[int, tuple[str, Any]] = {}  # names and originals, by the same


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
    patched before stays: a second call adds to the first, or does nothing. Raises ValueError for an unknown group, TypeError
    for what is neither True nor False, RuntimeError in a thread other than the main one, and whatever an entry point raises;
    then nothing has been changed.
    """
    new = _chosen(which) - _patch.groups
    if not new:
        return
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            f"patch_all() was called in thread {threading.current_thread().name!r}: call it in the main thread, as the "
            "first thing that the program does"
        )
    journal = Journal()
    try:
        _apply(new, journal)
    except BaseException:
        journal.undo()
        raise
    journal.move_to(_patch.journal)


def _apply(new: frozenset[str], journal: Journal) -> None:
    journal.record(_set, _patch.groups, _patch.new, _patch.old)
    _set(_patch.groups | new, dict(_patch.new), dict(_patch.old))
    for group in GROUPS:
        if group in new:
            for name, ours in NAMES.get(group, {}).items():
                old = original(name)
                _patch.new[id(old)] = ours
                _patch.old.setdefault(id(old), (name, old))
    internals.detach(journal, [(old, _patch.new[key]) for key, (_, old) in _patch.old.items()])
    if not _patch.hooked:
        _patch.hooked = True
        os.register_at_fork(
            before=_if_threads(processes.before_fork),
            after_in_parent=_if_threads(processes.after_fork_in_parent),
            after_in_child=_if_threads(processes.after_fork_in_child),
        )
    for group in new:
        for name, methods in METHODS.get(group, {}).items():
            where, what = split(name)
            for method, function in methods.items():
                journal.set_attribute(getattr(STANDARD[where], what), method, function)
    names.replace(journal, _patch.new)
    if "thread" in new:
        threads.take_main(journal)
        handles.take_main(journal)
        logs.defer(journal)
        ending.take_over(journal)
    if "locks" in new:
        existing.replace(journal)
    if "libraries" in new:
        libraries.prepare(journal)
    plugins.apply(journal)


def _set(groups: frozenset[str], new: dict[int, Any], old: dict[int, tuple[str, Any]]) -> None:
    _patch.groups, _patch.new, _patch.old = groups, new, old


def _if_threads(function: Callable[[], None]) -> Callable[[], None]:
    def hook() -> None:
        if "thread" in _patch.groups:
            function()

    return hook


def original(name: str) -> Any:
    """The standard library's own, patched or not: `original("time.sleep")`. Raises ValueError, AttributeError."""
    where, what = split(name)
    return find(module(where), what)


def is_patched(name: str) -> bool:
    """Is something else in its place now: `is_patched("time.sleep")`, `is_patched("socket.socket.recv")`?"""
    where, what = split(name)
    return find_now(STANDARD[where], what) is not original(name)


@contextmanager
def applied(**which: bool) -> Iterator[None]:
    """A block in which the standard library is patched as by `patch_all(**which)`; undone at its end. For tests.

    Raises RuntimeError if the program is patched already; and at the end, with everything left patched, if threads that are
    fibers have not ended: join them first.
    """
    if _patch.groups:
        raise RuntimeError("applied() is for programs that are not patched, and this one is: patch_all() was called")
    _patch.journal.keeps = True
    try:
        patch_all(**which)
        yield
    finally:
        _undo()


def _undo() -> None:
    """Take back what was patched."""
    left = [fiber.name for fiber in threads.living if not fiber.done()]
    if left:
        raise RuntimeError(
            f"threads that are fibers have not ended: {', '.join(left)}; join them before the end of applied()"
        )
    _patch.journal.undo()
    _patch.journal.keeps = False


def verify(strict: bool = False) -> list[Escaped]:
    """What holds on to the standard library as it was: see verify.py. With `strict`, RuntimeError if something does.

    Raises RuntimeError also if nothing is patched.
    """
    if not _patch.groups:
        raise RuntimeError("nothing is patched: call patch_all() before verify()")
    found = escaped(_patch.old)
    if strict and found:
        listed = "\n  ".join(map(str, found))
        raise RuntimeError(f"references have escaped; call patch_all() before they are imported or made:\n  {listed}")
    return found
