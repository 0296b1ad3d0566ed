"""A poller that checks what a loop asks of it, and what it answers: see checked.py and the contract in pollers.

The rules, as they are named in the errors:

    closed      nothing is asked of a closed poller
    arm once    an edge-triggered direction is armed once between two `forget`s; a loop knows what it has armed
    asked for   a wait reports what has been armed, and bits that mean something
    one-shot    a level-triggered poller reports a direction once for each `arm`
    in time     a wait does not end early with nothing to tell
"""

import threading
from typing import Any, Final

from .checked import broken
from .clock import MONOTONIC
from .pollers import READ, WRITE, Poller

#: Seconds by which clocks may differ: kernels round, and count in ticks of their own.
_SLACK: Final = 0.002


class CheckedPoller:
    """Any Poller, checked. What is not a verb is the poller's own."""

    def __init__(self, poller: Poller) -> None:
        self.poller = poller
        self._lock = threading.RLock()
        self._armed: dict[int, int] = {}
        self._uncertain: set[int] = set()  # changed while a wait was under way: it may report either
        self._closed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.poller, name)

    def arm(self, fd: int, interest: int, armed: int) -> None:
        self._check_open("arm")
        with self._lock:
            known = self._armed.get(fd, 0)
            if self.poller.edge_triggered:
                if known & interest:
                    raise broken("arm once", f"fd {fd}, interest {interest} is armed already")
                if known != armed:
                    raise broken("arm once", f"fd {fd} is said to be armed for {armed}, and is for {known}")
            self.poller.arm(fd, interest, armed)
            self._armed[fd] = known | interest
            self._uncertain.add(fd)

    def disarm(self, fd: int, interest: int) -> None:
        with self._lock:
            self.poller.disarm(fd, interest)
            if not self.poller.edge_triggered:
                self._armed[fd] = self._armed.get(fd, 0) & ~interest
            self._uncertain.add(fd)

    def forget(self, fd: int, armed: int) -> None:
        with self._lock:
            known = self._armed.get(fd, 0)
            if self.poller.edge_triggered and known != armed:
                raise broken("arm once", f"fd {fd} is said to be armed for {armed} at its end, and is for {known}")
            self.poller.forget(fd, armed)
            self._armed.pop(fd, None)
            self._uncertain.add(fd)

    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        self._check_open("wait")
        poller = self.poller
        with self._lock:
            asked = dict(self._armed)
            self._uncertain.clear()
        began = MONOTONIC()
        events = poller.wait(timeout)
        took = MONOTONIC() - began
        if not events and timeout is not None and took < min(timeout, 1.0) - _SLACK:
            raise broken("in time", f"a wait of {timeout} s ended after {took:.6f} s with nothing to tell")
        with self._lock:
            for fd, bits in events:
                self._check_event(fd, bits, asked.get(fd, 0))
        return events

    def _check_event(self, fd: int, bits: int, asked: int) -> None:
        poller = self.poller
        reported = (READ if bits & poller.READABLE else 0) | (WRITE if bits & poller.WRITABLE else 0)
        if bits & poller.INVALID:
            reported = READ | WRITE
        if not reported:
            raise broken("asked for", f"fd {fd} is reported with bits {bits:#x}, which mean nothing")
        if fd in self._uncertain:
            asked |= READ | WRITE
        if not asked:
            raise broken("asked for", f"fd {fd} is reported, and was not armed")
        if not poller.edge_triggered:
            if not reported & asked:
                raise broken("one-shot", f"fd {fd} is reported for {reported}, and was armed for {asked} only")
            left = self._armed.get(fd, 0) & ~reported
            if fd not in self._uncertain:
                self._armed[fd] = left

    def close(self) -> None:
        self._closed = True
        self.poller.close()

    def _check_open(self, verb: str) -> None:
        if self._closed:
            raise broken("closed", f"{verb}() was called on a closed poller")
