"""The ownership table: who may wait for an fd that another thread's loop has waited for.

the other loop …                      a wait here
never waited for it                   takes it; nothing moved
waited, nothing pending now           moves it here, counted
has an operation pending              OwnershipError; the first fiber is untouched
is finished                           takes it; nothing moved
whoever it is, and the fd is closed   ClosedError
anything, on a dup()                  a file of its own
owns it, FIBERS_OWNERSHIP=strict      OwnershipError, pending or not
anything, and no wait is needed       the operation completes; no loop is involved
"""

import re
import socket as std
import sys
import threading
from collections.abc import Callable, Iterator
from textwrap import dedent
from typing import Any

import pytest
from support.backends import lifetime_only
from support.process import run_python
from support.scale import scaled

import fibers
from fibers import OwnershipError
from fibers.core.scheduler import get_scheduler
from fibers.eventloop import FOREVER
from fibers.io import socket
from fibers.io.state import claim, state_of
from fibers.threads.to_thread import to_thread

Pair = tuple[socket.socket, socket.socket]


def elsewhere(fn: Callable[..., Any], *args: Any) -> Any:
    """Call `fn` in another thread with a loop of its own, which is finished when this returns."""
    return to_thread(fibers.run, fn, *args)


@pytest.fixture
def pair() -> Iterator[Pair]:
    a, b = socket.socketpair()
    with a, b:
        yield a, b


def fill(sock: socket.socket) -> None:
    try:
        while True:
            sock.send(bytes(65536), socket.MSG_DONTWAIT)
    except BlockingIOError:
        pass


def waited_here(a: socket.socket, b: socket.socket) -> None:
    reader = fibers.spawn(a.recv, 1)
    fibers.yield_now()
    b.send(b"x")
    assert reader.result(5) == b"x"


def timed_read(sock: socket.socket, size: int = 10) -> bytes:
    """A read in the calling thread that has to wait, with a time limit."""
    sock.settimeout(5)
    return sock.recv(size)


def read_when_sent(reader: socket.socket, writer: socket.socket) -> tuple[bytes, int]:
    """Wait for data that a second fiber of this thread sends once the reader waits. What came, and moves counted."""
    fiber = fibers.spawn(timed_read, reader)
    fibers.yield_now()
    writer.send(b"hello", socket.MSG_DONTWAIT)
    return fiber.result(5), get_scheduler().loop.stats.moves


def test_never_waited_for_a_foreign_wait_takes_it(pair: Pair) -> None:
    a, b = pair
    a.setblocking(True)  # adopted here, and used without waiting
    b.send(b"1")
    assert a.recv(1) == b"1"
    assert elsewhere(read_when_sent, a, b) == (b"hello", 0)


@lifetime_only
@pytest.mark.parametrize("waited", ["reading", "writing", "both"])
def test_waited_and_nothing_pending_moves_and_is_counted(pair: Pair, waited: str) -> None:
    a, b = pair
    if waited in ("reading", "both"):
        waited_here(a, b)
    if waited in ("writing", "both"):
        fill(a)
        writer = fibers.spawn(a.sendall, b"x")
        fibers.yield_now()
        while not writer.done():
            b.recv(1 << 20)
            fibers.yield_now()
    stats = get_scheduler().loop.stats
    gone = stats.unregistrations
    assert elsewhere(read_when_sent, a, b) == (b"hello", 1)
    assert stats.unregistrations == gone + 1


@lifetime_only
def test_it_moves_back_and_forth(pair: Pair) -> None:
    a, b = pair
    moves = get_scheduler().loop.stats.moves
    waited_here(a, b)
    started, finish = threading.Event(), threading.Event()

    def other() -> int:
        for _ in range(3):
            waited_here(a, b)
        started.set()
        to_thread(finish.wait, 5)
        return get_scheduler().loop.stats.moves

    away = fibers.spawn(elsewhere, other)
    to_thread(started.wait, 5)
    waited_here(a, b)  # the other loop lives, nothing is pending in it
    assert get_scheduler().loop.stats.moves == moves + 1
    finish.set()
    assert away.result(5) == 1


