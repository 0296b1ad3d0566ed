"""Two operations, interleaved in every way that one change of threads allows.

A thread can lose the word only where a function begins and after a call (and at a jump back, which is after one as a rule).
`explore` runs an operation and stops it at the first such point within the sources under test; there another thread runs
the other operation, until that is over or waits; then the first one goes on. Then everything anew, with the second point,
and so on. What luck finds in a million rounds, this finds in a hundred, or it is not there.
"""

import dis
import sys
import threading
import time
from collections.abc import Callable
from functools import cache, partial
from types import CodeType, FrameType
from typing import Any, Generic, TypeVar

import fibers

S = TypeVar("S")

PATIENCE = 20.0


class Stuck(AssertionError):
    """An operation did not come to its end."""


class Player:
    """A thread that does one thing, and can tell whether it waits."""

    def __init__(self, fn: Callable[[], Any]) -> None:
        self._fn = fn
        self.fiber: fibers.Fiber[Any] | None = None
        self.result: Any = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        self.fiber = fibers.current()
        try:
            self.result = self._fn()
        except BaseException as error:
            self.error = error

    def start(self) -> None:
        """Return when it is over, or waits."""
        self._thread.start()
        self.settle()

    def settle(self) -> None:
        patience = time.monotonic() + PATIENCE
        while self._thread.is_alive() and not self.waits():
            time.sleep(0)
            if time.monotonic() > patience:
                raise Stuck("the other operation neither ends nor waits")

    def waits(self) -> bool:
        fiber = self.fiber
        if fiber is None or fiber.waiting is None:
            return False
        loop: Any = fiber.scheduler.loop  # type: ignore[attr-defined]
        return bool(loop.asleep)

    def end(self) -> None:
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            raise Stuck("an operation waits for ever")


@cache
def _after_a_call(code: CodeType) -> frozenset[int]:
    """The places in a function that come after a call."""
    found, called = [], False
    for instruction in dis.get_instructions(code):
        if called:
            found.append(instruction.offset)
        called = instruction.opname.startswith("CALL") and "INTRINSIC" not in instruction.opname
    return frozenset(found)


class Points:
    """Knows at which opcodes of the frames of one thread CPython looks for something else to do.

    That is after a call of something in C. A Python function looks when it begins, and not when it returns.
    """

    __slots__ = ("_returned_to",)

    def __init__(self) -> None:
        self._returned_to: FrameType | None = None

    def leaves(self, frame: FrameType) -> None:
        """A frame is being left (of any function: tell of all)."""
        self._returned_to = frame.f_back

    def is_one(self, frame: FrameType) -> bool:
        """An opcode is about to be executed."""
        returned, self._returned_to = self._returned_to is frame, None
        return not returned and frame.f_lasti in _after_a_call(frame.f_code)


def explore(
    make: Callable[[], S],
    first: Callable[[S], Any],
    second: Callable[[S], Any],
    verify: Callable[[S, Player, Player], None],
    sources: tuple[str, ...],
) -> int:
    """Try every point of `first` (see the module's text). Returns how many there were.

    `make()` makes what they work on. `verify(state, first, second)` is called when each of the two is over or waits; it
    lets go on who waits and says whether all is well. `sources`: parts of the paths of the files in which points are.
    """
    point = sys.maxsize  # at first: some Pythons trace the opcodes of a function from its second traced call on
    while True:
        state = make()
        run = _Run(state, first, second, point, sources)
        run.first.start()
        reached = run.second is not None
        if run.second is None:
            run.second = Player(partial(second, state))
            run.second.start()
        run.second.settle()
        run.first.settle()
        try:
            verify(state, run.first, run.second)
            for player in (run.first, run.second):
                player.end()
        except AssertionError as error:
            error.add_note(f"when the other thread ran at point {point}, {run.where}")
            raise
        if not reached and point < sys.maxsize:
            return point
        point = 0 if point == sys.maxsize else point + 1


class _Run(Generic[S]):
    """One run of both."""

    def __init__(
        self, state: S, first: Callable[[S], Any], second: Callable[[S], Any], point: int, sources: tuple[str, ...]
    ) -> None:
        self._state = state
        self._act = first
        self._other = second
        self._left = point
        self._points = Points()
        self._sources = sources
        self.where = "which does not exist: after the first"
        self.second: Player | None = None
        self.first = Player(self._traced)

    def _traced(self) -> Any:
        sys._getframe().f_trace_opcodes = True  # before: some Pythons look only then whether anybody wants opcodes
        sys.settrace(self._trace)
        try:
            return self._act(self._state)
        finally:
            sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:
        if self.second is not None:
            return None
        if any(part in frame.f_code.co_filename for part in self._sources):
            frame.f_trace_opcodes = True
            if event == "call" or (event == "opcode" and self._points.is_one(frame)):
                self._point(frame)
        if event == "return":
            self._points.leaves(frame)
        return self._trace

    def _point(self, frame: FrameType) -> None:
        if self._left:
            self._left -= 1
            return
        self.where = f"{frame.f_code.co_qualname}, line {frame.f_lineno}"
        self.second = Player(partial(self._other, self._state))
        self.second.start()
