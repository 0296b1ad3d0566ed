"""Files of a libevent loop: registered for each wait, unregistered after it, and free to wait for in any thread.

Facts, and what follows:

* A registration is level-triggered: it reports at once what is there already, whatever was known before. So the latch of
  a direction (turns.py) decides nothing here: it separates the would-block of an operation from the wait that follows.
  Every wait ends with one edge more, however it ends; no short read counts as "drained" (`hangup` is set from the start);
  and a direction that a timed-out operation has left drained costs a look at the kernel, not a wake-up.
* A base is confined to its thread, so each loop that waits for a file has a handle of its own for it, with turns of its
  own: several threads may wait for one fd, as they may with blocking sockets. The handles of one file know each other
  (`siblings`), since closing it must wake the waiters of all.
* libevent keeps a list of events for each *number*, and tells the kernel only of the first and last in it. If a file is
  closed with an event added, its number's next file finds a list that is not empty, and is never registered. And if the
  open file lives on under another number (a dup, a forked child), the kernel reports it without end. So the event is
  deleted before the fd is closed, in the thread of its loop; the last of these closes it. And whoever closes a number
  behind our back has its events deleted before the number is waited for again.
"""

import os
import threading
from collections.abc import Callable
from typing import Final
from weakref import WeakSet

from ..errors import ClosedError, LoopClosedError, OwnershipError
from .clock import FOREVER
from .contract import EventLoop
from .libevent_base import Base, Event
from .libevent_binding import EV_READ, EV_WRITE
from .turns import READ, WRITE, Direction, Handle, Home

_WHAT: Final = {READ: EV_READ, WRITE: EV_WRITE}

#: Guards the lists of siblings, and the moment from which a file is closed. Never held while anything else is locked.
_lock = threading.RLock()


class LibeventDirection(Direction):
    """`event` is made at the first wait. `asked`: it has been added, and has neither come nor been deleted since."""

    __slots__ = ("asked", "event")

    def __init__(self, handle: Handle, loop: Home) -> None:
        super().__init__(handle, loop)
        self.event: Event | None = None
        self.asked = False
        self.hangup = True


class LibeventHandle(Handle):
    """One file in one loop. `siblings`: a list that all handles of the file share, this one included."""

    __slots__ = ("siblings",)

    reading: LibeventDirection
    writing: LibeventDirection

    def __init__(self, fd: int, loop: "LibeventFiles", siblings: "list[LibeventHandle]") -> None:
        self.fd = fd
        self.loop: LibeventFiles = loop
        self.closed = False
        self.observers = None
        self.reading = LibeventDirection(self, loop)
        self.writing = LibeventDirection(self, loop)
        self.siblings = siblings
        siblings.append(self)

    def busy(self) -> bool:
        """May the loop of this handle be waiting for the file? (`asked` is set before `closed` is looked at.)"""
        return self.reading.asked or self.writing.asked or self.pending()

    def calling(self) -> bool:
        return any(Handle.calling(each) for each in self.siblings)

    def forget_all(self) -> None:
        """In a forked child: nobody waits, and no event is ours to touch."""
        self.observers = None
        for direction in (self.reading, self.writing):
            direction.waiter = direction.queue = direction.timer = direction.holder = direction.event = None
            direction.alarm = FOREVER
            direction.asked = False
            direction.edges += 1


class _Closing:
    """The fd of a file is closed when as many loops as had to have let go of it."""

    __slots__ = ("_finish", "_handle", "_left")

    def __init__(self, handle: LibeventHandle, finish: Callable[[], None], left: int) -> None:
        self._handle = handle
        self._finish = finish
        self._left = left

    def one_less(self) -> None:
        with _lock:
            self._left -= 1
            if self._left:
                return
        self._handle.settle()
        self._finish()


