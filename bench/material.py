"""What the workloads are made of, identical for every runtime: sizes, sockets, delays, bursts.

Sockets are made here by the stdlib and handed to the runtime, which wraps them -> no runtime can differ in
buffer sizes, TCP_NODELAY or backlog, and making them is never inside the stopwatch.
"""

from __future__ import annotations

import os
import random
import resource
import socket
import subprocess
import sys
from collections.abc import Iterable

MESSAGE = b"x" * 100
RECEIVE = 4096
"""Bytes asked of each `recv` in ping-pong: more than a message, so that every read is a short read."""
ECHO_MESSAGE = 1024
ECHO_RECEIVE = 16384
"""Bytes asked of each `recv` of an echo server, wherever the runtime lets its user choose."""
SPAWN_BATCH = 1_000
CALLERS = 100
"""Tasks that call a function in worker threads at once."""
YIELD_TASKS = 100
GROUP = 100
"""Tasks of a task group."""
BURST = 500
BACKLOG = 2048
PARKED = 10_000
started = 0
"""How many tasks of the memory workload run: memory is read when all of them do."""
TIMER_TURN = 1_000
"""Timer pairs between two turns of the loop.

Runtimes that cancel lazily get their chance to clean up, and are charged.
"""
SYNC_TURN = 100
"""Lock and queue operations in a unit of work: one alone is over too soon to be counted."""
TIMEOUT = 30.0
"""Seconds; long enough never to fire, as socket timeouts in production."""

DELAYS = [random.Random(20).uniform(30.0, 60.0) for _ in range(4096)]
"""Seconds until the deadlines of the timer workloads.

The spread of ordinary timeouts, the same for every runtime.
"""


def raise_fd_limit() -> None:
    """Lift the soft fd limit to the hard one; 1,000 connections need it on many systems."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def listener(port: int = 0) -> socket.socket:
    """A listening TCP socket on the loopback with room for every connection of a burst."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    sock.listen(BACKLOG)
    return sock


def no_delay(sock: socket.socket) -> None:
    """Send at once: Nagle's algorithm would measure the peer's acknowledgements."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def unix_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected unix stream sockets."""
    return socket.socketpair()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of one TCP connection over the loopback."""
    with listener() as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    no_delay(near)
    no_delay(far)
    return near, far


def pairs(kind: str, count: int) -> list[tuple[socket.socket, socket.socket]]:
    """`count` connected pairs of `kind` ("unix" or "tcp")."""
    make = {"unix": unix_pair, "tcp": tcp_pair}[kind]
    return [make() for _ in range(count)]


def close_all(sockets: Iterable[socket.socket]) -> None:
    """Close every socket given."""
    for sock in sockets:
        sock.close()


def resident_bytes() -> int:
    """Memory of this process now, in bytes.

    Where /proc is missing, the peak, which a growing process equals.
    """
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except FileNotFoundError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


BURST_PROGRAM = """
import socket, struct, sys
port, count = int(sys.argv[1]), int(sys.argv[2])
abort = struct.pack("ii", 1, 0)
for _ in sys.stdin.buffer:
    made = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
    sys.stdout.buffer.write(b".")
    sys.stdout.buffer.flush()
    sys.stdin.buffer.readline()
    for sock in made:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, abort)
        sock.close()
"""


class Burst:
    """A process that, when told, opens BURST connections to a port and holds them until told to drop them.

    All of them wait in the backlog before the stopwatch starts -> what is measured is accepting, not the
    speed of the connecting side. They are dropped with a reset, so that no TIME_WAIT uses up the ports of a
    long run.
    """

    def __init__(self, port: int) -> None:
        command = [sys.executable, "-S", "-c", BURST_PROGRAM, str(port), str(BURST)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.orders = self.process.stdin.fileno()
        self.answers = self.process.stdout.fileno()

    def connect(self) -> None:
        """Return when BURST connections wait in the backlog."""
        os.write(self.orders, b"\n")
        if os.read(self.answers, 1) != b".":
            raise RuntimeError("the connecting process ended")

    def drop(self) -> None:
        """Reset the connections of this burst."""
        os.write(self.orders, b"\n")

    def close(self) -> None:
        """End the connecting process."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
