"""A thread that does one thing at a time, when it is told to.

The test's thread gives it a function and waits for the answer. So several such threads take turns as the test says, and
whatever happens is the same each time. Between two functions the thread stands still.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

R = TypeVar("R")
Actions = deque[Callable[[], None]]

#: Seconds after which a thread that gives no answer hangs.
_PATIENCE = 10


class Strike(Exception):
    """What a signal handler raises."""


def run_all(actions: Actions) -> None:
    while actions:
        actions.popleft()()


class Puppet:
    """See the module's text. Made and used by one other thread; a subclass says in `live` what its own is."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.busy = False  # somebody waits for its answer
        self._commands: queue.SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...]] | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"simulated {name}", daemon=True)
        self._thread.start()
        self._answer()

    def __repr__(self) -> str:
        return self.name

    def call(self, function: Callable[..., R], *args: Any) -> R:
        """Run something in the thread, and return or raise what it does."""
        assert self._thread.is_alive(), f"thread {self.name} has ended"
        self.busy = True
        try:
            self._commands.put((function, args))
            return self._answer()  # type: ignore[no-any-return]
        finally:
            self.busy = False

    def end(self) -> None:
        """End the thread. Raises what its end raises."""
        self._commands.put(None)
        try:
            self._answer()
        finally:
            self._thread.join(_PATIENCE)

    def _answer(self) -> Any:
        try:
            result, error = self._answers.get(timeout=_PATIENCE)
        except queue.Empty:
            raise AssertionError(f"thread {self.name} hangs") from None
        if error is not None:
            raise error
        return result

    # -- in the thread ------------------------------------------------------------------------------------------

    def live(self) -> None:
        """Make what it needs, `serve`, and take it down again."""
        self.serve()

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            self.live()
        except BaseException as caught:
            error = caught
        self._answers.put((None, error))

    def serve(self) -> None:
        """Do what it is told, until it is told to end."""
        self._answers.put((None, None))
        while (command := self._commands.get()) is not None:
            function, args = command
            answer: tuple[Any, BaseException | None]
            try:
                answer = (function(*args), None)
            except BaseException as error:
                answer = (None, error)
            self._answers.put(answer)
