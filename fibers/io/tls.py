"""One TLS connection: OpenSSL between two buffers in memory, and the socket outside of them.

Facts, and what follows:

* OpenSSL can read and write the file by itself, as it does under the standard `SSLSocket`. It then asks the kernel twice
  for each record (five bytes of header, then the rest) and once more to learn that there is nothing left. Given memory
  instead, it gets what one `recv` has brought, and the short-read shortcut of TCP holds for it: one `recv` and one `send`
  for a request. The two additional copies cost less than one of those system calls.
* OpenSSL that holds the number of the file uses it after somebody has closed it. Here it never learns the number.
* SSL_shutdown reads at once for the peer's answer and destroys data that comes instead; so closing one half is possible
  only where what has come can be hidden from it.
* Reading may have to write (an answer to a key update, a client certificate asked for late) and writing may have to
  read (a renegotiation of TLS 1.2). With memory neither blocks the other: what is to be sent stands in one queue, the
  ciphertext, and whoever comes by pushes its front. Records are never torn apart, whatever interrupts a write.

So there are, on the way in: the kernel, `incoming` (ciphertext), OpenSSL's record, `plain` (only after a half-close and
where `pending()` asked). On the way out: `outgoing` (ciphertext), `rest` (what of it one send has not taken), the kernel.

The latch. A reader waits if `edges == drained` (turns.py). For a TLS socket that must mean: nothing here, and nothing in
the kernel. So what is known of the kernel is kept in `self.drained`, and put into the latch only when all buffers are
empty; as long as they are not, the latch stands open.

Reading ahead makes the file look empty to `select` while data is here. For blocking sockets `pending()` tells, as OpenSSL's
own read-ahead has it. In non-blocking mode, where programs select, no more is taken from the kernel than the record that
OpenSSL works on, as under the standard library.

Threads. An SSL object must not be used by two threads at once, and every step here changes several things that belong
together. So all of it happens under a lock of the connection, which is held for microseconds, never across a wait. The
one exception is a handshake whose SNI callback waits. Meanwhile the fiber counts as runtime code, so that a Ctrl-C does
not come between ciphertext that was made and ciphertext that was kept.
"""

import os
from _socket import socket as Raw  # noqa: N812
from _thread import allocate_lock
from array import array
from collections.abc import Callable
from ssl import SSL_ERROR_EOF, MemoryBIO, SSLEOFError, SSLError, SSLWantReadError, SSLZeroReturnError
from time import sleep as sleep_thread
from typing import Any, Final

from ..core.runtime import sleep
from ..core.scheduler import get_scheduler
from ..core.scheduler import state as thread
from ..errors import ClosedError
from ..eventloop import Direction, Handle
from .state import State, empty, states

_recv: Final = Raw.recv
_send: Final = Raw.send

#: Bytes of ciphertext asked for in one receive, where more than a record may be taken.
READ_AHEAD: Final = 65_536
#: Bytes of plaintext encrypted before the ciphertext is sent: so much more memory does a write of any size need.
CHUNK: Final = 65_536
#: Bytes in the header of a record, and where in it the length of the rest is.
_HEADER: Final = 5
#: A record's largest plaintext (bytes).
RECORD: Final = 16_384
#: A value that no count of edges has: the latch is open.
_OPEN: Final = -1


class OutputBlocked(Exception):
    """A step that was reading has something to send, and the kernel does not take it now."""


