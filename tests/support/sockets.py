"""Connected pairs of our sockets, for the tests of what is done with them."""

import pytest

from fibers.io import socket

Pair = tuple[socket.socket, socket.socket]


def tcp_pair() -> Pair:
    """The two ends of a TCP connection over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    return client, server


def _has_v6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


#: Has this system an address ::1?
HAS_V6 = socket.has_ipv6 and _has_v6()
needs_v6 = pytest.mark.skipif(not HAS_V6, reason="this system has no address ::1")
