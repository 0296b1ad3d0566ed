"""One contract, every poller: epoll, poll, select, kqueue on the fake, and the real kqueue where it exists.

Tests marked [K] state a fact of the Linux kernel on which the design stands.
"""

import errno
import importlib
import math
import os
import resource
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.once import once
from support.process import ROOT, run_python
from support.scale import scaled

from fibers.eventloop.pollers import LONGEST_WAIT, READ, WRITE, Poller
from fibers.eventloop.pollers.kqueue import KqueuePoller

pytestmark = once

LINUX = sys.platform == "linux"
KINDS = {"epoll": "EpollPoller", "poll": "PollPoller", "select": "SelectPoller"}
Pair = tuple[socket.socket, socket.socket]


def make(kind: str) -> Poller:
    if kind == "kqueue":
        return KqueuePoller()
    if kind == "fake kqueue":
        return KqueuePoller(importlib.import_module("support.fake_kqueue"))
    module = importlib.import_module(f"fibers.eventloop.pollers.{kind}")
    poller: Poller = getattr(module, KINDS[kind])()
    return poller


EDGE_KINDS = ["epoll", "fake kqueue"] if LINUX else ["kqueue"]
EVERY = pytest.mark.parametrize("kind", ["poll", "select", *EDGE_KINDS])
EDGE = pytest.mark.parametrize("kind", EDGE_KINDS)
LEVEL = pytest.mark.parametrize("kind", ["poll", "select"])
ON_LINUX = pytest.mark.skipif(not LINUX, reason="a fact of the Linux kernel, or the fake, which stands on epoll")


@pytest.fixture
def poller(kind: str) -> Iterator[Poller]:
    poller = make(kind)
    yield poller
    poller.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    a, b = socket.socketpair()
    a.setblocking(False)
    b.setblocking(False)
    with a, b:
        yield a, b


def tcp_pair() -> Pair:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    client.setblocking(False)
    server.setblocking(False)
    return client, server


def refused_address(kind: socket.SocketKind) -> Any:
    with socket.socket(type=kind) as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()


def seen(poller: Poller, timeout: float | None = 0.0) -> dict[int, str]:
    """One wait, in words: fd -> letters of r(eadable), w(ritable), h(angup), i(nvalid)."""
    words: dict[int, str] = {}
    for fd, bits in poller.wait(timeout):
        words[fd] = words.get(fd, "") + "".join(
            letter
            for letter, mask in (
                ("r", poller.READABLE),
                ("w", poller.WRITABLE),
                ("h", poller.HANGUP),
                ("i", poller.INVALID),
            )
            if bits & mask
        )
    return words


def gather(poller: Poller, fd: int, letters: str) -> str:
    """Wait, arming READ again where the poller is one-shot, until all the letters have been seen."""
    got = ""
    while not set(letters) <= set(got):
        if not poller.edge_triggered:
            poller.arm(fd, READ, 0)
        events = seen(poller, 5.0)
        assert events, f"nothing more came, only {got!r}"
        got += events.get(fd, "")
    return got


# -- the contract --------------------------------------------------------------------------------------------


@EVERY
def test_constants_are_consistent(poller: Poller, kind: str) -> None:
    assert poller.name == kind.removeprefix("fake ")
    assert poller.edge_triggered == (poller.name in ("epoll", "kqueue"))
    for mask in (poller.READABLE, poller.WRITABLE):
        assert mask
        assert not mask & poller.INVALID
    assert poller.READABLE != poller.WRITABLE
    assert bool(poller.INVALID) == (not poller.edge_triggered)
    assert poller.MAX_EVENTS > 500


@EVERY
def test_first_wait_reports_what_is_ready_already(poller: Poller, pair: Pair) -> None:
    a, b = pair
    b.send(b"x")
    poller.arm(a.fileno(), READ, 0)
    assert seen(poller) == {a.fileno(): "r"}


@EVERY
def test_reads_and_writes_of_a_unix_socket(poller: Poller, pair: Pair) -> None:
    a, b = pair
    poller.arm(a.fileno(), READ, 0)
    assert seen(poller) == {}
    b.send(b"x")
    assert seen(poller, 5.0) == {a.fileno(): "r"}
    poller.arm(a.fileno(), WRITE, READ if poller.edge_triggered else 0)
    assert "w" in seen(poller)[a.fileno()]


@EVERY
def test_reads_and_writes_of_a_pipe(poller: Poller) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    poller.arm(reader, READ, 0)
    poller.arm(writer, WRITE, 0)
    assert seen(poller) == {writer: "w"}
    if not poller.edge_triggered:
        poller.arm(writer, WRITE, 0)
    while select.select([], [writer], [], 0)[1]:
        os.write(writer, bytes(65536))
    assert reader in seen(poller, 5.0)
    assert writer not in seen(poller)
    os.read(reader, 65536)
    assert seen(poller, 5.0)[writer] == "w"
    for fd in (reader, writer):
        poller.forget(fd, READ | WRITE)
        os.close(fd)


@EVERY
def test_a_listener_reports_a_burst_as_one_edge_and_then_the_next_burst(poller: Poller) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        poller.arm(listener.fileno(), READ, 0)
        for _ in range(2):
            clients = [socket.create_connection(listener.getsockname()) for _ in range(3)]
            assert seen(poller, 5.0) == {listener.fileno(): "r"}
            while seen(poller):  # epoll may have seen the burst in two parts
                assert poller.edge_triggered
            for client in clients:
                client.close()
                listener.accept()[0].close()
            if not poller.edge_triggered:
                poller.arm(listener.fileno(), READ, 0)
            assert seen(poller) == {}
        poller.forget(listener.fileno(), READ)


