"""Services whose work is done by handlers: a fiber for each connection, or for each datagram.

`Handlers` knows who is at work, and ends as a `Service` has to. `Connections` is the share of a TCPServer or UnixServer
in one loop. What a handler raises is logged, once, and concerns nobody else.

TLS is begun in the fiber of the connection: a client that says nothing holds up itself alone, until its deadline. The
end of a handler is the end of the connection; over TLS the client is told that it is a clean one (close_notify), if that
can be said without waiting.
"""

import logging
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from ..core.fiber import Fiber
from ..core.runtime import spawn
from ..core.scheduler import get_scheduler
from ..errors import ClosedError
from ..io import ssl
from ..io.socket import socket
from ..threads.completion import Outside
from .accepting import name_of
from .limits import ConnectionLimits
from .service import Changed

_log: Final = logging.getLogger("fibers.server")


class Handlers:
    """Handlers at work in one loop. See the module's text."""

    __slots__ = ("_changed", "_empty", "_handler", "_name", "_stopping", "_working", "failed", "served")

    def __init__(self, changed: Changed, handler: Callable[[Any, Any], Any]) -> None:
        self._changed = changed
        self._handler = handler
        self._name = getattr(handler, "__qualname__", None) or repr(handler)
        self._working: dict[Fiber[Any], Any] = {}  # each with the address that it serves
        self._empty = Outside()
        self._stopping = False
        self.served = 0
        self.failed = 0

    def begin(self, address: Any, fn: Callable[..., object], *args: Any) -> Fiber[Any]:
        """Run `fn(*args)` in a fiber, for somebody at that address."""
        fiber = spawn(fn, *args, name=self._name)
        self._working[fiber] = address
        self.served += 1
        fiber.add_done_callback(self._left)
        return fiber

    def complain(self, address: Any) -> None:
        """The handler has failed: called while its error is being handled."""
        self.failed += 1
        _log.exception("handler %s failed, serving %s", self._name, name_of(address))

    def _left(self, fiber: Fiber[Any]) -> None:
        """A done-callback."""
        self._working.pop(fiber, None)
        if not self._working:
            self._empty.wake_all()

    def give_back(self) -> bool:
        """See Service. Handlers are at work on all that is open: nothing is idle."""
        return False

    def begin_stop(self) -> None:
        """See Service."""
        self._stopping = True

    def wait_stopped(self) -> None:
        """See Service."""
        scheduler = get_scheduler()
        me = scheduler.current
        if me is None:
            raise scheduler.refuse()
        while self._working:
            try:
                self._empty.add(me, self)
                scheduler.park(me, self._empty)
            except BaseException:
                self._empty.abandon(me)
                raise

    def cut(self) -> int:
        """See Service."""
        left = list(self._working)
        for fiber in left:
            fiber.cancel()
        return len(left)

    def open(self) -> int:
        """See Service."""
        return len(self._working)

    def at_work(self) -> list[Fiber[Any]]:
        """The handlers that run now."""
        return list(self._working)

    def names(self) -> list[str]:
        """See Named."""
        return [f"{fiber.name} for {name_of(address)}" for fiber, address in list(self._working.items())]


class Tls(NamedTuple):
    """How connections are made secure: by which context, and in how many seconds."""

    context: Any
    handshake_timeout: float


class Connections(Handlers):
    """The service of a TCPServer in one loop."""

    __slots__ = ("_limits", "_retire_after", "_sockets", "_tls")

    def __init__(
        self,
        changed: Changed,
        handler: Callable[[Any, Any], Any],
        limits: ConnectionLimits,
        tls: Tls | None,
        retire_after: int | None = None,
    ) -> None:
        super().__init__(changed, handler)
        self._limits = limits
        self._tls = tls
        self._retire_after = retire_after
        self._sockets: dict[Fiber[Any], tuple[socket, bool]] = {}  # of those that have not begun
        limits.watch(changed)

    def room(self) -> bool:
        """See Service."""
        return self._limits.room()

    def take(self, sock: socket, address: Any) -> None:
        """See Service."""
        limits = self._limits
        if not limits.admit(address):
            _log.info("closed a connection from %s, which has too many", name_of(address))
            sock.close()
            return
        permitted = limits.try_acquire()
        fiber = self.begin(address, self._serve, sock, address, permitted)
        self._sockets[fiber] = (sock, permitted)
        if self.served == self._retire_after:
            self._changed.retire(f"{self.served} connections")

    def _serve(self, sock: Any, address: Any, permitted: bool) -> None:
        self._sockets.pop(get_scheduler().current, None)  # type: ignore[arg-type]
        secure = None
        try:
            if not permitted:
                self._limits.acquire()
                permitted = True
            if self._tls is not None:
                secure = self._begin_tls(sock, address, self._tls)
                if secure is None:
                    return
            try:
                self._handler(sock if secure is None else secure, address)
            except Exception:
                self.complain(address)
            else:
                if secure is not None:
                    _say_goodbye(secure)
        finally:
            if secure is not None:
                secure.close()
            sock.close()
            self._limits.leave(address)
            if permitted:
                self._limits.release()

    def _begin_tls(self, sock: socket, address: Any, tls: Tls) -> Any:
        """The secure socket; None if the client would not have it."""
        try:
            secure = ssl.wrap_socket(sock, server_side=True, do_handshake_on_connect=False, context=tls.context)  # type: ignore[call-arg]  # mypy takes it for the one of `ssl`
        except OSError as error:
            _log.info("no TLS with %s: %s", name_of(address), error)
            return None
        try:
            timeout = secure.gettimeout()
            secure.settimeout(tls.handshake_timeout)
            secure.do_handshake()
            secure.settimeout(timeout)
        except OSError as error:
            _log.info("no TLS with %s: %s", name_of(address), error)
            secure.close()
            return None
        except BaseException:
            secure.close()
            raise
        return secure

    def _left(self, fiber: Fiber[Any]) -> None:
        unborn = self._sockets.pop(fiber, None)
        if unborn is not None:  # cancelled before it began
            sock, permitted = unborn
            sock.close()
            self._limits.leave(self._working[fiber])
            if permitted:
                self._limits.release()
        super()._left(fiber)


def _say_goodbye(secure: Any) -> None:
    """Send close_notify, if that goes without waiting."""
    try:
        secure.settimeout(0.0)
        secure.send_eof()
    except (ClosedError, OSError, ValueError):
        pass  # closed by the handler, or by the client; or there is no TLS on it any more
