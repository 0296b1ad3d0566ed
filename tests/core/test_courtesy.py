"""A loop that is always busy lets the other threads of its process have the interpreter."""

import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from support.sockets import tcp_pair

import fibers
from fibers.core import courtesy
from fibers.core.courtesy import PATIENCE, Courtesy

pytestmark = pytest.mark.skipif(courtesy._FREE_THREADED, reason="there is no interpreter lock here")


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    taken: list[float] = []
    monkeypatch.setattr(courtesy, "sleep", taken.append)
    return taken


@pytest.fixture
def company() -> Iterator[threading.Thread]:
    """Another thread, which wants nothing."""
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    yield thread
    over.set()
    thread.join()


class Clocks:
    """The time, and the CPU time of the thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall = self.cpu = 0.0
        monkeypatch.setattr(courtesy, "monotonic", lambda: self.wall)
        monkeypatch.setattr(courtesy, "thread_time", lambda: self.cpu)

    def pass_by(self, wall: float, cpu: float) -> None:
        self.wall += wall
        self.cpu += cpu


def test_who_was_busy_pauses_and_who_has_waited_does_not(
    pauses: list[float], company: threading.Thread, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocks = Clocks(monkeypatch)
    mine = Courtesy()
    clocks.pass_by(PATIENCE, PATIENCE)
    assert mine.pause(10.0)
    assert pauses == [courtesy.MOMENT]
    assert mine.due == 10.0 + PATIENCE
    clocks.pass_by(PATIENCE, PATIENCE / 10)
    assert not mine.pause(10.0)
    clocks.pass_by(PATIENCE, PATIENCE)
    assert mine.pause(10.0)


def test_who_is_alone_does_not_pause(pauses: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = Clocks(monkeypatch)
    mine = Courtesy()
    monkeypatch.setattr(courtesy, "count_threads", lambda: 0)
    clocks.pass_by(PATIENCE, PATIENCE)
    assert not mine.pause(0.0)
    assert not pauses


def yielding(until: Callable[[], bool]) -> None:
    while not until():
        fibers.yield_now()


def waiting_for_bytes(until: Callable[[], bool]) -> None:
    """Every wait ends at once: the loop never sleeps, although it always asks the kernel."""
    left, right = tcp_pair()
    with left, right:

        def echo() -> None:
            while data := right.recv(1):
                right.sendall(data)

        fiber = fibers.spawn(echo)
        while not until():
            left.sendall(b"x")
            left.recv(1)
        left.close()
        fiber.join()


@pytest.mark.parametrize("program", [yielding, waiting_for_bytes])
def test_a_busy_loop_pauses(
    program: Callable[[Callable[[], bool]], None], pauses: list[float], company: threading.Thread
) -> None:
    end = time.thread_time() + 1.0
    program(lambda: len(pauses) >= 3 or time.thread_time() > end)
    assert len(pauses) >= 3


@pytest.mark.parametrize("program", [yielding, waiting_for_bytes])
def test_a_thread_beside_a_busy_loop_gets_its_turns(program: Callable[[Callable[[], bool]], None]) -> None:
    """It wants the interpreter 50 times, and waits 5 ms for it each time; without the pauses, it takes many seconds."""
    turns = 0

    def other() -> None:
        nonlocal turns
        for _ in range(50):
            time.sleep(0.0002)  # lets go of the interpreter, and wants it back
            turns += 1

    thread = threading.Thread(target=other)
    thread.start()
    began = time.thread_time()
    program(lambda: turns >= 50 or time.thread_time() - began > 2.5)
    reached = turns
    thread.join()
    assert reached >= 50, f"{reached} turns in {time.thread_time() - began:.1f} s of CPU, {sys.getswitchinterval()=}"
