"""`readable` and `writable` in a select: they look and do not touch, whoever else is at the file."""

import io
import os
import re
import socket as std
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from support.backends import lifetime_only
from support.parking import parked, until_parked
from support.process import run_python
from support.scale import scaled
from support.sockets import Pair, tcp_pair

import fibers
from fibers import Channel, ClosedError, after, default, readable, select, writable
from fibers.core.scheduler import get_scheduler
from fibers.eventloop import ownership
from fibers.io import socket
from fibers.io.state import states


@pytest.fixture(params=["tcp", "unix"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    a, b = tcp_pair() if request.param == "tcp" else socket.socketpair()
    with a, b:
        yield a, b


def fill(sock: socket.socket) -> None:
    """Until it cannot be written."""
    sock.setblocking(False)
    try:
        while True:
            sock.send(bytes(65536))
    except BlockingIOError:
        sock.setblocking(True)


def drain(sock: socket.socket) -> None:
    """What can be read at this moment."""
    try:
        while True:
            sock.recv(1 << 20, socket.MSG_DONTWAIT)
    except BlockingIOError:
        pass


def turn() -> None:
    """Let the loop look at its files."""
    fibers.sleep(0)
    fibers.sleep(0.001)


# -- what they say


def test_readable(pair: Pair) -> None:
    here, there = pair
    case = readable(here)
    assert select(case, default()) == (default(), None)
    choice = parked(select, case, after(60))
    assert not choice.done()
    there.send(b"abc")
    for _ in range(2):
        assert choice.result(5) == (case, None)
        assert select(case, default()) == (case, None)
    assert here.recv(10) == b"abc"
    assert select(case, default()) == (default(), None)


def test_writable(pair: Pair) -> None:
    here, there = pair
    case = writable(here)
    assert select(case, default()) == (case, None)
    fill(here)
    assert select(case, default()) == (default(), None)
    choice = parked(select, case, after(60))
    assert not choice.done()
    while not choice.done():
        drain(there)
        fibers.yield_now()
    assert choice.result(5) == (case, None)


def test_the_end_of_a_stream_is_readable(pair: Pair) -> None:
    here, there = pair
    case = readable(here)
    choice = parked(select, case, after(60))
    there.close()
    assert choice.result(5) == (case, None)
    assert here.recv(1) == b""


def test_a_listener_and_a_datagram_socket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        case = readable(listener)
        choice = parked(select, case, after(60))
        with socket.create_connection(listener.getsockname()):
            assert choice.result(5) == (case, None)
            listener.accept()[0].close()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here, socket.socket(type=socket.SOCK_DGRAM) as there:
        here.bind(("127.0.0.1", 0))
        case = readable(here)
        choice = parked(select, case, after(60))
        there.sendto(b"x", here.getsockname())
        assert choice.result(5) == (case, None)


def test_both_directions_and_a_channel_at_once(pair: Pair) -> None:
    here, there = pair
    fill(here)
    channel: Channel[int] = Channel()
    reading, writing, receiving = readable(here), writable(here), channel.receiving()
    choice = parked(select, reading, writing, receiving)
    channel.send(1)
    assert choice.result(5) == (receiving, 1)
    choice = parked(select, reading, writing, receiving)
    there.send(b"x")
    assert choice.result(5) == (reading, None)
    assert not channel._receiving
    here.recv(1)
    choice = parked(select, reading, writing, receiving)
    while not choice.done():
        drain(there)
        fibers.yield_now()
    assert choice.result(5) == (writing, None)


def test_the_choice_is_fair_beside_a_channel_that_is_always_ready(pair: Pair) -> None:
    """What the kernel has counts at once, also if the loop has not looked since."""
    here, there = pair
    channel: Channel[int] = Channel()
    channel.close()
    cases = readable(here), channel.receiving()
    with pytest.raises(BlockingIOError):
        here.recv(1, socket.MSG_DONTWAIT)
    there.send(b"x")
    seen = [select(*cases, default())[0] for _ in range(200)]
    assert 60 < seen.count(cases[0]) < 140


def test_many_selects_on_one_file(pair: Pair) -> None:
    here, there = pair
    case = readable(here)
    choices = [parked(select, case, after(60)) for _ in range(5)]
    there.send(b"x")
    assert [choice.result(5) for choice in choices] == [(case, None)] * 5


def test_one_file_twice_in_a_select(pair: Pair) -> None:
    here, there = pair
    cases = readable(here), readable(here)
    choice = parked(select, cases[0], *cases)
    there.send(b"x")
    assert choice.result(5)[0] in cases


def test_the_timeout_and_the_last_look(pair: Pair) -> None:
    here, there = pair
    case = readable(here)
    with pytest.raises(TimeoutError):
        select(case, timeout=0.001)
    choice = parked(select, case, timeout=0.001)
    there.send(b"x")
    end = fibers.current_time() + 0.005
    while fibers.current_time() < end:
        pass
    assert choice.result(5) == (case, None)  # data beats the timeout


# -- beside others who use the file


def test_a_reader_keeps_its_turn_and_its_wake_up(pair: Pair) -> None:
    here, there = pair
    case = readable(here)
    for first in ("reader", "select"):
        if first == "reader":
            reader = parked(here.recv, 10)
            choice = parked(select, case, after(60))
        else:
            choice = parked(select, case, after(60))
            reader = parked(here.recv, 10)
        there.send(b"abc")
        assert reader.result(5) == b"abc"
        until_parked(choice)
        if not choice.done():  # the reader was quicker, and nothing is left: the select waits on
            there.send(b"d")
            assert choice.result(5) == (case, None)
            assert here.recv(1) == b"d"
        assert states[id(here)].reading.holder is None


def test_a_reader_that_comes_and_goes_leaves_the_select_waiting(pair: Pair) -> None:
    """Its end must not take with it the registration that the select relies on (poll, select, libevent)."""
    here, there = pair
    case = readable(here)
    for end in ("cancel", "timeout"):
        choice = parked(select, case, after(60))
        here.settimeout(0.001 if end == "timeout" else None)
        reader = parked(here.recv, 10)
        if end == "cancel":
            reader.cancel()
        reader.join(5)
        assert not choice.done()
        there.send(b"x")
        assert choice.result(5) == (case, None)
        assert here.recv(1) == b"x"


def test_a_select_that_ends_leaves_the_reader_waiting(pair: Pair) -> None:
    here, there = pair
    channel: Channel[int] = Channel()
    case = channel.receiving()
    for end in ("cancel", "timeout", "channel"):
        reader = parked(here.recv, 10)
        choice = parked(select, readable(here), case, timeout=0.001 if end == "timeout" else 60)
        if end == "cancel":
            choice.cancel()
        elif end == "channel":
            channel.send(1)
        choice.join(5)
        there.send(b"x")
        assert reader.result(5) == b"x"


def test_a_select_takes_no_part_in_who_reads_what(pair: Pair) -> None:
    here, there = pair
    channel: Channel[bytes] = Channel(1000)
    stop: Channel[None] = Channel()

    def reader() -> None:
        while data := here.recv(1):
            channel.send(data)

    def watcher() -> int:
        seen = 0
        while select(readable(here), stop.receiving())[1] is None:
            seen += 1
            fibers.yield_now()
        return seen

    readers = [parked(reader) for _ in range(3)]
    watchers = [parked(watcher) for _ in range(3)]
    text = bytes(range(1, 200))
    for at in range(0, len(text), 3):
        there.send(text[at : at + 3])
        fibers.yield_now()
    there.close()
    for fiber in readers:
        fiber.result(5)
    stop.close()
    for each in watchers:
        each.result(5)
    channel.close()
    assert sorted(b"".join(channel)) == sorted(text)


# -- registration


@lifetime_only
def test_a_file_that_is_selected_again_and_again_is_registered_once() -> None:
    here, there = socket.socketpair()
    stats = get_scheduler().loop.stats
    before = (stats.registrations, stats.unregistrations, stats.modifications)
    case = readable(here)
    for number in range(20):
        choice = parked(select, case if number % 2 else readable(here), after(60))
        there.send(b"x")
        choice.join(5)
        here.recv(1)
    assert stats.registrations - before[0] == 1
    assert (stats.unregistrations, stats.modifications) == before[1:]
    reader = parked(here.recv, 1)
    there.send(b"x")
    reader.join(5)
    assert stats.registrations - before[0] == 1
    here.close()
    there.close()


def test_an_idle_select_makes_no_wake_ups(pair: Pair) -> None:
    here, there = pair
    there.send(b"x")
    here.recv(1)
    choice = parked(select, readable(here), Channel().receiving())
    turn()
    turns = get_scheduler().loop.stats.turns
    fibers.sleep(0.02)
    assert get_scheduler().loop.stats.turns - turns <= 3
    choice.cancel()
    choice.join()
    there.send(b"x")
    turn()
    turns = get_scheduler().loop.stats.turns
    fibers.sleep(0.02)
    assert get_scheduler().loop.stats.turns - turns <= 3


def test_nothing_is_left_behind(pair: Pair) -> None:
    here, there = pair
    channel: Channel[int] = Channel()
    for end in ("cancel", "kill", "timeout", "channel", "file"):
        choice = parked(
            select, readable(here), readable(here), channel.receiving(), timeout=0.001 if end == "timeout" else 60
        )
        if end in ("cancel", "kill"):
            getattr(choice, end)()
        elif end == "channel":
            channel.send(1)
        elif end == "file":
            there.send(b"x")
        choice.join(5)
        assert not states[id(here)].reading.observers
        assert not states[id(here)].handle.observers
        assert not channel._receiving


# -- borrowed files


def test_pipes_numbers_and_plain_sockets() -> None:
    reader, writer = os.pipe()
    left, right = std.socketpair()
    with left, right:
        owners = dict(ownership.owners)
        for file, there in ((reader, writer), (left, right.fileno())):
            case = readable(file)
            assert select(case, default()) == (default(), None)
            choice = parked(select, case, after(60))
            other = parked(select, readable(file), after(60))  # of the same number
            os.write(there, b"x")
            assert choice.result(5) == (case, None)
            other.join(5)
        assert ownership.owners == owners
    os.close(reader)
    os.close(writer)


def test_both_directions_of_a_borrowed_file() -> None:
    left, right = std.socketpair()
    with left, right:
        case = writable(left)
        assert select(readable(left), case) == (case, None)
        left.setblocking(False)
        try:
            while True:
                left.send(bytes(65536))
        except BlockingIOError:
            pass
        reading = readable(left)
        choice = parked(select, reading, writable(left), after(60))
        right.send(b"x")
        assert choice.result(5) == (reading, None)


def test_the_number_of_a_socket_of_ours(pair: Pair) -> None:
    here, there = pair
    reader = parked(here.recv, 1)
    case = readable(here.fileno())
    choice = parked(select, case, after(60))
    there.send(b"xy")
    assert choice.result(5) == (case, None)
    assert reader.result(5) == b"x"


def test_a_file_that_never_blocks(tmp_path: Any) -> None:
    with open(tmp_path / "file", "w+b") as file:
        for case in (readable(file), writable(file)):
            assert select(case) == (case, None)


# -- closing


def test_a_closed_socket_can_always_happen(pair: Pair) -> None:
    here, _ = pair
    case = readable(here)
    select(case, default())
    here.close()
    for each in (case, writable(here)):
        assert select(each) == (each, ClosedError)
        assert select(each, default()) == (each, ClosedError)
    assert repr(case) == "a closed file (read)"


def test_closing_ends_a_select_that_waits(pair: Pair) -> None:
    here, _ = pair
    fill(here)
    cases = readable(here), writable(here)
    choices = [parked(select, case, after(60)) for case in cases]
    here.close()
    assert [choice.result(5) for choice in choices] == [(case, ClosedError) for case in cases]


def test_closing_in_another_thread_ends_a_select_that_waits(pair: Pair) -> None:
    here, _ = pair
    case = readable(here)
    for _ in range(2):
        choice = parked(select, case, after(60))
        thread = threading.Thread(target=here.close)
        thread.start()
        assert choice.result(5) == (case, ClosedError)
        thread.join()


def test_a_closed_file_object(tmp_path: Any) -> None:
    file = open(tmp_path / "file", "w+b")  # noqa: SIM115
    case = readable(file)
    file.close()
    assert select(case) == (case, ClosedError)


def test_a_number_that_is_not_open() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    with pytest.raises(OSError, match="Bad file descriptor"):
        select(readable(reader), after(1))


@pytest.mark.parametrize("what", [-1, "0", None, 1.0, True, object()])
def test_what_is_no_file_is_refused_at_once(what: Any) -> None:
    for make in (readable, writable):
        with pytest.raises((TypeError, ValueError), match=re.escape(repr(what))):
            make(what)


def test_an_object_without_a_number_is_refused_at_once() -> None:
    class Odd:
        def fileno(self) -> str:
            return "3"

    with pytest.raises(OSError, match="fileno"):
        readable(io.BytesIO())
    with pytest.raises(TypeError, match="Odd"):
        readable(Odd())


# -- threads


def in_thread(function: Any, *args: Any) -> threading.Thread:
    thread = threading.Thread(target=function, args=args)
    thread.start()
    return thread


def test_selecting_a_file_that_another_thread_reads(pair: Pair) -> None:
    here, there = pair
    got: list[Any] = []
    thread = in_thread(lambda: got.append(here.recv(1)))
    while states[id(here)].reading.waiter is None:
        fibers.yield_now()
    case = readable(here)
    choice = parked(select, case, after(60))
    there.send(b"xy")
    assert choice.result(5) == (case, None)
    thread.join(5)
    assert got == [b"x"]


def test_another_thread_begins_to_read_what_is_selected(pair: Pair) -> None:
    here, there = pair
    case = readable(here)
    choice = parked(select, case, after(60))
    got: list[Any] = []
    thread = in_thread(lambda: got.append(here.recv(1)))
    while states[id(here)].reading.waiter is None:
        fibers.yield_now()
    fibers.sleep(0.001)
    assert not choice.done()
    there.send(b"xy")
    assert choice.result(5) == (case, None)
    thread.join(5)
    assert got == [b"x"]


def test_threads_that_select_one_file(pair: Pair) -> None:
    here, there = pair
    case = readable(here)
    got: list[Any] = []
    threads = [in_thread(lambda: got.append(select(case, timeout=10))) for _ in range(4)]
    there.send(b"x")
    for thread in threads:
        thread.join(20)
    assert got == [(case, None)] * 4


@lifetime_only
def test_strict_ownership_refuses_a_file_that_another_thread_waits_for() -> None:
    ran = run_python(
        "-c",
        """
import threading, fibers
from fibers.io import socket
from fibers.io.state import states
here, there = socket.socketpair()
thread = threading.Thread(target=here.recv, args=(1,))
thread.start()
while states[id(here)].reading.waiter is None:
    fibers.sleep(0.001)
try:
    fibers.select(fibers.readable(here))
except fibers.OwnershipError as error:
    print("FIBERS_OWNERSHIP=strict" in str(error) or "pending" in str(error))
there.send(b"x")
thread.join()
here.close(), there.close()
""",
        env={"FIBERS_OWNERSHIP": "strict"},
    )
    assert (ran.stdout, ran.stderr) == ("True\n", "")


def test_close_and_readiness_and_channel_race(pair: Pair) -> None:
    """Whatever meets, the select comes to exactly one of them, and the channel's value is nowhere twice."""
    rounds = scaled(4000, least=100)
    channel: Channel[int] = Channel()
    commands: Channel[Any] = Channel()
    answers: Channel[bool] = Channel(2)

    def helper() -> None:
        for command, *args in commands:
            answers.send(command(*args) is True)

    threads = [in_thread(helper) for _ in range(2)]
    outcomes: set[Any] = set()
    for number in range(rounds):
        here, there = socket.socketpair()
        choice = parked(select, readable(here), channel.receiving(), after(60))
        commands.send([(here.close,), (there.send, b"x"), (int,)][number % 3])
        commands.send((channel.try_send, number))
        case, value = choice.result(10)
        sent = answers.receive() | answers.receive()
        assert sent == (value is not None and value is not ClosedError), (case, value)
        if sent:
            assert value == number
        outcomes.add("value" if sent else value)
        here.close()
        there.close()
        assert not channel._receiving
    commands.close()
    for thread in threads:
        thread.join(10)
    assert "value" in outcomes


# -- fork


def test_in_a_forked_child() -> None:
    ran = run_python(
        "-c",
        """
import os, fibers
from fibers import select, readable, after
from fibers.io import socket
here, there = socket.socketpair()
case = readable(here)
waiting = fibers.spawn(select, case)
fibers.yield_now()
child = os.fork()
if not child:
    there.send(b"x")
    assert select(case, timeout=5) == (case, None)
    assert here.recv(1) == b"x"
    fibers.spawn(there.send, b"y")
    assert select(case, timeout=5) == (case, None)
    assert here.recv(1) == b"y"
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert not waiting.done()
there.send(b"z")
assert waiting.result(5) == (case, None)
print("well")
""",
    )
    assert (ran.stdout, ran.stderr) == ("well\n", "")


def test_an_fd_of_no_loop_is_looked_at_all_the_same() -> None:
    """A socket that was made before this thread had a loop."""
    made: list[Pair] = []
    thread = in_thread(lambda: made.append(socket.socketpair()))
    thread.join()
    here, there = made[0]
    with here, there:
        assert states[id(here)].handle.loop is None
        case = readable(here)
        choice = parked(select, case, after(60))
        there.send(b"x")
        assert choice.result(5) == (case, None)
