"""gevent.greenlet: Greenlet, a fiber with links, a value and a life that can be asked about.

A Greenlet is no greenlet: it has a fiber (fiber.py tells why that is none either). So it is not switched to; it is started,
waited for, and killed. What it comes to is kept in it: its value, or its error, which the hub is told of at once. A
GreenletExit is no error, but the value of a greenlet that was killed.

Killed before its time. A greenlet whose function has not begun never runs it, and has come to its end at once. The runtime
ends its fiber, in one step with asking whether it has begun; we hear of it as a done-callback.
"""

import sys
from collections.abc import Callable, Iterable
from itertools import count
from types import TracebackType
from typing import Any, ClassVar, Final, Self
from weakref import ref

from greenlet import GreenletExit

from ...core.fiber import Fiber
from ...core.runtime import current_time, sleep, spawn
from ...core.scheduler import check_seconds
from ...errors import Cancelled, FiberKilled
from ...sync.event import Event
from ..running import spawned_by_caller
from ._links import FailureSpawnedLink, Link, Linkable, SpawnedLink, SuccessSpawnedLink
from ._waiting import iwait, wait
from .hub import Hub, as_error, get_hub, getcurrent, note_spawn, running
from .timeout import Timeout, bounded, expired

_idents: Final = count()
_spawn_callbacks: Final[list[Callable[["Greenlet"], object]]] = []


