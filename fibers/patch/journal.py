"""What was changed, so that it can be undone, last change first."""

from collections.abc import Callable
from typing import Any, Final

_MISSING: Final = object()


class Journal:
    """Makes changes, and remembers them while it `keeps`. One thread at a time."""

    __slots__ = ("_moved_to", "_steps", "keeps")

    def __init__(self) -> None:
        self.keeps = True
        self._moved_to: Journal | None = None
        self._steps: list[tuple[Callable[..., object], tuple[Any, ...]]] = []

    def record(self, undo: Callable[..., object], *args: Any) -> None:
        """`undo(*args)` will take back what has just been done."""
        if self._moved_to is not None:
            self._moved_to.record(undo, *args)
        elif self.keeps:
            self._steps.append((undo, args))

    def set_item(self, mapping: dict[Any, Any], key: Any, value: Any) -> None:
        """`mapping[key] = value`."""
        self.record(_restore_item, mapping, key, mapping.get(key, _MISSING))
        mapping[key] = value

    def set_attribute(self, owner: Any, name: str, value: Any) -> None:
        """`owner.name = value`. Remembered is what `owner` itself holds, not what it inherits."""
        self.record(_restore_attribute, owner, name, vars(owner).get(name, _MISSING))
        put(owner, name, value)

    def move_to(self, other: "Journal") -> None:
        """Have `other` remember what this one does, if that one keeps anything; also what is recorded here from now on."""
        if other.keeps:
            other._steps += self._steps
        self._steps.clear()
        self._moved_to = other

    def undo(self) -> None:
        """Take everything back."""
        while self._steps:
            function, args = self._steps.pop()
            function(*args)


def _restore_item(mapping: dict[Any, Any], key: Any, value: Any) -> None:
    if value is _MISSING:
        mapping.pop(key, None)
    else:
        mapping[key] = value


def _restore_attribute(owner: Any, name: str, value: Any) -> None:
    if value is not _MISSING:
        put(owner, name, value)
    elif isinstance(owner, type):
        type.__delattr__(owner, name)
    else:
        delattr(owner, name)


def put(owner: Any, name: str, value: Any) -> None:
    """`setattr`. A metaclass is not asked: some allow no changes."""
    if isinstance(owner, type):
        type.__setattr__(owner, name, value)
    else:
        setattr(owner, name, value)
