"""The one table: what is replaced, and by what.

NAMES are functions and C types. They are replaced wherever a loaded module holds them (names.py). METHODS are those of
classes written in Python, which keep their identity: the methods are replaced in place. The groups are what `patch_all` can
be told to leave alone.
"""

from collections.abc import Mapping
from operator import index
from typing import Any, Final

from ..core.local import Local
from ..core.runtime import sleep as fiber_sleep
from ..core.runtime import yield_now
from ..core.scheduler import state
from ..io import names
from ..sync.simplequeue import SimpleQueue
from . import descriptors, handles, polling, processes, semlocks, signalling, sockets, threads
from .idents import get_ident
from .locks import Lock, RLock
from .originals import STANDARD, module, split

#: Seconds: more are refused by the standard call.
_MAX: Final = 2**63 / 1e9
_block: Final[Any] = module("time").sleep


def sleep(seconds: float, /) -> None:
    """As `time.sleep`."""
    if not isinstance(seconds, int | float) and hasattr(seconds, "__index__"):
        seconds = index(seconds)
    scheduler = state.scheduler
    if (
        (scheduler is not None and scheduler.current is None)
        or not isinstance(seconds, int | float)
        or not 0 <= seconds <= _MAX
    ):
        _block(seconds)  # inside the runtime, where nothing may wait; or an error, or a number of another kind
    elif seconds:
        fiber_sleep(seconds)
    else:
        yield_now()


class _Local(Local):
    """As `threading.local`."""


_THREAD: Final[dict[str, Any]] = {
    "_thread.start_new_thread": threads.start_new_thread,
    "_thread.allocate_lock": Lock,
    "_thread.LockType": Lock,
    "_thread.RLock": RLock,
    "_thread.get_ident": get_ident,
    "_thread._count": threads._count,
    "_thread._local": _Local,
    "_thread._set_sentinel": threads._set_sentinel,
    **handles.NAMES,
    "threading.excepthook": threads.excepthook,
}

_NAMES: Final[dict[str, dict[str, Any]]] = {
    "multiprocessing": {"_multiprocessing.SemLock": semlocks.SemLock},
    "os": {f"os.{name}": ours for name, ours in (descriptors.NAMES | processes.NAMES).items()},
    "queue": {"queue.SimpleQueue": SimpleQueue},
    "select": {f"select.{name}": ours for name, ours in polling.NAMES.items()},
    "signal": {f"signal.{name}": ours for name, ours in signalling.NAMES.items()},
    "socket": {
        f"socket.{name}": getattr(names, name)
        for name in (
            "getaddrinfo", "getfqdn", "gethostbyaddr", "gethostbyname", "gethostbyname_ex", "getnameinfo",
            "getprotobyname", "getservbyname", "getservbyport",
        )
    },
    "ssl": {},
    "subprocess": {},
    "thread": {name: ours for name, ours in _THREAD.items() if hasattr(STANDARD[split(name)[0]], split(name)[1])},
    "time": {"time.sleep": sleep},
}  # fmt: skip


def _rename() -> None:
    """Let what is ours bear the names of what it replaces: so it is shown, and pickled for a process that is not patched."""
    here = __name__.rpartition(".")[0]
    for replaced in _NAMES.values():
        for name, ours in replaced.items():
            where, what = split(name)
            original = getattr(module(where), what)
            # A type that replaces a function, too, is called as the type that it replaces.
            if ours.__module__.startswith(here) and isinstance(ours, type) <= isinstance(original, type):
                ours.__module__ = where
                ours.__name__ = ours.__qualname__ = getattr(original, "__name__", what)


_rename()

#: Names that are replaced everywhere, by group.
NAMES: Final[Mapping[str, Mapping[str, Any]]] = _NAMES

#: Methods that are replaced in their class, by group and class.
METHODS: Final[Mapping[str, Mapping[str, Mapping[str, Any]]]] = {
    "socket": {"socket.socket": sockets.SOCKET},
    "ssl": {"ssl.SSLSocket": sockets.SSL_SOCKET},
    "subprocess": {"subprocess.Popen": sockets.POPEN},
    "thread": {"threading._DummyThread": {"__init__": threads.init_dummy}},
}

#: What `patch_all` can be told to leave alone.
GROUPS: Final = (*_NAMES, "locks", "libraries")

#: Other names for some of them.
ALIASES: Final[Mapping[str, str]] = {"threading": "thread", "_thread": "thread", "selectors": "select"}
