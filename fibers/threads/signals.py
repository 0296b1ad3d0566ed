"""Signals as something that a fiber waits for.

    with fibers.open_signal_receiver(signal.SIGTERM, signal.SIGHUP) as signals:
        for number in signals:
            ...

Facts, and what follows:

* CPython runs Python's signal handlers in the main thread only, and lets only that install them. So a receiver is opened
  and closed there. Waiting for what it receives is for fibers of any thread.
* The kernel merges signals of one number that arrive while one of them is pending, and CPython merges those that arrive
  before its handler runs. So signals cannot be counted, by nobody. What is promised: after its last arrival a number is
  delivered at least once. Here too those that arrive before anybody asks are merged. `count` tells how often the handler
  has run, which is the number of arrivals or less.
* A handler runs between any two instructions of the main thread: inside the runtime, in the middle of another handler. So
  it does what single steps can do: it counts, marks the number as pending, and wakes who waits. Counting is safe because
  CPython looks for signals after calls and at jumps only, and there is none in `+= 1`.
* A signal that another thread takes, or that comes while the loop of the main thread sleeps, ends that sleep: the loop owns
  the wakeup fd (waker.py). So the handler runs at once, unless the main thread is inside of C code.
* Handlers are a stack, kept by discipline. Several receivers of one number share one handler, and each gets every signal.
  The last of them to close puts back what was there before, unless the program has set another handler meanwhile. If that
  program, in the end, puts back what *it* has found, namely ours, then the signal is handled as it was before all that.
* In a forked child a receiver is open as before. What was pending was the parent's, and so was who waited.

The idea is trio's `open_signal_receiver`.
"""

import os
import signal
import threading
from collections.abc import Iterator
from signal import Signals
from types import FrameType, TracebackType
from typing import Any, Final, Self
from weakref import WeakSet

from ..core.cancel import as_timeout
from ..core.scheduler import get_scheduler, undisturbed
from ..core.waitqueue import WaitQueue
from ..errors import Cancelled
from ..eventloop.waiter import TIMED_OUT
from .completion import Outside

#: What cannot be received, and why.
_REFUSED: Final = {
    **dict.fromkeys(("SIGKILL", "SIGSTOP"), "the system lets nobody handle it"),
    **dict.fromkeys(
        ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL"),
        "it would come again before its handler could run (faulthandler.enable() tells where it struck)",
    ),
}


def open_signal_receiver(*signals: int) -> "SignalReceiver":
    """Receive signals as values: `with open_signal_receiver(signal.SIGTERM) as signals: for number in signals`.

    While the block is open the signals do nothing else; handlers of other signals go on working. What was set before is
    put back at the end. The block is for the main thread (RuntimeError elsewhere), iterating for fibers of any thread.
    Raises TypeError for what is no signal number, ValueError for one that cannot be received, or for none.
    """
    if not signals:
        raise ValueError("open_signal_receiver() needs at least one signal")
    return SignalReceiver(tuple(dict.fromkeys(_check(number) for number in signals)))


def _check(number: int) -> int:
    if not isinstance(number, int) or isinstance(number, bool):
        raise TypeError(f"a signal number is needed, as signal.SIGTERM, not {number!r}")
    if number not in signal.valid_signals():
        raise ValueError(f"{number!r} is not the number of a signal here")
    name = _name(number)
    if name in _REFUSED:
        raise ValueError(f"{name} cannot be received: {_REFUSED[name]}")
    return int(number)


def _name(number: int) -> str:
    try:
        return Signals(number).name
    except ValueError:
        return f"signal {number}"  # one of the real-time signals


