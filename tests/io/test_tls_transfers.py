"""Much data over TLS: both ways at once, over many connections, by several fibers, and what it asks of the kernel."""

import hashlib
import os
import re
import shutil
import socket as std_socket
import ssl as theirs
import subprocess
import sys
from collections import Counter
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from support.process import ROOT, environment
from support.scale import scaled
from support.tls import (
    TLS12,
    TLS13,
    certificates,
    client_context,
    in_thread,
    needs_openssl,
    server_context,
    tls_pair,
)

import fibers
from fibers.eventloop import BACKEND
from fibers.io import socket

pytestmark = needs_openssl

MEGABYTE = os.urandom(1 << 20)


def digest_of(sock: Any, size: int) -> str:
    """The checksum of exactly so many bytes."""
    digest, got = hashlib.sha256(), 0
    buffer = bytearray(70_000)
    while got < size:
        count = sock.recv_into(buffer)
        assert count, f"the data ends after {got} of {size} bytes"
        digest.update(memoryview(buffer)[:count])
        got += count
    return digest.hexdigest()


def send_megabytes(sock: Any, count: int) -> None:
    for _ in range(count):
        sock.sendall(MEGABYTE)


@pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])
def test_much_data_both_ways_at_once(version: Any) -> None:
    count = scaled(64, least=4)
    expected = hashlib.sha256(MEGABYTE * count).hexdigest()
    a, b = tls_pair(version)
    with a, b:
        writers = [fibers.spawn(send_megabytes, each, count) for each in (a, b)]
        readers = [fibers.spawn(digest_of, each, count << 20) for each in (a, b)]
        assert [reader.result(100) for reader in readers] == [expected, expected]
        for writer in writers:
            writer.result(10)


def test_much_data_both_ways_with_a_peer_of_two_threads() -> None:
    """The peer reads all that there is before it writes on, as a program that blocks does; its certificate chain is ours."""
    count = scaled(64, least=4)
    expected = hashlib.sha256(MEGABYTE * count).hexdigest()
    with std_socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far = listener.accept()[0]

    def peer() -> None:
        with server_context(None, theirs).wrap_socket(far, server_side=True) as tls:
            for _ in range(count):
                digest = digest_of(tls, len(MEGABYTE))
                assert digest == hashlib.sha256(MEGABYTE).hexdigest()
                tls.sendall(MEGABYTE)
            tls.unwrap()

    with in_thread(peer):
        tls: Any
        with client_context().wrap_socket(near, server_hostname="localhost") as tls:
            writing = fibers.spawn(send_megabytes, tls, count)
            assert digest_of(tls, count << 20) == expected
            writing.result(10)
            assert tls.recv(1) == b""
            tls.unwrap()


def test_several_fibers_write_whole_messages_and_several_read() -> None:
    writers, each = 8, scaled(2000, least=40)
    size = 4000
    a, b = tls_pair()
    received: Counter[int] = Counter()

    def write(number: int) -> None:
        for _ in range(each):
            a.sendall(bytes([number]) * size)

    def read() -> None:
        while data := b.recv(1 << 20):
            for number in range(writers):
                received[number] += data.count(number)

    with a, b:
        reading = [fibers.spawn(read) for _ in range(3)]
        writing = [fibers.spawn(write, number) for number in range(writers)]
        for fiber in writing:
            fiber.result(60)
        a.send_eof()
        for fiber in reading:
            fiber.result(60)
    assert received == dict.fromkeys(range(writers), each * size)


def test_messages_of_fibers_that_write_at_once_are_not_mixed() -> None:
    a, b = tls_pair()
    size = 300_000  # more than one chunk, and more than the kernel takes at once
    with a, b:
        writing = [fibers.spawn(a.sendall, bytes([number]) * size) for number in range(1, 6)]
        got = bytearray()
        while len(got) < 5 * size:
            got += b.recv(65536)
        for fiber in writing:
            fiber.result(10)
    assert got == b"".join(bytes([number]) * size for number in range(1, 6))


def test_many_connections_at_once() -> None:
    count = scaled(1000, least=60)
    server, client = server_context(), client_context()

    def serve(plain: Any) -> None:
        with server.wrap_socket(plain, server_side=True) as tls:
            while data := tls.recv(4096):
                tls.sendall(data)

    def talk(number: int) -> int:
        plain = socket.create_connection(address)
        with client.wrap_socket(plain, server_hostname="localhost") as tls:
            for each in range(3):
                message = b"%d:%d" % (number, each)
                tls.sendall(message)
                assert tls.recv(100) == message
        return number

    with socket.create_server(("127.0.0.1", 0), backlog=count) as listener:
        address = listener.getsockname()

        def accept() -> None:
            for _ in range(count):
                serving.append(fibers.spawn(serve, listener.accept()[0]))

        serving: list[fibers.Fiber[None]] = []
        accepting = fibers.spawn(accept)
        talking = [fibers.spawn(talk, number) for number in range(count)]
        assert [fiber.result(100) for fiber in talking] == list(range(count))
        accepting.result(10)
        for fiber in serving:
            fiber.result(10)


SERVER = dedent(
    """
    import sys
    import fibers
    from fibers.io import socket, ssl

    def main():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[1])
        with socket.create_server(("127.0.0.1", 0)) as listener:
            print(listener.getsockname()[1], flush=True)
            plain, _ = listener.accept()
            with context.wrap_socket(plain, server_side=True) as tls:
                while data := tls.recv(16384):
                    tls.sendall(data)

    fibers.run(main)
    """
)


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed: .ci/debian.sh")
@pytest.mark.skipif(BACKEND != "epoll", reason="counts the calls of the epoll loop")
def test_a_request_costs_one_receive_one_send_and_one_wait(tmp_path: Path) -> None:
    trace, rounds = tmp_path / "trace", 200
    command = [
        "strace",
        "-f",
        "-o",
        str(trace),
        "-e",
        "trace=network,read,write,epoll_wait,epoll_pwait,epoll_pwait2,epoll_ctl",
    ]
    server = subprocess.Popen(
        [*command, sys.executable, "-c", SERVER, certificates().localhost],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
        cwd=ROOT,
    )
    assert server.stdout is not None
    try:
        port = int(server.stdout.readline())
        with std_socket.create_connection(("127.0.0.1", port), timeout=30) as plain:
            with client_context(None, theirs).wrap_socket(plain, server_hostname="localhost") as tls:
                for number in range(rounds + 1):
                    if number == 1:
                        before = len(trace.read_text().splitlines())
                    message = b"%16d" % number * 1000
                    tls.sendall(message)
                    got = b""
                    while len(got) < len(message):
                        got += tls.recv(16384)
                    assert got == message
                lines = trace.read_text().splitlines()[before:]
        server.wait(30)
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
    calls = Counter(match[1] for line in lines if (match := re.match(r"\d+ +(\w+)\(", line)))
    per_request = {name: calls[name] / rounds for name in calls}
    assert calls["epoll_ctl"] == 0, per_request
    assert sum(per_request[name] for name in calls if name.startswith("recv")) <= 1.1, per_request
    assert sum(per_request[name] for name in calls if name.startswith("send")) <= 1.1, per_request
    assert sum(per_request.values()) <= 3.2, per_request
