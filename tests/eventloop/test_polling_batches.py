"""Rows ">128 events" and #8480: all that is ready is dispatched before any deadline fires, however many there are.

Facts. One `epoll.poll()` returns at most 1,023 events here, so a loop that expired timers after the first batch would
time out waiters whose data is there. Hazard 18: tests of batching need 3,000 ready fds.
"""

import resource
import time
from collections.abc import Callable
from typing import Any

import pytest

import fibers
from fibers.eventloop import PollingLoop, available, new_loop
from fibers.eventloop.pollers.kqueue import KqueuePoller
from fibers.io import socket
from fibers.threads import to_thread

LOOPS: dict[str, Callable[[], PollingLoop]] = {
    name: (lambda name=name: new_loop(name)) for name, reason in available().items() if reason is None
}
if "kqueue" not in LOOPS:
    from support import fake_kqueue

    LOOPS["fake kqueue"] = lambda: PollingLoop(lambda: KqueuePoller(fake_kqueue))  # type: ignore[arg-type]


def ready_sockets_and_a_passed_deadline(count: int) -> int:
    """`count` fibers wait, everyone gets data, all deadlines pass while the thread computes. How many got their data."""
    pairs = [socket.socketpair() for _ in range(count)]
    timed_out = 0

    def read(sock: socket.socket) -> bytes:
        nonlocal timed_out
        try:
            return sock.recv(10)
        except TimeoutError:
            timed_out += 1
            return b""

    readers = []
    for a, _ in pairs:
        a.settimeout(0.05 + count / 20_000)
        readers.append(fibers.spawn(read, a))
    fibers.yield_now()
    fibers.yield_now()
    for _, b in pairs:
        b.send(b"x")
    end = time.monotonic() + 0.06 + count / 20_000
    while time.monotonic() < end:
        pass
    got = sum(reader.result(20) == b"x" for reader in readers)
    assert timed_out == count - got
    for a, b in pairs:
        a.close()
        b.close()
    return got


@pytest.mark.parametrize("make", LOOPS.values(), ids=LOOPS)
def test_more_than_128_events_and_a_passed_deadline(make: Callable[[], PollingLoop]) -> None:
    """Row ">128 events": fd 129 had data but its timer fired. 1,000 ready sockets (select: as many as it can)."""
    count = 1000
    fake = any(make is each for name, each in LOOPS.items() if name == "fake kqueue")
    if any(make is each for name, each in LOOPS.items() if name == "select"):
        count = 400  # two fds each, all below 1,024
    if fake:
        count = 600

    def main() -> Any:
        return ready_sockets_and_a_passed_deadline(count)

    assert to_thread(lambda: fibers.run(main, loop=make())) == count


@pytest.mark.parametrize("kind", [name for name in ("epoll", "poll") if name in LOOPS])
def test_3000_ready_fds_and_a_passed_deadline(kind: str) -> None:
    """Hazard 18: more than any one answer of the kernel holds."""
    count = 3000
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 2 * count + 200:
        pytest.skip(f"needs {2 * count + 200} file descriptors")

    def main() -> Any:
        return ready_sockets_and_a_passed_deadline(count)

    assert to_thread(lambda: fibers.run(main, loop=LOOPS[kind]())) == count


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
