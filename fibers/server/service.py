"""The contract between what accepts connections and what serves them.

The engine (serving.py) owns listeners, threads, processes, signals and the stop. A `Service` is one loop's share of a
server: it is made in that loop's thread, by `make_service(changed)`, and all its methods are called there, in fiber code.
What it is told is what an acceptor knows: here is a connection; descriptors have run out; no more are coming. What it
tells is what only it can know: whether it wants more, and how many it has.

The stop, in order: the listeners are drained (`take`, whether there was room or not) and closed; `begin_stop`;
`wait_stopped`; if the deadline passes in there, that is cancelled, and then `cut`, and `wait_stopped` once more.
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from ..io.socket import socket


class Changed(Protocol):
    """What a service is made with: its way back to the engine. For the thread of the service, runtime code or fibers."""

    def __call__(self) -> None:
        """What `room` says may have become true."""

    def retire(self, reason: str = "") -> None:
        """This process has done enough (as many requests as it was to serve): stop it gracefully, and start another.

        Returns at once; a second call does nothing. A server without processes of its own (`processes=1`) has nobody to
        start another: there it is only noted in the log.
        """


class Service(Protocol):
    """One loop's share of a server. See the module's text."""

    def room(self) -> bool:
        """Is another connection wanted? When that may have become true, the service calls `changed()`."""

    def take(self, sock: socket, address: Any) -> None:
        """A new connection, which belongs to the service from now on. Returns at once, and raises nothing."""

    def give_back(self) -> bool:
        """Descriptors have run out: close something idle, if there is anything. True if so."""

    def begin_stop(self) -> None:
        """No new work on idle connections: close them. What is being handled goes on. Returns at once."""

    def wait_stopped(self) -> None:
        """Return when no connection is left. May be cancelled, and called again."""

    def cut(self) -> int:
        """The deadline has passed: cancel what runs, close what is left. How many connections that were."""

    def open(self) -> int:
        """Connections that there are now. May be read from any thread."""


@runtime_checkable
class Named(Protocol):
    """A service that can also tell whom it serves, for the report of a stop."""

    def names(self) -> list[str]:
        """Of each connection that is open, what serves whom."""


MakeService = Callable[[Changed], Service]
