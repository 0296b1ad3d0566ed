"""A process of gunicorn's, from its fork to its end.

Facts, and what follows:

* The master kills a worker whose sign of life (the time of a file) is older than `timeout`. The sign is given by a fiber of
  the very loop that serves. So a handler that waits, however long, does no harm; one that holds up the thread (a C library,
  an endless computation) ends the worker. Where it hung is what everybody wants to know then: it is in the error log.
* The master repeats SIGTERM every second to workers that are too many. Only the first one counts; a second one is no
  impatience. SIGQUIT and SIGINT are.
* `alive = False` is how everybody (a signal, the reloader's thread, a hook of the user) says that it is time to stop. Nobody
  here looks at it once a second: to set it is to wake who waits for it.
* The master closes its listeners before it tells the last workers to stop. What waits in a queue then is lost if nobody
  takes it: a worker that stops takes in what is there, and ends each connection with a response that says so.
* `graceful_timeout` is when the master kills. What is cut needs a moment before that, to roll back and to log.
* The standard library is patched in the worker, before the application is loaded, and not in the master, which forks and
  waits for processes as it always did. With `--preload` the application has been loaded before: what it holds is replaced
  as far as it can be reached (fibers/patch).
* gunicorn would have signals written into a pipe of its own. The loop needs them: it keeps its wakeup fd.
* Workers share a listener, and all of them are woken when somebody comes. One that took all who wait would leave the
  others idle: it takes one, and looks after what it has before the next.
"""

import logging
import os
import signal
import traceback
from collections.abc import Mapping
from types import FrameType
from typing import Any, ClassVar, Final

from gunicorn.workers import base

from ..core.fiber import Fiber
from ..core.lifecycle import GRACE
from ..core.runtime import sleep, spawn
from ..http.hub import Settings
from ..http.service import Board, HttpService
from ..io.socket import AF_UNIX, socket
from ..patch import patch_all
from ..server.accepting import Acceptor, name_of
from ..server.crew import Crew
from ..server.service import Changed, Service
from ..threads.completion import Completion, Outside
from ..threads.signals import SignalReceiver, open_signal_receiver
from .application import Application, RequestLog
from .settings import problems, settings_of, tls_of

#: Seconds between two signs of life, at most.
BEAT: Final = 1.0
#: The environment variable that leaves the standard library as it is: 0, no, off, false.
SWITCH: Final = "FIBERS_GUNICORN_PATCH"


class OneAtATime(Acceptor):
    """An acceptor that leaves something for the other workers."""

    __slots__ = ()

    burst: ClassVar[int] = 1


