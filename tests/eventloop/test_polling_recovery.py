"""Hazard 1, its second half: a signal handler that raises while the loop recovers from one that raised.

The batch counts as lost all the same, and neither exception is: the first comes out of this turn, the second of the next.
"""

from collections.abc import Iterator

import pytest

from fibers.eventloop import PollingLoop
from fibers.eventloop.pollers.poll import PollPoller
from fibers.eventloop.waker import Waker


class First(BaseException):
    pass


class Second(BaseException):
    pass


class Interrupted(PollPoller):
    """Its wait is where the first handler strikes."""

    struck = False

    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        if not self.struck:
            self.struck = True
            raise First
        return super().wait(timeout)


class InterruptedWaker(Waker):
    """The last step of recovery is where the second strikes."""

    __slots__ = ("struck",)

    def wake(self) -> None:
        if not hasattr(self, "struck"):
            self.struck = True
            raise Second
        super().wake()


@pytest.fixture
def loop() -> Iterator[PollingLoop]:
    made = PollingLoop(Interrupted)
    made._waker.close()
    made._waker = InterruptedWaker()
    yield made
    made.close()


def test_an_exception_during_recovery_comes_out_of_the_next_turn(loop: PollingLoop) -> None:
    with pytest.raises(First):
        loop.turn(False)
    with pytest.raises(Second):
        loop.turn(False)
    loop.turn(False)
