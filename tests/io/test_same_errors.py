"""The same misuse of both modules gives the same error: type, errno, and where nothing is wrong, the same value.

Each case is a function of a module (`socket` or `fibers.io.socket`) that returns or raises; both are run and compared.
"""

import errno
import os
import struct
from collections.abc import Callable
from typing import Any

import pytest

import fibers
from fibers.core.scheduler import get_scheduler
from fibers.eventloop import ownership
from fibers.io import socket as ours
from fibers.io.state import states

import socket as theirs  # isort: skip

Case = Callable[[Any], Any]
CASES: dict[str, Case] = {}


def case(fn: Case) -> Case:
    CASES[fn.__name__] = fn
    return fn


def outcome(fn: Case, module: Any) -> tuple[Any, ...]:
    try:
        return ("returned", fn(module))
    except Exception as error:
        kind = OSError if isinstance(error, fibers.ClosedError) else type(error)
        return ("raised", kind, getattr(error, "errno", None))


def pair(module: Any) -> Any:
    return module.socketpair()


def on_pair(use: Callable[[Any, Any], Any]) -> Case:
    def run(module: Any) -> Any:
        a, b = module.socketpair()
        with a, b:
            a.settimeout(2)
            return use(a, module)

    return run


def on_fresh(use: Callable[[Any, Any], Any], kind: str = "SOCK_STREAM", family: str = "AF_INET") -> Case:
    def run(module: Any) -> Any:
        with module.socket(getattr(module, family), getattr(module, kind)) as sock:
            sock.settimeout(2)
            return use(sock, module)

    return run


def on_closed(use: Callable[[Any, Any], Any], detach: bool = False) -> Case:
    def run(module: Any) -> Any:
        sock = module.socket()
        sock.settimeout(2)
        if detach:
            os.close(sock.detach())
        else:
            sock.close()
        return use(sock, module)

    return run


ADDRESS = ("127.0.0.1", 9)
CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "recv": lambda s, m: s.recv(1),
    "recv 0": lambda s, m: s.recv(0),
    "recv_into": lambda s, m: s.recv_into(bytearray(1)),
    "recvfrom": lambda s, m: s.recvfrom(1),
    "recvfrom_into": lambda s, m: s.recvfrom_into(bytearray(1)),
    "recvmsg": lambda s, m: s.recvmsg(1),
    "recvmsg_into": lambda s, m: s.recvmsg_into([bytearray(1)]),
    "send": lambda s, m: s.send(b"x"),
    "sendall": lambda s, m: s.sendall(b"x"),
    "sendall nothing": lambda s, m: s.sendall(b""),
    "sendto": lambda s, m: s.sendto(b"x", ADDRESS),
    "sendmsg": lambda s, m: s.sendmsg([b"x"]),
    "accept": lambda s, m: s.accept(),
    "connect": lambda s, m: s.connect(("127.0.0.1", 1)),
    "connect_ex": lambda s, m: s.connect_ex(("127.0.0.1", 1)),
    "shutdown": lambda s, m: s.shutdown(m.SHUT_RDWR),
    "settimeout": lambda s, m: s.settimeout(1),
    "setblocking": lambda s, m: s.setblocking(True),
    "gettimeout": lambda s, m: s.gettimeout(),
    "timeout": lambda s, m: s.timeout,
    "getblocking": lambda s, m: s.getblocking(),
    "fileno": lambda s, m: s.fileno(),
    "detach": lambda s, m: s.detach(),
    "close": lambda s, m: s.close(),
    "dup": lambda s, m: s.dup(),
    "getsockname": lambda s, m: s.getsockname(),
    "getpeername": lambda s, m: s.getpeername(),
    "listen": lambda s, m: s.listen(),
    "bind": lambda s, m: s.bind(("127.0.0.1", 0)),
    "sendfile": lambda s, m: s.sendfile(open(os.devnull, "rb")),  # noqa: SIM115
    "family": lambda s, m: (s.family, s.type, s.proto),
}
for name, call in CALLS.items():
    if name not in ("dup", "sendfile"):
        CASES[f"closed: {name}"] = on_closed(call)
        CASES[f"detached: {name}"] = on_closed(call, detach=True)
for name in (
    "recv",
    "send",
    "sendall",
    "sendmsg",
    "accept",
    "shutdown",
    "getpeername",
    "connect",
    "connect_ex",
    "recvmsg",
):
    CASES[f"unconnected TCP: {name}"] = on_fresh(CALLS[name])
CASES["unconnected UDP: accept"] = on_fresh(lambda s, m: (s.settimeout(None), s.accept()), "SOCK_DGRAM")
for name in ("send", "sendall", "getpeername", "sendmsg", "connect_ex"):
    CASES[f"unconnected UDP: {name}"] = on_fresh(CALLS[name], "SOCK_DGRAM")
