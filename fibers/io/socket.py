"""A drop-in for the standard `socket` module whose operations suspend only the fiber that calls them.

    from fibers.io import socket

Everything the standard module exports is here. Replaced are the class, the functions that make sockets, and the
functions that look names up. A socket that was made by the standard class is not touched.

Differences. The file is always non-blocking underneath, also after `detach()`. A socket belongs to the loop of the
thread in which it last waited; see OwnershipError. `close()` wakes every fiber that waits on the socket: it gets
ClosedError, an OSError with EBADF.
"""

# Names that the star brings in are defined again below: that is what a drop-in does.
# mypy: disable-error-code="no-redef, assignment, misc"

import _socket
import errno
import operator
import os
import socket as std
from socket import *
from socket import EAGAIN, EBADF, EWOULDBLOCK, AddressInfo, MsgFlag, SocketIO  # noqa: F401 - public, but not starred
from stat import S_ISREG
from typing import Any, Self

from ..channels.readiness import finders
from ..core.scheduler import check_seconds
from ..errors import ClosedError, OwnershipError
from ..eventloop import READ, Direction, EventLoop, ownership
from . import connecting, operations
from . import state as _state
from .names import (  # noqa: F401
    getaddrinfo,
    getfqdn,
    gethostbyaddr,
    gethostbyname,
    gethostbyname_ex,
    getnameinfo,
    getprotobyname,
    getservbyname,
    getservbyport,
)
from .state import adopt, state_of

__all__ = [*std.__all__, "fromshare"] if hasattr(std, "fromshare") else [*std.__all__]

_Raw = _socket.socket


class socket(std.socket):  # noqa: N801
    """As `socket.socket`; the operations suspend the fiber."""

    __slots__ = ()

    recv = operations.recv
    recv_into = operations.recv_into
    recvfrom = operations.recvfrom
    recvfrom_into = operations.recvfrom_into
    recvmsg = operations.recvmsg
    recvmsg_into = operations.recvmsg_into
    send = operations.send
    sendall = operations.sendall
    sendto = operations.sendto
    sendmsg = operations.sendmsg
    bind = connecting.bind
    connect = connecting.connect
    connect_ex = connecting.connect_ex

    def accept(self) -> tuple["socket", Any]:
        """As `socket.accept`."""
        fd, address = operations.accept(self)
        connection = socket(_Raw.family.__get__(self), _Raw.type.__get__(self), _Raw.proto.__get__(self), fileno=fd)
        state = adopt(connection, fresh=True)
        state.timeout = std.getdefaulttimeout()
        return connection, address

    def settimeout(self, value: float | None, /) -> None:
        """As `socket.settimeout`: None waits for ever, 0 never, else seconds."""
        _open_state(self).timeout = None if value is None else float(check_seconds("timeout", value))

    def gettimeout(self) -> float | None:
        """The timeout in seconds, or None."""
        return state_of(self).timeout

    timeout = property(gettimeout)

    def setblocking(self, flag: bool, /) -> None:
        """As `socket.setblocking`."""
        _open_state(self).timeout = None if operator.index(flag) else 0.0

    def getblocking(self) -> bool:
        """True unless the timeout is 0."""
        return state_of(self).timeout != 0.0

    def dup(self) -> Self:
        """A second socket on the same open file, with an fd and a registration of its own."""
        return super().dup()

    def detach(self) -> int:
        """Close the socket object without closing its fd, which is returned. Who waits on it gets ClosedError."""
        self._closed = True
        return _state.detach(self)

    def _real_close(self, _ss: Any = None) -> None:
        _state.close(self)

    def _sendfile_use_sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        self._check_sendfile_params(file, offset, count)  # type: ignore[attr-defined]
        try:
            fd = file.fileno()
            regular = S_ISREG(os.fstat(fd).st_mode)
        except (AttributeError, OSError) as error:
            raise std._GiveupOnSendfile(error) from error  # type: ignore[attr-defined]
        if not regular:
            raise std._GiveupOnSendfile("not a regular file")  # type: ignore[attr-defined]
        if self.gettimeout() == 0:
            raise ValueError("non-blocking sockets are not supported")
        sent = 0
        try:
            sent = operations.sendfile(self, fd, offset, count)
        except OSError as error:
            sent = getattr(error, "bytes_sent", 0)
            if not sent and error.errno in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSOCK):
                raise std._GiveupOnSendfile(error) from error  # type: ignore[attr-defined]
            raise
        finally:
            if sent and hasattr(file, "seek"):
                file.seek(offset + sent)
        return sent