@EVERY
def test_second_direction_takes_one_more_arm(poller: Poller, pair: Pair) -> None:
    a, b = pair
    poller.arm(a.fileno(), READ, 0)
    poller.arm(a.fileno(), WRITE, READ)
    assert seen(poller) == {a.fileno(): "w"}
    b.send(b"x")
    assert "r" in seen(poller, 5.0)[a.fileno()]


@EVERY
@pytest.mark.parametrize("family", ["unix", "tcp"])
def test_half_close_sets_hangup_and_leaves_writing_alone(poller: Poller, family: str) -> None:
    a, b = socket.socketpair() if family == "unix" else tcp_pair()
    with a, b:
        poller.arm(a.fileno(), READ, 0)
        b.shutdown(socket.SHUT_WR)
        assert gather(poller, a.fileno(), "rh" if poller.HANGUP else "r").strip("rh") == ""
        a.send(b"still open this way")
        poller.forget(a.fileno(), READ)


@EVERY
def test_data_and_end_that_share_an_edge(poller: Poller) -> None:
    a, b = tcp_pair()
    with a, b:
        b.send(b"last words")
        b.close()
        assert select.select([a], [], [], 5)[0]
        poller.arm(a.fileno(), READ, 0)
        gather(poller, a.fileno(), "rh" if poller.HANGUP else "r")
        assert a.recv(100) == b"last words"
        if not poller.HANGUP:  # nobody warns, so the next wait must tell of the end
            poller.arm(a.fileno(), READ, 0)
            assert seen(poller, 5.0) == {a.fileno(): "r"}
        assert a.recv(100) == b""
        poller.forget(a.fileno(), READ)


@EVERY
def test_peer_of_a_pipe_leaves(poller: Poller) -> None:
    reader, writer = os.pipe()
    poller.arm(reader, READ, 0)
    os.close(writer)
    gather(poller, reader, "rh" if poller.HANGUP else "r")
    poller.forget(reader, READ)
    os.close(reader)

    reader, writer = os.pipe()
    poller.arm(writer, WRITE, 0)
    seen(poller)
    if not poller.edge_triggered:
        poller.arm(writer, WRITE, 0)
    os.close(reader)
    assert "w" in seen(poller, 5.0)[writer]
    poller.forget(writer, WRITE)
    os.close(writer)


@EVERY
def test_an_error_shows_in_both_directions(poller: Poller) -> None:
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.connect_ex(refused_address(socket.SOCK_STREAM))
        poller.arm(sock.fileno(), WRITE, 0)
        if poller.name == "select":  # it tells of nothing that it was not asked for
            poller.arm(sock.fileno(), READ, WRITE)
        words = seen(poller, 5.0)[sock.fileno()]
        assert "r" in words
        assert "w" in words
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
        poller.forget(sock.fileno(), READ | WRITE)


@EVERY
def test_refused_udp_is_an_edge_and_not_a_state(poller: Poller) -> None:
    """[K] ERR is not final: recv says ECONNREFUSED, then EAGAIN."""
    with socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.setblocking(False)
        udp.connect(refused_address(socket.SOCK_DGRAM))
        poller.arm(udp.fileno(), READ, 0)
        udp.send(b"x")
        assert "r" in seen(poller, 5.0)[udp.fileno()]
        with pytest.raises(ConnectionRefusedError):
            udp.recv(10)
        if not poller.edge_triggered:
            poller.arm(udp.fileno(), READ, 0)
        assert seen(poller) == {}
        poller.forget(udp.fileno(), READ)


