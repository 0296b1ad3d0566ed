"""Names: numeric addresses without a thread, everything else in a worker thread, and only the calling fiber waits."""

import _socket
import socket as std
import threading
from collections.abc import Callable
from typing import Any

import pytest

import fibers
from fibers.io import socket
from fibers.threads import to_thread as threads


def spy_on(real: Callable[..., Any], seen: list[str]) -> Callable[..., Any]:
    def spy(*args: Any) -> Any:
        seen.append(threading.current_thread().name)
        return real(*args)

    return spy


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the threads in which the C library's look-ups run."""
    seen: list[str] = []
    for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "gethostbyaddr", "getnameinfo"):
        monkeypatch.setattr(_socket, name, spy_on(getattr(_socket, name), seen))
    return seen


NUMERIC: dict[str, Callable[[], Any]] = {
    "getaddrinfo IPv4": lambda: socket.getaddrinfo("127.0.0.1", 80),
    "getaddrinfo IPv6": lambda: socket.getaddrinfo("::1", 80),
    "getaddrinfo bytes": lambda: socket.getaddrinfo(b"127.0.0.1", b"80"),
    "getaddrinfo digits": lambda: socket.getaddrinfo("127.0.0.1", "80", type=socket.SOCK_STREAM),
    "getaddrinfo no host": lambda: socket.getaddrinfo(None, 80, flags=socket.AI_PASSIVE),
    "getaddrinfo no port": lambda: socket.getaddrinfo("127.0.0.1", None),
    "gethostbyname": lambda: socket.gethostbyname("127.0.0.1"),
}


@pytest.mark.parametrize("call", NUMERIC.values(), ids=NUMERIC)
def test_numeric_addresses_need_no_thread(lookups: list[str], call: Callable[[], Any]) -> None:
    assert call()
    assert [name for name in lookups if name.startswith("fibers-worker")] == []


NAMED: dict[str, Callable[[], Any]] = {
    "getaddrinfo": lambda: socket.getaddrinfo("localhost", 80),
    "getaddrinfo with a service": lambda: socket.getaddrinfo("127.0.0.1", "http"),
    "gethostbyname": lambda: socket.gethostbyname("localhost"),
    "gethostbyname_ex": lambda: socket.gethostbyname_ex("localhost"),
    "gethostbyaddr": lambda: socket.gethostbyaddr("127.0.0.1"),
    "getnameinfo": lambda: socket.getnameinfo(("127.0.0.1", 80), 0),
    "getfqdn": lambda: socket.getfqdn("127.0.0.1"),
    "connect_ex": lambda: _connect_ex("localhost"),
}


def _connect_ex(host: str) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex((host, 1)) != 0


@pytest.mark.parametrize("call", NAMED.values(), ids=NAMED)
def test_names_are_looked_up_in_a_worker_thread(lookups: list[str], call: Callable[[], Any]) -> None:
    try:
        call()
    except (std.gaierror, std.herror):
        pass  # a machine without /etc/services, or without names
    assert lookups
    assert all(name.startswith("fibers-worker") for name in lookups)


@pytest.mark.parametrize("call", ["getaddrinfo", "gethostbyname", "gethostbyname_ex"])
def test_results_are_the_standard_librarys(call: str) -> None:
    args: tuple[Any, ...] = ("localhost", 80) if call == "getaddrinfo" else ("localhost",)
    assert getattr(socket, call)(*args) == getattr(std, call)(*args)
    if call == "getaddrinfo":
        family, kind, *_ = socket.getaddrinfo(*args)[0]
        assert type(family) is std.AddressFamily
        assert type(kind) is std.SocketKind


def test_others_run_while_one_fiber_looks_a_name_up(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def slow(*args: Any) -> Any:
        release.wait(5)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80))]

    monkeypatch.setattr(_socket, "getaddrinfo", slow)
    lookup = fibers.spawn(socket.getaddrinfo, "slow.example", 80)
    for _ in range(3):
        fibers.sleep(0.001)
    assert not lookup.done()
    release.set()
    assert lookup.result(5)[0][4] == ("127.0.0.1", 80)


def test_a_cancelled_look_up_stops_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    release, started = threading.Event(), threading.Event()

    def slow(*args: Any) -> Any:
        started.set()
        release.wait(5)
        return []

    monkeypatch.setattr(_socket, "getaddrinfo", slow)
    lookup = fibers.spawn(socket.getaddrinfo, "slow.example", 80)
    threads.to_thread(started.wait, 5)
    lookup.cancel()
    with pytest.raises(fibers.FiberCancelled):
        lookup.result(1)
    release.set()


def test_many_look_ups_at_once_share_a_bounded_number_of_threads() -> None:
    lookups = [fibers.spawn(socket.getaddrinfo, "localhost", port) for port in range(1, 201)]
    for port, lookup in enumerate(lookups, 1):
        assert lookup.result(20)[0][4][1] == port
    workers = [thread for thread in threading.enumerate() if thread.name.startswith("fibers-worker")]
    assert len(workers) <= threads.MAX_WORKERS


def test_a_failed_look_up_says_so_in_the_fiber_that_asked() -> None:
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo("no-such-host.invalid", 80)
