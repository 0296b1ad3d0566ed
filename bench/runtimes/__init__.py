"""Which runtime does which workload, and in which flavours.

A contender is written "runtime" or "runtime/flavour". The module of a runtime is
`bench.runtimes.on_<runtime>`; it holds `WORKLOADS`, a dict from (workload, flavour) to a function `work(n)
-> Sample`, and `ECHO`, a dict from flavour to a function that serves TCP echo on a listening socket for
ever. Runtimes cannot share a process, so the driver never imports these modules: the table below is what it
knows, and a child that lacks an entry fails loudly.

Left out on purpose: yield and timers on threads (a thread cannot yield to a chosen peer, and a
`threading.Timer` *is* a thread); a million timers on trio (it has timers only as the deadline of a running
scope), 10,000 parked threads, and calls from threads in threads; events on eventlet and trio, whose events are set once.
"""

from __future__ import annotations

from typing import NamedTuple

RUNTIMES = ("fibers", "gevent", "eventlet", "asyncio", "uvloop", "trio", "threads")
C_LOOP = "c-epoll"
"""The limit of the echo table: a plain C epoll loop, when a compiler is present."""

_LOOPS = ("fibers", "gevent", "eventlet", "asyncio", "uvloop", "trio")
_SOCK = ("fibers", "gevent", "eventlet", "asyncio/sock", "uvloop/sock", "trio", "threads")
_TLS = ("fibers", "gevent", "eventlet", "asyncio/streams", "uvloop/streams", "trio", "threads")
_ACCEPT = (*_SOCK[:4], "asyncio/protocol", "uvloop/sock", "uvloop/protocol", "trio", "threads")


class Workload(NamedTuple):
    """A row of the suite.

    `seconds` is the CPU time a sample should cost; `units`, if not 0, fixes the size of a sample instead,
    for work whose preparation costs more than the work. `partner` runs interleaved in the same process.
    """

    name: str
    title: str
    contenders: tuple[str, ...]
    seconds: float = 0.12
    partner: str = ""
    units: int = 0


WORKLOADS = (
    Workload("spawn_join", "spawn + join, 1,000 at a time", RUNTIMES),
    Workload("spawn_join_one", "spawn + join, one at a time", RUNTIMES),
    Workload("yield_100", "yield, 100 tasks", _LOOPS),
    Workload("pingpong_unix_1", "ping-pong, unix, 1 pair", _SOCK),
    Workload("pingpong_unix_100", "ping-pong, unix, 100 pairs", _SOCK),
    Workload("pingpong_tcp_1", "ping-pong, TCP, 1 pair", _SOCK, 0.5),
    Workload("pingpong_tcp_100", "ping-pong, TCP, 100 pairs", _SOCK, 0.5),
    Workload("recv_plain", "recv, no timeout", _SOCK, 0.12, "recv_timeout"),
    Workload("recv_timeout", "recv, timeout set", _SOCK, 0.12, "recv_plain"),
    Workload("timers_1e3", "timer add + cancel, 1,000 pending", _LOOPS),
    Workload("timers_1e6", "timer add + cancel, 1,000,000 pending", _LOOPS[:-1], units=150),
    Workload("group_100", "task group of 100", _LOOPS),
    Workload("timeout_scope", "timeout scope, enter + exit", _LOOPS),
    Workload("channel_0", "channel without room", ("fibers", "gevent", "eventlet", "trio")),
    Workload("channel_1", "channel of 1", RUNTIMES),
    Workload("channel_100", "channel of 100", RUNTIMES),
    Workload("accept_500", "accept, bursts of 500", _ACCEPT, 0.08),
    Workload("to_thread_1", "call in a worker thread", _LOOPS),
    Workload("to_thread_100", "call in a worker thread, 100 callers", _LOOPS),
    Workload("lock_with", "lock, with", RUNTIMES),
    Workload("lock_calls", "lock, acquire + release", RUNTIMES),
    Workload("queue_put_get", "queue, put + get in one task", RUNTIMES),
    Workload("queue_hand_off", "queue, hand-off", RUNTIMES),
    Workload("queue_narrow", "queue with room for one", RUNTIMES),
    Workload("event_set_wait", "event, set + wait", ("fibers", "gevent", "asyncio", "uvloop", "threads")),
    Workload("tls_echo", "TLS ping-pong, 16 KiB, 10 pairs", _TLS, 0.5),
    Workload("tls_handshake", "TLS handshake, both ends", _TLS, 0.5),
    Workload("memory_parked", "memory of a parked task", _LOOPS, units=1),
)

ECHO_CONNECTIONS = (10, 100, 1_000)
ECHO_FULL = (
    "fibers",
    "gevent",
    "eventlet",
    "asyncio/streams",
    "asyncio/protocol",
    "uvloop/streams",
    "uvloop/protocol",
    "trio",
    "threads",
    C_LOOP,
)
ECHO_AT: dict[int, tuple[str, ...]] = {
    10: ECHO_FULL,
    100: (*ECHO_FULL[:-1], "asyncio/sock", "uvloop/sock", C_LOOP),
    1_000: ECHO_FULL,
}


def split(contender: str) -> tuple[str, str]:
    """("runtime", "flavour") of a contender; the flavour is "" when there is only one."""
    runtime, _, flavour = contender.partition("/")
    return runtime, flavour


def workload(name: str) -> Workload:
    """The row called `name`; raises KeyError naming what was asked."""
    for row in WORKLOADS:
        if row.name == name:
            return row
    raise KeyError(f"no workload called {name!r}")
