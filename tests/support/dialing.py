"""How the clients of real servers get their connection: by TCP or over a unix socket."""

from typing import Any

from fibers.io import socket


def dial(address: Any, timeout: float | None = None) -> socket.socket:
    """A connection to `address`: (host, port), or the path of a unix socket."""
    if not isinstance(address, str):
        sock = socket.create_connection(address, timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.settimeout(timeout)
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock
