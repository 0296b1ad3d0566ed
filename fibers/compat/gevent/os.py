"""gevent.os: `fork`, and descriptors that are read and written without blocking others."""

import os as _os

from ...io.os import *  # noqa: F403
from ...io.os import read, write

nb_read = tp_read = read
nb_write = tp_write = write
fork = fork_gevent = _os.fork


def make_nonblocking(fd: int) -> bool | None:
    """Put a descriptor into non-blocking mode. True if it was not; else None."""
    if _os.get_blocking(fd):
        _os.set_blocking(fd, False)
        return True
    return None
