"""A descriptor: one file in a loop that registers files for their lifetime.

It adds to a handle what such a loop must know: whether the file is in its tables (*owned*, from its first wait), and
which directions the kernel has been told of. Both change only under the ownership lock or in the loop's thread.
"""

from .clock import FOREVER
from .turns import Handle, Home


class Descriptor(Handle):
    """See the module's text."""

    __slots__ = ("owned", "registered")

    def __init__(self, fd: int, loop: Home) -> None:
        super().__init__(fd, loop)
        self.owned = False
        self.registered = 0  # interest bits that the kernel has

    def forget_all(self) -> None:
        """In a forked child: nobody waits, nothing is registered, anything may be ready."""
        self.owned = False
        self.registered = 0
        self.observed = False
        for direction in (self.reading, self.writing):
            direction.waiter = direction.queue = direction.timer = direction.holder = direction.observers = None
            direction.alarm = FOREVER
            direction.armed = False
            direction.edges += 1
