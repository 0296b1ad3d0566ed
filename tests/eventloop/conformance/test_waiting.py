"""Edges, the latch and turns: a waiter is woken by an event of its direction, exactly once, and in its turn."""

import socket
from collections.abc import Iterator

import pytest
from support.loops import lifetime_loops
from support.waiting import Waiter, looks, operate, wait, woken

from fibers.eventloop import FOREVER, TIMED_OUT, EventLoop, Handle

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    a, b = socket.socketpair()
    a.setblocking(False)
    b.setblocking(False)
    with a, b:
        yield a, b


@pytest.fixture
def handle(loop: EventLoop, pair: Pair) -> Iterator[Handle]:
    """Of the first socket of the pair."""
    made = loop.handle(pair[0].fileno(), True)
    yield made
    loop.release(made, lambda: None)
    loop.ready.clear()


def fill(sock: socket.socket) -> None:
    try:
        while True:
            sock.send(bytes(65536))
    except BlockingIOError:
        pass


def drain(sock: socket.socket) -> None:
    try:
        while sock.recv(1 << 20):
            pass
    except BlockingIOError:
        pass


def test_an_event_wakes_the_waiter_and_says_nothing_else(loop: EventLoop, handle: Handle, pair: Pair) -> None:
    waiter = wait(loop, handle.reading)
    assert looks(loop) == []
    pair[1].send(b"x")
    assert woken(loop) == [waiter]
    assert waiter.outcome is None
    assert handle.reading.waiter is None
    assert handle.reading.edges != handle.reading.drained


def test_it_is_woken_once_although_the_data_stay(loop: EventLoop, handle: Handle, pair: Pair) -> None:
    waiter = wait(loop, handle.reading)
    pair[1].send(b"x")
    assert woken(loop) == [waiter]
    assert looks(loop) == []
    pair[1].send(b"x")
    assert looks(loop) == []


def test_every_wait_gets_its_event(loop: EventLoop, handle: Handle, pair: Pair) -> None:
    for _ in range(10):
        waiter = wait(loop, handle.reading)
        pair[1].send(b"x")
        assert woken(loop) == [waiter]
        pair[0].recv(10)


def test_what_is_ready_before_the_wait_is_reported(loop: EventLoop, handle: Handle, pair: Pair) -> None:
    pair[1].send(b"x")
    waiter = wait(loop, handle.reading)
    assert woken(loop) == [waiter]


def test_what_came_while_nobody_waited_is_not_missed(loop: EventLoop, handle: Handle, pair: Pair) -> None:
    a, b = pair
    for _ in range(3):
        assert operate(loop, handle.reading, lambda: a.recv(10), then=lambda: b.send(b"x")) == b"x"
        handle.reading.drained = handle.reading.edges  # as after a short read
        b.send(b"y")
        assert looks(loop) == []
        assert operate(loop, handle.reading, lambda: a.recv(10)) == b"y"


@lifetime_loops("others learn nothing of a file that nobody waits for; they look at it when somebody does")
def test_an_event_that_meets_no_waiter_counts(loop: EventLoop, handle: Handle, pair: Pair) -> None:
    """The next operation tries before it waits. (A level-triggered one is armed anew for that.)"""
    waiter = wait(loop, handle.reading)
    pair[1].send(b"x")
    assert woken(loop) == [waiter]
    pair[0].recv(10)
    handle.reading.drained = handle.reading.edges
    assert loop.watch(handle.reading, FOREVER)
    pair[1].send(b"x")
    looks(loop)
    assert handle.reading.edges != handle.reading.drained


def test_the_directions_of_a_file_are_apart(loop: EventLoop, handle: Handle, pair: Pair) -> None:
    a, b = pair
    fill(a)
    reader, writer = wait(loop, handle.reading), wait(loop, handle.writing)
    looks(loop)  # the second registration may report both once more
    for direction, waiter in ((handle.reading, reader), (handle.writing, writer)):
        if direction.waiter is None:
            direction.waiter = waiter
            if not direction.armed:
                assert loop.watch(direction, FOREVER)
    b.send(b"x")
    assert woken(loop) == [reader]
    drain(b)
    assert woken(loop) == [writer]
    assert (reader.outcome, writer.outcome) == (None, None)


