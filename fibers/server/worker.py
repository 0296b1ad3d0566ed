"""A process of a prefork server, from the fork to its end; and what it and its master say to each other.

Facts, and what follows:

* Between the two is a pair of sockets, the *link*. The worker says that it is ready, that its loops turn, that it wants to
  be replaced, and in the end what it has cut. The master says stop, leave (stop, but the listeners live on: what waits in
  their queues is left to the successor), and cut. Lines of text, so that strace shows what goes on.
* If the master dies, however, the link ends. A thread that does nothing else reads it, so also a worker whose loop hangs
  notices. It is a graceful stop: what is being handled is finished, and the address is soon free for a new master. Who is
  not done in time is gone all the same. (A loop that hangs inside of C code, holding the GIL, stays: nothing in Python
  helps there.)
* The worker must never return into the program that called `serve_forever`: its `finally` blocks and exit functions are
  the master's. Exit functions that were registered in the worker do run.
* Signals: SIGTERM and SIGINT stop it as they stop the master, since a terminal and systemd send them to all processes at
  once. SIGHUP, which a terminal sends as well, is ignored: reloading is the master's business.
"""

import atexit
import json
import logging
import os
import signal
import socket as std
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from time import monotonic
from typing import Final, NamedTuple, NoReturn

from ..core.lifecycle import GRACE, end_thread
from ..core.runtime import sleep, spawn
from ..io.socket import socket
from ..threads.signals import open_signal_receiver
from . import signalling
from .crew import Crew, Row
from .scoreboard import Scoreboard
from .service import MakeService
from .share import MakeIntake, Report

_log: Final = logging.getLogger("fibers.server")

#: What the worker says. The report is followed by JSON.
READY, BEAT, RETIRE, REPORT = "ready", "beat", "retire", "report"
#: What the master says.
STOP, LEAVE, CUT = "stop", "leave", "cut"
#: The same; followed by the number of a slot, and ADOPT by that of a loop and of the descriptors that come with it.
ADOPT, RELEASE = "adopt", "release"
#: Descriptors that come with one message at most (Linux's SCM_MAX_FD).
_MOST_FDS: Final = 253
#: How often a worker gives a sign of life in the time after which it is taken for dead.
BEATS: Final = 4
#: Exit statuses of a worker.
WELL, BROKEN, ORPHANED = 0, 1, 3


class Plan(NamedTuple):
    """How a server is to have its processes. See `Serving`."""

    processes: int
    graceful: float | None
    worker_timeout: float | None
    start_timeout: float
    on_worker_start: Callable[[], object] | None
    scoreboard: Scoreboard


def become(
    link: std.socket, rows: Sequence[Row], make_service: MakeService, make_intake: MakeIntake, plan: Plan
) -> NoReturn:
    """Be a worker, in a process just forked, and end it."""
    atexit._clear()
    status = BROKEN
    try:
        status = _work(link, rows, make_service, make_intake, plan)
    except Exception:
        _log.exception("process %d of a server has failed", os.getpid())
    except BaseException as end:
        _log.warning("process %d of a server is ended by %r", os.getpid(), end)
    finally:
        _end(status)


def _work(link: std.socket, rows: Sequence[Row], make_service: MakeService, make_intake: MakeIntake, plan: Plan) -> int:
    timeout = plan.worker_timeout
    interval = None if timeout is None else timeout / BEATS
    with open_signal_receiver(*signalling.STOP) as signals:
        if plan.on_worker_start is not None:
            plan.on_worker_start()
        crew = Crew(rows, make_service, make_intake, interval, adopts=True)
        crew.start(plan.graceful, own_threads=len(rows) > 1)
        threading.Thread(target=_obey, args=(link, crew, plan.graceful), name="fibers server link", daemon=True).start()
        _say(link, READY)
        spawn(signalling.obey, signals, crew, plan.graceful, None, False)
        spawn(_retire, link, crew)
        if interval is not None:
            spawn(_live, link, crew, interval)
        crew.wait()
    _say(link, f"{REPORT} {json.dumps(crew.report())}")
    return WELL if crew.error is None else BROKEN


def _say(link: std.socket, line: str, flags: int = 0) -> None:
    try:
        link.sendall(f"{line}\n".encode(), flags)
    except OSError:
        pass  # the master is gone, which is noticed elsewhere; or a sign of life too many is on its way


def _live(link: std.socket, crew: Crew, interval: float) -> None:
    """Tell that the loops turn, as long as all of them do."""
    while True:
        if crew.last_beat() > monotonic() - 2 * interval:
            _say(link, BEAT, std.MSG_DONTWAIT)
        sleep(interval)


def _retire(link: std.socket, crew: Crew) -> None:
    crew.on_retire.wait(what=crew)
    _say(link, RETIRE)


def _obey(link: std.socket, crew: Crew, graceful: float | None) -> None:
    """What the link's thread does."""
    fds: list[int] = []
    for line in _lines(link, fds):
        word, *numbers = line.split()
        if word == CUT:
            crew.request_stop(0)
            crew.hurry()
        elif word == ADOPT:
            slot, loop, count = map(int, numbers)
            crew.adopt(slot, loop, [socket(fileno=fd) for fd in fds[:count]])
            del fds[:count]
        elif word == RELEASE:
            crew.release(int(numbers[0]))
        else:
            crew.request_stop(graceful, drain=word == STOP)
    _log.error("process %d of a server stops: its master is gone", os.getpid())
    crew.request_stop(graceful)
    if graceful is not None:
        time.sleep(graceful + 2 * GRACE)
        os._exit(ORPHANED)


def _lines(link: std.socket, fds: list[int]) -> Iterator[str]:
    """What the master says, until it is gone. The descriptors of a line are in `fds` when it comes."""
    heard = b""
    while True:
        try:
            data, more, _, _ = std.recv_fds(link, 4096, _MOST_FDS, getattr(std, "MSG_CMSG_CLOEXEC", 0))
        except ConnectionError:
            return  # it has died with something unread
        if not data:
            return
        fds += more
        *lines, heard = (heard + data).split(b"\n")
        yield from (line.decode() for line in lines)


def _end(status: int) -> NoReturn:
    """Leave, with nothing of the program above run."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signalling.STOP)
    try:
        end_thread()
        atexit._run_exitfuncs()
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    finally:
        os._exit(status)


def report_of(text: str) -> Report:
    """What came after REPORT."""
    finished, cut, stubborn = json.loads(text)
    return Report(finished, tuple(cut), tuple(stubborn))
