"""What the libevent loop does its own way: registration for each wait, any thread, its timers, its methods, selection.

What all loops have in common is tested in conformance/, and by the rest of the suite, run with FIBERS_EVENTLOOP=libevent.
"""

import logging
import socket as std
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.process import run_python
from support.waiting import Target, wait

import fibers
from fibers.core.scheduler import get_scheduler
from fibers.eventloop import CLOSED, available, new_loop
from fibers.io import socket
from fibers.io.state import state_of
from fibers.threads.to_thread import to_thread

if available()["libevent"] is not None:
    pytest.skip(f"libevent cannot be used here: {available()['libevent']}", allow_module_level=True)

from fibers.eventloop import libevent_binding as binding
from fibers.eventloop.libevent import LibeventLoop
from fibers.eventloop.libevent_files import LibeventDirection, LibeventHandle


@pytest.fixture
def loop() -> Iterator[LibeventLoop]:
    made = LibeventLoop()
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[std.socket, std.socket]]:
    a, b = std.socketpair()
    a.setblocking(False)
    with a, b:
        yield a, b


def on_libevent(main: Callable[..., Any], *args: Any) -> Any:
    """Run `main` in a thread whose loop is libevent, whatever this thread's is."""
    return to_thread(lambda: fibers.run(main, *args, loop=new_loop("libevent")))


# -- files ----------------------------------------------------------------------------------------------------------


def test_it_registers_and_unregisters_for_each_wait(loop: LibeventLoop, pair: tuple[std.socket, std.socket]) -> None:
    a, b = pair
    handle = loop.handle(a.fileno(), True)
    for number in range(1, 6):
        waiter = wait(loop, handle.reading)
        assert (loop.stats.registrations, loop.stats.unregistrations) == (number, number - 1)
        b.send(b"x")
        loop.turn(True)
        assert list(loop.ready) == [waiter]
        loop.ready.clear()
        assert (loop.stats.registrations, loop.stats.unregistrations) == (number, number)
        a.recv(1)
    assert loop.stats.modifications == loop.stats.moves == 0
    loop.release(handle, lambda: None)


def test_every_wait_ends_with_one_edge_more(loop: LibeventLoop, pair: tuple[std.socket, std.socket]) -> None:
    """By an event, by a deadline, by whoever takes the waiter out: the next operation tries before it waits."""
    a, b = pair
    handle = loop.handle(a.fileno(), True)
    reading = handle.reading
    for end in ("an event", "a deadline", "taken out"):
        waiter = wait(loop, reading)
        waiter.deadline = loop.clock()
        if end == "an event":
            b.send(b"x")
            loop.turn(True)
            a.recv(1)
        elif end == "a deadline":
            reading.set_alarm(loop.clock())
            loop.turn(True)
        else:
            assert reading.abandon(waiter)
        assert reading.waiter is None
        assert reading.edges != reading.drained
        assert not reading.asked
        loop.ready.clear()
    loop.release(handle, lambda: None)


def test_a_short_read_never_drains() -> None:
    def main() -> bool:
        a, b = socket.socketpair()
        with a, b:
            b.send(b"abc")
            assert a.recv(100) == b"abc"
            reading = state_of(a).reading
            return reading.edges != reading.drained

    assert on_libevent(main)


def test_nothing_is_missed_although_the_latch_is_drained() -> None:
    """A timed-out operation leaves it drained; what is there by then is reported at once."""

    def main() -> bytes:
        a, b = socket.socketpair()
        with a, b:
            a.settimeout(0.001)
            with pytest.raises(TimeoutError):
                a.recv(1)
            b.send(b"x")
            a.settimeout(None)
            return a.recv(1)

    assert on_libevent(main) == b"x"


def test_several_threads_wait_for_one_fd() -> None:
    """No OwnershipError: as with blocking sockets, each datagram goes to one of them."""
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    a.settimeout(10)
    with a, b:
        ready = threading.Barrier(4)
        got: list[bytes] = []

        def reader() -> None:
            ready.wait(5)
            while (data := a.recv(10)) != b"end":
                got.append(data)

        threads = [fibers.spawn(on_libevent, reader) for _ in range(3)]
        fibers.spawn(to_thread, ready.wait, 5).join()
        for number in range(300):
            b.send(b"%d" % number)
        for _ in threads:
            b.send(b"end")
        for each in threads:
            each.result(10)
        assert sorted(map(int, got)) == list(range(300))


@pytest.mark.parametrize("closer", ["another thread", "one that waits", "one whose loop has ended"])
def test_closing_wakes_the_waiters_of_every_thread(closer: str) -> None:
    a, b = socket.socketpair()
    waiting, closed = threading.Barrier(3), []

    def reader(close: bool) -> None:
        mine = fibers.spawn(a.recv, 1)
        fibers.yield_now()
        get_scheduler().loop.turn(False)
        to_thread(waiting.wait, 5)
        if close:
            a.close()
        with pytest.raises(fibers.ClosedError):
            mine.result(10)
        closed.append(True)

    threads = [fibers.spawn(on_libevent, reader, closer == "one that waits" and number == 0) for number in range(2)]
    fibers.spawn(to_thread, waiting.wait, 5).join()
    if closer == "another thread":
        a.close()
    elif closer == "one whose loop has ended":

        def wait_in_vain() -> None:
            a.settimeout(0.001)
            with pytest.raises(TimeoutError):
                a.recv(1)

        on_libevent(wait_in_vain)
        a.close()
    for each in threads:
        each.result(10)
    assert closed == [True, True]
    assert a.fileno() == -1
    b.close()