class Greenlet(Linkable):
    """Runs `run(*args, **kwargs)`, or `_run` of a derived class, in a fiber of its own once it is started.

    Any thread may wait for it and kill it; it runs in the thread that has started it. TypeError if `run` is not callable.
    """

    args: tuple[Any, ...] = ()
    kwargs: ClassVar[dict[str, Any]] = {}
    value: Any = None
    spawn_tree_locals: dict[str, Any]
    _spawner: "ref[Any]"
    _fate: Event | None = (
        None  # for who waits before it has been started; made when first needed, by one of all threads
    )
    #: Where it was made is in `fibers.dump()`.
    spawning_stack = None
    spawning_stack_limit = 0

    def __init__(self, run: Callable[..., Any] | None = None, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        if run is not None:
            if not callable(run):
                raise TypeError(f"a greenlet runs something callable, which {run!r} is not")
            self._run = run  # type: ignore[method-assign]
        if args:
            self.args = args
        if kwargs:
            self.kwargs = kwargs  # type: ignore[misc]
        self._fiber: Fiber[None] | None = None
        self._begun = self._done = False
        self._error: BaseException | None = None
        self._traceback: TracebackType | None = None
        self._name: str | None = None
        note_spawn(self, getcurrent())

    def _run(self) -> Any:
        """What it does. For derived classes."""

    # -- its life -----------------------------------------------------------------------------------------------

    @classmethod
    def spawn(cls, *args: Any, **kwargs: Any) -> Self:
        """Make one with these arguments, and start it."""
        made = cls(*args, **kwargs)
        made.start()
        return made

    @classmethod
    def spawn_later(cls, seconds: float, *args: Any, **kwargs: Any) -> Self:
        """Make one, and start it after `seconds`."""
        if not args and cls is Greenlet:
            raise TypeError("spawn_later(seconds, function, …): the function is missing")
        made = cls(*args, **kwargs)
        made.start_later(seconds)
        return made

    def start(self) -> None:
        """Have it run as soon as others wait. Nothing happens if it was started or killed before."""
        if self._fiber is None and not self._done:
            self._begin(spawn(_live, self, name=self._title()))

    def start_later(self, seconds: float) -> None:
        """As `start`, after `seconds`."""
        check_seconds("seconds", seconds)
        if self._fiber is None and not self._done:
            self._begin(spawn(_live_later, seconds, self, name=self._title()))

    def _begin(self, fiber: Fiber[None]) -> None:
        self._fiber = fiber
        spawned_by_caller(fiber)
        if self._fate is not None:
            self._fate.set()
        for callback in _spawn_callbacks:
            callback(self)

    def _title(self) -> str:
        return self._name or str(getattr(self._run, "__qualname__", type(self).__name__))

    def run(self) -> None:
        """Call its function, and keep what comes of it."""
        try:
            value = self._run(*self.args, **self.kwargs)
        except (Cancelled, FiberKilled) as error:
            self._end(None, error)
            raise
        except BaseException as error:
            self._fail(error)
        else:
            self._end(value, None)

    def _fail(self, error: BaseException) -> None:
        if isinstance(error, GreenletExit):
            self._end(error, None)
            return
        self._end(None, error)
        get_hub().handle_error(self, type(error), error, error.__traceback__)

    def _end(self, value: Any, error: BaseException | None) -> None:
        self.value = value
        if error is not None:
            self._error, self._traceback = error, error.__traceback__
        self._done = True
        self.args = ()
        self.__dict__.pop("kwargs", None)
        if self._fate is not None:
            self._fate.set()
        self._notify()

    def _never_ran(self, fiber: Fiber[Any]) -> None:
        """Its fiber is over. A done-callback of those that have been killed."""
        if not self._done:
            fiber.exception()  # retrieved
            error = fiber._error
            assert error is not None
            self._fail(GreenletExit() if isinstance(error, (Cancelled, FiberKilled)) else error)

    # -- asking about it ------------------------------------------------------------------------------------------

    def ready(self) -> bool:
        """Is it over: has it ended, or was it killed before it began?"""
        return self._done or (self._fiber is not None and self._fiber.done())

    @property
    def dead(self) -> bool:
        """The same."""
        return self.ready()

    @property
    def started(self) -> bool:
        """Has it been started, and is not over?"""
        return self._fiber is not None and not self.ready()

    def __bool__(self) -> bool:
        return self.started

    def successful(self) -> bool:
        """Is it over, and has not failed? (Killed by GreenletExit is no failure.)"""
        return self.ready() and self._error is None

    @property
    def exception(self) -> BaseException | None:
        """What it has failed of."""
        return self._error

    @property
    def exc_info(self) -> tuple[Any, ...]:
        """The same, as `sys.exc_info()`; () if it has not failed."""
        return () if self._error is None else (type(self._error), self._error, self._traceback)

    @property
    def minimal_ident(self) -> int:
        """A small number of its own."""
        ident: int | None = self.__dict__.get("_ident")
        if ident is None:
            ident = self.__dict__["_ident"] = next(_idents)
        return ident

    @property
    def name(self) -> str:
        """A name, for people."""
        if self._name is None:
            self._name = f"Greenlet-{self.minimal_ident}"
        return self._name

    @name.setter
    def name(self, name: str) -> None:
        self._name = name
        if self._fiber is not None:
            self._fiber.name = name

    @property
    def parent(self) -> Hub:
        """The hub."""
        return get_hub()

    @property
    def loop(self) -> Any:
        """That of the hub."""
        return get_hub().loop

    def spawning_greenlet(self) -> Any:
        """Who has made it, if that one still lives."""
        return self._spawner()

    # -- waiting for it -------------------------------------------------------------------------------------------

    def join(self, timeout: float | Timeout | None = None) -> None:
        """Wait until it is over, or `timeout` seconds have passed."""
        if not self.ready():
            bounded(self._over, timeout)

    def get(self, block: bool = True, timeout: float | Timeout | None = None) -> Any:
        """Wait until it is over; its value, or its error. Raises Timeout after `timeout` seconds, or unless `block`."""
        if not self.ready():
            if not block:
                raise Timeout()
            if not bounded(self._over, timeout):
                raise expired(timeout)
        if self._error is not None:
            raise self._error.with_traceback(self._traceback)
        return self.value

    def _over(self, seconds: float | None) -> bool:
        fiber = self._fiber
        if fiber is None:
            fate: Event = self.__dict__.setdefault("_fate", Event())
            deadline = None if seconds is None else current_time() + seconds
            if self._fiber is None and not self._done and not fate.wait(seconds):
                return False
            fiber = self._fiber
            if fiber is None or self._done:
                return True
            seconds = None if deadline is None else max(deadline - current_time(), 0)
        try:
            fiber.join(seconds)
        except TimeoutError:
            return self.ready()
        return True

    # -- ending it ------------------------------------------------------------------------------------------------

    def kill(self, exception: Any = GreenletExit, block: bool = True, timeout: float | Timeout | None = None) -> None:
        """Raise an exception in it where it waits, and wait (if `block`) until it is over, or `timeout` seconds.

        If its function has not begun, it never runs. Nothing happens if it is over.
        """
        self._kill(as_error(exception), block, timeout)

    def _kill(self, error: BaseException, block: bool, timeout: float | Timeout | None = None) -> None:
        if self.ready():
            return
        fiber = self._fiber
        if fiber is None:
            self._fail(error)
            return
        if self._begun and block and getcurrent() is self:
            raise error
        if not self._begun:
            fiber.add_done_callback(self._never_ran)
        fiber.kill(error)
        if block and not self.ready():
            self.join(timeout)

    def throw(self, *args: Any) -> None:
        """Raise an exception in it: here and now, if it calls, else where it waits."""
        error = as_error(*args)
        if self._begun and not self.ready() and getcurrent() is self:
            raise error
        self._kill(error, False)

    def switch(self, *args: Any) -> None:
        """Never: see `hub.Bare.switch`."""
        raise TypeError("a Greenlet is not switched to: it is started, and waited for")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for it; or, if the block has failed, kill it with what the block has failed of."""
        if error is not None:
            self.kill(error)
            return
        try:
            self.join()
        except BaseException:
            self.kill(sys.exc_info()[1])
            raise

    # -- links ----------------------------------------------------------------------------------------------------

    def link(self, callback: Link, SpawnedLink: type[SpawnedLink] = SpawnedLink) -> None:  # noqa: N803
        """Have `callback(self)` called in a fiber of its own when it is over."""
        self.rawlink(SpawnedLink(callback))

    def link_value(self, callback: Link, SpawnedLink: type[SpawnedLink] = SuccessSpawnedLink) -> None:  # noqa: N803
        """As `link`, if it is successful."""
        self.rawlink(SpawnedLink(callback))

    def link_exception(self, callback: Link, SpawnedLink: type[SpawnedLink] = FailureSpawnedLink) -> None:  # noqa: N803
        """As `link`, if it is not."""
        self.rawlink(SpawnedLink(callback))

    def unlink_all(self) -> None:
        """Take all links back."""
        self._links.clear()

    def has_links(self) -> int:
        """How many there are."""
        return len(self._links)

    @staticmethod
    def add_spawn_callback(callback: "Callable[[Greenlet], object]") -> None:
        """Have `callback(greenlet)` called with each one that is started."""
        _spawn_callbacks.append(callback)

    @staticmethod
    def remove_spawn_callback(callback: "Callable[[Greenlet], object]") -> None:
        """Not any more."""
        if callback in _spawn_callbacks:
            _spawn_callbacks.remove(callback)

    def __repr__(self) -> str:
        run: Any = self._run
        called = (
            run.__name__ if hasattr(run, "__name__") and getattr(run, "__self__", None) in (None, self) else repr(run)
        )
        given = [repr(each) for each in self.args] + [f"{name}={each!r}" for name, each in self.kwargs.items()]
        name = "" if self._name is None else f' "{self._name}"'
        return (
            f"<{type(self).__name__}{name} at {id(self):#x}: {called}{'(' + ', '.join(given) + ')' if given else ''}>"
        )


def _live(greenlet: Greenlet) -> None:
    """In its fiber. (A fiber keeps its function to the end of its days, but not the arguments.)"""
    greenlet._begun = True
    me = running.enter(greenlet)
    try:
        greenlet.run()
    finally:
        running.leave(me)


def _live_later(seconds: float, greenlet: Greenlet) -> None:
    sleep(seconds)
    _live(greenlet)


def joinall(
    greenlets: Iterable[Any],
    timeout: float | Timeout | None = None,
    raise_error: bool = False,
    count: int | None = None,
) -> list[Any]:
    """Wait for greenlets: all, or `count`, or what is over after `timeout` seconds. Returns those that are.

    With `raise_error` the first failure among them is raised.
    """
    if not raise_error:
        return list(wait(greenlets, timeout=timeout, count=count))
    done = []
    for greenlet in iwait(greenlets, timeout=timeout, count=count):
        if getattr(greenlet, "exception", None) is not None:
            raise greenlet.exception.with_traceback(getattr(greenlet, "_traceback", None))
        done.append(greenlet)
    return done


def killall(
    greenlets: Iterable[Any],
    exception: Any = GreenletExit,
    block: bool = True,
    timeout: float | Timeout | None = None,
) -> None:
    """Kill greenlets, all at once, and wait (if `block`) until they are over. Raises Timeout after `timeout` seconds."""
    mine = list(greenlets)
    for greenlet in mine:
        if isinstance(greenlet, Greenlet):
            greenlet.kill(exception, block=False)
        elif not greenlet.dead:
            greenlet.throw(exception)
    if block:
        alive = [each for each in mine if not each.dead]
        limit = Timeout.start_new(timeout)
        try:
            for greenlet in alive:
                greenlet._fiber.join()
        finally:
            limit.cancel()


__all__ = ["Greenlet", "joinall", "killall"]
