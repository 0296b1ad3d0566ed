"""#15374: `lowlevel.wait_readable` and `wait_writable` on raw fds of other code: registered for one call, any thread."""

import os
import socket as std
import threading
from collections.abc import Iterator

import pytest
from support.scale import scaled

import fibers
from fibers import lowlevel
from fibers.core.scheduler import get_scheduler
from fibers.eventloop import ownership
from fibers.io import socket

Pipe = tuple[int, int]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    yield reader, writer
    for fd in (reader, writer):
        try:
            os.close(fd)
        except OSError:
            continue  # the test closed it


def fill(writer: int) -> None:
    try:
        while True:
            os.write(writer, bytes(65536))
    except BlockingIOError:
        pass


def test_15374_wait_on_ints(pipe: Pipe) -> None:
    reader, writer = pipe
    waiting = fibers.spawn(lowlevel.wait_readable, reader)
    fibers.yield_now()
    assert not waiting.done()
    os.write(writer, b"x")
    waiting.result(5)
    lowlevel.wait_readable(reader)  # level: it still is
    lowlevel.wait_writable(writer)
    fill(writer)
    waiting = fibers.spawn(lowlevel.wait_writable, writer)
    fibers.yield_now()
    assert not waiting.done()
    os.read(reader, 1 << 20)
    waiting.result(5)


def test_15374_wait_on_objects_with_fileno() -> None:
    a, b = std.socketpair()
    with a, b:
        waiting = fibers.spawn(lowlevel.wait_readable, a)
        fibers.yield_now()
        b.send(b"x")
        waiting.result(5)


@pytest.mark.parametrize("seconds", [0, 0.0002, 0.02])
def test_15374_with_timeout(pipe: Pipe, seconds: float) -> None:
    started = fibers.current_time()
    with pytest.raises(TimeoutError):
        lowlevel.wait_readable(pipe[0], seconds)
    assert fibers.current_time() - started >= seconds


def test_15374_data_beats_the_timeout(pipe: Pipe) -> None:
    reader, writer = pipe
    waiting = fibers.spawn(lowlevel.wait_readable, reader, 0.02)
    fibers.yield_now()
    os.write(writer, b"x")
    end = fibers.current_time() + 0.04
    while fibers.current_time() < end:
        pass
    waiting.result(5)


