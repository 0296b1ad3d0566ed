"""What a process needs that forks others and waits for signals, with no loop in it.

Signals are C handlers that write their number into the wakeup fd, and Python handlers that do nothing; so the fd tells
all of them, in order, and a wait in poll(2) ends at once.
"""

import ctypes
import logging
import os
import signal
import socket as std
import sys
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final

from ..core.lifecycle import schedulers
from ..core.scheduler import state

_log: Final = logging.getLogger("fibers.server")

#: prctl: is this process a subreaper?
_PR_GET_CHILD_SUBREAPER: Final = 37


def check_place() -> None:
    """Raise RuntimeError if this is no place to fork from."""
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("serve_forever() with processes forks, and so must be called in the main thread")
    scheduler = state.scheduler
    busy = [fiber.name for each in schedulers() for fiber in each.fibers]
    busy += [f"a loop in thread {each.thread}" for each in schedulers() if each is not scheduler]
    if busy or (scheduler is not None and scheduler.current is not scheduler.main):
        raise RuntimeError(
            "serve_forever() with processes forks, which fibers do not survive: call it before anything else runs "
            f"(there are {', '.join(busy) or 'a fiber that calls it'})"
        )
    others = [each.name for each in threading.enumerate() if each is not threading.current_thread()]
    if others:
        _log.warning("forking beside other threads (%s), which the processes will not have", ", ".join(others))


def adopts() -> bool:
    """Does this process get the children of others, when these have died?"""
    if os.getpid() == 1:
        return True
    if sys.platform != "linux":
        return False
    found = ctypes.c_int(0)
    return ctypes.CDLL(None).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(found), 0, 0, 0) == 0 and bool(found.value)


class SignalPipe:
    """Takes signals while its block runs, and then puts back what was. For the main thread."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers = numbers
        self._handlers: dict[int, Any] = {}
        self._previous_fd = -1

    def __enter__(self) -> None:
        self._reader, self._writer = std.socketpair()
        for end in (self._reader, self._writer):
            end.setblocking(False)
        for number in self._numbers:
            self._handlers[number] = signal.signal(number, _noted)
        self._previous_fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(self._previous_fd)
        for number, handler in self._handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._reader.close()
        self._writer.close()

    @property
    def fd(self) -> int:
        """Readable when a signal has arrived."""
        return self._reader.fileno()

    def arrived(self) -> bytes:
        """The numbers of those that have arrived since the last call."""
        try:
            return self._reader.recv(4096)
        except BlockingIOError:
            return b""

    def forget(self) -> None:
        """In a forked child: as in a process that has just begun."""
        signal.set_wakeup_fd(-1)
        for number in self._numbers:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        self._reader.close()
        self._writer.close()


def _noted(number: int, frame: object) -> None:
    """The handler: its number is in the wakeup fd."""
