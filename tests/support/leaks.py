"""What a test may not leave behind: an open file descriptor, a thread, a fiber.

A descriptor number says little, because the next `open` takes it again; number *and* what the kernel says it
points to (`socket:[4711]`) tell a leak from a re-use. Fibers and threads are compared as objects, not by
their reusable ids.

Cycles keep objects open until the collector runs, which is no leak, and a full collection after each of a few
thousand tests would double the suite's time. So the comparison is made twice: a collection, one turn of the
scheduler (what a finaliser hands to the loop is done there) and a short wait for threads on their way out
happen on suspicion only.
"""

import gc
import os
import socket
import stat
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

# The pool that resolves names keeps its threads on purpose.
POOL_PREFIX: Final = "fibers-worker"
THREAD_GRACE_S: Final = 1.0
_FD_FOLDER: Final = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"


@dataclass(frozen=True)
class Snapshot:
    """Everything of the process that a test can leak, at one moment."""

    fds: dict[int, str]
    threads: list[threading.Thread]
    fibers: Sequence[object]


def take(all_fibers: Callable[[], Sequence[object]]) -> Snapshot:
    """What exists now. `all_fibers` lists the live fibers of all threads."""
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
    lines += [f"fiber {fiber!r}" for fiber in after.fibers if id(fiber) not in old]
    return lines


def check(before: Snapshot, all_fibers: Callable[[], Sequence[object]], settle: Callable[[], object]) -> list[str]:
    """The lines of `leaked` that survive a collection and `settle`, which lets the scheduler run one turn."""
    after = take(all_fibers)
    if not leaked(before, after):
        return []
    for thread in _new_threads(before, after):
        if thread is not threading.current_thread():
            thread.join(THREAD_GRACE_S)
    del after
    gc.collect()
    settle()
    return leaked(before, take(all_fibers))


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
    """`target`, for a socket with its addresses: they tell which of a test's sockets it was."""
    duplicate = os.dup(fd)
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
