"""eventlet.convenience: listen, connect, serve, wrap_ssl."""

from collections.abc import Callable
from typing import Any

from ...io import socket, ssl
from .greenpool import GreenPool
from .greenthread import GreenThread, getcurrent


class StopServe(Exception):
    """Raised by a handler of `serve`, or in the fiber that serves: it ends."""


def listen(
    addr: Any, family: int = socket.AF_INET, backlog: int = 50, reuse_addr: bool = True, reuse_port: bool | None = None
) -> socket.socket:
    """A socket that listens at `addr`."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if reuse_addr:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(addr)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def connect(addr: Any, family: int = socket.AF_INET, bind: Any = None) -> socket.socket:
    """A socket that is connected to `addr`, from `bind` if that is given."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if bind is not None:
            sock.bind(bind)
        sock.connect(addr)
    except BaseException:
        sock.close()
        raise
    return sock


def wrap_ssl(sock: Any, *args: Any, **kwargs: Any) -> Any:
    """The socket with TLS around it: `keyfile`, `certfile`, `server_side` … as of old in `ssl.wrap_socket`."""
    return ssl.wrap_socket(sock, *args, **kwargs)


def serve(sock: Any, handle: Callable[[Any, Any], object], concurrency: int = 1000) -> None:
    """Call `handle(socket, address)` in a GreenThread for each connection of a socket that listens; for ever.

    At most `concurrency` at once. Ends when a handler raises StopServe, or when that is raised here. Other errors of
    handlers are printed.
    """
    pool = GreenPool(concurrency)
    server = getcurrent()
    try:
        while True:
            conn, addr = sock.accept()
            greenthread = pool.spawn(handle, conn, addr)
            greenthread.link(_served, server, conn)
            del conn, addr, greenthread
    except StopServe:
        return


def _served(greenthread: GreenThread, server: Any, conn: Any) -> None:
    """A handler is over."""
    conn.close()
    if isinstance(greenthread.exception, StopServe):
        server.throw(StopServe())


__all__ = ["StopServe", "connect", "listen", "serve", "wrap_ssl"]
