"""One connection, two threads: one reads, the other writes, each with its own loop and its own fd from `dup()`.

An fd belongs to the loop of one thread while a fiber waits on it there. On the loops that register files for life, a
second thread that wants to wait as well gets an OwnershipError that says so; `dup()` gives it an fd of its own.

    python examples/threads_and_fibers.py [--check]
"""

import threading

import fibers
from fibers.io import socket

COUNT = 1000


def write(connection: socket.socket) -> None:
    """In a thread of its own. Any thread may use fibers; its loop is made at the first wait."""
    with connection:
        for number in range(COUNT):
            connection.sendall(b"%d\n" % number)
        connection.shutdown(socket.SHUT_WR)


def read(connection: socket.socket, numbers: list[int]) -> None:
    """In another thread."""
    with connection, connection.makefile("rb") as lines:
        numbers.extend(int(line) for line in lines)


def echo(connection: socket.socket) -> None:
    """The other end, a fiber of the main thread."""
    with connection:
        while data := connection.recv(4096):
            connection.sendall(data)


def main() -> None:
    """Two threads at one end of a connection, a fiber of this thread at the other."""
    ours, theirs = socket.socketpair()
    numbers: list[int] = []
    threads = [
        threading.Thread(target=write, args=(ours.dup(),)),
        threading.Thread(target=read, args=(ours, numbers)),
    ]
    for thread in threads:
        thread.start()
    fibers.spawn(echo, theirs).join()  # a plain Thread.join here would block the loop of this thread
    for thread in threads:
        thread.join()
    assert numbers == list(range(COUNT))
    print(f"{len(numbers):,} numbers went out of one thread and came back into another")


if __name__ == "__main__":
    fibers.run(main)
