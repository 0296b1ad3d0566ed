"""gevent.socket: that of `fibers.io`, a drop-in for the standard module; and waits for descriptors of others.

`wait_read` and `wait_write` are what drivers in C are made to wait by: `psycopg2.extensions.set_wait_callback`.
"""

from typing import Any

from ...io.socket import *  # noqa: F403
from ...io.socket import __all__ as _standard
from ...lowlevel import wait_readable, wait_writable

_TIMED_OUT = TimeoutError("timed out")


def wait_read(fileno: Any, timeout: float | None = None, timeout_exc: BaseException = _TIMED_OUT) -> None:
    """Wait until a file that other code owns can be read. Raises `timeout_exc` after `timeout` seconds."""
    try:
        wait_readable(fileno, timeout)
    except TimeoutError:
        raise timeout_exc from None


def wait_write(
    fileno: Any, timeout: float | None = None, timeout_exc: BaseException = _TIMED_OUT, event: object = None
) -> None:
    """As `wait_read`, until it can be written."""
    try:
        wait_writable(fileno, timeout)
    except TimeoutError:
        raise timeout_exc from None


__all__ = [
    *_standard, "EAGAIN", "EBADF", "EWOULDBLOCK", "AddressInfo", "MsgFlag", "SocketIO", "wait_read", "wait_write",
]  # fmt: skip
