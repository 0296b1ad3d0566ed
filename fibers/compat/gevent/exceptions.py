"""gevent.exceptions: the errors that other modules here raise, or that programs name."""

from ...errors import DeadlockError


class LoopExit(DeadlockError):
    """Nothing can end a wait. Here raised as its base, where a deadlock can be proved: catch that."""


class BlockingSwitchOutError(AssertionError):
    """Never raised here: code that may not block gets a RuntimeError."""


class InvalidSwitchError(AssertionError):
    """Never raised here."""


class ConcurrentObjectUseError(AssertionError):
    """Never raised here: several fibers may wait on one file."""


class InvalidThreadUseError(RuntimeError):
    """Never raised here: every object may be used by several threads."""


class HubDestroyed(Exception):
    """Never raised here."""
