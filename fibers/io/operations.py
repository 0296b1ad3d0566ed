"""The socket operations that wait, as functions over any `socket.socket`. (Connecting is in connecting.py.)

They are bound to the methods of the C type, so that a class whose methods they replace can be patched without recursion.
How they wait is in waiting.py; `recv`, on which everything turns, has it written out.
"""

import os
from _socket import MSG_DONTWAIT, MSG_PEEK, MSG_WAITALL, SOCK_STREAM
from _socket import socket as Raw  # noqa: N812
from collections.abc import Callable
from socket import AF_UNIX
from typing import Any, Final

from ..core.cancel import surface, unsurface
from ..core.runtime import current
from ..core.scheduler import state as thread
from ..errors import Cancelled, ClosedError
from ..eventloop import CALLING, FOREVER
from .names import resolve
from .state import CREDIT, State, adopt, claim, empty, state_of, states
from .waiting import blocking, by_the_clock, give_way, perform

_recv: Final = Raw.recv
_send: Final = Raw.send

#: Bytes given to one `os.sendfile`.
SENDFILE_SIZE: Final = 1 << 20


# -- receiving ----------------------------------------------------------------------------------------------------


def recv(self: Any, bufsize: int, flags: int = 0, /) -> bytes:
    """As `socket.recv`."""
    # `perform` and the plainest case of `blocking` (own loop, armed, no timeout), written out: this is the hot path.
    try:
        state = states[id(self)]
    except KeyError:
        state = adopt(self)
    direction = state.reading
    if flags or direction.holder is not None:
        return _recv_flags(self, state, bufsize, flags)
    direction.holder = CALLING
    try:
        seen = direction.edges
        if seen != direction.drained:
            try:
                data = _recv(self, bufsize)
            except BlockingIOError:
                direction.drained = seen
            else:
                if len(data) < bufsize and not direction.hangup and (state.shortcut is True or empty(state)):
                    direction.drained = seen
                state.credit -= 1
                if state.credit < 0:
                    give_way(state)
                return data
        scheduler = thread.scheduler
        if scheduler is not None and state.timeout is None and direction.armed and direction.loop is scheduler.loop:
            me = scheduler.current
            if me is not None and direction.edges == direction.drained and bufsize > 0:
                direction.holder = direction.waiter = me
                me.deadline = FOREVER
                state.credit = CREDIT
                try:
                    while True:
                        scheduler.park(me, direction)
                        if direction.closed:
                            claim(state, direction, scheduler.loop)  # raises ClosedError, or it has moved
                            break
                        seen = direction.edges
                        try:
                            data = _recv(self, bufsize)
                        except BlockingIOError:  # a spurious wake-up; the turn is kept
                            direction.drained = seen
                            direction.waiter = me
                            if not (direction.armed or scheduler.watch(me, direction, FOREVER)):
                                break
                            continue
                        if len(data) < bufsize and not direction.hangup and (state.shortcut is True or empty(state)):
                            direction.drained = seen
                        return data
                except Cancelled:
                    surface(me)
                    raise
                finally:
                    direction.waiter = None
                    if direction.queue:
                        direction.release()
                    else:
                        direction.holder = None
    finally:
        if direction.holder is CALLING:
            direction.holder = None
    if bufsize <= 0:
        return _recv(self, bufsize)
    return blocking(self, state, state.reading, bufsize, _recv, bufsize)  # type: ignore[no-any-return]


def _recv_flags(sock: Any, state: State, bufsize: int, flags: int) -> bytes:
    if bufsize <= 0 or flags & MSG_DONTWAIT:
        return _recv(sock, bufsize, flags)
    if flags & MSG_WAITALL and not flags & MSG_PEEK:
        buffer = bytearray(bufsize)
        return bytes(buffer[: _fill(sock, state, memoryview(buffer), flags)])
    return perform(sock, state, state.reading, 0, _recv, bufsize, flags)  # type: ignore[no-any-return]


