"""The errors of this package, each saying whose fault it is.

Two families never mix. What is raised *inside* a fiber to make it stop (`Cancelled`, `FiberKilled`) derives from
BaseException, so that no `except Exception` in a driver swallows it. What somebody else sees of it
(`FiberCancelled`) is an ordinary Exception. Network errors stay the standard library's own types and errno, and a
deadline is the builtin TimeoutError.
"""

import errno


class ClosedError(OSError):
    """The file was closed (by this program) before or while an operation on it waited. Its errno is EBADF."""

    def __init__(self, message: str = "the file was closed") -> None:
        super().__init__(errno.EBADF, message)


class OwnershipError(RuntimeError):
    """A thread would have to wait for a file that another thread's loop is waiting for at this moment."""


class BusyError(RuntimeError):
    """Another fiber is at it, and two at once would disturb each other."""


class ChannelClosed(Exception):
    """The channel was closed: nothing can be sent any more, and what was sent before has been received."""


class Cancelled(BaseException):
    """Raised in a cancelled fiber at its current and at every further blocking call. Let it pass."""


class FiberKilled(BaseException):
    """Raised once in a fiber by `Fiber.kill()`. Let it pass."""


class FiberCancelled(Exception):
    """What a joiner gets from `result()` of a fiber that ended by cancellation or by `kill()`."""


class LoopClosedError(RuntimeError):
    """The thread's scheduler has been shut down (thread or interpreter exit); nothing can wait in it any more."""


class DeadlockError(RuntimeError):
    """Raised in the main fiber when all fibers of the program wait for each other. Its text tells who waits for what."""


class ContractError(AssertionError):
    """A checked event loop (FIBERS_DEBUG=loop) has broken a rule of its contract: `rule` is its name (see checked.py)."""

    def __init__(self, rule: str, what: str) -> None:
        super().__init__(rule, what)
        self.rule = rule

    def __str__(self) -> str:
        return f"an event loop has broken the rule {self.rule!r}: {self.args[1]}"
