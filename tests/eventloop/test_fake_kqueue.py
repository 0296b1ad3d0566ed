"""The fake kqueue keeps to the facts of kqueue that its head names, and refuses what a real one refuses."""

import errno
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator

import pytest

if sys.platform != "linux":
    pytest.skip("the fake stands on epoll", allow_module_level=True)

from support import fake_kqueue as kq
from support.fake_kqueue import FakeKevent, FakeKqueue
from support.process import ROOT, run_python

READ, WRITE = kq.KQ_FILTER_READ, kq.KQ_FILTER_WRITE
CLEAR = kq.KQ_EV_ADD | kq.KQ_EV_CLEAR
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def queue() -> Iterator[FakeKqueue]:
    queue = kq.kqueue()
    yield queue
    queue.close()


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


def add(queue: FakeKqueue, fd: int, filter: int, udata: int = 0) -> None:
    assert queue.control([kq.kevent(fd, filter, CLEAR, 0, 0, udata)], 0, 0) == []


def delete(queue: FakeKqueue, fd: int, filter: int) -> None:
    assert queue.control([kq.kevent(fd, filter, kq.KQ_EV_DELETE)], 0, 0) == []


def events(queue: FakeKqueue, timeout: float | None = 0) -> list[FakeKevent]:
    return queue.control(None, 16, timeout)


def test_clear_reports_again_only_after_new_activity(queue: FakeKqueue, pair: Pair) -> None:
    a, b = pair
    add(queue, a.fileno(), READ, udata=7)
    assert events(queue) == []
    b.send(b"12345")
    (event,) = events(queue, 5)
    assert (event.ident, event.filter, event.flags, event.data, event.udata) == (
        a.fileno(),
        READ,
        kq.KQ_EV_CLEAR,
        5,
        7,
    )
    assert events(queue) == [], "reported and not drained: no second event"
    a.recv(2)
    assert events(queue) == [], "a partial read is no activity"
    b.send(b"6")
    (event,) = events(queue, 5)
    assert event.data == 4


def test_add_reports_what_is_ready_already_and_so_does_a_second_add(queue: FakeKqueue, pair: Pair) -> None:
    a, b = pair
    b.send(b"x")
    assert select.select([a], [], [], 5)[0]
    for _ in range(2):
        add(queue, a.fileno(), READ)
        assert [event.data for event in events(queue)] == [1]
    assert events(queue) == []


def test_filters_are_apart(queue: FakeKqueue, pair: Pair) -> None:
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


def test_write_filter_reports_when_a_full_buffer_gets_room(queue: FakeKqueue) -> None:
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


def test_half_close_is_eof_of_the_read_filter_alone(queue: FakeKqueue, pair: Pair) -> None:
    a, b = pair
    add(queue, a.fileno(), READ)
    add(queue, a.fileno(), WRITE)
    events(queue)
    b.send(b"last")
    b.shutdown(socket.SHUT_WR)
    seen: list[FakeKevent] = []
    while not any(event.filter == READ and event.flags & kq.KQ_EV_EOF for event in seen):
        seen = events(queue, 5)
        assert seen
    assert [event.data for event in seen if event.filter == READ] == [4]
    assert not any(event.flags & kq.KQ_EV_EOF for event in seen if event.filter == WRITE)
    assert events(queue) == []


def test_full_close_of_a_unix_socket_is_eof_of_both(queue: FakeKqueue) -> None:
    a, b = socket.socketpair()
    with a:
        add(queue, a.fileno(), READ)
        add(queue, a.fileno(), WRITE)
        events(queue)
        b.close()
        assert {event.filter for event in events(queue, 5) if event.flags & kq.KQ_EV_EOF} == {READ, WRITE}


def test_pipes_end_with_their_last_writer_or_reader(queue: FakeKqueue) -> None:
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


