"""How an operation waits: try, wait for an edge, try again, as long as the timeout allows.

The order in which things are looked at, in every operation:

1. Is somebody else's operation under way in this direction? Then queue for the turn (turns.py).
2. Does the latch say that trying is worth it? If not, wait at once: one failing system call saved per request.
3. Woken by an edge, a deadline or a close: closed is an error; in the other cases try, so that data beats a timeout.
4. Interrupted (cancelled, killed) only when about to wait: what has been received is never thrown away.

A short read means that the buffer is empty only for TCP without flags, before a hang-up has been seen; there the latch
is cleared without the failing call (see turns.py on how that cannot lose an edge). For unix streams the kernel is asked
how much is left, which is cheaper than a call that fails.
"""

import errno
from collections.abc import Callable
from typing import Any

from ..core.cancel import surface
from ..core.fiber import Fiber
from ..core.scheduler import Scheduler, get_scheduler
from ..core.scheduler import state as thread
from ..core.standby import Standby
from ..errors import BusyError, Cancelled, ClosedError
from ..eventloop import CALLING, FOREVER, TIMED_OUT, Direction
from .state import CREDIT, State, claim, empty


def blocking(sock: Any, state: State, direction: Direction, size: int, call: Callable[..., Any], *args: Any) -> Any:
    """Make `call(sock, *args)` in its turn, waiting for edges, until it does not raise BlockingIOError.

    `size` > 0 says that the call reads at most that many bytes of a stream and may use the short-read shortcut.
    """
    timeout = state.timeout
    if timeout == 0.0:
        return call(sock, *args)
    return until(deadline_after(timeout), sock, state, direction, size, call, *args)


def deadline_after(timeout: float | None) -> float:
    """When an operation that starts now has taken `timeout` seconds (None: never), on the clock of this thread's loop."""
    return FOREVER if timeout is None else (thread.scheduler or get_scheduler()).loop.clock() + timeout


def until(
    deadline: float, sock: Any, state: State, direction: Direction, size: int, call: Callable[..., Any], *args: Any
) -> Any:
    """As `blocking`, with a time on the loop's clock in place of the socket's timeout."""
    scheduler = thread.scheduler
    if scheduler is None:
        scheduler = get_scheduler()
    me = scheduler.current
    if me is None:
        raise scheduler.refuse()
    loop = scheduler.loop
    if direction.loop is not loop:
        direction = claim(state, direction, loop)
    me.deadline = deadline
    holder = direction.holder
    if holder is None or holder is CALLING:
        direction.holder = me
    elif not _queue(direction, scheduler, me, deadline):
        return until(deadline, sock, state, claim(state, direction, loop), size, call, *args)
    outcome = None
    try:
        while not direction.closed:
            if direction.edges == direction.drained:
                direction.waiter = me
                if (direction.armed and deadline >= direction.alarm) or scheduler.watch(me, direction, deadline):
                    state.credit = CREDIT
                    outcome = scheduler.park(me, direction)
                    if direction.closed:
                        break
                direction.waiter = None
            seen = direction.edges
            try:
                result = call(sock, *args)
            except BlockingIOError:
                direction.drained = seen
                if outcome is TIMED_OUT:
                    raise TimeoutError("timed out") from None
                continue
            except OSError as error:
                if error.errno == errno.EBADF and direction.closed:
                    break  # another thread has closed it under the call
                raise
            if size and not direction.hangup and _short(result, size) and (state.shortcut is True or empty(state)):
                direction.drained = seen
            elif outcome is TIMED_OUT and seen == direction.drained:
                # It worked without an edge: there is some room, less than a socket tells of. The next call tries first.
                direction.edges += 1
            return result
    except Cancelled:
        surface(me)
        raise
    finally:
        direction.waiter = None
        if direction.queue:
            direction.release()
        else:
            direction.holder = None
    # Closed, or moved to another loop: `claim` knows which.
    return until(deadline, sock, state, claim(state, direction, loop), size, call, *args)


def _short(result: Any, size: int) -> bool:
    """Is what a receiving call returned (the bytes, or their number) less than was asked for?"""
    return (result if result.__class__ is int else len(result)) < size


def _queue(direction: Direction, scheduler: Any, me: Any, deadline: float) -> bool:
    """Wait for the turn, which is `me`'s on return. False if the direction was closed or moved meanwhile."""
    try:
        direction.enqueue(me)
        if deadline < direction.alarm:
            scheduler.in_runtime(direction.set_alarm, deadline)
        outcome = scheduler.park(me, direction)
    except BaseException as error:
        if not direction.abandon(me) and direction.holder is me:
            direction.release()
        if isinstance(error, Cancelled):
            surface(me)
        raise
    if outcome is TIMED_OUT:
        raise TimeoutError("timed out")
    return outcome is None


