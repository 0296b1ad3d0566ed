"""A full answer of the kernel is not the end of the data, without luck. (How many files it takes is in conformance/.)"""

from typing import Any

from support.waiting import wait

from fibers.eventloop import new_loop
from fibers.io import socket


def test_a_full_answer_is_asked_for_more_before_deadlines_fire() -> None:
    """A poller that answers in portions of two."""
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

    loop._poller = Portions()
    pairs = [socket.socketpair() for _ in range(7)]
    waiters = []
    for a, b in pairs:
        waiters.append(wait(loop, loop.handle(a.fileno(), True).reading, loop.clock() - 1))
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
