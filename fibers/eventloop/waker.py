"""How another thread or a signal ends a kernel wait: a descriptor that becomes readable.

Facts. An eventfd is one fd and one 8-byte counter, and any number of wakes is one read. Where there is none, a
socket pair does the same with two fds. Signals need a socket pair in any case: CPython writes one *byte* for a
signal to the fd given to `signal.set_wakeup_fd`, and an eventfd refuses writes that are not 8 bytes long.
"""

import os
import signal
from _socket import socketpair  # the C one: these stay the kernel's whatever happens to the `socket` module
from typing import Final

_HAS_EVENTFD: Final = hasattr(os, "eventfd")
_ONE: Final = (1).to_bytes(8, "little")


class Waker:
    """Ends the kernel wait of one loop. `wake` may be called from any thread, signal handler or finaliser."""

    __slots__ = ("_closed", "_write_fd", "fd")

    def __init__(self) -> None:
        self._closed = False
        if _HAS_EVENTFD:
            self.fd = self._write_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            reader, writer = socketpair()
            self.fd, self._write_fd = reader.detach(), writer.detach()
            os.set_blocking(self.fd, False)
            os.set_blocking(self._write_fd, False)

    def wake(self) -> None:
        """Make `fd` readable. Never blocks and never raises: a full pipe or a closed waker needs no further wake."""
        if not self._closed:
            try:
                os.write(self._write_fd, _ONE)
            except OSError:
                pass

    def drain(self) -> None:
        """Take all wakes that have arrived. One thread only."""
        try:
            while len(os.read(self.fd, 4096)) == 4096:
                pass
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Close the fds. A second call does nothing."""
        if not self._closed:
            self._closed = True
            os.close(self.fd)
            if self._write_fd != self.fd:
                os.close(self._write_fd)


class SignalWaker:
    """Makes signals that the C runtime takes end the kernel wait of the main thread's loop.

    Without it a signal delivered to another thread leaves the main thread asleep in the kernel, and its Python
    handler runs whenever the wait ends by itself. An earlier wakeup fd (asyncio's, a test runner's) keeps getting
    its bytes, and is put back on close. Only the main thread may make one.
    """

    __slots__ = ("_earlier", "_reader", "_writer", "fd")

    def __init__(self) -> None:
        self._reader, self._writer = socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self.fd = self._reader.fileno()
        self._earlier = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        _open.append(self)

    def drain(self) -> None:
        """Take the bytes that have arrived and pass them on to the wakeup fd that was set before this one."""
        try:
            data = self._reader.recv(4096)
        except BlockingIOError:
            return
        if self._earlier >= 0:
            try:
                os.write(self._earlier, data)
            except OSError:
                pass  # its owner has closed or filled it; the signal itself is not lost, only this hint

    def close(self) -> None:
        """Put the earlier wakeup fd back, if nobody has replaced ours since. In any order; a second call does nothing."""
        if self.fd < 0:
            return
        mine = self._writer.fileno()
        if self in _open:
            _open.remove(self)
        for later in _open:
            if later._earlier == mine:  # it would pass signals on to a closed fd, and put that back
                later._earlier = self._earlier
        try:
            current = signal.set_wakeup_fd(self._earlier)
        except (OSError, ValueError):  # its owner has closed it
            current = signal.set_wakeup_fd(-1)
        if current != mine:
            signal.set_wakeup_fd(current, warn_on_full_buffer=all(each._writer.fileno() != current for each in _open))
        self.fd = -1
        self._reader.close()
        self._writer.close()


#: Those that are open.
_open: Final[list[SignalWaker]] = []
