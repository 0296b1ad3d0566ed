"""Sockets over simulated files, with the operations of fibers.io: the real `recv`, `send`, `sendall`, and `perform`.

What is not real is the system call at the bottom: `use_simulated_calls` puts calls on the simulated kernel in the place
of the C type's. An operation is started in a fiber of its own; what comes of it is written down, with what a checker needs
to know: when it began, whose bytes it got, how it ended.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final
from unittest import mock

import fibers
from fibers.core.fiber import Fiber
from fibers.core.scheduler import get_scheduler
from fibers.core.scheduler import state as thread
from fibers.errors import Cancelled, ClosedError, FiberKilled, OwnershipError
from fibers.eventloop import FOREVER, Handle
from fibers.io import operations, waiting
from fibers.io.state import State, _let_go, states

from .actor import Actor
from .kernel import READ, WRITE, SimFile, SimKernel, Units
from .puppet import run_all

#: What an operation does: its direction.
KINDS: Final = {
    "recv": READ,
    "recv_into": READ,
    "take one": READ,
    "send": WRITE,
    "sendall": WRITE,
    "send by the clock": WRITE,
}

NO_SHORTCUT: Final = 0  # the size for operations of which a short read proves nothing


class SimSocket:
    """A socket of a simulated file, to be opened in the thread that will use it, or (`nowhere`) where no loop runs."""

    __slots__ = ("__weakref__", "closed", "file", "gone", "kernel", "name", "number", "state", "stream")

    file: SimFile
    state: State

    def __init__(self, name: str, kernel: SimKernel, stream: bool) -> None:
        self.name = name
        self.kernel = kernel
        self.stream = stream  # a short read proves that nothing is left
        self.number = -1
        self.closed = True  # by us, or not opened yet
        self.gone = False  # nobody can use it: it was dropped, or its number was closed behind our back

    def __repr__(self) -> str:
        return self.name

    def open(self, nowhere: bool = False) -> None:
        self.number = self.kernel.open()
        self.file = self.kernel.file(self.number)
        self.closed = False
        scheduler = thread.scheduler
        if scheduler is None or nowhere:  # noqa: SIM108
            handle = Handle(self.number, None)
        else:
            handle = scheduler.loop.handle(self.number, True)
        self.state = states[id(self)] = State(self, handle, None, self.stream)

    def fileno(self) -> int:
        return self.number

    def close(self) -> None:
        """As `fibers.io.state.close`."""
        number, self.number = self.number, -1
        self.closed = True
        if number >= 0:
            _let_go(self.state.handle, partial(self.kernel.close, number))

    def drop(self) -> None:
        """As if the last reference had gone: C closes the file, and the loop hears of it at its next turn."""
        number, self.number = self.number, -1
        self.closed = self.gone = True
        if number >= 0:
            self.file.stolen = True
            self.kernel.close(number)
            handle = self.state.handle
            if handle.loop is not None and not handle.closed and not handle.loop.closed:
                handle.loop.post(handle.loop.release, handle, _nothing)

    def forget(self) -> None:
        """Nobody uses it any more."""
        states.pop(id(self), None)


def _nothing() -> None: ...


def _read(sock: SimSocket, size: int, flags: int = 0) -> Units:
    return _system_call(sock, sock.kernel.read, size)  # type: ignore[no-any-return]


def _write(sock: SimSocket, data: Any, flags: int = 0) -> int:
    return _system_call(sock, sock.kernel.write, data)  # type: ignore[no-any-return]


def _system_call(sock: SimSocket, call: Callable[..., Any], argument: Any) -> Any:
    number = sock.number
    operation = _running[id(fibers.current())]
    actor = operation.actor
    if operation.timeout != 0.0:  # who tries once is no better protected from a close than in the standard library
        run_all(actor.at_call)
    kernel = sock.kernel
    if number >= 0 and kernel.numbers.get(number) is not sock.file and not sock.gone:
        operation.fault = (
            f"{operation.describe()} calls {number}, which was closed between reading and using the number"
        )
    try:
        result = call(number, argument)
    except OSError as error:
        kernel.note(f"{operation}: {type(error).__name__}")
        _tell_result(operation)
        raise
    kernel.note(f"{operation}: {result}")
    _tell_result(operation)
    return result


def _tell_result(operation: "Operation") -> None:
    """The result is on its way; what happens now it does not show."""
    file = operation.sock.file
    seen = file.changes
    run_all(operation.actor.at_result)
    operation.outrun = file.changes != seen


@contextmanager
def use_simulated_calls() -> Iterator[None]:
    """The operations of fibers.io serve SimSockets, and nothing else, meanwhile."""
    with mock.patch.object(operations, "_recv", _read), mock.patch.object(operations, "_send", _write):
        yield


class _After:
    """Where a fiber stays when its operation is over. Nobody has a reason to wake it there."""

    inside = True

    def abandon(self, fiber: Any) -> bool:
        if fiber.waiting is self:
            fiber.waiting = None
            return True
        return False

    def holds(self, fiber: Any) -> bool:
        return fiber.waiting is self

    def __repr__(self) -> str:
        return "nobody"


AFTER: Final = _After()

_running: Final[dict[int, "Operation"]] = {}  # by id of its fiber


class Operation:
    """One call of a blocking operation, in a fiber of its own. All but the making is done in that fiber."""

    def __init__(
        self,
        kind: str,
        sock: SimSocket,
        size: int,
        timeout: float | None,
        scope: float | None,
        order: Iterator[int],
        check: "Callable[[Operation], None]",
    ) -> None:
        self.kind = kind
        self.interest = KINDS[kind]
        self.sock = sock
        self.size = size
        self.timeout = timeout
        self.scope = scope
        self.began = 0  # 0: not yet; else its place in the order of beginnings
        self.ended_at: float | None = None
        self.deadline = self.scope_deadline = FOREVER
        self.outcome = ""
        self.result: Any = None
        self.errno = 0
        self.sent: int | None = None  # by an interrupted sendall, as it says itself
        self.cancelled = self.killed = False  # asked for
        self.woken = False  # when that was asked for, it had been woken already for something that was there
        self.outrun = False  # something happened to the file after its last system call, and before it knew the result
        self.released = False  # may leave the place where it stays afterwards
        self.fault = ""  # seen by the simulated system calls
        self.stray = ""
        self._order = order
        self._check = check
        self.actor: Actor
        self.fiber: Fiber[None]

    def __repr__(self) -> str:
        return f"{self.kind} #{self.began}" if self.began else f"unstarted {self.kind}"

    @property
    def pending(self) -> bool:
        return bool(self.began) and not self.outcome

    @property
    def in_turn(self) -> bool:
        """Does it wait for its turn, and for an edge?"""
        return self.timeout != 0.0 and self.kind != "send by the clock"

    @property
    def can_be_told(self) -> bool:
        """Is it known to a loop that also knows the number? Not before it waits for the first time, for one."""
        state = self.sock.state
        direction = state.reading if self.interest == READ else state.writing
        known = direction.holder is self.fiber or self.fiber.waiting is direction
        return self.in_turn and known and getattr(state.handle, "owned", False)

    def describe(self) -> str:
        text = f"{self!r} of {self.size} on {self.sock} in thread {self.actor}"
        if self.timeout is not None:
            text += f", with timeout {self.timeout}"
        if self.scope is not None:
            text += f", in a scope of {self.scope}"
        return text

    def spawn(self, actor: Actor) -> None:
        """In the thread of the actor."""
        self.actor = actor
        self.fiber = fibers.spawn(self._run, name=f"{self.kind} on {self.sock}")

    def release(self) -> None:
        """Let it leave the place where it stays. In the thread of its actor, as fiber code."""
        if self.outcome and not self.released:
            self.released = True
            if AFTER.abandon(self.fiber):
                self.fiber.scheduler.wake(self.fiber)

    # -- in the fiber -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        me = fibers.current()
        _running[id(me)] = self
        try:
            try:
                self._operate()
            except FiberKilled as error:
                self._interrupted("killed", error)
            self._stay(me)
        except Cancelled as error:
            self._interrupted("cancelled", error)
            raise
        except Exception as error:
            self.fault = f"{self.describe()} raised {error!r}"
            self._interrupted("error", error)
        finally:
            del _running[id(me)]

    def _operate(self) -> None:
        now = self.sock.kernel.now
        self.began = next(self._order)
        self.deadline = FOREVER if self.timeout is None else now + self.timeout
        self.scope_deadline = FOREVER if self.scope is None else now + self.scope
        self.sock.state.timeout = self.timeout
        try:
            with fibers.move_on_after(self.scope) as scope:
                self._call()
        except TimeoutError as error:
            self._interrupted("timeout", error)
        except ClosedError as error:
            self._interrupted("closed", error)
        except OwnershipError as error:
            self._interrupted("refused", error)
        except OSError as error:
            self._interrupted("error", error)
        else:
            self._end("scope" if scope.cancelled_caught else "done")

    def _call(self) -> None:
        sock: Any = self.sock
        try:
            if self.kind == "recv":
                self.result = operations.recv(sock, self.size)
            elif self.kind == "recv_into":
                self.result = waiting.perform(sock, sock.state, sock.state.reading, self.size, _read, self.size)
            elif self.kind == "take one":
                self.result = waiting.perform(sock, sock.state, sock.state.reading, NO_SHORTCUT, _read, 1)
            elif self.kind == "send":
                self.result = operations.send(sock, self.data())
            elif self.kind == "send by the clock":
                self.result = waiting.by_the_clock(sock, sock.state, BlockingIOError, _write, self.data())
            else:
                operations.sendall(sock, self.data())
        except BaseException as error:
            self.sent = getattr(error, "bytes_sent", None)
            raise

    def data(self) -> bytes:
        """What it writes: a letter of its own, some times."""
        return bytes([self.began]) * self.size

    def _interrupted(self, outcome: str, error: BaseException) -> None:
        if not self.outcome:  # else it was over, and this ended the stay afterwards
            self.errno = getattr(error, "errno", None) or 0
            self._end(outcome)

    def _end(self, outcome: str) -> None:
        self.outcome = outcome
        self.ended_at = self.sock.kernel.now
        self.sock.kernel.note(f"{self!r} ends: {outcome}")
        self._check(self)

    def _stay(self, me: Fiber[None]) -> None:
        """Whoever is woken twice comes out of its next wait too early."""
        scheduler = get_scheduler()
        while not self.released:
            outcome: object = None
            try:
                outcome = scheduler.park(me, AFTER)
            except FiberKilled:
                if self.killed:
                    continue
            if not self.released:
                self.stray = f"{self.describe()} had ended ({self.outcome}), and was woken once more, with {outcome}"
                return