def _fill(sock: Any, state: State, buffer: memoryview, flags: int) -> int:
    """MSG_WAITALL, which the kernel heeds in blocking mode only: receive until the buffer is full or the data ends.

    One operation, holding the turn. As in the kernel, what ends it early (a timeout, an error, a cancellation) is
    reported by the next call if something has been received: that is not thrown away.
    """
    received = 0

    def fill(sock: Any) -> None:
        nonlocal received
        while received < len(buffer):
            count = Raw.recv_into(sock, buffer[received:], 0, flags)
            if not count:
                return
            received += count

    try:
        perform(sock, state, state.reading, 0, fill)
    except BaseException as error:
        if not received:
            raise
        if not isinstance(error, OSError | Cancelled):
            current().kill(error)  # a one-shot exception comes again at the next wait
        unsurface(current(), error)
    return received


def recv_into(self: Any, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
    """As `socket.recv_into`."""
    if flags & MSG_DONTWAIT:
        return Raw.recv_into(self, buffer, nbytes, flags)
    size = 0 if flags else nbytes or memoryview(buffer).nbytes
    if size < 0 or not (nbytes or memoryview(buffer).nbytes):
        return Raw.recv_into(self, buffer, nbytes, flags)  # an error, or nothing to do: neither waits
    state = state_of(self)
    if flags & MSG_WAITALL and not flags & MSG_PEEK:
        view = memoryview(buffer).cast("B")
        return _fill(self, state, view[:nbytes] if nbytes else view, flags)
    return perform(self, state, state.reading, size, Raw.recv_into, buffer, nbytes, flags)  # type: ignore[no-any-return]


def _reader(call: Callable[..., Any], flags_at: int) -> Callable[..., Any]:
    """A receiving operation without the shortcut; `flags_at` is where its flags stand among the arguments."""

    def operation(self: Any, *args: Any) -> Any:
        if len(args) > flags_at and args[flags_at] & MSG_DONTWAIT:
            return call(self, *args)
        state = state_of(self)
        return perform(self, state, state.reading, 0, call, *args)

    operation.__name__ = call.__name__
    operation.__doc__ = f"As `socket.{call.__name__}`."
    return operation


recvfrom: Final = _reader(Raw.recvfrom, 1)
recvmsg: Final = _reader(Raw.recvmsg, 2)
recvmsg_into: Final = _reader(Raw.recvmsg_into, 2)


def recvfrom_into(self: Any, buffer: Any, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
    """As `socket.recvfrom_into`."""
    if flags & MSG_DONTWAIT:
        return Raw.recvfrom_into(self, buffer, nbytes, flags)
    state = state_of(self)
    return perform(self, state, state.reading, 0, Raw.recvfrom_into, buffer, nbytes, flags)  # type: ignore[no-any-return]


def accept(self: Any) -> tuple[int, Any]:
    """The new connection's fd and the peer's address. (`socket.accept` makes a socket of the fd.)"""
    state = state_of(self)
    return perform(self, state, state.reading, 0, Raw._accept)  # type: ignore[attr-defined, no-any-return]


def recv_now(sock: Any, size: int) -> bytes | None:
    """Receive at most `size` (> 0) bytes without waiting, whatever the timeout: b"" at the end, None if there is nothing.

    None means that the latch is closed: the next edge tells when it is worth trying again. None also while a fiber is
    reading from the socket.
    """
    state = state_of(sock)
    direction = state.reading
    if direction.closed:
        raise ClosedError("this socket is closed")
    if (direction.holder is not None and direction.holder is not CALLING) or (
        direction.edges == direction.drained and direction.armed
    ):
        return None
    seen = direction.edges
    direction.holder = CALLING
    try:
        data = _recv(sock, size)
    except BlockingIOError:
        direction.drained = seen
        return None
    finally:
        if direction.holder is CALLING:
            direction.holder = None
    if len(data) < size and not direction.hangup and (state.shortcut is True or empty(state)):
        direction.drained = seen
    return data


# -- sending ------------------------------------------------------------------------------------------------------


def send(self: Any, data: Any, flags: int = 0, /) -> int:
    """As `socket.send`."""
    if flags & MSG_DONTWAIT:
        return _send(self, data, flags)
    state = state_of(self)
    return perform(self, state, state.writing, 0, _send, data, flags)  # type: ignore[no-any-return]


def sendall(self: Any, data: Any, flags: int = 0, /) -> None:
    """As `socket.sendall`. The turn is kept until all is sent, so that two fibers never interleave their bytes.

    If it is interrupted or times out, the exception has an attribute `bytes_sent`.
    """
    try:
        state = states[id(self)]
    except KeyError:
        state = adopt(self)
    direction = state.writing
    sent = -1
    if direction.holder is None and direction.edges != direction.drained and not flags:
        direction.holder = CALLING
        seen = direction.edges
        try:
            sent = _send(self, data)
        except BlockingIOError:
            direction.drained = seen
        else:
            if data.__class__ is bytes and sent == len(data):
                state.credit -= 1
                if state.credit < 0:
                    give_way(state)
                return
        finally:
            if direction.holder is CALLING:
                direction.holder = None
    view = memoryview(data).cast("B")
    if sent < len(view):
        _send_rest(self, state, view, max(sent, 0), flags)


def send_now(sock: Any, data: Any) -> int:
    """Send what the kernel takes at once, whatever the timeout; how many bytes that were. 0 also while a fiber sends."""
    state = state_of(sock)
    direction = state.writing
    if direction.closed:
        raise ClosedError("this socket is closed")
    if (direction.holder is not None and direction.holder is not CALLING) or (
        direction.edges == direction.drained and direction.armed
    ):
        return 0
    seen = direction.edges
    direction.holder = CALLING
    try:
        return _send(sock, data)
    except BlockingIOError:
        direction.drained = seen
        return 0
    finally:
        if direction.holder is CALLING:
            direction.holder = None


def _send_rest(sock: Any, state: State, data: memoryview, sent: int, flags: int) -> None:
    if flags & MSG_DONTWAIT or state.timeout == 0.0:
        Raw.sendall(sock, data[sent:], flags)
        return

    def push(sock: Any) -> None:
        nonlocal sent
        while True:  # at least once: also nothing has to be sent to somewhere
            sent += _send(sock, data[sent:], flags)
            if sent >= len(data):
                return

    try:
        perform(sock, state, state.writing, 0, push)
    except BaseException as error:
        if hasattr(error, "__dict__"):
            error.bytes_sent = sent  # type: ignore[attr-defined]
        raise


def sendto(self: Any, data: Any, *args: Any) -> int:
    """As `socket.sendto(data, [flags,] address)`. Host names are looked up without blocking the thread."""
    if args:
        args = (*args[:-1], resolve(self, args[-1]))
    if len(args) > 1 and args[0] & MSG_DONTWAIT:
        return Raw.sendto(self, data, *args)
    state = state_of(self)
    return _patiently(self, state, Raw.sendto, data, *args)  # type: ignore[no-any-return]


def sendmsg(self: Any, buffers: Any, ancdata: Any = (), flags: int = 0, address: Any = None) -> int:
    """As `socket.sendmsg`."""
    buffers, ancdata = list(buffers), list(ancdata)  # iterators would be empty at the second try
    args = (buffers, ancdata, flags) if address is None else (buffers, ancdata, flags, resolve(self, address))
    if flags & MSG_DONTWAIT:
        return Raw.sendmsg(self, *args)
    state = state_of(self)
    return _patiently(self, state, Raw.sendmsg, *args)  # type: ignore[no-any-return]


def _patiently(sock: Any, state: State, call: Callable[..., Any], *args: Any) -> Any:
    """Send a datagram. An unconnected unix one to a full queue would block with no edge to come: by the clock, then."""
    if Raw.family.__get__(sock) != AF_UNIX or Raw.type.__get__(sock) == SOCK_STREAM or state.timeout == 0.0:
        return perform(sock, state, state.writing, 0, call, *args)
    return by_the_clock(sock, state, BlockingIOError, call, *args)


def sendfile(sock: Any, fd: int, offset: int, count: int | None) -> int:
    """Send from a regular file with `os.sendfile` until its end or `count` bytes; how many went out."""
    state = state_of(sock)
    sent = 0

    def push(sock: Any) -> None:
        nonlocal sent
        out = Raw.fileno(sock)
        while count is None or sent < count:
            size = SENDFILE_SIZE if count is None else min(SENDFILE_SIZE, count - sent)
            done = os.sendfile(out, fd, offset + sent, size)
            if not done:
                return
            sent += done

    try:
        perform(sock, state, state.writing, 0, push)
    except BaseException as error:
        if hasattr(error, "__dict__"):
            error.bytes_sent = sent  # type: ignore[attr-defined]
        raise
    return sent
