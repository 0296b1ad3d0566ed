"""A network in memory: it stands where a program expects the socket module, and connecting takes what it takes on a wire."""

import errno
import gc
import socket as std
from collections.abc import Callable
from typing import Any

import pytest
from support.scale import scaled

import fibers
from fibers import testing
from fibers.errors import ClosedError
from fibers.io import socket
from fibers.testing import MemoryNetwork, VirtualClock, memory_network, wait_all_parked


def echo_program(net: Any, address: Any) -> list[bytes]:
    """A server and some clients, written against what `net` is: the socket module, or a network in memory."""

    def handle(connection: Any) -> None:
        with connection:
            while data := connection.recv(1000):
                connection.sendall(data)

    def serve(listener: Any, group: fibers.TaskGroup) -> None:
        while True:
            connection, _ = listener.accept()
            group.spawn(handle, connection)

    def talk(address: Any, number: int) -> bytes:
        with net.create_connection(address, timeout=10) as connection:
            with connection.makefile("rwb") as file:
                file.write(b"%d\n" % number)
                file.flush()
                line: bytes = file.readline()
            return line

    with net.create_server(address) as listener, fibers.TaskGroup() as group:
        server = group.spawn(serve, listener, group)
        clients = [fibers.spawn(talk, listener.getsockname(), number) for number in range(20)]
        answers = [client.result() for client in clients]
        server.cancel()
    return answers


@pytest.mark.parametrize("make", [lambda: socket, memory_network], ids=["real", "memory"])
def test_the_same_program_runs_on_both(make: Callable[[], Any]) -> None:
    assert echo_program(make(), ("127.0.0.1", 0)) == [b"%d\n" % number for number in range(20)]


def test_it_runs_on_a_slow_network_in_no_time_and_in_any_order() -> None:
    for seed in range(scaled(100, least=5)):
        clock = VirtualClock()
        network = memory_network(latency=1.0, max_send=1, max_receive=2)
        answers = testing.run(echo_program, network, "the server", clock=clock, seed=seed)
        assert answers == [b"%d\n" % number for number in range(20)]
        assert clock() >= 4.0  # two round trips


# -- connecting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda: socket, memory_network], ids=["real", "memory"])
def test_nobody_listens(make: Callable[[], Any]) -> None:
    net = make()
    with net.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    with pytest.raises(ConnectionRefusedError) as refused:
        net.create_connection(address, timeout=10)
    assert refused.value.errno == errno.ECONNREFUSED


@pytest.mark.parametrize("make", [lambda: socket, memory_network], ids=["real", "memory"])
def test_an_address_is_given_once(make: Callable[[], Any]) -> None:
    net = make()
    with net.create_server(("127.0.0.1", 0)) as listener:
        with pytest.raises(OSError, match=r"in use") as taken:
            net.create_server(listener.getsockname())
        assert taken.value.errno == errno.EADDRINUSE
        address = listener.getsockname()
    net.create_server(address).close()


@pytest.mark.parametrize("make", [lambda: socket, memory_network], ids=["real", "memory"])
def test_both_ends_know_their_names(make: Callable[[], Any]) -> None:
    net = make()
    with net.create_server(("127.0.0.1", 0)) as listener:
        with net.create_connection(listener.getsockname()) as client:
            server, address = listener.accept()
            with server:
                assert client.getpeername() == server.getsockname() == listener.getsockname()
                assert client.getsockname() == server.getpeername() == address
                host, port = address
                assert host == "127.0.0.1"
                assert port > 0


@pytest.mark.parametrize("make", [lambda: socket, memory_network], ids=["real", "memory"])
def test_timeouts_of_new_sockets(make: Callable[[], Any]) -> None:
    net = make()
    with net.create_server(("127.0.0.1", 0)) as listener:
        with net.create_connection(listener.getsockname(), 5) as client:
            server, _ = listener.accept()
            with server:
                assert client.gettimeout() == 5
                assert server.gettimeout() is None
        with net.create_connection(listener.getsockname()) as client:
            assert client.gettimeout() is None
        listener.accept()[0].close()
        listener.settimeout(0.001)
        with pytest.raises(TimeoutError):
            listener.accept()
        listener.settimeout(0)
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.mark.parametrize("make", [lambda: socket, memory_network], ids=["real", "memory"])
def test_acceptors_take_turns_and_are_woken_by_close(make: Callable[[], Any]) -> None:
    net = make()
    with net.create_server(("127.0.0.1", 0)) as listener:
        acceptors = [fibers.spawn(listener.accept) for _ in range(4)]
        wait_all_parked()
        clients = [net.create_connection(listener.getsockname()) for _ in range(2)]
        for acceptor in acceptors[:2]:
            acceptor.result()[0].close()
        wait_all_parked()
        assert not any(acceptor.done() for acceptor in acceptors[2:])
        listener.close()
        for acceptor in acceptors[2:]:
            assert isinstance(acceptor.exception(), ClosedError)
        with pytest.raises(OSError, match=r"closed|Bad file") as closed:
            listener.accept()
        assert closed.value.errno == errno.EBADF
        assert listener.fileno() == -1
        for client in clients:
            client.close()


