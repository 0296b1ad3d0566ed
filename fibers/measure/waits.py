"""`python -m fibers.measure.waits MESSAGES LIFETIME`: only `recv`s that have to wait, so that what one costs can be counted.

A server under load will not do: some requests are there when it asks for them, and under strace, which makes it ten times
slower, nearly all are. So both ends of a TCP connection are fibers of one thread here, and answer each other. Who has
sent and then receives waits without fail, because the other end has not run since, however slow or fast anything is.

Each end receives MESSAGES messages. What the loop registered meanwhile, for each of the two ends, goes to stdout; nobody
waits for anything but these messages. Two marks (syscalls.py) enclose all but the first and the last message: there both
ends stand before the same step, so that calls in between come in whole numbers a `recv`. The kernel ends the process after
LIFETIME seconds.
"""

import os
import signal
import sys
from socket import create_connection, create_server

import fibers
from fibers.core.scheduler import get_scheduler
from fibers.io import socket

#: Bytes asked of `recv`: more than a message has.
BUFFER = 1 << 16


def between_marks(messages: int) -> int:
    """How many `recv`s the marks enclose, and how many `send`s."""
    return 2 * (messages - 2)


def connection() -> tuple[socket.socket, socket.socket]:
    """Both ends of a TCP connection, for which nobody has waited yet: it was made by blocking calls."""
    with create_server(("127.0.0.1", 0)) as listener, create_connection(listener.getsockname()) as client:
        return socket.socket(fileno=listener.accept()[0].detach()), socket.socket(fileno=client.detach())


def answer(end: socket.socket, messages: int) -> None:
    """Receive first, then send."""
    for _ in range(messages):
        end.sendall(end.recv(BUFFER))


def ask(end: socket.socket, messages: int) -> None:
    """Send first, then receive."""
    for _ in range(messages):
        end.sendall(b"x" * 64)
        end.recv(BUFFER)


def main(messages: int) -> float:
    """Registrations for each end of a connection."""
    stats = get_scheduler().loop.stats
    before = stats.registrations
    ours, theirs = connection()
    with ours, theirs:
        answering = fibers.spawn(answer, theirs, messages)
        fibers.yield_now()  # it waits before anything has been sent
        ask(ours, 1)
        os.getppid()
        ask(ours, messages - 2)
        os.getppid()
        ask(ours, 1)
        answering.result()
    return (stats.registrations - before) / 2


if __name__ == "__main__":
    signal.alarm(int(sys.argv[2]))  # no handler: what it does needs nothing of this process
    print(fibers.run(main, int(sys.argv[1])))
