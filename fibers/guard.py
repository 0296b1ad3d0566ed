"""One lock for the whole process, for the few steps in which the state of a shared primitive changes.

Facts, and what follows:

* Threads may use one queue or channel at once, so steps that belong together need a lock. It is held for a microsecond
  and never across a switch; so a thread that finds it taken may simply block. One lock for all of them leaves no order
  to get wrong (a select looks at many channels), and is made anew in a forked child, where its holder may be missing.
* CPython runs finalisers and signal handlers between any two instructions, also in here. A plain lock would have them
  wait for themselves, a re-entrant one would show them half a change. So re-entering is noticed, and refused.
* What can be decided by one atomic step (`deque.popleft`, `dict.pop`, a C lock) needs no guard, and is usable from
  anywhere. Prefer that.
"""

import os
from _thread import RLock
from typing import Final


class Guard:
    """Used as `with guard:`. Any thread. Nothing inside may wait, call user code, or raise halfway."""

    __slots__ = ("_busy", "_lock")

    def __init__(self) -> None:
        self._lock = RLock()
        self._busy = False

    def __enter__(self) -> None:
        self._lock.acquire()
        if self._busy:
            self._lock.release()
            raise RuntimeError(
                "a signal handler or a finaliser uses a queue or a channel while its thread is in the middle of using "
                "one; put into a SimpleQueue, or spawn a fiber that does it"
            )
        self._busy = True

    def __exit__(self, *error: object) -> None:
        self._busy = False
        self._lock.release()

    def renew(self) -> None:
        """In a forked child: whoever held it may not exist here."""
        self._lock = RLock()
        self._busy = False


guard: Final = Guard()

os.register_at_fork(after_in_child=guard.renew)