def test_the_fd_is_closed_after_every_loop_has_deleted_its_event(pair: tuple[std.socket, std.socket]) -> None:
    """Else its number's next file would never be registered there, or be reported without end."""
    mine = LibeventLoop()
    a, _ = pair
    handle = mine.handle(a.fileno(), True)
    waiter = wait(mine, handle.reading)
    steps: list[str] = []

    def foreign() -> None:
        theirs = LibeventLoop()
        other = theirs.claim(handle)
        assert isinstance(other, LibeventHandle)
        assert other is not handle
        assert theirs.claim(handle) is other
        theirs.release(other, lambda: steps.append("closed"))
        theirs.close()

    thread = threading.Thread(target=foreign)
    thread.start()
    thread.join()
    assert steps == []
    mine.turn(True)
    assert steps == ["closed"]
    assert list(mine.ready) == [waiter]
    assert waiter.outcome is CLOSED
    mine.close()


# -- timers ---------------------------------------------------------------------------------------------------------


def test_equal_deadlines_expire_in_their_order_and_share_an_event(loop: LibeventLoop) -> None:
    order: list[Any] = []
    deadline = loop.clock() + 0.01
    events = len(loop._base.events)
    for number in range(100):
        loop.schedule(deadline, Target(number, order))
    assert len(loop._base.events) == events + 1
    while len(order) < 100:
        loop.turn(True)
    assert order == list(range(100))


def test_never_early_by_our_clock() -> None:
    """libevent reads a clock of its own: what comes early is added again for the rest."""
    slow = [0.0, 0.0]

    def clock() -> float:  # half as fast as libevent's
        now = time.monotonic()
        slow[0] = slow[0] or now
        return 1000.0 + (now - slow[0]) / 2

    loop = LibeventLoop(clock)
    order: list[Any] = []
    deadline = loop.clock() + 0.02
    loop.schedule(deadline, Target(0, order))
    while not order:
        loop.turn(True)
    assert loop.clock() >= deadline
    loop.close()


# -- the library ----------------------------------------------------------------------------------------------------

SHOW = """
import fibers
from fibers.io import socket
from fibers.io.state import state_of
from fibers.core.scheduler import get_scheduler
a, b = socket.socketpair()
reader = fibers.spawn(a.recv, 10)
a.settimeout(5)
fibers.yield_now()
b.send(b"hello")
print(reader.result(5).decode(), get_scheduler().loop.method)
a.close()
reader = fibers.spawn(b.recv, 10)
print(reader.result(5))
b.close()
"""


@pytest.mark.parametrize(
    ("forbidden", "method"),
    [
        (["EVENT_NOEPOLL"], "poll"),
        (["EVENT_NOEPOLL", "EVENT_NOPOLL"], "select"),
        (["EVENT_EPOLL_USE_CHANGELIST"], "poll"),  # unsafe: see libevent_base.py
    ],
)
@pytest.mark.skipif(not hasattr(__import__("select"), "epoll"), reason="the methods of Linux")
def test_the_environment_of_libevent_chooses_its_method(forbidden: list[str], method: str) -> None:
    env = {"FIBERS_EVENTLOOP": "libevent"} | dict.fromkeys(forbidden, "1")
    done = run_python("-c", SHOW, env=env, timeout=20)
    assert (done.stdout.split("\n")[:2]) == [f"hello {method}", "b''"], done.stderr


def test_without_any_method_the_error_says_so() -> None:
    names = ("EPOLL", "POLL", "SELECT", "KQUEUE", "DEVPOLL", "EVPORT")
    env = {"FIBERS_EVENTLOOP": "libevent"} | {f"EVENT_NO{name}": "1" for name in names}
    done = run_python("-c", SHOW, env=env, timeout=20)
    assert done.returncode == 1
    assert "no event mechanism available" in done.stderr.splitlines()[-1]


def test_version_and_method_are_visible(loop: LibeventLoop, caplog: pytest.LogCaptureFixture) -> None:
    assert loop.version.startswith("2.1.")
    assert loop.method in ("epoll", "poll", "select", "kqueue")
    with caplog.at_level(logging.INFO, "fibers.eventloop"):
        LibeventLoop().close()
    assert f"fibers is using the libevent event loop (libevent {loop.version}, {loop.method})" in caplog.text


def test_a_missing_library_is_explained() -> None:
    with pytest.raises(ImportError) as caught:
        binding.load(("libno_such_library.so.7",), lambda name: None)
    for word in ("apt install libevent-core-2.1-7", "brew install libevent", "pkg install libevent"):
        assert word in str(caught.value)


def test_another_series_of_the_library_is_not_taken() -> None:
    with pytest.raises(ImportError, match=r"libevent 2\.1 was not found"):
        binding.load(("libno_such_library.so.7",), lambda name: "libc.so.6")


def test_directions_are_plain_attributes(loop: LibeventLoop) -> None:
    """CALLING is set and cleared by any thread without a lock, which only works for attributes that run no code."""
    assert not [name for name in vars(LibeventDirection) if isinstance(vars(LibeventDirection)[name], property)]
