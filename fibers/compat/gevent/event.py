"""gevent.event: Event and AsyncResult."""

from types import TracebackType
from typing import Any

from ...sync import event
from ._links import Linkable
from .hub import as_error
from .timeout import Timeout, bounded, expired


class Event(Linkable):
    """A flag that fibers wait for. False at first. For several threads at once."""

    def __init__(self) -> None:
        super().__init__()
        self._event = event.Event()

    def is_set(self) -> bool:
        """Is it true?"""
        return self._event.is_set()

    ready = isSet = is_set  # noqa: N815

    def set(self) -> None:
        """Make it true, wake who waits, and call the links."""
        self._event.set()
        self._notify()

    def clear(self) -> None:
        """Make it false."""
        self._event.clear()

    def wait(self, timeout: float | Timeout | None = None) -> bool:
        """Wait until it is true. False after `timeout` seconds."""
        return bounded(self._event.wait, timeout)

    def linkcount(self) -> int:
        """How many wait for it, or have linked to it."""
        return len(self._event._waiting) + super().linkcount()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {id(self):#x} {'set' if self.is_set() else 'clear'}>"


class AsyncResult(Linkable):
    """A value, or an exception, that comes later. For several threads at once.

    As a link it takes what a greenlet has come to: `greenlet.link(result)`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._event = event.Event()
        self._value: Any = None
        self._error: BaseException | None = None
        self._traceback: TracebackType | None = None

    def ready(self) -> bool:
        """Has it come?"""
        return self._event.is_set()

    done = ready

    def successful(self) -> bool:
        """Has a value come?"""
        return self.ready() and self._error is None

    @property
    def value(self) -> Any:
        """What has come; None if nothing has."""
        return self._value

    @property
    def exception(self) -> BaseException | None:
        """What has come, if that is an exception."""
        return self._error

    @property
    def exc_info(self) -> tuple[Any, ...]:
        """The same, as `sys.exc_info()`; () if there is none."""
        return () if self._error is None else (type(self._error), self._error, self._traceback)

    def set(self, value: Any = None) -> None:
        """Let a value come."""
        self._value, self._error, self._traceback = value, None, None
        self._event.set()
        self._notify()

    set_result = set

    def set_exception(self, exception: Any, exc_info: Any = None) -> None:
        """Let an exception come."""
        error = as_error(*exc_info) if exc_info else as_error(exception)
        self._value, self._error, self._traceback = None, error, error.__traceback__
        self._event.set()
        self._notify()

    def get(self, block: bool = True, timeout: float | Timeout | None = None) -> Any:
        """Wait for it: the value, or the exception, raised. Raises Timeout after `timeout` seconds, or unless `block`."""
        if not self.ready():
            if not block:
                raise Timeout()
            if not bounded(self._event.wait, timeout):
                raise expired(timeout)
        if self._error is not None:
            raise self._error.with_traceback(self._traceback)
        return self._value

    def result(self, timeout: float | Timeout | None = None) -> Any:
        """`get(timeout=timeout)`."""
        return self.get(timeout=timeout)

    def get_nowait(self) -> Any:
        """`get(block=False)`."""
        return self.get(block=False)

    def wait(self, timeout: float | Timeout | None = None) -> Any:
        """Wait for it: the value; None after `timeout` seconds, and for an exception, which is not raised."""
        bounded(self._event.wait, timeout)
        return self._value

    def linkcount(self) -> int:
        """How many wait for it, or have linked to it."""
        return len(self._event._waiting) + super().linkcount()

    def cancel(self) -> bool:
        """False: a result cannot be cancelled."""
        return False

    cancelled = cancel

    def __call__(self, source: Any) -> None:
        """As a link."""
        if source.successful():
            self.set(source.value)
        else:
            self.set_exception(source.exception, getattr(source, "exc_info", None))

    def __repr__(self) -> str:
        told = "" if not self.ready() else f" value={self._value!r}" if self._error is None else f" {self._error!r}"
        return f"<{type(self).__name__} at {id(self):#x}{told}>"


__all__ = ["AsyncResult", "Event"]
