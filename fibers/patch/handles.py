"""What CPython 3.13 and later have in place of `_set_sentinel`: handles of threads, which can be joined.

A handle of ours stands for a fiber, or for a thread of the system's, whose own handle it then keeps. That one would block
the thread of a fiber that joins it; so first the fiber waits for a lock that is let go where the thread is about to end.
"""

import _thread
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final
from weakref import WeakSet

from ..core.fiber import Fiber
from . import threads
from .idents import get_ident, heir, native_ident, thread_fiber
from .journal import Journal
from .locks import Lock

_start_native: Final[Any] = getattr(_thread, "start_joinable_thread", None)
_make_native: Final[Any] = getattr(_thread, "_make_thread_handle", None)
_native_handle: Final[Any] = getattr(_thread, "_ThreadHandle", None)
_shut_native: Final[Any] = getattr(_thread, "_shutdown", None)


#: Those of threads of the system's that are no daemons.
natives: Final["WeakSet[ThreadHandle]"] = WeakSet()


class ThreadHandle:
    """As `_thread._ThreadHandle`."""

    __slots__ = ("__weakref__", "_daemon", "_ended", "_fiber", "_is_main", "_native", "_over")

    def __init__(self) -> None:
        self._fiber: Fiber[Any] | None = None
        self._native: Any = None
        self._ended: Lock | None = None  # of a thread of the system's: held until it is over
        self._is_main = False
        self._daemon = True
        self._over = False

    @property
    def ident(self) -> int:
        """The number of the thread; 0 before the start."""
        if self._native is not None:
            return int(self._native.ident)
        if self._fiber is None:
            return 0
        return native_ident() if self._fiber is heir.fiber else id(self._fiber)

    def is_done(self) -> bool:
        """Is it over?"""
        if self._native is not None:
            # A fiber that forks is the main thread in the child.
            return self._over or bool(self._native.is_done()) or (self._is_main and heir.fiber is not None)
        fiber = self._fiber
        # The forking fiber is the main thread in the child, and over when `threading` says so.
        return self._over or (fiber is not None and fiber is not heir.fiber and fiber.done())

    def join(self, timeout: float | None = None) -> None:
        """Wait until it is over, for at most `timeout` seconds (None or negative: no limit)."""
        if timeout is not None and timeout < 0:
            timeout = None
        if self._native is not None:
            self._join_native(timeout)
            return
        fiber = self._fiber
        if fiber is None:
            raise RuntimeError("thread not started")
        if fiber is thread_fiber():
            raise RuntimeError("Cannot join current thread")
        if not self.is_done():
            try:
                fiber.join(timeout)
            except TimeoutError:
                pass

    def _join_native(self, timeout: float | None) -> None:
        ended = self._ended
        if ended is not None and self.ident != get_ident() and not self.is_done():
            if not ended.acquire(timeout=-1 if timeout is None else timeout):
                return
            ended.release()
        if not self._is_main or not self.is_done():
            self._native.join(timeout)

    def _set_done(self) -> None:
        if self._native is None and self._fiber is None:
            raise RuntimeError("thread not started")
        self._over = True
        if self._native is not None:
            self._native._set_done()
        if self._ended is not None and self._ended.locked():
            self._ended.release()

    def __repr__(self) -> str:
        return f"<fibers.patch.{type(self).__name__}: ident={self.ident}>"


def start_joinable_thread(
    function: Callable[[], object], handle: ThreadHandle | None = None, daemon: bool = True
) -> ThreadHandle:
    """As `_thread.start_joinable_thread`: a fiber, or a thread where threads.py says so."""
    if not callable(function):
        raise TypeError("thread function must be callable")
    if handle is None:
        handle = ThreadHandle()
    elif not isinstance(handle, ThreadHandle):  # of a Thread that was made before it was patched
        owner = getattr(function, "__self__", None)
        if getattr(owner, "_handle", None) is not handle:
            _start_native(function, handle=handle, daemon=daemon)
            return handle
        handle = owner._handle = ThreadHandle()
    if handle.ident:
        raise RuntimeError("thread already started")
    handle._daemon = daemon
    if threads.is_native(function):
        handle._native, handle._ended = _native_handle(), Lock()
        handle._ended.acquire()
        try:
            _start_native(partial(_live, function, handle._ended), handle=handle._native, daemon=daemon)
        except BaseException:
            handle._native = handle._ended = None
            raise
        if not daemon:
            natives.add(handle)
    else:
        handle._fiber = fiber = threads.start(function, (), {})
        threads.handles[fiber] = handle
    return handle


def _live(function: Callable[[], object], ended: Lock) -> None:
    try:
        function()
    finally:
        ended.release()


def take_main(journal: Journal) -> None:
    """Give the main thread a handle of ours in place of the one that `threading` has made for it."""
    main: Any = threading.main_thread()
    native = getattr(main, "_handle", None)
    if native is not None:
        handle = ThreadHandle()
        handle._native, handle._ended, handle._is_main = native, Lock(), True
        handle._ended.acquire()
        journal.set_attribute(main, "_handle", handle)


def make_thread_handle(ident: int, /) -> Any:
    """As `_thread._make_thread_handle`: for a thread that was not started here."""
    me = thread_fiber()
    if me is None or id(me) != ident:
        return _make_native(ident)
    handle = ThreadHandle()
    handle._fiber = me
    return handle


def shut_down() -> None:
    """As `_thread._shutdown`: wait for all that are no daemons, but for the calling one."""
    me = thread_fiber()
    while left := [each for each, handle in threads.handles.items() if not handle._daemon and each is not me]:
        left[0].join()
        threads.handles.pop(left[0], None)
    while unfinished := [each for each in _natives() if each.ident != get_ident() and not each.is_done()]:
        unfinished[0].join()
    _shut_native()


def _natives() -> list[ThreadHandle]:
    while True:
        try:
            return list(natives)
        except RuntimeError:
            pass  # a thread has started one meanwhile


NAMES: Final[dict[str, Any]] = {
    "_thread.start_joinable_thread": start_joinable_thread,
    "_thread._make_thread_handle": make_thread_handle,
    "_thread._ThreadHandle": ThreadHandle,
    "_thread._shutdown": shut_down,
    "_thread.lock": Lock,
}
