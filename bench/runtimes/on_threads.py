"""threads: the stdlib as it is, one thread a task."""

from __future__ import annotations

import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from bench.runtimes import blocking_style, blocking_sync, blocking_tls, handoff


def spawn(function: Callable[..., object], *args: Any) -> threading.Thread:
    """Start a daemon thread, so that a connection left open does not hold the process."""
    thread = threading.Thread(target=function, args=args, daemon=True)
    thread.start()
    return thread


def join_all(threads: Sequence[threading.Thread]) -> None:
    """Wait for each."""
    for thread in threads:
        thread.join()


def channel(capacity: int) -> tuple[Any, Any]:
    """The two calls of a queue."""
    made: queue.Queue[int] = queue.Queue(capacity)
    return made.put, made.get


def serve(server: socket.socket, ready: Callable[[], None]) -> None:
    """A thread a connection."""
    ready()
    blocking_style.serve_forever(server, spawn)


STYLE = blocking_style.Style(
    spawn=spawn,
    join=threading.Thread.join,
    join_all=join_all,
    adopt=lambda sock: sock,
    sleep=time.sleep,
    yield_now=lambda: time.sleep(0),
)
WORKLOADS = {
    **{
        key: work
        for key, work in blocking_style.workloads(STYLE).items()
        if key[0] not in ("yield_100", "memory_parked")
    },
    **blocking_sync.workloads(spawn, join_all, threading.Lock, queue.Queue, threading.Event),
    **blocking_tls.workloads(STYLE, ssl),
    **handoff.workloads(STYLE, channel, (1, 100)),
}
ECHO = {"": serve}
