"""gevent.socket: that of `fibers.io`, a drop-in for the standard module; and waits for descriptors of others.

`wait_read` and `wait_write` are what drivers in C are made to wait by: `psycopg2.extensions.set_wait_callback`.
"""

from socket import EAGAIN, EBADF, EWOULDBLOCK, AddressInfo, MsgFlag, SocketIO
from typing import Any

from ...io.socket import *  # noqa: F403
from ...io.socket import __all__ as _standard
from ...lowlevel import wait_readable, wait_writable


def wait_read(fileno: Any, timeout: float | None = None, timeout_exc: BaseException | None = None) -> None:
    """Wait until a file that other code owns can be read. Raises TimeoutError, or `timeout_exc`, after `timeout` seconds."""
    try:
        wait_readable(fileno, timeout)
    except TimeoutError:
        raise timeout_exc or TimeoutError("timed out") from None


def wait_write(
    fileno: Any, timeout: float | None = None, timeout_exc: BaseException | None = None, event: object = None
) -> None:
    """As `wait_read`, until it can be written."""
    try:
        wait_writable(fileno, timeout)
    except TimeoutError:
        raise timeout_exc or TimeoutError("timed out") from None


__all__ = [
    *_standard, "EAGAIN", "EBADF", "EWOULDBLOCK", "AddressInfo", "MsgFlag", "SocketIO", "wait_read", "wait_write",
]  # fmt: skip
