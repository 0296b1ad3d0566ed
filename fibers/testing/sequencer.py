"""A Sequencer makes fibers take their steps in an order that the test chooses.

    seq = Sequencer()                   # in one fiber           in another
                                        with seq(0):             with seq(1):
                                            a()                      b()
                                        with seq(2):
                                            c()

The blocks run in the order of their numbers: a race is then a matter of writing down who comes first. The idea, and the
name, are trio's.
"""

from types import TracebackType

from ..core.scheduler import get_scheduler
from ..core.waitqueue import WaitQueue


class Sequencer:
    """Blocks `with seq(number):` run one after the other, from 0 on, each number once. See the module's text.

    The fibers may be of several threads. A block that raises has been taken all the same. A fiber that is interrupted
    while it waits for its number breaks the sequencer: nobody could pass it. Every other use then raises RuntimeError.
    """

    __slots__ = ("_broken", "_next", "_steps", "_waiting")

    def __init__(self) -> None:
        self._next = 0
        self._broken: str | None = None  # why
        self._steps: dict[int, _Step] = {}
        self._waiting = WaitQueue()

    def __call__(self, number: int) -> "_Step":
        """The block of this number, to be entered by `with`. Raises TypeError, ValueError; RuntimeError if it is taken."""
        if not isinstance(number, int) or isinstance(number, bool):
            raise TypeError(f"a step of a Sequencer is a whole number, not {number!r}")
        if number < 0:
            raise ValueError(f"the steps of a Sequencer are numbered from 0 on, not {number}")
        step = _Step(self, number)
        if self._steps.setdefault(number, step) is not step:  # one atomic step
            raise RuntimeError(f"step {number} of this Sequencer has been taken already; each number is used once")
        return step

    def _wait(self, step: "_Step") -> None:
        scheduler = get_scheduler()
        me = scheduler.current
        if me is None:
            raise scheduler.refuse()
        try:
            while not self._is_turn(step):
                self._waiting.add(me, step)
                if self._is_turn(step) and self._waiting.abandon(me):
                    break
                scheduler.park(me, self._waiting)
        except BaseException as error:
            self._waiting.abandon(me)
            if self._broken is None:
                self._broken = f"fiber {me.name!r} got {type(error).__name__} while it waited for step {step.number}"
            self._waiting.wake_all()
            raise
        if self._broken is not None:
            raise RuntimeError(f"the Sequencer is broken: {self._broken}")

    def _is_turn(self, step: "_Step") -> bool:
        return self._next == step.number or self._broken is not None

    def _pass(self, step: "_Step") -> None:
        self._next = step.number + 1
        self._waiting.wake_all()


class _Step:
    """One block."""

    __slots__ = ("_sequencer", "number")

    def __init__(self, sequencer: Sequencer, number: int) -> None:
        self._sequencer = sequencer
        self.number = number

    def __enter__(self) -> None:
        self._sequencer._wait(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._sequencer._pass(self)

    def __repr__(self) -> str:
        return f"step {self.number} of a Sequencer that is at step {self._sequencer._next}"
