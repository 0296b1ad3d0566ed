"""Threads that are fibers: `_thread.start_new_thread`, and what `threading.Thread` asks of its C half.

`threading.Thread` stays what it is, code and all: what is replaced are the few functions of `_thread` on which it stands.
That surface is small, and has been the same for years, while the inside of `Thread` changes in every release.

Where is a new thread a fiber? In the main thread and in a FiberThread, which have loops for it to live in as long as they
live. Any other thread (a worker of `to_thread`, one that was started before) may end at any time, and what it starts is
meant to live on: there a thread is a thread. `NativeThread` is one everywhere.

Any thread can be joined by a fiber, which must not block its own thread meanwhile. So of threads of the system's, too, and
of the main thread, the end is told by a lock of ours.
"""

import _thread
import sys
import threading
import traceback
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import Any, Final

from greenlet import GreenletExit

from ..core.endings import end_of
from ..core.fiber import Fiber
from ..core.runtime import spawn
from ..core.scheduler import get_scheduler
from ..errors import Cancelled, FiberKilled
from ..threads.fiber_thread import FiberThread
from .idents import get_ident, heir, native_ident, thread_fiber
from .journal import Journal
from .locks import Lock

_start: Final = _thread.start_new_thread
_count_native: Final = _thread._count
_excepthook: Final = threading.excepthook
_DummyThread: Final[Any] = threading._DummyThread
_init_dummy: Final = _DummyThread.__init__


class NativeThread(threading.Thread):
    """A `threading.Thread` that is one of the system's, also where threads are fibers."""


#: Those that live: the lock that is let go at the end of each, once `threading` has asked for one.
living: Final[dict[Fiber[Any], "Sentinel | None"]] = {}


#: Threads of the system's that were started here, by number, and the lock of each, up to CPython 3.12.
native_living: Final[dict[int, "Sentinel | None"]] = {}


#: From CPython 3.13 on: their handles (handles.py).
handles: Final[dict[Fiber[Any], Any]] = {}


def is_native(function: Any) -> bool:
    """Shall this be a thread of the system's?"""
    if isinstance(getattr(function, "__self__", None), NativeThread | FiberThread):
        return True
    here = native_ident()
    if here == _main_ident():
        return False
    return not isinstance(threading._active.get(here), FiberThread)  # type: ignore[attr-defined]


def _main_ident() -> int | None:
    return threading._main_thread.ident  # type: ignore[attr-defined, no-any-return]


def start_new_thread(function: Callable[..., object], args: tuple[Any, ...], kwargs: Any = None, /) -> int:
    """As `_thread.start_new_thread`: a fiber of this thread. See the module's text for where it is a thread."""
    if not callable(function):
        raise TypeError("first arg must be callable")
    if not isinstance(args, tuple):
        raise TypeError("2nd arg must be a tuple")
    if kwargs is not None and not isinstance(kwargs, dict):
        raise TypeError("optional 3rd arg must be a dictionary")
    if is_native(function):
        return _start(_live_natively, (partial(function, *args, **kwargs or {}),))
    return id(start(function, args, kwargs or {}))


def _name(function: Any) -> str:
    owner = getattr(function, "__self__", None)
    return owner.name if isinstance(owner, threading.Thread) else getattr(function, "__qualname__", repr(function))


