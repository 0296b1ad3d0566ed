"""`os.waitpid` and its kin, which suspend the fiber.

To wait and to reap are two things, as in io/children.py: the end of one child is told by an fd, that of any child by a
worker thread in `waitid` with WNOWAIT, which leaves it to be reaped. What is reaped here is reaped by the standard call,
which does not wait then.
"""

import os
import threading
from typing import Any, Final

from .. import lowlevel
from ..core.runtime import sleep
from ..core.scheduler import state
from ..io import children
from ..threads.to_thread import to_thread
from .idents import heir, native_ident, thread_fiber
from .locks import begin_fork, end_fork
from .originals import module

_os: Final[Any] = module("os")
_thread: Final[Any] = module("_thread")


def _may_wait() -> bool:
    scheduler = state.scheduler
    return scheduler is None or scheduler.current is not None


def waitpid(pid: int, options: int, /) -> tuple[int, int]:
    """As `os.waitpid`."""
    if options & os.WNOHANG or not _may_wait():
        return _os.waitpid(pid, options)  # type: ignore[no-any-return]
    while True:
        found: tuple[int, int] = _os.waitpid(pid, options | os.WNOHANG)
        if found != (0, 0):
            return found
        _await(pid, options)


def wait() -> tuple[int, int]:
    """As `os.wait`."""
    return waitpid(-1, 0)


def wait4(pid: int, options: int) -> tuple[int, int, Any]:
    """As `os.wait4`."""
    while not options & os.WNOHANG and _may_wait():
        found: tuple[int, int, Any] = _os.wait4(pid, options | os.WNOHANG)
        if found[0]:
            return found
        _await(pid, options)
    return _os.wait4(pid, options)  # type: ignore[no-any-return]


def wait3(options: int) -> tuple[int, int, Any]:
    """As `os.wait3`."""
    return wait4(-1, options)


def waitid(idtype: Any, ident: int, options: int, /) -> Any:
    """As `os.waitid`."""
    if options & os.WNOHANG or not _may_wait():
        return _os.waitid(idtype, ident, options)
    while True:
        found = _os.waitid(idtype, ident, options | os.WNOHANG)
        if found is not None:
            return found
        to_thread(_os.waitid, idtype, ident, options | os.WNOWAIT, cancellable=True)


def _await(pid: int, options: int) -> None:
    """Wait until there may be something to reap."""
    states = options & (os.WUNTRACED | getattr(os, "WCONTINUED", 0))
    if pid > 0 and not states and children.opener is not None:
        try:
            fd, close = children.opener(pid)
        except OSError:
            pass
        else:
            try:
                lowlevel.wait_readable(fd)
            finally:
                close()
            return
    if not hasattr(os, "waitid"):
        sleep(0.01)
        return
    kind, ident = (os.P_PID, pid) if pid > 0 else (os.P_ALL, 0) if pid == -1 else (os.P_PGID, -pid or os.getpgrp())
    flags = (
        os.WEXITED
        | os.WNOWAIT
        | (os.WSTOPPED if states & os.WUNTRACED else 0)
        | (states & getattr(os, "WCONTINUED", 0))
    )
    to_thread(_os.waitid, kind, ident, flags, cancellable=True)


# -- fork -----------------------------------------------------------------------------------------------------------


#: While a fork is under way: the number of the thread, the two Threads, and who went by that number before.
_saved: Final[list[tuple[int, Any, Any, Any]]] = []


def before_fork() -> None:
    """The forking fiber goes by the number of its thread from now on, so that `threading` makes it the main thread."""
    begin_fork()
    me = thread_fiber()
    if me is None:
        return
    here, active = native_ident(), threading._active  # type: ignore[attr-defined]
    mine = active.pop(id(me), None)
    _saved.append((here, active.pop(here, None), mine, heir.fiber))
    if mine is not None:  # else `threading` makes a new main thread of what it has never heard of
        active[here] = mine
    heir.fiber = me


def after_fork_in_parent() -> None:
    """It goes by its own number again."""
    end_fork()
    if not _saved:
        return
    here, thread, mine, earlier = _saved.pop()
    me, heir.fiber = heir.fiber, earlier
    active = threading._active  # type: ignore[attr-defined]
    if mine is not None:
        active[id(me)] = mine
    if thread is not None:
        active[here] = thread


def after_fork_in_child() -> None:
    """All that was other fibers is in the parent only; `threading` has made new locks for its lists."""
    end_fork(child=True)
    _saved.clear()
    if "_active_limbo_lock" in vars(threading):
        threading._active_limbo_lock = _thread.RLock()  # type: ignore[attr-defined]
    if "_shutdown_locks_lock" in vars(threading):
        threading._shutdown_locks_lock = _thread.allocate_lock()  # type: ignore[attr-defined]


NAMES: Final = {
    name: ours
    for name, ours in (("waitpid", waitpid), ("wait", wait), ("wait3", wait3), ("wait4", wait4), ("waitid", waitid))
    if hasattr(os, name)
}