@lifetime_only
@pytest.mark.parametrize("foreign", ["recv", "sendall"])
@pytest.mark.parametrize("pending", ["reading", "writing", "both"])
def test_pending_operations_refuse_a_foreign_wait(pair: Pair, pending: str, foreign: str) -> None:
    """The error names the fd, both threads, the waiting fibers and the remedy; the first fiber is untouched."""
    a, b = pair
    fill(a)
    first: list[fibers.Fiber[Any]] = []
    if pending in ("reading", "both"):
        first.append(fibers.spawn(a.recv, 10, name="patient reader"))
    if pending in ("writing", "both"):
        first.append(fibers.spawn(a.sendall, b"tail", name="patient writer"))
    fibers.yield_now()

    def wait_there() -> str:
        threading.current_thread().name, mine = "the other one", threading.current_thread().name
        try:
            with pytest.raises(OwnershipError) as caught:
                a.recv(10) if foreign == "recv" else a.sendall(b"foreign")
            return str(caught.value)
        finally:
            threading.current_thread().name = mine

    if foreign == "recv" and pending == "writing":
        fibers.yield_now()
    text = elsewhere(wait_there)
    assert re.search(rf"\bfd {a.fileno()}\b", text)
    assert threading.current_thread().name in text
    assert "the other one" in text
    assert ("patient reader" in text) == (pending in ("reading", "both"))
    assert ("patient writer" in text) == (pending in ("writing", "both"))
    assert "dup()" in text
    assert "Finish the operation" in text
    assert not any(fiber.done() for fiber in first)
    if pending in ("reading", "both"):
        b.send(b"mine")
        assert first[0].result(5) == b"mine"
    if pending in ("writing", "both"):
        while not first[-1].done():
            assert b.recv(1 << 20)
            fibers.yield_now()
        first[-1].result(5)


@lifetime_only
def test_a_fiber_that_queues_for_the_turn_is_pending_too(pair: Pair) -> None:
    a, b = pair
    readers = [fibers.spawn(a.recv, 1, name=f"reader {number}") for number in range(2)]
    fibers.yield_now()
    with pytest.raises(OwnershipError, match="reader 0"):
        elsewhere(a.recv, 1)
    b.send(b"xy")
    assert [reader.result(5) for reader in readers] == [b"x", b"y"]


def test_operations_that_need_no_wait_involve_no_loop(pair: Pair) -> None:
    a, _b = pair
    reader = fibers.spawn(a.recv, 10)
    fibers.yield_now()
    assert elsewhere(a.send, b"from another thread") == 19

    def send_there() -> int:
        a.sendall(b"more")
        return get_scheduler().loop.stats.registrations

    assert elsewhere(send_there) == 0
    assert not reader.done()
    reader.cancel()
    reader.join(5)


def test_non_blocking_operations_in_another_thread_are_never_refused(pair: Pair) -> None:
    a, _b = pair
    reader = fibers.spawn(a.recv, 10)
    fibers.yield_now()

    def there() -> None:
        with pytest.raises(BlockingIOError):
            a.recv(1, socket.MSG_DONTWAIT)

    elsewhere(there)
    reader.cancel()
    reader.join(5)


def test_files_of_a_finished_loop_are_free(pair: Pair) -> None:
    a, b = pair
    moves = get_scheduler().loop.stats.moves
    elsewhere(waited_here, a, b)
    waited_here(a, b)
    assert get_scheduler().loop.stats.moves == moves
    elsewhere(waited_here, a, b)


def test_files_of_a_loop_that_ended_with_fibers_in_them_are_free(pair: Pair) -> None:
    a, b = pair

    def leave_a_reader() -> None:
        fibers.spawn(a.recv, 1)
        fibers.yield_now()

    elsewhere(leave_a_reader)
    waited_here(a, b)


@lifetime_only
def test_who_was_about_to_wait_for_the_first_time_asks_again_if_another_thread_was_quicker(pair: Pair) -> None:
    """Between its claim and its registration the fd became another loop's. It used to evict that one, as CLOSED."""
    a, b = pair
    scheduler = get_scheduler()
    me = scheduler.current
    assert me is not None
    mine = claim(state_of(a), state_of(a).reading, scheduler.loop)
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(a.recv(1)))
    thread.start()
    while state_of(a).reading.waiter is None:
        fibers.yield_now()
    assert scheduler.watch(me, mine, FOREVER) is False
    with pytest.raises(OwnershipError):
        a.recv(1)
    b.send(b"x")
    thread.join(5)
    assert got == [b"x"]
    waited_here(a, b)


@lifetime_only
def test_threads_that_begin_to_wait_for_a_file_at_the_same_moment_never_find_it_closed() -> None:
    ends: set[str] = set()
    barrier = threading.Barrier(3)

    def read(sock: socket.socket) -> None:
        barrier.wait(10)
        try:
            ends.add(repr(sock.recv(1)))
        except (OwnershipError, OSError) as error:
            ends.add(type(error).__name__)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(scaled(4000, least=100)):
            a, b = socket.socketpair()
            threads = [threading.Thread(target=read, args=(a,)) for _ in range(2)]
            for thread in threads:
                thread.start()
            barrier.wait(10)
            b.send(b"xx")
            for thread in threads:
                thread.join(10)
            b.close()
            while a.recv(10):
                pass
            a.close()
    finally:
        sys.setswitchinterval(before)
    assert ends <= {repr(b"x"), "OwnershipError"}


