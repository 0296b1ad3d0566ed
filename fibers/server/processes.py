"""The processes of a prefork server and their slots: made, dismissed, killed, reaped. When that is to be, says master.py.

Facts, and what follows:

* Listeners are made once, before the first fork, and stay open here until the end; a process gets those of its slot. On
  Linux each slot has listeners of its own.
* A fork copies what is in the buffers of standard output and error: they are flushed before. Signals are blocked over the
  fork, until the child has handlers of its own.
* As process 1, or as a subreaper, we get children that we never had. They are reaped. Elsewhere only our own are: somebody
  else in the program may wait for his.
"""

import os
import signal
import socket as std
import sys
from collections.abc import Sequence
from time import monotonic
from typing import Any, Final

from ..core.lifecycle import GRACE, end_thread
from . import scoreboard, signalling, worker
from .accepting import name_of
from .adoption import own_listeners
from .crew import Row
from .forking import SignalPipe, adopts
from .listeners import Endpoint, close_all, open_all, open_more
from .service import MakeService
from .share import MakeIntake
from .slots import Slot, Worker
from .worker import Plan

#: What the master takes; what its processes ignore of it, since it is his business.
SIGNALS: Final = (*signalling.STOP, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCHLD)
IGNORED: Final = (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU)


class Processes:
    """See the module's text. For the main thread, where no loop is."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        threads: int,
        make_service: MakeService,
        make_intake: MakeIntake,
        plan: Plan,
    ) -> None:
        self._endpoints = endpoints
        self._threads = threads
        self._make_service = make_service
        self._make_intake = make_intake
        self.plan = plan
        self._names: list[str] = []
        self._adopts = adopts()
        self.signals = SignalPipe(SIGNALS)
        self.board = plan.scoreboard
        self.slots: list[Slot] = []
        self.workers: dict[int, Worker] = {}  # by pid; also those that leave

    # -- slots ----------------------------------------------------------------------------------------------------

    def listen(self) -> None:
        """Make the slots. Raises OSError."""
        count, threads = self.plan.processes, self._threads
        opened = open_all(self._endpoints, count * threads)
        self._names = [name_of(name) for endpoint in self._endpoints for name in endpoint.names()]
        rows = [list(zip(row, self._names, strict=True)) for row in opened]
        slots = [rows[place * threads : (place + 1) * threads] for place in range(count)]
        self.slots = [Slot(*each) for each in zip(range(count), slots, own_listeners(slots), strict=True)]

    def occupied(self) -> list[Slot]:
        """The slots that are to have a process."""
        return [slot for slot in self.slots if not slot.vacant]

    def free_slot(self) -> Slot:
        """One that is to have a process from now on: given up before, or new. Raises OSError if there can be no listener."""
        slot = next((each for each in self.slots if each.vacant), None)
        if slot is None:
            slot = self._new_slot()
            self.slots.append(slot)
        slot.vacant = False
        return slot

    def _new_slot(self) -> Slot:
        first = self.slots[0].rows
        rows: list[Row] = []
        try:
            for row in first:
                more = open_more(self._endpoints, [listener for listener, _ in row])
                rows.append(list(zip(more, self._names, strict=True)))
        except BaseException:
            close_all([[listener for listener, _ in row] for row in rows])
            raise
        return Slot(len(self.slots), rows, own_listeners([first, rows])[1])

    def close_listeners(self) -> None:
        """Those that we have; the processes have theirs."""
        for slot in self.slots:
            slot.close()

    def remove_endpoints(self) -> None:
        """What is left of them in the file system."""
        for endpoint in self._endpoints:
            endpoint.remove()

    # -- processes ------------------------------------------------------------------------------------------------

    def start(self, slot: Slot) -> Worker:
        """Fork a worker for the slot; it becomes the slot's, or its heir if it has one already."""
        ours, theirs = std.socketpair()
        place = self.board.claim()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()  # or what it holds would be written twice
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            pid = os.fork()
            if not pid:
                self._become(slot, place, ours, theirs, mask)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()
        self.board.assign(place, pid)
        made = Worker(pid, slot, ours, place)
        self.workers[pid] = made
        if slot.worker is None:
            slot.worker = made
        else:
            slot.heir = made
        return made

    def _become(self, slot: Slot, place: int, ours: std.socket, theirs: std.socket, mask: set[Any]) -> None:
        """In the child: let go of what is the master's, and be a worker."""
        try:
            end_thread()  # of an idle loop, if there is one: the worker begins anew
            self.signals.forget()
            for number in IGNORED:
                signal.signal(number, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            for link in (ours, *(each.link for each in self.workers.values())):
                link.close()
            for other in self.slots:
                if other is not slot:
                    other.close()
            self.board.inhabit(place)
            worker.become(theirs, slot.rows, self._make_service, self._make_intake, self.plan)
        finally:
            os._exit(worker.BROKEN)

    def ready(self, each: Worker) -> None:
        """It serves."""
        each.ready = True
        self.board.mark(each.place, scoreboard.SERVING)

    def tell_to_stop(self, word: str) -> None:
        """All of them: worker.STOP or CUT."""
        for each in self.workers.values():
            self.board.mark(each.place, scoreboard.LEAVING)
            each.say(word)

    def dismiss(self, each: Worker) -> None:
        """It is to stop gracefully; its listeners live on."""
        graceful = self.plan.graceful
        each.leave_by = float("inf") if graceful is None else monotonic() + graceful + 2 * GRACE
        self.board.mark(each.place, scoreboard.LEAVING)
        each.say(worker.LEAVE)

    def reap(self, block: bool = False) -> list[tuple[Worker, int]]:
        """Those that have ended since the last call, and their exit codes. `block`: wait for all."""
        ended = []
        for each in list(self.workers.values()):
            try:
                pid, status, used = os.wait4(each.pid, 0 if block else os.WNOHANG)
                seconds = used.ru_utime + used.ru_stime
            except ChildProcessError:
                pid, status, seconds = each.pid, 0, 0.0  # somebody else in the program has taken it
            if pid:
                self.board.release(each.place, seconds)
                del self.workers[pid]
                ended.append((each, os.waitstatus_to_exitcode(status)))
        if self._adopts:
            try:
                while not block and os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                pass
        return ended


def kill(each: Worker, number: int) -> None:
    """Send it a signal, if it is still there."""
    try:
        os.kill(each.pid, number)
    except ProcessLookupError:
        pass
