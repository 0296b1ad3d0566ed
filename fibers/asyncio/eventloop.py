"""An asyncio event loop that runs in a fiber, beside the other fibers of its thread.

It is asyncio's own selector loop: its transports, protocols, streams, TLS, datagrams, subprocesses and `sock_…` methods are
the standard library's. What differs is how it sleeps (selector.py) and who may ask it for something meanwhile:

* In plain asyncio nobody of the thread runs while the loop sleeps. Here other fibers do, and may call `call_soon`, `stop`,
  set the result of a future, close a transport: all that wakes the loop.
* While other fibers run, this loop is not the *running* one of asyncio. Code that asks for that, to find out whether it may
  block, gets the true answer; and several fibers may each run a loop of their own. (A coroutine that makes a blocking call
  of ours holds up its loop, as with any blocking call. Other fibers, which run meanwhile, see that loop as running. They may
  run loops of ours all the same.)
* A fiber that is cancelled while it runs the loop until a future is done cancels the future, lets the loop go on until that
  is over, and then raises Cancelled: as if it waited for a fiber in a group.
* Signal handlers are ordinary Python handlers that wake the loop. The wakeup fd stays with the event loop of the thread.

Thread-safety is asyncio's: `call_soon_threadsafe` is for any thread, everything else for fibers of the thread that runs it.
"""

import asyncio
import signal
from asyncio import _get_running_loop, _set_running_loop, events
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from contextvars import Context
from sys import get_asyncgen_hooks, set_asyncgen_hooks
from types import FrameType
from typing import Any, Final, TypeVar

from ..core.fiber import Fiber
from ..core.scheduler import get_scheduler, state
from ..errors import Cancelled
from ..eventloop import MONOTONIC
from .selector import FiberSelector

T = TypeVar("T")

#: Bytes that a transport asks for at once. asyncio asks for 256 KiB, which malloc maps anew and gives back for each call, as
#: a rule: three system calls a message.
RECEIVE: Final = 64 * 1024


#: Which fiber runs which loop. Changed by the fiber itself.
running: Final[dict[Fiber[Any], "FiberEventLoop"]] = {}


def held_up(me: Fiber[Any] | None) -> "FiberEventLoop | None":
    """The loop that asyncio takes to be running, if it is another fiber's: one of its coroutines makes a blocking call."""
    loop = _get_running_loop()
    return loop if isinstance(loop, FiberEventLoop) and loop.fiber is not me else None


