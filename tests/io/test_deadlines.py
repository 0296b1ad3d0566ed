"""Hazard 10, invariant 4, #8480: one lazy timer per direction, and data beats it.

Facts. A timed recv does not make a timer of its own: it moves a deadline, and the direction's one timer is looked at
again when it surfaces. So an earlier deadline must bring its own timer, a later one must not fire with the old one, and
an entry may outlive its wait by at most one stale wake-up.
"""

import select
import time

import pytest
from support.sockets import Pair

import fibers
from fibers.core.scheduler import get_scheduler
from fibers.io import socket
from fibers.io.state import state_of


def compute(seconds: float) -> None:
    """Keep the thread without letting anybody run."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def test_hazard_10_settimeout_30_and_then_a_tenth_fires_at_a_tenth(pair: Pair) -> None:
    a, b = pair
    a.settimeout(30)
    reader = fibers.spawn(a.recv, 1)
    fibers.yield_now()
    b.send(b"x")
    assert reader.result(5) == b"x"
    a.settimeout(0.1)
    started = fibers.current_time()
    with pytest.raises(TimeoutError):
        a.recv(1)
    assert 0.1 <= fibers.current_time() - started < 5


def test_hazard_10_a_tenth_and_then_thirty_does_not_fire_at_a_tenth(pair: Pair) -> None:
    a, b = pair
    a.settimeout(0.02)
    reader = fibers.spawn(a.recv, 1)
    fibers.yield_now()
    b.send(b"x")
    assert reader.result(5) == b"x"
    a.settimeout(30)
    reader = fibers.spawn(a.recv, 1)
    fibers.sleep(0.05)
    assert not reader.done()
    b.send(b"y")
    assert reader.result(5) == b"y"


@pytest.mark.parametrize("seconds", [0.0001, 0.001, 0.0105, 0.05])
def test_hazard_10_timeouts_are_never_early(pair: Pair, seconds: float) -> None:
    a, _b = pair
    a.settimeout(seconds)
    for _ in range(5):
        started = fibers.current_time()
        with pytest.raises(TimeoutError):
            a.recv(1)
        assert fibers.current_time() - started >= seconds


def test_hazard_10_at_most_one_stale_wake_up_per_direction(pair: Pair) -> None:
    """Many timed reads end in time; afterwards their one entry surfaces once, and then all is quiet."""
    a, b = pair
    a.settimeout(0.03)
    for _ in range(50):
        reader = fibers.spawn(a.recv, 1)
        fibers.yield_now()
        b.send(b"x")
        assert reader.result(5) == b"x"
    stats = get_scheduler().loop.stats
    turns = stats.turns
    fibers.sleep(0.2)
    assert stats.turns - turns <= 4


def test_hazard_10_a_timed_recv_adds_no_timer_of_its_own(pair: Pair) -> None:
    a, b = pair
    a.settimeout(30)
    timers = get_scheduler().loop.timers  # type: ignore[attr-defined]
    before = len(timers)
    for _ in range(100):
        reader = fibers.spawn(a.recv, 1)
        fibers.yield_now()
        b.send(b"x")
        reader.join()
    assert len(timers) <= before + 1
    timer = state_of(a).reading.timer
    assert timer is not None


def test_hazard_10_close_removes_the_entry(pair: Pair) -> None:
    a, b = pair
    timers = get_scheduler().loop.timers  # type: ignore[attr-defined]
    before = len(timers)
    a.settimeout(30)
    reader = fibers.spawn(a.recv, 1)
    fibers.yield_now()
    b.send(b"x")
    reader.result(5)
    a.close()
    assert len(timers) == before


def test_8480_data_beats_a_timeout_that_a_busy_fiber_caused(pair: Pair) -> None:
    """#8480: the thread is blocked past the deadline of a recv while its data arrives: data wins."""
    a, b = pair
    a.settimeout(0.03)
    reader = fibers.spawn(a.recv, 10)
    fibers.yield_now()
    b.send(b"data")
    compute(0.06)
    assert reader.result(5) == b"data"


def test_8480_data_beats_the_timeout_of_a_second_wait_as_well(pair: Pair) -> None:
    a, b = pair
    a.settimeout(0.03)
    for _ in range(3):
        reader = fibers.spawn(a.recv, 10)
        fibers.yield_now()
        b.send(b"data")
        compute(0.04)
        assert reader.result(5) == b"data"


def test_8480_the_holder_of_the_turn_makes_a_last_try_although_the_loop_saw_no_edge(pair: Pair) -> None:
    """The deadline fires and the data is in the kernel, unseen by the loop: the waiter tries once more."""
    a, b = pair
    a.settimeout(5)
    reader = fibers.spawn(a.recv, 10)
    fibers.yield_now()
    reading = state_of(a).reading
    assert reading.waiter is reader
    timer = reading.timer
    assert timer is not None
    b.send(b"data")
    assert select.select([a], [], [], 5)[0]
    reader.deadline = timer.deadline
    reading.expire(timer)
    assert reader.result(5) == b"data"


def test_8480_accept_and_sendall_beat_their_deadlines_too(pair: Pair) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.03)
        acceptor = fibers.spawn(listener.accept)
        fibers.yield_now()
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(listener.getsockname())
        compute(0.06)
        acceptor.result(5)[0].close()
        client.close()


def test_a_deadline_of_sendall_is_for_the_whole(pair: Pair) -> None:
    """As in the standard library: the time counts from the start, progress does not prolong it."""
    a, b = pair
    a.settimeout(0.15)
    started = fibers.current_time()

    def trickle() -> None:
        while b.recv(32768):
            fibers.sleep(0.02)

    reader = fibers.spawn(trickle)
    with pytest.raises(TimeoutError):
        a.sendall(bytes(64 << 20))
    assert 0.15 <= fibers.current_time() - started < 5
    reader.cancel()
    reader.join(5)


def test_far_deadlines_do_not_overflow(pair: Pair) -> None:
    """Hazard 16: a wait over 2,147,483 s, or an infinite one."""
    a, b = pair
    for seconds in (2_147_484.0, 1e9, 1e300, float("inf")):
        a.settimeout(seconds)
        reader = fibers.spawn(a.recv, 1)
        fibers.sleep(0.001)
        assert not reader.done()
        b.send(b"x")
        assert reader.result(5) == b"x"
