"""eventlet: green threads, GreenSocket, `eventlet.serve`, the timers of its hub."""

from __future__ import annotations

import socket
from typing import Any

import eventlet
import eventlet.greenio
import eventlet.hubs
import eventlet.queue
import eventlet.semaphore

from bench import material
from bench.runtimes import blocking_style, blocking_sync
from bench.sample import Sample, Stopwatch


def join_all(threads: Any) -> None:
    """Wait for each."""
    for thread in threads:
        thread.wait()


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
    **blocking_style.workloads(STYLE),
    **blocking_sync.workloads(eventlet.spawn, join_all, eventlet.semaphore.Semaphore, eventlet.queue.Queue, None),
    ("timers_1e3", ""): timers(1_000),
    ("timers_1e6", ""): timers(1_000_000),
}
ECHO = {"": serve}
