"""Lifetime registration: each file is registered once, at its first wait, and unregistered once, when it is closed.

Facts (Linux 6.18, and as documented for kqueue), and what follows:

* Registering at construction wakes for nothing: an unconnected TCP socket in epoll reports OUT|HUP at once. So a file
  is registered when an operation on it first comes up short, for that direction; the other direction is added at its
  own first wait. Both calls report what is ready already, so nothing is missed between trying and registering.
* A number may come back for another file while its old one is still in our tables: somebody called `os.close` behind our
  back. The old one is evicted as soon as the number is seen again, and its waiters woken with CLOSED.
* A file may be closed by another thread than the one that waits for it. If that one has an operation pending, it may be
  about to use the number; so it does the closing itself, at its next turn.
* epoll and kqueue may be changed from any thread. So a file is unregistered at once by whoever takes it away, and no
  "forget number N" is ever under way that could hit a successor of N.

Who may wait where is ownership.py's matter.
"""

import threading
from collections.abc import Callable

from ..errors import ClosedError
from . import ownership
from .contract import EventLoop
from .descriptor import Descriptor
from .pollers import Poller
from .turns import Direction, Handle
from .waiter import CLOSED, RETRY, Outcome


class LifetimeFiles(EventLoop):
    """The half of PollingLoop that knows files. Methods are for the loop's thread, where not said otherwise."""

    __slots__ = ("_poller", "_table")

    _poller: Poller
    _table: dict[int, Descriptor]

    def handle(self, fd: int, fresh: bool) -> Descriptor:
        stale = ownership.owners.get(fd) if fresh else None
        if stale is not None:
            with ownership.lock:
                if ownership.owners.get(fd) is stale:
                    evict(stale)
        return Descriptor(fd, self)

    def taken(self, fd: int) -> bool:
        return fd in ownership.owners

    def claim(self, handle: Handle) -> Handle:
        with ownership.lock:
            if handle.closed:
                raise ClosedError(f"fd {handle.fd} was closed")
            owner = handle.loop
            if owner is self:
                return handle
            if isinstance(handle, Descriptor) and isinstance(owner, LifetimeFiles) and not owner.closed:
                if handle.owned:
                    if ownership.STRICT or handle.pending():
                        raise ownership.refuse(handle, self.thread)
                    owner._evict(handle, RETRY)
                    self.stats.moves += 1
                else:
                    handle.mark_closed()  # its thread may be about to wait for the first time: let it ask again
                    return Descriptor(handle.fd, self, handle)
            return Descriptor(handle.fd, self)

    def watch(self, direction: Direction, deadline: float) -> bool:
        if not direction.armed and not self._arm(direction):
            return False
        if deadline < direction.alarm:
            direction.set_alarm(deadline)
        return True

    def _arm(self, direction: Direction) -> bool:
        descriptor, interest = direction.handle, direction.interest
        assert isinstance(descriptor, Descriptor)
        # A signal handler may raise at any call. None stands between the kernel's knowing of the file and our noting it.
        with ownership.lock:  # else somebody might take the file away between the table and the kernel
            if descriptor.closed:
                return False
            fresh = not descriptor.owned
            if fresh:
                self._own(descriptor)
            try:
                self._poller.arm(descriptor.fd, interest, descriptor.registered)
            except BaseException as error:
                if fresh:
                    self._disown(descriptor)
                if isinstance(error, PermissionError):
                    return False  # epoll has no use for regular files: they never block
                raise
            if fresh:
                self.stats.registrations += 1
            elif descriptor.registered and not descriptor.registered & interest:
                self.stats.modifications += 1
            descriptor.registered |= interest
            direction.armed = descriptor.fd not in self._poller.one_shot
        return True

    def unwatch(self, direction: Direction) -> None:
        if not self._poller.edge_triggered and direction.armed:
            descriptor, interest = direction.handle, direction.interest
            assert isinstance(descriptor, Descriptor)
            direction.armed = False
            descriptor.registered &= ~interest
            self._poller.disarm(descriptor.fd, interest)

    def release(self, handle: Handle, finish: Callable[[], None]) -> None:
        assert isinstance(handle, Descriptor)
        if threading.get_ident() != self.thread:
            with ownership.lock:
                handle.mark_closed()
                if handle.pending() and not self.closed:
                    self.post(self.release, handle, finish)
                    return
        self._evict(handle, CLOSED)
        handle.settle()
        finish()

    def _own(self, descriptor: Descriptor) -> None:
        """Enter the file into the tables. Under the lock."""
        fd = descriptor.fd
        stale = ownership.owners.get(fd)
        if stale is not None:
            evict(stale)
        ownership.owners[fd] = self._table[fd] = descriptor
        descriptor.owned = True

    def _disown(self, descriptor: Descriptor) -> None:
        """Take the file out of the tables. Under the lock, from any thread."""
        descriptor.owned = False
        descriptor.reading.armed = descriptor.writing.armed = False
        for table in (self._table, ownership.owners):
            if table.get(descriptor.fd) is descriptor:
                del table[descriptor.fd]

    def _evict(self, descriptor: Descriptor, outcome: Outcome) -> None:
        """Unregister, take out of the tables, wake the waiters. From any thread."""
        with ownership.lock:
            descriptor.mark_closed()
            if descriptor.owned:
                self._poller.forget(descriptor.fd, descriptor.registered)
                descriptor.registered = 0
                self._disown(descriptor)
                self.stats.unregistrations += 1
        if threading.get_ident() == self.thread or self.closed:
            descriptor.close(outcome)
        else:
            self.post(descriptor.close, outcome)  # also if nobody seems to wait: somebody may be just about to


def evict(descriptor: Descriptor) -> None:
    """The number of this file was seen on another file: it is gone. Under the lock, from any thread."""
    loop = descriptor.loop
    assert isinstance(loop, LifetimeFiles)
    loop._evict(descriptor, CLOSED)
