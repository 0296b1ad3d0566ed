"""How a TLS socket begins and ends: made of another socket, connected, accepted, closed. Functions over `ssl.SSLSocket`.

A wrapped socket gives its fd to the new object, and with it all that its loop knows of the file: a connection is
registered once, also if it starts in plain text and goes on in TLS.

The attributes that the standard class keeps in its instances are set as it sets them: its own properties and methods
(`session`, `getpeercert` …) go on working on them.
"""

import errno
import socket as std_socket
from _socket import SO_TYPE, SOCK_STREAM, SOL_SOCKET
from _socket import socket as Raw  # noqa: N812
from ssl import SSLError, SSLSocket
from typing import Any

from ..core.scheduler import state as thread
from ..eventloop import Handle
from . import connecting, operations
from . import state as _state
from .state import adopt, enter, hand_over, shortcut_of, states
from .tls import TlsState
from .tls_handshake import do_handshake


def create(
    cls: type[SSLSocket],
    sock: Any,
    server_side: bool = False,
    do_handshake_on_connect: bool = True,
    suppress_ragged_eofs: bool = True,
    server_hostname: str | None = None,
    context: Any = None,
    session: Any = None,
) -> SSLSocket:
    """What `SSLContext.wrap_socket` calls. Any stream socket is taken, and loses its fd; see there for the arguments."""
    if sock.getsockopt(SOL_SOCKET, SO_TYPE) != SOCK_STREAM:
        raise NotImplementedError("only stream sockets are supported")
    if server_side and server_hostname:
        raise ValueError("server_hostname can only be specified in client mode")
    if server_side and session is not None:
        raise ValueError("session can only be specified in client mode")
    if context.check_hostname and not server_hostname:
        raise ValueError("check_hostname requires server_hostname")
    self: Any = _take_over(cls, sock)
    try:
        self._context = context
        self._session = session
        self._closed = False
        self._sslobj = None
        self.server_side = server_side
        self.server_hostname = context._encode_hostname(server_hostname)  # a bad one ends both sockets, as ever
        self.do_handshake_on_connect = do_handshake_on_connect
        self.suppress_ragged_eofs = suppress_ragged_eofs
        self._connected = _is_connected(self)
        if self._connected:
            _start_tls(self)
            if do_handshake_on_connect:
                if states[id(self)].timeout == 0.0:
                    raise ValueError("do_handshake_on_connect should not be specified for non-blocking sockets")
                do_handshake(self)
    except BaseException:
        self.close()
        raise
    return self  # type: ignore[no-any-return]


def _take_over(cls: type[SSLSocket], sock: Any) -> SSLSocket:
    """An SSL socket on the fd of `sock`, which loses it."""
    old = states.get(id(sock))
    timeout = sock.gettimeout() if old is None else old.timeout
    self = cls.__new__(cls)
    std_socket.socket.__init__(self, sock.family, sock.type, sock.proto, sock.fileno())
    handle = hand_over(sock)
    if handle is not None:
        Raw.detach(sock)
        sock._closed = True
    else:
        sock.detach()
        scheduler = thread.scheduler
        fd = Raw.fileno(self)
        known = scheduler is not None and not scheduler.closed
        handle = scheduler.loop.handle(fd, False) if known else Handle(fd, None)  # type: ignore[union-attr]
    Raw.settimeout(self, 0.0)
    enter(TlsState(self, handle, timeout, shortcut_of(self)))
    return self


def _is_connected(sock: Any) -> bool:
    try:
        Raw.getpeername(sock)
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise
    else:
        return True
    # Not connected, or not any more: what came in before an end must not pass for data that came through TLS.
    try:
        early = Raw.recv(sock, 1)
    except OSError as error:
        if error.errno not in (errno.ENOTCONN, errno.EINVAL, errno.EAGAIN):
            raise
        return False
    if early:
        reason = "Closed before TLS handshake with data in recv buffer."
        failure = SSLError(errno.ENOTCONN, reason)
        failure.reason = reason
        failure.library = None  # type: ignore[assignment]
        raise failure
    return False


def _start_tls(sock: Any) -> None:
    """Make the SSL object; the handshake is still to come."""
    state = states[id(sock)]
    assert isinstance(state, TlsState)
    sock._sslobj = state.sslobj = sock._context._wrap_bio(
        state.incoming,
        state.outgoing,
        sock.server_side,
        sock.server_hostname,
        owner=sock,
        session=sock._session,
    )


def _connect(sock: Any, address: Any, ex: bool) -> int:
    if sock.server_side:
        raise ValueError("can't connect in server-side mode")
    if sock._connected or sock._sslobj is not None:
        raise ValueError("attempt to connect already-connected SSLSocket!")
    _start_tls(sock)
    try:
        error = 0
        if ex:
            error = connecting.connect_ex(sock, address)
        else:
            connecting.connect(sock, address)
        if not error:
            sock._connected = True
            if sock.do_handshake_on_connect:
                do_handshake(sock)
    except BaseException:
        forget(sock)
        raise
    return error


def connect(self: Any, addr: Any) -> None:
    """As `SSLSocket.connect`: connect, then make the handshake."""
    _connect(self, addr, False)


def connect_ex(self: Any, addr: Any) -> int:
    """As `SSLSocket.connect_ex`."""
    return _connect(self, addr, True)


def forget(sock: Any) -> None:
    """There is no TLS on this socket any more."""
    sock._sslobj = None
    state = states.get(id(sock))
    if isinstance(state, TlsState):
        state.sslobj = None
        state.secure = False


def accept(self: Any) -> tuple[Any, Any]:
    """As `SSLSocket.accept`: the new connection is wrapped as the listener is, with its handshake made."""
    fd, address = operations.accept(self)
    plain = std_socket.socket(Raw.family.__get__(self), Raw.type.__get__(self), Raw.proto.__get__(self), fileno=fd)
    adopt(plain, fresh=True).timeout = std_socket.getdefaulttimeout()
    try:
        connection = create(
            type(self),
            plain,
            server_side=True,
            do_handshake_on_connect=self.do_handshake_on_connect,
            suppress_ragged_eofs=self.suppress_ragged_eofs,
            context=self._context,
        )
    except BaseException:
        plain.close()
        raise
    return connection, address


def shutdown(self: Any, how: int) -> None:
    """As `SSLSocket.shutdown`: of the socket below, without a word to the peer's TLS. See `unwrap` and `send_eof`."""
    forget(self)
    Raw.shutdown(self, how)


def real_close(self: Any, _ss: Any = None) -> None:
    """What `close()` comes to: who waits on the socket gets ClosedError."""
    forget(self)
    _state.close(self)
