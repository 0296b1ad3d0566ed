"""Closing a file, losing it, and closing a loop: who waits is woken, and nothing reaches a later file of the same number."""

import errno
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.loops import NAMES, USABLE, Kind, lifetime_loops
from support.waiting import Target, Waiter, looks, wait, woken

from fibers.errors import ClosedError
from fibers.eventloop import CLOSED, FOREVER, RETRY, EventLoop, Handle

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    a, b = socket.socketpair()
    a.setblocking(False)
    with a, b:
        yield a, b


def test_release_wakes_everybody_and_then_closes_the_fd(loop: EventLoop, pair: Pair) -> None:
    handle = loop.handle(pair[0].fileno(), True)
    waiters = [wait(loop, handle.reading, name="reader")]
    for name in ("second", "third"):
        waiters.append(Waiter(name))
        handle.reading.enqueue(waiters[-1])
    waiters.append(wait(loop, handle.writing, loop.clock() + 30, name="writer"))
    looks(loop, 1)  # it can be written
    if handle.writing.waiter is None:
        waiters.pop()
    closed: list[list[Any]] = []

    def finish() -> None:
        closed.append(list(loop.ready))

    loop.release(handle, finish)
    assert closed == [waiters], "woken, in order, before the fd is closed"
    assert [waiter.outcome for waiter in waiters] == [CLOSED] * len(waiters)
    assert handle.closed
    assert handle.reading.closed
    assert handle.reading.edges == handle.reading.drained, "nobody tries first any more"
    assert loop.quiet(), "no timer is left"
    loop.ready.clear()
    assert looks(loop) == []
    assert loop.stats.registrations == loop.stats.unregistrations


def test_a_released_file_cannot_be_claimed(loop: EventLoop, pair: Pair) -> None:
    handle = loop.handle(pair[0].fileno(), True)
    loop.release(handle, lambda: None)
    with pytest.raises(ClosedError):
        loop.claim(handle)


def test_a_file_that_never_waited_is_never_registered(loop: EventLoop, pair: Pair) -> None:
    handle = loop.handle(pair[0].fileno(), True)
    loop.release(handle, lambda: None)
    assert (loop.stats.registrations, loop.stats.unregistrations) == (0, 0)


def test_release_by_another_thread_of_a_file_that_is_waited_for(loop: EventLoop, pair: Pair) -> None:
    """It ends the sleep of the loop, whose thread wakes the waiter; after that the fd is closed, once."""
    handle = loop.handle(pair[0].fileno(), True)
    waiter = wait(loop, handle.reading)
    closed: list[Any] = []

    def release() -> None:
        while not loop.asleep:
            time.sleep(0)
        loop.release(handle, lambda: closed.append(waiter.outcome))

    thread = threading.Thread(target=release)
    thread.start()
    assert woken(loop) == [waiter]
    thread.join()
    assert closed == [CLOSED]


def test_release_by_another_thread_of_a_file_that_nobody_waits_for(loop: EventLoop, pair: Pair) -> None:
    handle = loop.handle(pair[0].fileno(), True)
    wait(loop, handle.reading)
    pair[1].send(b"x")
    woken(loop)
    handle.reading.holder = None
    closed: list[int] = []
    thread = threading.Thread(target=loop.release, args=(handle, lambda: closed.append(1)))
    thread.start()
    thread.join()
    assert closed == [1]
    assert looks(loop) == []
    assert handle.closed
    assert not loop.taken(handle.fd)


def test_taken_tells_which_numbers_are_in_use(loop: EventLoop, pair: Pair) -> None:
    handle = loop.handle(pair[0].fileno(), True)
    assert not loop.taken(handle.fd)
    wait(loop, handle.reading)
    assert loop.taken(handle.fd)
    elsewhere: list[bool] = []
    thread = threading.Thread(target=lambda: elsewhere.append(loop.taken(handle.fd)))
    thread.start()
    thread.join()
    assert elsewhere == [True]
    loop.release(handle, lambda: None)
    assert not loop.taken(handle.fd)
    loop.ready.clear()


