"""Which loop owns which fd: one table for the process, changed rarely.

The rule (RFC.md, "Ownership"): an fd is owned by the loop in which it first waits. A thread that would have to wait
for it in another loop gets it, if no operation is pending in the owner, and OwnershipError otherwise.

`owners` is looked at when a file waits for the first time in a loop, moves, or closes; never while it is used in its
own thread. The lock is re-entrant because a finaliser or signal handler may close a file while its thread is in here;
each step below leaves the table whole.
"""

import os
import threading
from typing import Final

from ..errors import OwnershipError
from .descriptor import Descriptor

_STRICT_VALUES: Final = {"": False, "default": False, "strict": True}


def _read_strict() -> bool:
    value = os.environ.get("FIBERS_OWNERSHIP", "")
    if value not in _STRICT_VALUES:
        raise ValueError(f"FIBERS_OWNERSHIP={value!r} is not known; use 'strict', or leave it unset")
    return _STRICT_VALUES[value]


#: FIBERS_OWNERSHIP=strict: every wait on an fd that another loop owns is an error, pending operation or not.
STRICT: Final = _read_strict()

lock = threading.RLock()
owners: dict[int, Descriptor] = {}


def refuse(handle: Descriptor, thread: int) -> OwnershipError:
    """The error for a wait in `thread` on a file that another thread's loop owns."""
    names = {each.ident: each.name for each in threading.enumerate()}
    owner = handle.loop
    assert owner is not None
    waiting = [
        f"{word} by {holder!r}"
        for word, holder in (("reading", handle.reading.holder), ("writing", handle.writing.holder))
        if holder is not None
    ]
    state = "with operations pending there: " + ", ".join(waiting) if waiting else "and FIBERS_OWNERSHIP=strict"
    return OwnershipError(
        f"fd {handle.fd} belongs to the {owner.name} loop of thread {names.get(owner.thread, owner.thread)!r}, {state}; "
        f"thread {names.get(thread, thread)!r} cannot wait for it now. Finish the operation in its thread first, or "
        f"give this thread an fd of its own with dup()."
    )


def after_fork() -> None:
    """In the child no other thread lives, so nobody holds the lock, and no loop owns anything."""
    global lock
    lock = threading.RLock()
    owners.clear()
