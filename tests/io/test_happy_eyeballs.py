"""fibers.io.connect: the first address that answers wins, whatever the others do.

The resolver is a fake one (of the C library's look-up everything above is real). Dead addresses are of three kinds: ports
on which nothing listens, a listener whose backlog is full, which drops what comes, and addresses that the kernel refuses.
"""

import _socket
import errno
import gc
import os
import ssl as std_ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from support.process import run_python
from support.sockets import needs_v6
from support.tls import client_context, needs_openssl, server_context
from support.virtual import VirtualClock, run_virtual

import fibers
import fibers.io
from fibers.core.scheduler import get_scheduler
from fibers.io import happy_eyeballs, socket, ssl
from fibers.io.happy_eyeballs import Target, interleaved

V4, V6, TCP = socket.AF_INET, socket.AF_INET6, (socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
#: A delay that never passes in a test.
NEVER = 1000.0
linux = pytest.mark.skipif(
    sys.platform != "linux", reason="other systems refuse instead of dropping, or have one loopback"
)


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`resolver((host, port), …)`: what the name host.test is resolved to. The rest is as ever."""
    real = _socket.getaddrinfo

    def install(*addresses: tuple[Any, ...]) -> None:
        def fake(host: Any, *args: Any) -> Any:
            if host != "host.test":
                return real(host, *args)
            return [(V6, *TCP, (each[0], each[1], 0, 0)) if ":" in each[0] else (V4, *TCP, each) for each in addresses]

        monkeypatch.setattr(_socket, "getaddrinfo", fake)

    return install


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@contextmanager
def black_hole(host: str) -> Iterator[tuple[str, int]]:
    """A listener whose backlog is full: the kernel drops what comes, so that a connect there gets no answer."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(V6 if ":" in host else V4))
        listener.bind((host, 0))
        listener.listen(0)
        for _ in range(4):
            client = stack.enter_context(socket.socket(listener.family))
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()[:2]


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket(V6 if ":" in host else V4) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def refusing() -> Iterator[Callable[[], tuple[str, int]]]:
    """`refusing()`: an address that is nobody else's, and refuses connections: somebody has it, and does not listen."""
    with ExitStack() as stack:

        def make() -> tuple[str, int]:
            holder = stack.enter_context(socket.socket())
            holder.bind(("127.0.0.1", 0))
            return holder.getsockname()  # type: ignore[no-any-return]

        yield make


Refusing = Callable[[], tuple[str, int]]


def test_families_take_turns_and_the_first_begins() -> None:
    a, b, c = (Target(V6, *TCP, (f"::{i}", 1, 0, 0)) for i in (1, 2, 3))
    x, y = (Target(V4, *TCP, (f"10.0.0.{i}", 1)) for i in (1, 2))
    assert interleaved([a, b, c, x, y]) == [a, x, b, y, c]
    assert interleaved([x, a, b, x, y]) == [x, a, y, b]
    assert interleaved([x, y]) == [x, y]
    assert interleaved([]) == []
    assert (str(a), str(x)) == ("[::1]:1", "10.0.0.1:1")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "host.test"])
def test_it_connects(listener: socket.socket, resolver: Any, host: str) -> None:
    resolver(listener.getsockname())
    with fibers.io.connect(host, listener.getsockname()[1], timeout=20) as sock:
        server, address = listener.accept()
        with server:
            assert type(sock) is socket.socket
            assert sock.getsockname() == address
            assert sock.gettimeout() is None, "the timeout was for connecting"
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            server.sendall(b"welcome")
            assert sock.recv(10) == b"welcome"


@needs_v6
def test_it_connects_by_ipv6_first_where_the_resolver_says_so(listener: socket.socket, resolver: Any) -> None:
    with socket.create_server(("::1", 0), family=V6) as six:
        resolver(six.getsockname()[:2], listener.getsockname())
        with fibers.io.connect("host.test", 80, timeout=20, happy_eyeballs_delay=NEVER) as sock:
            assert sock.getpeername()[:2] == six.getsockname()[:2]
            six.accept()[0].close()


