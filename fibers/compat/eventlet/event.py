"""eventlet.event: Event, something that is sent once and that many may wait for."""

from typing import Any, Final

from ...sync import event
from ..gevent.hub import as_error

#: Nothing has been sent.
NOT_USED: Final = object()


class Event:
    """A result, or an exception, that is sent once. May be used by several threads."""

    def __init__(self) -> None:
        self._event = event.Event()
        self._result: Any = NOT_USED
        self._error: BaseException | None = None

    def reset(self) -> None:
        """As new. AssertionError if nothing has been sent."""
        if not self.ready():
            raise AssertionError("Trying to re-reset() a fresh event.")
        self.__init__()  # type: ignore[misc]

    def ready(self) -> bool:
        """Has something been sent?"""
        return self._event.is_set()

    def has_result(self) -> bool:
        """Was it a result?"""
        return self.ready() and self._error is None

    def has_exception(self) -> bool:
        """Was it an exception?"""
        return self._error is not None

    def send(self, result: Any = None, exc: Any = None) -> None:
        """Send a result, or an exception. AssertionError if something has been sent before."""
        if self.ready():
            raise AssertionError("Trying to re-send() an already-triggered event.")
        if exc is not None:
            self._error = as_error(*exc) if isinstance(exc, tuple) else as_error(exc)
        self._result = result
        self._event.set()

    def send_exception(self, *args: Any) -> None:
        """Send an exception, given as to `raise`."""
        self.send(None, args)

    def wait(self, timeout: float | None = None) -> Any:
        """Wait for what is sent: the result, or the exception, raised. None after `timeout` seconds."""
        if not self._event.wait(timeout):
            return None
        if self._error is not None:
            raise self._error
        return self._result

    def poll(self, notready: Any = None) -> Any:
        """What was sent, as `wait`; `notready` if nothing was."""
        return self.wait() if self.ready() else notready

    def poll_result(self, notready: Any = None) -> Any:
        """The result; `notready` if none was sent."""
        return self._result if self.has_result() else notready

    def poll_exception(self, notready: Any = None) -> Any:
        """Raise the exception; `notready` if none was sent."""
        return self.wait() if self.has_exception() else notready


__all__ = ["NOT_USED", "Event"]
