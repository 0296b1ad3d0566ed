"""The checks of a checked poller: each rule broken once, by the poller or by the loop over it; and sound ones are let be."""

import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.loops import loops, raw_poller
from support.once import once
from support.waiting import wait, woken

from fibers.errors import ContractError
from fibers.eventloop import PollingLoop, checked_poller
from fibers.eventloop.checked_poller import check_poller
from fibers.eventloop.checked_polling import CheckedPollingLoop
from fibers.eventloop.pollers import READ, WRITE
from fibers.eventloop.pollers.poll import PollPoller
from fibers.eventloop.pollers.select import SelectPoller

pytestmark = once

EDGE = "epoll" if hasattr(select, "epoll") else "kqueue"
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    a, b = socket.socketpair()
    a.setblocking(False)
    with a, b:
        yield a, b


@pytest.fixture
def edge() -> Iterator[Any]:
    """An edge-triggered poller, checked."""
    poller = check_poller(raw_poller(EDGE))
    yield poller
    poller.close()


def rule(function: Callable[..., object], *args: object) -> str:
    """The rule that is named when this is called."""
    with pytest.raises(ContractError) as caught:
        function(*args)
    return caught.value.rule


# -- faults of the loop ------------------------------------------------------------------------------------------------


def test_an_edge_triggered_direction_armed_twice(edge: Any, pair: Pair) -> None:
    fd = pair[0].fileno()
    edge.arm(fd, READ, 0)
    assert rule(edge.arm, fd, READ, READ) == "arm once"
    edge.arm(fd, WRITE, READ)
    assert rule(edge.arm, fd, WRITE, READ | WRITE) == "arm once"
    edge.forget(fd, READ | WRITE)
    edge.arm(fd, READ, 0)


def test_a_loop_that_does_not_know_what_it_has_armed(edge: Any, pair: Pair) -> None:
    fd = pair[0].fileno()
    assert rule(edge.arm, fd, READ, WRITE) == "arm once"
    edge.arm(fd, READ, 0)
    assert rule(edge.arm, fd, WRITE, 0) == "arm once"
    assert rule(edge.forget, fd, WRITE) == "arm once"
    edge.forget(fd, READ)


@pytest.mark.parametrize("kind", [EDGE, "poll", "select"])
def test_a_closed_poller_is_asked_for_something(kind: str, pair: Pair) -> None:
    poller = check_poller(raw_poller(kind))
    poller.close()
    assert rule(poller.arm, pair[0].fileno(), READ, 0) == "closed"
    assert rule(poller.wait, 0.0) == "closed"
    poller.close()


def test_a_loop_that_registers_for_each_wait_over_an_edge_triggered_poller(pair: Pair) -> None:
    """Such a loop works, and that is the trouble: nobody would notice that it costs a system call a wait."""

    class Again(PollingLoop):
        def _dispatch(self, events: Any) -> None:
            super()._dispatch(events)
            for handle in self._table.values():
                handle.reading.armed = False

    for cls, expected in ((PollingLoop, None), (Again, "arm once")):
        loop: Any = type("Checked", (CheckedPollingLoop,) if cls is PollingLoop else (CheckedPollingLoop, cls), {})(
            lambda: raw_poller(EDGE)
        )
        a, b = pair
        handle = loop.handle(a.fileno(), True)
        found = None
        try:
            for _ in range(2):
                waiter = wait(loop, handle.reading)
                b.send(b"x")
                assert woken(loop) == [waiter]
                a.recv(1)
        except ContractError as error:
            found = error.rule
        assert found == expected
        handle.reading.waiter = None
        loop.release(handle, lambda: None)
        loop.close()


# -- faults of the poller ----------------------------------------------------------------------------------------------


class Scripted(PollPoller):
    """Answers what it is told to, after the true wait."""

    __slots__ = ("says",)

    def __init__(self) -> None:
        super().__init__()
        self.says: list[Any] = []

    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        return self.says.pop(0) if self.says else super().wait(timeout)


@pytest.fixture
def scripted() -> Any:
    return check_poller(Scripted())


def test_a_report_of_what_was_not_armed(scripted: Any, pair: Pair) -> None:
    scripted.poller.says = [[(pair[0].fileno(), select.POLLIN)]]
    assert rule(scripted.wait, 0.0) == "asked for"


def test_a_report_that_means_nothing(scripted: Any, pair: Pair) -> None:
    scripted.arm(pair[0].fileno(), READ, 0)
    scripted.poller.says = [[(pair[0].fileno(), 0)]]
    assert rule(scripted.wait, 0.0) == "asked for"


def test_a_report_of_what_was_forgotten(scripted: Any, pair: Pair) -> None:
    fd = pair[0].fileno()
    scripted.arm(fd, READ, 0)
    assert scripted.wait(0.0) == []
    scripted.forget(fd, READ)
    scripted.poller.says = [[(fd, select.POLLIN)]]
    assert rule(scripted.wait, 0.0) == "asked for"


def test_a_level_triggered_report_without_a_new_arm(scripted: Any, pair: Pair) -> None:
    fd = pair[0].fileno()
    scripted.arm(fd, READ, 0)
    report = [(fd, select.POLLIN)]
    scripted.poller.says = [report, report]
    assert scripted.wait(0.0) == report
    assert rule(scripted.wait, 0.0) == "one-shot"


def test_a_level_triggered_report_of_the_other_direction(scripted: Any, pair: Pair) -> None:
    fd = pair[0].fileno()
    scripted.arm(fd, READ, 0)
    scripted.poller.says = [[(fd, select.POLLOUT)]]
    assert rule(scripted.wait, 0.0) == "one-shot"