def test_a_hang_up_wakes_both_directions(loop: EventLoop, handle: Handle, pair: Pair) -> None:
    a, b = pair
    fill(a)
    waiters = {wait(loop, handle.reading), wait(loop, handle.writing)}
    b.close()
    seen = set(woken(loop))
    while seen != waiters:
        more = set(woken(loop))
        assert more
        assert not more & seen
        seen |= more


def test_all_that_is_ready_is_reported_in_one_turn(loop: EventLoop) -> None:
    pairs = [socket.socketpair() for _ in range(10)]
    handles = [loop.handle(a.fileno(), True) for a, _ in pairs]
    waiters = {wait(loop, handle.reading, name=str(handle.fd)) for handle in handles}
    for _, b in pairs:
        b.send(b"x")
    loop.turn(True)
    assert set(loop.ready) == waiters
    assert len(loop.ready) == 10
    loop.ready.clear()
    for handle, (a, b) in zip(handles, pairs, strict=True):
        loop.release(handle, a.close)
        b.close()


def test_a_turn_runs_nobody(loop: EventLoop, handle: Handle, pair: Pair) -> None:
    """Who was ready stays so, in front; and a turn does not sleep while somebody is."""
    early = [Waiter("first"), Waiter("second")]
    loop.ready.extend(early)
    waiter = wait(loop, handle.reading)
    loop.turn(True)
    assert list(loop.ready) == early
    pair[1].send(b"x")
    loop.turn(True)
    assert list(loop.ready) == [*early, waiter]


def test_the_queue_of_a_direction_is_served_first_come_first_served(
    loop: EventLoop, handle: Handle, pair: Pair
) -> None:
    """An event is for the holder of the turn alone; each hands the turn on, and the heir may try at once."""
    reading = handle.reading
    holder = wait(loop, reading, name="holder")
    queued = [Waiter(str(number)) for number in range(3)]
    for waiter in queued:
        reading.enqueue(waiter)
    pair[1].send(b"x")
    assert woken(loop) == [holder]
    assert looks(loop) == []
    for waiter in queued:
        reading.release()
        assert reading.holder is waiter
        assert list(loop.ready) == [waiter]
        loop.ready.clear()
    reading.release()
    assert reading.holder is None
    assert not loop.ready


def test_a_deadline_in_the_queue_is_of_that_waiter_alone(loop: EventLoop, handle: Handle, pair: Pair) -> None:
    reading = handle.reading
    holder = wait(loop, reading)
    patient, hasty = Waiter("patient"), Waiter("hasty", loop.clock() + 0.002)
    for waiter in (patient, hasty):
        reading.enqueue(waiter)
        if waiter.deadline < reading.alarm:
            reading.set_alarm(waiter.deadline)
    assert woken(loop) == [hasty]
    assert hasty.outcome is TIMED_OUT
    pair[1].send(b"x")
    assert woken(loop) == [holder]
    reading.release()
    assert woken(loop) == [patient]
    assert patient.outcome is None


def test_who_is_taken_out_is_not_woken_afterwards(loop: EventLoop, handle: Handle, pair: Pair) -> None:
    """Whoever takes a waiter out wakes it, or not: there is one winner."""
    for direction in (handle.reading, handle.writing):
        waiter = wait(loop, direction)
        assert direction.holds(waiter)
        assert direction.abandon(waiter)
        assert not direction.holds(waiter)
        assert not direction.abandon(waiter)
    queued = Waiter("queued")
    handle.reading.enqueue(queued)
    assert handle.reading.abandon(queued)
    pair[1].send(b"x")
    assert looks(loop) == []


def test_who_has_been_woken_cannot_be_taken_out(loop: EventLoop, handle: Handle, pair: Pair) -> None:
    waiter = wait(loop, handle.reading)
    pair[1].send(b"x")
    loop.turn(True)
    assert not handle.reading.abandon(waiter)
    assert list(loop.ready) == [waiter]
