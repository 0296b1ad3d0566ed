"""A part of a file as a part of a response: sent by `sendfile`, from the kernel's cache to the network.

The part has a descriptor of its own, so that whoever opened the file may close it at once. Nothing of it is in memory, so
a client that takes an hour for it costs neither memory nor a fiber.
"""

import os
from stat import S_ISREG
from typing import Any, Final

#: Bytes given to one `sendfile`, and bytes read at once where there is TLS in between.
AT_ONCE: Final = 1 << 20
READ: Final = 65_536


class FilePart:
    """`left` bytes of a regular file from `offset` on. To be closed."""

    __slots__ = ("_fd", "left", "offset")

    def __init__(self, fd: int, offset: int, left: int) -> None:
        self._fd = os.dup(fd)
        self.offset = offset
        self.left = left

    def send(self, sock: Any) -> None:
        """Send some to a plain socket, without waiting. Raises BlockingIOError, EOFError if the file ends early."""
        self._took(os.sendfile(sock.fileno(), self._fd, self.offset, min(self.left, AT_ONCE)))

    def peek(self) -> bytes:
        """What comes next, some of it. Raises EOFError if the file has been cut off."""
        data = os.pread(self._fd, min(self.left, READ), self.offset)
        if not data:
            self._took(0)
        return data

    def skip(self, count: int) -> None:
        """So many bytes of what `peek` has shown have been sent."""
        self.offset += count
        self.left -= count

    def _took(self, count: int) -> None:
        if not count:
            raise EOFError(f"the file has ended {self.left} bytes before the response")
        self.skip(count)

    def close(self) -> None:
        """A second call does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def regular(file: Any) -> tuple[int, int, int] | None:
    """fd, position and size of an open file that `sendfile` can send; None if this is something else."""
    try:
        fd = file.fileno()
        status = os.fstat(fd)
        if not S_ISREG(status.st_mode):
            return None
        return fd, file.tell(), status.st_size
    except (AttributeError, OSError, ValueError):
        return None
