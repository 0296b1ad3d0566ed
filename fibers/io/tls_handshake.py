"""What needs both directions of a TLS connection: the handshake, `unwrap`, half-closing. And how a TLS operation fails.

A negotiation calls OpenSSL again and again: what it wants to say is sent, what it wants to hear is received, until it is
content. It holds the turn of the reading direction, and pushes what it has to send as any step does (tls.py). Where a
fiber already waits there for data, that one will feed OpenSSL, since everything that comes in goes the same way; then the
negotiation looks every few milliseconds. That happens only when a TLS 1.2 peer renegotiates, or when a connection is read
and its handshake still to be made.
"""

import errno
from collections.abc import Callable
from ssl import (
    SSL_ERROR_WANT_READ,
    SSL_ERROR_WANT_WRITE,
    SSLError,
    SSLWantReadError,
    SSLWantWriteError,
)
from typing import Any, Final

from ..core.scheduler import state as thread
from ..errors import ClosedError
from ..eventloop import CALLING
from . import tls_bound
from .state import states
from .tls import OutputBlocked, TlsState, exclusive
from .waiting import by_the_clock, deadline_after, perform, until

READ_LATE: Final = "The read operation timed out"
WRITE_LATE: Final = "The write operation timed out"
HANDSHAKE_LATE: Final = "The handshake operation timed out"


def tls_of(sock: Any) -> TlsState | None:
    """The connection, if the socket has one of ours; None: it is not connected yet, was unwrapped, closed, or is older."""
    state = states.get(id(sock))
    return state if state.__class__ is TlsState and state.sslobj is not None else None


def ssl_of(state: TlsState) -> Any:
    if state.sslobj is None:
        raise ClosedError("the socket was closed, or is not a TLS socket any more")
    return state.sslobj


def late(error: TimeoutError, text: str) -> TimeoutError:
    """The timeout of an operation, in the words of the standard library. (Others, as the kernel's, keep their own.)"""
    if error.args == ("timed out",):
        error.args = (text,)
    return error


def want_read() -> SSLWantReadError:
    return _wanting(SSLWantReadError(SSL_ERROR_WANT_READ, "The operation did not complete (read)"))  # type: ignore[return-value]


def want_write() -> SSLWantWriteError:
    return _wanting(SSLWantWriteError(SSL_ERROR_WANT_WRITE, "The operation did not complete (write)"))  # type: ignore[return-value]


def _wanting(error: SSLError) -> SSLError:
    error.library = error.reason = None  # type: ignore[assignment]
    return error


def flush_turn(sock: Any, state: TlsState) -> None:
    exclusive(state, state.flush, sock)


def unsent(sock: Any) -> int:
    """How many bytes of ciphertext wait here for the kernel to take them; 0 for a plain socket."""
    state = tls_of(sock)
    return 0 if state is None else len(state.rest) + state.outgoing.pending


class _TurnFree(Exception):
    """Who was reading has left."""


def negotiate(sock: Any, state: TlsState, deadline: float | None, operation: Callable[[], Any]) -> Any:
    """Call `operation` of the SSL object until it is done, sending and receiving for it. `deadline` None: do not wait.

    It may be called once more after it was done.
    """
    while True:
        try:
            if deadline is None:
                return _negotiate(sock, state, operation)
            direction = state.reading
            if direction.holder is None or direction.holder is CALLING:
                if not direction.closed:
                    direction.drained = -1  # try first: the client speaks first
                return until(deadline, sock, state, direction, 0, _negotiate, state, operation)
            # A fiber waits for data and holds the turn. It will feed OpenSSL: look every now and then.
            return by_the_clock(sock, state, BlockingIOError, _look, state, operation)
        except OutputBlocked:
            if deadline is None:
                raise want_write() from None
            until(deadline, sock, state, state.writing, 0, flush_turn, state)
        except BlockingIOError:
            raise want_read() from None
        except _TurnFree:
            continue


def _negotiate(sock: Any, state: TlsState, operation: Callable[[], Any]) -> Any:
    while True:
        done, result = _try(sock, state, operation)
        if done:
            exclusive(state, state.settle)
            return result
        exclusive(state, state.pull, sock)


def _try(sock: Any, state: TlsState, operation: Callable[[], Any]) -> tuple[bool, Any]:
    scheduler = thread.scheduler
    me = None if scheduler is None else scheduler.current
    result, done = None, True
    try:
        result = exclusive(state, state.attempt, operation, me)
    except SSLWantReadError:
        done = False
    except SSLError:
        exclusive(state, state.answer_if_possible, sock)  # the alert
        raise
    exclusive(state, state.answer, sock)
    return done, result


def _look(sock: Any, state: TlsState, operation: Callable[[], Any]) -> Any:
    if state.reading.holder is None:
        raise _TurnFree
    done, result = _try(sock, state, operation)
    if not done:
        raise BlockingIOError(errno.EAGAIN, "the other fiber has not received it")
    return result


def do_handshake(self: Any, block: bool = False) -> None:
    """As `SSLSocket.do_handshake`. The socket's timeout is for all of it."""
    self._check_connected()
    state = tls_of(self)
    if state is None:
        if self._sslobj is None:
            raise ValueError("No SSL wrapper around " + str(self))
        tls_bound.do_handshake(self)
        return
    timeout = None if block and state.timeout == 0.0 else state.timeout
    deadline = None if timeout == 0.0 else deadline_after(timeout)
    try:
        negotiate(self, state, deadline, ssl_of(state).do_handshake)
    except TimeoutError as error:
        raise late(error, HANDSHAKE_LATE) from None
    state.secure = True


def unwrap(self: Any) -> Any:
    """As `SSLSocket.unwrap`: exchange close_notify with the peer; then the socket carries plain text."""
    state = tls_of(self)
    if state is None:
        if self._sslobj is None:
            raise ValueError("No SSL wrapper around " + str(self))
        tls_bound.shutdown(self)
        self._sslobj = None
        return self
    state.exact = True
    deadline = None if state.timeout == 0.0 else deadline_after(state.timeout)
    try:
        if unsent(self) and deadline is not None:
            until(deadline, self, state, state.writing, 0, flush_turn, state)
        negotiate(self, state, deadline, ssl_of(state).shutdown)
    except TimeoutError as error:
        raise late(error, READ_LATE) from None
    finally:
        state.exact = False
    exclusive(state, _to_plain, state)
    self._sslobj = None
    return self


def _to_plain(state: TlsState) -> None:
    state.sslobj = None
    state.plain = state.incoming.read()
    state.full = state.ended = state.secure = False
    state.settle()


def send_eof(self: Any) -> None:
    """Tell the peer that nothing more will be written (close_notify). Reading goes on; writing is an SSLError now.

    The peer must know how to go on after that: TLS 1.3 lets it, in TLS 1.2 it answers by closing its own half.
    """
    state = tls_of(self)
    if state is None or not state.secure:
        raise ValueError("send_eof() needs a TLS connection whose handshake is done")
    try:
        perform(self, state, state.writing, 0, _eof_turn, state)
    except BlockingIOError:
        raise want_write() from None
    except TimeoutError as error:
        raise late(error, WRITE_LATE) from None


def _eof_turn(sock: Any, state: TlsState) -> None:
    exclusive(state, state.flush, sock)
    exclusive(state, state.close_output, sock)
