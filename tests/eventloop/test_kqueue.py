"""The facts of kqueue on which the poller stands, and the poller on them: on a real kqueue if there is one, else the fake.

Each test is of real descriptors, and says nothing that differs from one BSD to another, or macOS. What the fake alone
promises is in test_fake_kqueue.py.
"""

import errno
import importlib
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fibers.eventloop import PollingLoop
from fibers.eventloop.pollers import READ as POLLER_READ
from fibers.eventloop.pollers import WRITE as POLLER_WRITE
from fibers.eventloop.pollers.kqueue import KqueuePoller

#: The module `select` of this system or, where it has no kqueue, the fake.
kq: Any = select if hasattr(select, "kqueue") else importlib.import_module("support.fake_kqueue")
READ, WRITE = kq.KQ_FILTER_READ, kq.KQ_FILTER_WRITE
CLEAR = kq.KQ_EV_ADD | kq.KQ_EV_CLEAR
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def queue() -> Iterator[Any]:
    queue = kq.kqueue()
    yield queue
    queue.close()


@pytest.fixture
def poller() -> Iterator[KqueuePoller]:
    poller = KqueuePoller(kq)
    yield poller
    poller.close()


def tcp_pair() -> Pair:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    return client, server


@pytest.fixture(params=["unix", "tcp"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    a, b = socket.socketpair() if request.param == "unix" else tcp_pair()
    with a, b:
        yield a, b


def add(queue: Any, fd: int, filter: int, udata: int = 0) -> None:
    assert queue.control([kq.kevent(fd, filter, CLEAR, 0, 0, udata)], 0, 0) == []


def delete(queue: Any, fd: int, filter: int) -> None:
    assert queue.control([kq.kevent(fd, filter, kq.KQ_EV_DELETE)], 0, 0) == []


def events(queue: Any, timeout: float | None = 0) -> list[Any]:
    return queue.control(None, 16, timeout)  # type: ignore[no-any-return]


def refused_address() -> Any:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()


# -- the filters and their flags ----------------------------------------------------------------------------


def test_ev_clear_reports_again_only_after_new_activity(queue: Any, pair: Pair) -> None:
    a, b = pair
    add(queue, a.fileno(), READ, udata=7)
    assert events(queue) == []
    b.send(b"12345")
    (event,) = events(queue, 5)
    assert (event.ident, event.filter, event.data, event.udata) == (a.fileno(), READ, 5, 7)
    assert event.flags & kq.KQ_EV_CLEAR, "what was asked for is told back: EV_EOF has to be masked"
    assert not event.flags & (kq.KQ_EV_EOF | kq.KQ_EV_ERROR)
    assert events(queue) == [], "reported and not drained: no second event"
    a.recv(2)
    assert events(queue) == [], "a partial read is no activity"
    b.send(b"6")
    (event,) = events(queue, 5)
    assert event.data == 4


def test_ev_add_reports_what_is_ready_already_and_so_does_a_second_one(queue: Any, pair: Pair) -> None:
    a, b = pair
    b.send(b"x")
    assert select.select([a], [], [], 5)[0]
    for _ in range(2):
        add(queue, a.fileno(), READ)
        assert [event.data for event in events(queue)] == [1]
    assert events(queue) == []


def test_read_and_write_filters_are_apart_and_ev_delete_takes_one(queue: Any, pair: Pair) -> None:
    a, b = pair
    add(queue, a.fileno(), READ)
    add(queue, a.fileno(), WRITE)
    assert [event.filter for event in events(queue)] == [WRITE]
    b.send(b"x")
    assert [event.filter for event in events(queue, 5)] == [READ]
    delete(queue, a.fileno(), READ)
    b.send(b"y")
    assert events(queue, 0.02) == []
    with pytest.raises(FileNotFoundError):
        delete(queue, a.fileno(), READ)
    delete(queue, a.fileno(), WRITE)


def test_write_filter_reports_when_a_full_buffer_gets_room(queue: Any) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        add(queue, writer, WRITE)
        assert len(events(queue)) == 1
        while select.select([], [writer], [], 0)[1]:
            os.write(writer, bytes(65536))
        assert events(queue) == []
        os.read(reader, 65536)
        assert [event.filter for event in events(queue, 5)] == [WRITE]
    finally:
        os.close(reader)
        os.close(writer)


def test_half_close_is_ev_eof_of_the_read_filter_alone(queue: Any, pair: Pair) -> None:
    a, b = pair
    add(queue, a.fileno(), READ)
    add(queue, a.fileno(), WRITE)
    events(queue)
    b.send(b"last")
    b.shutdown(socket.SHUT_WR)
    seen: list[Any] = []
    while not any(event.filter == READ and event.flags & kq.KQ_EV_EOF for event in seen):
        seen = events(queue, 5)
        assert seen
    assert [event.data for event in seen if event.filter == READ] == [4]
    assert not any(event.flags & kq.KQ_EV_EOF for event in seen if event.filter == WRITE)
    assert events(queue) == []


def test_peer_close_with_data_unread_is_ev_eof_in_flags_with_the_data_still_there(queue: Any) -> None:
    a, b = tcp_pair()
    with a:
        add(queue, a.fileno(), READ)
        b.send(b"last words")
        b.close()
        flags, data = 0, 0
        while not flags & kq.KQ_EV_EOF:
            for event in events(queue, 5):
                flags, data = event.flags, event.data
                assert event.fflags == 0, "where the socket's error stands, and there is none"
        assert data == 10
        assert a.recv(4) == b"last"
        assert events(queue) == [], "data and end were one edge; no other comes for what is left"
        assert a.recv(100) == b" words"
        assert a.recv(100) == b""


def test_full_close_of_a_unix_socket_is_eof_of_both(queue: Any) -> None:
    a, b = socket.socketpair()
    with a:
        add(queue, a.fileno(), READ)
        add(queue, a.fileno(), WRITE)
        events(queue)
        b.close()
        assert {event.filter for event in events(queue, 5) if event.flags & kq.KQ_EV_EOF} == {READ, WRITE}


def test_pipes_end_with_their_last_writer_or_reader(queue: Any) -> None:
    reader, writer = os.pipe()
    add(queue, reader, READ)
    os.close(writer)
    (event,) = events(queue)
    assert event.flags & kq.KQ_EV_EOF
    os.close(reader)

    reader, writer = os.pipe()
    add(queue, writer, WRITE)
    events(queue)
    os.close(reader)
    (event,) = events(queue)
    assert event.flags & kq.KQ_EV_EOF
    with pytest.raises(BrokenPipeError):
        add(queue, writer, WRITE)
    os.close(writer)


@pytest.mark.skipif(sys.platform == "darwin", reason="no end of a named FIFO is told of there: test_kqueue_fifo.py")
def test_a_fifo_opens_again_after_eof(queue: Any, tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    add(queue, reader, READ)
    for _ in range(2):
        writer = os.open(path, os.O_WRONLY)
        os.write(writer, b"x")
        assert [bool(event.flags & kq.KQ_EV_EOF) for event in events(queue)] == [False]
        os.read(reader, 10)
        os.close(writer)
        assert [bool(event.flags & kq.KQ_EV_EOF) for event in events(queue)] == [True]
    os.close(reader)


def test_refused_udp_is_an_event_without_eof_and_leaves_the_error_in_place(queue: Any) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        address = free.getsockname()
    with socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.setblocking(False)
        udp.connect(address)
        add(queue, udp.fileno(), READ)
        udp.send(b"x")
        (event,) = events(queue, 5)
        assert not event.flags & kq.KQ_EV_EOF
        with pytest.raises(ConnectionRefusedError):
            udp.recv(10)
        with pytest.raises(BlockingIOError):
            udp.recv(10)
        assert events(queue) == []


def test_a_socket_that_was_never_connected_is_ready_for_nothing(queue: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as sock:
        sock.setblocking(False)
        add(queue, sock.fileno(), READ)
        add(queue, sock.fileno(), WRITE)
        assert events(queue, 0.02) == []
        sock.connect_ex(listener.getsockname())
        assert [event.filter for event in events(queue, 5)] == [WRITE]


def test_refused_connect_is_ev_eof_of_both(queue: Any) -> None:
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.connect_ex(refused_address())
        add(queue, sock.fileno(), READ)
        add(queue, sock.fileno(), WRITE)
        assert {event.filter for event in events(queue, 5) if event.flags & kq.KQ_EV_EOF} == {READ, WRITE}
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED


def test_close_takes_the_filters_along_then_enoent_and_a_reused_number_inherits_nothing(queue: Any) -> None:
    a, b = socket.socketpair()
    c, d = socket.socketpair()
    number = a.fileno()
    copy = a.dup()
    with b, c, d, copy:
        add(queue, number, READ)
        a.close()
        b.send(b"x")
        assert events(queue, 0.02) == [], "a dup() does not keep a filter alive"
        with pytest.raises(OSError, match="Bad file") as caught:
            delete(queue, number, READ)
        assert caught.value.errno == errno.EBADF
        os.dup2(c.fileno(), number)
        try:
            d.send(b"y")
            b.send(b"x")
            assert events(queue, 0.02) == []
            with pytest.raises(FileNotFoundError):
                delete(queue, number, READ)
            add(queue, number, READ)
            assert [event.data for event in events(queue)] == [1]
            b.send(b"x")
            assert events(queue, 0.02) == [], "activity of the file that had the number before"
        finally:
            os.close(number)


def test_listener_reports_a_burst_once(queue: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        clients = [socket.create_connection(listener.getsockname()) for _ in range(3)]
        add(queue, listener.fileno(), READ)
        (event,) = events(queue)
        assert event.data >= 1
        listener.accept()[0].close()
        assert events(queue) == []
        for client in clients:
            client.close()


def test_errors_per_change_are_events_where_there_is_room_and_raised_where_not(queue: Any) -> None:
    a, b = socket.socketpair()
    with a, b:
        b.send(b"x")
        changes = [
            kq.kevent(a.fileno(), READ, kq.KQ_EV_DELETE),
            kq.kevent(a.fileno(), READ, CLEAR),
            kq.kevent(1_000_000, READ, CLEAR),
        ]
        failures = queue.control(changes, 5, None)
        assert [event.data for event in failures] == [errno.ENOENT, errno.EBADF]
        assert all(event.flags & kq.KQ_EV_ERROR for event in failures)
        assert [event.data for event in events(queue)] == [1], "the change between was made, its event kept"
        with pytest.raises(OSError, match="Bad file") as caught:
            queue.control([changes[2], kq.kevent(a.fileno(), READ, kq.KQ_EV_DELETE)], 0, 0)
        assert caught.value.errno == errno.EBADF
        delete(queue, a.fileno(), READ)  # the change after the failing one had not been made


def test_no_room_returns_at_once_whatever_the_timeout(queue: Any) -> None:
    assert queue.control(None, 0, None) == []


def test_timeouts_are_never_early(queue: Any) -> None:
    for timeout in (0.0002, 0.0015, 0.02):
        start = time.monotonic()
        assert events(queue, timeout) == []
        assert time.monotonic() - start >= timeout


def test_a_small_answer_leaves_the_rest_for_the_next(queue: Any) -> None:
    pairs = [socket.socketpair() for _ in range(10)]
    for a, b in pairs:
        b.send(b"x")
        add(queue, a.fileno(), READ)
        add(queue, a.fileno(), WRITE)
    seen = []
    while found := queue.control(None, 3, 0):
        assert len(found) <= 3
        seen += [(event.ident, event.filter) for event in found]
    assert sorted(seen) == sorted((a.fileno(), filter) for a, _ in pairs for filter in (READ, WRITE))
    for a, b in pairs:
        a.close()
        b.close()


def test_another_thread_changes_a_wait_in_progress(queue: Any) -> None:
    a, b = socket.socketpair()
    with a, b:
        b.send(b"x")
        found: list[Any] = []
        waiter = threading.Thread(target=lambda: found.extend(events(queue, None)))
        waiter.start()
        add(queue, a.fileno(), READ)
        waiter.join()
        assert [event.ident for event in found] == [a.fileno()]


def test_its_own_fd_can_be_waited_on(queue: Any) -> None:
    a, b = socket.socketpair()
    with a, b:
        add(queue, a.fileno(), READ)
        assert select.select([queue], [], [], 0)[0] == []
        b.send(b"x")
        assert select.select([queue], [], [], 5)[0] == [queue]
        assert len(events(queue)) == 1
        assert select.select([queue], [], [], 0)[0] == []


# -- the poller on them ---------------------------------------------------------------------------------------------


def gather(poller: KqueuePoller, fd: int, wanted: int) -> int:
    """Wait until all these bits have been reported of a file; what was."""
    bits = 0
    while bits & wanted != wanted:
        found = dict(poller.wait(5.0))
        assert found, f"nothing more came, only {bits:#x}"
        bits |= found.get(fd, 0)
    return bits


def test_the_poller_tells_half_close_as_a_hangup_of_reading_alone(poller: KqueuePoller, pair: Pair) -> None:
    a, b = pair
    poller.arm(a.fileno(), POLLER_READ, 0)
    b.shutdown(socket.SHUT_WR)
    assert not gather(poller, a.fileno(), poller.HANGUP) & poller.WRITABLE
    assert poller.wait(0.0) == []


def test_the_poller_tells_peer_close_with_data_unread_as_readable_and_hangup(poller: KqueuePoller) -> None:
    a, b = tcp_pair()
    with a:
        poller.arm(a.fileno(), POLLER_READ, 0)
        b.send(b"last words")
        b.close()
        assert gather(poller, a.fileno(), poller.HANGUP) & poller.READABLE
        poller.forget(a.fileno(), POLLER_READ)


def test_the_poller_tells_a_refused_connect_in_both_directions(poller: KqueuePoller) -> None:
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.connect_ex(refused_address())
        poller.arm(sock.fileno(), POLLER_WRITE, 0)
        bits = gather(poller, sock.fileno(), POLLER_WRITE)
        assert bits & poller.READABLE, "a reader has to look too"
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
        poller.forget(sock.fileno(), POLLER_WRITE)


def test_the_poller_does_not_mind_enoent_and_ebadf_after_close_and_starts_a_reused_number_afresh(
    poller: KqueuePoller,
) -> None:
    a, b = socket.socketpair()
    number = a.fileno()
    poller.arm(number, POLLER_READ, 0)
    a.close()
    poller.forget(number, POLLER_READ)  # EBADF
    c, d = socket.socketpair()
    assert c.fileno() == number, "the lowest free number comes back"
    poller.forget(number, POLLER_READ | POLLER_WRITE)  # ENOENT
    d.send(b"x")
    assert poller.wait(0.02) == [], "nobody has asked for the new file"
    poller.arm(number, POLLER_READ, 0)
    assert gather(poller, number, POLLER_READ)
    poller.forget(number, POLLER_READ)
    for sock in (b, c, d):
        sock.close()


def test_without_evfilt_user_a_loop_is_woken_by_its_wakers_descriptor() -> None:
    """Python offers no EVFILT_USER, so there is no other way; and nothing but the one wake-up ends the wait."""
    assert not hasattr(kq, "KQ_FILTER_USER")
    ready, done = threading.Event(), threading.Event()
    turns: list[int] = []
    loops: list[PollingLoop] = []

    def sleep() -> None:
        loop = PollingLoop(lambda: KqueuePoller(kq))
        loops.append(loop)
        ready.set()
        while not done.is_set():
            loop.turn(True)
        turns.append(loop.stats.turns)
        loop.close()

    sleeper = threading.Thread(target=sleep)
    sleeper.start()
    assert ready.wait(10)
    for _ in range(3):
        told = threading.Event()
        loops[0].post(told.set)
        assert told.wait(10)
    loops[0].post(done.set)
    sleeper.join(10)
    assert not sleeper.is_alive()
    assert turns[0] <= 2 * 4 + 1
