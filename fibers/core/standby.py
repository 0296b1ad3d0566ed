"""Standing by: waiting for a file without a fiber.

Facts, and what follows:

* A fiber that waits keeps its stack: some 7 kB. A server has ten thousand connections that say nothing for minutes. What
  such a connection has to remember fits into one small object, and a fiber is made in a microsecond when bytes come.
* A loop knows waiters, not fibers: it appends to the ready queue what it finds waiting. So anything may wait that the
  scheduler knows how to go on with. A Standby comes up in the ready queue like a fiber that has not started; the carrier
  that takes it has it make its fiber, and runs that.

io/waiting.py has the way into the wait (`stand_by`) and out of it (`stand_down`).
"""

from abc import ABC, abstractmethod
from typing import Any, Final

from ..eventloop.clock import FOREVER
from ..eventloop.waiter import Outcome
from .fiber import Fiber


class Standby(ABC):
    """Base of what waits for a file without a fiber. It belongs to one thread, as a fiber does."""

    __slots__ = ("outcome",)

    #: For the scheduler: there is no greenlet to switch to, as for a fiber that has not started; and this is no fiber.
    greenlet: Final = None
    stands_by: Final = True
    #: For the loop. Who gives it a time has books of his own, and calls `stand_down`.
    deadline: float = FOREVER

    def __init__(self) -> None:
        self.outcome: Outcome | None = None

    @abstractmethod
    def embody(self) -> Fiber[Any]:
        """Make the fiber that goes on. `outcome` tells why the wait has ended (None: readiness). Runtime code: quick.

        May be called again if a signal handler raised; the fiber made before is then never run.
        """
