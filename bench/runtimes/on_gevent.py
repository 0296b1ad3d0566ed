"""gevent: greenlets, its socket class, `StreamServer`, its C timers (libev)."""

from __future__ import annotations

import socket
from typing import Any

import gevent
import gevent.event
import gevent.lock
import gevent.pool
import gevent.queue
import gevent.server
import gevent.socket
import gevent.ssl

from bench import material
from bench.runtimes import blocking_style, blocking_sync, blocking_tls, handoff
from bench.sample import Sample, Stopwatch


def adopt(sock: socket.socket) -> Any:
    """The same fd as a gevent socket."""
    return gevent.socket.socket(sock.family, sock.type, sock.proto, sock.detach())


def channel(capacity: int) -> tuple[Any, Any]:
    """The two calls of a queue; one without room is a class of its own."""
    made = gevent.queue.Queue(capacity) if capacity else gevent.queue.Channel()
    return made.put, made.get


def timers(pending: int) -> blocking_style.Work:
    """Add and cancel one timer at a time, as `gevent.Timeout` does, with `pending` others in the heap."""

    def work(n: int) -> Sample:
        make, delays = gevent.get_hub().loop.timer, material.DELAYS
        others = [make(delays[i & 4095]) for i in range(pending)]
        for timer in others:
            timer.start(blocking_style.empty)
        watch = Stopwatch()
        for _ in range(n):
            for i in range(material.TIMER_TURN):
                timer = make(delays[i])
                timer.start(blocking_style.empty)
                timer.stop()
                timer.close()
            gevent.sleep(0)
        sample = watch.stop(n * material.TIMER_TURN)
        for timer in others:
            timer.stop()
            timer.close()
        return sample

    return work


def group_100(n: int) -> Sample:
    """Groups of a hundred greenlets that do nothing."""
    group_of, empty, count = gevent.pool.Group, blocking_style.empty, material.GROUP
    watch = Stopwatch()
    for _ in range(n):
        group = group_of()
        for _ in range(count):
            group.spawn(empty)
        group.join()
    return watch.stop(n)


def timeout_scope(n: int) -> Sample:
    """Enter and leave a `gevent.Timeout`."""
    timeout, delays = gevent.Timeout, material.DELAYS
    watch = Stopwatch()
    for _ in range(n):
        for i in range(material.TIMER_TURN):
            with timeout(delays[i]):
                pass
        gevent.sleep(0)
    return watch.stop(n * material.TIMER_TURN)


def serve(server: socket.socket, ready: Any) -> None:
    """Echo with StreamServer, as gevent's own examples do."""
    ready()
    gevent.server.StreamServer(
        adopt(server), lambda sock, address: blocking_style.echo_connection(sock)
    ).serve_forever()


STYLE = blocking_style.Style(
    spawn=gevent.spawn,
    join=gevent.Greenlet.join,
    join_all=gevent.joinall,
    adopt=adopt,
    sleep=gevent.sleep,
    yield_now=gevent.sleep,
)
WORKLOADS = {
    **handoff.workloads(STYLE, channel),
    **blocking_style.workloads(STYLE),
    **blocking_style.thread_calls(STYLE, gevent.get_hub().threadpool.apply),
    **blocking_sync.workloads(
        gevent.spawn, gevent.joinall, gevent.lock.BoundedSemaphore, gevent.queue.Queue, gevent.event.Event
    ),
    **blocking_tls.workloads(STYLE, gevent.ssl),
    ("timers_1e3", ""): timers(1_000),
    ("timers_1e6", ""): timers(1_000_000),
    ("group_100", ""): group_100,
    ("timeout_scope", ""): timeout_scope,
}
ECHO = {"": serve}
