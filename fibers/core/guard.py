"""One lock for the whole process, for the few steps in which the state of a shared primitive changes.

Facts, and what follows:

* Threads may use one queue or channel at once, so steps that belong together need a lock. It is held for a microsecond
  and never across a switch; so a thread that finds it taken just tries again. One lock for all of them leaves no order
  to get wrong (a select looks at many channels), and is made anew in a forked child, where its holder may be missing.
* CPython runs finalisers and signal handlers between any two instructions, also in here. A plain lock would have them
  wait for themselves, a re-entrant one would show them half a change. So re-entering is noticed, and refused.
* What can be decided by one atomic step (`deque.popleft`, `dict.pop`, a C lock) needs no guard, and is usable from
  anywhere. Prefer that.

Whoever deletes the only entry of the dict `free` is inside, and puts it back to leave: each is one atomic step, and a
third of the cost of a lock's two calls. Besides, neither is a call. CPython runs signal handlers (and switches threads)
only at calls, at the start of functions and at backward jumps, so a handler that raises can part none of these:

    try:
        del free[0]
    except KeyError:
        guard.wait()
    guard.owner = thread        # its ident, looked up before
    try:
        ...                     # here it can, but then the `finally` follows
    finally:
        guard.owner = 0
        free[0] = None

That is how hot paths write it, and who must survive such handlers: `with guard:` does the same by calls.
"""

import os
from _thread import get_ident
from time import sleep
from typing import Final


class Guard:
    """Used as in the module's text. Any thread. Nothing inside may wait or call user code."""

    __slots__ = ("free", "owner")

    def __init__(self) -> None:
        self.free: Final[dict[int, None]] = {0: None}  # empty while somebody is inside
        self.owner = 0  # the ident of that thread

    def __enter__(self) -> None:
        me = get_ident()
        try:
            del self.free[0]
        except KeyError:
            self.wait()
        self.owner = me

    def __exit__(self, *error: object) -> None:
        self.owner = 0
        self.free[0] = None

    def wait(self) -> None:
        """Enter, where somebody else is inside. Raises RuntimeError if that is this very thread."""
        me = get_ident()
        if self.owner == me:
            raise RuntimeError(
                "a signal handler or a finaliser uses a queue or a channel while its thread is in the middle of using "
                "one; put into a SimpleQueue, or spawn a fiber that does it"
            )
        tries = 0
        while True:
            sleep(0 if tries < 100 else 0.000_01)  # lets the other thread have the interpreter
            tries += 1
            try:
                del self.free[0]
            except KeyError:
                continue
            self.owner = me
            return

    def renew(self) -> None:
        """In a forked child: whoever was inside may not exist here."""
        self.owner = 0
        self.free[0] = None


guard: Final = Guard()

os.register_at_fork(after_in_child=guard.renew)