def start(function: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Fiber[None]:
    """Start a fiber that is a thread. It begins with an empty context, as threads do. RuntimeError if there can be none."""
    # In CPython 3.12, and only there, none is started from the moment on in which the main thread waits for the others.
    ending: bool = sys.version_info[:2] == (3, 12) and threading._SHUTTING_DOWN
    if ending or sys.is_finalizing() or get_scheduler().closed:
        raise RuntimeError("can't create new thread at interpreter shutdown")
    sys.audit("_thread.start_new_thread", function, args, kwargs)
    fiber: Fiber[None] = Context().run(spawn, _live, partial(function, *args, **kwargs), name=_name(function))
    living[fiber] = None
    end_of(fiber).watch(_ended)
    return fiber


def _live(call: Callable[[], object]) -> None:
    try:
        call()
    except SystemExit:
        pass  # it ends, and that is all
    except (Cancelled, FiberKilled, GreenletExit):
        raise
    except BaseException as error:
        error.__traceback__ = None if error.__traceback__ is None else error.__traceback__.tb_next
        _report(_Unraisable(error, call))


def _report(told: "_Unraisable") -> None:
    if sys.unraisablehook is not sys.__unraisablehook__:
        sys.unraisablehook(told)  # type: ignore[arg-type]
    elif sys.stderr is not None:  # theirs takes nothing but what C has made, and nobody else can make that
        about = "" if told.object is None else f": {told.object!r}"
        lines = traceback.format_exception(told.exc_type, told.exc_value, told.exc_traceback, chain=False)
        sys.stderr.write(f"{told.err_msg}{about or ':'}\n{''.join(lines)}")


def _live_natively(call: Callable[[], object]) -> None:
    here = native_ident()
    native_living[here] = None
    try:
        _live(call)
    finally:
        lock = native_living.pop(here, None)
        if lock is not None and lock.locked():
            lock.release()


class _Unraisable:
    """What `sys.unraisablehook` is told."""

    err_msg = "Exception ignored in thread started by"

    def __init__(self, error: BaseException, call: Any) -> None:
        self.exc_type = type(error)
        self.exc_value = error
        self.exc_traceback = error.__traceback__
        self.object = call.func
        if sys.version_info >= (3, 13):
            self.object, self.err_msg = None, f"{self.err_msg} {call.func!r}"


def _ended(fiber: Fiber[Any]) -> None:
    """A done-callback: what C does when a thread's state is cleared."""
    lock = living.pop(fiber, None)
    handles.pop(fiber, None)
    if lock is not None and lock.locked() and fiber is not heir.fiber:  # that one is the main thread
        lock.release()


def _set_sentinel() -> Any:
    """As `_thread._set_sentinel`: a lock that is released when the calling thread is over."""
    me = thread_fiber()
    if me is not None and me in living:
        lock = living[me] = Sentinel()
    elif native_ident() in native_living:
        lock = native_living[native_ident()] = Sentinel()
    else:
        return _thread_set_sentinel()
    return lock


def take_main(journal: Journal) -> None:
    """Give the main thread a lock of ours in place of the one that `threading` has made for it."""
    main: Any = threading.main_thread()
    if getattr(main, "_tstate_lock", None) is None:
        return  # CPython 3.13: see handles.py
    new = Sentinel()
    new.acquire()
    locks: set[Any] = threading._shutdown_locks  # type: ignore[attr-defined]
    if main._tstate_lock in locks:
        journal.record(locks.__ixor__, {main._tstate_lock, new})
        locks ^= {main._tstate_lock, new}
    journal.set_attribute(main, "_tstate_lock", new)


class Sentinel(Lock):
    """The lock that `threading.Thread` holds while it lives, up to CPython 3.12.

    Whoever joins it takes and releases it. If that is interrupted, `threading` asks `locked()`, to know whether it has got
    the lock, and releases it then: a bug of its own, for the thread may hold it, and would count as over while it lives.
    So whoever was interrupted is told that it is not locked. And `threading` wants to see it free when somebody has joined,
    while ours hands it from one who joins to the next: once the thread has let go of it, it never looks held again.
    """

    __slots__ = ("_over", "_struck")

    def __init__(self) -> None:
        super().__init__()
        self._struck: int | None = None
        self._over = False

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """As `Lock.acquire`."""
        try:
            return super().acquire(blocking, timeout)
        except BaseException:
            self._struck = get_ident()
            raise

    def locked(self) -> bool:
        """Is it held? No, for who has just failed to get it."""
        if self._struck == get_ident():
            self._struck = None
            return False
        return not self._over and super().locked()

    def release(self) -> None:
        """As `Lock.release`. The first one is that of the thread itself."""
        self._over = True
        super().release()

    def _at_fork_reinit(self) -> None:
        self._over = False
        super()._at_fork_reinit()


_thread_set_sentinel: Final[Any] = getattr(_thread, "_set_sentinel", None)


def _count() -> int:
    """As `_thread._count`: threads of the system's and fibers that are threads."""
    return _count_native() + len(living)


def excepthook(args: Any, /) -> None:
    """As `threading.excepthook`. That a fiber was cancelled or killed is no error of it."""
    if args.exc_type is None or not issubclass(args.exc_type, Cancelled | FiberKilled | GreenletExit):
        _excepthook(args)


def init_dummy(self: Any) -> None:
    """For `threading._DummyThread`: taken off the list at the end of its fiber."""
    _init_dummy(self)
    me = thread_fiber()
    if me is not None:
        end_of(me).watch(partial(_forget, id(me), self))


def _forget(ident: int, dummy: Any, fiber: Fiber[Any]) -> None:
    if threading._active.get(ident) is dummy:  # type: ignore[attr-defined]
        del threading._active[ident]  # type: ignore[attr-defined]
