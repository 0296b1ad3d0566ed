"""Connected pairs of our sockets, for the tests of what is done with them."""

from pathlib import Path

import pytest
from support import netns

from fibers.io import socket

Pair = tuple[socket.socket, socket.socket]


def tcp_pair() -> Pair:
    """The two ends of a TCP connection over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    return client, server


needs_v6 = pytest.mark.skipif(not netns.has_ipv6(), reason="this system has no address ::1")


def link_local() -> tuple[str, int] | None:
    """An interface with a link-local address: the address without its scope, and the scope's number."""
    """The address of an interface here that means something only there, and the number of the interface."""
    try:
        lines = Path("/proc/net/if_inet6").read_text().split("\n")
    except OSError:
        return None
    for line in lines:
        if line.startswith("fe80"):
            number, index, _, _, flags, _ = line.split()
            if not int(flags, 16) & 0x48:  # neither tentative nor found to be somebody else's
                return socket.inet_ntop(socket.AF_INET6, bytes.fromhex(number)), int(index, 16)
    return None
