"""What the tests of sockets share."""

from collections.abc import Iterator

import pytest
from support.servers import PostgreSQL, Redis
from support.sockets import Pair, tcp_pair

from fibers.io import socket


@pytest.fixture(params=["tcp", "unix"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Two connected sockets, once of each kind."""
    a, b = tcp_pair() if request.param == "tcp" else socket.socketpair()
    with a, b:
        yield a, b


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Redis]:
    """A real Redis that lives until the last test has ended. A test that kills it starts it again."""
    with Redis() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgreSQL]:
    """A real PostgreSQL, likewise."""
    with PostgreSQL() as server:
        yield server
