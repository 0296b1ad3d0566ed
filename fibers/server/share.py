"""One loop's share of a server: its listeners, a fiber that accepts on each, and a service. From the start to the stop.

A share is run by one fiber of its loop. Whoever owns it (serving.py), in whatever thread, tells it when to stop, and how
long the service may take; and may change his mind and have it stop at once. Both are single steps, so they may come from
anywhere, at any moment, more than once.

The stop: nobody accepts any more; what waits in the kernel's queue is taken over, and the listeners are closed; the
service ends what is idle, and waits for what is not; when the time is up, that is cut: cancelled, and given a second to
clean up in. What goes on after that is in the report, and in the log.

If the fiber of the share is itself cancelled (the program ends, or the group around it), that is a stop without time.
"""

import logging
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Final, NamedTuple, Protocol

from ..core.cancel import CancelScope, move_on_after, shield
from ..core.fiber import Fiber
from ..core.lifecycle import GRACE
from ..core.runtime import current_time, sleep, spawn
from ..errors import Cancelled
from ..io.socket import socket
from ..sync.simplequeue import SimpleQueue
from ..threads.completion import Completion, Outside
from .service import MakeService, Named, Service

_log: Final = logging.getLogger("fibers.server")


class Report(NamedTuple):
    """What became of the connections that were open when the stop began, and of those that waited to be accepted."""

    finished: int  # ended by themselves
    cut: tuple[str, ...]  # cancelled when the time was up: what was serving whom
    stubborn: tuple[str, ...]  # of these, those that went on after that

    def __str__(self) -> str:
        told = f"{self.finished} finished, {len(self.cut)} cut"
        return f"{told} ({', '.join(self.cut)})" if self.cut else told

    @classmethod
    def of_all(cls, reports: "Sequence[Report]") -> "Report":
        """Several in one."""
        return cls(
            sum(each.finished for each in reports),
            tuple(name for each in reports for name in each.cut),
            tuple(name for each in reports for name in each.stubborn),
        )


class Intake(Protocol):
    """What takes in from one listener: `accepting.Acceptor`, or what receives datagrams."""

    def run(self) -> None: ...
    def look_again(self) -> None: ...
    def drain(self) -> None: ...
    def leave(self) -> None: ...
    def close(self) -> None: ...


MakeIntake = Callable[[socket, Any, str], Intake]


class Owner(Protocol):
    """Of shares. Called in their threads."""

    def share_failed(self, error: BaseException) -> None:
        """A listener has failed in a way that is no passing one."""

    def share_over(self) -> None:
        """A share has come to its end."""

    def retire(self, reason: str) -> None:
        """See `Changed`."""


