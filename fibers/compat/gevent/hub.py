"""gevent.hub: the little of a hub that makes sense where there is none.

gevent has a greenlet, the hub, that runs the event loop. Here the fiber that waits runs it. What programs ask of a hub is
something else: what becomes of errors (`handle_error`, which may be replaced), a loop that calls functions soon, a pool of
threads, and the end of everything (`join`). Each thread has a hub of its own.
"""

import sys
import time
import traceback
from _thread import _local
from collections.abc import Callable
from typing import Any, ClassVar, Final
from weakref import ref

from greenlet import GreenletExit

from ...core.cancel import move_on_after
from ...core.fiber import Fiber
from ...core.lifecycle import all_fibers
from ...core.runtime import sleep, spawn
from ...core.scheduler import get_scheduler
from ...errors import Cancelled, FiberKilled
from ...lowlevel import park
from ...sync.event import Event
from ..running import Running, spawned_by_caller
from ._loop import Loop
from .exceptions import LoopExit

ErrorType = type[BaseException]


def as_error(*args: Any) -> BaseException:
    """The exception that `throw(*args)` and `kill` mean; TypeError, as an instance, if it is none."""
    kind = args[0] if args else GreenletExit
    value = args[1] if len(args) > 1 else None
    if isinstance(kind, tuple):
        return as_error(*kind)
    if isinstance(kind, type) and issubclass(kind, BaseException):
        error = value if isinstance(value, BaseException) else kind() if value is None else kind(value)
    elif isinstance(kind, BaseException):
        error = kind
    else:
        error = TypeError(f"exceptions must be classes, or instances, that derive from BaseException, not {kind!r}")
    return error.with_traceback(args[2]) if len(args) > 2 and args[2] is not None else error


class Bare:
    """A fiber that is no Greenlet: the main one of a thread, one of `spawn_raw`, or one that others have spawned."""

    _spawner: "ref[Any] | None" = None

    def __init__(self, fiber: Fiber[Any]) -> None:
        self._fiber = fiber

    @property
    def dead(self) -> bool:
        """Is it over?"""
        return self._fiber.done()

    def __bool__(self) -> bool:
        return not self._fiber.done()

    @property
    def parent(self) -> "Hub | None":
        """The hub; None for the main greenlet."""
        return None if self._fiber is self._fiber.scheduler.main else get_hub()  # type: ignore[attr-defined]

    @property
    def minimal_ident(self) -> int:
        """A number that no other living one has."""
        return id(self)

    def spawning_greenlet(self) -> Any:
        """Who has made it, if that is known and still lives."""
        return None if self._spawner is None else self._spawner()

    def ready(self) -> bool:
        """The same."""
        return self.dead

    def rawlink(self, callback: Callable[[Any], object]) -> None:
        """Have `callback(self)` called, in a fiber, when it is over. For `wait` and `iwait`."""
        self._fiber.add_done_callback(lambda fiber: spawn_raw_in_runtime(lambda: callback(self)))

    def unlink(self, callback: object) -> None:
        """Nothing to do: a link is called once."""

    def throw(self, *args: Any) -> None:
        """Raise an exception in it: here and now, if it is the calling one, else where it waits."""
        error = as_error(*args)
        if running.current() is self:
            raise error
        _kill_raw(self._fiber, error)

    def switch(self, *args: Any) -> None:
        """Never: fibers are switched by waiting and waking alone. See `Waiter`."""
        raise TypeError("a fiber is not switched to: it waits, and is woken; Waiter().get() and .switch() do that")

    def __repr__(self) -> str:
        return f"<greenlet of {self._fiber!r}>"


running: Final[Running[Any]] = Running(Bare)


def getcurrent() -> Any:
    """The Greenlet, or what stands for the fiber, that calls."""
    return running.current()


