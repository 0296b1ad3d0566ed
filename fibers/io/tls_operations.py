"""The operations of a TLS socket that wait, as functions over any `ssl.SSLSocket`.

Nothing here calls a method that it could replace, so that a class whose methods are these can be the standard one. What
happens inside an operation is in tls.py; how it waits is in waiting.py.

A read is one operation in the turn of the reading direction, a write one in the turn of the writing direction; so one
fiber reads while another writes, and several of either queue. What has two directions in it (a handshake, `unwrap`)
holds the turn of reading, and pushes what it has to send as any step does.

A write that ends early. Records are not torn: what was encrypted stands in the queue of ciphertext and goes out ahead of
whatever comes next. What does that mean for who called?

* `sendall`: the exception's `bytes_sent` says how many bytes are on their way; go on with the rest, or with other data.
* `send` and `write` return nothing, so OpenSSL's contract holds: repeat the call with the same data, and it goes on where
  it was. Other data gets the SSLError that it gets there (BAD_WRITE_RETRY); OpenSSL itself would not notice all of them.
"""

from _socket import MSG_PEEK
from ssl import SSL_ERROR_EOF, SSL_ERROR_SSL, SSLError, SSLWantReadError
from typing import Any
from zlib import crc32

from ..core.scheduler import state as thread
from ..errors import ClosedError
from ..eventloop import CALLING
from . import operations, tls_bound
from .state import State, states
from .tls import CHUNK, OutputBlocked, TlsState, exclusive
from .tls_handshake import (
    READ_LATE,
    WRITE_LATE,
    flush_turn,
    late,
    negotiate,
    ssl_of,
    tls_of,
    want_read,
    want_write,
)
from .tls_handshake import unsent as unsent  # offered here, too
from .waiting import deadline_after, perform, until

# -- reading ----------------------------------------------------------------------------------------------------------


def recv(self: Any, buflen: int = 1024, flags: int = 0) -> bytes:
    """As `SSLSocket.recv`."""
    state = states.get(id(self))
    if state.__class__ is not TlsState or state.sslobj is None:
        if self._sslobj is None:
            return _plain(self, state, buflen, flags) or operations.recv(self, buflen, flags)
        return read(self, buflen)  # type: ignore[no-any-return]
    if flags:
        raise ValueError(f"non-zero flags not allowed in calls to recv() on {self.__class__}")
    return _read(self, state, buflen, None)  # type: ignore[no-any-return]