class FiberEventLoop(asyncio.SelectorEventLoop):
    """See the module's text. Made by `new_event_loop()`, in any thread; runs in the fiber that calls `run_forever`."""

    _ready: deque[asyncio.Handle]
    _signal_handlers: dict[int, asyncio.Handle]

    def __init__(self) -> None:
        scheduler = state.scheduler
        self._clock = MONOTONIC if scheduler is None or scheduler.closed else scheduler.loop.clock
        self.fiber: Fiber[Any] | None = None  # in which it runs
        #: The loop of another fiber, one of whose coroutines makes a blocking call: asyncio takes it to be running.
        self.beside: asyncio.AbstractEventLoop | None = None
        #: Who is to be told when it is closed: things with a `lost()`.
        self.awaited: set[Any] = set()
        self._former_handlers: dict[int, Any] = {}
        self._outer_hooks: Any = (None, None)
        own: Any = self
        self._own_hooks: Any = (own._asyncgen_firstiter_hook, own._asyncgen_finalizer_hook)
        self._deaf = False
        self._sleeper = FiberSelector(self)  # asyncio forgets its selector when it is closed
        super().__init__(self._sleeper)

    # -- running ----------------------------------------------------------------------------------------------------

    def run_forever(self) -> None:
        """As asyncio's: until `stop()`. Raises Cancelled if its fiber is cancelled, and can be called again then."""
        self._check_closed()  # type: ignore[attr-defined]
        self._check_running()
        scheduler = get_scheduler()
        me = scheduler.current
        if me is None:
            raise scheduler.refuse()
        self._clock = scheduler.loop.clock
        if self.beside is None:
            self.beside = held_up(me)
        self._outer_hooks = get_asyncgen_hooks()
        self._sleeper.bind(scheduler, me)
        self.fiber = me
        running[me] = self
        try:
            super().run_forever()
        finally:
            self.fiber = None
            del running[me]
            self._sleeper.unbind()
            set_asyncgen_hooks(*self._outer_hooks)
            if self.beside is not None:
                _set_running_loop(self.beside)
                self.beside = None

    def run_until_complete(self, future: Generator[Any, None, T] | Awaitable[T]) -> T:
        """As asyncio's. If its fiber is cancelled, the future is; when that is done, Cancelled is raised.

        An error that the future then comes to is raised in place of Cancelled, its result is dropped.
        """
        self._check_closed()  # type: ignore[attr-defined]
        self._check_running()
        new = not asyncio.isfuture(future)
        made: Any = asyncio.ensure_future(future, loop=self)  # type: ignore[arg-type]
        if new:
            made._log_destroy_pending = False  # an error tells of it
        try:
            try:
                result: T = super().run_until_complete(made)
                return result
            except Cancelled as error:
                if made.done():
                    raise  # it is what the coroutine has come to
                cancelled = error
            try:
                self._outlast(made)
                raise cancelled
            finally:
                del cancelled  # its traceback refers to this frame
        except BaseException:
            if new and made.done() and not made.cancelled():
                made.exception()  # the caller has it, or something in its place
            raise

    def _check_running(self) -> None:
        # As asyncio's, but that another fiber may run a loop of its own.
        if self.is_running():
            raise RuntimeError("This event loop is already running")
        scheduler = state.scheduler
        outer = _get_running_loop()
        if outer is not None and (scheduler is None or outer is not held_up(scheduler.current)):
            raise RuntimeError("Cannot run the event loop while another loop is running")

    def _outlast(self, future: "asyncio.Future[Any]") -> None:
        """The fiber has been cancelled: run until that has arrived. An error of the future is raised."""
        future.cancel()
        self._deaf = True
        try:
            while not future.done():
                try:
                    super().run_until_complete(future)
                except Cancelled:
                    if future.done() and not future.cancelled():
                        raise
                except asyncio.CancelledError:
                    if not future.cancelled():
                        raise
        finally:
            self._deaf = False

    def stop(self) -> None:
        """As asyncio's; also from another fiber of the thread."""
        super().stop()
        self._sleeper.stale = True
        self._sleeper.wake()

    def close(self) -> None:
        """As asyncio's. Who waits for one of its futures in `await_` gets RuntimeError."""
        was_closed = self.is_closed()
        super().close()
        if not was_closed:
            for wait in list(self.awaited):
                wait.lost()

    def step_aside(self) -> None:
        """Other fibers are going to run."""
        _set_running_loop(self.beside)
        set_asyncgen_hooks(*self._outer_hooks)
        if self._deaf:
            me = self.fiber
            assert me is not None
            me.interrupt = bool(me._pending)  # that it is cancelled is known; what is raised once comes through

    def step_back(self) -> None:
        """The fiber of this loop is running again."""
        self.beside = _get_running_loop()
        _set_running_loop(self)
        self._outer_hooks = get_asyncgen_hooks()
        set_asyncgen_hooks(*self._own_hooks)
        if self._deaf:
            me = self.fiber
            assert me is not None
            me.look()

    # -- time and callbacks -------------------------------------------------------------------------------------------

    def time(self) -> float:
        """The time on the clock of the thread that runs it, which may be virtual; before it has run, the monotonic one."""
        return self._clock()

    def _call_soon(self, callback: Any, args: Any, context: Context | None) -> asyncio.Handle:
        # What `call_soon` and `call_soon_threadsafe` have in common.
        handle: Any = events.Handle(callback, args, self, context)
        if handle._source_traceback:
            del handle._source_traceback[-1]
        self._ready.append(handle)
        if self._sleeper.asleep is not None:
            self._sleeper.wake()
        return handle  # type: ignore[no-any-return]

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As asyncio's."""
        handle: Any = super().call_at(when, callback, *args, context=context)
        if handle._source_traceback:
            del handle._source_traceback[-1]
        selector = self._sleeper
        selector.stale = True
        if selector.asleep is not None and when < selector.until:
            selector.wake()
        return handle  # type: ignore[no-any-return]

    def _write_to_self(self) -> None:
        self._sleeper.wake()

    def _make_self_pipe(self) -> None:
        """It is woken without one."""

    def _close_self_pipe(self) -> None:
        """There is none."""

    def _make_socket_transport(self, *args: Any, **options: Any) -> Any:
        transport = super()._make_socket_transport(*args, **options)  # type: ignore[misc]
        transport.max_size = RECEIVE
        return transport

    # -- signals ------------------------------------------------------------------------------------------------------

    def add_signal_handler(self, sig: int, callback: Callable[..., object], *args: Any) -> None:  # type: ignore[override]
        """As asyncio's. Raises ValueError for what is no signal, RuntimeError if it cannot be caught or not here."""
        if asyncio.iscoroutine(callback) or asyncio.iscoroutinefunction(callback):
            raise TypeError("coroutines cannot be used with add_signal_handler()")
        self._check_signal(sig)  # type: ignore[attr-defined]
        self._check_closed()  # type: ignore[attr-defined]
        get_scheduler()  # Ctrl-C and the wakeup fd are its from now on, so that what is set here comes on top
        earlier = self._signal_handlers.get(sig)
        self._signal_handlers[sig] = events.Handle(callback, args, self, None)
        try:
            former = signal.signal(sig, self._on_signal)
            signal.siginterrupt(sig, False)
        except (OSError, ValueError) as error:
            if earlier is None:
                del self._signal_handlers[sig]
            else:
                self._signal_handlers[sig] = earlier
            raise RuntimeError(f"signal {sig} cannot be caught: {error}") from None
        if former != self._on_signal:
            self._former_handlers[sig] = former

    def remove_signal_handler(self, sig: int) -> bool:
        """As asyncio's; what handled the signal before does so again."""
        self._check_signal(sig)  # type: ignore[attr-defined]
        if sig not in self._signal_handlers:
            return False
        del self._signal_handlers[sig]
        former = self._former_handlers.pop(sig, None)
        if signal.getsignal(sig) == self._on_signal:  # else somebody has put his own there since
            signal.signal(sig, signal.SIG_DFL if former is None else former)
        return True

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._handle_signal(number)  # type: ignore[attr-defined]


def new_event_loop() -> FiberEventLoop:
    """A new loop, for `asyncio.Runner(loop_factory=new_event_loop)` and whatever else takes a loop or makes one so."""
    return FiberEventLoop()