class Share:
    """See the module's text. It is also the `Changed` of its service."""

    def __init__(
        self,
        owner: Owner,
        listeners: Sequence[tuple[socket, str]],
        make_service: MakeService,
        make_intake: MakeIntake,
        heartbeat: float | None = None,
        adopts: bool = False,
    ) -> None:
        self._owner = owner
        self._listeners = listeners
        self._make_service = make_service
        self._make_intake = make_intake
        self._heartbeat = heartbeat
        self._intakes: list[Intake] = []
        self._fibers: list[Fiber[Any]] = []
        self._helpers: list[Fiber[Any]] = []
        self._errands: SimpleQueue[tuple[int, Sequence[socket]]] | None = SimpleQueue() if adopts else None
        self._adopted: dict[int, list[tuple[Intake, Fiber[Any]]]] = {}
        self._asked = Completion(Outside())
        self._patience = CancelScope()
        self._timeout: float | None = None
        self._drains = True
        self.service: Service | None = None
        self.stands = Completion(Outside())  # it serves, or never will
        self.over = Completion(Outside())
        self.error: BaseException | None = None  # why it does not serve, or why it ended
        self.report = Report(0, (), ())
        self.beat = monotonic()  # when its loop was last seen to turn, if that was asked for

    # -- for its owner, any thread ------------------------------------------------------------------------------------

    def stop(self, timeout: float | None, drain: bool = True) -> None:
        """Stop, with `timeout` seconds for what is being handled (None: no limit). The first call counts.

        Without `drain` what waits to be accepted is left: the listeners live on elsewhere.
        """
        if not self._asked.done:
            self._timeout, self._drains = timeout, drain
            self._asked.complete()

    def hurry(self) -> None:
        """The time is up."""
        self._patience.cancel()

    def adopt(self, owner: int, listeners: Sequence[socket]) -> None:
        """Accept on these as well, until `release(owner)`: the listeners of somebody who is missing. They are ours then."""
        assert self._errands is not None
        self._errands.put((owner, listeners))

    def release(self, owner: int) -> None:
        """Close what was adopted; it lives on elsewhere."""
        assert self._errands is not None
        self._errands.put((owner, ()))

    # -- for its service ----------------------------------------------------------------------------------------------

    def __call__(self) -> None:
        for intake in self._intakes:
            intake.look_again()

    def retire(self, reason: str = "") -> None:
        """See `Changed`."""
        self._owner.retire(reason)

    # -- in its loop --------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """From the beginning to the end. What prevents it is in `error`, and not raised."""
        try:
            self._begin()
            self._await_stop()
        except Exception as error:
            self.error = self.error or error
        finally:
            for fiber in (*self._helpers, *self._fibers):  # the latter where it has begun in part only
                fiber.cancel()
            for intake in self._intakes:
                intake.close()
            for listener, _ in self._listeners:
                listener.close()
            self.stands.complete()
            self.over.complete()
            self._owner.share_over()

    def _begin(self) -> None:
        self.service = self._make_service(self)
        for listener, name in self._listeners:
            self._intakes.append(self._make_intake(listener, self.service, name))
        for intake in self._intakes:
            self._take_in(intake)
        if self._heartbeat is not None:
            self._helpers.append(spawn(self._live, self._heartbeat))
        if self._errands is not None:
            self._helpers.append(spawn(self._run_errands, self._errands))
        self.stands.complete()

    def _take_in(self, intake: Intake) -> Fiber[Any]:
        fiber = spawn(intake.run, name=f"accepting: {intake!r}")
        fiber.add_done_callback(self._intake_over)
        self._fibers.append(fiber)
        return fiber

    def _run_errands(self, errands: "SimpleQueue[tuple[int, Sequence[socket]]]") -> None:
        """Adopt and release, as we are told."""
        while True:
            owner, listeners = errands.get()
            for intake, fiber in self._adopted.pop(owner, ()):
                fiber.cancel()
                fiber.join()  # what it was about to take in is the service's, before the intake leaves
                self._intakes.remove(intake)
                self._fibers.remove(fiber)
                intake.leave()
            if listeners:
                assert self.service is not None
                made = [self._make_intake(listener, self.service, "") for listener in listeners]
                self._intakes += made
                self._adopted[owner] = [(intake, self._take_in(intake)) for intake in made]

    def _await_stop(self) -> None:
        cancelled = None
        try:
            self._asked.wait(what=self)
        except BaseException as error:
            cancelled = error
            self.hurry()
        with shield():
            self._stop()
        if cancelled is not None:
            raise cancelled

    def _stop(self) -> None:
        service = self.service
        assert service is not None
        for fiber in (*self._helpers, *self._fibers):
            fiber.cancel()
        for fiber in (*self._helpers, *self._fibers):
            fiber.join()
        for intake in self._intakes:
            if self._drains:
                intake.drain()
            else:
                intake.leave()
        at_first = service.open()
        service.begin_stop()
        if self._timeout is not None:
            self._patience.deadline = current_time() + self._timeout
        with self._patience:
            service.wait_stopped()
        names: list[str] = []
        stubborn: list[str] = []
        if left := service.open():
            names = _names(service, left)
            service.cut()
            with move_on_after(GRACE):
                service.wait_stopped()
            if still := service.open():
                stubborn = _names(service, still)
                _log.warning("%d connections go on after they were cut: %s", still, ", ".join(stubborn))
        self.report = Report(at_first - len(names), tuple(names), tuple(stubborn))

    def _intake_over(self, fiber: Fiber[Any]) -> None:
        """A done-callback."""
        error = fiber.exception() if not fiber.cancelled() else None
        if error is not None and not isinstance(error, Cancelled):
            self.error = self.error or error
            self._owner.share_failed(error)

    def _live(self, seconds: float) -> None:
        while True:
            self.beat = monotonic()
            sleep(seconds)


def _names(service: Service, count: int) -> list[str]:
    return service.names() if isinstance(service, Named) else ["a connection"] * count
