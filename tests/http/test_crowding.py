"""Clients with too many connections: `max_connections_per_address`."""

from typing import Any

import pytest
from support.http_serving import Site, answer, request, site

import fibers
from fibers.http import HttpServer, Server
from fibers.http.crowding import AddressLimit
from fibers.http.networks import Networks
from fibers.io import Stream, socket


def service() -> Server:
    server = Server()
    server.otherwise(lambda request: request.client)
    return server


def connect_from(served: Site, host: str) -> Stream:
    """From any address of loopback."""
    return Stream(socket.create_connection(served.server.address[:2], timeout=10, source_address=(host, 0)))


def serves(client: Stream, head: bytes = b"") -> bool:
    """Is it served, or closed at once?"""
    try:
        client.write_all(head + request())
        return answer(client).status == 200
    except (OSError, EOFError):
        return False


@pytest.mark.parametrize("threads", [1, 2])
def test_one_address_has_so_many_connections_and_others_have_theirs(threads: int) -> None:
    with site(service(), max_connections_per_address=3, threads=threads) as served:
        clients = [connect_from(served, "127.0.0.1") for _ in range(3)]
        assert all(map(serves, clients))
        for _ in range(3):
            with connect_from(served, "127.0.0.1") as refused:
                assert not serves(refused)
        with connect_from(served, "127.0.0.2") as other:
            assert serves(other)
        clients.pop().close()
        while served.server.connections() > 2:  # its end, and the other's, are noticed
            fibers.sleep(0.001)
        clients.append(connect_from(served, "127.0.0.1"))
        assert serves(clients[-1])
        for client in clients:
            client.close()


def test_behind_a_proxy_that_says_whom_it_speaks_for_those_count() -> None:
    def head(client: str) -> bytes:
        return f"PROXY TCP4 {client} 1.2.3.4 5000 80\r\n".encode()

    with site(service(), max_connections_per_address=1, proxy_protocol_from=["127.0.0.1"]) as served:
        with served.connect() as first, served.connect() as second, served.connect() as third:
            assert serves(first, head("9.9.9.1"))
            assert serves(second, head("9.9.9.2"))
            assert not serves(third, head("9.9.9.2"))
        while served.hub.census.open():
            fibers.sleep(0.001)
        with served.connect() as again, served.connect() as check:
            assert serves(again, head("9.9.9.2"))
            check.write_all(b"PROXY UNKNOWN\r\n" + request())
            assert answer(check).body == b"127.0.0.1"


def test_proxies_that_are_believed_and_unix_sockets_have_no_limit(tmp_path: Any) -> None:
    path = str(tmp_path / "socket")
    bind = [("127.0.0.1", 0), f"unix:{path}"]
    with site(service(), max_connections_per_address=1, forwarded_from=["127.0.0.0/8"], bind=bind) as served:
        clients = [served.connect() for _ in range(3)]
        for _ in range(3):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(path)
            clients.append(Stream(sock))
        assert all(map(serves, clients))
        for client in clients:
            client.close()


def test_nothing_is_left_of_who_is_gone() -> None:
    limit = AddressLimit(2, Networks(["10.0.0.0/8"]))
    for host in ("1.2.3.4", "10.0.0.1"):
        assert limit.admit(host, 1)
        assert limit.admit(host, 2)
        assert limit.admit(host, 3) == (host == "10.0.0.1")
        limit.leave(host, 1)
        limit.leave(host, 2)
    assert not limit._limits._counts


def test_a_limit_that_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="max_connections_per_address must be a number from 1 on, or None, not 0"):
        HttpServer(service(), max_connections_per_address=0)
