"""`signal.sigwait` and its kin, which suspend the fiber; `pthread_kill`, which knows fibers by their numbers.

A signal that is waited for is blocked, in this thread and in all that were started from it. So no other thread may take
it for us, nor is the loop woken by it: it is looked for after 1, 2, 4 … 20 ms.
"""

import signal
from collections.abc import Callable, Iterable
from typing import Any, Final

from ..core.runtime import sleep
from ..core.scheduler import state
from .originals import module
from .threads import living

_std: Final[Any] = module("signal")
_MAX_PAUSE: Final = 0.02


def _look_for(sigset: Iterable[int], timeout: float | None) -> Any:
    clock: Callable[[], float] = module("time").monotonic
    end = None if timeout is None else clock() + timeout
    pause = 0.001
    while (found := _std.sigtimedwait(sigset, 0)) is None:
        left = pause if end is None else end - clock()
        if left <= 0:
            return None
        sleep(min(pause, left))
        pause = min(pause * 2, _MAX_PAUSE)
    return found


def _may_wait() -> bool:
    scheduler = state.scheduler
    return scheduler is None or scheduler.current is not None


def sigwaitinfo(sigset: Any, /) -> Any:
    """As `signal.sigwaitinfo`."""
    return _look_for(sigset, None) if _may_wait() else _std.sigwaitinfo(sigset)


def sigwait(sigset: Any, /) -> signal.Signals:
    """As `signal.sigwait`."""
    return signal.Signals(sigwaitinfo(sigset).si_signo)


def sigtimedwait(sigset: Any, timeout: float, /) -> Any:
    """As `signal.sigtimedwait`."""
    return _std.sigtimedwait(sigset, timeout) if timeout <= 0 or not _may_wait() else _look_for(sigset, timeout)


def pthread_kill(thread_id: int, signalnum: int, /) -> None:
    """As `signal.pthread_kill`. The signal goes to the thread that a fiber lives in."""
    for fiber in list(living):
        if id(fiber) == thread_id:
            thread_id = fiber.scheduler.thread
    _std.pthread_kill(thread_id, signalnum)


NAMES: Final = {
    name: ours
    for name, ours in (
        ("sigwaitinfo", sigwaitinfo),
        ("sigwait", sigwait),
        ("sigtimedwait", sigtimedwait),
        ("pthread_kill", pthread_kill),
    )
    if hasattr(signal, name) and (name == "pthread_kill" or hasattr(signal, "sigtimedwait"))
}