@EVERY
@ON_LINUX
def test_a_fifo_and_a_pty_open_again(poller: Poller, tmp_path: Any) -> None:
    """[K] HUP is not final: a FIFO's writer comes back, and so does a terminal's slave."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    fifo = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    master, slave = os.openpty()
    poller.arm(fifo, READ, 0)
    poller.arm(master, READ, 0)
    name = os.ttyname(slave)
    os.close(slave)
    gather(poller, master, "r")
    for _ in range(2):
        writer = os.open(path, os.O_WRONLY)
        os.write(writer, b"x")
        gather(poller, fifo, "r")
        assert os.read(fifo, 10) == b"x"
        os.close(writer)
        gather(poller, fifo, "r")
        assert os.read(fifo, 10) == b""

        slave = os.open(name, os.O_RDWR | os.O_NOCTTY)
        os.write(slave, b"y")
        gather(poller, master, "r")
        assert os.read(master, 10) == b"y"
        os.close(slave)
        gather(poller, master, "r")
        with pytest.raises(OSError, match="Input/output") as caught:
            os.read(master, 10)
        assert caught.value.errno == errno.EIO
    for fd in (fifo, master):
        poller.forget(fd, READ)
        os.close(fd)


@pytest.mark.parametrize("kind", ["epoll", "poll", "select"])
@ON_LINUX
def test_urgent_data_wakes_a_reader_once(poller: Poller) -> None:
    """Not so on kqueue, whose read filter does not tell of urgent data."""
    a, b = tcp_pair()
    with a, b:
        poller.arm(a.fileno(), READ, 0)
        b.send(b"!", socket.MSG_OOB)
        # Where edges count, it also says that short reads prove nothing any more: there may be data behind the mark.
        assert seen(poller, 5.0) == {a.fileno(): "rh" if poller.edge_triggered else "r"}
        with pytest.raises(BlockingIOError):
            a.recv(10)
        if not poller.edge_triggered:
            poller.arm(a.fileno(), READ, 0)
        assert seen(poller) == {}, "a reader at the mark would spin"
        b.send(b"x")
        assert seen(poller, 5.0) == {a.fileno(): "r"}
        poller.forget(a.fileno(), READ)


# -- forgetting, closing, numbers that change hands ----------------------------------------------------------


@EVERY
def test_forgotten_files_are_silent(poller: Poller, pair: Pair) -> None:
    a, b = pair
    poller.arm(a.fileno(), READ, 0)
    poller.arm(a.fileno(), WRITE, READ)
    poller.forget(a.fileno(), READ | WRITE)
    b.send(b"x")
    assert seen(poller, 0.01) == {}
    poller.arm(a.fileno(), READ, 0)
    assert seen(poller) == {a.fileno(): "r"}


@EVERY
def test_forget_does_not_mind_what_happened_behind_our_back(poller: Poller) -> None:
    a, b = socket.socketpair()
    number = a.fileno()
    poller.arm(number, READ, 0)
    a.close()
    poller.forget(number, READ)
    poller.forget(number, READ | WRITE)
    a2, b2 = socket.socketpair()
    assert a2.fileno() == number, "the lowest free number comes back"
    poller.forget(number, READ | WRITE)  # never armed in this life
    with open(os.devnull) as null:
        poller.forget(null.fileno(), READ | WRITE)
    for sock in (b, a2, b2):
        sock.close()


@EVERY
def test_a_reused_number_starts_afresh(poller: Poller) -> None:
    a, b = socket.socketpair()
    number = a.fileno()
    poller.arm(number, READ, 0)
    poller.forget(number, READ)
    a.close()
    a2, b2 = socket.socketpair()
    assert a2.fileno() == number
    b2.send(b"x")
    assert seen(poller) == {}
    poller.arm(number, READ, 0)
    assert seen(poller) == {number: "r"}
    poller.forget(number, READ)
    for sock in (b, a2, b2):
        sock.close()


@EDGE
def test_dup2_over_an_armed_number(poller: Poller, pair: Pair) -> None:
    """[K] DEL gives ENOENT, a new ADD works."""
    c, d = socket.socketpair()
    number = os.dup(pair[0].fileno())
    poller.arm(number, READ, 0)
    os.dup2(c.fileno(), number)
    poller.forget(number, READ)
    poller.arm(number, READ, 0)
    d.send(b"x")
    assert seen(poller, 5.0) == {number: "r"}
    poller.forget(number, READ)
    os.close(number)
    c.close()
    d.close()


@EVERY
def test_close_is_idempotent_and_final(poller: Poller, pair: Pair) -> None:
    poller.arm(pair[0].fileno(), READ, 0)
    assert (poller.fileno() >= 0) == poller.edge_triggered
    poller.close()
    poller.close()
    assert poller.fileno() == -1
    with pytest.raises(ValueError, match="closed"):
        poller.wait(0.0)
    with pytest.raises(ValueError, match="closed"):
        poller.arm(pair[0].fileno(), READ, 0)


# -- refusals ------------------------------------------------------------------------------------------------


@EVERY
def test_a_negative_number_is_refused_by_name(poller: Poller) -> None:
    with pytest.raises(ValueError, match=r"negative integer \(-1\)"):
        poller.arm(-1, READ, 0)
    assert seen(poller) == {}


@EDGE
def test_a_closed_number_is_refused_each_time(poller: Poller) -> None:
    fd = os.open(os.devnull, os.O_RDONLY)
    os.close(fd)
    for _ in range(2):
        with pytest.raises(OSError, match="Bad file") as caught:
            poller.arm(fd, READ, 0)
        assert caught.value.errno == errno.EBADF


@EDGE
def test_files_that_never_block_are_eperm_each_time(poller: Poller) -> None:
    with open(__file__) as file:
        directory = os.open(os.path.dirname(__file__), os.O_RDONLY)
        for fd in (file.fileno(), directory):
            for interest in (READ, READ, WRITE):
                with pytest.raises(PermissionError) as caught:
                    poller.arm(fd, interest, 0)
                assert caught.value.errno == errno.EPERM
        os.close(directory)
    assert seen(poller) == {}


@LEVEL
def test_files_that_never_block_are_ready(poller: Poller) -> None:
    with open(__file__) as file:
        poller.arm(file.fileno(), READ, 0)
        assert seen(poller) == {file.fileno(): "r"}


@EVERY
@ON_LINUX
def test_dev_null_never_blocks(kind: str, poller: Poller) -> None:
    """[K] ADD and DEL of /dev/null give EPERM. (Whether a kqueue takes it differs from system to system.)"""
    with open(os.devnull) as null:
        if poller.edge_triggered:
            with pytest.raises(OSError, match=r"Operation not permitted|No such device"):
                poller.arm(null.fileno(), READ, 0)
            poller.forget(null.fileno(), READ)
        else:
            poller.arm(null.fileno(), READ, 0)
            assert seen(poller) == {null.fileno(): "r"}


# -- time ----------------------------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("timeout", [0.0001, 0.0002, 0.001, 0.00101, 0.0025, 0.0199])
def test_a_wait_is_never_early(poller: Poller, pair: Pair, timeout: float) -> None:
    poller.arm(pair[0].fileno(), READ, 0)
    start = time.monotonic()
    assert poller.wait(timeout) == []
    taken = time.monotonic() - start
    assert timeout <= taken < timeout + 1.0


@EVERY
@pytest.mark.parametrize("timeout", [0.0, -0.0, -1e-9, -1.0, -math.inf])
def test_zero_and_below_do_not_wait(poller: Poller, pair: Pair, timeout: float) -> None:
    poller.arm(pair[0].fileno(), READ, 0)
    start = time.monotonic()
    assert poller.wait(timeout) == []
    assert time.monotonic() - start < 1.0


@EVERY
@pytest.mark.parametrize("timeout", [LONGEST_WAIT * 2, 2_147_484.0, 1e12, 1e300, math.inf, None])
def test_far_deadlines_are_waits_and_not_errors(poller: Poller, timeout: float | None) -> None:
    """A wait over 2,147,483 s overflows in epoll and poll, one over 10^8 s in some kqueues."""
    a, b = socket.socketpair()
    with a, b:
        poller.arm(a.fileno(), READ, 0)
        sender = threading.Thread(target=b.send, args=(b"x",))
        sender.start()
        assert seen(poller, timeout) == {a.fileno(): "r"}
        sender.join()
        poller.forget(a.fileno(), READ)


@EVERY
def test_waits_are_clamped_to_a_day(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float | None] = []

    class Recorder:
        """In place of the kernel object: what it is asked to wait, in its own unit."""

        def register(self, *_: object) -> None: ...
        def close(self) -> None: ...
        def poll(self, timeout: float | None, *_: int) -> list[tuple[int, int]]:
            asked.append(timeout)
            return []

        def control(self, changes: object, room: int, timeout: float | None) -> list[Any]:
            asked.append(timeout)
            return []

    def record_select(*arguments: Any) -> tuple[list[int], list[int], list[int]]:
        asked.append(arguments[3])
        return [], [], []

    name = kind.removeprefix("fake ")
    module = importlib.import_module(f"fibers.eventloop.pollers.{name}")
    if name == "epoll":
        monkeypatch.setattr(module, "epoll", Recorder)
    elif name == "poll":
        monkeypatch.setattr(module.select, "poll", Recorder)
    elif name == "select":
        monkeypatch.setattr(module, "select", record_select)
    else:
        api = importlib.import_module("support.fake_kqueue" if kind.startswith("fake") else "select")
        monkeypatch.setattr(api, "kqueue", Recorder)
    poller = make(kind)
    for timeout in (1e12, LONGEST_WAIT, 1.5, 0.0, -5.0, None):
        assert poller.wait(timeout) == []
    poller.close()
    unit = 1000.0 if name == "poll" else 1.0
    assert asked == [86_400.0 * unit, 86_400.0 * unit, 1.5 * unit, 0.0, 0.0, None]


# -- many ----------------------------------------------------------------------------------------------------


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 7000:
        pytest.skip(f"needs 7,000 open files, and the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 7000), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@EVERY
@pytest.mark.usefixtures("many_files")
@pytest.mark.parametrize("interest", [READ, READ | WRITE])
def test_3000_ready_files_are_all_heard_of_by_the_max_events_protocol(poller: Poller, interest: int) -> None:
    """One wait returns a thousand or so at most; epoll and kqueue keep the rest for the next.

    A kqueue's answer holds two entries for a file that is ready both ways: full with half as many files.
    """
    pairs = [socket.socketpair() for _ in range(3000 if poller.name != "select" else 450)]
    try:
        for a, b in pairs:
            b.send(b"x")
            poller.arm(a.fileno(), READ, 0)
            if interest & WRITE:
                poller.arm(a.fileno(), WRITE, READ)
        heard: dict[int, int] = {}
        waits = 0
        while True:
            events = poller.wait(0.0)
            waits += 1
            for fd, bits in events:
                heard[fd] = heard.get(fd, 0) | bits
            if len(events) < poller.MAX_EVENTS:
                break
        assert set(heard) == {a.fileno() for a, _ in pairs}
        assert all(bits & poller.READABLE for bits in heard.values())
        assert all(bits & poller.WRITABLE for bits in heard.values() if interest & WRITE)
        assert waits <= 2 + len(pairs) // poller.MAX_EVENTS
        assert poller.wait(0.0) == []
    finally:
        for a, b in pairs:
            poller.forget(a.fileno(), interest)
            a.close()
            b.close()


# -- edges: one registration for life ------------------------------------------------------------------------


@EDGE
def test_an_edge_is_reported_once_per_arrival_and_not_per_read(poller: Poller, pair: Pair) -> None:
    """[K] An undrained socket raises a new event at the next arrival; a partial read raises none."""
    a, b = pair
    poller.arm(a.fileno(), READ, 0)
    b.send(b"123")
    assert seen(poller, 5.0) == {a.fileno(): "r"}
    assert seen(poller) == {}
    a.recv(1)
    assert seen(poller) == {}
    b.send(b"4")
    assert seen(poller, 5.0) == {a.fileno(): "r"}


@EDGE
def test_disarm_does_nothing_to_an_edge(poller: Poller, pair: Pair) -> None:
    a, b = pair
    poller.arm(a.fileno(), READ, 0)
    poller.disarm(a.fileno(), READ)
    b.send(b"x")
    assert seen(poller, 5.0) == {a.fileno(): "r"}


@EDGE
def test_a_reader_is_not_woken_by_the_peers_reads(poller: Poller, pair: Pair) -> None:
    """[K] With IN|OUT on a unix socket each read of the peer would raise OUT: directions are armed apart."""
    a, b = pair
    poller.arm(a.fileno(), READ, 0)
    for _ in range(10):
        a.send(b"x")
        b.recv(10)
    assert seen(poller) == {}


@EDGE
def test_a_writers_dup_is_not_woken_by_arriving_data(poller: Poller) -> None:
    a, b = tcp_pair()
    with a, b, a.dup() as copy:
        poller.arm(copy.fileno(), WRITE, 0)
        assert seen(poller) == {copy.fileno(): "w"}
        for _ in range(10):
            b.send(b"x")
            assert a.recv(10) or True
        assert seen(poller) == {}
        poller.forget(copy.fileno(), WRITE)


@ON_LINUX
class TestEpoll:
    """What only epoll has."""

    @pytest.fixture
    def kind(self) -> str:
        return "epoll"

    def test_calls_one_add_one_mod_one_del(self, monkeypatch: pytest.MonkeyPatch, pair: Pair) -> None:
        calls: list[str] = []

        class Spy:
            """A select.epoll that tells of its system calls."""

            def __init__(self) -> None:
                self.real = select.epoll()
                self.poll, self.close = self.real.poll, self.real.close

            def register(self, fd: int, events: int) -> None:
                calls.append("ADD")
                self.real.register(fd, events)

            def modify(self, fd: int, events: int) -> None:
                calls.append("MOD")
                self.real.modify(fd, events)

            def unregister(self, fd: int) -> None:
                calls.append("DEL")
                self.real.unregister(fd)

        monkeypatch.setattr(importlib.import_module("fibers.eventloop.pollers.epoll"), "epoll", Spy)
        poller = make("epoll")
        a, b = pair
        poller.arm(a.fileno(), READ, 0)
        for _ in range(100):
            b.send(b"x")
            assert seen(poller, 5.0) == {a.fileno(): "r"}
            a.recv(10)
            poller.disarm(a.fileno(), READ)
        assert calls == ["ADD"]
        poller.arm(a.fileno(), WRITE, READ)
        poller.forget(a.fileno(), READ | WRITE)
        poller.forget(b.fileno(), 0)
        assert calls == ["ADD", "MOD", "DEL"]
        poller.close()

    def test_what_the_kernel_has_on_record(self, poller: Poller, pair: Pair) -> None:
        def record() -> dict[int, int]:
            with open(f"/proc/self/fdinfo/{poller.fileno()}") as info:
                rows = [line.split() for line in info if line.startswith("tfd:")]
            return {int(row[1]): int(row[3], 16) for row in rows}

        always = select.EPOLLERR | select.EPOLLHUP
        reading = select.EPOLLIN | select.EPOLLPRI | select.EPOLLRDHUP | select.EPOLLET
        writing = select.EPOLLOUT | select.EPOLLET
        a, b = pair[0].fileno(), pair[1].fileno()
        poller.arm(a, READ, 0)
        poller.arm(b, WRITE, 0)
        assert record() == {a: reading | always, b: writing | always}
        poller.arm(a, WRITE, READ)
        assert record()[a] == reading | writing | always
        poller.forget(a, READ | WRITE)
        poller.forget(b, WRITE)
        assert record() == {}

    def test_close_with_a_living_dup_reports_on(self, poller: Poller, pair: Pair) -> None:
        """[K] Events go on under the old number, DEL says EBADF: DEL before close. EEXIST is taken over."""
        a, b = pair
        number = os.dup(a.fileno())
        poller.arm(number, READ, 0)
        os.close(number)
        poller.forget(number, READ)
        b.send(b"x")
        assert seen(poller, 5.0) == {number: "r"}
        os.dup2(a.fileno(), number)
        poller.arm(number, READ, 0)
        assert seen(poller) == {number: "r"}
        poller.forget(number, READ)
        os.close(number)
        b.send(b"x")
        assert seen(poller, 0.01) == {}

    def test_half_close_then_close(self, poller: Poller) -> None:
        """[K] Peer SHUT_WR: IN|OUT|RDHUP. Then peer close: +HUP on unix sockets, nothing more on TCP."""
        for (a, b), then in ((socket.socketpair(), select.EPOLLHUP), (tcp_pair(), 0)):
            with a, b:
                fd = a.fileno()
                poller.arm(fd, READ, 0)
                poller.arm(fd, WRITE, READ)
                poller.wait(0.0)
                b.shutdown(socket.SHUT_WR)
                half = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP
                assert poller.wait(5.0) == [(fd, half)]
                b.close()
                assert poller.wait(5.0 if then else 0.05) == ([(fd, half | then)] if then else [])
                poller.forget(fd, READ | WRITE)

    def test_an_unconnected_tcp_socket_reports_at_once(self, poller: Poller) -> None:
        """[K] OUT|HUP, so nothing is registered before its first would-block."""
        with socket.socket() as sock:
            poller.arm(sock.fileno(), WRITE, 0)
            assert poller.wait(0.0) == [(sock.fileno(), select.EPOLLOUT | select.EPOLLHUP)]
            poller.forget(sock.fileno(), WRITE)

    def test_a_failing_second_arm_leaves_the_first(self, poller: Poller, pair: Pair) -> None:
        a, b = pair
        poller.arm(a.fileno(), READ, 0)
        with pytest.raises(FileNotFoundError):
            poller.arm(b.fileno(), WRITE, READ)  # not what `armed` claims
        b.send(b"x")
        assert seen(poller, 5.0) == {a.fileno(): "r"}

    def test_other_errors_of_forget_are_not_swallowed(self, poller: Poller) -> None:
        with pytest.raises(OSError, match="Invalid argument") as caught:
            poller.forget(poller.fileno(), READ)  # an epoll cannot watch itself
        assert caught.value.errno == errno.EINVAL

    def test_a_childs_close_of_the_inherited_epoll_leaves_the_parents_registration(self) -> None:
        """[K] A child's DEL removes the parent's registration; its close does not."""
        code = """
