"""A descriptor: one file in a loop that registers files for their lifetime.

It adds to a handle what such a loop must know: whether the file is in its tables (*owned*, from its first wait), and
which directions the kernel has been told of. Both change only under the ownership lock or in the loop's thread.
"""

from .clock import FOREVER
from .turns import Handle, Home


class Descriptor(Handle):
    """See the module's text."""

    __slots__ = ("owned", "registered")

    def __init__(self, fd: int, loop: Home, earlier: Handle | None = None) -> None:
        """`earlier`: a handle of the same file in another loop, which it never had to register: its observers, who wait for
        nothing but the close of the file, are told by this one from now on.
        """
        super().__init__(fd, loop)
        if earlier is not None and earlier.observers:
            successors = {earlier.reading: self.reading, earlier.writing: self.writing}
            self.observers = {successors[each]: observers for each, observers in earlier.observers.items()}
        self.owned = False
        self.registered = 0  # interest bits that the kernel has

    def forget_all(self) -> None:
        """In a forked child: nobody waits, nothing is registered, anything may be ready."""
        self.owned = False
        self.registered = 0
        self.observers = None
        for direction in (self.reading, self.writing):
            direction.waiter = direction.queue = direction.timer = direction.holder = None
            direction.alarm = FOREVER
            direction.armed = False
            direction.edges += 1
