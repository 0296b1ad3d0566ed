"""The pool of carriers, and the launcher that starts them.

A greenlet's C stack begins where its starter stands, and its recursion depth too: carriers started from inside fibers
would nest, and a scheduler first used at depth 850 would leave its fibers 150 frames. So all carriers are started by the
launcher, a greenlet parked at the depth at which it was made; it is replaced, with the carriers that stand on it, when
main comes by at a shallower depth.

Idle carriers are kept for the next fibers, up to IDLE_MAX. What was not needed for a while is let go by halves. A carrier
that ends returns into its parent: the launcher, which then switches to whoever is next; or, if it is being retired, the
greenlet that retires it.

No frame in here that stays below a switch names its own greenlet: greenlet cannot show such a cycle to the collector.
"""

import sys
from abc import ABC, abstractmethod
from typing import Any, Final

from greenlet import GreenletExit, getcurrent, greenlet

from .fiber import Fiber

#: Carriers kept for reuse.
IDLE_MAX: Final = 256
#: Turns between two looks at how many of the idle carriers were not needed.
SHRINK_EVERY: Final = 1024


class CarrierPool(ABC):
    """See the module's text. For the owner's thread, in runtime code."""

    __slots__ = ("__weakref__", "_deep", "_idle_low", "_launcher", "handoff", "idle", "main")

    idle: list[greenlet]
    main: Fiber[Any]
    handoff: Any  # the fiber that control is being given to; None: retire
    _idle_low: int

    @abstractmethod
    def _carry(self) -> None:
        """The body of a carrier."""

    @abstractmethod
    def _strike(self, error: BaseException) -> None:
        """Give main what a signal handler raised in here."""

    def _carrier(self, me: Fiber[Any]) -> greenlet:
        """A greenlet for an unstarted fiber."""
        if self._deep and me is self.main and _depth() < self._deep:
            self._relaunch()
        if self._launcher.dead:
            self._launch()
        return self.idle.pop() if self.idle else self._launcher

    def _launch(self) -> None:
        """Start the launcher from here: carriers will inherit this depth."""
        self._deep = depth if (depth := _depth()) > 50 else 0
        self._launcher = greenlet(self._launching, getcurrent())
        self._launcher.switch()

    def _launching(self) -> None:
        started = False
        while True:
            try:
                if not started:
                    started = True
                    getcurrent().parent.switch()  # type: ignore[union-attr]
                while self.handoff is not None:
                    (self.handoff.greenlet or greenlet(self._carry, getcurrent())).switch()
                return
            except GreenletExit:
                raise
            except BaseException as error:
                self._strike(error)

    def _relaunch(self) -> None:
        """Replace a launcher that was started deep in the stack, and the carriers that stand on it."""
        following = self.handoff
        self.end_carriers()
        self._launch()
        self.handoff = following

    def end_carriers(self) -> None:
        """End the idle carriers and the launcher."""
        self._retire(len(self.idle))
        self.handoff = None
        self._launcher.parent = getcurrent()
        self._launcher.switch()

    def _retire(self, count: int) -> None:
        """End idle carriers. From a fiber or main, in runtime mode."""
        for _ in range(min(count, len(self.idle))):
            following, self.handoff = self.handoff, None
            carrier = self.idle.pop()
            carrier.parent = getcurrent()
            carrier.switch()
            self.handoff = following

    def _shrink(self) -> None:
        """Retire half of the carriers that nobody has needed for a while."""
        spare = self._idle_low // 2
        self._idle_low = len(self.idle)
        self._retire(spare)


def _depth() -> int:
    """How many Python frames deep the caller is."""
    frame = sys._getframe(1)
    depth = 0
    while frame is not None:
        depth += 1
        frame = frame.f_back  # type: ignore[assignment]
    return depth