class TlsState(State):
    """See the module's text. `sslobj` is None before there is a TLS connection, and again after `unwrap`."""

    __slots__ = (
        "begun",
        "drained",
        "ended",
        "exact",
        "failure",
        "full",
        "header",
        "incoming",
        "lock",
        "need",
        "outgoing",
        "plain",
        "rest",
        "secure",
        "sslobj",
        "watched",
    )

    def __init__(self, sock: Any, handle: Handle, timeout: float | None, shortcut: "bool | array[int]") -> None:
        super().__init__(sock, handle, timeout, shortcut)
        self.sslobj: Any = None
        self.incoming = MemoryBIO()
        self.outgoing = MemoryBIO()
        self.lock = allocate_lock()
        self.rest: bytes | memoryview = b""  # ciphertext that goes out before all other
        self.begun: tuple[int, int] | None = None  # a `send` to be repeated: bytes encrypted so far, their checksum
        self.plain = b""  # read from OpenSSL, comes before all that it still has
        self.full = False  # OpenSSL has more of the record that was read last
        self.ended = False  # OpenSSL knows the end: it answers at once
        self.failure: SSLError | None = None  # found by `pending()`, for the next read to raise
        self.secure = False  # the handshake is done
        self.exact = False  # take nothing that comes after the record at hand (before plain text follows)
        self.watched: Direction | None = None  # the direction that `drained` counts for
        self.drained = _OPEN  # its edges, when the kernel was last seen to have nothing
        self.need = 0  # bytes from the end of what was received to the next record's header
        self.header = b""  # what has come of an incomplete header

    # -- steps: each is called through `exclusive` ------------------------------------------------------------------

    def read(self, sock: Any, size: int, buffer: Any) -> Any:
        """Plaintext (or, with a buffer, its size). BlockingIOError, SSLError, OutputBlocked."""
        if self.plain:
            return self._take_plain(size, buffer)
        incoming, sslobj = self.incoming, self.sslobj
        if sslobj is None:
            raise ClosedError("the socket was closed, or is not a TLS socket any more")
        while True:
            if self.failure is not None:
                raise self.failure
            if incoming.pending or self.full or self.ended:
                try:
                    if buffer is None:
                        data = sslobj.read(size)
                        count = len(data)
                    else:
                        data = count = sslobj.read(size, buffer)
                except SSLWantReadError:
                    self.full = False
                    if self.outgoing.pending or self.rest:
                        self.answer(sock)
                except SSLZeroReturnError:  # the end, where our own has been sent already
                    self.ended = True
                    self.settle()
                    return b"" if buffer is None else 0
                except SSLError as error:
                    self.ended = True
                    self.answer_if_possible(sock)
                    if error.args[0] == SSL_ERROR_EOF:
                        self.settle()
                    raise
                else:
                    self.full = count == size and sslobj.pending() > 0
                    if not count:
                        self.ended = True
                    if self.outgoing.pending:
                        self.answer_if_possible(sock)
                    self.settle()
                    return data
            self.pull(sock)

    def _take_plain(self, size: int, buffer: Any) -> Any:
        data, self.plain = self.plain[:size], self.plain[size:]
        self.settle()
        if buffer is None:
            return data
        memoryview(buffer).cast("B")[: len(data)] = data
        return len(data)

    def pull(self, sock: Any) -> None:
        """Receive ciphertext, once. BlockingIOError if there is none."""
        if self.ended:
            raise SSLEOFError(SSL_ERROR_EOF, "EOF occurred in violation of protocol")
        direction = self.reading
        seen = direction.edges
        if self.watched is not direction:
            self.watched, self.drained = direction, _OPEN
        elif seen == self.drained and direction.armed and self.timeout != 0.0:
            raise BlockingIOError
        exact = self.exact or self.timeout == 0.0
        size = (self.need or _HEADER - len(self.header)) if exact else READ_AHEAD
        try:
            raw = _recv(sock, size)
        except BlockingIOError:
            self.drained = seen
            raise
        count = len(raw)
        if count < size and not direction.hangup and (self.shortcut is True or empty(self)):
            self.drained = seen
        if raw:
            if self.need or self.header or count < _HEADER or count != _HEADER + (raw[3] << 8 | raw[4]):
                self._measure(raw)  # not just one record
            self.incoming.write(raw)
        else:
            self.incoming.write_eof()
            self.ended = True

    def feed(self, raw: bytes) -> None:
        """Ciphertext that was received before there was TLS here comes first."""
        self._measure(raw)
        self.incoming.write(raw)

    def _measure(self, raw: bytes) -> None:
        """Find where the last of the received records ends."""
        if self.header:
            raw = self.header + raw
        at, end = self.need, len(raw)
        while at + _HEADER <= end:
            at += _HEADER + (raw[at + 3] << 8 | raw[at + 4])
        if at < end:
            self.need, self.header = 0, raw[at:]
        else:
            self.need, self.header = at - end, b""

    def settle(self) -> None:
        """Set the latch of the reading direction; see the module's text."""
        direction = self.reading
        if not direction.closed:
            if self.incoming.pending or self.full or self.ended or self.plain or self.watched is not direction:
                direction.drained = _OPEN
            else:
                direction.drained = self.drained

    def flush(self, sock: Any) -> None:
        """Send all ciphertext that there is. BlockingIOError, with what is left kept, if the kernel does not take it."""
        rest = self.rest
        outgoing = self.outgoing
        while True:
            if not rest:
                if not outgoing.pending:
                    return
                rest = self.rest = outgoing.read()
            count = _send(sock, rest)
            rest = self.rest = b"" if count == len(rest) else memoryview(rest)[count:]

    def answer(self, sock: Any) -> None:
        """`flush` for a step that is about to read. OutputBlocked if it cannot be done, unless a writer will do it."""
        seen = self.writing.edges
        try:
            self.flush(sock)
        except BlockingIOError:
            self.writing.drained = seen
            if self.writing.waiter is None:
                raise OutputBlocked from None

    def answer_if_possible(self, sock: Any) -> None:
        """`flush` for a step that has its result: what cannot go out now goes before the next write."""
        seen = self.writing.edges
        try:
            self.flush(sock)
        except BlockingIOError:
            self.writing.drained = seen
        except OSError:
            pass  # the connection is broken: the next operation says so

    def attempt(self, operation: Callable[[], Any], me: Any) -> Any:
        """A step of OpenSSL that may call the user's code (SNI), which is ordinary code of the fiber `me`."""
        scheduler = thread.scheduler
        assert scheduler is not None
        scheduler.current = me
        try:
            return operation()
        finally:
            scheduler.current = None

    def buffered(self) -> int:
        """How many bytes of plaintext can be read without asking the kernel."""
        sslobj = self.sslobj
        if sslobj is None:
            return 0
        if not self.plain and not self.ended and not sslobj.pending() and self.incoming.pending:
            try:
                self.plain = sslobj.read(RECORD)  # its length is all that can tell
            except SSLWantReadError:
                pass
            except SSLError as error:
                self.ended, self.failure = True, error
            else:
                self.ended = not self.plain
            self.settle()
        return len(self.plain) + sslobj.pending()  # type: ignore[no-any-return]

    def close_output(self, sock: Any) -> None:
        """Send close_notify. SSL_shutdown, called by CPython twice, finds nothing to read, and so destroys nothing."""
        while pending := self.sslobj.pending():
            self.plain += self.sslobj.read(pending)
        hidden = b"" if self.ended else self.incoming.read()
        try:
            self.sslobj.shutdown()
        except SSLWantReadError:
            pass
        except SSLError:
            if not self.ended:
                raise
        finally:
            if hidden:
                self.incoming.write(hidden)
            self.settle()
        self.flush(sock)


def exclusive(state: TlsState, step: Callable[..., Any], *args: Any) -> Any:
    """Call a step of a connection, alone and undisturbed. Steps do not wait."""
    scheduler = thread.scheduler
    if scheduler is None:
        scheduler = get_scheduler()
    lock = state.lock
    while True:
        me, scheduler.current = scheduler.current, None
        try:
            if lock.acquire(False):
                try:
                    return step(*args)
                finally:
                    lock.release()
        finally:
            scheduler.current = me
        # Another thread is in there, for microseconds; or an SNI callback of this thread waits, for as long as it likes.
        if me is None:
            sleep_thread(0.000_05)
        elif lock.acquire(True, 0.000_5):
            lock.release()
        else:
            sleep(0.001)


def _after_fork_in_child() -> None:
    """A thread that was inside a step does not exist here; its connection is lost, but nobody waits for its lock."""
    for state in states.values():
        if isinstance(state, TlsState) and state.lock.locked():
            state.lock = allocate_lock()


os.register_at_fork(after_in_child=_after_fork_in_child)
