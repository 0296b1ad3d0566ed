"""Scripts of a state machine: what was done, replayed without hypothesis, and cut down to what a failure needs.

Hypothesis makes values small and leaves many steps in that do nothing for the failure. Here the steps are dropped one
after the other, as long as it fails without them. What remains is Python, to be pasted into a regression test.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

import hypothesis.strategies as st

F = TypeVar("F", bound=Callable[..., None])


class Step(NamedTuple):
    """A call of a method of a machine."""

    name: str
    values: dict[str, Any]

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{key}={value!r}' for key, value in self.values.items())})"


class Player(Protocol):
    """What a machine needs: methods marked `recorded`, a list of what was done, a check after each, and an end."""

    script: list[Step]

    def check(self) -> None: ...
    def teardown(self) -> None: ...


def recorded(function: F) -> F:
    """For the methods of a machine that are its steps; called with keywords only."""

    @functools.wraps(function)
    def step(self: Player, **values: Any) -> None:
        self.script.append(Step(function.__name__, values))
        function(self, **values)

    return step  # type: ignore[return-value]


def replay(make: Callable[[], Player], script: list[Step]) -> BaseException | None:
    """Play a script; what it raises."""
    machine = make()
    try:
        try:
            for name, values in script:
                getattr(machine, name)(**values)
                machine.check()
        finally:
            machine.teardown()
    except Exception as error:
        return error
    return None


def shortest(make: Callable[[], Player], script: list[Step]) -> list[Step]:
    """A part of a failing script that fails, and of which no step can be left out. The first step stays."""
    position = len(script) - 1
    while position > 0:
        candidate = script[:position] + script[position + 1 :]
        if replay(make, candidate) is not None:
            script = candidate
        position = min(position, len(script)) - 1
    return script


def as_python(script: list[Step]) -> str:
    return "\n".join(f"machine.{step!r}" for step in script)


@functools.cache
def one_of(values: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    """One of these. Kept: what hypothesis finds out about a strategy is dear."""
    return st.sampled_from(values)