def perform(sock: Any, state: State, direction: Direction, size: int, call: Callable[..., Any], *args: Any) -> Any:
    """One operation that is one system call: try, and wait if it would block. `size` as in `blocking`."""
    if direction.holder is None and direction.edges != direction.drained:
        direction.holder = CALLING
        seen = direction.edges
        try:
            result = call(sock, *args)
        except BlockingIOError:
            direction.drained = seen
        else:
            if size and not direction.hangup and _short(result, size) and (state.shortcut is True or empty(state)):
                direction.drained = seen
            state.credit -= 1
            if state.credit < 0:
                give_way(state)
            return result
        finally:
            if direction.holder is CALLING:
                direction.holder = None
    return blocking(sock, state, direction, size, call, *args)


def give_way(state: State) -> None:
    """A fiber that is always served without waiting lets the others run now and then. It is not interrupted here."""
    state.credit = CREDIT
    scheduler = thread.scheduler
    if scheduler is not None:
        me = scheduler.current
        if me is not None and state.timeout != 0.0:
            scheduler.ready.append(me)
            scheduler.park(me, None)


def by_the_clock(sock: Any, state: State, again: type[OSError], call: Callable[..., Any], *args: Any) -> Any:
    """Try `call(sock, *args)`, and try again after 1, 2, 4 … 50 ms: for would-blocks that no edge follows."""
    scheduler = get_scheduler()
    clock = scheduler.loop.clock
    deadline = FOREVER if state.timeout is None else clock() + state.timeout
    pause = 0.001
    while True:
        if state.handle.closed:  # the pause was over just before
            raise ClosedError("the socket was closed")
        direction = state.writing
        calling = direction.holder is None
        if calling:
            direction.holder = CALLING  # so that whoever closes the file waits for the call
        try:
            return call(sock, *args)
        except OSError as error:
            if error.errno == errno.EBADF and state.handle.closed:
                raise ClosedError("the socket was closed") from None
            if not isinstance(error, again) or error.errno not in (errno.EAGAIN, errno.ENOBUFS):
                raise
            left = deadline - clock()
            if left <= 0:
                raise TimeoutError("timed out") from None
        finally:
            if calling and direction.holder is CALLING:
                direction.holder = None
        _pause(scheduler, state, clock() + min(pause, left))
        pause = min(pause * 2, 0.05)


def _pause(scheduler: Scheduler, state: State, deadline: float) -> None:
    """Wait until `deadline`, or until the file is closed or moves. Raises ClosedError if it was closed before."""
    me = scheduler.current
    if me is None:
        raise scheduler.refuse()
    direction = state.writing
    if direction.loop is not scheduler.loop or direction.closed:
        direction = claim(state, direction, scheduler.loop)
    pause = _Pause(direction, me)
    try:
        direction.observe(pause)
        scheduler.park(me, pause, deadline)
    except Cancelled:
        surface(me)
        raise
    finally:
        pause.abandon(me)
        scheduler.in_runtime(direction.unobserve, pause)


class _Pause:
    """Where a fiber waits for its time: beside the turn. In the queue for it, it would be handed a turn that it has no use
    for, and two of them would hand it to each other for ever.
    """

    __slots__ = ("_direction", "_fiber")

    def __init__(self, direction: Direction, fiber: Fiber[Any]) -> None:
        self._direction = direction
        # Emptied in one step: a file may have moved to another thread's loop, and is closed there at any moment.
        self._fiber: dict[Fiber[Any], Fiber[Any]] = {fiber: fiber}

    def abandon(self, fiber: Fiber[Any]) -> bool:
        return self._fiber.pop(fiber, None) is not None

    def holds(self, fiber: Fiber[Any]) -> bool:
        return fiber in self._fiber

    def notice(self) -> None:
        if self._direction.closed:
            for fiber in list(self._fiber):
                if self.abandon(fiber):
                    fiber.scheduler.wake(fiber)

    def __repr__(self) -> str:
        return f"fd {self._direction.handle.fd} (write, by the clock)"


def stand_by(state: State, direction: Direction, standby: Standby) -> bool:
    """Have `standby` wait for the next edge of a direction, holding its turn. In its thread, as fiber code.

    False: it does not wait, an operation may find something at once. Raises BusyError if somebody else is at it,
    ClosedError, OwnershipError, or OSError if the kernel refuses.
    """
    scheduler = thread.scheduler
    if scheduler is None:
        scheduler = get_scheduler()
    me = scheduler.current
    if me is None:
        raise scheduler.refuse()
    if direction.loop is not scheduler.loop or direction.closed:
        direction = claim(state, direction, scheduler.loop)
    if direction.holder is not None and direction.holder is not CALLING:
        raise BusyError(f"{direction.holder!r} waits for fd {direction.handle.fd}")
    if direction.edges != direction.drained:
        return False
    standby.outcome = None
    direction.holder = direction.waiter = standby
    if not direction.armed:
        waits = False
        try:
            waits = scheduler.watch(me, direction, FOREVER)
        finally:
            if not waits:
                direction.waiter = None
                direction.release()
        return waits
    return True


def stand_down(direction: Direction, standby: Standby) -> bool:
    """Take `standby` out of its wait. False: it is not there; if it has been woken, its fiber is about to start."""
    if direction.abandon(standby):
        direction.release()
        return True
    return False
