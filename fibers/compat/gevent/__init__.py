"""gevent on fibers: `from fibers.compat import gevent`. docs/compat.md has the differences.

The modules are gevent's: `gevent.pool`, `gevent.queue`, `gevent.event` and so on. `install()` makes `import gevent` mean
this package, for programs that cannot be changed.

Reading order:

    exceptions, hub  errors, who runs, what becomes of errors
    timeout          Timeout; _links: links
    _waiting         wait, iwait; greenlet: Greenlet, joinall, killall
    event, lock, queue, _imap, pool
    threadpool, socket, ssl, select, selectors, subprocess, os, time, local, fileobject, signal, util
    baseserver, server, pywsgi, backdoor, monkey
"""

import os as _os
import sys
from collections.abc import Callable
from typing import Any

from ..alias import stand_in
from . import (
    backdoor,
    baseserver,
    event,
    exceptions,
    fileobject,
    hub,
    local,
    lock,
    monkey,
    os,
    pool,
    pywsgi,
    queue,
    select,
    selectors,
    server,
    signal,
    socket,
    ssl,
    subprocess,
    threadpool,
    time,
    util,
)
from . import greenlet as greenlet
from . import timeout as timeout
from ._waiting import iwait, wait
from .greenlet import Greenlet, joinall, killall
from .hub import GreenletExit, get_hub, getcurrent, idle, kill, reinit, spawn_raw
from .hub import sleep as _sleep
from .signal import signal_handler
from .timeout import Timeout, with_timeout

spawn: Callable[..., Greenlet] = Greenlet.spawn
spawn_later: Callable[..., Greenlet] = Greenlet.spawn_later
fork = _os.fork
getswitchinterval = sys.getswitchinterval
setswitchinterval = sys.setswitchinterval


def sleep(seconds: float = 0, ref: bool = True) -> None:
    """Let others run for `seconds`. 0, or less: let who is ready run."""
    _sleep(max(seconds, 0))


def install() -> None:
    """Make `import gevent` mean this package, in this process.

    Raises RuntimeError if gevent itself has been imported before.
    """
    stand_in(__name__, "gevent")


#: As of the version of gevent whose names these are.
__version__ = "26.9.0"
version_info = (26, 9, 0)

__all__ = [
    "Greenlet", "GreenletExit", "Timeout", "fork", "get_hub", "getcurrent", "getswitchinterval", "idle", "iwait", "joinall",
    "kill", "killall", "reinit", "setswitchinterval", "signal_handler", "sleep", "spawn", "spawn_later", "spawn_raw", "wait",
    "with_timeout",
]  # fmt: skip

#: The modules, which `import gevent` alone makes available.
_modules: tuple[Any, ...] = (
    backdoor, baseserver, event, exceptions, fileobject, hub, local, lock, monkey, os, pool, pywsgi, queue, select,
    selectors, server, signal, socket, ssl, subprocess, threadpool, time, util,
)  # fmt: skip
