"""A poller that checks what a loop asks of it, and what it answers: see checked.py and the contract in pollers.

The rules, as they are named in the errors:

    closed      nothing is asked of a closed poller
    arm once    an edge-triggered direction is armed once between two `forget`s, and a loop knows what it has armed
    asked for   a wait reports what has been armed, with bits that mean something
    one-shot    a level-triggered poller reports a direction once for each `arm`
    in time     waits do not end early with nothing to tell, time and again

Facts, and what follows:

* Other threads arm and forget while a wait is under way. The wait may or may not take notice, so what it says of such a
  number is believed.
* A number that was closed behind our back, while a duplicate lives, is reported on by epoll, and cannot be forgotten. So
  who forgets a number that is not the file it was when it was armed has to expect anything of it, for ever.
* A signal handler may raise in a verb that has done its work. What was armed then is not known.
* A wait may be empty before its time: what it would have told was of a file that had left. Once; not again and again.
"""

import os
import threading
from typing import Any, Final, cast

from ..errors import ContractError
from .clock import MONOTONIC
from .pollers import LONGEST_WAIT, READ, WRITE, Poller

#: After so many waits in a row that end early with nothing to tell, and without an excuse, it is no accident.
EARLY_WAITS: Final = 3


class _Entry:
    """What is known of a number: the directions armed, and the file that it was when it was armed."""

    __slots__ = ("armed", "certain", "file")

    def __init__(self, file: tuple[int, int] | None) -> None:
        self.armed = 0
        self.certain = True
        self.file = file


class CheckedPoller:
    """Any Poller, checked. What is no part of the contract is the poller's own."""

    def __init__(self, poller: Poller) -> None:
        self.poller = poller
        # Plain attributes, as they are there: a loop reads them between two steps that no signal handler must part.
        self.name, self.edge_triggered, self.one_shot = poller.name, poller.edge_triggered, poller.one_shot
        self.READABLE, self.WRITABLE, self.HANGUP = poller.READABLE, poller.WRITABLE, poller.HANGUP
        self.INVALID, self.MAX_EVENTS = poller.INVALID, poller.MAX_EVENTS
        self._lock = threading.RLock()
        self._entries: dict[int, _Entry] = {}
        self._changed: set[int] = set()  # since the wait began
        self._haunted: set[int] = set()  # may be reported for ever
        self._closed = False
        self._early = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.poller, name)

    def arm(self, fd: int, interest: int, armed: int) -> None:
        self._check_open("arm")
        with self._lock:
            self._changed.add(fd)
            entry = self._entries.get(fd) or _Entry(_file(fd))
            if self.poller.edge_triggered and entry.certain and fd not in self.poller.one_shot:
                if entry.armed != armed:
                    what = f"fd {fd} is said to be armed for {armed}, and is for {entry.armed}"
                    raise ContractError("arm once", what)
                if armed & interest:
                    raise ContractError("arm once", f"fd {fd} is armed for {armed}, and is armed for {interest} again")
            certain, entry.certain = entry.certain, False
            before, entry.armed = entry.armed, entry.armed | interest
            self._entries[fd] = entry
            try:
                self.poller.arm(fd, interest, armed)
            except (OSError, ValueError):
                entry.armed, entry.certain = before, certain
                if not before:
                    del self._entries[fd]
                raise
        entry.certain = certain  # last, with no call behind it

    def disarm(self, fd: int, interest: int) -> None:
        with self._lock:
            self._changed.add(fd)
            entry = self._entries.get(fd) or _Entry(None)
            certain, entry.certain = entry.certain, False
            self.poller.disarm(fd, interest)
            if not self.poller.edge_triggered:
                entry.armed &= ~interest
        entry.certain = certain

    def forget(self, fd: int, armed: int) -> None:
        with self._lock:
            self._changed.add(fd)
            entry = self._entries.get(fd) or _Entry(None)
            if self.poller.edge_triggered and entry.certain and entry.armed != armed:
                what = f"fd {fd} is said to be armed for {armed} at its end, and is for {entry.armed}"
                raise ContractError("arm once", what)
            if entry.file is not None and _file(fd) != entry.file:
                self._haunted.add(fd)
            entry.certain = False
            self.poller.forget(fd, armed)
            self._entries.pop(fd, None)

    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        self._check_open("wait")
        with self._lock:
            asked = {fd: entry.armed for fd, entry in self._entries.items()}
            self._changed.clear()
        began = MONOTONIC()
        try:
            events = self.poller.wait(timeout)
        except BaseException:
            if not self.poller.edge_triggered:  # it may have disarmed what it had collected
                with self._lock:
                    for entry in self._entries.values():
                        entry.certain = False
            raise
        took = MONOTONIC() - began
        with self._lock:
            if events or self._changed or took >= 0.5 * min(LONGEST_WAIT if timeout is None else timeout, LONGEST_WAIT):
                self._early = 0
            else:
                self._early += 1
                if self._early >= EARLY_WAITS:
                    what = f"{self._early} waits in a row, the last of {timeout} s, ended early with nothing to tell"
                    raise ContractError("in time", what)
            for fd, bits in events:
                self._check_event(fd, bits, asked.get(fd, 0))
        return events

    def _check_event(self, fd: int, bits: int, asked: int) -> None:
        poller = self.poller
        reported = (READ if bits & poller.READABLE else 0) | (WRITE if bits & poller.WRITABLE else 0)
        if bits & poller.INVALID:
            reported = READ | WRITE
        if not reported:
            raise ContractError("asked for", f"fd {fd} is reported with bits {bits:#x}, which mean nothing")
        entry = self._entries.get(fd)
        if fd not in self._changed and fd not in self._haunted and (entry is None or entry.certain):
            if entry is None:
                raise ContractError("asked for", f"fd {fd} is reported, and was not armed")
            if not poller.edge_triggered and not reported & asked:
                raise ContractError("one-shot", f"fd {fd} is reported for {reported}, and was armed for {asked} only")
        if entry is not None and not poller.edge_triggered and fd not in self._changed:
            entry.armed &= ~reported

    def certainly_armed(self) -> list[tuple[int, int]]:
        """Numbers and directions, as far as they are certain."""
        with self._lock:
            return [(fd, entry.armed) for fd, entry in self._entries.items() if entry.armed and entry.certain]

    def close(self) -> None:
        # Without the lock: in a forked child a thread that does not exist there may hold it.
        self._closed = True
        self.poller.close()

    def _check_open(self, verb: str) -> None:
        if self._closed:
            raise ContractError("closed", f"{verb}() was called on a closed poller")


def _file(fd: int) -> tuple[int, int] | None:
    """Which file has this number now; None: none."""
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def check_poller(poller: Poller) -> Poller:
    """The same poller, checked: it has the verbs of one, and the constants of that one."""
    return cast(Poller, CheckedPoller(poller))