import os, select, socket
from fibers.eventloop.pollers import READ
from fibers.eventloop.pollers.epoll import EpollPoller
for verb, left in (("close", 1), ("forget", 0)):
    poller = EpollPoller()
    a, b = socket.socketpair()
    poller.arm(a.fileno(), READ, 0)
    child = os.fork()
    if child == 0:
        poller.close() if verb == "close" else poller.forget(a.fileno(), READ)
        os._exit(0)
    os.waitpid(child, 0)
    b.send(b"x")
    assert len(poller.wait(0.05)) == left, verb
"""
        done = run_python("-c", code, env={"PYTHONPATH": str(ROOT)})
        assert done.returncode == 0, done.stderr


# -- levels: one-shot ----------------------------------------------------------------------------------------


@LEVEL
def test_a_report_disarms_its_direction(poller: Poller, pair: Pair) -> None:
    a, b = pair
    b.send(b"x")
    poller.arm(a.fileno(), READ, 0)
    assert seen(poller) == {a.fileno(): "r"}
    assert seen(poller) == {}
    poller.arm(a.fileno(), READ, 0)
    assert seen(poller) == {a.fileno(): "r"}


@LEVEL
def test_a_report_leaves_the_other_direction_armed(poller: Poller, pair: Pair) -> None:
    a, b = pair
    poller.arm(a.fileno(), READ, 0)
    poller.arm(a.fileno(), WRITE, READ)
    assert seen(poller) == {a.fileno(): "w"}
    assert seen(poller) == {}
    b.send(b"x")
    assert seen(poller, 5.0) == {a.fileno(): "r"}
    assert seen(poller) == {}


@LEVEL
def test_disarm_takes_back_one_direction(poller: Poller, pair: Pair) -> None:
    a, b = pair
    b.send(b"x")
    poller.arm(a.fileno(), READ, 0)
    poller.arm(a.fileno(), WRITE, READ)
    poller.disarm(a.fileno(), READ)
    assert seen(poller) == {a.fileno(): "w"}
    poller.disarm(a.fileno(), READ)
    assert seen(poller) == {}


@LEVEL
def test_a_hang_up_is_not_reported_without_end(poller: Poller) -> None:
    """Hazard 15: register(fd, 0) reports POLLHUP at each wait."""
    a, b = socket.socketpair()
    with a:
        poller.arm(a.fileno(), READ, 0)
        poller.disarm(a.fileno(), READ)
        b.close()
        assert seen(poller) == {}
        poller.arm(a.fileno(), WRITE, 0)
        reports = [seen(poller) for _ in range(20)]
        assert sum(map(bool, reports)) == 1


@LEVEL
@pytest.mark.parametrize("how", ["closed", "path only"] if LINUX else ["closed"])
def test_a_number_that_is_no_open_file_is_reported_once(poller: Poller, pair: Pair, how: str) -> None:
    """Hazard 15: a closed fd is POLLNVAL at each poll, EBADF at each select. Others must still be heard.

    An O_PATH fd is POLLNVAL as well, though open; select calls it ready.
    """
    fd = os.open(os.devnull, os.O_PATH if how == "path only" else os.O_RDONLY)
    poller.arm(fd, READ, 0)
    poller.arm(fd, WRITE, READ)
    if how == "closed":
        os.close(fd)
    a, b = pair
    b.send(b"x")
    poller.arm(a.fileno(), READ, 0)
    reports = [seen(poller) for _ in range(20)]
    word = "rw" if how == "path only" and poller.name == "select" else "i"
    assert sorted(item for report in reports for item in report.items()) == sorted([(fd, word), (a.fileno(), "r")])
    assert sum(map(bool, reports)) <= 2
    assert seen(poller, 0.02) == {}
    if how == "path only":
        os.close(fd)


@LEVEL
def test_a_number_that_was_invalid_can_be_armed_again(poller: Poller) -> None:
    fd = os.open(os.devnull, os.O_RDONLY)
    os.close(fd)
    poller.arm(fd, READ, 0)
    assert seen(poller) == {fd: "i"}
    a, b = socket.socketpair()
    with a, b:
        assert a.fileno() == fd
        b.send(b"x")
        poller.arm(fd, READ, 0)
        assert seen(poller) == {fd: "r"}


class Interrupted:
    """A kernel wait during which something else happens: `meanwhile` runs after the real call."""

    def __init__(self, wait: Callable[..., Any], meanwhile: Callable[[], None]) -> None:
        self.wait = wait
        self.meanwhile = meanwhile
        self.calls = 0

    def __call__(self, *arguments: Any) -> Any:
        self.calls += 1
        try:
            return self.wait(*arguments)
        finally:
            if self.calls == 1:
                self.meanwhile()


class InterruptedPoll:
    """A select.poll with such a wait."""

    def __init__(self, real: Any, meanwhile: Callable[[], None]) -> None:
        self.register, self.unregister = real.register, real.unregister
        self.poll = Interrupted(real.poll, meanwhile)


def interrupt(kind: str, poller: Any, meanwhile: Callable[[], None], patch: pytest.MonkeyPatch) -> None:
    if kind == "poll":
        patch.setattr(poller, "_poll", InterruptedPoll(poller._poll, meanwhile))
    else:
        module = importlib.import_module("fibers.eventloop.pollers.select")
        patch.setattr(module, "select", Interrupted(select.select, meanwhile))


@LEVEL
def test_what_a_wait_says_of_a_predecessor_is_not_held_against_the_successor(
    poller: Poller, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closed, forgotten, re-opened and armed by another thread while the kernel was saying "invalid"."""
    a, b = socket.socketpair()
    number = os.open(os.devnull, os.O_RDONLY)
    poller.arm(number, READ, 0)
    os.close(number)

    def meanwhile() -> None:
        poller.forget(number, READ)
        os.dup2(a.fileno(), number)
        poller.arm(number, READ, 0)

    interrupt(kind, poller, meanwhile, monkeypatch)
    assert seen(poller) == {}
    assert seen(poller) == {}, "the successor has nothing to read"
    b.send(b"x")
    assert seen(poller) == {number: "r"}, "and is still armed"
    poller.forget(number, READ)
    os.close(number)
    a.close()
    b.close()


