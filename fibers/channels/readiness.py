"""Cases of `select` for files: `readable(sock)`, `writable(sock)`.

They look and do not touch. A file whose loop registers it for its lifetime is *observed* (eventloop/turns.py): the select
XX
Which files those are, code above this floor knows; it puts a function into `finders`. Everything else is borrowed
(lowlevel.py): registered for the time of the wait, as a duplicate if the number is known already. So is a file that
another thread waits for: selecting it is no reason for an OwnershipError, unless FIBERS_OWNERSHIP=strict asks for one.
"""

import os
import select
from collections.abc import Callable
from io import UnsupportedOperation
from typing import Any, Final

from ..core.choosing import NOTHING, Case, Choice, Offer
from ..core.fiber import Fiber
from ..errors import ClosedError
from ..eventloop import FOREVER, READ, WRITE, Direction, EventLoop
from ..lowlevel import _Close, _nothing, _ready

#: Asked for each file, with the interest and the loop in which it is to be waited for: the direction to observe, None if
#: this is not one of theirs. May raise ClosedError.
finders: Final[list[Callable[[Any, int, EventLoop], Direction | None]]] = []

#: Asked before the kernel: is something to be read from this file here already (received ahead, as TLS does)?
holders: Final[list[Callable[[Any], bool]]] = []


def readable(file: int | Any) -> "Readiness":
    """For `select`: the case that a file (a socket, an object with `fileno()`, a number) can be read, or is at its end.

    Its value is None; or ClosedError (the class) if the file was closed. Nothing is read. Raises TypeError or ValueError
    for what is no file.
    """
    return Readiness(file, READ)


def writable(file: int | Any) -> "Readiness":
    """As `readable`: the case that it can be written."""
    return Readiness(file, WRITE)


class Readiness(Case):
    """`file` can be read, or written."""

    __slots__ = ("_interest", "file")

    inside = False

    def __init__(self, file: int | Any, interest: int) -> None:
        if isinstance(file, bool) or not (
            isinstance(file, int) or (hasattr(file, "fileno") and isinstance(_number(file), int))
        ):
            raise TypeError(f"a file descriptor (int) or an object with fileno() is needed, not {file!r}")
        if isinstance(file, int) and file < 0:
            raise ValueError(f"file descriptor cannot be a negative integer ({file})")
        self.file = file
        self._interest = interest

    def look(self, fiber: Fiber[Any]) -> object:
        try:
            direction = self._direction(fiber)
        except ClosedError:
            return ClosedError
        if direction is None:
            number = _number(self.file)
            if number < 0:
                return ClosedError
            os.fstat(number)  # EBADF for a number that is no open file
        else:
            number = direction.handle.fd
        if self._interest == READ and any(held(self.file) for held in holders):
            return None
        ready = _ready(number, select.POLLIN if self._interest == READ else select.POLLOUT)
        if direction is not None and direction.closed:
            return self.look(fiber)  # closed or moved by another thread, just now
        return None if ready else NOTHING

    def enter(self, choice: Choice) -> bool:
        fiber = choice.fiber
        scheduler: Any = fiber.scheduler
        loop: EventLoop = scheduler.loop
        borrowed: Callable[[], None] | None = None
        try:
            direction = self._direction(fiber)
        except ClosedError:
            return True
        if direction is None:
            number = _number(self.file)
            if number < 0:
                return True
            if loop.taken(number):
                number = os.dup(number)
                borrowed = _Close(number)
            else:
                borrowed = _nothing
            handle = loop.handle(number, False)
            direction = handle.reading if self._interest == READ else handle.writing
        observer = _Observer(choice, self, direction, borrowed)
        choice.offers.append(observer)
        direction.observe(observer)
        return not direction.armed and not scheduler.watch(fiber, direction, FOREVER)

    def _direction(self, fiber: Fiber[Any]) -> Direction | None:
        scheduler: Any = fiber.scheduler
        for find in finders:
            direction = find(self.file, self._interest, scheduler.loop)
            if direction is not None:
                return direction
        return None

    def __repr__(self) -> str:
        number = _number(self.file)
        return f"{'a closed file' if number < 0 else f'fd {number}'} ({'read' if self._interest == READ else 'write'})"


class _Observer(Offer):
    """A choice at a direction. `borrowed`: the direction is of a handle made for this, which that gives back."""

    __slots__ = ("_borrowed",)

    queue: Direction

    def __init__(self, choice: Choice, case: Case, direction: Direction, borrowed: Callable[[], None] | None) -> None:
        super().__init__(choice, case, direction)
        self._borrowed = borrowed

    def notice(self) -> None:
        choice, fiber = self.choice, self.choice.fiber
        if choice.abandon(fiber):  # claimed without a case: the select looks for itself
            fiber.scheduler.ready.append(fiber)

    def withdraw(self) -> None:
        scheduler: Any = self.choice.fiber.scheduler
        direction = self.queue
        scheduler.in_runtime(direction.unobserve, self)
        borrowed, self._borrowed = self._borrowed, None
        if borrowed is not None:
            scheduler.in_runtime(scheduler.loop.release, direction.handle, borrowed)


def _number(file: Any) -> int:
    """Its fd; -1 if it is closed."""
    try:
        number: int = file if isinstance(file, int) else file.fileno()
    except UnsupportedOperation:
        raise  # there is none, nor has been
    except ValueError:
        return -1  # so say the file objects of the standard library
    return number