def test_closed_says_closed_and_not_whose_it_was(pair: Pair) -> None:
    a, b = pair
    waited_here(a, b)
    a.close()
    with pytest.raises(fibers.ClosedError):
        elsewhere(a.recv, 1)


def test_a_dup_has_an_owner_of_its_own(pair: Pair) -> None:
    """`dup()` is the way to read in one thread and write in another."""
    a, b = pair
    reader = fibers.spawn(a.recv, 10)
    fibers.yield_now()
    with a.dup() as twin:
        fill(twin)

        def write_there() -> int:
            writer = fibers.spawn(twin.sendall, b"x" * 1000)
            fibers.yield_now()
            assert not writer.done()
            drained = 0
            while not writer.done():
                drained += len(std.socket.recv(b, 1 << 20))
                fibers.sleep(0.001)
            writer.result(5)
            return get_scheduler().loop.stats.moves

        assert elsewhere(write_there) == 0
        assert not reader.done()
        b.send(b"for the reader")
        assert reader.result(5) == b"for the re"


@lifetime_only
def test_a_refused_wait_leaves_no_registration_and_no_turn(pair: Pair) -> None:
    a, b = pair
    reader = fibers.spawn(a.recv, 10)
    fibers.yield_now()

    def there() -> tuple[int, int]:
        for _ in range(3):
            with pytest.raises(OwnershipError):
                a.recv(1)
        stats = get_scheduler().loop.stats
        return stats.registrations, stats.moves

    assert elsewhere(there) == (0, 0)
    assert state_of(a).reading.holder is reader
    b.send(b"x")
    assert reader.result(5) == b"x"
    assert elsewhere(read_when_sent, a, b) == (b"hello", 1)


def test_a_moved_fd_keeps_the_order_of_its_stream(pair: Pair) -> None:
    a, b = pair
    got = b""
    for number in range(10):
        waited_here(a, b)
        fiber = fibers.spawn(elsewhere, timed_read, a, 1)
        fibers.yield_now()
        b.send(bytes([number]))
        got += fiber.result(5)
    assert got == bytes(range(10))


STRICT = dedent(
    """
    import fibers
    from fibers.io import socket
    from fibers.core.scheduler import get_scheduler
    from fibers.threads.to_thread import to_thread

    a, b = socket.socketpair()

    def wait(sock, peer):
        reader = fibers.spawn(sock.recv, 1)
        fibers.yield_now()
        if not reader.done():
            peer.send(b"x", socket.MSG_DONTWAIT)
        return reader.result(5)

    def case(name, fn, *args):
        try:
            print(name, fn(*args))
        except (fibers.OwnershipError, fibers.ClosedError) as error:
            print(name, type(error).__name__, error)

    case("first", wait, a, b)
    case("foreign", to_thread, fibers.run, wait, a, b)
    case("again here", wait, a, b)
    b.send(b"y")
    case("no wait", to_thread, fibers.run, a.recv, 1)
    with a.dup() as twin:
        case("dup", to_thread, fibers.run, wait, twin, b)
        case("finished", wait, twin, b)
    print("moves", get_scheduler().loop.stats.moves)
    a.close()
    b.close()
    """
)


@lifetime_only
def test_strict_mode_makes_every_foreign_wait_an_error() -> None:
    done = run_python("-c", STRICT, env={"FIBERS_OWNERSHIP": "strict"})
    assert done.stderr == ""
    lines = dict(re.findall(r"^(first|foreign|again here|no wait|dup|finished|moves) (.*)$", done.stdout, re.MULTILINE))
    assert lines["first"] == "b'x'"
    assert lines["foreign"].startswith("OwnershipError fd ")
    assert "FIBERS_OWNERSHIP=strict" in lines["foreign"]
    assert "dup()" in lines["foreign"]
    assert lines["again here"] == lines["dup"] == lines["finished"] == "b'x'"
    assert lines["no wait"] == "b'y'"
    assert lines["moves"] == "0"


def test_the_same_without_strict_mode_moves() -> None:
    done = run_python("-c", STRICT, env={"FIBERS_OWNERSHIP": ""})
    assert done.stderr == ""
    assert "foreign b'x'" in done.stdout
    assert "moves 0" in done.stdout  # back here the other loop is finished: nothing to move from


def test_an_unknown_mode_fails_at_import() -> None:
    done = run_python("-c", "import fibers", env={"FIBERS_OWNERSHIP": "strickt"})
    assert done.returncode != 0
    assert "FIBERS_OWNERSHIP='strickt'" in done.stderr


def test_the_error_is_a_runtime_error_and_not_an_os_error() -> None:
    """A program that handles network errors must not take it for one."""
    assert issubclass(OwnershipError, RuntimeError)
    assert not issubclass(OwnershipError, OSError)
