"""gevent.baseserver: what the servers have in common. Behind each is a server of `fibers.server`.

The listener of gevent's servers is an address or a socket that listens; `spawn` says how many connections there may be: a
number, a Pool, or "default" (no limit; "raw" is the same). When there are so many, more wait in the kernel. A function, such
as `Pool.spawn` or `spawn_raw`, is called with the handle for each.
"""

from reprlib import recursive_repr
from socket import socket as std_socket
from typing import Any, Self

from ...server.serving import Serving
from ...sync.event import Event
from .greenlet import joinall
from .pool import Pool


def listener_of(listener: Any) -> Any:
    """The address that is meant by ("host", port), "host:port", ":port", a port, or a socket."""
    if isinstance(listener, str):
        host, colon, port = listener.rpartition(":")
        if not colon or not port.isdecimal():
            raise ValueError(f'a listener is an address such as "127.0.0.1:8000", or a socket, not {listener!r}')
        return host.removeprefix("[").removesuffix("]"), int(port)
    return listener


class BaseServer:
    """See the module's text. `handle` may be a method of a derived class."""

    stop_timeout: float | None = 1
    handle: Any

    def __init__(self, listener: Any, handle: Any = None, spawn: Any = "default") -> None:
        self._listener = listener_of(listener)
        if handle is not None:
            self.set_handle(handle)
        self.set_spawn(spawn)
        self._server: Serving | None = None
        self._stopped = Event()

    def set_handle(self, handle: Any) -> None:
        """What is called for each connection."""
        if not callable(handle):
            raise TypeError(f"a handle is callable, which {handle!r} is not")
        self.handle = handle

    def set_spawn(self, spawn: Any) -> None:
        """How many there may be: see the module's text."""
        self.pool: Pool | None = None
        self._spawn: Any = None
        if isinstance(spawn, Pool):
            self.pool = spawn
        elif isinstance(spawn, int) and not isinstance(spawn, bool):
            self.pool = Pool(spawn)
        elif callable(spawn):
            self._spawn = spawn
        elif spawn not in ("default", "raw", None):
            raise TypeError(f"spawn is a Pool, a number, 'default', 'raw' or a function, not {spawn!r}")
        if self.pool is not None:
            self._spawn = self.pool.spawn

    def _make(self) -> Serving:
        raise NotImplementedError

    def _handle(self, *args: Any) -> None:
        """In a fiber of the server: in the pool, if there is one."""
        if self._spawn is None:
            self.handle(*args)
        else:
            joinall([self._spawn(self.handle, *args)])

    @property
    def _limit(self) -> int | None:
        return None if self.pool is None else self.pool.size

    @property
    def started(self) -> bool:
        """Does it accept?"""
        return self._server is not None and not self._stopped.is_set()

    @property
    def closed(self) -> bool:
        """Was it stopped?"""
        return self._stopped.is_set()

    def full(self) -> bool:
        """Are there as many as there may be?"""
        return self.pool is not None and self.pool.full()

    @property
    def address(self) -> Any:
        """Where it listens; before `init_socket` and the start, what it was told."""
        if self._server is not None:
            return self._server.address
        return self._listener.getsockname() if isinstance(self._listener, std_socket) else self._listener

    @property
    def server_host(self) -> str:
        """The host of the address."""
        address = self.address
        return str(address[0]) if isinstance(address, tuple) else ""

    @property
    def server_port(self) -> int | None:
        """The port of the address."""
        address = self.address
        return int(address[1]) if isinstance(address, tuple) else None

    def init_socket(self) -> None:
        """Bind and listen now, so that the address is known; `start` does it otherwise."""

    def start(self) -> None:
        """Listen and serve; returns at once. Nothing happens if it does."""
        if self._server is None:
            self._server = self._make()
            self._server.start()

    start_accepting = start

    def close(self) -> None:
        """Accept no more. What is being handled goes on."""
        self._stopped.set()
        if self._server is not None:
            self._server.request_stop(None)
        self._close_listener()

    def stop(self, timeout: float | None = None) -> None:
        """Accept no more, wait for what is being handled, and cut what is left after `timeout` (`stop_timeout`) seconds."""
        self._stopped.set()
        try:
            if self._server is not None:
                self._server.stop(self.stop_timeout if timeout is None else timeout)
        finally:
            self._close_listener()

    def _close_listener(self) -> None:
        if isinstance(self._listener, std_socket):
            self._listener.close()

    def serve_forever(self, stop_timeout: float | None = None) -> None:
        """Serve until somebody calls `stop`, or an exception comes."""
        self.start()
        try:
            self._stopped.wait()
        finally:
            self.stop(stop_timeout)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    @recursive_repr("self")
    def __repr__(self) -> str:
        handle = getattr(self, "handle", None)
        return f"<{type(self).__name__} at {id(self):#x} address={self.address!r} handle={handle!r}>"


__all__ = ["BaseServer"]