@LEVEL
def test_what_is_forgotten_during_a_wait_is_left_out(
    poller: Poller, kind: str, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = pair
    b.send(b"x")
    poller.arm(a.fileno(), READ, 0)
    interrupt(kind, poller, lambda: poller.forget(a.fileno(), READ), monkeypatch)
    assert seen(poller) == {}
    poller.arm(a.fileno(), READ, 0)
    assert seen(poller) == {a.fileno(): "r"}


@LEVEL
def test_a_direction_armed_during_a_wait_is_not_lost(
    poller: Poller, kind: str, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = pair
    b.send(b"x")
    poller.arm(a.fileno(), READ, 0)
    interrupt(kind, poller, lambda: poller.arm(a.fileno(), WRITE, READ), monkeypatch)
    words = "".join(seen(poller).get(a.fileno(), "") for _ in range(3))
    assert sorted(words) == ["r", "w"]


@pytest.mark.parametrize("kind", ["poll"])
def test_a_poll_that_is_entered_twice_refuses(poller: Poller, pair: Pair) -> None:
    """Hazard 15. The first wait goes on undisturbed."""
    a, b = pair
    poller.arm(a.fileno(), READ, 0)
    found: list[dict[int, str]] = []
    first = threading.Thread(target=lambda: found.append(seen(poller, None)))
    first.start()
    refused = False
    while not refused:
        try:
            poller.wait(0.0)
        except RuntimeError as error:
            refused = "concurrent" in str(error)
    b.send(b"x")
    first.join()
    assert found == [{a.fileno(): "r"}]


@EVERY
def test_changes_from_another_thread_corrupt_nothing(poller: Poller) -> None:
    """Another thread arms, disarms and forgets all the time; a bystander hears of all its own messages."""
    a, b = socket.socketpair()
    pairs = [socket.socketpair() for _ in range(20)]
    for left, right in pairs:
        left.send(b"x")
        right.send(b"x")
    a.setblocking(False)
    done = threading.Event()
    failures: list[BaseException] = []

    def meddle() -> None:
        try:
            while not done.is_set():
                for left, _ in pairs:
                    poller.arm(left.fileno(), READ, 0)
                    poller.arm(left.fileno(), WRITE, READ)
                    poller.disarm(left.fileno(), READ)
                    poller.forget(left.fileno(), READ | WRITE)
        except BaseException as error:
            failures.append(error)

    meddler = threading.Thread(target=meddle)
    meddler.start()
    try:
        poller.arm(a.fileno(), READ, 0)
        for _ in range(scaled(20_000, least=200)):
            b.send(b"x")
            while a.fileno() not in dict(poller.wait(10.0)):
                assert not failures
            a.recv(10)
            if not poller.edge_triggered:
                poller.arm(a.fileno(), READ, 0)
    finally:
        done.set()
        meddler.join()
    assert failures == []
    poller.forget(a.fileno(), READ)
    for left, _ in pairs:
        poller.forget(left.fileno(), READ | WRITE)
    assert seen(poller) == {}
    for sock in (a, b, *(end for both in pairs for end in both)):
        sock.close()


@LEVEL
def test_an_arm_by_another_thread_waits_for_the_report_to_be_complete(
    poller: Any, kind: str, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """READ is reported; before it is dropped another thread arms WRITE, which must not be dropped along."""
    a, b = pair
    fd = a.fileno()
    b.send(b"x")
    poller.arm(fd, READ, 0)
    other = threading.Thread(target=poller.arm, args=(fd, WRITE, 0))
    entered = threading.Event()

    def beside() -> None:
        if not entered.is_set():
            entered.set()
            other.start()
            other.join(0.05)  # it ends at once if nothing keeps it out, and then the damage is done

    class HookedDict(dict[int, int]):
        def pop(self, *arguments: Any) -> Any:
            beside()
            return super().pop(*arguments)

    class HookedPoll:
        def __init__(self, real: Any) -> None:
            self.register, self.poll, self.real = real.register, real.poll, real

        def unregister(self, fd: int) -> None:
            beside()
            self.real.unregister(fd)

    if kind == "poll":
        monkeypatch.setattr(poller, "_poll", HookedPoll(poller._poll))
    else:
        monkeypatch.setattr(poller, "_armed_during", HookedDict(poller._armed_during))
    assert seen(poller) == {fd: "r"}
    assert entered.is_set()
    other.join()
    assert seen(poller) == {fd: "w"}


class TestSelect:
    """What only select has."""

    @pytest.fixture
    def kind(self) -> str:
        return "select"

    @pytest.mark.usefixtures("many_files")
    def test_a_number_over_fd_setsize_is_refused_by_name_with_advice(self, poller: Poller) -> None:
        reader, writer = os.pipe()
        high = os.dup2(reader, 1024)
        for interest in (READ, WRITE):
            with pytest.raises(ValueError, match=r"fd 1024\b.*FIBERS_EVENTLOOP=poll.*epoll.*kqueue"):
                poller.arm(high, interest, 0)
        os.write(writer, b"x")
        poller.arm(reader, READ, 0)
        assert seen(poller) == {reader: "r"}, "the refusal has spoilt nothing"
        poller.forget(high, READ | WRITE)
        for fd in (reader, writer, high):
            os.close(fd)

    @pytest.mark.usefixtures("many_files")
    def test_the_highest_number_is_taken(self, poller: Poller) -> None:
        module = importlib.import_module("fibers.eventloop.pollers.select")
        reader, writer = os.pipe()
        os.write(writer, b"x")
        high = os.dup2(reader, module.FD_SETSIZE - 1)
        poller.arm(high, READ, 0)
        assert seen(poller) == {high: "r"}
        for fd in (reader, writer, high):
            os.close(fd)

    def test_other_errors_are_not_swallowed(self, poller: Poller, monkeypatch: pytest.MonkeyPatch) -> None:
        def fails(*_: object) -> None:
            raise OSError(errno.ENOMEM, "no memory")

        monkeypatch.setattr(importlib.import_module("fibers.eventloop.pollers.select"), "select", fails)
        with pytest.raises(OSError, match="no memory"):
            poller.wait(0.0)


# -- kqueue --------------------------------------------------------------------------------------------------


class ScriptedKqueue:
    """A kqueue whose answers are written down beforehand."""

    def __init__(self, answer: list[Any]) -> None:
        self.answer = answer
        self.closed = False

    def control(self, changes: Any, room: int, timeout: float | None = None, /) -> list[Any]:
        return self.answer if room else []

    def fileno(self) -> int:
        return 99

    def close(self) -> None:
        self.closed = True


@ON_LINUX
class TestKqueue:
    """What only kqueue has."""

    @pytest.mark.parametrize(
        ("filter", "flags", "letters"),
        [
            ("READ", (), "r"),
            ("WRITE", (), "w"),
            ("READ", ("EOF",), "rh"),
            ("WRITE", ("EOF",), "rw"),
            ("READ", ("ERROR",), "rw"),
            ("WRITE", ("ERROR",), "rw"),
        ],
    )
    def test_eof_and_error_are_masked_out_of_flags(
        self, filter: str, flags: tuple[str, ...], letters: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        api = importlib.import_module("support.fake_kqueue")
        value = api.KQ_EV_ADD | api.KQ_EV_CLEAR | sum(getattr(api, f"KQ_EV_{flag}") for flag in flags)
        # fflags holds garbage on purpose: it is not the place where EOF and errors are told.
        event = api.kevent(7, getattr(api, f"KQ_FILTER_{filter}"), value, api.KQ_EV_EOF | api.KQ_EV_ERROR)
        monkeypatch.setattr(api, "kqueue", lambda: ScriptedKqueue([event]))
        assert seen(KqueuePoller(api)) == {7: letters}

    def test_the_two_filters_of_a_file_are_merged(self, monkeypatch: pytest.MonkeyPatch) -> None:
        api = importlib.import_module("support.fake_kqueue")
        answer = [
            api.kevent(7, api.KQ_FILTER_READ),
            api.kevent(8, api.KQ_FILTER_READ),
            api.kevent(7, api.KQ_FILTER_WRITE),
        ]
        monkeypatch.setattr(api, "kqueue", lambda: ScriptedKqueue(answer))
        poller = KqueuePoller(api)
        assert len(poller.wait(0.0)) == 2
        assert seen(poller) == {7: "rw", 8: "r"}

    def test_a_change_swallows_no_event(self, pair: Pair) -> None:
        poller = make("fake kqueue")
        a, b = pair
        poller.arm(a.fileno(), READ, 0)
        b.send(b"x")
        poller.arm(b.fileno(), READ, 0)
        poller.forget(b.fileno(), READ)
        assert seen(poller) == {a.fileno(): "r"}
        poller.close()

    def test_forgetting_both_directions_does_not_stop_at_a_missing_one(self, pair: Pair) -> None:
        poller = make("fake kqueue")
        fd = pair[0].fileno()
        poller.arm(fd, WRITE, 0)
        poller.forget(fd, READ | WRITE)
        assert seen(poller) == {}
        poller.close()

    def test_other_errors_of_forget_are_not_swallowed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Failing(ScriptedKqueue):
            def control(self, changes: Any, room: int, timeout: float | None = None, /) -> list[Any]:
                raise OSError(errno.ENOMEM, "no memory")

        api = importlib.import_module("support.fake_kqueue")
        monkeypatch.setattr(api, "kqueue", lambda: Failing([]))
        with pytest.raises(OSError, match="no memory"):
            KqueuePoller(api).forget(7, READ)

    @pytest.mark.skipif(hasattr(select, "kqueue"), reason="there is a kqueue, a real one or the fake")
    def test_without_kqueue_it_cannot_be_made(self) -> None:
        with pytest.raises(AttributeError, match="kqueue"):
            KqueuePoller()
