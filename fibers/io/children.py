"""Waiting for the end of a child process, without a SIGCHLD handler and without reaping it.

Facts, and what follows:

* A SIGCHLD handler would be the program's, not ours: there is one for the process, it runs in the main thread only, and
  signals merge. Whoever installs one, or ignores SIGCHLD, must not disturb us.
* The exit status can be had once. So to *wait* and to *reap* are two things here. This file waits; `Popen.poll` reaps,
  under the lock of that Popen. Any number of fibers and threads may wait for one child, and none of them reaps by it.
* A pidfd (Linux 5.3) is readable from the end of its process on, also if that was reaped by somebody else. It is waited for
  as any borrowed fd. A kqueue with EVFILT_PROC in it is readable in the same way, so it needs nothing else either.
* Where there is neither (an old kernel, a sandbox, no fd left), a thread sits in `waitid` with WNOWAIT, which returns at
  the end of the child and leaves it to be reaped. One thread for a child, however many wait and give up meanwhile. Where
  there is no such call, or no thread can be started, the caller looks again after 1, 2, 4 … 50 ms, as the standard
  library does in every wait with a timeout.

One fd is open per waiting call and not one per child: thousands of children that nobody waits for cost none.
"""

import os
import select
import threading
from collections.abc import Callable
from typing import Any

from ..core.fiber import Fiber
from ..core.runtime import sleep
from ..core.scheduler import get_scheduler
from ..core.waitqueue import WaitQueue
from ..eventloop import FOREVER, TIMED_OUT
from ..lowlevel import wait_readable

Fd = tuple[int, Callable[[], None]]  # readable when the child has ended; how to close it


def open_pidfd(pid: int) -> Fd:
    """A pidfd. Raises OSError; ProcessLookupError if there is no such process."""
    fd = os.pidfd_open(pid)
    return fd, lambda: os.close(fd)


def open_kqueue(pid: int, select: Any = select) -> Fd:
    """A kqueue that tells of the end of the process. Raises as `open_pidfd`, also for one that has ended."""
    queue = select.kqueue()
    try:
        event = select.kevent(
            pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD | select.KQ_EV_ONESHOT, fflags=select.KQ_NOTE_EXIT
        )
        queue.control([event], 0)
    except BaseException:
        queue.close()
        raise
    return queue.fileno(), queue.close


def _choose() -> Callable[[int], Fd] | None:
    """What this platform has; None: neither."""
    if hasattr(os, "pidfd_open"):
        return open_pidfd
    if hasattr(select, "kqueue"):
        return open_kqueue
    return None


#: How to get an fd that tells of a child's end; None: only threads.
opener: Callable[[int], Fd] | None = _choose()
#: May threads be used?
threads: bool = hasattr(os, "waitid")


class _Ends(WaitQueue):
    """Where fibers wait for a thread that waits for a child."""

    __slots__ = ("_pid",)

    inside = False  # a process wakes them: no deadlock

    def __init__(self, pid: int) -> None:
        super().__init__()
        self._pid = pid

    def __repr__(self) -> str:
        return f"the end of child process {self._pid}"


class ThreadWatch:
    """A thread that waits for one child, for whoever wants to know."""

    __slots__ = ("_queue", "done", "pid")

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.done = False
        self._queue = _Ends(pid)
        # A daemon: a program may end before its children do.
        threading.Thread(target=self._watch, name=f"child {pid}", daemon=True).start()

    def _watch(self) -> None:
        try:
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:
            pass  # reaped by somebody, or never to be reaped: it is gone
        finally:
            self.done = True
            self._queue.wake_all()

    def wait(self, deadline: float) -> None:
        """Wait for the end of the child, until `deadline` on the loop's clock."""
        scheduler = get_scheduler()
        me: Fiber[Any] | None = scheduler.current
        if me is None:
            raise scheduler.refuse()
        while not self.done:
            try:
                self._queue.add(me, self)
                if self.done and self._queue.abandon(me):
                    break
                limit = None if deadline == FOREVER else deadline
                if scheduler.park(me, self._queue, limit) is TIMED_OUT and not self.done:
                    return
            except BaseException:
                self._queue.abandon(me)
                raise


def wait_for(child: Any, deadline: float) -> bool:
    """Wait until a child has ended and is reaped; False if `deadline` (on the loop's clock) has passed before.

    `child` is a Popen; who holds its `_waitpid_lock` may reap it. Any fiber of any thread. Raises what cancellation and
    kill have for the fiber.
    """
    scheduler = get_scheduler()
    me = scheduler.current
    pause = 0.0
    while not _reaped(child):
        if me is None:
            raise scheduler.refuse()
        left = deadline - scheduler.loop.clock()
        if left <= 0:
            return False
        scheduler.check_interrupt(me)
        fd = _open(child)
        if fd is not None:
            _until_readable(*fd, None if deadline == FOREVER else left)
            if _reaped(child):
                break
        elif opener is None or child._thread_watch is not None or pause:
            _by_thread(child, deadline)
        # Another thread is about to reap it, a debugger has not let go of it, or all that there is is the clock.
        sleep(min(pause, max(deadline - scheduler.loop.clock(), 0)))
        pause = min(max(pause * 2, 0.001), 0.05)
    return True


def _open(child: Any) -> Fd | None:
    """An fd that tells of the end of the child; None: there is none to be had, at least at this moment."""
    if opener is None or not child._waitpid_lock.acquire(False):
        return None
    try:
        return opener(child.pid)  # while we hold the lock nobody reaps the child: its number is its own
    except OSError:
        return None  # no fd left, no such call, or it has just ended
    finally:
        child._waitpid_lock.release()


def _reaped(child: Any) -> bool:
    """Has it been reaped? If it can be now, it is. False also if another thread is at it at this moment."""
    if child.returncode is None and child._waitpid_lock.acquire(False):
        try:
            if child.returncode is None:
                pid, status = child._try_wait(os.WNOHANG)
                if pid == child.pid:
                    child._handle_exitstatus(status)
        finally:
            child._waitpid_lock.release()
    return child.returncode is not None


def _until_readable(fd: int, close: Callable[[], None], timeout: float | None) -> None:
    """Wait at most `timeout` seconds. The fd is closed in any case."""
    try:
        wait_readable(fd, timeout)
    except TimeoutError as error:
        if hasattr(error, "scope"):  # the deadline is another one
            raise
    finally:
        close()


def _by_thread(child: Any, deadline: float) -> None:
    """Have a thread wait for a child, and wait for the thread. Returns at once if none is to be had, or it is done."""
    watch = child._thread_watch
    if watch is None and threads:
        try:
            watch = child._thread_watch = ThreadWatch(child.pid)
        except RuntimeError:  # no more threads
            return
    if watch is not None:
        watch.wait(deadline)
