"""connect, connect_ex, create_connection, create_server, accept: success, refusal, black holes, and running out of fds."""

import errno
import os
import resource
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import netns

import fibers
from fibers.core.scheduler import get_scheduler
from fibers.io import socket

FAMILIES = pytest.mark.parametrize("host", ["127.0.0.1", "::1"])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def black_hole() -> Iterator[tuple[str, int]]:
    """A listener whose backlog is full: the kernel drops further SYNs, so that a connect there gets no answer."""
    if sys.platform != "linux":
        pytest.skip("other systems refuse instead of dropping")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        clients = []
        for _ in range(4):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
            clients.append(client)
        yield listener.getsockname()
        for client in clients:
            client.close()


def family_of(host: str) -> int:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def where(host: str, test: Callable[..., None], *args: Any) -> None:
    """Run the test where there is such an address."""
    netns.with_ipv6(test, host, *args) if ":" in host else test(host, *args)


@FAMILIES
@pytest.mark.parametrize("timeout", [None, 5])
def test_connect_accept_and_talk(host: str, timeout: float | None) -> None:
    where(host, talk, timeout)


def talk(host: str, timeout: float | None) -> None:
    with socket.create_server((host, 0), family=family_of(host)) as listener:
        listener.settimeout(timeout)
        acceptor = fibers.spawn(listener.accept)
        with socket.socket(family_of(host)) as client:
            client.settimeout(timeout)
            client.connect(listener.getsockname())
            server, address = acceptor.result(5)
            with server:
                assert address == client.getsockname()
                assert isinstance(server, socket.socket)
                assert server.gettimeout() is None
                assert (server.family, server.type) == (listener.family, listener.type)
                server.sendall(b"welcome")
                assert client.recv(10) == b"welcome"


@FAMILIES
def test_connect_ex_returns_0_or_the_errno(host: str) -> None:
    where(host, connect_ex)


def connect_ex(host: str) -> None:
    with socket.create_server((host, 0), family=family_of(host)) as listener:
        address = listener.getsockname()
        with socket.socket(family_of(host)) as client:
            assert client.connect_ex(address) == 0
            assert client.connect_ex(address) == errno.EISCONN
    with socket.socket(family_of(host)) as client:
        assert client.connect_ex(address) == errno.ECONNREFUSED


def test_a_refused_connect_raises_and_the_socket_can_be_used_again() -> None:
    """Row "latch": a TCP socket re-connected after a refusal blocks and wakes as a new one."""
    with socket.socket() as client:
        with pytest.raises(ConnectionRefusedError):
            client.connect(("127.0.0.1", free_port()))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client.connect(listener.getsockname())
            with listener.accept()[0] as server:
                turns = get_scheduler().loop.stats.turns
                reader = fibers.spawn(client.recv, 10)
                fibers.sleep(0.05)
                assert get_scheduler().loop.stats.turns - turns <= 5, "it spins"
                assert not reader.done()
                server.send(b"after all")
                assert reader.result(5) == b"after all"


def test_unreachable_is_told_at_once() -> None:
    with socket.socket() as client:
        client.settimeout(5)
        with pytest.raises(OSError, match=r"unreachable|Permission|denied|refused|Invalid") as caught:
            client.connect(("255.255.255.255", 9))
        assert not isinstance(caught.value, TimeoutError)


def test_connect_times_out_in_a_black_hole(black_hole: tuple[str, int]) -> None:
    with socket.socket() as client:
        client.settimeout(0.1)
        started = fibers.current_time()
        with pytest.raises(TimeoutError, match="timed out"):
            client.connect(black_hole)
        assert 0.1 <= fibers.current_time() - started < 5


def test_connect_ex_reports_a_timeout_as_eagain(black_hole: tuple[str, int]) -> None:
    with socket.socket() as client:
        client.settimeout(0.05)
        assert client.connect_ex(black_hole) == errno.EAGAIN


def test_connect_in_non_blocking_mode_is_in_progress(black_hole: tuple[str, int]) -> None:
    with socket.socket() as client:
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.connect(black_hole)
        assert client.connect_ex(black_hole) == errno.EALREADY


