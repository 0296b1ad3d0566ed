"""eventlet on fibers: `from fibers.compat import eventlet`. docs/compat.md has the differences.

The modules are eventlet's: `eventlet.greenpool`, `eventlet.queue`, `eventlet.green.socket` and so on. `install()` makes
`import eventlet` mean this package, for programs that cannot be changed.

Reading order: greenthread, timeout, event, semaphore, queue, greenpool, pools, tpool, green, patcher, convenience, hubs,
corolocal, wsgi. What they stand on is `fibers.compat.gevent`.
"""

from ..alias import stand_in
from . import (
    convenience,
    corolocal,
    event,
    green,
    greenpool,
    greenthread,
    hubs,
    patcher,
    pools,
    queue,
    semaphore,
    tpool,
    wsgi,
)
from . import timeout as timeout
from .convenience import StopServe, connect, listen, serve, wrap_ssl
from .event import Event
from .greenpool import GreenPile, GreenPool
from .greenthread import (
    call_after_global,
    exc_after,
    getcurrent,
    kill,
    sleep,
    spawn,
    spawn_after,
    spawn_after_local,
    spawn_n,
)
from .patcher import import_patched, monkey_patch
from .queue import Queue
from .semaphore import BoundedSemaphore, CappedSemaphore, Semaphore
from .timeout import Timeout, is_timeout, with_timeout

TimeoutError = TimeoutError


def install() -> None:
    """Make `import eventlet` mean this package, in this process.

    Raises RuntimeError if eventlet itself has been imported before.
    """
    stand_in(__name__, "eventlet")


#: As of the version of eventlet whose names these are.
__version__ = "0.41.3"

__all__ = [
    "BoundedSemaphore", "CappedSemaphore", "Event", "GreenPile", "GreenPool", "Queue", "Semaphore", "StopServe", "Timeout",
    "TimeoutError", "call_after_global", "connect", "convenience", "corolocal", "event", "exc_after", "getcurrent", "green",
    "greenpool", "greenthread", "hubs", "import_patched", "is_timeout", "kill", "listen", "monkey_patch", "patcher", "pools",
    "queue", "semaphore", "serve", "sleep", "spawn", "spawn_after", "spawn_after_local", "spawn_n", "tpool", "with_timeout",
    "wrap_ssl", "wsgi",
]  # fmt: skip
