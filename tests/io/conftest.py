"""What the tests of sockets share."""

from collections.abc import Iterator

import pytest
from support.sockets import Pair, tcp_pair

from fibers.io import socket


@pytest.fixture(params=["tcp", "unix"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Two connected sockets, once of each kind."""
    a, b = tcp_pair() if request.param == "tcp" else socket.socketpair()
    with a, b:
        yield a, b
