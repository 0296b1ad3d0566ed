"""eventlet: green threads, GreenSocket, `eventlet.serve`, the timers of its hub."""

from __future__ import annotations

import socket
from typing import Any

import eventlet
import eventlet.green.ssl
import eventlet.greenio
import eventlet.hubs
import eventlet.queue
import eventlet.semaphore
import eventlet.tpool

from bench import material
from bench.runtimes import blocking_style, blocking_sync, blocking_tls, handoff
from bench.sample import Sample, Stopwatch


def join_all(threads: Any) -> None:
    """Wait for each."""
    for thread in threads:
        thread.wait()


def channel(capacity: int) -> tuple[Any, Any]:
    """The two calls of a queue; without room it is a rendezvous."""
    made = eventlet.queue.Queue(capacity)
    return made.put, made.get


def timers(pending: int) -> blocking_style.Work:
    """Add and cancel timers of the hub, which is what `eventlet.Timeout` does, with `pending` others."""

    def work(n: int) -> Sample:
        schedule, delays = eventlet.hubs.get_hub().schedule_call_global, material.DELAYS
        others = [schedule(delays[i & 4095], blocking_style.empty) for i in range(pending)]
        eventlet.sleep(0)
        watch = Stopwatch()
        for _ in range(n):
            for i in range(material.TIMER_TURN):
                schedule(delays[i], blocking_style.empty).cancel()
            eventlet.sleep(0)
        sample = watch.stop(n * material.TIMER_TURN)
        for timer in others:
            timer.cancel()
        return sample

    return work


def group_100(n: int) -> Sample:
    """Pools with room for a hundred green threads that do nothing."""
    pool_of, empty, count = eventlet.GreenPool, blocking_style.empty, material.GROUP
    watch = Stopwatch()
    for _ in range(n):
        pool = pool_of()
        for _ in range(count):
            pool.spawn(empty)
        pool.waitall()
    return watch.stop(n)


def timeout_scope(n: int) -> Sample:
    """Enter and leave an `eventlet.Timeout`."""
    timeout, delays = eventlet.Timeout, material.DELAYS
    watch = Stopwatch()
    for _ in range(n):
        for i in range(material.TIMER_TURN):
            with timeout(delays[i]):
                pass
        eventlet.sleep(0)
    return watch.stop(n * material.TIMER_TURN)


def serve(server: socket.socket, ready: Any) -> None:
    """Echo with `eventlet.serve`; its default pool of 1,000 would refuse the largest run."""
    ready()
    eventlet.serve(
        eventlet.greenio.GreenSocket(server),
        lambda sock, address: blocking_style.echo_connection(sock),
        concurrency=100_000,
    )


STYLE = blocking_style.Style(
    spawn=eventlet.spawn,
    join=eventlet.greenthread.GreenThread.wait,
    join_all=join_all,
    adopt=eventlet.greenio.GreenSocket,
    sleep=eventlet.sleep,
    yield_now=eventlet.sleep,
)
WORKLOADS = {
    **handoff.workloads(STYLE, channel),
    **blocking_style.workloads(STYLE),
    **blocking_style.thread_calls(STYLE, eventlet.tpool.execute),
    **blocking_sync.workloads(eventlet.spawn, join_all, eventlet.semaphore.Semaphore, eventlet.queue.Queue, None),
    **blocking_tls.workloads(STYLE, eventlet.green.ssl),
    ("timers_1e3", ""): timers(1_000),
    ("timers_1e6", ""): timers(1_000_000),
    ("group_100", ""): group_100,
    ("timeout_scope", ""): timeout_scope,
}
ECHO = {"": serve}
