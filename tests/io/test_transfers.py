"""Many bytes and many connections: nothing lost, nothing twice, nothing out of order."""

import hashlib
import random
from collections.abc import Callable

import pytest
from support.backends import LIFETIME
from support.scale import SEED, scaled
from support.sockets import Pair, tcp_pair

import fibers
from fibers.core.dump import picture
from fibers.core.scheduler import get_scheduler
from fibers.io import socket
from fibers.threads.to_thread import to_thread

STREAMS = pytest.mark.parametrize("make", [tcp_pair, socket.socketpair], ids=["tcp", "unix"])
SIZE = scaled(100_000_000, least=1_000_000)


def send_blocks(sock: socket.socket, seed: int) -> str:
    rng = random.Random(seed)
    digest = hashlib.sha256()
    left = SIZE
    while left:
        block = rng.randbytes(min(left, rng.choice((1, 999, 65_536, 400_000))))
        left -= len(block)
        digest.update(block)
        sock.sendall(block)
    sock.shutdown(socket.SHUT_WR)
    return digest.hexdigest()


def read_blocks(sock: socket.socket, seed: int) -> str:
    rng = random.Random(seed)
    digest = hashlib.sha256()
    buffer = bytearray(300_000)
    view = memoryview(buffer)
    while True:
        size = rng.choice((10, 4096, 65_536, 300_000))
        if rng.random() < 0.5:
            data: bytes | memoryview = sock.recv(size)
        else:
            data = view[: sock.recv_into(view[:size])]
        if not data:
            return digest.hexdigest()
        digest.update(data)


@STREAMS
def test_large_transfers_both_ways_at_once(make: Callable[[], Pair]) -> None:
    a, b = make()
    with a, b:
        senders = [fibers.spawn(send_blocks, sock, SEED + number) for number, sock in enumerate((a, b))]
        readers = [fibers.spawn(read_blocks, sock, SEED + number) for number, sock in enumerate((b, a))]
        assert [reader.result(100) for reader in readers] == [sender.result(100) for sender in senders]


@STREAMS
def test_a_large_transfer_between_two_threads(make: Callable[[], Pair]) -> None:
    a, b = make()
    with a, b:
        sender = fibers.spawn(to_thread, fibers.run, send_blocks, a, SEED)
        assert read_blocks(b, SEED) == sender.result(100)


def test_500_clients_talk_to_one_server() -> None:
    """Each registers once, and gets its own answers."""
    count, rounds = 500, 4
    stats = get_scheduler().loop.stats
    before = (stats.registrations, stats.modifications, stats.unregistrations)
    with socket.create_server(("127.0.0.1", 0), backlog=count) as listener:

        def echo(connection: socket.socket) -> None:
            with connection:
                while data := connection.recv(1000):
                    connection.sendall(data)

        def serve() -> None:
            for _ in range(count):
                fibers.spawn(echo, listener.accept()[0])

        def client(number: int) -> int:
            with socket.create_connection(listener.getsockname()) as sock:
                for each in range(rounds):
                    message = f"{number}:{each}".encode() * (1 + number % 7)
                    sock.sendall(message)
                    got = b""
                    while len(got) < len(message):
                        got += sock.recv(1000)
                    assert got == message
                return number

        server = fibers.spawn(serve)
        clients = [fibers.spawn(client, number) for number in range(count)]
        assert [each.result(30) for each in clients] == list(range(count))
        server.result(5)
    assert fibers.wait(fibers.all_fibers(), timeout=30)[1] == [], picture()
    registrations, modifications, unregistrations = (
        now - then
        for now, then in zip((stats.registrations, stats.modifications, stats.unregistrations), before, strict=True)
    )
    assert registrations == unregistrations
    if not LIFETIME:
        return  # one for each wait
    assert registrations <= 2 * count + 1
    assert modifications <= 2 * count


def test_datagrams_keep_their_borders_and_order_on_loopback() -> None:
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    rng = random.Random(SEED)
    messages = [rng.randbytes(rng.randrange(1, 2000)) for _ in range(500)]
    with a, b:

        def send() -> None:
            for message in messages:
                a.send(message)

        sender = fibers.spawn(send)
        assert [b.recv(2000) for _ in messages] == messages
        sender.result(5)
