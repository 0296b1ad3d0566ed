"""Hazard 14: would-blocks that no edge follows are tried again by the clock.

Facts (Linux). A unix connect against a full backlog says EAGAIN; the kernel then reports one OUT|HUP and nothing more,
although a later connect succeeds. An unconnected unix datagram socket is always "writable", also while the queue of
the address it sends to is full.
"""

import errno
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

import fibers
from fibers.core.scheduler import get_scheduler
from fibers.io import socket

if sys.platform != "linux":
    pytest.skip("the backlog of a unix socket is Linux's own", allow_module_level=True)


@pytest.fixture
def path() -> Iterator[str]:
    with TemporaryDirectory(prefix="f") as folder:  # tmp_path may be too long for a unix address
        yield str(Path(folder) / "s")


@pytest.fixture
def full_listener(path: str) -> Iterator[tuple[socket.socket, list[socket.socket]]]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        clients: list[socket.socket] = []
        while True:
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            try:
                client.connect(path)
            except BlockingIOError:
                client.close()
                break
            clients.append(client)
        yield listener, clients
        for each in clients:
            each.close()


Full = tuple[socket.socket, list[socket.socket]]


@pytest.mark.parametrize("way", ["connect", "connect_ex"])
def test_hazard_14_unix_connect_against_a_full_backlog_gets_through_later(
    full_listener: Full, path: str, way: str
) -> None:
    listener, clients = full_listener
    with socket.socket(socket.AF_UNIX) as late:
        late.settimeout(10)
        connecting = fibers.spawn(getattr(late, way), path)
        fibers.sleep(0.02)
        assert not connecting.done()
        for _ in clients:
            listener.accept()[0].close()
        assert connecting.result(5) == (None if way == "connect" else 0)
        with listener.accept()[0] as server:
            late.sendall(b"through")
            assert server.recv(10) == b"through"


def test_hazard_14_unix_connect_against_a_full_backlog_times_out(full_listener: Full, path: str) -> None:
    with socket.socket(socket.AF_UNIX) as late:
        late.settimeout(0.03)
        started = fibers.current_time()
        with pytest.raises(TimeoutError):
            late.connect(path)
        assert fibers.current_time() - started >= 0.03
        assert late.connect_ex(path) == errno.EAGAIN


def test_hazard_14_waiting_for_a_backlog_backs_off(full_listener: Full, path: str) -> None:
    """From 1 to 50 ms: a wait of 0.3 s is a dozen tries, not a spin."""
    with socket.socket(socket.AF_UNIX) as late:
        late.settimeout(0.3)
        stats = get_scheduler().loop.stats
        turns = stats.turns
        with pytest.raises(TimeoutError):
            late.connect(path)
        assert stats.turns - turns < 40


@pytest.fixture
def full_queue(path: str) -> Iterator[tuple[socket.socket, int]]:
    """A receiver whose queue is full, and how many datagrams that are."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(path)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            count = 0
            try:
                while True:
                    sender.sendto(b"%d" % count, path)
                    count += 1
            except BlockingIOError:
                pass
        yield receiver, count


@pytest.mark.parametrize("call", ["sendto", "sendmsg"])
def test_hazard_14_unix_datagram_queue_full(full_queue: tuple[socket.socket, int], path: str, call: str) -> None:
    receiver, count = full_queue
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(10)
        if call == "sendto":
            sending = fibers.spawn(sender.sendto, b"late", path)
        else:
            sending = fibers.spawn(sender.sendmsg, [b"la", b"te"], [], 0, path)
        fibers.sleep(0.02)
        assert not sending.done()
        assert [receiver.recv(10) for _ in range(count)] == [b"%d" % each for each in range(count)]
        assert sending.result(5) == 4
        assert receiver.recv(10) == b"late"


def test_hazard_14_unix_datagram_queue_full_times_out(full_queue: tuple[socket.socket, int], path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(0.03)
        started = fibers.current_time()
        with pytest.raises(TimeoutError):
            sender.sendto(b"late", path)
        assert fibers.current_time() - started >= 0.03


def test_hazard_14_a_connected_datagram_socket_waits_for_the_edge(
    full_queue: tuple[socket.socket, int], path: str
) -> None:
    """Connected, it is told when its peer reads."""
    receiver, count = full_queue
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(path)
        sender.settimeout(10)
        sending = fibers.spawn(sender.send, b"late")
        fibers.sleep(0.01)
        assert not sending.done()
        for _ in range(count):
            receiver.recv(10)
        assert sending.result(5) == 4


@pytest.mark.parametrize("what", ["connect", "sendto"])
def test_hazard_14_closing_ends_the_retrying(path: str, what: str) -> None:
    """Closing a socket wakes who waits on it, also who waits by the clock: ClosedError."""
    kind = socket.SOCK_STREAM if what == "connect" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_UNIX, kind) as receiver:
        receiver.bind(path)
        if what == "connect":
            receiver.listen(0)
        others = []
        try:
            while True:
                others.append(other := socket.socket(socket.AF_UNIX, kind))
                other.setblocking(False)
                other.connect(path)
                if what == "sendto":
                    other.send(b"x")
        except BlockingIOError:
            pass
        late = socket.socket(socket.AF_UNIX, kind)
        waiting = fibers.spawn(late.connect, path) if what == "connect" else fibers.spawn(late.sendto, b"x", path)
        fibers.sleep(0.01)
        assert not waiting.done()
        late.close()
        with pytest.raises(fibers.ClosedError):
            waiting.result(1)
        for each in others:
            each.close()


def test_hazard_14_cancelling_ends_the_retrying(full_listener: Full, path: str) -> None:
    with socket.socket(socket.AF_UNIX) as late:
        waiting = fibers.spawn(late.connect, path)
        fibers.sleep(0.01)
        waiting.cancel()
        with pytest.raises(fibers.FiberCancelled):
            waiting.result(1)
