"""TLS sockets that somebody made with the standard library before ours took its place: OpenSSL reads their file itself.

CPython tells by SSLWantReadError and SSLWantWriteError what OpenSSL lacks, if the timeout in the C object is 0, as it is
from the first of our operations on. So: try, wait for the direction that it names, try again. OpenSSL may hold data that
the kernel has given away, so that the latch proves nothing here, and a read always tries first.
"""

import errno
import select
from collections.abc import Callable
from ssl import SSLWantReadError, SSLWantWriteError
from typing import Any

from .state import State, state_of
from .waiting import deadline_after, until


class _OtherDirection(Exception):
    """Reading has to write, or the other way round."""


def read(sock: Any, size: int, buffer: Any) -> Any:
    """`_SSLSocket.read`, waiting."""
    args = (size,) if buffer is None else (size, buffer)
    return _call(sock, True, sock._sslobj.read, *args)


def write(sock: Any, data: Any) -> int:
    """`_SSLSocket.write`, waiting."""
    return _call(sock, False, sock._sslobj.write, data)  # type: ignore[no-any-return]


def do_handshake(sock: Any) -> None:
    """`_SSLSocket.do_handshake`, waiting."""
    _call(sock, True, sock._sslobj.do_handshake)


def shutdown(sock: Any) -> Any:
    """`_SSLSocket.shutdown`, waiting."""
    return _call(sock, True, sock._sslobj.shutdown)


def _call(sock: Any, reading: bool, method: Callable[..., Any], *args: Any) -> Any:
    state = state_of(sock)
    if state.timeout == 0.0:
        return method(*args)
    deadline = deadline_after(state.timeout)
    while True:
        direction = state.reading if reading else state.writing
        if reading and not direction.closed:
            direction.drained = -1
        try:
            return until(deadline, sock, state, direction, 0, _attempt, reading, method, *args)
        except _OtherDirection:
            _await(deadline, sock, state, not reading)


def _attempt(sock: Any, reading: bool, method: Callable[..., Any], *args: Any) -> Any:
    try:
        return method(*args)
    except SSLWantReadError as error:
        wanted, cause = True, error
    except SSLWantWriteError as error:
        wanted, cause = False, error  # type: ignore[assignment]
    if wanted is reading:
        raise BlockingIOError(errno.EAGAIN, cause.args[1])
    raise _OtherDirection


def _await(deadline: float, sock: Any, state: State, reading: bool) -> None:
    events = select.POLLIN if reading else select.POLLOUT
    until(deadline, sock, state, state.reading if reading else state.writing, 0, _ready, events)


def _ready(sock: Any, events: int) -> None:
    look = select.poll()
    look.register(sock.fileno(), events)
    if not look.poll(0):
        raise BlockingIOError(errno.EAGAIN, "not ready")