def test_a_fifo_opens_again_after_eof(queue: FakeKqueue, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("fifo") / "fifo"
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


def test_refused_udp_is_an_event_without_eof_and_leaves_the_error_in_place(queue: FakeKqueue) -> None:
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


def test_a_socket_that_was_never_connected_is_ready_for_nothing(queue: FakeKqueue) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as sock:
        sock.setblocking(False)
        add(queue, sock.fileno(), READ)
        add(queue, sock.fileno(), WRITE)
        assert events(queue, 0.02) == []
        sock.connect_ex(listener.getsockname())
        assert [event.filter for event in events(queue, 5)] == [WRITE]


def test_refused_connect_is_eof_of_both(queue: FakeKqueue) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = free.getsockname()
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.connect_ex(address)
        add(queue, sock.fileno(), READ)
        add(queue, sock.fileno(), WRITE)
        assert {event.filter for event in events(queue, 5) if event.flags & kq.KQ_EV_EOF} == {READ, WRITE}
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED


def test_close_takes_the_filters_along_and_a_reused_number_inherits_nothing(queue: FakeKqueue) -> None:
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


def test_listener_reports_a_burst_once(queue: FakeKqueue) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        clients = [socket.create_connection(listener.getsockname()) for _ in range(3)]
        add(queue, listener.fileno(), READ)
        assert [event.data for event in events(queue)] == [1]
        listener.accept()[0].close()
        assert events(queue) == []
        for client in clients:
            client.close()


def test_failing_changes_are_events_where_there_is_room_and_raised_where_not(queue: FakeKqueue) -> None:
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


def test_refuses_what_a_real_one_refuses(queue: FakeKqueue) -> None:
    a, b = socket.socketpair()
    with a, b:
        fd = a.fileno()
        for bad in (
            kq.kevent(fd, 0, CLEAR),
            kq.kevent(fd, -99, CLEAR),
            kq.kevent(fd, READ, CLEAR | kq.KQ_EV_DELETE),
            kq.kevent(fd, READ, CLEAR | 0x100000),
        ):
            with pytest.raises(OSError, match="filter") as caught:
                queue.control([bad], 0, 0)
            assert caught.value.errno == errno.EINVAL
        with pytest.raises(FileNotFoundError):
            queue.control([kq.kevent(fd, READ, 0)], 0, 0)
        with pytest.raises(ValueError, match="positive"):
            queue.control(None, 1, -0.001)
        with pytest.raises(ValueError, match="NaN"):
            queue.control(None, 1, float("nan"))
        with pytest.raises(ValueError, match="got -1"):
            queue.control(None, -1, 0)
        with pytest.raises(OSError, match="Invalid argument"):
            queue.control(None, 1, 1e12)
        with pytest.raises(TypeError):
            queue.control([42], 0, 0)  # type: ignore[list-item]
        with pytest.raises(TypeError):
            queue.control(None, 1, "1")  # type: ignore[arg-type]
    with open(os.devnull) as null, pytest.raises(OSError, match="No such device") as caught:
        add(queue, null.fileno(), READ)
    assert caught.value.errno == errno.ENODEV
    assert events(queue) == []


def test_refuses_what_it_does_not_model(queue: FakeKqueue) -> None:
    a, b = socket.socketpair()
    with a, b, open(__file__) as file:
        for unmodelled in (
            kq.kevent(a.fileno(), READ, kq.KQ_EV_ADD),
            kq.kevent(a.fileno(), READ, CLEAR | kq.KQ_EV_ONESHOT),
            kq.kevent(a.fileno(), -7, CLEAR),
            kq.kevent(file.fileno(), READ, CLEAR),
        ):
            with pytest.raises(NotImplementedError, match="not modelled"):
                queue.control([unmodelled], 0, 0)
    assert events(queue) == []


def test_no_room_returns_at_once_whatever_the_timeout(queue: FakeKqueue) -> None:
    assert queue.control(None, 0, None) == []


def test_timeouts_are_never_early(queue: FakeKqueue) -> None:
    for timeout in (0.0002, 0.0015, 0.02):
        start = time.monotonic()
        assert events(queue, timeout) == []
        assert time.monotonic() - start >= timeout


def test_a_small_answer_leaves_the_rest_for_the_next(queue: FakeKqueue) -> None:
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


def test_another_thread_changes_a_wait_in_progress(queue: FakeKqueue) -> None:
    a, b = socket.socketpair()
    with a, b:
        b.send(b"x")
        found: list[FakeKevent] = []
        waiter = threading.Thread(target=lambda: found.extend(events(queue, None)))
        waiter.start()
        add(queue, a.fileno(), READ)
        waiter.join()
        assert [event.ident for event in found] == [a.fileno()]


def test_its_own_fd_can_be_waited_on(queue: FakeKqueue) -> None:
    a, b = socket.socketpair()
    with a, b:
        add(queue, a.fileno(), READ)
        assert select.select([queue], [], [], 0)[0] == []
        b.send(b"x")
        assert select.select([queue], [], [], 5)[0] == [queue]
        assert len(events(queue)) == 1
        assert select.select([queue], [], [], 0)[0] == []


def test_close_is_final_and_gives_every_fd_back() -> None:
    before = set(os.listdir("/proc/self/fd"))
    queue = kq.kqueue()
    states = [queue.closed]
    queue.close()
    queue.close()
    states.append(queue.closed)
    assert states == [False, True]
    for use in (queue.fileno, lambda: events(queue)):
        with pytest.raises(ValueError, match="closed kqueue"):
            use()
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_child_sees_it_closed_and_the_parent_keeps_its_filters() -> None:
    code = """
import os, socket
from support import fake_kqueue as kq
queue = kq.kqueue()
a, b = socket.socketpair()
queue.control([kq.kevent(a.fileno(), kq.KQ_FILTER_READ, kq.KQ_EV_ADD | kq.KQ_EV_CLEAR)], 0, 0)
child = os.fork()
if child == 0:
    os._exit(0 if queue.closed else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
b.send(b"x")
assert [event.ident for event in queue.control(None, 16, 5)] == [a.fileno()]
"""
    done = run_python("-c", code, env={"PYTHONPATH": str(ROOT / "tests")})
    assert done.returncode == 0, done.stderr


def test_kevents_are_plain_data() -> None:
    a, b = socket.socketpair()
    with a, b:
        event = kq.kevent(a)
        assert (event.ident, event.filter, event.flags) == (a.fileno(), READ, kq.KQ_EV_ADD)
        assert event == kq.kevent(a.fileno())
        assert event != kq.kevent(b.fileno())
        assert event != a.fileno()
        assert f"ident={a.fileno()}" in repr(event)
