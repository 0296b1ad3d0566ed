"""An echo server: one fiber a connection, written as if each had a thread.

python examples/echo_server.py [PORT]        then, elsewhere: nc 127.0.0.1 7000
python examples/echo_server.py --check
"""

import sys

import fibers
from fibers.io import socket


def echo(connection: socket.socket) -> None:
    """Send back what comes, until the client ends its half."""
    with connection:
        while data := connection.recv(65536):
            connection.sendall(data)


def serve(listener: socket.socket) -> None:
    """Accept for ever; the listener is closed when this fiber ends."""
    with listener:
        while True:
            connection, _ = listener.accept()
            fibers.spawn(echo, connection)


def main(port: int) -> None:
    """Serve until Ctrl-C."""
    print(f"echoing on 127.0.0.1:{port}")
    serve(socket.create_server(("127.0.0.1", port)))


def check() -> None:
    """One client that sends 1 MB, from one fiber, and reads it back in another."""
    listener = socket.create_server(("127.0.0.1", 0))
    fibers.spawn(serve, listener)
    message = bytes(range(256)) * 4096
    with socket.create_connection(listener.getsockname()) as connection:
        sender = fibers.spawn(connection.sendall, message)
        received = b""
        while len(received) < len(message):
            received += connection.recv(65536)
        sender.result()
    assert received == message
    print(f"{len(received):,} bytes came back as they were sent")


if __name__ == "__main__":
    try:
        if "--check" in sys.argv:
            fibers.run(check)
        else:
            fibers.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 7000)
    except KeyboardInterrupt:
        print("bye")
