"""What a socket has beside itself: its handle in a loop, and the timeout its user set.

The file behind a socket of ours is always non-blocking; "blocking" and "timeout" are what our operations make of it. So
the timeout that the user set lives here, and the one in the C object is 0.

The state is found by `id(socket)` in one dict, not in a slot of the object: the operations then work on any
`socket.socket`, also on instances of the standard class made before anybody thought of fibers. An entry lives as long as
its socket: a weak reference takes it out before the id can be used again. A socket that dies unclosed has had its fd
closed by the C object, and with it the kernel's registration, so all that is left is to forget the handle. That is
posted to the loop: a finaliser may run anywhere.
"""

import errno
import os
import select
import threading
import weakref
from _socket import SOCK_STREAM
from _socket import socket as Raw  # noqa: N812
from array import array
from collections.abc import Callable
from fcntl import ioctl
from functools import partial
from socket import AF_INET, AF_INET6, AF_UNIX
from termios import FIONREAD
from typing import Any, Final, Self

from ..core.scheduler import state as thread
from ..errors import ClosedError
from ..eventloop import READ, Direction, EventLoop, Handle, ownership

_HAS_KQUEUE: Final = hasattr(select, "kqueue")

#: How often a fiber may be served without waiting, on one socket, before it lets others run.
CREDIT: Final = 256


class State(weakref.ref[Any]):
    """See the module's text: it is itself the weak reference to its socket (or pipe), and what that leads to when it dies.

    One object instead of two, for each connection of a server. `reading` and `writing` are those of `handle`.
    """

    __slots__ = ("credit", "key", "reading", "shortcut", "timeout", "writing")

    def __new__(cls, sock: Any, handle: Handle, timeout: float | None, shortcut: "bool | array[int]") -> Self:
        return super().__new__(cls, sock, _dropped)

    def __init__(self, sock: Any, handle: Handle, timeout: float | None, shortcut: "bool | array[int]") -> None:
        super().__init__(sock, _dropped)  # type: ignore[call-arg]
        self.key = id(sock)
        self.reading = handle.reading
        self.writing = handle.writing
        self.timeout = timeout  # None, 0.0 or seconds, as settimeout has it
        # What a short read proves. TCP (True): the buffer is empty. Unix streams: nothing, since a read stops at passed
        # fds with data behind them; but the kernel can be asked, into this array, for a third of what a failing read
        # costs. So it is for TCP where a kqueue may be what waits: it does not tell of urgent data, and a read stops at
        # the urgent mark. All others (False): nothing.
        self.shortcut = shortcut
        self.credit = CREDIT

    @property
    def handle(self) -> Handle:
        """In the loop in which the file was last waited for."""
        return self.reading.handle

    def move(self, handle: Handle) -> None:
        """The file has another handle from now on."""
        self.reading, self.writing = handle.reading, handle.writing


#: By id(socket). Read on every operation.
states: Final[dict[int, State]] = {}


def adopt(sock: Any, fresh: bool = False) -> State:
    """The state of a socket that has none yet: it becomes ours. `fresh`: the fd was made just now.

    Raises ClosedError if it is closed.
    """
    fd = Raw.fileno(sock)
    if fd < 0:
        raise ClosedError("this socket is closed")
    timeout = Raw.gettimeout(sock)
    Raw.settimeout(sock, 0.0)
    scheduler = thread.scheduler
    if scheduler is None or scheduler.closed:  # noqa: SIM108
        handle = Handle(fd, None)
    else:
        handle = scheduler.loop.handle(fd, fresh)
    return enter(State(sock, handle, timeout, shortcut_of(sock)))


def enter(state: State) -> State:
    """Let it be the state of its socket, for as long as that lives."""
    states[state.key] = state
    return state


def hand_over(sock: Any) -> Handle | None:
    """Take the handle of a socket away, with all that the loop knows of the file, for another object on the same fd.

    The socket is left as after a close. None if it has no handle or is being waited for: nothing is changed then.
    """
    state = states.get(id(sock))
    if state is None or state.handle.closed or state.handle.pending():
        return None
    handle = state.handle
    closed = Handle(handle.fd, None)
    closed.close()
    state.move(closed)
    return handle


def shortcut_of(sock: Any) -> "bool | array[int]":
    """See `State.shortcut`."""
    if Raw.type.__get__(sock) != SOCK_STREAM:
        return False
    family = Raw.family.__get__(sock)
    tcp = family in (AF_INET, AF_INET6)
    if family == AF_UNIX or (tcp and _HAS_KQUEUE):
        return array("i", [0])
    return tcp


def empty(state: State) -> bool:
    """After a short read of a stream: is nothing left in the socket's buffer? (False: perhaps not.)"""
    shortcut = state.shortcut
    if shortcut is True or shortcut is False:
        return shortcut
    try:
        ioctl(state.handle.fd, FIONREAD, shortcut)
    except OSError:
        return False
    return not shortcut[0]


def _dropped(state: State) -> None:
    if states.pop(state.key, None) is not None:
        handle = state.handle
        if handle.loop is not None and not handle.closed and not handle.loop.closed:
            handle.loop.post(handle.loop.release, handle, _nothing)


def _nothing() -> None:
    """The C object has closed the fd."""


def state_of(sock: Any) -> State:
    """The state of a socket, made if there is none."""
    return states.get(id(sock)) or adopt(sock)


def claim(state: State, direction: Direction, loop: EventLoop) -> Direction:
    """The direction to wait in, in `loop`: the socket was last used in another loop, or its handle was replaced.

    Raises ClosedError, or OwnershipError if the other loop cannot let go of it now.
    """
    with ownership.lock:
        handle = state.handle
        if handle.loop is not loop or handle.closed:
            handle = loop.claim(handle)
            state.move(handle)
        return handle.reading if direction.interest == READ else handle.writing


def close(sock: Any) -> None:
    """Close the fd of a socket, waking who waits for it. From any thread; a second call does nothing.

    The state stays with the object: its timeout can still be asked for.
    """
    state = states.get(id(sock))
    if state is None or state.handle.closed:
        Raw.close(sock)
        return
    # From now on the object has no fd. Whoever is in a call that has read the number finishes first.
    fd = Raw.detach(sock)
    if fd >= 0:
        _let_go(state.handle, partial(_close_fd, fd))


def detach(sock: Any) -> int:
    """Give the fd away unclosed: unregister it, wake who waits. It stays non-blocking. Returns -1 if it was closed."""
    state = states.get(id(sock))
    fd = Raw.detach(sock)
    if state is not None and fd >= 0:
        _let_go(state.handle, _nothing)
    return fd


def _here(handle: Handle) -> bool:
    """Is the calling code ordinary code of the thread that the file belongs to?"""
    scheduler = thread.scheduler
    return scheduler is not None and handle.loop is scheduler.loop and scheduler.current is not None


def _let_go(handle: Handle, finish: Callable[[], None]) -> None:
    loop = handle.loop
    if loop is None:
        handle.close()
        handle.settle()
        finish()
    elif _here(handle):
        scheduler = thread.scheduler
        assert scheduler is not None
        scheduler.in_runtime(loop.release, handle, finish)
    elif loop.thread == threading.get_ident() and not loop.closed:
        loop.post(loop.release, handle, finish)  # inside the runtime: at the next turn
    else:
        loop.release(handle, finish)


def _close_fd(fd: int) -> None:
    try:
        os.close(fd)
    except OSError as error:
        if error.errno == errno.EBADF:
            raise
