"""The same use of both `ssl` modules gives the same: a value, or an error's type, errno and reason, and a timeout's text.

Each case is a client (or server) written for either module, against a peer that blocks a thread of its own and uses the
standard library alone.
"""

import contextlib
import errno
import re
import socket as std_socket
import ssl as theirs
import struct
from collections.abc import Callable
from typing import Any

import pytest
from support.tls import TLS12, TLS13, certificates, client_context, in_thread, needs_openssl, server_context

import fibers
from fibers.io import socket, ssl

pytestmark = needs_openssl

Case = tuple[Callable[[std_socket.socket], None], Callable[[Any, Any], Any]]
CASES: dict[str, Case] = {}


def outcome(use: Callable[[Any, Any], Any], sock: Any, module: Any) -> tuple[Any, ...]:
    with sock:
        sock.settimeout(5)
        try:
            return ("returned", use(sock, module))
        except (OSError, ValueError, NotImplementedError, TypeError) as error:
            kind = OSError if isinstance(error, fibers.ClosedError) else type(error)
            text = re.sub(r" ?\(?_ssl\.c:\d+:?\)? ?", "", str(error)) if isinstance(error, TimeoutError) else ""
            return ("raised", kind, getattr(error, "errno", None), getattr(error, "reason", None), text)


def tls_server(use: Callable[[Any], Any], version: Any = None, **how: Any) -> Callable[[std_socket.socket], None]:
    """A peer with the standard module: handshake, then `use`; what it thinks of the client's behaviour is not asked."""

    def serve(sock: std_socket.socket) -> None:
        context = server_context(version, theirs)
        for name, value in how.items():
            getattr(context, name)(value)
        with contextlib.suppress(OSError):
            wrapped = context.wrap_socket(sock, server_side=True)
            with wrapped:
                use(wrapped)

    return serve


def client(use: Callable[[Any], Any], name: str = "localhost", **how: Any) -> Callable[[Any, Any], Any]:
    def run(sock: Any, module: Any) -> Any:
        with client_context(None, module).wrap_socket(sock, server_hostname=name, **how) as wrapped:
            return use(wrapped)

    return run