@pytest.mark.parametrize("end", ["cancel", "kill", "close"])
def test_connect_that_waits_is_ended(black_hole: tuple[str, int], end: str) -> None:
    with socket.socket() as client:
        connecting = fibers.spawn(client.connect, black_hole)
        fibers.sleep(0.01)
        assert not connecting.done()
        if end == "close":
            client.close()
            with pytest.raises(fibers.ClosedError):
                connecting.result(5)
        else:
            connecting.cancel() if end == "cancel" else connecting.kill()
            with pytest.raises(fibers.FiberCancelled):
                connecting.result(5)


def test_create_connection_with_timeout_and_source_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = free_port()
        with socket.create_connection(listener.getsockname(), timeout=7, source_address=("127.0.0.1", port)) as client:
            assert client.getsockname() == ("127.0.0.1", port)
            assert client.gettimeout() == 7
            listener.accept()[0].close()


def test_create_connection_takes_the_default_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        socket.setdefaulttimeout(3)
        try:
            assert socket.getdefaulttimeout() == 3
            with socket.create_connection(listener.getsockname()) as client:
                assert client.gettimeout() == 3
            server, _ = listener.accept()
            with server:
                assert server.gettimeout() == 3
            with socket.socket() as fresh:
                assert fresh.gettimeout() == 3
        finally:
            socket.setdefaulttimeout(None)


def test_create_connection_times_out(black_hole: tuple[str, int]) -> None:
    with pytest.raises(TimeoutError):
        socket.create_connection(black_hole, timeout=0.05)


def test_create_connection_raises_the_last_error_or_all() -> None:
    port = free_port()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    with pytest.raises(ExceptionGroup) as caught:
        socket.create_connection(("127.0.0.1", port), all_errors=True)
    assert [type(each) for each in caught.value.exceptions] == [ConnectionRefusedError]


def test_create_connection_by_name_tries_each_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("localhost", port), timeout=5) as client:
            assert client.getpeername()[1] == port


def test_connect_by_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.socket() as client:
            client.connect(("localhost", listener.getsockname()[1]))
            listener.accept()[0].close()


def test_accept_times_out_and_then_works() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.02)
        with pytest.raises(TimeoutError):
            listener.accept()
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
        listener.settimeout(5)
        acceptor = fibers.spawn(listener.accept)
        fibers.yield_now()
        with socket.create_connection(listener.getsockname()):
            acceptor.result(5)[0].close()


def test_create_server_dualstack_and_reuse_port() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=5, reuse_port=True) as listener:
        assert isinstance(listener, socket.socket)
        with socket.create_server(listener.getsockname(), reuse_port=True):
            pass
    netns.with_ipv6(dualstack)


def dualstack() -> None:
    assert socket.has_dualstack_ipv6()
    with socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as both:
        for host in ("127.0.0.1", "::1"):
            acceptor = fibers.spawn(both.accept)
            with socket.create_connection((host, both.getsockname()[1])):
                acceptor.result(5)[0].close()


def test_emfile_in_accept_loses_no_connection_and_does_not_spin() -> None:
    """Row "EMFILE": accept raises, as it must; whoever backs off and goes on gets every connection."""
    count = 10
    with socket.create_server(("127.0.0.1", 0)) as listener:
        served: list[socket.socket] = []
        failures = 0

        def serve() -> None:
            nonlocal failures
            while len(served) < count:
                try:
                    served.append(listener.accept()[0])
                except OSError as error:
                    if error.errno != errno.EMFILE:
                        raise
                    failures += 1
                    fibers.sleep(0.01)

        server = fibers.spawn(serve)
        fibers.yield_now()
        clients = [socket.socket() for _ in range(count)]
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = os.dup(0)
        os.close(highest)
        stats = get_scheduler().loop.stats
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
        try:
            for client in clients:
                client.connect(listener.getsockname())
            turns = stats.turns
            fibers.sleep(0.1)
            assert served == []
            assert 2 <= failures <= 15
            assert stats.turns - turns < 40
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        server.result(5)
        assert {each.getpeername() for each in served} == {each.getsockname() for each in clients}
        for each in (*served, *clients):
            each.close()
