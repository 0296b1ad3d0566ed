"""Row "latch", invariant 8: ERR and HUP are edges and not states. Five files come back from them, and then block again.

Facts. A refused UDP socket, a FIFO whose writer comes back, a FIFO whose reader comes back, a pty master whose slave
opens again, a TCP socket connected again after a refusal: all have reported ERR or HUP, and all of them block
afterwards. A loop that latched "always ready" would spin there; one that latched "over" would sleep for ever.
"""

import errno
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.loops import Kind
from support.waiting import looks, operate

from fibers.eventloop import EventLoop

QUIET_SECONDS, QUIET_TURNS = 0.015, 5


def stays_quiet(loop: EventLoop, direction: Any, call: Callable[[], Any]) -> None:
    """It blocks, and the loop does not turn meanwhile."""
    turns = loop.stats.turns
    with pytest.raises(TimeoutError):
        operate(loop, direction, call, QUIET_SECONDS)
    assert loop.stats.turns - turns <= QUIET_TURNS, "it spins"


def refused_port(kind: socket.SocketKind) -> Any:
    with socket.socket(type=kind) as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()


def test_latch_refused_udp(loop: EventLoop) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.setblocking(False)
        udp.connect(refused_port(socket.SOCK_DGRAM))
        handle = loop.handle(udp.fileno(), True)
        for _ in range(3):
            with pytest.raises(ConnectionRefusedError):
                operate(loop, handle.reading, lambda: udp.recv(10), then=lambda: udp.send(b"x"))
            stays_quiet(loop, handle.reading, lambda: udp.recv(10))
        loop.release(handle, lambda: None)


def test_latch_fifo_whose_writer_comes_back(loop: EventLoop, tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    fifo = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    handle = loop.handle(fifo, True)
    writers: list[int] = []

    def read() -> bytes:
        return os.read(fifo, 10)

    for _ in range(3):
        writers.append(os.open(path, os.O_WRONLY))
        stays_quiet(loop, handle.reading, read)
        assert operate(loop, handle.reading, read, then=lambda: os.write(writers[-1], b"x")) == b"x"
        assert operate(loop, handle.reading, read, then=lambda: os.close(writers.pop())) == b""
    loop.release(handle, lambda: os.close(fifo))


def test_latch_fifo_whose_reader_comes_back(loop: EventLoop, tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    first = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    fifo = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    handle = loop.handle(fifo, True)
    readers = [first]

    def write() -> int:
        return os.write(fifo, bytes(4096))

    def fill() -> None:
        try:
            while True:
                write()
        except BlockingIOError:
            pass

    for _ in range(3):
        fill()  # what was in the pipe is still there when the reader comes back
        stays_quiet(loop, handle.writing, write)
        with pytest.raises(BrokenPipeError):
            operate(loop, handle.writing, write, then=lambda: os.close(readers.pop()))
        readers.append(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    fill()
    assert operate(loop, handle.writing, write, then=lambda: os.read(readers[-1], 1 << 20)) == 4096
    os.close(readers.pop())
    loop.release(handle, lambda: os.close(fifo))


@pytest.mark.skipif(sys.platform != "linux", reason="what a terminal says after its slave has gone is Linux's own")
def test_latch_pty_master_whose_slave_opens_again(loop: EventLoop) -> None:
    master, slave = os.openpty()
    os.set_blocking(master, False)
    name = os.ttyname(slave)
    handle = loop.handle(master, True)
    slaves = [slave]

    def read() -> bytes:
        return os.read(master, 10)

    for _ in range(3):
        stays_quiet(loop, handle.reading, read)
        assert operate(loop, handle.reading, read, then=lambda: os.write(slaves[-1], b"x")) == b"x"
        with pytest.raises(OSError, match="Input/output") as caught:
            operate(loop, handle.reading, read, then=lambda: os.close(slaves.pop()))
        assert caught.value.errno == errno.EIO
        slaves.append(os.open(name, os.O_RDWR | os.O_NOCTTY))
    os.close(slaves.pop())
    loop.release(handle, lambda: os.close(master))


def test_latch_tcp_connected_again_after_a_refusal(loop: EventLoop) -> None:
    with socket.socket() as client, socket.create_server(("127.0.0.1", 0)) as listener:
        client.setblocking(False)
        handle = loop.handle(client.fileno(), True)

        def connect(address: Any) -> None:
            number = client.connect_ex(address)
            if number in (errno.EINPROGRESS, errno.EALREADY):
                raise BlockingIOError(number, "in progress")
            if number not in (0, errno.EISCONN):
                raise OSError(number, os.strerror(number))

        with pytest.raises(ConnectionRefusedError):
            operate(loop, handle.writing, lambda: connect(refused_port(socket.SOCK_STREAM)))
        operate(loop, handle.writing, lambda: connect(listener.getsockname()))
        with listener.accept()[0] as server:
            stays_quiet(loop, handle.reading, lambda: client.recv(10))
            assert operate(loop, handle.reading, lambda: client.recv(10), then=lambda: server.send(b"x")) == b"x"
        loop.release(handle, lambda: None)


def test_hazard_15_a_file_nobody_waits_for_any_more_is_not_reported(loop_factory: Kind) -> None:
    """`arm` is one-shot: after the waiter has left, a hang-up does not make a level-triggered loop spin."""
    loop = loop_factory()
    a, b = socket.socketpair()
    a.setblocking(False)
    with a, b:
        handle = loop.handle(a.fileno(), True)
        stays_quiet(loop, handle.reading, lambda: a.recv(1))
        b.close()
        before = handle.reading.edges
        assert looks(loop, 10) == []
        assert handle.reading.edges - before <= (1 if loop_factory.edge_triggered else 0)
        assert operate(loop, handle.reading, lambda: a.recv(1)) == b""
        loop.release(handle, lambda: None)
    loop.close()
