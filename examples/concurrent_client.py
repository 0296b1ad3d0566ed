"""A thousand conversations at once with an echo server, each in a fiber of its own.

python examples/concurrent_client.py [PORT]     talks to examples/echo_server.py
python examples/concurrent_client.py --check    brings a server of its own
"""

import sys

import fibers
from fibers.io import socket

CLIENTS = 1000
ROUNDS = 10


def converse(address: tuple[str, int], number: int) -> int:
    """Say something ROUNDS times and read each answer; the bytes that came back."""
    total = 0
    with socket.create_connection(address, timeout=10) as connection, connection.makefile("rb") as answers:
        for turn in range(ROUNDS):
            message = b"client %d, turn %d\n" % (number, turn)
            connection.sendall(message)
            answer = answers.readline()
            assert answer == message, answer
            total += len(answer)
    return total


def main(address: tuple[str, int], clients: int) -> None:
    """Start all, then gather what they return. `result()` raises what a fiber raised."""
    fleet = [fibers.spawn(converse, address, number) for number in range(clients)]
    total = sum(fiber.result() for fiber in fleet)
    print(f"{clients:,} clients had {clients * ROUNDS:,} answers, {total:,} bytes")


def check() -> None:
    """Against an echo server in this same thread."""

    def echo(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(4096):
                connection.sendall(data)

    def serve(listener: socket.socket) -> None:
        with listener:
            while True:
                fibers.spawn(echo, listener.accept()[0])

    listener = socket.create_server(("127.0.0.1", 0), backlog=CLIENTS)
    fibers.spawn(serve, listener)
    main(listener.getsockname(), clients=100)


if __name__ == "__main__":
    if "--check" in sys.argv:
        fibers.run(check)
    else:
        fibers.run(main, ("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 7000), CLIENTS)