def test_15374_from_any_thread(pipe: Pipe) -> None:
    reader, writer = pipe
    woken = []

    def wait() -> None:
        lowlevel.wait_readable(reader, 10)
        woken.append(threading.current_thread().name)

    threads = [threading.Thread(target=fibers.run, args=(wait,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    waiting = fibers.spawn(wait)
    fibers.yield_now()
    os.write(writer, b"x")
    waiting.result(5)
    for thread in threads:
        thread.join(5)
    assert len(woken) == 5


def test_15374_threads_that_begin_to_wait_at_the_same_moment_do_not_evict_each_other(pipe: Pipe) -> None:
    reader, writer = pipe
    rounds, count = scaled(2000, least=100), 3
    barrier = threading.Barrier(count + 1)
    errors: list[BaseException] = []

    def wait() -> None:
        for _ in range(rounds):
            barrier.wait(10)
            try:
                lowlevel.wait_readable(reader, 5)
            except (OSError, TimeoutError) as error:
                errors.append(error)
            barrier.wait(10)

    threads = [threading.Thread(target=fibers.run, args=(wait,)) for _ in range(count)]
    for thread in threads:
        thread.start()
    for _ in range(rounds):
        barrier.wait(10)
        os.write(writer, b"x")
        barrier.wait(10)
        os.read(reader, 10)
    for thread in threads:
        thread.join(5)
    assert errors == []


def test_15374_registers_and_unregisters_for_each_call(pipe: Pipe) -> None:
    reader, writer = pipe
    stats = get_scheduler().loop.stats
    owners = dict(ownership.owners)
    before = (stats.registrations, stats.unregistrations)
    for _ in range(5):
        waiting = fibers.spawn(lowlevel.wait_readable, reader)
        fibers.yield_now()
        os.write(writer, b"x")
        waiting.result(5)
        os.read(reader, 10)
    assert (stats.registrations - before[0], stats.unregistrations - before[1]) == (5, 5)
    assert ownership.owners == owners


@pytest.mark.parametrize("end", ["cancel", "kill", "timeout"])
def test_15374_a_wait_that_is_ended_leaves_nothing(pipe: Pipe, end: str) -> None:
    reader, writer = pipe
    owners = dict(ownership.owners)
    waiting = fibers.spawn(lowlevel.wait_readable, reader, 0.01 if end == "timeout" else None)
    fibers.yield_now()
    if end == "timeout":
        with pytest.raises(TimeoutError):
            waiting.result(5)
    else:
        waiting.cancel() if end == "cancel" else waiting.kill()
        with pytest.raises(fibers.FiberCancelled):
            waiting.result(5)
    assert ownership.owners == owners
    os.write(writer, b"x")
    turns = get_scheduler().loop.stats.turns
    fibers.sleep(0.02)
    assert get_scheduler().loop.stats.turns - turns <= 3


def test_15374_a_number_that_other_code_closes_and_opens_again_between_two_calls() -> None:
    for _ in range(20):
        reader, writer = os.pipe()
        waiting = fibers.spawn(lowlevel.wait_readable, reader)
        fibers.yield_now()
        os.write(writer, b"x")
        waiting.result(5)
        os.close(reader)
        os.close(writer)


def test_15374_waiting_for_a_socket_of_ours_leaves_its_registration_alone() -> None:
    a, b = socket.socketpair()
    with a, b:
        reader = fibers.spawn(a.recv, 10)
        fibers.yield_now()
        raw = fibers.spawn(lowlevel.wait_readable, a.fileno())
        fibers.yield_now()
        b.send(b"hello and what the reader leaves")
        raw.result(5)
        assert reader.result(5) == b"hello and "
        assert a.recv(100) == b"what the reader leaves"
        reader = fibers.spawn(a.recv, 10)
        fibers.yield_now()
        b.send(b"again")
        assert reader.result(5) == b"again"


def test_15374_a_wait_in_both_directions_at_once() -> None:
    a, b = std.socketpair()
    a.setblocking(False)
    with a, b:
        try:
            while True:
                a.send(bytes(65536))
        except BlockingIOError:
            pass
        reading = fibers.spawn(lowlevel.wait_readable, a)
        writing = fibers.spawn(lowlevel.wait_writable, a)
        fibers.yield_now()
        b.send(b"x")
        reading.result(5)
        assert not writing.done()
        b.setblocking(False)
        try:
            while True:
                b.recv(1 << 20)
        except BlockingIOError:
            pass
        writing.result(5)


def test_15374_a_regular_file_never_blocks(tmp_path: os.PathLike[str]) -> None:
    with open(os.path.join(tmp_path, "file"), "w+b") as file:
        lowlevel.wait_readable(file, 5)
        lowlevel.wait_writable(file, 5)
    with open(os.devnull, "rb") as null:
        lowlevel.wait_readable(null, 5)


def test_15374_end_of_file_is_readable(pipe: Pipe) -> None:
    reader, writer = pipe
    waiting = fibers.spawn(lowlevel.wait_readable, reader)
    fibers.yield_now()
    os.close(writer)
    waiting.result(5)


@pytest.mark.parametrize(
    ("fd", "error"),
    [
        (-1, ValueError),
        (99_999, OSError),
        ("0", TypeError),
        (None, TypeError),
        (1.0, TypeError),
        (True, TypeError),
        (object(), TypeError),
    ],
)
def test_15374_what_is_no_open_file_is_refused_at_once(fd: int, error: type[Exception]) -> None:
    owners = dict(ownership.owners)
    for wait in (lowlevel.wait_readable, lowlevel.wait_writable):
        with pytest.raises(error) as caught:
            wait(fd, 5)
        if not isinstance(caught.value, OSError):
            assert repr(fd) in str(caught.value) or str(fd) in str(caught.value)
    assert ownership.owners == owners


@pytest.mark.parametrize("timeout", [-1, float("nan"), "1"])
def test_15374_wrong_timeouts_are_refused_at_once(pipe: Pipe, timeout: float) -> None:
    with pytest.raises((ValueError, TypeError), match="timeout"):
        lowlevel.wait_readable(pipe[0], timeout)