def recv_into(self: Any, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
    """As `SSLSocket.recv_into`."""
    if not nbytes:
        nbytes = 1024 if buffer is None else memoryview(buffer).nbytes or 1024
    if self._sslobj is None:
        if data := _plain(self, states.get(id(self)), nbytes, flags):
            memoryview(buffer).cast("B")[: len(data)] = data
            return len(data)
        return operations.recv_into(self, buffer, nbytes, flags)
    if flags:
        raise ValueError(f"non-zero flags not allowed in calls to recv_into() on {self.__class__}")
    return read(self, nbytes, buffer)  # type: ignore[no-any-return]


def _plain(sock: Any, state: State | None, size: int, flags: int) -> bytes:
    """What came in behind the end of TLS, and was received with it: it comes before all that is still to be received."""
    if state.__class__ is not TlsState or not state.plain or size <= 0:
        return b""
    if flags & MSG_PEEK:
        return state.plain[:size]
    return exclusive(state, state.read, sock, size, None)  # type: ignore[no-any-return]


def read(self: Any, len: int = 1024, buffer: Any = None) -> Any:
    """As `SSLSocket.read`."""
    state = tls_of(self)
    if state is not None:
        return _read(self, state, len, buffer)
    if self._sslobj is None:
        raise ValueError("Read on closed or unwrapped SSL socket.")
    try:
        return tls_bound.read(self, len, buffer)
    except SSLError as error:
        return _at_end(self, error, buffer)
    except TimeoutError as error:
        raise late(error, READ_LATE) from None


def _read(sock: Any, state: TlsState, size: int, buffer: Any) -> Any:
    if buffer is not None:
        room = memoryview(buffer).nbytes
        size = min(size, room) if size > 0 else room  # as in C
    if size <= 0:
        return state.sslobj.read(size) if buffer is None else 0
    try:
        if state.secure:
            return perform(sock, state, state.reading, 0, _read_turn, state, size, buffer)
        return _read_slowly(sock, state, size, buffer)
    except OutputBlocked:
        return _retry_read(sock, state, size, buffer)
    except BlockingIOError:
        raise want_read() from None
    except SSLError as error:
        return _at_end(sock, error, buffer)
    except TimeoutError as error:
        raise late(error, READ_LATE) from None


def _read_turn(sock: Any, state: TlsState, size: int, buffer: Any) -> Any:
    # `exclusive`, written out for the case that nobody is in there.
    scheduler = thread.scheduler
    if scheduler is not None:
        me, scheduler.current = scheduler.current, None
        try:
            if state.lock.acquire(False):
                try:
                    return state.read(sock, size, buffer)
                finally:
                    state.lock.release()
        finally:
            scheduler.current = me
    return exclusive(state, state.read, sock, size, buffer)


def _retry_read(sock: Any, state: TlsState, size: int, buffer: Any) -> Any:
    try:
        return _read_slowly(sock, state, size, buffer)
    except BlockingIOError:
        raise want_read() from None
    except SSLError as error:
        return _at_end(sock, error, buffer)
    except TimeoutError as error:
        raise late(error, READ_LATE) from None


def _read_slowly(sock: Any, state: TlsState, size: int, buffer: Any) -> Any:
    """Read where a handshake may have to be made first, or something be written in between."""
    if state.timeout == 0.0:
        if not state.secure:
            negotiate(sock, state, None, ssl_of(state).do_handshake)
            state.secure = True
        try:
            return _read_turn(sock, state, size, buffer)
        except OutputBlocked:
            raise want_write() from None
    deadline = deadline_after(state.timeout)
    if not state.secure:
        negotiate(sock, state, deadline, ssl_of(state).do_handshake)
        state.secure = True
    while True:
        try:
            return until(deadline, sock, state, state.reading, 0, _read_turn, state, size, buffer)
        except OutputBlocked:
            until(deadline, sock, state, state.writing, 0, flush_turn, state)


def _at_end(sock: Any, error: SSLError, buffer: Any) -> Any:
    if error.args and error.args[0] == SSL_ERROR_EOF and sock.suppress_ragged_eofs:
        return b"" if buffer is None else 0
    raise error


def pending(self: Any) -> int:
    """How many bytes can be read at once, without waiting. Here that may be a record that has been received ahead."""
    state = tls_of(self)
    if state is not None:
        return exclusive(state, state.buffered)  # type: ignore[no-any-return]
    return 0 if self._sslobj is None else self._sslobj.pending()


def holds_data(sock: Any) -> bool:
    """Can something be read at once, the end of the data included, without asking the kernel?"""
    state = states.get(id(sock))
    if not isinstance(state, TlsState):
        return False
    return bool(state.plain) or (state.sslobj is not None and (exclusive(state, state.buffered) > 0 or state.ended))


# -- writing ----------------------------------------------------------------------------------------------------------


class _Sending:
    """A write under way: so much of the data has been encrypted."""

    __slots__ = ("data", "sent", "size", "state")

    def __init__(self, state: TlsState, data: Any) -> None:
        self.state = state
        self.data: Any = data if data.__class__ is bytes else memoryview(data).cast("B")
        self.size = len(self.data)
        self.sent = 0
        if state.begun is not None:
            self._resume(*state.begun)

    def _resume(self, count: int, checksum: int) -> None:
        if self.size < count or crc32(memoryview(self.data)[:count]) != checksum:
            raise SSLError(
                SSL_ERROR_SSL,
                f"[SSL: BAD_WRITE_RETRY] bad write retry: a send() of which {count} bytes are on their way has ended "
                f"early; it must be repeated with the same data, not with {self.size} other bytes",
            )
        self.sent = count
        self.state.begun = None

    def push(self, sock: Any) -> int:
        """Go on until everything is encrypted and sent. BlockingIOError if the kernel takes no more."""
        scheduler, state = thread.scheduler, self.state  # as in `_read_turn`
        if scheduler is not None:
            me, scheduler.current = scheduler.current, None
            try:
                if state.lock.acquire(False):
                    try:
                        return self._push(sock)
                    finally:
                        state.lock.release()
            finally:
                scheduler.current = me
        return exclusive(self.state, self._push, sock)  # type: ignore[no-any-return]

    def _push(self, sock: Any) -> int:
        state, size = self.state, self.size
        sslobj = state.sslobj
        if sslobj is None:
            raise ClosedError("the socket was closed, or is not a TLS socket any more")
        if state.rest:
            state.flush(sock)
        while self.sent < size:
            sent = self.sent
            data = self.data if size <= CHUNK and not sent else memoryview(self.data)[sent : sent + CHUNK]
            try:
                self.sent += sslobj.write(data)
            except SSLError:
                state.answer_if_possible(sock)  # an alert, or the begin of a handshake
                raise
            state.flush(sock)
        return size

    def interrupted(self, error: BaseException, repeat: bool) -> None:
        if repeat:
            if self.sent:
                self.state.begun = self.sent, crc32(memoryview(self.data)[: self.sent])
        elif hasattr(error, "__dict__"):
            error.bytes_sent = self.sent  # type: ignore[attr-defined]


def _write(sock: Any, state: TlsState, data: Any, repeat: bool) -> int:
    sending = _Sending(state, data)
    while True:
        try:
            if not state.secure:
                return _write_slowly(sock, state, sending)
            return perform(sock, state, state.writing, 0, sending.push)  # type: ignore[no-any-return]
        except SSLWantReadError as error:
            if state.timeout != 0.0:  # a renegotiation
                state.secure = False
                continue
            sending.interrupted(error, repeat)
            raise
        except BlockingIOError:
            blocked = want_write()
            sending.interrupted(blocked, repeat)
            raise blocked from None
        except TimeoutError as error:
            sending.interrupted(error, repeat)
            raise late(error, WRITE_LATE) from None
        except BaseException as error:
            sending.interrupted(error, repeat)
            raise


def _write_slowly(sock: Any, state: TlsState, sending: _Sending) -> int:
    """Write where a handshake has to be made first or in between."""
    deadline = None if state.timeout == 0.0 else deadline_after(state.timeout)
    while True:
        negotiate(sock, state, deadline, ssl_of(state).do_handshake)
        state.secure = True
        if deadline is None:
            return sending.push(sock)
        try:
            return until(deadline, sock, state, state.writing, 0, sending.push)  # type: ignore[no-any-return]
        except SSLWantReadError:
            continue


def send(self: Any, data: Any, flags: int = 0) -> int:
    """As `SSLSocket.send`: all of the data, where the socket is not in non-blocking mode."""
    if self._sslobj is None:
        return operations.send(self, data, flags)
    if flags:
        raise ValueError(f"non-zero flags not allowed in calls to send() on {self.__class__}")
    return write(self, data)


def write(self: Any, data: Any) -> int:
    """As `SSLSocket.write`."""
    state = tls_of(self)
    if state is not None:
        return _write(self, state, data, True)
    if self._sslobj is None:
        raise ValueError("Write on closed or unwrapped SSL socket.")
    try:
        return tls_bound.write(self, data)
    except TimeoutError as error:
        raise late(error, WRITE_LATE) from None


def sendall(self: Any, data: Any, flags: int = 0) -> None:
    """As `SSLSocket.sendall`. If it ends early the exception has an attribute `bytes_sent`."""
    state = tls_of(self)
    if state is None and self._sslobj is None:
        operations.sendall(self, data, flags)
        return
    if flags:
        raise ValueError(f"non-zero flags not allowed in calls to sendall() on {self.__class__}")
    if state is not None:
        if len(data) or state.begun is not None or state.rest:
            _write(self, state, data, False)
        return
    view = memoryview(data).cast("B")
    sent = 0
    while sent < len(view):
        sent += write(self, view[sent:])


# -- without waiting --------------------------------------------------------------------------------------------------


def read_now(sock: Any, size: int) -> bytes | None:
    """Receive at most `size` (> 0) bytes without waiting: b"" at the end of the data, None if one would have to wait.

    For programs that wait for many connections by other means than a fiber for each. For TLS sockets of ours and for
    plain sockets; whatever their timeout. None means that the latch of the reading direction is closed, so that the next
    edge will tell. In its turn: None as well while a fiber is reading from the socket.
    Raises what `recv` raises, but for timeouts; ValueError before the handshake is done.
    """
    state = tls_of(sock)
    if state is None:
        return operations.recv_now(sock, size)
    if not state.secure:
        raise ValueError("read_now() needs a connection whose handshake is done; call do_handshake() first")
    direction = state.reading
    if (direction.holder is not None and direction.holder is not CALLING) or (
        direction.edges == direction.drained and direction.armed
    ):
        return None
    seen = direction.edges
    direction.holder = CALLING
    try:
        return _read_turn(sock, state, size, None)  # type: ignore[no-any-return]
    except BlockingIOError:
        direction.drained = seen
        return None
    except OutputBlocked:
        direction.drained = seen
        return None
    except SSLError as error:
        return _at_end(sock, error, None)  # type: ignore[no-any-return]
    finally:
        if direction.holder is CALLING:
            direction.holder = None


def write_now(sock: Any, data: Any) -> int:
    """Send what can be sent without waiting; how many bytes of `data` have been taken, from 0 to all.

    Of what is taken, a part may still be here (`unsent(sock)` is true then): it goes out ahead of everything else, with
    the next write of any kind, also of nothing. 0 also while a fiber is writing. So `sendall(data[taken:])` completes it,
    whenever `taken < len(data) or unsent(sock)`. For TLS sockets of ours and for plain sockets, whatever their timeout.
    """
    state = tls_of(sock)
    if state is None:
        return operations.send_now(sock, data)
    if not state.secure:
        raise ValueError("write_now() needs a connection whose handshake is done; call do_handshake() first")
    direction = state.writing
    if (direction.holder is not None and direction.holder is not CALLING) or (
        direction.edges == direction.drained and direction.armed
    ):
        return 0
    sending = _Sending(state, data)
    seen = direction.edges
    direction.holder = CALLING
    try:
        return sending.push(sock)
    except BlockingIOError:
        direction.drained = seen
        return sending.sent
    finally:
        if direction.holder is CALLING:
            direction.holder = None
