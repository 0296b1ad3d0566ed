"""Event: a flag that fibers and threads wait for."""

from typing import Final

from ..core.choosing import Setting
from ..core.waitqueue import Giver, WaitQueue
from ..eventloop.waiter import RETRY
from .waiting import here, until, wait


class Event(Giver):
    """As threading.Event: false at first; `wait` waits until it is true.

    For fibers and threads at once. `set` may be called from signal handlers and finalisers.
    """

    __slots__ = ("__weakref__", "_flag", "_waiting")

    def __init__(self) -> None:
        self._flag = False
        self._waiting: Final = WaitQueue()

    def is_set(self) -> bool:
        """Is it true now?"""
        return self._flag

    def set(self) -> None:
        """Make it true and wake everybody who waits; they all see it true, also if it is cleared at once."""
        self._flag = True
        if self._waiting._waiting:
            self._waiting.wake_all(self)

    def clear(self) -> None:
        """Make it false."""
        self._flag = False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is true, and return True; False after `timeout` seconds (None: no limit; 0 or less: look once)."""
        if self._flag:
            return True
        if timeout is not None and timeout <= 0:
            return False
        scheduler, me = here()
        deadline = until(scheduler, timeout)
        while (outcome := wait(scheduler, me, self._waiting, self, self.is_set, deadline, self)) is RETRY:
            if self._flag:
                return True
        return outcome is self

    def setting(self) -> Setting:
        """For `select`: the case that it is true."""
        return Setting(self, self._waiting)

    def _at_fork_reinit(self) -> None:
        """Make it as new, in a forked child (`threading` asks for that)."""
        self._waiting._waiting.clear()
        self._flag = False

    def __repr__(self) -> str:
        return f"<fibers.{type(self).__name__} at {id(self):#x}: {'set' if self._flag else 'unset'}>"
