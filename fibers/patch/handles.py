"""What CPython 3.13 and later have in place of `_set_sentinel`: handles of threads, which can be joined.

A handle of ours stands for a fiber, or for a thread of the system's, whose own handle it then keeps.
"""

import _thread
from collections.abc import Callable
from typing import Any, Final

from ..core.fiber import Fiber
from . import threads
from .idents import heir, native_ident, thread_fiber
from .locks import Lock

_start_native: Final[Any] = getattr(_thread, "start_joinable_thread", None)
_make_native: Final[Any] = getattr(_thread, "_make_thread_handle", None)
_native_handle: Final[Any] = getattr(_thread, "_ThreadHandle", None)
_shut_native: Final[Any] = getattr(_thread, "_shutdown", None)


class ThreadHandle:
    """As `_thread._ThreadHandle`."""

    __slots__ = ("__weakref__", "_daemon", "_fiber", "_native", "_over")

    def __init__(self) -> None:
        self._fiber: Fiber[Any] | None = None
        self._native: Any = None
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
            return bool(self._native.is_done())
        fiber = self._fiber
        # The forking fiber is the main thread in the child, and over when `threading` says so.
        return self._over or (fiber is not None and fiber is not heir.fiber and fiber.done())

    def join(self, timeout: float | None = None) -> None:
        """Wait until it is over, for at most `timeout` seconds (None or negative: no limit)."""
        if self._native is not None:
            self._native.join(timeout)
            return
        fiber = self._fiber
        if fiber is None:
            raise RuntimeError("thread not started")
        if fiber is thread_fiber():
            raise RuntimeError("Cannot join current thread")
        if not self.is_done():
            try:
                fiber.join(None if timeout is None or timeout < 0 else timeout)
            except TimeoutError:
                pass

    def _set_done(self) -> None:
        if self._native is None and self._fiber is None:
            raise RuntimeError("thread not started")
        self._over = True
        if self._native is not None:
            self._native._set_done()

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
        handle._native = _native_handle()
        _start_native(function, handle=handle._native, daemon=daemon)
    else:
        handle._fiber = fiber = threads.start(function, (), {})
        threads.handles[fiber] = handle
    return handle


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
    _shut_native()


NAMES: Final[dict[str, Any]] = {
    "_thread.start_joinable_thread": start_joinable_thread,
    "_thread._make_thread_handle": make_thread_handle,
    "_thread._ThreadHandle": ThreadHandle,
    "_thread._shutdown": shut_down,
    "_thread.lock": Lock,
}
