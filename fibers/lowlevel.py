"""For people who build on the scheduler: raw parking, and waiting for file descriptors that somebody else owns.

A *borrowed* fd belongs to a C library or to other code, which may close it at any time without telling us. Lifetime
registration would be unsound for it, so these waits register and unregister for each call. If the number is registered
already (it is a socket of ours, or somebody else waits for it), the wait uses a duplicate of the fd: a registration of
its own on the same open file.
"""

import os
import select
from collections.abc import Callable
from typing import Any, Final

from .core.cancel import surface
from .core.fiber import Fiber
from .core.scheduler import get_scheduler
from .core.waitqueue import WaitQueue
from .errors import Cancelled, ClosedError
from .eventloop import CLOSED, FOREVER, READ, TIMED_OUT, WRITE, Direction

__all__ = ["park", "unpark", "wait_readable", "wait_writable"]


class _Parked(WaitQueue):
    """Where `park` waits. Anything may call `unpark`, also a C library from a thread of its own."""

    __slots__ = ()

    inside = False

    def __repr__(self) -> str:
        return "lowlevel.unpark"


_parked: Final = _Parked()


def park(timeout: float | None = None) -> None:
    """Suspend the current fiber until somebody calls `unpark` for it.

    An `unpark` that comes first is remembered (once): the next `park` then returns at once. Raises TimeoutError after
    `timeout` seconds.
    """
    scheduler = get_scheduler()
    me = scheduler.current
    if me is None:
        raise scheduler.refuse()
    deadline = scheduler.deadline(timeout)
    while True:
        try:
            _parked.add(me)
            if me._permit and _parked.abandon(me):
                break
            outcome = scheduler.park(me, _parked, deadline)
        except BaseException as error:
            _parked.abandon(me)
            if timeout is not None and isinstance(error, Cancelled):
                surface(me, f"fiber {me.name!r} was not unparked when a deadline passed")
            raise
        if me._permit:
            break
        if outcome is TIMED_OUT:
            raise TimeoutError(f"fiber {me.name!r} was not unparked within {timeout} seconds")
    me._permit = False


def unpark(fiber: Fiber[Any]) -> None:
    """End the `park` of a fiber, or its next one if it is not parked. From any thread."""
    if not isinstance(fiber, Fiber):
        raise TypeError(f"unpark() takes a fiber, not {fiber!r}")
    fiber._permit = True
    if _parked.abandon(fiber):
        fiber.scheduler.wake(fiber)


def wait_readable(fd: int | Any, timeout: float | None = None) -> None:
    """Wait until an fd (a number, or an object with `fileno()`) that other code owns can be read.

    Raises TimeoutError after `timeout` seconds (0: look once), OSError or ValueError if it is no open file,
    ClosedError if it is closed meanwhile and that is noticed. Any thread; several may wait for one fd.
    """
    _wait(fd, READ, select.POLLIN, timeout)


def wait_writable(fd: int | Any, timeout: float | None = None) -> None:
    """As `wait_readable`, until the fd can be written."""
    _wait(fd, WRITE, select.POLLOUT, timeout)


def _number(fd: int | Any) -> int:
    number = fd if isinstance(fd, int) else fd.fileno() if hasattr(fd, "fileno") else None
    if not isinstance(number, int) or isinstance(fd, bool):
        raise TypeError(f"a file descriptor (int) or an object with fileno() is needed, not {fd!r}")
    if number < 0:
        raise ValueError(f"file descriptor cannot be a negative integer ({number})")
    os.fstat(number)  # EBADF for a number that is no open file
    return number


def _wait(fd: int | Any, interest: int, events: int, timeout: float | None) -> None:
    scheduler = get_scheduler()
    me = scheduler.current
    if me is None:
        raise scheduler.refuse()
    deadline = scheduler.deadline(timeout) or FOREVER
    number = _number(fd)
    scheduler.check_interrupt(me)
    if _ready(number, events):
        return
    if timeout == 0:
        raise TimeoutError(f"fd {number} is not ready")
    if scheduler.loop.taken(number):
        number = os.dup(number)
        finish: Callable[[], None] = _Close(number)
    else:
        finish = _nothing
    loop = scheduler.loop
    handle = loop.handle(number, False)
    direction: Direction = handle.reading if interest == READ else handle.writing
    try:
        while True:
            direction.holder = direction.waiter = me
            me.deadline = deadline
            if not scheduler.watch(me, direction, deadline):
                return
            outcome = scheduler.park(me, direction)
            if outcome is CLOSED:
                raise ClosedError(f"fd {number} was closed")
            if _ready(number, events):
                return
            if outcome is TIMED_OUT:
                raise TimeoutError(f"fd {number} was not ready within {timeout} seconds")
    except Cancelled:
        if timeout is not None:
            surface(me, f"fd {number} was not ready when a deadline passed")
        raise
    finally:
        direction.holder = direction.waiter = None
        scheduler.in_runtime(loop.release, handle, finish)


def _ready(fd: int, events: int) -> bool:
    look = select.poll()
    look.register(fd, events)
    return bool(look.poll(0))


class _Close:
    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __call__(self) -> None:
        os.close(self._fd)


def _nothing() -> None:
    """The fd is not ours to close."""