def spawn_raw(function: Callable[..., object], *args: Any, **kwargs: Any) -> Bare:
    """Run a function in a new fiber, without what a Greenlet has: links, a value. What it raises goes to the hub."""
    if not callable(function):
        raise TypeError(f"{function!r} is not callable")
    parent = running.current() if get_scheduler().current is not None else None
    bare = Bare.__new__(Bare)
    bare._fiber = spawn(_run_raw, bare, function, args, kwargs, name=getattr(function, "__qualname__", None))
    note_spawn(bare, parent)
    spawned_by_caller(bare._fiber)
    return bare


def note_spawn(greenlet: Any, parent: Any) -> None:
    """A greenlet is being made by another one: they share their `spawn_tree_locals`."""
    if parent is not None:
        greenlet._spawner = ref(parent)
    shared = getattr(parent, "spawn_tree_locals", None)
    greenlet.spawn_tree_locals = {} if shared is None else shared


def _run_raw(bare: Bare, function: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    fiber = running.enter(bare)
    try:
        function(*args, **kwargs)
    except (Cancelled, FiberKilled):
        raise
    except BaseException as error:
        get_hub().handle_error(bare, type(error), error, error.__traceback__)
    finally:
        running.leave(fiber)


def spawn_raw_in_runtime(function: Callable[[], object]) -> None:
    """As `spawn_raw`, where nobody is the parent."""
    bare = Bare.__new__(Bare)
    note_spawn(bare, None)
    bare._fiber = spawn(_run_raw, bare, function, (), {}, name=getattr(function, "__qualname__", None))


class Hub:
    """See the module's text."""

    SYSTEM_ERROR: ClassVar[Any] = (KeyboardInterrupt, SystemExit, SystemError)
    NOT_ERROR: ClassVar[tuple[ErrorType, ...]] = (GreenletExit, SystemExit)
    name = ""
    minimal_ident = 0
    dead = False
    make_threadpool: ClassVar[Callable[[], Any] | None] = None  # threadpool.py sets it

    def __init__(self) -> None:
        self.loop: Any = Loop(spawn_raw_in_runtime)
        self._main = Bare(get_scheduler().main)
        self._threadpool: Any = None

    @property
    def parent(self) -> Bare:
        """What stands for the main greenlet of this thread."""
        return self._main

    @property
    def threadpool(self) -> Any:
        """A pool of native threads, made when first asked for."""
        if self._threadpool is None and Hub.make_threadpool is not None:
            self._threadpool = Hub.make_threadpool()
        return self._threadpool

    @threadpool.setter
    def threadpool(self, pool: Any) -> None:
        self._threadpool = pool

    def handle_error(self, context: object, type: ErrorType, value: Any, tb: Any) -> None:
        """A greenlet has ended by an error, or a link has raised one: print it, or raise it in the main greenlet.

        It is raised there if nobody in particular has failed (`context` is None), and if it is one that ends programs.
        May be replaced, in a class or in this object.
        """
        value = value if isinstance(value, BaseException) else as_error(type, value)
        if not issubclass(type, self.NOT_ERROR):
            self.print_exception(context, type, value, tb)
        if context is None or issubclass(type, self.SYSTEM_ERROR):
            self.handle_system_error(type, value, tb)

    @staticmethod
    def _normalize_exception(type: ErrorType, value: Any, tb: Any) -> tuple[ErrorType, BaseException, Any]:
        error = value if isinstance(value, BaseException) else as_error(type, value)
        return error.__class__, error, tb

    def handle_system_error(self, type: ErrorType, value: Any, tb: Any = None) -> None:
        """Raise an error in the main greenlet of the thread."""
        self._main._fiber.kill(as_error(type, value))

    def print_exception(self, context: object, type: ErrorType, value: Any, tb: Any) -> None:
        """Print an error that nobody may ever look at."""
        stream = sys.stderr
        if stream is None:
            return
        try:
            traceback.print_exception(type, value, tb, file=stream)
            stream.write(f"{time.ctime()} {_described(context)} failed with {type.__name__}\n\n")
        except Exception:
            pass  # there is nowhere to complain of a stream that cannot be written to

    def join(self, timeout: float | None = None) -> bool:
        """Wait until no other fiber of this thread is left; False if some are after `timeout` seconds."""
        scheduler = get_scheduler()
        with move_on_after(timeout):
            while others := [
                each for each in all_fibers() if each.scheduler is scheduler and each is not scheduler.current
            ]:
                for fiber in others:
                    fiber.join()
        return not any(each.scheduler is scheduler and each is not scheduler.current for each in all_fibers())

    def switch(self) -> Any:
        """Wait until something is raised here: a Timeout, for example."""
        park()

    def destroy(self, destroy_loop: bool | None = None) -> None:
        """Forget this hub. The loop goes on: it belongs to the thread."""
        _here.hub = None

    def __repr__(self) -> str:
        return f"<Hub at {id(self):#x} of {self._main!r}>"


def _described(context: object) -> str:
    try:
        return repr(context)
    except Exception:
        return object.__repr__(context)


class _Here(_local):
    hub: Hub | None = None


_hub_class: type[Hub] = Hub


def set_default_hub_class(hub_class: type[Hub]) -> None:
    """What `get_hub` makes from now on: for those who derive a class that treats errors in another way."""
    global _hub_class
    _hub_class = hub_class


def get_hub_class() -> type[Hub]:
    """What `get_hub` makes."""
    return _hub_class


_here: Final = _Here()


def get_hub() -> Hub:
    """That of the calling thread."""
    hub = _here.hub
    if hub is None or hub._main._fiber.scheduler is not get_scheduler():
        hub = _here.hub = _hub_class()
    return hub


def get_hub_if_exists() -> Hub | None:
    """As `get_hub`, but None if there is none yet."""
    return _here.hub


class Waiter:
    """Something that one fiber waits for and another one hands over, once. `switch` and `throw` may come first."""

    __slots__ = ("_event", "_fiber", "error", "value")

    def __init__(self, hub: Hub | None = None) -> None:
        self.clear()

    def clear(self) -> None:
        """As new."""
        self._event = Event()
        self.value: Any = None
        self.error: BaseException | None = None

    def ready(self) -> bool:
        """Has something been handed over?"""
        return self._event.is_set()

    def successful(self) -> bool:
        """Was that a value?"""
        return self.ready() and self.error is None

    def switch(self, value: Any = None) -> None:
        """Hand over a value."""
        self.value = value
        self._event.set()

    def switch_args(self, *args: Any) -> None:
        """Hand over several."""
        self.switch(args)

    def throw(self, *args: Any) -> None:
        """Hand over an exception, which `get` raises."""
        self.error = as_error(*args)
        self._event.set()

    def get(self) -> Any:
        """Wait for it."""
        self._event.wait()
        if self.error is not None:
            raise self.error
        return self.value

    def __call__(self, source: Any) -> None:
        """As a link: take what `source` has come to."""
        if source.exception is None:
            self.switch(source.value)
        else:
            self.throw(source.exception)


def kill(greenlet: Any, exception: Any = GreenletExit) -> None:
    """Raise an exception in a greenlet, and do not wait for its end."""
    if hasattr(greenlet, "kill"):
        greenlet.kill(exception, block=False)
    elif not greenlet.dead:
        _kill_raw(greenlet._fiber, as_error(exception))


def _kill_raw(fiber: Fiber[Any], error: BaseException) -> None:
    """Nobody asks a fiber of `spawn_raw` what it has come to: that it was killed before it began is no news."""
    if isinstance(error, GreenletExit):
        fiber.add_done_callback(_retrieve)
    fiber.kill(error)


def _retrieve(fiber: Fiber[Any]) -> None:
    fiber.exception()


def reinit(hub: Hub | None = None) -> None:
    """Nothing to do: a forked child has its loop made anew by itself."""


def idle(priority: int = 0) -> None:
    """Let every fiber that is ready run, until nothing but waits is left for the moment."""
    scheduler = get_scheduler()
    while True:
        others = len(scheduler.ready)
        sleep(0)
        if not others and not scheduler.ready:
            return


__all__ = [
    "GreenletExit", "Hub", "LoopExit", "Waiter", "get_hub", "get_hub_if_exists", "getcurrent", "idle", "kill", "reinit",
    "sleep", "spawn_raw",
]  # fmt: skip
