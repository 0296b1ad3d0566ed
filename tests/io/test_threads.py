"""Hazard 9, #15647, #15214, #16127, #15282: sockets that several threads move, close, share and drop."""

import errno
import gc
import os
import random
import socket as std
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from support.scale import SEED, scaled
from support.sockets import Pair

import fibers
from fibers.core.scheduler import get_scheduler
from fibers.eventloop import ownership
from fibers.io import socket
from fibers.io.state import state_of, states
from fibers.threads.to_thread import to_thread


def elsewhere(fn: Callable[..., Any], *args: Any) -> Any:
    """Call `fn` in another thread with a loop of its own, which is finished when this returns."""
    return to_thread(fibers.run, fn, *args)


def waited_here(a: socket.socket, b: socket.socket) -> None:
    reader = fibers.spawn(a.recv, 1)
    fibers.yield_now()
    b.send(b"x")
    assert reader.result(5) == b"x"


def test_15647_a_timed_read_in_thread_b_of_a_socket_that_had_waited_in_thread_a(pair: Pair) -> None:
    """#15647: wait in A, hand to B, `recv` with timeout while the peer streams: data in milliseconds."""
    a, b = pair
    waited_here(a, b)
    stop = threading.Event()

    def stream() -> None:
        with std.socket(fileno=os.dup(b.fileno())) as raw:
            raw.setblocking(True)
            while not stop.wait(0.002):
                raw.send(b"tick")

    def timed_reads() -> float:
        a.settimeout(2)
        longest = 0.0
        for _ in range(20):
            started = time.monotonic()
            assert a.recv(100)
            longest = max(longest, time.monotonic() - started)
        return longest

    thread = threading.Thread(target=stream)
    thread.start()
    try:
        assert elsewhere(timed_reads) < 1
    finally:
        stop.set()
        thread.join()