SocketType = socket


def _observed(file: Any, interest: int, loop: EventLoop) -> Direction | None:
    """For `readable` and `writable`: the direction of a socket of ours. None also if it has to be borrowed."""
    state = _state.states.get(id(file))
    if state is None:
        if not isinstance(file, socket):
            return None
        state = adopt(file)
    direction = state.reading if interest == READ else state.writing
    if direction.loop is loop and not direction.closed:
        return direction
    try:
        return _state.claim(state, direction, loop)
    except OwnershipError:  # another thread waits for it at this moment
        if ownership.STRICT:
            raise
        return None


finders.append(_observed)


def _open_state(sock: socket) -> _state.State:
    state = state_of(sock)
    if state.handle.closed:
        raise ClosedError("this socket is closed")
    return state


def _take(made: _socket.socket) -> socket:
    """A socket of ours over the fd of another one, which loses it."""
    timeout = made.gettimeout()
    mine = socket(made.family, made.type, made.proto, made.detach())
    adopt(mine, fresh=True).timeout = timeout
    return mine


def socketpair(family: int | None = None, type: int = SOCK_STREAM, proto: int = 0) -> tuple[socket, socket]:
    """As `socket.socketpair`."""
    left, right = _socket.socketpair(AF_UNIX if family is None else family, type, proto)
    return _take(left), _take(right)


def fromfd(fd: int, family: int, type: int, proto: int = 0) -> socket:
    """As `socket.fromfd`: a socket on a duplicate of `fd`."""
    return _take(std.fromfd(fd, family, type, proto))


_GLOBAL_DEFAULT_TIMEOUT = std._GLOBAL_DEFAULT_TIMEOUT  # type: ignore[attr-defined]


def create_connection(
    address: tuple[str | None, int],
    timeout: Any = _GLOBAL_DEFAULT_TIMEOUT,
    source_address: Any = None,
    *,
    all_errors: bool = False,
) -> socket:
    """As `socket.create_connection`: try the addresses of a host in turn, `timeout` seconds for each."""
    host, port = address
    errors: list[OSError] = []
    for family, kind, proto, _, target in getaddrinfo(host, port, 0, SOCK_STREAM):
        sock = None
        try:
            sock = socket(family, kind, proto)
            if timeout is not _GLOBAL_DEFAULT_TIMEOUT:
                sock.settimeout(timeout)
            if source_address:
                sock.bind(source_address)
            sock.connect(target)
        except OSError as error:
            if sock is not None:
                sock.close()
            if not all_errors:
                errors.clear()
            errors.append(error)
        except BaseException:
            if sock is not None:
                sock.close()
            raise
        else:
            return sock
    try:
        if not errors:
            raise OSError(f"getaddrinfo found no address for {host!r}")
        if all_errors:
            raise ExceptionGroup("create_connection failed", errors)
        raise errors[0]
    finally:
        errors.clear()  # their tracebacks refer to this frame


def create_server(
    address: Any,
    *,
    family: int = AF_INET,
    backlog: int | None = None,
    reuse_port: bool = False,
    dualstack_ipv6: bool = False,
) -> socket:
    """As `socket.create_server`. A host name is looked up without blocking the thread."""
    if family in (AF_INET, AF_INET6) and isinstance(address, tuple) and address and address[0]:
        address = (getaddrinfo(address[0], None, family, SOCK_STREAM)[0][4][0], *address[1:])
    return _take(
        std.create_server(address, family=family, backlog=backlog, reuse_port=reuse_port, dualstack_ipv6=dualstack_ipv6)
    )