CASES["unix: connect nowhere"] = on_fresh(lambda s, m: s.connect("/nonexistent/socket"), family="AF_UNIX")
CASES["unix: connect_ex nowhere"] = on_fresh(lambda s, m: s.connect_ex("/nonexistent/socket"), family="AF_UNIX")
CASES["unix: too long"] = on_fresh(lambda s, m: s.connect("x" * 200), family="AF_UNIX")
CASES["unix: connect to an IP address"] = on_fresh(lambda s, m: s.connect(ADDRESS), family="AF_UNIX")
CASES["unix dgram: sendto nowhere"] = on_fresh(
    lambda s, m: s.sendto(b"x", "/nonexistent"), "SOCK_DGRAM", family="AF_UNIX"
)
MISUSES: dict[str, Callable[[Any, Any], Any]] = {
    "recv without size": lambda s, m: s.recv(),
    "recv negative": lambda s, m: s.recv(-1),
    "recv a string": lambda s, m: s.recv("1"),
    "recv a float": lambda s, m: s.recv(1.5),
    "recv flags of a wrong type": lambda s, m: s.recv(1, "x"),
    "recv by keyword": lambda s, m: s.recv(bufsize=1),
    "recv_into bytes": lambda s, m: s.recv_into(b"abc"),
    "recv_into a number": lambda s, m: s.recv_into(5),
    "recv_into negative": lambda s, m: s.recv_into(bytearray(3), -1),
    "recv_into more than fits": lambda s, m: s.recv_into(bytearray(3), 4),
    "recv_into nothing": lambda s, m: s.recv_into(bytearray()),
    "recvfrom negative": lambda s, m: s.recvfrom(-1),
    "recvfrom_into bytes": lambda s, m: s.recvfrom_into(b"abc"),
    "recvfrom_into more than fits": lambda s, m: s.recvfrom_into(bytearray(3), 4),
    "recvmsg negative": lambda s, m: s.recvmsg(-1),
    "recvmsg negative ancillary": lambda s, m: s.recvmsg(1, -1),
    "recvmsg_into no list": lambda s, m: s.recvmsg_into(bytearray(3)),
    "recvmsg_into bytes": lambda s, m: s.recvmsg_into([b"x"]),
    "send a string": lambda s, m: s.send("x"),
    "send None": lambda s, m: s.send(None),
    "send nothing given": lambda s, m: s.send(),
    "sendall a string": lambda s, m: s.sendall("x"),
    "sendall a number": lambda s, m: s.sendall(5),
    "sendall an array": lambda s, m: s.sendall(memoryview(bytearray(16)).cast("I")),
    "sendall every second byte": lambda s, m: s.sendall(memoryview(b"abcdef")[::2]),
    "sendall flags of a wrong type": lambda s, m: s.sendall(b"x", "x"),
    "sendto without address": lambda s, m: s.sendto(b"x"),
    "sendto a string": lambda s, m: s.sendto("x", ADDRESS),
    "sendmsg a string": lambda s, m: s.sendmsg("x"),
    "sendmsg no iterable": lambda s, m: s.sendmsg(5),
    "sendmsg bad ancillary": lambda s, m: s.sendmsg([b"x"], [(1, 2)]),
    "connect None": lambda s, m: s.connect(None),
    "connect again": lambda s, m: s.connect(s.getpeername()),
    "accept on a connection": lambda s, m: (s.settimeout(None), s.accept()),
    "settimeout negative": lambda s, m: s.settimeout(-1),
    "settimeout NaN": lambda s, m: s.settimeout(float("nan")),
    "settimeout a string": lambda s, m: s.settimeout("1"),
    "settimeout no argument": lambda s, m: s.settimeout(),
    "settimeout a list": lambda s, m: s.settimeout([]),
    "settimeout keeps an int": lambda s, m: (s.settimeout(3), s.gettimeout(), type(s.gettimeout())),
    "settimeout True": lambda s, m: (s.settimeout(True), s.gettimeout()),
    "settimeout 0": lambda s, m: (s.settimeout(0), s.gettimeout(), s.getblocking()),
    "settimeout None": lambda s, m: (s.settimeout(None), s.gettimeout(), s.getblocking()),
    "setblocking False": lambda s, m: (s.setblocking(False), s.gettimeout(), s.getblocking()),
    "setblocking True": lambda s, m: (s.setblocking(True), s.gettimeout(), s.getblocking()),
    "shutdown a wrong value": lambda s, m: s.shutdown(77),
    "makefile bad mode": lambda s, m: s.makefile("x"),
    "makefile unbuffered text": lambda s, m: s.makefile("r", buffering=0),
    "sendfile of text": lambda s, m: s.sendfile(open(os.devnull)),  # noqa: SIM115
    "sendfile count 0": lambda s, m: s.sendfile(open(os.devnull, "rb"), 0, 0),  # noqa: SIM115
    "sendfile count of a wrong type": lambda s, m: s.sendfile(open(os.devnull, "rb"), 0, "1"),  # noqa: SIM115
    "non-blocking recv": lambda s, m: (s.setblocking(False), s.recv(1)),
    "non-blocking recv_into": lambda s, m: (s.setblocking(False), s.recv_into(bytearray(1))),
    "timed recv": lambda s, m: (s.settimeout(0.01), s.recv(1)),
    "timed recv_into": lambda s, m: (s.settimeout(0.01), s.recv_into(bytearray(1))),
    "timed sendall": lambda s, m: (s.settimeout(0.01), s.sendall(bytes(1 << 24))),
    "non-blocking sendall": lambda s, m: (s.settimeout(0), s.sendall(bytes(1 << 24))),
    "attribute": lambda s, m: setattr(s, "proto", 5),
    "fromfd bad": lambda s, m: m.fromfd(-1, m.AF_INET, m.SOCK_STREAM),
}
for name, call in MISUSES.items():
    CASES[f"pair: {name}"] = on_pair(call)