def test_a_loop_that_is_closed_sends_its_waiters_elsewhere(loop_factory: Kind, pair: Pair) -> None:
    """RETRY: the files are not closed, and free. Timers come to nothing, posts are run. A second call does nothing."""
    loop = loop_factory()
    handle = loop.handle(pair[0].fileno(), True)
    waiter, queued = wait(loop, handle.reading, loop.clock() + 30), Waiter("queued")
    handle.reading.enqueue(queued)
    order: list[Any] = []
    loop.schedule(loop.clock(), Target("timer", order))
    loop.post(order.append, "post")
    loop.close()
    assert list(loop.ready) == [waiter, queued]
    assert (waiter.outcome, queued.outcome) == (RETRY, RETRY)
    assert order == ["post"]
    assert loop.closed
    assert not handle.closed
    assert not loop.taken(handle.fd)
    loop.close()
    assert list(loop.ready) == [waiter, queued]
    second = loop_factory()
    successor = second.claim(handle)
    assert successor.loop is second
    waiter = wait(second, successor.reading)
    pair[1].send(b"x")
    assert woken(second) == [waiter]
    second.release(successor, lambda: None)
    second.close()


def test_a_file_first_used_where_no_loop_ran_can_be_claimed(loop: EventLoop, pair: Pair) -> None:
    handle = loop.claim(Handle(pair[0].fileno(), None))
    assert handle.loop is loop
    assert loop.claim(handle) is handle
    waiter = wait(loop, handle.reading)
    pair[1].send(b"x")
    assert woken(loop) == [waiter]
    loop.release(handle, lambda: None)


def test_a_file_with_nothing_pending_may_be_waited_for_in_another_thread(loop_factory: Kind, pair: Pair) -> None:
    first = loop_factory()
    handle = first.handle(pair[0].fileno(), True)
    wait(first, handle.reading)
    pair[1].send(b"x")
    woken(first)
    handle.reading.release()
    got: list[bool] = []

    def elsewhere() -> None:
        second = loop_factory()
        other = second.claim(handle)
        waiter = wait(second, other.reading)  # the byte is there still
        got.append(woken(second) == [waiter])
        second.release(other, lambda: None)
        second.close()

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert got == [True]
    assert looks(first) == []
    first.close()


@lifetime_loops("any thread may wait in a libevent loop of its own")
def test_a_file_that_is_waited_for_does_not_move(loop_factory: Kind, pair: Pair) -> None:
    first = loop_factory()
    handle = first.handle(pair[0].fileno(), True)
    waiter = wait(first, handle.reading)
    raised: list[Exception] = []

    def elsewhere() -> None:
        second = loop_factory()
        try:
            second.claim(handle)
        except RuntimeError as error:
            raised.append(error)
        second.close()

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert type(raised[0]).__name__ == "OwnershipError"
    pair[1].send(b"x")
    assert woken(first) == [waiter]
    first.release(handle, lambda: None)
    first.close()


# -- numbers that come back ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fresh", [True, False], ids=["said to be fresh", "nobody says so"])
def test_a_number_seen_on_another_file_ends_the_waits_for_the_old_one(loop: EventLoop, fresh: bool) -> None:
    stale_end, far = socket.socketpair()
    number = os.dup(stale_end.fileno())
    stale = wait(loop, loop.handle(number, True).reading)
    a, b = socket.socketpair()
    os.dup2(a.fileno(), number)  # closes the first, behind the loop's back
    handle = loop.handle(number, fresh)
    assert (stale.outcome is CLOSED) == fresh
    waiter = wait(loop, handle.reading)
    assert list(loop.ready) == [stale]
    assert stale.outcome is CLOSED
    loop.ready.clear()
    b.send(b"x")
    assert woken(loop) == [waiter]
    loop.release(handle, lambda: os.close(number))
    assert loop.stats.registrations == loop.stats.unregistrations == 2
    for each in (stale_end, far, a, b):
        each.close()