@pytest.mark.parametrize("make", [lambda: socket, memory_network], ids=["real", "memory"])
def test_a_cancelled_acceptor_takes_no_connection(make: Callable[[], Any]) -> None:
    net = make()
    with net.create_server(("127.0.0.1", 0)) as listener:
        acceptor = fibers.spawn(listener.accept)
        wait_all_parked()
        acceptor.cancel()
        acceptor.join()
        with net.create_connection(listener.getsockname()) as client:
            server, _ = listener.accept()
            with server:
                client.sendall(b"x")
                assert server.recv(1) == b"x"


def on_a_clock(main: Callable[[], object]) -> float:
    """When `main` ends that began at 0."""

    def timed() -> float:
        main()
        return fibers.current_time()

    return testing.run(timed, clock=VirtualClock())


def test_connecting_takes_a_round_trip() -> None:
    def main() -> None:
        network = memory_network(latency=3)
        with network.create_server("there") as listener:
            acceptor = fibers.spawn(lambda: (listener.accept()[0], fibers.current_time()))
            with network.create_connection("there"):
                server, at = acceptor.result()
                assert at == 3.0
                server.close()

    assert on_a_clock(main) == 6.0


def test_a_refusal_takes_a_round_trip_too() -> None:
    def main() -> None:
        with pytest.raises(ConnectionRefusedError):
            memory_network(latency=3).create_connection("nowhere")

    assert on_a_clock(main) == 6.0


@pytest.mark.parametrize("limit", ["argument", "scope"])
def test_connecting_may_time_out(limit: str) -> None:
    def main() -> None:
        network = memory_network(latency=3)
        inside, timeout = (None, 5) if limit == "argument" else (5, None)
        with network.create_server("there"), pytest.raises(TimeoutError), fibers.timeout(inside):
            network.create_connection("there", timeout)

    assert on_a_clock(main) == 5.0


def test_who_gives_up_connecting_leaves_a_closed_connection_to_the_listener() -> None:
    def main() -> None:
        network = memory_network(latency=3)
        with network.create_server("there") as listener:
            with pytest.raises(TimeoutError):
                network.create_connection("there", timeout=4)
            server, _ = listener.accept()
            with server:
                assert server.recv(1) == b""

    assert on_a_clock(main) == 7.0


def test_a_full_backlog_makes_wait() -> None:
    def main() -> None:
        network = memory_network()
        with network.create_server("there", backlog=2) as listener:
            first = [network.create_connection("there") for _ in range(2)]
            third = fibers.spawn(network.create_connection, "there", 10)
            fibers.sleep(5)
            assert not third.done()
            listener.accept()[0].close()
            first.append(third.result())
            with pytest.raises(TimeoutError):
                network.create_connection("there", timeout=10)
            for client in first:
                client.close()

    assert on_a_clock(main) == 15.0


def test_closing_a_listener_resets_what_was_not_accepted_and_refuses_who_waits() -> None:
    def main() -> None:
        network = memory_network()
        listener = network.create_server("there", backlog=1)
        with network.create_connection("there") as client:
            client.sendall(b"hello?")
            waiting = fibers.spawn(network.create_connection, "there")
            wait_all_parked()
            listener.close()
            with pytest.raises(ConnectionResetError):
                client.recv(1)
            assert isinstance(waiting.exception(), ConnectionRefusedError)
        network.create_server("there").close()

    assert on_a_clock(main) == 0.0


def test_without_a_timeout_nothing_waits() -> None:
    network = memory_network()
    with network.create_server("there", backlog=1):
        with network.create_connection("there", timeout=0) as client:
            assert client.gettimeout() == 0
            with pytest.raises(TimeoutError):
                network.create_connection("there", timeout=0)
    with pytest.raises(BlockingIOError) as started:
        memory_network(latency=1).create_connection("there", timeout=0)
    assert started.value.errno == errno.EINPROGRESS


def test_networks_and_pairs_are_apart() -> None:
    one, other = memory_network(), memory_network()
    with one.create_server("there"), pytest.raises(ConnectionRefusedError):
        other.create_connection("there")
    left, right = one.socketpair()
    with left, right:
        left.sendall(b"x")
        assert right.recv(1) == b"x"
        assert left.getpeername() == ""


def test_the_default_timeout_holds() -> None:
    std.setdefaulttimeout(7)
    try:
        network = memory_network()
        with network.create_server("there") as listener, network.create_connection("there") as client:
            server, _ = listener.accept()
            with server:
                assert listener.gettimeout() == client.gettimeout() == server.gettimeout() == 7
    finally:
        std.setdefaulttimeout(None)


def test_an_unclosed_listener_warns() -> None:
    def drop() -> None:
        memory_network().create_server("there")
        gc.collect()  # listener and network know each other

    with pytest.warns(ResourceWarning, match="unclosed <MemoryListener at 'there'>"):
        drop()


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda net: net.create_server(["list"]), TypeError, "unhashable"),
        (lambda net: net.create_server("x", nonsense=1), TypeError, "does not know nonsense"),
        (lambda net: net.create_connection("x", timeout=-1), ValueError, "timeout must be 0 or more"),
        (lambda net: net.create_connection("x", timeout="1"), TypeError, "timeout must be a number"),
        (lambda net: MemoryNetwork(0.5), TypeError, r"has a Link, not 0\.5"),  # type: ignore[arg-type]
    ],
)
def test_bad_input(call: Callable[[MemoryNetwork], object], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call(memory_network())