class LibeventFiles(EventLoop):
    """The half of LibeventLoop that knows files. Methods are for the loop's thread, where not said otherwise."""

    __slots__ = ("__weakref__", "_base", "_table", "closed")

    closed: bool
    _base: Base
    _table: dict[int, LibeventHandle]  # by number: who has waited here

    def handle(self, fd: int, fresh: bool) -> LibeventHandle:
        if fresh:
            for loop in list(loops):
                stale = loop._table.get(fd)
                if stale is not None and (loop is self or not stale.closed):
                    self.release(stale, _nothing)
        return LibeventHandle(fd, self, [])

    def taken(self, fd: int) -> bool:
        return any(fd in loop._table for loop in list(loops))

    def claim(self, handle: Handle) -> Handle:
        with _lock:
            if handle.closed:
                raise ClosedError(f"fd {handle.fd} was closed")
            if handle.loop is self:
                return handle
            if isinstance(handle, LibeventHandle):
                siblings = handle.siblings
                siblings[:] = [each for each in siblings if not each.loop.closed]
                for each in siblings:
                    if each.loop is self:
                        return each
                return LibeventHandle(handle.fd, self, siblings)
        owner = handle.loop
        if owner is not None and not owner.closed:  # a loop of another kind, which registers for a lifetime
            if handle.pending():
                raise OwnershipError(
                    f"fd {handle.fd} is being waited for in the {owner.name} loop of another thread; a libevent loop "
                    f"cannot share it. Finish the operation there first, or give this thread an fd of its own with dup()."
                )
            owner.release(handle, _nothing)
        return LibeventHandle(handle.fd, self, [])

    def watch(self, direction: Direction, deadline: float) -> bool:
        # Each step may be done again: a signal handler may raise between any two, and the scheduler asks again.
        assert isinstance(direction, LibeventDirection)
        handle = direction.handle
        assert isinstance(handle, LibeventHandle)
        if self.closed:
            raise LoopClosedError("the event loop is closed")
        if self._table.get(handle.fd) is not handle:
            self._enter(handle)
        event = direction.event
        if event is None:
            event = direction.event = self._base.new_event(handle.fd, _WHAT[direction.interest], direction)
        if not direction.asked:
            direction.asked = True
            self.stats.registrations += 1
        refused: OSError | None = None
        if handle.closed or (refused := self._base.add(event)) is not None:
            direction.asked = False
            self.stats.registrations -= 1
            if refused is None or isinstance(refused, PermissionError):
                return False  # epoll has no use for regular files: they never block
            raise refused
        if deadline < direction.alarm:
            direction.set_alarm(deadline)
        return True

    def unwatch(self, direction: Direction) -> None:
        assert isinstance(direction, LibeventDirection)
        direction.edges += 1
        if direction.asked and direction.event is not None:
            direction.asked = False
            self.stats.unregistrations += 1
            self._base.delete(direction.event)

    def release(self, handle: Handle, finish: Callable[[], None]) -> None:
        assert isinstance(handle, LibeventHandle)
        mine: LibeventHandle | None = None
        with _lock:
            handle.mark_closed()
            live = [each for each in handle.siblings if not each.loop.closed]
            for each in live:
                each.mark_closed()
            if self.thread == threading.get_ident():
                mine = next((each for each in live if each.loop is self), None)
            others = [each for each in live if each is not mine]
            closing = _Closing(handle, finish, 1 + sum(each.busy() for each in others))
            # Under the lock: no loop closes between the look at it and the post, nor does one become busy (see `watch`).
            for each in others:
                each.loop.post(each.loop._drop, each, closing if each.busy() else None)
        if mine is not None:
            self._drop(mine)
        closing.one_less()

    def _enter(self, handle: LibeventHandle) -> None:
        """A first wait for the file here. What the number stood for before is gone."""
        stale = self._table.get(handle.fd)
        if stale is not None:
            self.release(stale, _nothing)
        self._table[handle.fd] = handle

    def _drop(self, handle: LibeventHandle, closing: _Closing | None = None) -> None:
        """The file is closed: delete its events, wake its waiters."""
        for direction in (handle.reading, handle.writing):
            if direction.asked:
                direction.asked = False
                self.stats.unregistrations += 1
            if direction.event is not None:
                self._base.free(direction.event)
                direction.event = None
        if self._table.get(handle.fd) is handle:
            del self._table[handle.fd]
        handle.close()
        if closing is not None:
            closing.one_less()

    def _end(self) -> None:
        """From now on nothing is posted to this loop because a file is closed."""
        with _lock:
            self.closed = True
        loops.discard(self)

    def _release_closed(self) -> bool:
        """Files that were closed behind our back: their waiters get CLOSED. True if there were any."""
        gone = []
        for handle in self._table.values():
            try:
                os.fstat(handle.fd)
            except OSError:
                gone.append(handle)
        for handle in gone:
            self.release(handle, _nothing)
        return bool(gone)


#: Every libevent loop of the process that is not closed.
loops: Final[WeakSet[LibeventFiles]] = WeakSet()


def after_fork() -> None:
    """In the child no other thread lives: nobody holds the lock, and the loops of others are never touched again.

    Nor are the bases, the one of this thread included: called before anything in the child can take a waiter out of the
    place where it waits, which would delete an event.
    """
    global _lock
    _lock = threading.RLock()
    for loop in list(loops):
        loop._base.abandon()
        if loop.thread != threading.get_ident():
            loop.closed = True
            loops.discard(loop)


def _nothing() -> None:
    """The fd is not ours to close."""
