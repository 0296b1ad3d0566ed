"""eventlet.timeout: Timeout, which counts from the moment it is made."""

from collections.abc import Callable
from typing import Any, Final

from ..gevent import timeout

#: `with_timeout` has been given no value.
_NONE: Final = object()


class Timeout(timeout.Timeout):
    """Raised in the fiber that has made it, `seconds` after that, unless it is cancelled. None: never.

    `exception`: raised in place of it; False: a `with` block of this Timeout ends without an error.
    """

    #: Marks what is a timeout: see `is_timeout`.
    is_timeout = True

    def __init__(self, seconds: float | None = None, exception: Any = None) -> None:
        super().__init__(seconds, None if exception is True else exception)
        self.start()


def with_timeout(
    seconds: float | None, function: Callable[..., Any], *args: Any, timeout_value: Any = _NONE, **kwargs: Any
) -> Any:
    """`function(*args, **kwargs)`, and a Timeout, or `timeout_value` if that is given, if it takes too long."""
    limit = Timeout(seconds)
    try:
        return function(*args, **kwargs)
    except Timeout as error:
        if error is not limit or timeout_value is _NONE:
            raise
        return timeout_value
    finally:
        limit.cancel()


def is_timeout(error: object) -> bool:
    """Is this a Timeout, or an error of another kind that says that time is up?"""
    return isinstance(error, TimeoutError) or bool(getattr(error, "is_timeout", False))


__all__ = ["Timeout", "is_timeout", "with_timeout"]
