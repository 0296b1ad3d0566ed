"""Who runs: the object that stands for the calling fiber in the world of gevent or eventlet.

Such an object is made by whoever spawns, and is known to be the fiber's own while the fiber runs. Other fibers (the main
one of a thread, what `fibers.spawn` has made) get an object when they first ask, and keep it as long as they live.
"""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, Generic, TypeVar

from ..core.fiber import Fiber
from ..core.local import Local
from ..core.runtime import current

T = TypeVar("T")

#: Files whose frames are not where the user has spawned something.
_HERE: Final = __file__.removesuffix("running.py")


class Running(Generic[T]):
    """What the fibers are in one of the two worlds. `make` makes what a strange fiber gets."""

    __slots__ = ("_make", "_own", "_strange")

    def __init__(self, make: Callable[[Fiber[Any]], T]) -> None:
        self._make = make
        self._own: dict[Fiber[Any], T] = {}
        self._strange = Local()

    def enter(self, value: T) -> Fiber[Any]:
        """The calling fiber is `value` from now on."""
        me = current()
        self._own[me] = value
        return me

    def leave(self, me: Fiber[Any]) -> None:
        """It ends."""
        self._own.pop(me, None)

    def current(self) -> T:
        """Who calls. RuntimeError inside the runtime."""
        me = current()
        found = self._own.get(me)
        if found is None:
            strange = self._strange
            found = getattr(strange, "value", None)
            if found is None:
                found = strange.value = self._make(me)
        return found


def spawned_by_caller(fiber: Fiber[Any]) -> None:
    """The fiber has been spawned, for reports, where the first frame stands that is not of this package."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_HERE):
        frame = frame.f_back
    if frame is not None:
        fiber._site_code, fiber._site_instruction = frame.f_code, frame.f_lasti
