"""A stream socket that is two queues in memory: the part of the socket API that programs use, without a file descriptor.

It behaves as one end of a real, connected stream socket does under fibers.io.socket: the same results, errors and
timeouts, the same turns. What differs: there is no fd (`fileno()` raises io.UnsupportedOperation), so nothing that works
on fds can be used with it; and the links between the two ends can be told how to behave (flow.py).

Where the systems differ it follows unix sockets on Linux: sending to an end that is closed is a BrokenPipeError at once,
and an end that is closed with something unread resets the other. With latency, all that is known when the news arrive.
"""

import errno
import os
import socket as std
import warnings
from _socket import MSG_DONTWAIT, MSG_PEEK, MSG_WAITALL, SHUT_RD, SHUT_RDWR, SHUT_WR
from collections.abc import Iterable
from functools import partial
from typing import Any, Final

from ...core.guard import guard
from ...core.runtime import current
from ...core.scheduler import get_scheduler
from ...errors import Cancelled
from ...eventloop.contract import EventLoop
from .flow import Flow, Link, News
from .operation import BLOCKED, Blocked, Turn, Waiting

#: Does not mean anything here: there is never a signal.
_MSG_NOSIGNAL: Final = getattr(std, "MSG_NOSIGNAL", 0)


class MemorySocket(Waiting):
    """One end of an in-memory connection; see the module's text. Made by `memory_pair` and by a MemoryNetwork.

    `outgoing` is the link to the other end, `incoming` the one from there. May be used from several threads; time is that
    of the thread that made it.
    """

    __slots__ = (
        "_close_asked",
        "_from_peer",
        "_io_refs",
        "_loop",
        "_name",
        "_options",
        "_peer_name",
        "_reading",
        "_shut_read",
        "_shut_write",
        "_to_peer",
        "_writing",
    )

    family = std.AF_UNIX
    type = std.SOCK_STREAM
    proto = 0

    def __init__(self, loop: EventLoop, from_peer: Flow, to_peer: Flow, name: Any, peer_name: Any) -> None:
        super().__init__(loop.clock, std.getdefaulttimeout())
        self._loop = loop
        self._from_peer = from_peer
        self._to_peer = to_peer
        self._name = name
        self._peer_name = peer_name
        self._reading = Turn()
        self._writing = Turn()
        self._shut_read = self._shut_write = self._close_asked = False
        self._io_refs = 0  # files made by makefile() that are open
        self._options: dict[tuple[int, int], Any] = {}

    @property
    def outgoing(self) -> Link:
        """How what is sent here travels."""
        return self._to_peer.link

    @property
    def incoming(self) -> Link:
        """How what is received here travels."""
        return self._from_peer.link

    # -- receiving ------------------------------------------------------------------------------------------------

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """As `socket.recv`, with MSG_PEEK, MSG_WAITALL and MSG_DONTWAIT; OSError (EOPNOTSUPP) for other flags."""
        if bufsize < 0:
            raise ValueError("negative buffersize in recv")
        _check_flags(flags, MSG_PEEK | MSG_WAITALL | MSG_DONTWAIT)
        if flags & MSG_WAITALL and not flags & MSG_PEEK:
            return self._receive_all(bufsize, flags)
        attempt = partial(self._try_receive, bufsize, bool(flags & MSG_PEEK))
        return self._operate(self._reading, self._from_peer.readers, self._wait_for(flags), attempt)

    def _receive_all(self, size: int, flags: int) -> bytes:
        received = bytearray()

        def attempt() -> bytes | Blocked:
            while len(received) < size:
                data = self._try_receive(size - len(received), False)
                if isinstance(data, Blocked):
                    return data
                received.extend(data)
                if not data:
                    break
            return bytes(received)

        try:
            return self._operate(self._reading, self._from_peer.readers, self._wait_for(flags), attempt)
        except BaseException as error:
            if not received:
                raise
            if not isinstance(error, OSError | Cancelled):
                current().kill(error)  # a one-shot exception comes again at the next wait
            return bytes(received)

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """As `socket.recv_into`."""
        view = memoryview(buffer).cast("B")
        if view.readonly:
            raise TypeError(f"recv_into() needs a buffer that can be written, not {type(buffer).__name__}")
        if nbytes < 0:
            raise ValueError("negative buffersize in recv_into")
        if nbytes > len(view):
            raise ValueError("buffer too small for requested bytes")
        data = self.recv(nbytes or len(view), flags)
        view[: len(data)] = data
        return len(data)

    def _try_receive(self, size: int, peek: bool) -> bytes | Blocked:
        with guard:
            flow = self._from_peer
            flow.settle()
            if not size:
                return b""
            data = flow.take(size, peek)
            if data:
                return data
            flow.raise_reset()
            return b"" if flow.ended or self._shut_read else BLOCKED

    # -- sending ----------------------------------------------------------------------------------------------------

    def send(self, data: Any, flags: int = 0, /) -> int:
        """As `socket.send`; the only flag that means something is MSG_DONTWAIT."""
        _check_flags(flags, MSG_DONTWAIT | _MSG_NOSIGNAL)
        attempt = partial(self._try_send, memoryview(data).cast("B"))
        return self._operate(self._writing, self._to_peer.writers, self._wait_for(flags), attempt)

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        """As `socket.sendall`. The turn is kept until all is sent. If it fails, the error has an attribute `bytes_sent`."""
        _check_flags(flags, MSG_DONTWAIT | _MSG_NOSIGNAL)
        view = memoryview(data).cast("B")
        sent = 0

        def attempt() -> Blocked | None:
            nonlocal sent
            while True:
                count = self._try_send(view[sent:])
                if isinstance(count, Blocked):
                    return count
                sent += count
                if sent >= len(view):
                    return None

        try:
            self._operate(self._writing, self._to_peer.writers, self._wait_for(flags), attempt)
        except BaseException as error:
            if hasattr(error, "__dict__"):
                error.bytes_sent = sent  # type: ignore[attr-defined]
            raise

    def sendmsg(
        self, buffers: Iterable[Any], ancdata: Iterable[Any] = (), flags: int = 0, address: Any = None, /
    ) -> int:
        """As `socket.sendmsg`, without ancillary data and address."""
        if list(ancdata) or address is not None:
            raise _unsupported("in-memory sockets send no ancillary data, and to no address")
        return self.send(b"".join(bytes(memoryview(buffer).cast("B")) for buffer in buffers), flags)

    def _try_send(self, view: memoryview) -> int | Blocked:
        flow = self._to_peer
        delay = flow.link.delay()
        with guard:
            back = self._from_peer
            back.settle()
            if self._shut_write:
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
            if back.rude:
                back.raise_reset()
            if back.gone or back.deaf:
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
            if not view:
                return 0
            room = flow.room()
            if room <= 0:
                return BLOCKED
            flow.send(bytes(view[:room]), delay)
            return min(room, len(view))

    # -- the end ----------------------------------------------------------------------------------------------------

    def shutdown(self, how: int, /) -> None:
        """As `socket.shutdown`: SHUT_WR ends the data for the other end, SHUT_RD makes its sends fail."""
        self._check_open()
        if how not in (SHUT_RD, SHUT_WR, SHUT_RDWR):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        delay = self._to_peer.link.delay()
        with guard:
            if how != SHUT_RD and not self._shut_write:
                self._shut_write = True
                self._tell(News.END, delay)
            if how != SHUT_WR and not self._shut_read:
                self._shut_read = True
                self._tell(News.DEAF, delay)
            self._wake_own()

    def close(self) -> None:
        """As `socket.close`: who waits here gets ClosedError. With files made by `makefile`, the last of them closes it."""
        self._close_asked = True
        if self._io_refs <= 0:
            self._real_close()

    def reset(self) -> None:
        """Close it rudely, as a crashed peer or one that sends RST does: the other end gets ConnectionResetError."""
        self._close_asked = True
        self._real_close(News.RESET)

    def _real_close(self, news: News = News.GONE) -> None:
        if not self._closed:
            delay = 0.0
            try:
                delay = self._to_peer.link.delay()
            finally:
                self._closed = True
                _hang_up(self._from_peer, self._to_peer, news, delay)
                with guard:
                    self._wake_own()

    def _decref_socketios(self) -> None:
        self._io_refs -= 1
        if self._close_asked:
            self.close()

    def _tell(self, news: News, delay: float) -> None:
        self._to_peer.tell(news, delay)
        self._from_peer.changed(self._from_peer.writers)  # the other end may wait for room: not any more

    def _wake_own(self) -> None:
        for queue in (self._from_peer.readers, self._to_peer.writers, self._reading.queue, self._writing.queue):
            queue.wake_all()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            self._closed = True
            end = (self._from_peer, self._to_peer, News.GONE, 0.0)
            if self._loop.closed:
                _hang_up(*end)
            else:
                self._loop.post(_hang_up, *end)  # a finaliser may run anywhere

    # -- what else programs ask -------------------------------------------------------------------------------------

    #: As `socket.makefile`: the standard library's own, which needs no fd.
    makefile: Any = std.socket.makefile

    def getsockname(self) -> Any:
        """The address of this end; "" if it has none."""
        self._check_open()
        return self._name

    def getpeername(self) -> Any:
        """The address of the other end; "" if it has none."""
        self._check_open()
        return self._peer_name

    def setsockopt(self, level: int, option: int, value: Any, optlen: int | None = None, /) -> None:
        """Kept for `getsockopt`; has no other effect."""
        self._check_open()
        self._options[level, option] = value

    def getsockopt(self, level: int, option: int, buflen: int = 0, /) -> Any:
        """What was set, or 0."""
        self._check_open()
        return self._options.get((level, option), 0)

    def __repr__(self) -> str:
        closed = " [closed]" if self._closed else ""
        return (
            f"<MemorySocket{closed} {self._name or 'unnamed'!r} to {self._peer_name or 'unnamed'!r} at {id(self):#x}>"
        )

    def _wait_for(self, flags: int) -> float | None:
        return 0.0 if flags & MSG_DONTWAIT else self._timeout

    def _version(self) -> int:
        return self._from_peer.version + self._to_peer.version

    def _next_change(self) -> float:
        return self._from_peer.next_arrival()


