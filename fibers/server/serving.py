"""The engine of a server: it listens, runs a service in each loop, and ends as it should. TCPServer is one user of it.

    with Serving(endpoints, make_service) as server:      serves while the block runs
        ...
    Serving(endpoints, make_service).serve_forever()       is the program: signals, systemd, processes

Whose is it? A server's fibers are its own: they belong to no task group of the caller, and an error of a handler ends
nobody else. The block is what bounds them. Left normally, it stops the server gracefully; left by an exception (also a
cancellation), it cuts what is being handled. A server that was started by `start()` lives until `stop()`, or until the
`fibers.run` or the thread around it ends.

`threads=1` serves in the loop of the caller: while its thread waits in fibers. `threads=N` serves in N threads, each with
a loop and a listener of its own. `processes=N` serves in N processes (master.py), with `threads` loops each; that is for
a server that is the program: `serve_forever` alone, called in the main thread while nothing else runs.
"""

import enum
import logging
import os
import signal
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final, Self

from ..core.cancel import shield
from ..core.runtime import sleep, spawn
from ..core.scheduler import check_seconds
from ..threads.signals import open_signal_receiver
from . import signalling, systemd
from .accepting import Acceptor, name_of
from .crew import Crew, Row
from .forking import check_place
from .listeners import Endpoint, close_all, open_all
from .master import Master
from .processes import Processes
from .scoreboard import Scoreboard
from .service import MakeService
from .share import MakeIntake, Report
from .worker import Plan

_log: Final = logging.getLogger("fibers.server")

#: Seconds that a graceful stop leaves to what is being handled.
GRACEFUL: Final = 30.0


class Default(enum.Enum):
    """What is meant where nothing is said."""

    GRACEFULLY = "graceful_timeout"


GRACEFULLY: Final = Default.GRACEFULLY