class Worker(base.Worker):  # type: ignore[misc] # gunicorn has no types
    """gunicorn's worker with a fiber for each request: `gunicorn -k fibers.gunicorn.Worker module:app`.

    What gunicorn has no setting for is a matter of deriving: a class of one's own, with other `settings`.
    """

    #: What is allowed, as far as gunicorn has no words for it. It has no limit for the size of a body.
    settings: ClassVar[Settings] = Settings(max_body=None)
    #: What `fibers.patch.patch_all` is called with; None: the standard library stays as it is.
    patched: ClassVar[Mapping[str, bool] | None] = {}

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """In the master, before anything starts. RuntimeError (which gunicorn shows) for what cannot be had here."""
        errors, left_out = problems(cfg)
        for sentence in left_out:
            log.warning("%s", sentence)
        if errors:
            raise RuntimeError("fibers.gunicorn.Worker cannot do this: " + "; ".join(errors))

    # -- before it serves -------------------------------------------------------------------------------------------

    def init_process(self) -> None:
        """Everything. gunicorn calls this in the new process, and ends that when it returns."""
        self._ended = Completion(Outside())
        self._quick = False
        # Until here the handlers were the master's, which put signals into a queue that nobody reads in this process.
        signal.signal(signal.SIGTERM, self.handle_exit)
        signal.signal(signal.SIGQUIT, self.handle_quit)
        signal.signal(signal.SIGINT, self.handle_quit)
        self.patch()
        _forward_logs(self.log)
        super().init_process()

    def patch(self) -> None:
        """Patch the standard library, unless FIBERS_GUNICORN_PATCH=0 (or a subclass) says otherwise."""
        if self.patched is not None and wants(os.environ):
            patch_all(**self.patched)

    def init_signals(self) -> None:
        wakeup_fd = signal.set_wakeup_fd(-1)
        super().init_signals()
        signal.set_wakeup_fd(wakeup_fd)
        signal.signal(signal.SIGWINCH, signal.SIG_IGN)

    @property
    def alive(self) -> bool:
        """False: it is to stop, or does so already. May be set from anywhere, signal handlers included."""
        return self._alive

    @alive.setter
    def alive(self, value: bool) -> None:
        self._alive: bool = value
        if not value:
            self._ended.complete()

    # -- serving --------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until `alive` is false, and then to the end. Raises what a listener has failed of."""
        crew = Crew([self._take_listeners()], self._make_service, OneAtATime)
        with open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1) as signals:
            crew.start(self._patience(), own_threads=False)
            helpers: list[Fiber[Any]] = [
                spawn(self._obey, signals, crew, name="signals of a worker"),
                spawn(self._live, name="signs of life of a worker"),
                spawn(self._retire, crew, name="the retirement of a worker"),
                spawn(self._fail, crew, name="the failure of a worker"),
            ]
            try:
                self._ended.wait(what=self)
                report = crew.finish(0.0 if self._quick else self._patience())
            finally:
                for helper in helpers:
                    helper.cancel()
                for helper in helpers:
                    helper.join()
        if report.cut:
            self.log.warning("Worker graceful timeout (pid:%s): cut %s", self.pid, ", ".join(report.cut))
        if crew.error is not None:
            raise crew.error

    def _take_listeners(self) -> list[tuple[socket, str]]:
        """gunicorn's listeners, as sockets of ours."""
        taken: list[tuple[socket, str]] = []
        for each in self.sockets:
            listener = socket(each.sock.family, each.sock.type, each.sock.proto, fileno=each.sock.detach())
            taken.append((listener, name_of(listener.getsockname())))
        self.sockets: list[Any] = [listener for listener, _ in taken]
        return taken

    def _make_service(self, changed: Changed) -> Service:
        server = None
        if len(self.sockets) == 1 and self.sockets[0].family != AF_UNIX:
            address = self.sockets[0].getsockname()
            server = (address[0], str(address[1]))
        context = tls_of(self.cfg)
        return HttpService(
            Application(self, self.wsgi, server), settings_of(self.cfg, self.settings), changed,
            board=Board(), log=RequestLog(self.log), secure=None if context is None else lambda: context,
            turns=self.max_requests,
        )  # fmt: skip

    def _patience(self) -> float:
        """Seconds that a stop leaves to requests, so that some are left to clean up in."""
        graceful = float(self.cfg.graceful_timeout)
        return max(0.75 * graceful, graceful - 1.5 * GRACE)

    def _live(self) -> None:
        """Give signs of life; and stop, if there is nobody to see them."""
        pause = min(BEAT, self.timeout / 2) if self.timeout else BEAT  # `timeout` is half of what was set
        while True:
            self.notify()
            if self._alive and self.ppid != os.getppid():
                self.log.info("Parent changed, shutting down: %s", self)
                self.alive = False
            sleep(pause)

    def _retire(self, crew: Crew) -> None:
        crew.on_retire.wait(what=self)
        if self._alive:
            self.log.info("Autorestarting worker after current request.")
            self.alive = False

    def _fail(self, crew: Crew) -> None:
        crew.over.wait(what=self)
        self.alive = False

    # -- signals ----------------------------------------------------------------------------------------------------------

    def _obey(self, signals: SignalReceiver, crew: Crew) -> None:
        for number in signals:
            if number == signal.SIGUSR1:
                self._reopen()
            elif number == signal.SIGTERM:
                self.alive = False
            elif not self._quick:
                self._quick = True
                self.alive = False
                crew.request_stop(0.0)
                crew.hurry()
                self.cfg.worker_int(self)

    def _reopen(self) -> None:
        try:
            self.log.reopen_files()
        except OSError:
            self.log.exception("The log files cannot be opened anew")

    def handle_abort(self, sig: int, frame: FrameType | None) -> None:
        """SIGABRT: the master has seen no sign of life for too long. Raises SystemExit."""
        self.aborted = True
        self.log.critical("The thread is held up here (pid:%s):\n%s", self.pid, "".join(traceback.format_stack(frame)))
        super().handle_abort(sig, frame)


def wants(environment: Mapping[str, str]) -> bool:
    """What FIBERS_GUNICORN_PATCH says. Raises ValueError if it is neither yes nor no."""
    word = environment.get(SWITCH, "1").lower()
    if word in ("1", "yes", "on", "true"):
        return True
    if word in ("0", "no", "off", "false"):
        return False
    raise ValueError(f"{SWITCH} is 1 or 0, not {word!r}")


class _Forward(logging.Handler):
    """Hands what this package logs to gunicorn's error log."""

    def __init__(self, log: Any) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.log(record.levelno, record.getMessage(), exc_info=record.exc_info)


def _forward_logs(log: Any) -> None:
    """Unless the program has its own idea of where our logs go."""
    ours = logging.getLogger("fibers")
    if not ours.hasHandlers():
        ours.addHandler(_Forward(log))
        ours.propagate = False
        if ours.level == logging.NOTSET:
            ours.setLevel(getattr(log, "loglevel", logging.INFO))
