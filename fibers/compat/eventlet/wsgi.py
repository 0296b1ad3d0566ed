"""eventlet.wsgi: `server`, over the HTTP server of `fibers.http`."""

import sys
from typing import Any

from ..gevent.pool import Pool
from ..gevent.pywsgi import WSGIServer
from .greenpool import GreenPool


def server(
    sock: Any,
    site: Any,
    log: Any = None,
    environ: dict[str, Any] | None = None,
    max_size: int | None = None,
    custom_pool: Any = None,
    log_output: bool = True,
    **options: Any,
) -> None:
    """Serve a WSGI application on a socket that listens, until this fiber is killed or the socket is closed.

    `max_size`: how many requests are handled at once; or `custom_pool`, a GreenPool, whose size that is then. `log`: a
    file or a logger; standard error if there is none and `log_output`. The further options of eventlet's server are those
    of its own HTTP implementation; they are refused (TypeError) but for `debug`, `keepalive` and `socket_timeout`, which
    are accepted where they ask for what is done anyway.
    """
    for name, value in options.items():
        if (name, value) not in _AS_IT_IS:
            raise TypeError(f"server(…, {name}={value!r}) is not for the HTTP server of fibers: see docs/compat.md")
    size = custom_pool.size if isinstance(custom_pool, GreenPool) else max_size
    WSGIServer(
        sock,
        site,
        spawn="default" if size is None else Pool(size),
        log=(sys.stderr if log is None else log) if log_output else None,
        environ=environ,
    ).serve_forever()


_AS_IT_IS = [
    ("debug", True), ("debug", False), ("keepalive", True), ("socket_timeout", None), ("log_x_forwarded_for", True),
    ("max_http_version", "HTTP/1.1"), ("capitalize_response_headers", True), ("minimum_chunk_size", None),
]  # fmt: skip

__all__ = ["server"]
