"""eventlet.hubs: `trampoline`, which waits for a descriptor, and the little of a hub that makes sense here."""

from typing import Any

from ...eventloop import BACKEND
from ...lowlevel import wait_readable, wait_writable
from ..gevent.hub import get_hub
from .timeout import Timeout


def trampoline(
    fd: Any,
    read: bool | None = None,
    write: bool | None = None,
    timeout: float | None = None,
    timeout_exc: Any = Timeout,
    mark_as_closed: object = None,
) -> None:
    """Wait until a file that other code owns can be read, or written. Raises `timeout_exc` after `timeout` seconds."""
    if bool(read) == bool(write):
        raise ValueError("trampoline() waits either for reading or for writing")
    try:
        (wait_readable if read else wait_writable)(fd, timeout)
    except TimeoutError:
        if timeout_exc is Timeout:
            error = Timeout(timeout)
            error.cancel()
            raise error from None
        raise timeout_exc from None


def use_hub(mod: object = None) -> None:
    """Nothing to do: FIBERS_EVENTLOOP chooses the event loop."""


def get_default_hub() -> str:
    """The name of the event loop in use."""
    return BACKEND


__all__ = ["get_default_hub", "get_hub", "trampoline", "use_hub"]