def test_a_refused_address_starts_the_next_at_once(listener: socket.socket, resolver: Any, refusing: Refusing) -> None:
    resolver(refusing(), refusing(), listener.getsockname())
    before = fibers.current_time()
    with fibers.io.connect("host.test", 80, timeout=100, happy_eyeballs_delay=NEVER) as sock:
        assert sock.getpeername() == listener.getsockname()
        listener.accept()[0].close()
    assert fibers.current_time() - before < 50


@linux
@pytest.mark.parametrize("dead", ["127.0.0.1", pytest.param("::1", marks=needs_v6)])
def test_an_address_that_does_not_answer_is_overtaken(listener: socket.socket, resolver: Any, dead: str) -> None:
    with black_hole(dead) as hole:
        resolver(hole, listener.getsockname())
        with fibers.io.connect("host.test", 80, timeout=100, happy_eyeballs_delay=0.01) as sock:
            assert sock.getpeername() == listener.getsockname()
            listener.accept()[0].close()


@linux
def test_the_delays_are_those_of_the_rfc(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that jumps: each attempt begins a quarter of a second after the one before, and all go on."""
    with black_hole("127.0.0.1") as one, black_hole("127.0.0.2") as two, black_hole("127.0.0.3") as three:
        addresses = [f"{host}:{port}" for host, port in (one, two, three)]
        # Not the C library's: while a thread looks something up, this clock would jump.
        monkeypatch.setattr(happy_eyeballs, "getaddrinfo", lambda *_: [(V4, *TCP, each) for each in (one, two, three)])
        seen: list[tuple[int, list[str]]] = []

        def watch() -> None:
            for tenths in range(1, 9):
                fibers.sleep(0.1)
                seen.append((tenths, sorted(each.name for each in fibers.all_fibers() if each.name in addresses)))

        def main(clock: VirtualClock) -> tuple[float, str]:
            begin = clock.now
            watcher = fibers.spawn(watch)
            with pytest.raises(TimeoutError) as caught:
                fibers.io.connect("host.test", 80, timeout=3)
            watcher.join()
            return clock.now - begin, str(caught.value)

        took, text = run_virtual(main)
    assert took == pytest.approx(3)
    assert "connecting to host.test port 80: not done within 3 seconds" in text
    assert [running for _, running in seen] == [sorted(addresses[: 1 + tenths * 10 // 25]) for tenths, _ in seen]
    assert all(f"{each}: no answer" in text for each in addresses)


@linux
def test_one_after_the_other_without_a_delay(listener: socket.socket, resolver: Any) -> None:
    with black_hole("127.0.0.1") as hole:
        resolver(hole, listener.getsockname())
        with pytest.raises(TimeoutError, match="no answer"):
            fibers.io.connect("host.test", 80, timeout=0.05, happy_eyeballs_delay=None)
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_two_that_succeed_together_leave_one(listener: socket.socket, resolver: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        resolver(listener.getsockname(), other.getsockname())
        for _ in range(5):
            with fibers.io.connect("host.test", 80, timeout=20, happy_eyeballs_delay=0) as sock:
                mine, loser = listener, other
                if sock.getpeername() == other.getsockname():
                    mine, loser = other, listener
                with mine.accept()[0] as server:
                    assert server.getpeername() == sock.getsockname()
                loser.setblocking(False)
                try:
                    with loser.accept()[0] as second:
                        second.settimeout(5)
                        assert second.recv(1) == b"", "the loser's connection is closed"
                except (BlockingIOError, ConnectionResetError):
                    pass  # it was not made, or has ended by a reset
                loser.settimeout(None)


def test_one_error_keeps_its_class_and_is_the_cause(resolver: Any, refusing: Refusing) -> None:
    host, port = refusing()
    resolver((host, port))
    with pytest.raises(ConnectionRefusedError) as caught:
        fibers.io.connect("host.test", 80)
    assert caught.value.errno == errno.ECONNREFUSED
    assert f"connecting to host.test port 80 has failed (127.0.0.1:{port}: Connection refused)" in str(caught.value)
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


def test_all_errors_are_told_and_what_the_host_says_counts(resolver: Any, refusing: Refusing) -> None:
    """255.255.255.255 is refused by our kernel, which is no news of the host."""
    host, port = refusing()
    with socket.socket() as probe:
        ours = probe.connect_ex(("255.255.255.255", 9))
    resolver(("255.255.255.255", 9), (host, port))
    with pytest.raises(OSError, match=r"255\.255\.255\.255:9: .*; 127\.0\.0\.1:.*refused") as caught:
        fibers.io.connect("host.test", 80)
    if ours in happy_eyeballs._OURS:
        assert isinstance(caught.value, ConnectionRefusedError)
    cause = caught.value.__cause__
    assert isinstance(cause, ExceptionGroup)
    assert [error.errno for error in cause.exceptions] == [ours, errno.ECONNREFUSED]  # type: ignore[union-attr]


def test_errors_are_no_cycles(resolver: Any, refusing: Refusing) -> None:
    resolver(refusing(), refusing())
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            with pytest.raises(ConnectionRefusedError):
                fibers.io.connect("host.test", 80)
        assert [each for each in gc.get_objects() if isinstance(each, ConnectionRefusedError | ExceptionGroup)] == []
    finally:
        gc.enable()


def test_no_address_and_no_such_host(resolver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    resolver()
    with pytest.raises(OSError, match=r"no address for 'host\.test'"):
        fibers.io.connect("host.test", 80)

    def unknown(*_: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(_socket, "getaddrinfo", unknown)
    with pytest.raises(socket.gaierror):
        fibers.io.connect("host.test", 80)


def test_the_timeout_is_for_the_look_up_too(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()

    def slow(*_: Any) -> Any:
        answer.wait(20)
        return []

    monkeypatch.setattr(_socket, "getaddrinfo", slow)
    with pytest.raises(TimeoutError, match="looking the name up"):
        fibers.io.connect("slow.test", 80, timeout=0.02)
    answer.set()


@linux
@pytest.mark.parametrize("end", ["cancel", "kill", "scope"])
def test_what_is_ended_in_the_middle_leaves_nothing(resolver: Any, end: str) -> None:
    with black_hole("127.0.0.1") as one, black_hole("127.0.0.2") as two:
        resolver(one, two)
        files = set(os.listdir("/proc/self/fd"))
        if end == "scope":
            with pytest.raises(TimeoutError), fibers.timeout(0.05):
                fibers.io.connect("host.test", 80, happy_eyeballs_delay=0.001)
        else:
            caller = fibers.spawn(fibers.io.connect, "host.test", 80, happy_eyeballs_delay=0)
            while not any(each.name.startswith("127.0.0.2:") for each in fibers.all_fibers()):
                fibers.sleep(0.001)
            caller.cancel() if end == "cancel" else caller.kill()
            with pytest.raises(fibers.FiberCancelled):
                caller.result(20)
        assert set(os.listdir("/proc/self/fd")) <= files
        assert not [each for each in fibers.all_fibers() if each.name.startswith("127.0.0.")]


@linux
def test_a_deadline_from_further_out_is_a_timeout_once(resolver: Any) -> None:
    """As of every socket operation: a driver that knows only its own timeouts sees one."""
    with black_hole("127.0.0.1") as hole, fibers.move_on_after(0.03) as scope:
        resolver(hole)
        with pytest.raises(TimeoutError, match=r"a deadline has passed .*no answer"):
            fibers.io.connect("host.test", 80)
        with pytest.raises(fibers.Cancelled):
            fibers.io.connect("host.test", 80)
    assert scope.cancel_called


@linux
def test_local_address(listener: socket.socket, resolver: Any) -> None:
    resolver(("::1", 9), listener.getsockname())  # the one of the other family is not tried
    port = free_port()
    cases: list[tuple[Any, Any]] = [
        ("127.0.0.7", "127.0.0.7"),
        (("127.0.0.1", port), ("127.0.0.1", port)),
        ("localhost", "127.0.0.1"),
    ]
    for source, expected in cases:
        with fibers.io.connect("host.test", 80, timeout=20, local_address=source) as sock:
            server, address = listener.accept()
            server.close()
            assert sock.getsockname() == address
            assert address[0] == expected if isinstance(expected, str) else address == expected
    resolver(listener.getsockname())
    with pytest.raises(OSError, match="no address of the same family") as caught:
        fibers.io.connect("host.test", 80, local_address="::1")
    assert caught.value.errno == errno.EAFNOSUPPORT
    with pytest.raises(OSError, match="has failed") as caught:
        fibers.io.connect("host.test", 80, local_address="192.0.2.77")
    assert caught.value.errno == errno.EADDRNOTAVAIL


@needs_openssl
@pytest.mark.parametrize("default", [None, 0.0, 3.0])
@pytest.mark.parametrize("tls", [False, True])
def test_the_default_timeout_is_for_later(listener: socket.socket, tls: bool, default: float | None) -> None:
    server = fibers.spawn(serve_tls if tls else accept_one, listener)
    socket.setdefaulttimeout(default)
    try:
        context = client_context() if tls else None
        with fibers.io.connect("localhost", listener.getsockname()[1], timeout=20, tls=context) as sock:
            assert sock.gettimeout() == default
            sock.settimeout(20)
            assert sock.recv(20) == b"in secret"
    finally:
        socket.setdefaulttimeout(None)
    server.join(20)


def accept_one(listener: socket.socket) -> None:
    with listener.accept()[0] as connection:
        connection.settimeout(20)
        connection.sendall(b"in secret")
        connection.recv(1)


@linux
@pytest.mark.parametrize("targets", [1, 2])
@pytest.mark.parametrize("own", [True, False])
def test_a_deadline_at_the_moment_of_a_delay(monkeypatch: pytest.MonkeyPatch, targets: int, own: bool) -> None:
    with black_hole("127.0.0.1") as one, black_hole("127.0.0.2") as two:
        found = [(V4, *TCP, each) for each in (one, two)][:targets]
        monkeypatch.setattr(happy_eyeballs, "getaddrinfo", lambda *_: found)

        def main(clock: VirtualClock) -> str:
            with fibers.move_on_after(None if own else 0.25 * targets), pytest.raises(TimeoutError) as caught:
                fibers.io.connect("host.test", 80, timeout=0.25 * targets if own else None)
            return str(caught.value)

        text = run_virtual(main)
    assert text.count("no answer") == targets


def test_without_the_ssl_module_only_tls_is_missing() -> None:
    child = run_python(
        "-c",
        """
import sys
sys.modules["_ssl"] = None
import fibers.io
with fibers.io.socket.create_server(("127.0.0.1", 0)) as listener:
    fibers.io.connect(*listener.getsockname()).close()
    try:
        fibers.io.connect(*listener.getsockname(), tls=True)
    except RuntimeError as error:
        print(error)
""",
    )
    assert child.stdout == "this Python has been built without the ssl module, so there is no TLS\n", child.stderr


def test_it_runs_in_any_thread(listener: socket.socket) -> None:
    with fibers.to_thread(fibers.io.connect, *listener.getsockname()) as sock:
        with listener.accept()[0] as server:
            server.sendall(b"x")
            assert sock.recv(1) == b"x"


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"host": b"x"}, TypeError, "host must be a str"),
        ({"host": ""}, ValueError, "must not be empty"),
        ({"port": 0}, ValueError, "from 1 to 65535"),
        ({"port": 65536}, ValueError, "from 1 to 65535"),
        ({"port": 1.5}, TypeError, "port must be"),
        ({"port": True}, TypeError, "port must be"),
        ({"port": ""}, ValueError, "must not be empty"),
        ({"timeout": -1}, ValueError, "timeout"),
        ({"timeout": "1"}, TypeError, "timeout"),
        ({"happy_eyeballs_delay": -1}, ValueError, "happy_eyeballs_delay"),
        ({"tls": "yes"}, TypeError, "SSLContext"),
        ({"server_hostname": "x"}, ValueError, "tls=True"),
        ({"local_address": 5}, TypeError, "local_address"),
        ({"local_address": ("::1",)}, TypeError, "local_address"),
    ],
)
def test_bad_arguments_are_named_before_anything_happens(
    lookups: list[Any], arguments: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        fibers.io.connect(**{"host": "host.test", "port": 80, **arguments})
    assert lookups == []


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    seen: list[Any] = []

    def spy(*args: Any) -> list[Any]:
        seen.append(args)
        return []

    monkeypatch.setattr(_socket, "getaddrinfo", spy)
    return seen


# -- TLS ------------------------------------------------------------------------------------------------------------


def serve_tls(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(20)
        try:
            with server_context().wrap_socket(connection, server_side=True) as served:
                served.sendall(b"in secret")
                served.recv(1)
        except OSError:
            pass  # the client has refused us


@needs_openssl
def test_tls_with_a_context(listener: socket.socket, resolver: Any, refusing: Refusing) -> None:
    resolver(refusing(), listener.getsockname())
    server = fibers.spawn(serve_tls, listener)
    with fibers.io.connect(
        "host.test", 443, timeout=20, tls=client_context(), server_hostname="localhost", happy_eyeballs_delay=NEVER
    ) as sock:
        assert isinstance(sock, ssl.SSLSocket)
        assert sock.server_hostname == "localhost"
        assert sock.recv(20) == b"in secret"
    server.join(20)


@needs_openssl
def test_tls_takes_the_host_for_the_name_and_a_foreign_context(listener: socket.socket) -> None:
    server = fibers.spawn(serve_tls, listener)
    context = client_context(module=std_ssl)
    with fibers.io.connect("localhost", listener.getsockname()[1], timeout=20, tls=context) as sock:
        assert isinstance(sock, ssl.SSLSocket)
        assert sock.recv(20) == b"in secret"
    server.join(20)


@needs_openssl
@pytest.mark.parametrize("tls", ["default", "wrong name"])
def test_a_certificate_that_is_refused_ends_it(listener: socket.socket, tls: str) -> None:
    server = fibers.spawn(serve_tls, listener)
    context = True if tls == "default" else client_context()
    name = None if tls == "default" else "other.test"
    with pytest.raises(ssl.SSLCertVerificationError):
        fibers.io.connect("localhost", listener.getsockname()[1], timeout=20, tls=context, server_hostname=name)
    server.join(20)


def test_the_timeout_is_for_the_handshake_too(listener: socket.socket) -> None:
    """Somebody accepts and says nothing."""
    with pytest.raises(TimeoutError, match="the TLS handshake"):
        fibers.io.connect("localhost", listener.getsockname()[1], timeout=0.05, tls=True)
    with listener.accept()[0] as server:
        while server.recv(4096):
            pass  # the hello, and then the end: nothing was left open


def test_the_main_fiber_of_a_bare_thread_may_call_it(listener: socket.socket) -> None:
    results: list[Any] = []

    def bare() -> None:
        with fibers.io.connect(*listener.getsockname(), timeout=20) as sock:
            results.append(sock.getpeername())
        get_scheduler().loop.stats  # noqa: B018 - it has one of its own

    thread = threading.Thread(target=bare)
    thread.start()
    with listener.accept()[0]:
        fibers.to_thread(thread.join)
    assert results == [listener.getsockname()]