def test_a_reused_number_gets_nothing_of_the_old_file(loop: EventLoop) -> None:
    """Neither its waiter, nor its timer, nor a release that was posted for it."""
    a, b = socket.socketpair()
    c, d = socket.socketpair()
    with a, b, c, d:
        number = os.dup(a.fileno())
        old = loop.handle(number, True)
        stale = wait(loop, old.reading, loop.clock() + 0.001)
        alarm = old.reading.alarm
        loop.release(old, lambda: os.close(number))
        assert list(loop.ready) == [stale]
        loop.ready.clear()
        os.dup2(c.fileno(), number)
        new = loop.handle(number, True)
        waiter = wait(loop, new.reading, loop.clock() + 30)
        loop.release(old, lambda: None)
        while loop.clock() < alarm:
            loop.turn(False)
        b.send(b"x")
        assert looks(loop) == []
        assert new.reading.holds(waiter)
        d.send(b"x")
        assert woken(loop) == [waiter]
        assert waiter.outcome is None
        loop.release(new, lambda: os.close(number))


def test_a_file_closed_behind_the_back_harms_nobody_else(loop_factory: Kind) -> None:
    """Whether its waiter hears of it at once is the kernel's choice; the loop neither spins nor fails, and wakes it once."""
    loop = loop_factory()
    a, b = socket.socketpair()
    c, d = socket.socketpair()
    lost, other = loop.handle(a.fileno(), True), loop.handle(c.fileno(), True)
    waiter, second = wait(loop, lost.reading), wait(loop, other.reading)
    os.close(a.detach())
    found = looks(loop)
    if loop_factory.level_triggered:
        assert found == [waiter]
        assert waiter.outcome is CLOSED
        assert lost.closed
    assert found in ([], [waiter])
    turns, done = loop.stats.turns, list[str]()
    loop.schedule(loop.clock() + 0.02, Target("timer", done))
    while not done:
        loop.turn(True)
    assert loop.stats.turns - turns <= 4, "it spins"
    found += list(loop.ready)
    loop.ready.clear()
    d.send(b"x")
    assert woken(loop) == [second]
    loop.release(lost, lambda: None)
    assert found + list(loop.ready) == [waiter], "woken exactly once, whoever noticed"
    loop.ready.clear()
    loop.release(other, lambda: None)
    loop.close()
    for each in (b, c, d):
        each.close()


# -- files that never block, and those that are none ------------------------------------------------------------------


def test_a_regular_file_never_blocks(loop: EventLoop, tmp_path: Path) -> None:
    """EPERM of epoll: nothing to wait for. Others report it as ready at once."""
    with open(tmp_path / "file", "w+b") as file:
        handle = loop.handle(file.fileno(), True)
        handle.reading.drained = handle.reading.edges
        handle.reading.holder = handle.reading.waiter = waiter = Waiter()
        if loop.watch(handle.reading, FOREVER):
            assert woken(loop) == [waiter]
        else:
            assert not handle.reading.armed
            handle.reading.waiter = None
        loop.release(handle, lambda: None)
        assert not loop.taken(handle.fd)
        assert loop.stats.registrations == loop.stats.unregistrations


def test_a_number_that_is_no_file_is_told_of(loop: EventLoop) -> None:
    """The kernel refuses it at once, or the waiter gets CLOSED; nothing is left behind."""
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    handle = loop.handle(reader, True)
    handle.reading.holder = handle.reading.waiter = waiter = Waiter()
    try:
        watched = loop.watch(handle.reading, FOREVER)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        assert loop.stats.registrations == loop.stats.unregistrations == 0
        handle.reading.waiter = None
    else:
        assert watched
        assert woken(loop) == [waiter]
    loop.release(handle, lambda: None)
    assert loop.stats.registrations == loop.stats.unregistrations
    assert not loop.taken(reader)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_closed_loop_leaves_no_fd_open() -> None:
    before = os.listdir("/proc/self/fd")
    for kind in USABLE:
        loop = kind()
        loop.turn(False)
        loop.close()
        assert os.listdir("/proc/self/fd") == before, str(kind)
    assert len(USABLE) >= 2 * (len(NAMES) - 1)