def _hang_up(from_peer: Flow, to_peer: Flow, news: News, delay: float) -> None:
    """The end of one end."""
    with guard:
        if from_peer.drop() and news is News.GONE:
            news = News.UNREAD
        to_peer.tell(news, delay)
        from_peer.changed(from_peer.writers)


def _check_flags(flags: int, known: int) -> None:
    if flags & ~known:
        raise _unsupported(f"in-memory sockets do not know the flags {flags & ~known:#x}")


def _unsupported(what: str) -> OSError:
    return OSError(errno.EOPNOTSUPP, what)


def connected(loop: EventLoop, link: Link, name: Any = "", peer_name: Any = "") -> tuple[MemorySocket, MemorySocket]:
    """Two ends; each direction gets a copy of `link`. The first end is called `name`."""
    there, back = Flow(loop.clock, link.copy()), Flow(loop.clock, link.copy())
    return MemorySocket(loop, back, there, name, peer_name), MemorySocket(loop, there, back, peer_name, name)


def memory_pair(link: Link | None = None) -> tuple[MemorySocket, MemorySocket]:
    """A connected pair, as `socket.socketpair()`, in memory. Both links behave as `link` says (default: plain).

    left, right = memory_pair(Link(latency=0.05))
    """
    if link is not None and not isinstance(link, Link):
        raise TypeError(f"memory_pair() takes a Link, not {link!r}")
    return connected(get_scheduler().loop, link or Link())
