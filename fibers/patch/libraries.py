"""Libraries that wait in C, where no patch of the standard library reaches, but that can be told to wait otherwise.

Each is told when it is loaded (importing.py). Another library can do the same for itself, or somebody for it: a function
that takes a `Journal`, as an entry point of the group `fibers.patches`, is called when the patch is applied.
"""

import os
import threading
from collections.abc import Mapping
from types import ModuleType
from typing import Any, Final

from .. import lowlevel
from ..errors import Cancelled, FiberKilled
from .importing import Action, when_imported
from .journal import Journal
from .threads import NativeThread


def _psycopg2(journal: Journal, module: ModuleType) -> None:
    """libpq is used in its non-blocking way once a callback waits for it. Who has set one of his own, keeps it."""
    extensions: Any = module
    if extensions.get_wait_callback() is None:
        journal.record(extensions.set_wait_callback, None)
        extensions.set_wait_callback(_wait_for_libpq)


def _wait_for_libpq(connection: Any) -> None:
    """Wait until the operation that a connection of psycopg2 is about has ended: its `poll` says what for."""
    while (state := connection.poll()) != _POLL_OK:
        if state == _POLL_READ:
            lowlevel.wait_readable(connection.fileno())
        elif state == _POLL_WRITE:
            lowlevel.wait_writable(connection.fileno())
        else:
            raise connection.OperationalError(f"psycopg2 waits for something that is not known: poll() says {state}")


#: What `connection.poll` returns: psycopg2.extensions has names for them.
_POLL_OK: Final = 0
_POLL_READ: Final = 1
_POLL_WRITE: Final = 2


def _psycopg(journal: Journal, module: ModuleType) -> None:
    """psycopg 3 has waits written in Python besides the one in C, and leaves the choice to PSYCOPG_WAIT_FUNC."""
    waiting: Any = module
    if "PSYCOPG_WAIT_FUNC" not in os.environ:
        journal.set_attribute(waiting, "wait", waiting.wait_poll)


def _grpc_threads(journal: Journal, module: ModuleType) -> None:
    """What waits in grpc's core waits in a thread of the system's. So do the handlers of a server, which are made by one."""
    threads = ModuleType("threading", "The standard module, but for `Thread`.")
    threads.__dict__.update({**vars(threading), "Thread": NativeThread})
    journal.set_attribute(module, "threading", threads)


def _grpc_channel(journal: Journal, module: ModuleType) -> None:
    """A call that would wait in the core, in the thread of its caller, is made as one that waits for a condition."""
    for name in ("_UnaryUnaryMultiCallable", "_StreamUnaryMultiCallable"):
        kind = getattr(module, name, None)
        if kind is not None and hasattr(kind, "_blocking"):
            journal.set_attribute(kind, "_blocking", _call)


def _call(callable: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """Its state at its end, and the call: what `_blocking` returns."""
    rendezvous = callable.future(*args, **kwargs)
    state = rendezvous._state
    try:
        with state.condition:
            while state.code is None:
                state.condition.wait()
    except BaseException:
        rendezvous.cancel()
        raise
    return state, rendezvous._call


def _psycopg_connection(journal: Journal, module: ModuleType) -> None:
    """A query that a cancellation interrupts is given up as by Ctrl-C: its connection does not go on in the midst of it."""
    interrupted = getattr(module, "_INTERRUPTED", ())
    known = interrupted if isinstance(interrupted, tuple) else (interrupted,)
    journal.set_attribute(module, "_INTERRUPTED", (*known, Cancelled, FiberKilled))


LIBRARIES: Final[Mapping[str, Action]] = {
    "psycopg2.extensions": _psycopg2,
    "psycopg.waiting": _psycopg,
    "psycopg.connection": _psycopg_connection,
    "grpc._cython.cygrpc": _grpc_threads,
    "grpc._server": _grpc_threads,
    "grpc._channel": _grpc_channel,
}


def prepare(journal: Journal) -> None:
    """See to those that are loaded, and to the others when they are."""
    for name, action in LIBRARIES.items():
        when_imported(journal, name, action)
