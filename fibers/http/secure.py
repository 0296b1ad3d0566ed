"""A connection over TLS: the same as one without, but for the way bytes go in and out.

* The handshake begins when the client has said something, in a fiber of the connection, and has its own time; so whoever
  connects and says nothing costs no fiber, and an acceptor never waits for anybody.
* What the kernel does not take of a record waits in the socket (`unsent`): a response has gone out when that is empty, too.
* At the end TLS says so (close_notify), if that can be said at once: it tells a client that nothing was cut off.
"""

import logging
from _socket import socket as Raw  # noqa: N812
from socket import MSG_DONTWAIT, MSG_PEEK
from ssl import SSLError
from typing import Any, ClassVar, Final

from ..errors import ClosedError
from ..io.operations import recv_now
from ..io.state import state_of
from ..io.tls import TlsState, exclusive
from ..io.tls_operations import read_now, unsent, write_now
from ..io.waiting import stand_by
from .census import TLS
from .connection import Connection
from .errors import ClientGoneError
from .filepart import FilePart
from .line import RECEIVE

_log: Final = logging.getLogger("fibers.http")

#: Bytes that a client must take some of in the write timeout.
PIECE: Final = 65_536


class SecureConnection(Connection):
    """See the module's text. The hub's `secure` gives the context."""

    __slots__ = ("_lead",)

    scheme: ClassVar[str] = "https"
    receive_now = staticmethod(read_now)

    def __init__(self, hub: Any, sock: Any, address: Any) -> None:
        super().__init__(hub, sock, address)
        self._lead, self._new = self._new, True

    def _open(self) -> bool:
        if self._lead:
            if not super()._open():
                return False
            self._lead, self._new = False, True
        while not self._data:
            received = recv_now(self.sock, RECEIVE)
            if received:
                self._data = received
            elif received is not None:
                self.drop()
                return False
            elif stand_by(self._io, self._io.reading, self):
                return False
        return self._shake_hands()

    def _shake_hands(self) -> bool:
        hub = self._hub
        assert hub.secure is not None
        hub.census.change(self, TLS)
        early, self._data = bytes(self._data), b""
        try:
            wrapped = hub.secure().wrap_socket(self.sock, server_side=True, do_handshake_on_connect=False)
            self.sock = wrapped
            state = self._io = state_of(self.sock)
            assert isinstance(state, TlsState)
            state.feed(early)
            state.timeout = None  # the books have the time
            wrapped.do_handshake()
        except (OSError, ValueError) as error:
            if not isinstance(error, ClosedError):
                _log.info("no TLS with %s: %s", self.address, error)
            self.drop()
            return False
        state.timeout = hub.settings.body_timeout
        self._new = False
        return True

    def send(self, parts: list[bytes], last: bool) -> None:
        try:
            if self._left is None:
                data = parts[0] if len(parts) == 1 else b"".join(parts)
                taken = write_now(self.sock, data)
                if taken == len(data) and not unsent(self.sock):
                    return
                self._left = [memoryview(data)[taken:]]
            else:
                self._left += [memoryview(part) for part in parts]
            if not last:
                self._send_left()
        except (ConnectionError, SSLError) as error:
            self.throw_away()
            raise ClientGoneError(f"the client is gone: {error}") from error

    def _send_all(self, part: memoryview) -> None:
        self.sock.sendall(part[:PIECE])  # also of nothing: there may be something of a record
        for at in range(PIECE, len(part), PIECE):
            self.sock.sendall(part[at : at + PIECE])

    def _write_some(self, left: list[memoryview | FilePart]) -> bool:
        part = left[0]
        data = part.peek() if isinstance(part, FilePart) else part
        before = unsent(self.sock)
        taken = write_now(self.sock, data)
        after = unsent(self.sock)
        if isinstance(part, FilePart):
            part.skip(taken)
            if not part.left and not after:
                part.close()
                del left[0]
            elif not part.left:
                part.close()
                left[0] = memoryview(b"")
        elif taken == len(data) and not after:
            del left[0]
        else:
            left[0] = part[taken:]
        return bool(taken) or before != after

    def quiet(self) -> bool:
        state = self._io
        if isinstance(state, TlsState) and state.buffered():
            return False
        try:
            return not Raw.recv(self.sock, 1, MSG_PEEK | MSG_DONTWAIT)
        except BlockingIOError:
            return True

    def _say_goodbye(self) -> None:
        state = self._io
        if isinstance(state, TlsState) and state.secure:
            try:
                exclusive(state, state.close_output, self.sock)
            except (OSError, ValueError):
                return  # it is not taken now, or the connection is broken