def test_15214_many_threads_write_to_one_socket_and_an_idle_loop_stays_idle() -> None:
    """#15214: the loop that first waited for a file burned CPU on edges that nobody waited for."""
    a, b = socket.socketpair()
    count, size = 4, scaled(2_000_000, least=100_000)
    with a, b:
        a.settimeout(0.01)
        try:
            while True:
                a.send(bytes(65536), socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass
        with pytest.raises(TimeoutError):
            a.sendall(bytes(65536))  # registered here, for writing
        a.settimeout(None)
        twins = [a.dup() for _ in range(count)]

        def read_all() -> None:
            with std.socket(fileno=os.dup(b.fileno())) as raw:
                raw.setblocking(True)
                while raw.recv(65536):
                    pass

        reader = threading.Thread(target=read_all)
        reader.start()
        writers = [threading.Thread(target=fibers.run, args=(twin.sendall, bytes(size))) for twin in twins]
        stats = get_scheduler().loop.stats
        for writer in writers:
            writer.start()
        turns = stats.turns
        waiters = [fibers.spawn(to_thread, writer.join) for writer in writers]
        for waiter in waiters:
            waiter.result(30)
        assert stats.turns - turns < 40
        a.shutdown(socket.SHUT_WR)
        for twin in twins:
            twin.close()
        reader.join()


def test_16127_close_and_reuse_of_the_number_by_another_thread() -> None:
    """#16127: reader loops, closer closes and re-opens the number: no foreign byte ever."""
    rng = random.Random(SEED)
    rounds = scaled(4000, least=100)
    foreign: list[bytes] = []
    for _ in range(rounds):
        a, b = socket.socketpair()
        c, d = std.socketpair()
        reading = threading.Event()

        def read(a: socket.socket = a, reading: threading.Event = reading) -> None:
            reading.set()
            try:
                while data := a.recv(1):
                    if data != b"g":
                        foreign.append(data)
            except OSError as error:  # ClosedError if it waited, else what the kernel says of number -1
                if error.errno != errno.EBADF:
                    raise

        reader = threading.Thread(target=fibers.run, args=(read,))
        reader.start()
        reading.wait(5)
        number = a.fileno()
        b.send(b"g" * rng.randrange(4), socket.MSG_DONTWAIT)
        if rng.random() < 0.5:
            time.sleep(rng.random() * 0.0005)  # the moment of the close is what is random here
        a.close()
        try:
            taken = os.dup(c.fileno())  # takes the lowest free number: most often that of `a`
            d.send(b"FOREIGN")
            reader.join(5)
            assert not reader.is_alive(), "closing did not end the reader"
            assert c.recv(100) == b"FOREIGN"
            os.close(taken)
            assert number >= 0
        finally:
            for each in (b, c, d):
                each.close()
    assert foreign == []


def wait_and_close(a: socket.socket, b: socket.socket) -> None:
    waited_here(a, b)
    a.close()
    b.close()


def test_hazard_9_a_late_close_of_a_moved_socket_spares_its_successor() -> None:
    """Forget requests name the file and not the number: the number is re-used at once, and registered."""
    for _ in range(50):
        a, b = socket.socketpair()
        waited_here(a, b)
        elsewhere(wait_and_close, a, b)
        c, d = socket.socketpair()
        reader = fibers.spawn(c.recv, 1)
        fibers.yield_now()
        fibers.sleep(0)
        d.send(b"y")
        assert reader.result(5) == b"y"
        c.close()
        d.close()


@pytest.mark.parametrize("operation", ["recv", "sendall", "accept"])
def test_hazard_9_a_close_in_another_thread_wakes_the_waiters(operation: str) -> None:
    if operation == "accept":
        waiters: list[fibers.Fiber[Any]]
        a = b = socket.create_server(("127.0.0.1", 0))
        waiters = [fibers.spawn(a.accept) for _ in range(3)]
    else:
        a, b = socket.socketpair()
        waiters = [
            fibers.spawn(a.recv, 1) if operation == "recv" else fibers.spawn(a.sendall, bytes(1 << 22))
            for _ in range(3)
        ]
    fibers.yield_now()
    closer = threading.Thread(target=a.close)
    closer.start()
    for waiter in waiters:
        with pytest.raises(fibers.ClosedError):
            waiter.result(5)
    closer.join(5)
    assert a.fileno() == -1
    b.close()


def test_hazard_9_a_foreign_close_gives_the_number_back_only_after_the_owner_has_let_go() -> None:
    """While the owner's fiber has not been told, the number must not go to another file."""
    a, b = socket.socketpair()
    reader = fibers.spawn(a.recv, 1)
    fibers.yield_now()
    number = a.fileno()
    inode = os.fstat(number).st_ino
    closer = threading.Thread(target=a.close)
    closer.start()
    closer.join(5)
    assert os.fstat(number).st_ino == inode, "still open: the owner has had no turn since"
    with pytest.raises(fibers.ClosedError):
        reader.result(5)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(number)
    b.close()


def test_hazard_9_a_second_close_does_nothing_from_any_thread(pair: Pair) -> None:
    a, b = pair
    waited_here(a, b)
    a.close()
    with open(os.devnull) as null:  # takes the number
        a.close()
        to_thread(a.close)
        os.fstat(null.fileno())


def test_hazard_9_a_dup_for_writing_is_not_woken_by_arriving_data(pair: Pair) -> None:
    """Each direction is armed at its own first wait: 100 packets wake a fiber that writes to a dup not once."""
    a, b = pair
    with a.dup() as twin:
        already = 0
        try:
            while True:
                already += twin.send(bytes(65536), socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass
        writer = fibers.spawn(twin.sendall, b"end")
        fibers.yield_now()
        for _ in range(100):
            reader = fibers.spawn(a.recv, 1)
            fibers.yield_now()
            b.send(b"x")
            assert reader.result(5) == b"x"
        assert not writer.done()
        assert state_of(twin).writing.edges <= 2
        left = already + 3
        while left:
            left -= len(b.recv(min(left, 1 << 20)))
        writer.result(5)


def test_15282_the_last_reference_dropped_in_a_plain_thread(pair: Pair) -> None:
    """#15282: a finaliser on a thread without a loop."""
    gc.collect()
    owners, entries = set(ownership.owners), len(states)
    box = []
    for _ in range(5):
        a, b = socket.socketpair()
        waited_here(a, b)
        box.append((a, b))
    fds = [a.fileno() for a, _ in box]
    del a, b

    def drop() -> None:
        with pytest.warns(ResourceWarning, match="unclosed"):
            box.clear()

    thread = threading.Thread(target=drop)
    thread.start()
    thread.join(5)
    fibers.sleep(0.001)
    assert set(ownership.owners) == owners
    gc.collect()
    assert len(states) <= entries
    for fd in fds:
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(fd)
    waited_here(*pair)


def test_15282_the_last_reference_dropped_by_the_collector_while_the_loop_works(pair: Pair) -> None:
    gc.collect()
    owners, entries = set(ownership.owners), len(states)

    class Cycle:
        def __init__(self, sock: socket.socket) -> None:
            self.sock = sock
            self.me = self

    for _ in range(5):
        a, b = socket.socketpair()
        waited_here(a, b)
        b.close()
        Cycle(a)
        del a
        with pytest.warns(ResourceWarning, match="unclosed"):
            gc.collect()
        waited_here(*pair)
    fibers.sleep(0.001)
    assert set(ownership.owners) <= owners | {pair[0].fileno(), pair[1].fileno()}
    assert len(states) <= entries + 2


def test_15282_a_dropped_socket_whose_number_is_taken_over_at_once() -> None:
    """The posted "forget" of the dead one must not hit the successor that has the number by then."""
    for _ in range(50):
        a, b = socket.socketpair()
        waited_here(a, b)
        number = a.fileno()
        with pytest.warns(ResourceWarning, match="unclosed"):
            del a
        c, d = socket.socketpair()
        reader = fibers.spawn(c.recv, 1)
        fibers.yield_now()
        fibers.sleep(0)
        d.send(b"y")
        assert reader.result(5) == b"y"
        assert number in (c.fileno(), d.fileno())
        for each in (b, c, d):
            each.close()
