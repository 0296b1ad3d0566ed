"""Links: functions that are called when something is ready. Under greenlets, events, results and semaphores.

They are called in a fiber of their own, one after the other, soon after the thing has become ready, and each once: a link
that has been called is gone. One that is taken out meanwhile is not called. What a link raises goes to the hub, and stops no
other one. Any thread may link, and any thread may make the thing ready; the fiber lives in the thread that has linked last,
since the other one may end at once.
"""

from collections.abc import Callable
from typing import Any

from ...core.runtime import spawn, yield_now
from ...core.scheduler import get_scheduler
from ...errors import Cancelled, FiberKilled
from .hub import get_hub, spawn_raw

Link = Callable[[Any], object]


class SpawnedLink:
    """A link that has its callback called in a new fiber."""

    __slots__ = ("callback",)

    def __init__(self, callback: Link) -> None:
        if not callable(callback):
            raise TypeError(f"a link is callable, which {callback!r} is not")
        self.callback = callback

    def __call__(self, source: Any) -> None:
        spawn_raw(self.callback, source)

    def __eq__(self, other: object) -> bool:
        return self.callback == getattr(other, "callback", other)

    def __hash__(self) -> int:
        return hash(self.callback)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.callback!r}>"


class SuccessSpawnedLink(SpawnedLink):
    """Called only if `source` was successful."""

    __slots__ = ()

    def __call__(self, source: Any) -> None:
        if source.successful():
            super().__call__(source)


class FailureSpawnedLink(SpawnedLink):
    """Called only if `source` was not successful."""

    __slots__ = ()

    def __call__(self, source: Any) -> None:
        if not source.successful():
            super().__call__(source)


class Linkable:
    """What can be linked to. Derived classes say when they are `ready`, and call `_notify` when they become it."""

    __slots__ = ("_home", "_links", "_notifying")

    def __init__(self) -> None:
        self._home: Any = None
        self._links: list[Link] = []
        self._notifying = False

    def ready(self) -> bool:
        """Is it?"""
        raise NotImplementedError

    def rawlink(self, callback: Link) -> None:
        """Have `callback(self)` called when it is ready; soon, if it is. TypeError for what is not callable."""
        if not callable(callback):
            raise TypeError(f"a link is callable, which {callback!r} is not")
        self._home = get_scheduler()
        self._links.append(callback)
        if self.ready():
            self._notify()

    def unlink(self, callback: Link) -> None:
        """Take a link back, if it is still there."""
        try:
            self._links.remove(callback)
        except ValueError:
            pass

    def linkcount(self) -> int:
        """How many links there are."""
        return len(self._links)

    def _notify(self) -> None:
        """It is ready: call the links there are now."""
        if self._links and not self._notifying:
            self._notifying = True
            try:
                home = self._home
                if home.closed or home is get_scheduler():
                    spawn(call_links, self, name="links")
                else:
                    home.post(_spawn_links, self)
            except BaseException:
                self._notifying = False
                raise


def _spawn_links(source: Linkable) -> None:
    spawn(call_links, source, name="links")


def call_links(source: Linkable) -> None:
    """In a fiber. Only those that are there at its beginning: a link may link again."""
    source._notifying = False
    links = source._links
    for link in list(links):
        if not source.ready():
            return
        if link not in links:
            continue
        links.remove(link)
        try:
            link(source)
            if links and isinstance(link, SpawnedLink):
                yield_now()  # what it has spawned may take others out
        except (Cancelled, FiberKilled):
            raise
        except BaseException as error:
            get_hub().handle_error((link, source), type(error), error, error.__traceback__)
