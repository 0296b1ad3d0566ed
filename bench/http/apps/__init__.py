"""The work that every server does, written for each of them the way its own users write it.

Three paths, the same bytes everywhere: `/` says hello, `/10k` sends ten kilobytes, `/sleep` waits for SLEEP and says
hello. A handler waits in the way that its server is made for: fibers.sleep, gevent.sleep, asyncio.sleep, and time.sleep
in threads. Each server imports its own module and none imports another's runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

HELLO = b"Hello, World!\n"
LARGE = b"0123456789abcdef" * 640
SLEEP = 0.01
"""Seconds."""

PATHS = {"/": HELLO, "/10k": LARGE, "/sleep": HELLO}


def wsgi(sleep: Callable[[float], object]) -> Callable[[dict[str, Any], Callable[..., object]], Iterable[bytes]]:
    """The WSGI application, with the runtime's own way to wait."""

    def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        body = PATHS.get(path)
        if body is None:
            start_response("404 Not Found", [("Content-Length", "0")])
            return []
        if path == "/sleep":
            sleep(SLEEP)
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]

    return application
