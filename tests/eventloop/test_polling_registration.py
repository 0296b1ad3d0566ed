"""Registration invariants of the lifetime loop, counted: one in, one out, at most one change; and registrations that fail.

The loop is used bare. What holds on every kind of loop is in conformance/.
"""

import errno
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from support.backends import lifetime_only
from support.loops import lifetime_loops
from support.waiting import wait, woken

import fibers
from fibers.core.scheduler import get_scheduler
from fibers.eventloop import FOREVER, READ, WRITE, ownership
from fibers.io import socket as fsocket

pytestmark = lifetime_loops("they count registrations, and know the tables and the poller of such a loop")
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    a, b = socket.socketpair()
    a.setblocking(False)
    b.setblocking(False)
    with a, b:
        yield a, b


def test_one_registration_one_modification_one_unregistration(loop: Any, pair: Pair) -> None:
    a, b = pair
    handle = loop.handle(a.fileno(), True)
    stats = loop.stats
    for _ in range(10):
        waiter = wait(loop, handle.reading)
        b.send(b"x")
        assert woken(loop) == [waiter]
        a.recv(10)
    for _ in range(10):
        waiter = wait(loop, handle.writing)
        try:
            while True:
                a.send(bytes(65536))
        except BlockingIOError:
            pass
        try:
            while True:
                b.recv(1 << 20)
        except BlockingIOError:
            pass
        assert woken(loop) == [waiter]
    loop.release(handle, a.close)
    assert stats.registrations == 1
    assert stats.unregistrations == 1
    assert stats.modifications <= 1
    assert ownership.owners.get(handle.fd) is None


@lifetime_only
def test_a_listener_and_its_connections_cost_one_registration_each() -> None:
    stats = get_scheduler().loop.stats
    before = stats.registrations, stats.modifications, stats.unregistrations
    with fsocket.create_server(("127.0.0.1", 0)) as listener:
        for _ in range(10):
            acceptor = fibers.spawn(listener.accept)
            fibers.yield_now()
            with socket.create_connection(listener.getsockname()) as client:
                server, _address = acceptor.result(5)
                with server:
                    for _ in range(5):
                        reader = fibers.spawn(server.recv, 10)
                        fibers.yield_now()
                        client.send(b"hello")
                        assert reader.result(5) == b"hello"
    after = stats.registrations, stats.modifications, stats.unregistrations
    assert tuple(now - then for now, then in zip(after, before, strict=True)) == (11, 0, 11)


class Broken:
    """A poller whose `arm` fails as often as it is told to, as the kernel does at max_user_watches."""

    def __init__(self, poller: Any, error: OSError) -> None:
        self._poller = poller
        self._error = error
        self.broken = True

    def arm(self, fd: int, interest: int, armed: int) -> None:
        if self.broken:
            raise self._error
        self._poller.arm(fd, interest, armed)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._poller, name)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENOMEM])
def test_add_fails_it_raises_and_raises_again(loop: Any, pair: Pair, number: int) -> None:
    """Row "ADD fails": a half-registered fd slept for ever."""
    a, b = pair
    handle = loop.handle(a.fileno(), True)
    broken: Any = Broken(loop._poller, OSError(number, os.strerror(number)))
    loop._poller = broken
    for _ in range(2):
        with pytest.raises(OSError, match=r"No space|memory") as caught:
            loop.watch(handle.reading, loop.clock() + 30)
        assert caught.value.errno == number
        assert not handle.reading.armed
        assert not handle.registered
        assert handle.fd not in ownership.owners
        assert handle.reading.timer is None
    assert loop.stats.registrations == 0
    broken.broken = False
    waiter = wait(loop, handle.reading)
    b.send(b"x")
    assert woken(loop) == [waiter]
    broken.broken = True
    with pytest.raises(OSError, match=r"No space|memory"):
        loop.watch(handle.writing, FOREVER)
    assert not handle.writing.armed
    assert ownership.owners[handle.fd] is handle, "the direction that is registered stays"
    loop.release(handle, lambda: None)
    assert loop.stats.unregistrations == 1


@lifetime_only
def test_add_fails_in_the_middle_of_a_recv_and_the_fiber_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    loop: Any = get_scheduler().loop
    a, b = fsocket.socketpair()
    with a, b:
        broken = Broken(loop._poller, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        loop._poller = broken
        try:
            for _ in range(2):
                with pytest.raises(OSError, match="No space"):
                    a.recv(1)
        finally:
            loop._poller = broken._poller
        reader = fibers.spawn(a.recv, 1)
        fibers.yield_now()
        b.send(b"x")
        assert reader.result(5) == b"x"


def test_interest_bits_are_told_once_to_a_lifetime_poller(loop: Any, pair: Pair) -> None:
    """A second waiter of an armed direction costs no call."""
    a, _b = pair
    handle = loop.handle(a.fileno(), True)
    calls: list[tuple[int, int]] = []
    real = loop._poller

    class Spy:
        def arm(self, fd: int, interest: int, armed: int) -> None:
            calls.append((interest, armed))
            real.arm(fd, interest, armed)

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    loop._poller = Spy()
    for seconds in (30, 20, 10):
        wait(loop, handle.reading, loop.clock() + seconds)
    wait(loop, handle.writing)
    assert calls == [(READ, 0), (WRITE, READ)]
    loop.release(handle, lambda: None)
    loop.ready.clear()


def test_who_waits_for_nothing_but_the_close_is_told_of_it_in_the_loop_that_the_file_has_moved_to(
    loop_factory: Any, loop: Any, pair: Pair
) -> None:
    """It was never registered in the first loop, which has nothing to let go of."""
    told: list[bool] = []

    class Watcher:
        def notice(self) -> None:
            told.append(True)

    other = loop_factory()
    handle = loop.handle(pair[0].fileno(), True)
    handle.writing.observe(Watcher())
    moved = other.claim(handle)
    assert (handle.closed, moved.closed, told) == (True, False, [])
    moved.close()
    assert told == [True]
    other.close()
