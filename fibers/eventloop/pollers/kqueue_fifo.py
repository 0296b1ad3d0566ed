"""Named FIFOs where kqueue does not serve them (macOS): a thread that waits for them in select(2).

Facts (XNU; Go #24164, Node and Bun have met them), and what follows:

* The read filter of a named FIFO fires only while there are bytes in it. That the last writer has closed, which is the
  end of the data, it never tells; nor does the write filter tell that the readers have gone. poll(2) is made of the same
  filters. select(2) is not: it reports an end. So FIFOs are waited for in select, and numbers beyond its limit are
  refused by name.
* A pipe(2) has a filter of its own, which is sound. It looks like a FIFO but for its device number, which is 0.
* select reports states and would report a FIFO over and over again that nobody reads. So it is one-shot, like every wait
  here that sees states (select.py, which does all the work): a loop arms such a file again at each wait, because it is in
  `KqueuePoller.one_shot`.
* A kernel keeps a file open for as long as some thread waits for it. So the thread is called out of its wait when a FIFO
  is forgotten, or the other end of one that is being closed would not hear of it.

The thread is started for the first FIFO and ends when the poller is closed. What it finds goes into a queue; then it rings
a bell, a descriptor that is in the kqueue like any file.
"""

import os
import stat
from collections import deque
from threading import Lock, Thread, current_thread
from typing import Final

from ..waker import Waker
from . import READ
from .select import FD_SETSIZE, SelectPoller

INVALID: Final = SelectPoller.INVALID


def is_named(status: os.stat_result) -> bool:
    """Is this a FIFO that has, or had, a name? (As macOS tells it.)"""
    return stat.S_ISFIFO(status.st_mode) and status.st_dev != 0


class FifoWatch:
    """See the module's text. `arm`, `forget` and `close` may be called by any thread, `take` by the owner of the kqueue."""

    __slots__ = ("_alarm", "_closed", "_found", "_lock", "_select", "_thread", "bell")

    def __init__(self) -> None:
        self.bell = Waker()  # its fd is readable when there is something to take
        self._alarm = Waker()  # calls the thread
        self._select = SelectPoller()
        self._found: deque[tuple[int, int]] = deque()
        self._lock = Lock()  # around the start and the end of the thread
        self._thread: Thread | None = None
        self._closed = False

    def arm(self, fd: int, interest: int) -> None:
        """Report the fd once. Raises ValueError if the number is too large for select."""
        if fd >= FD_SETSIZE:
            raise ValueError(
                f"fd {fd} is a named FIFO, for which this system has nothing but select, and its limit is "
                f"{FD_SETSIZE - 1}: open FIFOs before other files, or use a unix socket"
            )
        with self._lock:
            if self._closed:
                raise ValueError("I/O operation on closed kqueue poller")
            self._select.arm(fd, interest, 0)
            if self._thread is None:
                self._select.arm(self._alarm.fd, READ, 0)
                self._thread = Thread(target=self._watch, name="fibers-fifo", daemon=True)
                self._thread.start()
                return
        self._alarm.wake()

    def forget(self, fd: int) -> None:
        """Do not report it any more."""
        self._select.forget(fd, 0)
        self._alarm.wake()

    def take(self) -> list[tuple[int, int]]:
        """What has been found since: (fd, bits of SelectPoller), each once for each `arm`."""
        self.bell.drain()
        found = []
        while self._found:
            found.append(self._found.popleft())
        return found

    def close(self) -> None:
        """End the thread and give the descriptors back. A second call does nothing."""
        # Without the lock: in a forked child a thread that does not exist there may hold it.
        if self._closed:
            return
        self._closed = True
        thread = self._thread
        if thread is not None and thread is not current_thread() and thread.is_alive():
            self._alarm.wake()
            thread.join()
        self._select.close()
        self._alarm.close()
        self.bell.close()

    def _watch(self) -> None:
        while not self._closed:
            for fd, bits in self._select.wait(None):
                if fd == self._alarm.fd:
                    self._alarm.drain()
                    self._select.arm(fd, READ, 0)
                else:
                    self._found.append((fd, bits))
            if self._found:
                self.bell.wake()
