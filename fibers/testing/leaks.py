"""What code under test may not leave behind: an open file descriptor, a thread, a fiber.

    with fibers.testing.leak_guard():
        serve_one_request()          # LeakError names what is left

A descriptor number says little, because the next `open` takes it again; number *and* what the kernel says it
points to (`socket:[4711]`) tell a leak from a re-use. Fibers and threads are compared as objects, not by
their reusable ids.

Cycles keep objects open until the collector runs, which is no leak, and a full collection after each of a few
thousand tests would double the time that they take. So the comparison is made twice: a collection, one turn of the
scheduler (what a finaliser hands to the loop is done there) and a short wait for threads on their way out
happen on suspicion only.
"""

import gc
import os
import socket
import stat
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from ..core.dump import awaited
from ..core.fiber import Fiber
from ..core.lifecycle import all_fibers
from ..core.runtime import yield_now

#: The threads of the worker pool (threads.py) are kept on purpose.
POOL_PREFIX: Final = "fibers-worker"
#: Seconds that a thread on its way out is waited for.
THREAD_GRACE: Final = 1.0
_FD_FOLDER: Final = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"


class LeakError(AssertionError):
    """Something was left behind; the text has a line for each thing."""


@dataclass(frozen=True)
class Snapshot:
    """Everything of the process that can be left behind, at one moment."""

    fds: dict[int, str]
    threads: list[threading.Thread]
    fibers: Sequence[Fiber[Any]]


def take() -> Snapshot:
    """What exists now, in all threads."""
    return Snapshot(open_fds(), threading.enumerate(), all_fibers())


def open_fds() -> dict[int, str]:
    """Every open descriptor of this process, with the kernel's name of what it points to."""
    found = {}
    for name in os.listdir(_FD_FOLDER):
        try:
            found[int(name)] = _target(int(name))
        except OSError:
            continue  # The descriptor through which the folder itself was read.
    return found


def leaked(before: Snapshot, after: Snapshot) -> list[str]:
    """One line for each thing in `after` that was not in `before`, naming it."""
    lines = [
        f"fd {fd}: {_described(fd, target)}" for fd, target in sorted(after.fds.items()) if before.fds.get(fd) != target
    ]
    lines += [f"thread {thread.name!r}{' (daemon)' * thread.daemon}" for thread in _new_threads(before, after)]
    old = {id(fiber) for fiber in before.fibers}
    lines += [describe(fiber) for fiber in after.fibers if id(fiber) not in old]
    return lines


def check(before: Snapshot, settle: Callable[[], object] = yield_now) -> list[str]:
    """The lines of `leaked` that survive a collection and `settle`, which lets the scheduler run one turn."""
    after = take()
    if not leaked(before, after):
        return []
    for thread in _new_threads(before, after):
        if thread is not threading.current_thread():
            thread.join(THREAD_GRACE)
    del after
    gc.collect()
    settle()
    return leaked(before, take())


@contextmanager
def leak_guard() -> Iterator[None]:
    """Raise LeakError, naming each, if the block leaves open fds, threads or fibers behind that were not there before.

    The whole process is looked at: what other threads do meanwhile counts, too. If the block raises, that error is all
    that is told (its traceback may keep things alive).
    """
    before = take()
    yield
    lines = check(before)
    if lines:
        raise LeakError("left behind:\n  " + "\n  ".join(lines))


def describe(fiber: Fiber[Any]) -> str:
    """A fiber that is left, for a report."""
    doing = f", waiting for {awaited(fiber)}" if fiber.waiting is not None else ""
    return f"fiber {fiber!r}{doing}, spawned at {fiber.spawned_at}"


def _new_threads(before: Snapshot, after: Snapshot) -> list[threading.Thread]:
    return [
        thread for thread in after.threads if thread not in before.threads and not thread.name.startswith(POOL_PREFIX)
    ]


def _target(fd: int) -> str:
    if sys.platform == "linux":
        return os.readlink(f"{_FD_FOLDER}/{fd}")
    status = os.fstat(fd)
    return f"{stat.filemode(status.st_mode)} {status.st_dev}:{status.st_ino}"


def _described(fd: int, target: str) -> str:
    """`target`, for a socket with its addresses: they tell which of them it was."""
    try:
        duplicate = os.dup(fd)
    except OSError:
        return target
    try:
        copy = socket.socket(fileno=duplicate)
    except OSError:
        os.close(duplicate)
        return target
    with copy:
        ends = [_address(copy.getsockname), _address(copy.getpeername)]
    return f"{target} {' -> '.join(end for end in ends if end)}".rstrip()


def _address(ask: Callable[[], object]) -> str:
    try:
        return str(ask() or "")
    except OSError:
        return ""