TCP_MISUSES: dict[str, Callable[[Any, Any], Any]] = {
    "connect a list": lambda s, m: s.connect(["127.0.0.1", 1]),
    "connect a string": lambda s, m: s.connect("127.0.0.1"),
    "connect one element": lambda s, m: s.connect(("127.0.0.1",)),
    "connect port too large": lambda s, m: s.connect(("127.0.0.1", 65536)),
    "connect port negative": lambda s, m: s.connect(("127.0.0.1", -1)),
    "connect port a string": lambda s, m: s.connect(("127.0.0.1", "80")),
    "connect host a number": lambda s, m: s.connect((5, 80)),
    "connect host with a null": lambda s, m: s.connect(("127.0.0.1\0", 80)),
    "connect host empty": lambda s, m: s.connect_ex(("", 1)),
    "connect IPv6 on IPv4": lambda s, m: s.connect(("::1", 1)),
    "connect bytes host": lambda s, m: s.connect((b"127.0.0.1", 1)),
    "connect bytearray host": lambda s, m: s.connect((bytearray(b"127.0.0.1"), 1)),
    "connect unknown name": lambda s, m: s.connect(("no-such-host.invalid", 1)),
    "connect_ex unknown name": lambda s, m: s.connect_ex(("no-such-host.invalid", 1)),
    "connect no argument": lambda s, m: s.connect(),
}
for name, call in TCP_MISUSES.items():
    CASES[f"TCP: {name}"] = on_fresh(call)
