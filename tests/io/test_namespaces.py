"""Connecting and datagrams on networks that this machine does not have: dead ones, without IPv6, with multicast."""

from pathlib import Path

import pytest
from support import netns
from support.namespace import SILENT, run_in_namespace
from support.sockets import link_local

RESOLVER = """
import _socket, fibers, fibers.io
from fibers.io import socket

real = _socket.getaddrinfo

def resolve_to(*addresses):
    def fake(host, *args):
        if host != "host.test":
            return real(host, *args)
        return [
            (socket.AF_INET6, 1, 6, "", (each[0], each[1], 0, 0)) if ":" in each[0] else (socket.AF_INET, 1, 6, "", each)
            for each in addresses
        ]
    _socket.getaddrinfo = fake
"""


def run(network: str, code: str) -> list[str]:
    child = run_in_namespace(network, code)
    assert child.returncode == 0, child.stdout + child.stderr
    return child.stdout.splitlines()


def test_hosts_that_say_nothing_are_overtaken() -> None:
    """Two addresses of each family that are on the network and dead, one that has no route, and one that lives."""
    assert run(
        SILENT,
        RESOLVER
        + """
with socket.create_server(("192.0.2.1", 0)) as listener:
    port = listener.getsockname()[1]
    dead = [("2001:db8::98", port), ("2001:db8::99", port), ("192.0.2.98", port), ("198.51.100.1", port)]
    resolve_to(*dead, ("192.0.2.1", port))
    before = fibers.current_time()
    with fibers.io.connect("host.test", port, timeout=30, happy_eyeballs_delay=0.02) as sock:
        print(sock.getpeername()[0])
        listener.accept()[0].close()
    print(0.04 <= fibers.current_time() - before < 25)
    resolve_to(*dead)
    try:
        fibers.io.connect("host.test", port, timeout=0.1, happy_eyeballs_delay=0.01)
    except TimeoutError as error:
        text = str(error).replace(str(port), "PORT")
        print(text[text.index("("):])
print(len(fibers.all_fibers()))
""",
    ) == [
        "192.0.2.1",
        "True",
        "(198.51.100.1:PORT: Network is unreachable; [2001:db8::98]:PORT: no answer; 192.0.2.98:PORT: no answer; "
        "[2001:db8::99]:PORT: no answer)",
        "0",
    ]


def test_without_ipv6_its_addresses_are_passed_over() -> None:
    """`localhost` is 127.0.0.1 alone there, whatever the file of hosts says; and an address of IPv6 costs no delay."""
    assert run(
        "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6",
        RESOLVER
        + """
from fibers.io import hosts, names
names.hosts = hosts.Hosts("/nowhere")
print({each[4][0] for each in socket.getaddrinfo("localhost", 80)})
with socket.create_server(("127.0.0.1", 0)) as listener:
    port = listener.getsockname()[1]
    resolve_to(("::1", port), ("2001:db8::1", port), ("127.0.0.1", port))
    for host in ("localhost", "host.test"):
        with fibers.io.connect(host, port, timeout=30, happy_eyeballs_delay=1000) as sock:
            print(sock.getpeername()[0])
            listener.accept()[0].close()
resolve_to(("::1", port), ("127.0.0.1", port))
try:
    fibers.io.connect("host.test", port)
except ConnectionRefusedError as error:
    print([type(each).__name__ for each in error.__cause__.exceptions])
""",
    ) == ["{'127.0.0.1'}", "127.0.0.1", "127.0.0.1", "['OSError', 'ConnectionRefusedError']"]


def test_with_ipv6_localhost_is_both_and_either_is_connected_to() -> None:
    assert run(
        "",
        RESOLVER
        + """
from fibers.io import hosts, names
names.hosts = hosts.Hosts("/nowhere")
print([each[4][0] for each in socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)])
for host, family in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)):
    with socket.create_server((host, 0), family=family) as listener:
        with fibers.io.connect("localhost", listener.getsockname()[1], timeout=30, happy_eyeballs_delay=1000) as sock:
            print(sock.getpeername()[0])
            listener.accept()[0].close()
""",
    ) == ["['::1', '127.0.0.1']", "127.0.0.1", "::1"]


@pytest.mark.parametrize("waits", [True, False])
def test_multicast_of_ipv6(waits: bool) -> None:
    """A copy of what is sent to the group comes back to this machine's own members."""
    assert run(
        SILENT,
        f"""
import struct, fibers
from fibers.io import socket
V6 = socket.AF_INET6
index = socket.if_nametoindex("v0")
with socket.socket(V6, socket.SOCK_DGRAM) as a, socket.socket(V6, socket.SOCK_DGRAM) as b:
    b.settimeout(20)
    b.bind(("::", 0))
    membership = socket.inet_pton(V6, "ff02::77") + struct.pack("@I", index)
    b.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, membership)
    a.bind(("2001:db8::1", 0))
    receiver = fibers.spawn(b.recvfrom, 100)
    {"fibers.sleep(0.001)" if waits else "pass"}
    a.sendto(b"members", ("ff02::77%v0", b.getsockname()[1]))
    data, address = receiver.result(20)
    print(data, address == a.getsockname())
""",
    ) == ["b'members' True"]


@pytest.mark.skipif(
    netns.has_ipv6() and link_local() is not None, reason="this system has IPv6: its tests have not been left out"
)
def test_what_needs_ipv6_is_tested_where_there_is_none() -> None:
    """The tests of datagrams that were skipped, in a network that has ::1 and an interface with a link-local address."""
    path = Path(__file__).with_name("test_datagrams.py")
    alone = "import os, pytest; os.environ.pop('FIBERS_TESTED', None)"  # it is no run of the whole suite
    lines = run(SILENT, f"{alone}; raise SystemExit(pytest.main(['-q', '-rs', {str(path)!r}]))")
    assert " passed" in lines[-1]
    assert "skipped" not in lines[-1]
