"""The same as an ASGI application, for uvicorn."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from bench.http.apps import PATHS, SLEEP


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """One request."""
    path = scope["path"]
    body = PATHS.get(path)
    status, body = (404, b"") if body is None else (200, body)
    if path == "/sleep":
        await asyncio.sleep(SLEEP)
    fields = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})
