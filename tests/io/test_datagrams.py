"""Datagrams over UDP and unix sockets: borders, addresses, ancillary data, errors that come by ICMP, several receivers."""

import errno
import os
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.process import run_python
from support.sockets import link_local, needs_v6

import fibers
from fibers.io import socket

linux = pytest.mark.skipif(sys.platform != "linux", reason="this is a feature of Linux")
V4, V6, DGRAM = socket.AF_INET, socket.AF_INET6, socket.SOCK_DGRAM
FAMILIES = pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=needs_v6)])

Bound = Callable[..., socket.socket]


@pytest.fixture
def bound() -> Iterator[Bound]:
    """`bound(host)`: a bound UDP socket that times out instead of hanging."""
    made: list[socket.socket] = []

    def bind(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
        sock = socket.socket(V6 if ":" in host else V4, DGRAM)
        made.append(sock)
        sock.settimeout(20)
        sock.bind((host, port))
        return sock

    yield bind
    for sock in made:
        sock.close()


def waiting(call: Callable[..., Any], *args: Any) -> fibers.Fiber[Any]:
    """A fiber that waits in this call."""
    fiber = fibers.spawn(call, *args)
    fibers.sleep(0)
    assert not fiber.done()
    return fiber


@FAMILIES
@pytest.mark.parametrize("waits", [True, False])
def test_recvmsg_and_sendmsg(bound: Bound, host: str, waits: bool) -> None:
    a, b = bound(host), bound(host)
    receiver = waiting(b.recvmsg, 100, 100) if waits else None
    assert a.sendmsg([b"several ", bytearray(b"buffers"), memoryview(b"!")], [], 0, b.getsockname()) == 16
    data, ancillary, flags, address = receiver.result(20) if receiver else b.recvmsg(100, 100)
    assert (data, ancillary, address) == (b"several buffers!", [], a.getsockname())
    assert not flags & socket.MSG_TRUNC
    buffers = [bytearray(4), bytearray(100)]
    receiver = waiting(b.recvmsg_into, buffers) if waits else None
    a.sendto(b"scattered", b.getsockname())
    assert (receiver.result(20) if receiver else b.recvmsg_into(buffers))[0] == 9
    assert (bytes(buffers[0]), bytes(buffers[1][:5])) == (b"scat", b"tered")


@FAMILIES
def test_an_empty_datagram_is_no_end(bound: Bound, host: str) -> None:
    a, b = bound(host), bound(host)
    receiver = waiting(b.recvfrom, 10)
    a.sendto(b"", b.getsockname())
    assert receiver.result(20) == (b"", a.getsockname())
    a.sendto(b"more", b.getsockname())
    assert b.recvfrom(10) == (b"more", a.getsockname())


@FAMILIES
@pytest.mark.parametrize("waits", [True, False])
def test_what_does_not_fit_is_cut_off_and_said_so(bound: Bound, host: str, waits: bool) -> None:
    a, b = bound(host), bound(host)
    receiver = waiting(b.recvmsg, 4) if waits else None
    a.sendto(b"too long", b.getsockname())
    data, _, flags, _ = receiver.result(20) if receiver else b.recvmsg(4)
    assert (data, bool(flags & socket.MSG_TRUNC)) == (b"too ", True)
    a.sendto(b"next", b.getsockname())
    assert b.recv(100) == b"next", "the rest of the first is gone"


@linux
def test_msg_trunc_tells_the_real_length(bound: Bound) -> None:
    a, b = bound(), bound()
    receiver = waiting(b.recv_into, bytearray(4), 4, socket.MSG_TRUNC)
    a.sendto(b"too long", b.getsockname())
    assert receiver.result(20) == 8


@FAMILIES
def test_datagrams_as_large_as_they_can_be(bound: Bound, host: str) -> None:
    a, b = bound(host), bound(host)
    largest = 65507 if host == "127.0.0.1" else 65527
    a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    receiver = waiting(b.recv, 70000)
    assert a.sendto(bytes(largest), b.getsockname()) == largest
    assert len(receiver.result(20)) == largest
    for call, args in (
        (a.sendto, (bytes(largest + 1), b.getsockname())),
        (a.sendmsg, ([bytes(largest), b"!"], [], 0, b.getsockname())),
    ):
        with pytest.raises(OSError, match="too long") as caught:
            call(*args)
        assert caught.value.errno == errno.EMSGSIZE
    a.sendto(b"small", b.getsockname())
    assert b.recv(10) == b"small", "the refused ones have left nothing behind"


@FAMILIES
@pytest.mark.parametrize("call", ["recv", "recvfrom", "recvmsg", "recv_into", "recvmsg_into"])
@pytest.mark.parametrize("waits", [True, False])
def test_a_connected_socket_learns_that_nobody_listens(bound: Bound, host: str, call: str, waits: bool) -> None:
    """By ICMP, at the next call; and the socket goes on working.

    A port is held by a socket that hears only somebody else, and is no other test's.
    """
    deaf, sock = bound(host), bound(host)
    deaf.connect((host, 9))
    sock.connect(deaf.getsockname())
    args: tuple[Any, ...] = {"recv_into": (bytearray(9),), "recvmsg_into": ([bytearray(9)],)}.get(call, (9,))
    receiver = waiting(getattr(sock, call), *args) if waits else None
    sock.send(b"is there anybody?")
    with pytest.raises(ConnectionRefusedError):
        receiver.result(20) if receiver else getattr(sock, call)(*args)
    receiver = waiting(sock.recv, 10)
    deaf.connect(sock.getsockname())
    deaf.send(b"now")
    assert receiver.result(20) == b"now"


@FAMILIES
def test_a_connected_socket_hears_only_its_peer(bound: Bound, host: str) -> None:
    a, b, stranger = bound(host), bound(host), bound(host)
    b.connect(a.getsockname())
    receiver = waiting(b.recv, 10)
    stranger.sendto(b"psst", b.getsockname())
    a.sendto(b"hello", b.getsockname())
    assert receiver.result(20) == b"hello"
    assert b.send(b"hi") == 2
    assert a.recvfrom(10) == (b"hi", b.getsockname())


def test_broadcast_has_to_be_asked_for(bound: Bound) -> None:
    a, b = bound(), bound("0.0.0.0")
    target = ("127.255.255.255", b.getsockname()[1])
    with pytest.raises(PermissionError):
        a.sendto(b"all", target)
    a.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    receiver = waiting(b.recvfrom, 10)
    assert a.sendto(b"all", target) == 3
    assert receiver.result(20) == (b"all", a.getsockname())


@linux
def test_several_fibers_receive_from_one_socket(bound: Bound) -> None:
    a, b = bound(), bound()
    receivers = [waiting(b.recv, 10) for _ in range(5)]
    for number in range(5):
        a.sendto(b"%d" % number, b.getsockname())
    assert [each.result(20) for each in receivers] == [b"0", b"1", b"2", b"3", b"4"], "first come, first served"


@linux
def test_ancillary_data_of_ip(bound: Bound) -> None:
    """The time to live and the address that a datagram was sent to."""
    a, b = bound(), bound("0.0.0.0")
    ip_recvttl, ip_pktinfo = 12, 8
    b.setsockopt(socket.IPPROTO_IP, ip_recvttl, 1)
    b.setsockopt(socket.IPPROTO_IP, ip_pktinfo, 1)
    receiver = waiting(b.recvmsg, 100, 200)
    target = ("127.0.0.3", b.getsockname()[1])
    a.sendmsg([b"x"], [(socket.IPPROTO_IP, socket.IP_TTL, struct.pack("i", 7))], 0, target)
    data, ancillary, _, address = receiver.result(20)
    told = {kind: value for level, kind, value in ancillary if level == socket.IPPROTO_IP}
    assert (data, address) == (b"x", a.getsockname())
    assert struct.unpack("i", told[socket.IP_TTL]) == (7,)
    assert socket.inet_ntoa(told[ip_pktinfo][8:12]) == "127.0.0.3"


@needs_v6
def test_ancillary_data_of_ipv6(bound: Bound) -> None:
    a, b = bound("::1"), bound("::")
    b.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    b.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
    receiver = waiting(b.recvmsg, 100, 200)
    hop_limit = (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT, struct.pack("i", 9))
    a.sendmsg([b"x"], [hop_limit], 0, ("::1", b.getsockname()[1]))
    data, ancillary, _, address = receiver.result(20)
    told = {kind: value for level, kind, value in ancillary if level == socket.IPPROTO_IPV6}
    assert (data, address) == (b"x", a.getsockname())
    assert struct.unpack("i", told[socket.IPV6_HOPLIMIT]) == (9,)
    assert socket.inet_ntop(V6, told[socket.IPV6_PKTINFO][:16]) == "::1"


def test_multicast_on_loopback(bound: Bound) -> None:
    group = "239.255.77.1"
    a, one, two = bound(), bound("0.0.0.0"), bound("0.0.0.0")
    membership = socket.inet_aton(group) + socket.inet_aton("127.0.0.1")
    one.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
    a.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
    a.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
    receiver = waiting(one.recvfrom, 10)
    a.sendto(b"members", (group, one.getsockname()[1]))
    assert receiver.result(20) == (b"members", a.getsockname())
    one.setsockopt(socket.IPPROTO_IP, socket.IP_DROP_MEMBERSHIP, membership)
    two.setblocking(False)
    with pytest.raises(BlockingIOError):
        two.recv(10)


# -- IPv6 -----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(link_local() is None, reason="no interface here has a link-local address")
@pytest.mark.parametrize("written", ["number", "name", "in the tuple"])
def test_scopes_of_ipv6(written: str) -> None:
    """Such an address means something only together with an interface, by `%` and its name or number, or in the tuple."""
    found = link_local()
    assert found is not None
    host, scope = found
    if written == "in the tuple":
        given: Any = (host, 0, 0, scope)
    else:
        given = (f"{host}%{scope if written == 'number' else socket.if_indextoname(scope)}", 0)
    with socket.socket(V6, DGRAM) as a, socket.socket(V6, DGRAM) as b:
        for sock in (a, b):
            sock.settimeout(20)
            sock.bind(given)
            assert sock.getsockname()[3] == scope
        receiver = waiting(b.recvfrom, 10)
        target = (given[0], b.getsockname()[1], *given[2:])
        a.sendto(b"scoped", target)
        data, address = receiver.result(20)
        assert data == b"scoped"
        assert address == a.getsockname()
        a.connect(target)
        assert a.getpeername() == b.getsockname()
    with socket.socket(V6) as listener:
        listener.bind(given)
        listener.listen()
        named = f"{host}%{socket.if_indextoname(scope)}"
        with fibers.io.connect(named, listener.getsockname()[1], timeout=20) as client, listener.accept()[0]:
            assert client.getpeername() == listener.getsockname()


@needs_v6
@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this system has no sockets of both families")
def test_a_server_of_both_families() -> None:
    with socket.create_server(("", 0), family=V6, dualstack_ipv6=True, reuse_port=True, backlog=8) as listener:
        port = listener.getsockname()[1]
        for host, seen in [("127.0.0.1", "::ffff:127.0.0.1"), ("::1", "::1")]:
            acceptor = waiting(listener.accept)
            with fibers.io.connect(host, port, timeout=20) as client:
                server, address = acceptor.result(20)
                with server:
                    assert address[0] == seen
                    server.sendall(b"welcome")
                    assert client.recv(10) == b"welcome"
    with socket.create_server(("::1", 0), family=V6) as listener, socket.socket() as client:
        with pytest.raises(ConnectionRefusedError):
            client.connect(("127.0.0.1", listener.getsockname()[1]))
    with pytest.raises(ValueError, match="dualstack_ipv6"):
        socket.create_server(("", 0), dualstack_ipv6=True)


# -- SO_REUSEPORT -----------------------------------------------------------------------------------------------------


@linux
def test_reuse_port_between_threads() -> None:
    """Each thread has a listener of its own on one port, and a loop; the kernel shares the connections out."""
    count = 32
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as first:
        address = first.getsockname()
        stop = threading.Event()
        served: list[list[Any]] = [[], []]

        def serve(number: int, listener: socket.socket, ready: threading.Barrier) -> None:
            with listener:
                listener.settimeout(0.02)
                ready.wait(20)
                while not stop.is_set():
                    try:
                        connection, peer = listener.accept()
                    except TimeoutError:
                        continue
                    with connection:
                        connection.sendall(b"%d" % number)
                        served[number].append(peer)

        ready = threading.Barrier(3)
        listeners = [first, socket.create_server(address, reuse_port=True)]
        threads = [threading.Thread(target=serve, args=(i, each, ready)) for i, each in enumerate(listeners)]
        for each in threads:
            each.start()
        fibers.to_thread(ready.wait, 20)
        answers = []
        for _ in range(count):
            with fibers.io.connect(*address, timeout=20) as client:
                answers.append(client.recv(10))
        stop.set()
        for each in threads:
            fibers.to_thread(each.join, 20)
    assert len(served[0]) == answers.count(b"0")
    assert len(served[1]) == answers.count(b"1")
    assert len(answers) == count
    assert set(answers) == {b"0", b"1"}, "one chance in 2 ** 31 that the kernel chose one of them each time"


@linux
def test_reuse_port_between_processes(bound: Bound) -> None:
    """A child binds the port that we have, and the kernel gives it some of the datagrams."""
    with socket.socket(V4, DGRAM) as mine:
        mine.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        mine.settimeout(20)
        mine.bind(("127.0.0.1", 0))
        port = mine.getsockname()[1]
        child = fibers.spawn(
            fibers.to_thread,
            run_python,
            "-c",
            f"""
from fibers.io import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.settimeout(20)
    sock.bind(("127.0.0.1", {port}))
    while True:
        data, address = sock.recvfrom(100)
        sock.sendto(b"child", address)
        if data == b"end":
            break
""",
        )

        def serve() -> None:
            while True:
                _, address = mine.recvfrom(100)
                mine.sendto(b"parent", address)

        server = fibers.spawn(serve)
        answers = set()
        while b"child" not in answers:  # each try from another port, which is what the kernel chooses by
            with socket.socket(V4, DGRAM) as client:
                client.settimeout(20)
                client.sendto(b"x", ("127.0.0.1", port))
                answers.add(client.recv(100))
        server.kill()
        server.join()
        mine.close()
        with socket.socket(V4, DGRAM) as client:
            client.settimeout(20)
            client.sendto(b"end", ("127.0.0.1", port))
            assert client.recv(100) == b"child"
        assert child.result(30).returncode == 0


def test_without_reuse_port_the_address_is_in_use(bound: Bound) -> None:
    taken = bound()
    with socket.socket(V4, DGRAM) as other, pytest.raises(OSError, match="in use") as caught:
        other.bind(taken.getsockname())
    assert caught.value.errno == errno.EADDRINUSE


# -- unix -----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["path", pytest.param("abstract", marks=linux)])
def unix_name(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Where to bind a unix socket. An abstract name is bytes that begin with a NUL, and may hold anything."""
    if request.param == "path":
        return str(tmp_path / "socket")
    return b"\0fibers-test-\0\xff-" + os.urandom(8)


def test_unix_datagrams_have_addresses(unix_name: Any) -> None:
    with socket.socket(socket.AF_UNIX, DGRAM) as a, socket.socket(socket.AF_UNIX, DGRAM) as b:
        a.settimeout(20)
        b.settimeout(20)
        b.bind(unix_name)
        receiver = waiting(b.recvfrom, 100)
        a.sendto(b"from nobody", unix_name)
        data, address = receiver.result(20)
        assert data == b"from nobody"
        assert address in (None, "", b"")
        reply = unix_name + ("-2" if isinstance(unix_name, str) else b"-2")
        a.bind(reply)
        a.connect(unix_name)
        a.send(b"from somebody")
        assert b.recvfrom(100) == (b"from somebody", reply)
        receiver = waiting(a.recvmsg, 100)
        b.sendmsg([b"an ", b"answer"], [], 0, reply)
        assert receiver.result(20)[0] == b"an answer"


def test_unix_datagrams_to_nobody(unix_name: Any) -> None:
    with socket.socket(socket.AF_UNIX, DGRAM) as a, socket.socket(socket.AF_UNIX, DGRAM) as b:
        with pytest.raises((FileNotFoundError, ConnectionRefusedError)):
            a.sendto(b"x", unix_name)
        b.bind(unix_name)
        a.connect(unix_name)
        b.close()
        with pytest.raises(ConnectionRefusedError):
            a.send(b"x")


def test_unix_streams_have_addresses(unix_name: Any) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(unix_name)
        listener.listen()
        acceptor = waiting(listener.accept)
        client.settimeout(20)
        client.connect(unix_name)
        assert client.getpeername() == unix_name
        with acceptor.result(20)[0] as server:
            assert server.getsockname() == unix_name
            receiver = waiting(client.recv, 10)
            server.sendall(b"welcome")
            assert receiver.result(20) == b"welcome"


@linux
def test_a_name_that_the_kernel_chooses() -> None:
    with socket.socket(socket.AF_UNIX, DGRAM) as a, socket.socket(socket.AF_UNIX, DGRAM) as b:
        a.bind("")
        assert a.getsockname().startswith(b"\0")
        a.settimeout(20)
        b.sendto(b"found", a.getsockname())
        assert a.recv(10) == b"found"


@linux
def test_seqpacket_has_borders_and_an_end() -> None:
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with a, b:
        b.settimeout(20)
        receiver = waiting(b.recvmsg, 3)
        a.send(b"first")
        a.send(b"second")
        data, _, flags, _ = receiver.result(20)
        assert (data, bool(flags & socket.MSG_TRUNC)) == (b"fir", True)
        assert b.recv(100) == b"second", "the rest of the first is gone"
        receiver = waiting(b.recv, 10)
        a.close()
        assert receiver.result(20) == b""


@linux
def test_seqpacket_connects_and_waits_for_room(unix_name: Any) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(unix_name)
        listener.listen()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.settimeout(20)
            client.connect(unix_name)
            server, _ = listener.accept()
            with server:
                count = 500

                def send() -> None:
                    for number in range(count):
                        client.send(b"%05d" % number + bytes(4000))

                sender = fibers.spawn(send)
                fibers.sleep(0.001)
                assert not sender.done(), "the queue is full"
                for number in range(count):
                    data = server.recv(10_000)
                    assert (data[:5], len(data)) == (b"%05d" % number, 4005)
                sender.result(20)


@pytest.mark.parametrize("kind", ["stream", "datagram", pytest.param("seqpacket", marks=linux)])
@pytest.mark.parametrize("waits", [True, False])
def test_descriptors_are_passed(kind: str, waits: bool) -> None:
    kinds = {"stream": socket.SOCK_STREAM, "datagram": DGRAM, "seqpacket": socket.SOCK_SEQPACKET}
    a, b = socket.socketpair(socket.AF_UNIX, kinds[kind])
    with a, b:
        b.settimeout(20)
        reading, writing = os.pipe()
        receiver = waiting(socket.recv_fds, b, 100, 4) if waits else None
        assert socket.send_fds(a, [b"a pipe", b"!"], [reading, writing]) == 7
        data, passed, flags, _ = receiver.result(20) if receiver else socket.recv_fds(b, 100, 4)
        os.close(reading)
        os.close(writing)
        assert (data, len(passed)) == (b"a pipe!", 2)
        assert not flags & socket.MSG_CTRUNC
        os.write(passed[1], b"through it")
        assert os.read(passed[0], 100) == b"through it"
        for fd in passed:
            os.close(fd)


def test_a_passed_socket_works_in_a_child_process(tmp_path: Path) -> None:
    """A server hands a connection of ours to another process, which finishes the conversation."""
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener, socket.create_server(("127.0.0.1", 0)) as public:
        listener.bind(path)
        listener.listen()
        child = fibers.spawn(
            fibers.to_thread,
            run_python,
            "-c",
            f"""
from fibers.io import socket
with socket.socket(socket.AF_UNIX) as line:
    line.settimeout(20)
    line.connect({path!r})
    data, [fd], flags, _ = socket.recv_fds(line, 100, 1)
with socket.socket(fileno=fd) as connection:
    connection.settimeout(20)
    connection.sendall(data + b" " + connection.recv(100))
""",
        )
        worker, _ = listener.accept()
        with worker, fibers.io.connect(*public.getsockname(), timeout=20) as client:
            connection, _ = public.accept()
            with connection:
                socket.send_fds(worker, [b"hello"], [connection.fileno()])
            client.settimeout(20)
            client.sendall(b"world")
            assert client.recv(100) == b"hello world"
            assert child.result(30).returncode == 0
            assert client.recv(100) == b""


@linux
def test_too_little_room_for_descriptors_leaks_none() -> None:
    a, b = socket.socketpair()
    with a, b:
        b.settimeout(20)
        fds = [os.dup(0) for _ in range(3)]
        receiver = waiting(b.recvmsg, 100, socket.CMSG_SPACE(4))
        socket.send_fds(a, [b"three"], fds)
        for fd in fds:
            os.close(fd)
        data, ancillary, flags, _ = receiver.result(20)
        assert data == b"three"
        assert flags & socket.MSG_CTRUNC
        for _, _, value in ancillary:
            for (fd,) in struct.iter_unpack("i", value[: len(value) // 4 * 4]):
                os.close(fd)


@linux
def test_credentials_are_told() -> None:
    so_passcred, scm_credentials = 16, 2
    a, b = socket.socketpair(socket.AF_UNIX, DGRAM)
    with a, b:
        b.settimeout(20)
        b.setsockopt(socket.SOL_SOCKET, so_passcred, 1)
        receiver = waiting(b.recvmsg, 100, socket.CMSG_SPACE(12))
        a.send(b"who am I?")
        data, [(level, kind, value)], _, _ = receiver.result(20)
        assert (data, level, kind) == (b"who am I?", socket.SOL_SOCKET, scm_credentials)
        assert struct.unpack("3i", value) == (os.getpid(), os.getuid(), os.getgid())