def reset(sock: std_socket.socket) -> None:
    sock.setsockopt(std_socket.SOL_SOCKET, std_socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def until_end(sock: Any) -> None:
    while sock.recv(65536):
        pass


def nothing(sock: Any) -> None:
    """The handshake is all."""


def hold(sock: Any) -> None:
    """Wait until the client has gone, saying nothing."""
    with contextlib.suppress(OSError):
        until_end(sock)


def hold_below(sock: Any) -> None:
    """As `hold`, without an answer to what the client's TLS says."""
    with contextlib.suppress(OSError):
        while std_socket.socket.recv(sock, 65536):
            pass


def say_and_hold(data: bytes) -> Callable[[Any], None]:
    def use(sock: Any) -> None:
        sock.sendall(data)
        hold_below(sock)

    return use


def recv_twice(sock: Any) -> Any:
    return sock.recv(100), sock.recv(100)


def reads_after_eof(sock: Any) -> Any:
    return sock.read(100), sock.recv(5), sock.recv_into(bytearray(5)), sock.read(5, bytearray(5))


def say(data: bytes) -> Callable[[Any], None]:
    return lambda sock: sock.sendall(data)


def say_and_drop(data: bytes) -> Callable[[Any], None]:
    def use(sock: Any) -> None:
        sock.sendall(data)
        std_socket.socket.shutdown(sock, std_socket.SHUT_RDWR)

    return use


def say_and_notify(data: bytes) -> Callable[[Any], None]:
    def use(sock: Any) -> None:
        sock.sendall(data)
        with contextlib.suppress(OSError):
            sock.unwrap()

    return use


def timed(timeout: float, use: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def run(sock: Any) -> Any:
        sock.settimeout(timeout)
        return use(sock)

    return run


def write_until_blocked(sock: Any) -> Any:
    while True:
        sock.send(bytes(100_000))


def write_after_end(sock: Any) -> Any:
    sock.recv(10)
    for _ in range(1000):
        sock.send(bytes(10_000))


def closed_then(use: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def run(sock: Any) -> Any:
        sock.close()
        return use(sock)

    return run


def handshake_timeout(sock: Any, module: Any) -> Any:
    sock.settimeout(0.05)
    client_context(None, module).wrap_socket(sock, server_hostname="localhost")


def nonblocking(sock: Any, module: Any) -> Any:
    sock.setblocking(False)
    return client_context(None, module).wrap_socket(sock, server_hostname="localhost")


def nonblocking_handshake(sock: Any, module: Any) -> Any:
    sock.setblocking(False)
    context = client_context(None, module)
    with context.wrap_socket(sock, server_hostname="localhost", do_handshake_on_connect=False) as wrapped:
        wrapped.do_handshake()


def nonblocking_implicit(sock: Any, module: Any) -> Any:
    sock.setblocking(False)
    context = client_context(None, module)
    with context.wrap_socket(sock, server_hostname="localhost", do_handshake_on_connect=False) as wrapped:
        wrapped.send(b"x")


def implicit(use: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    return client(use, do_handshake_on_connect=False)


def untrusting(sock: Any, module: Any) -> Any:
    module.create_default_context().wrap_socket(sock, server_hostname="localhost")


def server(use: Callable[[Any], Any], **how: Any) -> Callable[[Any, Any], Any]:
    def run(sock: Any, module: Any) -> Any:
        with server_context(None, module).wrap_socket(sock, server_side=True, **how) as wrapped:
            return use(wrapped)

    return run


def demanding_server(sock: Any, module: Any) -> Any:
    context = server_context(TLS12, module)
    context.verify_mode = theirs.CERT_REQUIRED
    context.load_verify_locations(certificates().ca)
    context.wrap_socket(sock, server_side=True)


def tls_client(use: Callable[[Any], Any], **how: Any) -> Callable[[std_socket.socket], None]:
    def run(sock: std_socket.socket) -> None:
        with contextlib.suppress(OSError):
            with client_context(None, theirs).wrap_socket(sock, server_hostname="localhost", **how) as wrapped:
                use(wrapped)

    return run


def modern_client(sock: Any, module: Any) -> Any:
    client_context(TLS13, module).wrap_socket(sock, server_hostname="localhost")


def distrust(sock: Any) -> None:
    outcome(untrusting, sock, theirs)


def pendings(sock: Any) -> Any:
    return sock.pending(), sock.recv(1), sock.pending(), sock.recv(9), sock.pending()


def names(sock: Any) -> Any:
    told = sock.version(), sock.cipher(), sock.compression(), sock.selected_alpn_protocol(), sock.session_reused
    return *told, sock.getpeercert()["subject"], sock.server_hostname, sock.server_side, sock.gettimeout(), sock.family


def raw(*chunks: bytes) -> Callable[[std_socket.socket], None]:
    def run(sock: std_socket.socket) -> None:
        with contextlib.suppress(OSError):
            for chunk in chunks:
                sock.sendall(chunk)
            sock.shutdown(std_socket.SHUT_WR)
            hold(sock)

    return run


CASES.update(
    {
        "data and close_notify": (tls_server(say_and_notify(b"hello")), client(recv_twice)),
        "data and ragged eof": (tls_server(say_and_drop(b"hello")), client(recv_twice)),
        "ragged eof again and again": (tls_server(say_and_drop(b"hello")), client(reads_after_eof)),
        "ragged eof not suppressed": (
            tls_server(say_and_drop(b"hello")),
            client(recv_twice, suppress_ragged_eofs=False),
        ),
        "close_notify not suppressed": (
            tls_server(say_and_notify(b"hello")),
            client(recv_twice, suppress_ragged_eofs=False),
        ),
        "write after the end": (tls_server(say_and_drop(b"")), client(write_after_end)),
        "read timeout": (tls_server(hold), client(timed(0.05, lambda s: s.recv(1)))),
        "read_into timeout": (tls_server(hold), client(timed(0.05, lambda s: s.recv_into(bytearray(5))))),
        "unwrap timeout": (tls_server(hold_below), client(timed(0.05, lambda s: s.unwrap()))),
        "non-blocking read": (tls_server(hold), client(timed(0, lambda s: s.recv(1)))),
        "non-blocking read into": (tls_server(hold), client(timed(0, lambda s: s.read(1, bytearray(1))))),
        "non-blocking unwrap": (tls_server(hold_below), client(timed(0, lambda s: s.unwrap()))),
        "non-blocking wrap": (tls_server(hold), nonblocking),
        "non-blocking handshake": (hold, nonblocking_handshake),
        "non-blocking implicit handshake": (hold, nonblocking_implicit),
        "handshake timeout": (hold, handshake_timeout),
        "implicit handshake by reading": (tls_server(say(b"hello")), implicit(lambda s: (s.recv(9), s.version()))),
        "implicit handshake by writing": (tls_server(hold), implicit(lambda s: (s.send(b"hello"), s.version()))),
        "implicit handshake of a server": (
            tls_client(say(b"hello")),
            server(lambda s: s.recv(9), do_handshake_on_connect=False),
        ),
        "write with timeout": (tls_server(hold_below), client(lambda s: s.write(b"12345"))),
        "flags recv": (tls_server(hold), client(lambda s: s.recv(1, 2))),
        "flags send": (tls_server(hold), client(lambda s: s.send(b"1", 2))),
        "flags sendall": (tls_server(hold), client(lambda s: s.sendall(b"1", 2))),
        "flags recv_into": (tls_server(hold), client(lambda s: s.recv_into(bytearray(1), 1, 2))),
        "recv nothing": (tls_server(hold), client(lambda s: s.recv(0))),
        "recv less": (tls_server(hold), client(lambda s: s.recv(-1))),
        "recvfrom": (tls_server(hold), client(lambda s: s.recvfrom(1))),
        "recvfrom_into": (tls_server(hold), client(lambda s: s.recvfrom_into(bytearray(1)))),
        "sendto": (tls_server(hold), client(lambda s: s.sendto(b"1", ("127.0.0.1", 1)))),
        "recvmsg": (tls_server(hold), client(lambda s: s.recvmsg(1))),
        "recvmsg_into": (tls_server(hold), client(lambda s: s.recvmsg_into([bytearray(1)]))),
        "sendmsg": (tls_server(hold), client(lambda s: s.sendmsg([b"1"]))),
        "dup": (tls_server(hold), client(lambda s: s.dup())),
        "connect again": (tls_server(hold), client(lambda s: s.connect(("127.0.0.1", 1)))),
        "connect_ex again": (tls_server(hold), client(lambda s: s.connect_ex(("127.0.0.1", 1)))),
        "send text": (tls_server(hold), client(lambda s: s.send("text"))),
        "sendall text": (tls_server(hold), client(lambda s: s.sendall("text"))),
        "send nothing": (tls_server(hold), client(lambda s: (s.send(b""), s.sendall(b"")))),
        "closed recv": (tls_server(hold), client(closed_then(lambda s: s.recv(1)))),
        "closed read": (tls_server(hold), client(closed_then(lambda s: s.read(1)))),
        "closed send": (tls_server(hold), client(closed_then(lambda s: s.send(b"1")))),
        "closed write": (tls_server(hold), client(closed_then(lambda s: s.write(b"1")))),
        "closed unwrap": (tls_server(hold), client(closed_then(lambda s: s.unwrap()))),
        "closed pending": (tls_server(hold), client(closed_then(lambda s: s.pending()))),
        "unwrap twice": (tls_server(say_and_notify(b"")), client(lambda s: (s.unwrap() is s, s.unwrap()))),
        "unwrap over data": (tls_server(say_and_hold(b"data")), client(lambda s: s.unwrap())),
        "unwrap after ragged eof": (tls_server(say_and_drop(b"")), client(lambda s: (s.recv(1), s.unwrap()))),
        "untrusted": (tls_server(hold), untrusting),
        "wrong name": (tls_server(hold), client(nothing, name="other.test")),
        "no name": (tls_server(hold), client(nothing, name="")),
        "peer ends at once": (raw(), client(nothing)),
        "peer ends in the middle": (raw(b"\x16\x03\x03\x01\x00abc"), client(nothing)),
        "garbage from the server": (raw(b"HTTP/1.0 400 what?\r\n\r\n" * 9), client(nothing)),
        "garbage from the client": (raw(b"\x00\xff" * 500), server(nothing)),
        "http from the client": (raw(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"), server(nothing)),
        "a record that is too long": (raw(b"\x16\x03\x01\xff\xff" + bytes(70_000)), server(nothing)),
        "client ends at once": (raw(), server(nothing)),
        "client does not trust": (distrust, server(lambda s: s.recv(1))),
        "client has no certificate": (tls_client(nothing), demanding_server),
        "no common version": (tls_server(hold, TLS12), modern_client),
        "pending": (tls_server(say(b"hello")), client(pendings)),
        "makefile": (tls_server(say_and_notify(b"one\ntwo\n")), client(lambda s: s.makefile("rb").readlines())),
        "channel binding": (tls_server(hold, TLS12), client(lambda s: len(s.get_channel_binding("tls-unique")))),
        "names": (
            tls_server(hold),
            client(names),
        ),
    }
)  # fmt: skip


def connected(module: Any) -> tuple[Any, std_socket.socket]:
    with std_socket.create_server(("127.0.0.1", 0)) as listener:
        mine = module.create_connection(listener.getsockname())
        return mine, listener.accept()[0]


@pytest.mark.parametrize("name", CASES)
def test_both_modules_do_the_same(name: str) -> None:
    peer, use = CASES[name]
    results = []
    for module, sockets in ((theirs, std_socket), (ssl, socket)):
        near, far = connected(sockets)
        far.settimeout(10)
        with far, in_thread(peer, far):
            results.append(outcome(use, near, module))
    assert results[0] == results[1]


def wrap_badly(module: Any, sockets: Any, kind: int, **how: Any) -> Any:
    with sockets.socket(std_socket.AF_INET, kind) as sock:
        return client_context(None, module).wrap_socket(sock, **how)


# The standard module of 3.11 leaves the socket of a bad host name to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize(
    ("kind", "how"),
    [
        (std_socket.SOCK_DGRAM, {"server_hostname": "localhost"}),
        (std_socket.SOCK_STREAM, {}),
        (std_socket.SOCK_STREAM, {"server_side": True, "server_hostname": "localhost"}),
        (std_socket.SOCK_STREAM, {"server_hostname": ".bad"}),
        (std_socket.SOCK_STREAM, {"server_hostname": "x" * 300}),
    ],
)
def test_bad_arguments_are_refused_alike_and_cost_no_socket(kind: int, how: dict[str, Any]) -> None:
    results = []
    for module, sockets in ((theirs, std_socket), (ssl, socket)):
        with pytest.raises((ValueError, NotImplementedError)) as caught:
            wrap_badly(module, sockets, kind, **how)
        results.append((type(caught.value), str(caught.value)))
    assert results[0] == results[1]


def is_connected(sock: Any) -> bool:
    try:
        sock.getpeername()
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise
        return False
    return True


def test_data_before_the_handshake_of_a_connection_that_has_ended_is_no_tls_data() -> None:
    for module, sockets in ((theirs, std_socket), (ssl, socket)):
        near, far = connected(sockets)
        with near:
            far.sendall(b"plain text")
            reset(far)
            fibers.lowlevel.wait_readable(near.fileno(), 5)
            while is_connected(near):
                fibers.sleep(0.001)
            with pytest.raises(OSError) as caught:  # noqa: PT011 - which one depends on what a reset leaves to be read
                client_context(None, module).wrap_socket(near, server_hostname="localhost")
            assert isinstance(caught.value, ssl.SSLError | ConnectionResetError)
