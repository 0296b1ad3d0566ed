"""The functions of libevent 2.1 that the loop uses, by ctypes: no compiler, no package to build.

Facts (libevent 2.1.12), and what follows:

* The library lets go of a number of duties by calling back: an event has come, something is to be logged, something is
  beyond repair. CPython runs signal handlers at the entry of every Python function, so a Python callback is a place in
  which a handler may raise, and ctypes prints such an exception and drops it: a lost Ctrl-C. So callbacks that return to
  libevent are made of C functions alone, which only record. Nothing ever raises through C.
* What is logged goes to stderr by default. Ours keeps the last message of each severity, for the error that will be
  raised because of it.
* After a fatal error libevent calls `exit(1)`, whatever a fatal callback does, and the process would end without a word
  from Python. Ours shows where every thread was, and aborts. It does not return, so it may be Python.
* `event_base_loop` sleeps, so it is called without the GIL. All others take less time than giving the GIL away and
  getting it back, and are called with it.
"""

import ctypes
import faulthandler
import os
import sys
from collections.abc import Callable
from ctypes.util import find_library
from typing import Any, Final

#: Where `libevent_core` of series 2.1 is on Debian, FreeBSD and Linux in general, and with Homebrew (whose folder is
#: not on the default search path). The last two hold all of libevent.
NAMES: Final = (
    (
        "libevent_core-2.1.7.dylib",
        "/opt/homebrew/lib/libevent_core-2.1.7.dylib",
        "/usr/local/lib/libevent_core-2.1.7.dylib",
    )
    if sys.platform == "darwin"
    else ("libevent_core-2.1.so.7", "/usr/local/lib/libevent_core-2.1.so.7", "libevent-2.1.so.7")
)

HOW_TO_INSTALL: Final = (
    "libevent 2.1 was not found; install it: 'apt install libevent-core-2.1-7' on Debian and Ubuntu (in newer releases "
    "'libevent-core-2.1-7t64'), 'brew install libevent' with Homebrew, 'pkg install libevent' on FreeBSD"
)

_SERIES: Final = 0x0201

EV_TIMEOUT: Final = 0x01
EV_READ: Final = 0x02
EV_WRITE: Final = 0x04
EV_PERSIST: Final = 0x10

EVLOOP_ONCE: Final = 0x01
EVLOOP_NONBLOCK: Final = 0x02
EVLOOP_NO_EXIT_ON_EMPTY: Final = 0x04

BASE_NOLOCK: Final = 0x01
BASE_PRECISE_TIMER: Final = 0x20


class Timeval(ctypes.Structure):
    """`struct timeval`: a duration."""

    _fields_ = (("tv_sec", ctypes.c_long), ("tv_usec", ctypes.c_int32 if sys.platform == "darwin" else ctypes.c_long))


#: An event has come: fd, what, the integer given to `event_new`.
EventCallback: Final = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_short, ctypes.c_void_p)
_LogCallback: Final = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p)
_FatalCallback: Final = ctypes.CFUNCTYPE(None, ctypes.c_int)


def load(names: tuple[str, ...] = NAMES, find: Callable[[str], str | None] = find_library) -> str:
    """The name under which the library can be loaded. Raises ImportError, which says how to install it."""
    for name in names:
        if _series(name) == _SERIES:
            return name
    found = find("event_core")  # slow: it runs other programs
    if found is not None and _series(found) == _SERIES:
        return found
    raise ImportError(HOW_TO_INSTALL)


def _series(name: str) -> int | None:
    """Which series of libevent a library is, None if it is none."""
    try:
        number: int = ctypes.CDLL(name).event_get_version_number()
    except (OSError, AttributeError):
        return None
    return number >> 16


LIBRARY: Final = load()
_quick: Final = ctypes.PyDLL(LIBRARY, use_errno=True)
_sleeping: Final = ctypes.CDLL(LIBRARY, use_errno=True)


def _function(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    function = getattr(library, name)
    function.restype = result
    function.argtypes = arguments
    return function  # type: ignore[no-any-return]


_pointer, _int = ctypes.c_void_p, ctypes.c_int

event_get_version: Final = _function(_quick, "event_get_version", ctypes.c_char_p)
event_config_new: Final = _function(_quick, "event_config_new", _pointer)
event_config_free: Final = _function(_quick, "event_config_free", None, _pointer)
event_config_set_flag: Final = _function(_quick, "event_config_set_flag", _int, _pointer, _int)
event_config_avoid_method: Final = _function(_quick, "event_config_avoid_method", _int, _pointer, ctypes.c_char_p)
event_base_new_with_config: Final = _function(_quick, "event_base_new_with_config", _pointer, _pointer)
event_base_free: Final = _function(_quick, "event_base_free", None, _pointer)
event_base_get_method: Final = _function(_quick, "event_base_get_method", ctypes.c_char_p, _pointer)
event_base_get_features: Final = _function(_quick, "event_base_get_features", _int, _pointer)
event_base_loop: Final = _function(_sleeping, "event_base_loop", _int, _pointer, _int)
event_new: Final = _function(
    _quick, "event_new", _pointer, _pointer, _int, ctypes.c_short, EventCallback, ctypes.c_void_p
)
event_free: Final = _function(_quick, "event_free", None, _pointer)
event_add: Final = _function(_quick, "event_add", _int, _pointer, _pointer)
event_del: Final = _function(_quick, "event_del", _int, _pointer)
event_active: Final = _function(_quick, "event_active", None, _pointer, _int, ctypes.c_short)
event_pending: Final = _function(_quick, "event_pending", _int, _pointer, ctypes.c_short, _pointer)
event_set_log_callback: Final = _function(_quick, "event_set_log_callback", None, _LogCallback)
event_set_fatal_callback: Final = _function(_quick, "event_set_fatal_callback", None, _FatalCallback)

#: The last message by severity (0 debug … 3 error). Of the whole process.
messages: Final[dict[int, bytes]] = {}


def _fatal(error: int) -> None:
    """The end of the process: libevent cannot go on and would call `exit`."""
    last = messages[max(messages)].decode(errors="replace") if messages else f"error {error}"
    os.write(2, f"fibers: libevent cannot go on: {last}\n".encode())
    faulthandler.dump_traceback(all_threads=True)
    os.abort()


# Kept for ever: libevent does.
log_callback: Final = _LogCallback(messages.__setitem__)
fatal_callback: Final = _FatalCallback(_fatal)
event_set_log_callback(log_callback)
event_set_fatal_callback(fatal_callback)

VERSION: Final[str] = event_get_version().decode()


def failure() -> OSError:
    """The error of the call that has just failed in this thread, with what libevent has to say about it."""
    number = ctypes.get_errno()
    said = messages.pop(2, None) or messages.pop(3, None)
    return OSError(number, f"libevent: {said.decode(errors='replace')}" if said else os.strerror(number))