CASES["UDP: sendto a port too large"] = on_fresh(lambda s, m: s.sendto(b"x", ("127.0.0.1", 65536)), "SOCK_DGRAM")
CASES["UDP: sendto None"] = on_fresh(lambda s, m: s.sendto(b"x", None), "SOCK_DGRAM")
CASES["UDP: sendto too much"] = on_fresh(lambda s, m: s.sendto(bytes(70_000), ADDRESS), "SOCK_DGRAM")
CASES["UDP: sendto flags of a wrong type"] = on_fresh(lambda s, m: s.sendto(b"x", "x", ADDRESS), "SOCK_DGRAM")
CASES["UDP: sendall"] = on_fresh(lambda s, m: (s.connect(ADDRESS), s.sendall(b"x"))[1], "SOCK_DGRAM")
MODULE_MISUSES: dict[str, Case] = {
    "socket of an unknown family": lambda m: m.socket(-5),
    "socket of an unknown type": lambda m: m.socket(m.AF_INET, 77),
    "socket on a negative fd": lambda m: m.socket(fileno=-1),
    "socket on a closed fd": lambda m: m.socket(fileno=99_999),
    "socket on a string": lambda m: m.socket(fileno="x"),
    "socket on no socket": lambda m: m.socket(fileno=0) and None,
    "socketpair of an unknown family": lambda m: m.socketpair(-5),
    "socketpair of TCP": lambda m: m.socketpair(m.AF_INET),
    "create_connection without port": lambda m: m.create_connection(("127.0.0.1",)),
    "create_connection port a float": lambda m: m.create_connection(("127.0.0.1", 1.5)),
    "create_connection negative timeout": lambda m: m.create_connection(("127.0.0.1", 1), timeout=-1),
    "create_connection None": lambda m: m.create_connection(None),
    "create_connection refused": lambda m: m.create_connection(("127.0.0.1", 1)),
    "create_connection unknown name": lambda m: m.create_connection(("no-such-host.invalid", 1)),
    "create_connection bad source": lambda m: m.create_connection(("127.0.0.1", 1), source_address=("8.8.8.8", 0)),
    "create_server in use": lambda m: _in_use(m),
    "create_server dualstack IPv4": lambda m: m.create_server(("", 0), dualstack_ipv6=True),
    "create_server unknown option": lambda m: m.create_server(("", 0), unknown=True),
    "setdefaulttimeout negative": lambda m: m.setdefaulttimeout(-1),
    "getaddrinfo unknown": lambda m: m.getaddrinfo("no-such-host.invalid", 1),
    "getaddrinfo bad port": lambda m: m.getaddrinfo("127.0.0.1", 1.5),
    "getaddrinfo bad service": lambda m: m.getaddrinfo("127.0.0.1", "no such service"),
    "getaddrinfo nothing": lambda m: m.getaddrinfo(None, None),
    "getaddrinfo a number": lambda m: m.getaddrinfo(5, 80),
    "getaddrinfo null": lambda m: m.getaddrinfo("a\0b", 80),
    "getaddrinfo unknown family": lambda m: m.getaddrinfo("127.0.0.1", 80, 777),
    "getaddrinfo numeric": lambda m: m.getaddrinfo("127.0.0.1", 80),
    "getaddrinfo numeric bytes": lambda m: m.getaddrinfo(b"127.0.0.1", b"80"),
    "getaddrinfo by keyword": lambda m: m.getaddrinfo(host="127.0.0.1", port="80", type=m.SOCK_STREAM),
    "getaddrinfo short numeric": lambda m: m.getaddrinfo("127.1", 80, m.AF_INET, m.SOCK_STREAM),
    "getaddrinfo passive": lambda m: m.getaddrinfo(None, 80, m.AF_INET, m.SOCK_STREAM, 0, m.AI_PASSIVE),
    "gethostbyname numeric": lambda m: m.gethostbyname("127.0.0.1"),
    "gethostbyname short numeric": lambda m: m.gethostbyname("127.1"),
    "gethostbyname unknown": lambda m: m.gethostbyname("no-such-host.invalid"),
    "gethostbyname a number": lambda m: m.gethostbyname(5),
    "gethostbyname_ex": lambda m: m.gethostbyname_ex("127.0.0.1"),
    "gethostbyaddr unknown": lambda m: m.gethostbyaddr("no-such-host.invalid"),
    "getnameinfo numeric": lambda m: m.getnameinfo(("127.0.0.1", 80), m.NI_NUMERICHOST | m.NI_NUMERICSERV),
    "getnameinfo wrong": lambda m: m.getnameinfo(5, 0),
    "fromfd of no socket": lambda m: m.fromfd(99_999, m.AF_INET, m.SOCK_STREAM),
    "send_fds a wrong type": lambda m: m.send_fds(5, [b"x"], [1]),
}
for name, fn in MODULE_MISUSES.items():
    CASES[f"module: {name}"] = fn


def _in_use(module: Any) -> None:
    with module.create_server(("127.0.0.1", 0)) as taken:
        module.create_server(taken.getsockname())


@case
def reset_by_peer(module: Any) -> Any:
    with module.create_server(("127.0.0.1", 0)) as listener:
        a = module.create_connection(listener.getsockname(), timeout=2)
        b, _ = listener.accept()
        b.setsockopt(module.SOL_SOCKET, module.SO_LINGER, struct.pack("ii", 1, 0))
        b.close()
        with a:
            return a.recv(1)


@case
def write_after_shutdown(module: Any) -> Any:
    a, b = pair(module)
    with a, b:
        a.shutdown(module.SHUT_WR)
        return a.sendall(b"x")


@case
def write_to_a_closed_peer(module: Any) -> Any:
    a, b = pair(module)
    b.close()
    with a:
        return a.send(b"x")


@case
def accept_before_listen(module: Any) -> Any:
    with module.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(1)
        return sock.accept()


@case
def twice_connected_with_a_timeout(module: Any) -> Any:
    with module.create_server(("127.0.0.1", 0)) as listener, module.socket() as client:
        client.settimeout(None)
        client.connect(listener.getsockname())
        return client.connect(listener.getsockname())


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("fn", CASES.values(), ids=CASES)
def test_both_modules_answer_alike(fn: Case) -> None:
    live, registered = len(states), dict(ownership.owners)
    expected = outcome(fn, theirs)
    found = outcome(fn, ours)
    if found[0] == "returned" and hasattr(found[1], "close"):
        found[1].close()
        expected[1].close()
    else:
        assert found == expected
    assert ownership.owners == registered, "something stays registered"
    assert len(states) <= live


@pytest.mark.parametrize("call", ["recv", "sendall", "accept"])
def test_a_closed_socket_says_ebadf_and_registers_nothing(call: str) -> None:
    sock = ours.socket()
    sock.close()
    registrations = get_scheduler().loop.stats.registrations
    with pytest.raises(fibers.ClosedError) as caught:
        CALLS[call](sock, ours)
    assert caught.value.errno == errno.EBADF
    assert get_scheduler().loop.stats.registrations == registrations
