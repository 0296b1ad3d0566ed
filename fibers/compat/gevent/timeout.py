"""gevent.timeout: an exception that is raised in a fiber, once, when time is up.

A Timeout is a BaseException, and it is the exception that is raised itself, so that whoever catches one can tell whether it
is his. It can be started, cancelled and started again. (striking.py has the mechanism.)
"""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

from ..striking import Strike
from .hub import as_error

#: `with_timeout` has been given no value.
_NONE: Final = object()


class Timeout(BaseException):
    """Raised in the fiber that has started it, `seconds` after that. None: never.

    `exception` (an instance or a class) is raised instead, if it is given; False: this one is, and a `with` block of this
    Timeout ends without an error; a str is a part of the message. `ref` and `priority` mean nothing here.
    """

    def __init__(
        self, seconds: float | None = None, exception: Any = None, ref: bool = True, priority: int = -1
    ) -> None:
        super().__init__()
        self.seconds = seconds
        self.exception = exception
        self._strike: Strike | None = None

    @classmethod
    def start_new(cls, timeout: "float | Timeout | None" = None, exception: Any = None, ref: bool = True) -> "Timeout":
        """A Timeout that has been started. One that is given is started, if it is not pending."""
        made = timeout if isinstance(timeout, Timeout) else cls(timeout, exception, ref)
        if not made.pending:
            made.start()
        return made

    #: What gevent calls where a timeout may be None; others do, too.
    _start_new_or_dummy = start_new

    @property
    def pending(self) -> bool:
        """Has it been started, and is still to come?"""
        return self._strike is not None and self._strike.pending

    def start(self) -> None:
        """Begin to count. AssertionError if it is pending."""
        if self.pending:
            raise AssertionError(f"{self!r} is already started; to restart it, cancel it first")
        self.cancel()
        if self.seconds is not None:
            self._strike = Strike(self.seconds, self._raised())

    def cancel(self) -> None:
        """It shall not be raised any more; it may be started again."""
        strike, self._strike = self._strike, None
        if strike is not None:
            strike.withdraw()

    close = cancel

    def _raised(self) -> BaseException:
        """What is raised when time is up."""
        if self.exception is None or self.exception is False or isinstance(self.exception, str):
            return self
        return as_error(self.exception)

    def __enter__(self) -> Self:
        if not self.pending:
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self.cancel()
        return error is self and self.exception is False

    def __lt__(self, other: Any) -> bool:
        mine = self.seconds if self.seconds is not None else float("inf")
        theirs = getattr(other, "seconds", other)
        return mine < (theirs if theirs is not None else float("inf"))

    def __repr__(self) -> str:
        exception = "" if self.exception is None else f" exception={self.exception!r}"
        pending = " pending" if self.pending else ""
        return f"<{type(self).__name__} at {id(self):#x} seconds={self.seconds}{exception}{pending}>"

    def __str__(self) -> str:
        if self.seconds is None:
            return ""
        told = f"{self.seconds} second{'' if self.seconds == 1 else 's'}"
        if self.exception is None:
            return told
        return f"{told} (silent)" if self.exception is False else f"{told}: {self.exception}"


def with_timeout(
    seconds: float | Timeout | None,
    function: Callable[..., Any],
    *args: Any,
    timeout_value: Any = _NONE,
    **kwargs: Any,
) -> Any:
    """`function(*args, **kwargs)`, and a Timeout, or `timeout_value` if that is given, if it takes too long."""
    timeout = Timeout.start_new(seconds)
    try:
        return function(*args, **kwargs)
    except Timeout as error:
        if error is not timeout or timeout_value is _NONE:
            raise
        return timeout_value
    finally:
        timeout.cancel()


def bounded(wait: Callable[[float | None], bool], timeout: float | Timeout | None) -> bool:
    """Call `wait(seconds)`, which tells whether it has got what it waited for, with what users give as a timeout.

    False also if a Timeout that was given has been raised meanwhile. (What it raises in place of itself is raised.)
    """
    if not isinstance(timeout, Timeout):
        return wait(None if timeout is None else max(timeout, 0))
    running = timeout.pending
    if not running:
        timeout.start()
    try:
        return wait(None)
    except Timeout as error:
        if error is not timeout:
            raise
        return False
    finally:
        if not running:
            timeout.cancel()


def expired(timeout: float | Timeout | None) -> BaseException:
    """What `get` raises when `bounded` has returned False."""
    return timeout._raised() if isinstance(timeout, Timeout) else Timeout(timeout)


__all__ = ["Timeout", "with_timeout"]