class SignalReceiver:
    """An iterator over the signals that arrive: see `open_signal_receiver` and the module's text.

    `for` waits for the next one, and ends when the receiver is closed. Each signal goes to one of the fibers that wait.
    """

    __slots__ = ("__weakref__", "_counts", "_entered", "_handlers", "_open", "_pending", "_queue", "_signals")

    def __init__(self, signals: tuple[int, ...]) -> None:
        self._signals = signals
        self._counts = dict.fromkeys(signals, 0)
        self._pending: dict[int, bool] = {}  # in order of their first arrival
        self._queue: WaitQueue = Outside()
        self._handlers: list[_Handler] = []
        self._entered = self._open = False

    def __enter__(self) -> Self:
        if threading.get_ident() != threading.main_thread().ident:
            raise RuntimeError(
                "signals arrive in the main thread, and only that can open a receiver; open it there, and let fibers of "
                "this thread iterate over it"
            )
        if self._entered:
            raise RuntimeError(f"{self!r} has been opened before; make a new one for each block")
        get_scheduler()  # Ctrl-C and the wakeup fd are the loop's from now on, so that this block nests in that
        self._entered = self._open = True
        try:
            undisturbed(self._install)
        except BaseException:
            self._open = False
            undisturbed(self._uninstall)
            raise
        _receivers.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if threading.get_ident() != threading.main_thread().ident:
            raise RuntimeError(f"{self!r} must be closed in the main thread, where it was opened")
        self._open = False
        undisturbed(self._uninstall)
        self._queue.wake_all()

    def _install(self) -> None:
        for number in self._signals:
            self._handlers.append(_handler(number, self))
            self._handlers[-1].install()

    def _uninstall(self) -> None:
        while self._handlers:
            self._handlers.pop().leave(self)

    def arrived(self, number: int) -> None:
        """In the handler."""
        self._counts[number] += 1
        self._pending[number] = True
        _wake_all(self._queue)

    # -- for fibers of any thread -----------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Signals]:
        return self

    def __next__(self) -> Signals:
        number = self._wait(None)
        if number is None:
            raise StopIteration
        return number

    def receive(self, timeout: float | None = None) -> Signals:
        """The next signal. Raises TimeoutError after `timeout` seconds (>= 0; 0: look once), RuntimeError if closed."""
        number = self._wait(timeout)
        if number is None:
            raise RuntimeError(f"{self!r} is not open")
        return number

    def count(self, number: int) -> int:
        """How often the handler has run for this signal: as often as it has arrived, or less (see the module's text).

        KeyError for a signal that is not received here.
        """
        return self._counts[number]

    def _wait(self, timeout: float | None) -> Signals | None:
        """The next signal; None if the receiver is closed, and nothing is left."""
        scheduler = get_scheduler()
        me = scheduler.current
        if me is None:
            raise scheduler.refuse()
        deadline = scheduler.deadline(timeout)
        while True:
            number = self._take()
            if number is not None or not self._open:
                return number
            if timeout == 0:
                raise TimeoutError("no signal is pending")
            try:
                queue = self._queue
                queue.add(me, self)
                if (self._pending or not self._open) and queue.abandon(me):
                    continue
                outcome = scheduler.park(me, queue, deadline)
            except BaseException as error:
                queue.abandon(me)
                if timeout is not None and isinstance(error, Cancelled) and (late := as_timeout(me)) is not None:
                    raise late from None
                raise
            if outcome is TIMED_OUT and not self._pending:
                raise TimeoutError(f"no signal came within {timeout} seconds")

    def _take(self) -> Signals | None:
        for number in list(self._pending):
            if self._pending.pop(number, False):
                try:
                    return Signals(number)
                except ValueError:
                    return number  # type: ignore[return-value]  # a real-time signal without a name
        return None

    def __repr__(self) -> str:
        state = "" if self._open else " closed" if self._entered else " not opened"
        return f"<SignalReceiver {', '.join(map(_name, self._signals))}{state}>"

    def after_fork(self) -> None:
        """In the child. The kernel's and CPython's pending signals are gone as well."""
        self._pending.clear()
        self._counts = dict.fromkeys(self._signals, 0)
        self._queue = Outside()


class _Handler:
    """What is installed for one signal, for all receivers that were opened while it was."""

    __slots__ = ("_number", "_previous", "_receivers")

    def __init__(self, number: int, previous: Any) -> None:
        self._number = number
        self._previous = previous
        self._receivers: list[SignalReceiver] = []

    def add(self, receiver: SignalReceiver) -> None:
        self._receivers.append(receiver)

    def install(self) -> None:
        """Make it the handler, if it is not."""
        if signal.getsignal(self._number) != self.handle:
            signal.signal(self._number, self.handle)

    def leave(self, receiver: SignalReceiver) -> None:
        """A receiver is closed."""
        self._receivers.remove(receiver)
        if not self._receivers and signal.getsignal(self._number) == self.handle:
            signal.signal(self._number, self._previous)

    def handle(self, number: int, frame: FrameType | None) -> None:
        receivers = tuple(self._receivers)
        for receiver in receivers:
            receiver.arrived(number)
        if not receivers:  # somebody has put this handler back after its time
            signal.signal(number, self._previous)
            if callable(self._previous):
                self._previous(number, frame)
            elif self._previous == signal.SIG_DFL:
                signal.raise_signal(number)


def _handler(number: int, receiver: SignalReceiver) -> _Handler:
    """The handler of ours that is installed for a signal, or a new one; the receiver is in it."""
    current = signal.getsignal(number)
    handler = getattr(current, "__self__", None)
    if not isinstance(handler, _Handler):
        if current is None:
            raise ValueError(f"{_name(number)} has a handler that is not Python's, which could not be put back")
        handler = _Handler(number, current)
    handler.add(receiver)
    return handler


def _wake_all(queue: WaitQueue) -> None:
    """Wake all, in a signal handler. Another handler may strike in here, and raise: then they are woken once more."""
    waiting = list(queue)
    if not waiting:
        return
    try:
        undisturbed(queue.wake_all)
    except BaseException:
        for fiber in waiting:
            scheduler: Any = fiber.scheduler
            scheduler.struck = True
            scheduler.post(scheduler.arrive, fiber)
        raise


_receivers: Final[WeakSet[SignalReceiver]] = WeakSet()


def _after_fork_in_child() -> None:
    for receiver in list(_receivers):
        receiver.after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
