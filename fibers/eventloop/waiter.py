"""What waits, as far as a loop may know it, and why it was woken.

A waiter is opaque: something that a loop appends to a ready queue, exactly once for each time it was left waiting,
and never runs. Whoever takes a waiter out of the place where it waits is the one who wakes it; nobody else may.
"""

from typing import Final, Protocol


class Outcome:
    """Why a waiter was woken when it was not for readiness. Compared by identity."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


TIMED_OUT: Final = Outcome("TIMED_OUT")  # the waiter's deadline passed
CLOSED: Final = Outcome("CLOSED")  # the file was closed under it
RETRY: Final = Outcome("RETRY")  # the file moved to another loop, or its loop ended: start the operation again


class Waiter(Protocol):
    """What a loop may touch of the thing that waits."""

    #: None for a plain wake-up. Set by whoever wakes, before it appends the waiter to the ready queue.
    outcome: Outcome | None
    #: When the current wait ends with TIMED_OUT, on the loop's clock; FOREVER for never. Set by the waiter itself.
    deadline: float
