"""Every event loop that can be had here, plain and checked, under the names that tests and `--fibers-loop` use.

A `Kind` makes loops. Tests that take the fixture `loop_factory`, `loop` or `on_loop` (tests/conftest.py) run once for each.
kqueue is the real one where there is one, else the real poller over a fake (fake_kqueue.py).
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pytest

from fibers.eventloop import (
    BACKEND,
    BACKENDS,
    CHECKED,
    DEFAULT,
    MONOTONIC,
    Clock,
    EventLoop,
    PollingLoop,
    available,
    new_loop,
)
from fibers.eventloop.checked_polling import CheckedPollingLoop
from fibers.eventloop.pollers import Poller
from fibers.eventloop.pollers.kqueue import KqueuePoller

AVAILABLE: Final = available()
FAKE: Final = "fake kqueue"


@dataclass(frozen=True)
class Kind:
    """One kind of loop. Called with a clock or without, it makes one for the calling thread."""

    backend: str  # as `new_loop` has it, or FAKE
    checked: bool

    def __str__(self) -> str:
        return f"{self.backend} checked" if self.checked else self.backend

    def __call__(self, clock: Clock = MONOTONIC) -> EventLoop:
        if self.backend == FAKE:
            return (CheckedPollingLoop if self.checked else PollingLoop)(_fake_poller, clock)
        return new_loop(self.backend, clock, self.checked)

    @property
    def problem(self) -> str | None:
        """Why it cannot be had here; None: it can."""
        return None if self.backend == FAKE else AVAILABLE[self.backend]

    @property
    def lifetime(self) -> bool:
        """Does it register files for their lifetime?"""
        return self.backend != "libevent"

    @property
    def level_triggered(self) -> bool:
        """Does it look at the files that are waited for in each turn, and so notice one closed behind its back?"""
        return self.backend in ("poll", "select")

    @property
    def edge_triggered(self) -> bool:
        """Does the kernel tell it of a file that nobody waits for any more?"""
        return self.lifetime and not self.level_triggered

    def at_most(self, files: int) -> int:
        """So many of `files` can be waited for at once."""
        return min(files, {"select": 400, FAKE: 450}.get(self.backend, files))


def _fake_poller() -> Poller:
    from . import fake_kqueue  # it loads on Linux only

    return KqueuePoller(fake_kqueue)  # type: ignore[arg-type]


def raw_poller(name: str) -> Poller:
    """A new poller, of the name of its system call."""
    module, cls = BACKENDS[name]
    made: Poller = getattr(importlib.import_module(f"fibers.eventloop.{module}"), cls)()
    return made


#: libevent is named wherever it could be had, so that its absence is seen. A system call that does not exist is no loss.
NAMES: Final = [
    *(name for name, problem in AVAILABLE.items() if problem is None or name == "libevent"),
    *([] if AVAILABLE["kqueue"] is None else [FAKE]),
]
KINDS: Final = [Kind(backend, checked) for backend in NAMES for checked in (False, True)]
BY_NAME: Final = {str(kind): kind for kind in KINDS}
USABLE: Final = [kind for kind in KINDS if kind.problem is None]


def _of_this_run() -> list[Kind]:
    if BACKEND != DEFAULT:
        return [kind for kind in KINDS if kind.backend == BACKEND]
    return [kind for kind in KINDS if kind.checked or not CHECKED]


#: What tests are given if nobody says otherwise. All of them need no second look in a run on another loop than the default
#: (`make test-backends`), where it is that one; nor need those that check nothing in a run that is about checking.
OF_THIS_RUN: Final = _of_this_run()


def lifetime_loops(reason: str) -> pytest.MarkDecorator:
    """Marks a test of what only loops that register for a lifetime promise, and says why."""
    return pytest.mark.loops(lambda kind: kind.lifetime, reason)


def loops(wanted: Callable[[Kind], Any], reason: str) -> pytest.MarkDecorator:
    """Marks a test for the kinds of which `wanted` is true, and says why."""
    return pytest.mark.loops(wanted, reason)