@pytest.mark.parametrize("timeout", [5.0, None, 1e300])
def test_waits_that_end_early_time_and_again(scripted: Any, timeout: float | None) -> None:
    """As where the sign of the timeout is lost (#16578). One may be empty: what it would have told has left."""
    scripted.poller.says = [[] for _ in range(checked_poller.EARLY_WAITS)]
    for _ in range(checked_poller.EARLY_WAITS - 1):
        assert scripted.wait(timeout) == []
    assert rule(scripted.wait, timeout) == "in time"


def test_early_waits_with_an_event_between_them_are_no_row(scripted: Any, pair: Pair) -> None:
    fd = pair[0].fileno()
    scripted.poller.says = [[], [], [(fd, select.POLLIN)], [], []]
    scripted.arm(fd, READ, 0)
    scripted.wait(0.0)
    for _ in range(4):
        scripted.wait(5.0)


# -- what is no fault --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [EDGE, "poll", "select"])
def test_a_sound_poller_is_let_be(kind: str, pair: Pair) -> None:
    a, b = pair
    fd = a.fileno()
    poller = check_poller(raw_poller(kind))
    armed = 0
    for _ in range(3):
        if not poller.edge_triggered or not armed:
            poller.arm(fd, READ, 0)
            armed = READ
        b.send(b"x")
        assert [number for number, _ in poller.wait(5.0)] == [fd]
        a.recv(1)
        assert poller.wait(0.002) == []
    for _ in range(5):
        assert poller.wait(0.0001) == []
    poller.arm(fd, WRITE, armed if poller.edge_triggered else 0)
    assert [number for number, _ in poller.wait(5.0)] == [fd]
    if not poller.edge_triggered:
        poller.arm(fd, READ, 0)
        poller.disarm(fd, READ)
    b.close()
    poller.wait(0.0)
    poller.forget(fd, READ | WRITE if poller.edge_triggered else 0)
    assert poller.wait(0.0) == []
    poller.close()


@pytest.mark.parametrize("kind", [EDGE, "poll", "select"])
def test_what_others_change_during_a_wait_is_believed(kind: str) -> None:
    poller = check_poller(raw_poller(kind))
    reader, writer = os.pipe()
    poller.arm(reader, READ, 0)
    over = threading.Event()
    raised: list[Exception] = []

    def change() -> None:
        a, b = socket.socketpair()
        with a, b:
            b.send(b"x")
            while not over.is_set():
                try:
                    poller.arm(a.fileno(), READ, 0)
                    time.sleep(0)
                    poller.forget(a.fileno(), READ)
                except ContractError as error:
                    raised.append(error)

    thread = threading.Thread(target=change)
    thread.start()
    for _ in range(300):
        poller.wait(0.0005)
    over.set()
    thread.join()
    assert raised == []
    poller.close()
    os.close(reader)
    os.close(writer)


@pytest.mark.skipif(EDGE != "epoll", reason="a kqueue forgets what is closed")
def test_a_file_closed_behind_the_back_haunts_its_number(edge: Any, pair: Pair) -> None:
    """Its duplicate lives, so epoll reports on; nobody can forget it, and that is no fault of anybody here."""
    a, b = pair
    number = os.dup(a.fileno())
    edge.arm(number, READ, 0)
    os.close(number)
    edge.forget(number, READ)
    b.send(b"x")
    assert [fd for fd, _ in edge.wait(5.0)] == [number]
    # The number's next file is checked as ever.
    assert os.dup2(b.fileno(), number) == number
    edge.arm(number, READ, 0)
    assert rule(edge.arm, number, READ, READ) == "arm once"
    os.close(number)


def test_a_refused_arm_leaves_nothing_armed(edge: Any) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    for _ in range(2):
        with pytest.raises(OSError, match="Bad file descriptor"):
            edge.arm(reader, READ, 0)
    assert edge.certainly_armed() == []
    os.close(writer)


def test_after_a_handler_has_raised_nothing_is_held_against_anybody(pair: Pair) -> None:
    """In a verb: what it had armed is not known. In the wait: a level-triggered poller may have disarmed what it found."""

    class Struck(SelectPoller):
        __slots__ = ("struck",)
        struck: bool

        def arm(self, fd: int, interest: int, armed: int) -> None:
            super().arm(fd, interest, armed)
            self.strike()

        def wait(self, timeout: float | None) -> list[tuple[int, int]]:
            events = super().wait(timeout)
            self.strike()
            return events

        def strike(self) -> None:
            if self.struck:
                self.struck = False
                raise KeyboardInterrupt

    inner = Struck()
    inner.struck = True
    poller: Any = check_poller(inner)
    fd = pair[0].fileno()
    with pytest.raises(KeyboardInterrupt):
        poller.arm(fd, READ, 0)
    assert poller.certainly_armed() == []
    pair[1].send(b"x")
    inner.struck = True
    with pytest.raises(KeyboardInterrupt):
        poller.wait(0.0)
    poller.arm(fd, READ, 0)
    assert poller.wait(0.0) == [(fd, READ)]
    poller.forget(fd, READ)
    poller.arm(fd, READ, 0)
    assert poller.certainly_armed() == [(fd, READ)]
    poller.close()


@loops(lambda kind: kind.checked and kind.lifetime, "these stand on a poller, and are about checking")
def test_a_checked_loop_stands_on_a_checked_poller(loop: Any) -> None:
    assert isinstance(loop._poller, checked_poller.CheckedPoller)
    assert loop._poller.name == loop.name
    assert loop._poller.fileno() == loop._poller.poller.fileno()
