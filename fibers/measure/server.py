"""The server's process: `python -m fibers.measure.server FD LIFETIME`.

An echo server as anybody would write it with threads, one fiber a connection. FD is one end of a socket pair, the line
to the process that started it. The port is said there first. Then each word that comes is answered by a snapshot: "now"
at once, "end" when every connection is over. When the line ends, for whatever reason, the server ends, so that it does not
outlive the other process. That needs a runtime that works, and so the kernel ends the server after LIFETIME seconds.

Each "now" is marked by `getppid`, a system call that nothing else here makes: in a log of strace's the two marks enclose
the window that the two snapshots do.
"""

import os
import signal
import sys

import fibers
from fibers.io import socket
from fibers.measure.snapshot import Snapshot

#: Bytes asked of `recv`: more than a message has, so that one call takes it whole.
BUFFER = 1 << 16


def echo(connection: socket.socket) -> None:
    """Serve one connection to its end."""
    with connection:
        try:
            while data := connection.recv(BUFFER):
                connection.sendall(data)
        except ConnectionError:
            pass  # the client has gone without a farewell, which is its right


def serve(listener: socket.socket, handlers: list[fibers.Fiber[None]]) -> None:
    """Give each connection a fiber, for ever."""
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        handlers.append(fibers.spawn(echo, connection))


def main(line_fd: int) -> None:
    """Serve until the line ends."""
    handlers: list[fibers.Fiber[None]] = []
    with (
        socket.socket(fileno=line_fd) as line,
        line.makefile("rw") as text,
        socket.create_server(("127.0.0.1", 0), backlog=1024) as listener,
    ):
        acceptor = fibers.spawn(serve, listener, handlers)
        text.write(f"{listener.getsockname()[1]}\n")
        text.flush()
        while word := text.readline().strip():
            os.getppid()
            if word == "end":
                for handler in handlers:
                    handler.join()
            text.write(Snapshot.take(len(handlers)).line())
            text.flush()
        acceptor.cancel()
        acceptor.join()


if __name__ == "__main__":
    signal.alarm(int(sys.argv[2]))  # no handler: what it does needs nothing of this process
    fibers.run(main, int(sys.argv[1]))
