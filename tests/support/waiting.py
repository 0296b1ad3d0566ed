"""Somebody who waits, as far as a loop knows: for tests that use a loop bare, with no fibers above it."""

from collections.abc import Callable
from typing import Any

from fibers.eventloop import FOREVER, TIMED_OUT, Direction, EventLoop, Timer


class Waiter:
    """Waits; remembers nothing but why it was woken."""

    def __init__(self, name: str = "", deadline: float = FOREVER) -> None:
        self.name = name
        self.outcome: Any = None
        self.deadline = deadline

    def __repr__(self) -> str:
        return f"<Waiter {self.name}>"


class Target:
    """Of timers: keeps the order in which they expire, and may do something."""

    def __init__(self, name: Any, order: list[Any], then: Callable[[], object] | None = None) -> None:
        self.name = name
        self.order = order
        self.then = then

    def expire(self, timer: Timer) -> None:
        self.order.append(self.name)
        if self.then is not None:
            self.then()


def wait(loop: EventLoop, direction: Direction, deadline: float = FOREVER, name: str = "") -> Waiter:
    """Put a waiter into a direction as the operations do: only when the latch is drained."""
    waiter = Waiter(name, deadline)
    direction.drained = direction.edges
    direction.holder = direction.waiter = waiter
    if not direction.armed or deadline < direction.alarm:
        assert loop.watch(direction, deadline)
    return waiter


def woken(loop: EventLoop, turns: int = 5) -> list[Any]:
    """Let the loop turn until it has woken somebody, at most so often; take out who is ready."""
    for _ in range(turns):
        if loop.ready:
            break
        loop.turn(True)
    found = list(loop.ready)
    loop.ready.clear()
    return found


def looks(loop: EventLoop, turns: int = 3) -> list[Any]:
    """Let the loop look, without waiting, so often; take out who is ready."""
    for _ in range(turns):
        loop.turn(False)
    found = list(loop.ready)
    loop.ready.clear()
    return found


def operate(
    loop: EventLoop, direction: Direction, call: Callable[[], Any], seconds: float = 5.0, then: Any = None
) -> Any:
    """Try, and wait for edges, as an operation does. `then` is done once, when the first wait has begun."""
    deadline = loop.clock() + seconds
    while True:
        if direction.edges != direction.drained:
            seen = direction.edges
            try:
                return call()
            except BlockingIOError:
                direction.drained = seen
        waiter = wait(loop, direction, deadline)
        if then is not None:
            then, do = None, then
            do()
        while not loop.ready:
            loop.turn(True)
        assert list(loop.ready) == [waiter]
        loop.ready.clear()
        direction.holder = None
        if waiter.outcome is TIMED_OUT:
            seen = direction.edges
            try:
                return call()
            except BlockingIOError:
                direction.drained = seen
            raise TimeoutError
