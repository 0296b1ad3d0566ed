"""Shuffling: ready fibers run in an order drawn from a seed, to find the races that the usual order hides.

    with fibers.testing.shuffle(4711):
        program()

A program may not rely on the order in which fibers run that became ready for reasons of their own: spawned, woken by a
timer, a file or each other. The usual order is always the same one, so a race that it does not show stays hidden for
years. Here the next one is drawn from all that are ready, at every hand-over; the same seed draws the same. (What is
ready when must be the same, too: so it is with a virtual clock and in-memory sockets, and nearly so with real ones.)

One promise about order is kept, because programs may rely on it: `yield_now` lets every fiber that is ready run first.
So what yields is never put in front of what was there before.

Facts, and what follows. `park` looks at `ready[0]`, switches to it, and it leaves the queue when it runs; so between the
look and the switch nobody may touch the front. Before the look there may be a turn of the loop, and after a turn the
front is looked at anew. So a turn is the place to reorder, and a budget of one hand-over makes one before each. The price
is a kernel call per switch, and more events seen in between, which is welcome here.

All this is a subclass of Scheduler without attributes of its own, so that a running scheduler can be given it and have it
taken away again: it works on every loop, and costs nothing when off.
"""

from random import Random
from types import TracebackType
from typing import Any, Final
from weakref import WeakKeyDictionary

from ..core.fiber import Fiber
from ..core.scheduler import Scheduler, get_scheduler

#: How often another fiber is drawn if one may not be moved to the front; then the front stays as it is.
_DRAWS: Final = 8


class ShufflingScheduler(Scheduler):
    """See the module's text."""

    __slots__ = ()

    def _turn(self, block: bool) -> None:
        super()._turn(block)
        self.budget = 1
        ready = self.ready
        random = _random[self]
        for _ in range(_DRAWS):
            if len(ready) < 2 or not (index := random.randrange(len(ready))):
                return
            if not _yields(ready[index]):
                # In this order: a signal handler that raises in between leaves it there twice, not gone.
                ready.appendleft(ready[index])
                del ready[index + 1]
                return


_random: Final[WeakKeyDictionary[Scheduler, Random]] = WeakKeyDictionary()


def _yields(fiber: Fiber[Any]) -> bool:
    """Is it ready because it gave way? Then whoever was ready before it comes first."""
    return fiber.waiting is None and fiber.outcome is None and fiber.greenlet is not None


class shuffle:  # noqa: N801 - read as a verb
    """A block in which the ready fibers of this thread run in an order drawn from `seed`. See the module's text.

    `seed` is a number, or text; the same one gives the same order. For the thread in which it is entered, whose other
    fibers are shuffled, too. Blocks nest: the inner seed holds.
    """

    __slots__ = ("_before", "_scheduler", "seed")

    def __init__(self, seed: int | str) -> None:
        if not isinstance(seed, int | str):
            raise TypeError(f"a seed is a whole number or text, not {seed!r}")
        self.seed = seed
        self._scheduler: Scheduler | None = None
        self._before: Random | None = None

    def __enter__(self) -> "shuffle":
        scheduler = get_scheduler()
        if self._scheduler is not None:
            raise RuntimeError("this shuffle() is in use already; make a new one for each block")
        if type(scheduler) not in (Scheduler, ShufflingScheduler):
            raise TypeError(f"the order of a {type(scheduler).__name__} cannot be shuffled")
        self._scheduler = scheduler
        self._before = _random.get(scheduler)
        _random[scheduler] = Random(self.seed)
        scheduler.__class__ = ShufflingScheduler  # the same layout: it has no slots of its own
        scheduler.budget = 0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        scheduler, self._scheduler = self._scheduler, None
        if scheduler is None:
            return
        if self._before is not None:
            _random[scheduler] = self._before
        else:
            scheduler.__class__ = Scheduler
            _random.pop(scheduler, None)
        self._before = None
