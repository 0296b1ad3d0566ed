"""Connected pairs of our sockets, for the tests of what is done with them."""

from fibers.io import socket

Pair = tuple[socket.socket, socket.socket]


def tcp_pair() -> Pair:
    """The two ends of a TCP connection over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    return client, server
