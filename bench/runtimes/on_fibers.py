"""fibers: the subject."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

import fibers
import fibers.io.socket
import fibers.io.ssl
from bench import material
from bench.runtimes import blocking_style, blocking_sync, blocking_tls, handoff
from bench.sample import Sample, Stopwatch
from fibers.eventloop.timers import Timer, TimerWheel


def adopt(sock: socket.socket) -> fibers.io.socket.socket:
    """The same fd as a fibers socket."""
    return fibers.io.socket.socket(sock.family, sock.type, sock.proto, sock.detach())


def join_all(tasks: Sequence[fibers.Fiber[object]]) -> None:
    """Wait for each."""
    for task in tasks:
        task.join()


def in_fiber(work: blocking_style.Work) -> blocking_style.Work:
    """`work` as the main fiber of `fibers.run`, which is how a program runs it."""

    def inside(n: int) -> Sample:
        return fibers.run(work, n)

    return inside


def serve(server: socket.socket, ready: Callable[[], Any]) -> None:
    """A fiber a connection."""
    ready()
    fibers.run(blocking_style.serve_forever, adopt(server), fibers.spawn)


STYLE = blocking_style.Style(
    spawn=fibers.spawn,
    join=fibers.Fiber.join,
    join_all=join_all,
    adopt=adopt,
    sleep=fibers.sleep,
    yield_now=fibers.yield_now,
)


def channel(capacity: int) -> tuple[Callable[[int], Any], Callable[[], Any]]:
    """The two calls of a Channel."""
    made: fibers.Channel[int] = fibers.Channel(capacity)
    return made.send, made.receive


def timers(pending: int) -> blocking_style.Work:
    """Add and cancel one timer at a time in the wheel of the event loop, with `pending` others in it.

    Reading the clock is inside, as it is for the peers, whose timers take a delay.
    """

    def work(n: int) -> Sample:
        wheel, delays, now, target = TimerWheel(), material.DELAYS, time.monotonic, Target()
        for i in range(pending):
            wheel.add(now() + delays[i & 4095], target)
        watch = Stopwatch()
        for _ in range(n):
            for i in range(material.TIMER_TURN):
                wheel.cancel(wheel.add(now() + delays[i], target))
            wheel.next_deadline()
        return watch.stop(n * material.TIMER_TURN)

    return work


class Target:
    """What the timers are for: nothing, and they never expire."""

    __slots__ = ()

    def expire(self, timer: Timer) -> None:
        """Not reached: the deadlines are far away."""


def group_100(n: int) -> Sample:
    """Groups of a hundred fibers that do nothing."""
    group_of, empty, count = fibers.TaskGroup, blocking_style.empty, material.GROUP
    watch = Stopwatch()
    for _ in range(n):
        with group_of() as group:
            for _ in range(count):
                group.spawn(empty)
    return watch.stop(n)


def timeout_scope(n: int) -> Sample:
    """Enter and leave a scope with a deadline."""
    timeout, delays = fibers.timeout, material.DELAYS
    watch = Stopwatch()
    for _ in range(n):
        for i in range(material.TIMER_TURN):
            with timeout(delays[i]):
                pass
        fibers.yield_now()
    return watch.stop(n * material.TIMER_TURN)


SYNC = blocking_sync.workloads(fibers.spawn, join_all, fibers.Lock, fibers.Queue, fibers.Event)
WORKLOADS = {
    **{key: in_fiber(work) for key, work in SYNC.items()},
    **{key: in_fiber(work) for key, work in handoff.workloads(STYLE, channel).items()},
    **{key: in_fiber(work) for key, work in blocking_style.workloads(STYLE).items()},
    **{key: in_fiber(work) for key, work in blocking_style.thread_calls(STYLE, fibers.to_thread).items()},
    **{key: in_fiber(work) for key, work in blocking_tls.workloads(STYLE, fibers.io.ssl).items()},
    ("timers_1e3", ""): timers(1_000),
    ("timers_1e6", ""): timers(1_000_000),
    ("group_100", ""): in_fiber(group_100),
    ("timeout_scope", ""): in_fiber(timeout_scope),
}
ECHO = {"": serve}
