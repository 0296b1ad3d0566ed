"""Rows ">128 events" and #8480: all that is ready is dispatched before any deadline fires, however many there are.

Facts. One `epoll.poll()` returns at most 1,023 events here, so a loop that expired timers after the first batch would
time out waiters whose data is there. Hazard 18: tests of batching need 3,000 ready fds.
"""

import resource
import time
from typing import Any

import pytest
from support import fake_kqueue

import fibers
from fibers.eventloop import PollingLoop, available, new_loop
from fibers.eventloop.pollers.kqueue import KqueuePoller
from fibers.io import socket
from fibers.threads import to_thread

KINDS = [name for name, reason in available().items() if reason is None and name != "libevent"]
if "kqueue" not in KINDS:
    KINDS.append("fake kqueue")


class Clock:
    """The monotonic clock, and a way to skip time: `+= seconds`."""

    def __init__(self) -> None:
        self.skipped = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.skipped


def make_loop(kind: str, clock: Clock) -> PollingLoop:
    if kind == "fake kqueue":
        return PollingLoop(lambda: KqueuePoller(fake_kqueue), clock)  # type: ignore[arg-type]
    loop = new_loop(kind, clock)
    assert isinstance(loop, PollingLoop)
    return loop


def all_get_their_data(kind: str, count: int) -> int:
    """`count` fibers wait, all get data, all their deadlines pass before the next turn. How many got their data."""
    clock = Clock()

    def main() -> int:
        pairs = [socket.socketpair() for _ in range(count)]
        errors: list[TimeoutError] = []

        def read(sock: socket.socket) -> bytes:
            try:
                return sock.recv(10)
            except TimeoutError as error:
                errors.append(error)
                return b""

        readers = []
        for a, _ in pairs:
            a.settimeout(1000)
            readers.append(fibers.spawn(read, a))
        sleeper = fibers.spawn(fibers.sleep, 1000)
        fibers.sleep(0.01)
        for _, b in pairs:
            b.send(b"x")
        clock.skipped += 2000
        got = sum(reader.result(20) == b"x" for reader in readers)
        sleeper.result(20)
        assert len(errors) == count - got
        for a, b in pairs:
            a.close()
            b.close()
        return got

    found: int = to_thread(lambda: fibers.run(main, loop=make_loop(kind, clock)))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_more_than_128_events_and_a_passed_deadline(kind: str) -> None:
    """Row ">128 events": fd 129 had data but its timer fired. 1,000 ready sockets; as many as it can where it cannot."""
    count = {"select": 400, "fake kqueue": 450}.get(kind, 1000)
    assert all_get_their_data(kind, count) == count


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind in ("epoll", "kqueue", "poll")])
def test_3000_ready_fds_and_a_passed_deadline(kind: str) -> None:
    """Hazard 18: more than any one answer of the kernel holds."""
    count = 3000
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 2 * count + 200:
        pytest.skip(f"needs {2 * count + 200} file descriptors")
    assert all_get_their_data(kind, count) == count


def test_a_full_answer_is_asked_for_more_before_deadlines_fire() -> None:
    """The same, without luck: a poller that answers in portions of two."""
    loop: Any = new_loop("poll")
    real = loop._poller
    portions: list[int] = []

    class Portions:
        MAX_EVENTS = 2

        def __init__(self) -> None:
            self.left: list[tuple[int, int]] = []

        def wait(self, timeout: float | None) -> list[tuple[int, int]]:
            if not self.left:
                self.left = real.wait(0.0)
            answer, self.left = self.left[:2], self.left[2:]
            portions.append(len(answer))
            return answer

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    class Waiter:
        outcome: Any = None
        deadline = 0.0

    loop._poller = Portions()
    pairs = [socket.socketpair() for _ in range(7)]
    waiters = []
    for a, b in pairs:
        handle = loop.handle(a.fileno(), True)
        waiter = Waiter()
        waiter.deadline = loop.clock() - 1
        handle.reading.drained = handle.reading.edges
        handle.reading.waiter = waiter
        waiters.append(waiter)
        assert loop.watch(handle.reading, waiter.deadline)
        b.send(b"x")
    loop.turn(False)
    assert set(loop.ready) == set(waiters)
    assert [waiter.outcome for waiter in waiters] == [None] * 7
    assert sum(portions) >= 7
    loop.ready.clear()
    loop._poller = real
    loop.close()
    for a, b in pairs:
        a.close()
        b.close()
