"""Connecting: start, wait until the socket can be written, ask how it went.

Facts. A connection attempt that is under way ends with an edge for writing; an event is only a hint. On Linux the
outcome is what a second `connect` says, and the socket is neither connected nor free for another attempt before it has
been called (until then a third one would say 0 instead of EISCONN, or ECONNABORTED). On the BSDs a second `connect`
would try again; there SO_ERROR holds the outcome, once, and "no error" is believed only if there is a peer.

A unix socket whose peer's backlog is full is another matter: the kernel says EAGAIN, reports one edge at once and none
when there is room.
"""

import errno
import os
import sys
from _socket import SO_ERROR, SOL_SOCKET
from _socket import socket as Raw  # noqa: N812
from socket import AF_UNIX
from typing import Any

from ..errors import ClosedError
from .names import resolve
from .state import State, state_of
from .waiting import blocking, by_the_clock


def bind(self: Any, address: Any, /) -> None:
    """As `socket.bind`. Host names are looked up without blocking the thread."""
    Raw.bind(self, resolve(self, address))


def connect(self: Any, address: Any, /) -> None:
    """As `socket.connect`. Host names are looked up without blocking the thread."""
    state = state_of(self)
    address = resolve(self, address)
    if state.timeout == 0.0:
        Raw.connect(self, address)
        return
    error = _start_connecting(self, state, address)
    if error == errno.EINPROGRESS:
        blocking(self, state, state.writing, 0, _connected, address)
    elif error:
        raise OSError(error, os.strerror(error))


def connect_ex(self: Any, address: Any, /) -> int:
    """As `socket.connect_ex`: the errno instead of an exception of the connection itself; EAGAIN for a timeout."""
    state = state_of(self)
    address = resolve(self, address)
    if state.timeout == 0.0:
        return Raw.connect_ex(self, address)
    try:
        error = _start_connecting(self, state, address)
        if error == errno.EINPROGRESS:
            blocking(self, state, state.writing, 0, _connected, address)
            return 0
    except ClosedError:
        raise
    except TimeoutError as timeout:
        return timeout.errno or errno.EAGAIN
    except OSError as failed:
        return failed.errno or errno.EIO
    return error


def _start_connecting(sock: Any, state: State, address: Any) -> int:
    seen = state.writing.edges
    error = Raw.connect_ex(sock, address)
    if error == errno.EINPROGRESS:
        state.writing.drained = seen  # nothing to ask before the kernel says so
    elif error == errno.EAGAIN and Raw.family.__get__(sock) == AF_UNIX:
        # A full backlog. The kernel reports one edge at once and none when there is room.
        by_the_clock(sock, state, BlockingIOError, Raw.connect, address)
        return 0
    return error


def _connected(sock: Any, address: Any) -> None:
    """Has the attempt ended? Raises its error; BlockingIOError if it has not (an event is only a hint)."""
    if sys.platform == "linux":
        error = Raw.connect_ex(sock, address)
    else:
        error = Raw.getsockopt(sock, SOL_SOCKET, SO_ERROR)
        if not error:
            try:
                Raw.getpeername(sock)
            except OSError as unconnected:
                error = unconnected.errno or errno.EIO
    if error in (errno.EALREADY, errno.EINPROGRESS, errno.ENOTCONN):
        raise BlockingIOError(errno.EINPROGRESS, os.strerror(errno.EINPROGRESS))
    if error and error != errno.EISCONN:
        raise OSError(error, os.strerror(error))