class Serving:
    """See the module's text. `start` and `serve_forever` are for one thread; everything else for any.

    graceful_timeout    seconds that a stop leaves to what is being handled; None: as long as it takes
    on_reload           called on SIGHUP by `serve_forever`, with `processes=1`
    on_worker_start     called in each new process before it serves; what it raises is why that process does not
    worker_timeout      seconds after which a process whose loops do not turn is killed; None: never
    start_timeout       seconds in which new processes have to be ready
    scoreboard          where they show what they do; a service gets its row there (scoreboard.py)
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        make_service: MakeService,
        *,
        make_intake: MakeIntake = Acceptor,
        threads: int = 1,
        processes: int = 1,
        graceful_timeout: float | None = GRACEFUL,
        on_reload: Callable[[], object] | None = None,
        on_worker_start: Callable[[], object] | None = None,
        worker_timeout: float | None = 60.0,
        start_timeout: float = 60.0,
        scoreboard: Scoreboard | None = None,
    ) -> None:
        self._threads = _check_count("threads", threads)
        self._processes = _check_count("processes", processes)
        for name, seconds in (("graceful_timeout", graceful_timeout), ("worker_timeout", worker_timeout)):
            if seconds is not None:
                check_seconds(name, seconds)
        check_seconds("start_timeout", start_timeout)
        self._endpoints = list(endpoints)
        self._make_service = make_service
        self._make_intake = make_intake
        self._graceful = graceful_timeout
        self._on_reload = on_reload
        self._plan = Plan(
            self._processes, graceful_timeout, worker_timeout, start_timeout, on_worker_start,
            scoreboard or Scoreboard(0, 0),
        )  # fmt: skip
        self._crew: Crew | None = None
        self._begun = False
        self._open = False
        self._pid = 0
        self._report: Report | None = None

    # -- where ----------------------------------------------------------------------------------------------------

    @property
    def addresses(self) -> list[Any]:
        """Where it listens: for each listener's address (host, port, …) or the path. RuntimeError before the start."""
        if not self._begun:
            raise RuntimeError(f"{self!r} has not been started, and so has no address yet")
        return [name for endpoint in self._endpoints for name in endpoint.names()]

    @property
    def address(self) -> Any:
        """The first of them."""
        return self.addresses[0]

    # -- inside of a program ----------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Listen and serve; returns when all loops do.

        Raises OSError if it cannot listen, what the service raises, and RuntimeError if it was started before, or is one
        of many processes.
        """
        if self._processes > 1:
            raise RuntimeError(
                "a server with processes is the program: call serve_forever() in the main thread instead"
            )
        rows = self._listen(self._threads)
        self._crew = crew = Crew(rows, self._make_service, self._make_intake)
        try:
            crew.start(self._graceful, own_threads=self._threads > 1)
        except BaseException:
            self._remove()
            raise
        return self

    def stop(self, timeout: float | Default | None = GRACEFULLY) -> Report:
        """Stop: close the listeners, wait for what is being handled, cut what is left after `timeout` seconds.

        `timeout`: None, as long as it takes; by default `graceful_timeout`. Returns what was cut. Called while a stop is
        under way, the shorter time holds; called again after it, the same report. Raises what a listener has failed of.
        """
        crew = self._crew
        if crew is None:
            raise RuntimeError(f"{self!r} has not been started")
        try:
            report = crew.finish(self._patience(timeout))
        finally:
            self._remove()
            self._report = crew.report()
        if crew.error is not None:
            raise crew.error
        return report

    def request_stop(self, timeout: float | Default | None = GRACEFULLY) -> None:
        """As `stop`, but returns at once: for a handler, a signal handler, another thread."""
        if self._crew is not None and self._pid == os.getpid():
            self._crew.request_stop(self._patience(timeout))

    def connections(self) -> int:
        """How many there are now, in this process."""
        return 0 if self._crew is None else self._crew.connections()

    def __enter__(self) -> Self:
        return self if self._begun else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.stop()
        else:
            with shield():
                self.stop(0)

    @property
    def report(self) -> Report | None:
        """What the stop came to. None before that."""
        return self._report

    # -- as the program ---------------------------------------------------------------------------------------------

    def serve_forever(self, *, signals: bool = True) -> Report:
        """Serve until it is stopped: by `stop`, by `request_stop`, or by a signal (see signalling.py). What was cut.

        Signals are taken only in the main thread, and if `signals` is true. systemd is told what happens.
        """
        if self._processes > 1:
            self._report = self._serve_by_processes()
            return self._report
        if not self._begun:
            self.start()
        crew = self._crew
        assert crew is not None
        in_main = threading.current_thread() is threading.main_thread()
        helpers = []
        try:
            if signals and in_main:
                taken = (*signalling.STOP, *((signal.SIGHUP,) if self._on_reload is not None else ()))
                with open_signal_receiver(*taken) as receiver:
                    obeying = (receiver, crew, self._graceful, self._on_reload, True)
                    helpers.append(spawn(signalling.obey, *obeying, name="signals of a server"))
                    self._serve(crew)
            else:
                self._serve(crew)
        except BaseException:
            with shield():
                self.stop(0)
            raise
        finally:
            for helper in helpers:
                helper.cancel()
                helper.join()
        return self.stop()

    def _serve(self, crew: Crew) -> None:
        """Until it is over."""
        seconds = systemd.watchdog_seconds()
        alive = None if seconds is None else spawn(_tell_alive, seconds)
        systemd.ready()
        try:
            crew.wait()
        finally:
            if alive is not None:
                alive.cancel()
                alive.join()
            if self._pid == os.getpid():
                systemd.stopping()

    def _serve_by_processes(self) -> Report:
        if self._begun:
            raise RuntimeError(f"{self!r} was started before; make a new one")
        check_place()
        self._begun, self._pid = True, os.getpid()
        crowd = Processes(self._endpoints, self._threads, self._make_service, self._make_intake, self._plan)
        master = Master(crowd)
        return master.run()

    # -- both ---------------------------------------------------------------------------------------------------------

    def _listen(self, shares: int) -> list[Row]:
        if self._begun:
            raise RuntimeError(f"{self!r} was started before; make a new one")
        rows = open_all(self._endpoints, shares)
        self._begun = self._open = True
        self._pid = os.getpid()
        try:
            names = [name_of(address) for address in self.addresses]
            return [list(zip(row, names, strict=True)) for row in rows]
        except BaseException:
            close_all(rows)
            raise

    def _patience(self, timeout: float | Default | None) -> float | None:
        if isinstance(timeout, Default):
            return self._graceful
        return None if timeout is None else check_seconds("timeout", timeout)

    def _remove(self) -> None:
        """The listeners are closed."""
        if self._open and self._pid == os.getpid():
            self._open = False
            for endpoint in self._endpoints:
                endpoint.remove()

    def __repr__(self) -> str:
        names = ", ".join(map(name_of, self.addresses)) if self._begun else "not started"
        return f"<{type(self).__name__} {names}>"


def _tell_alive(seconds: float) -> None:
    while True:
        systemd.notify("WATCHDOG=1")
        sleep(seconds)


def _check_count(name: str, count: int) -> int:
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ValueError(f"{name} must be a number from 1 on, not {count!r}")
    return count
