"""Many processes: a master that owns the listeners and does nothing else, and workers that serve.

Facts, and what follows:

* Listeners are made once, before the first fork, and stay open in the master until the end. So no connection is lost when
  a worker dies or is replaced: what waits in the kernel's queue waits for the next worker of the same *slot*. (Closing one
  of two SO_REUSEPORT listeners resets what is queued on it.) On Linux each slot has a listener of its own, and the
  kernel shares connections out evenly, where processes that wait on one listener are woken in no fair order. While a slot
  has no worker, neighbours accept for it (adoption.py).
* A fork copies one thread. So the master has no loop and no threads: it waits in poll(2), and signals arrive there through
  the wakeup fd (forking.py). Nothing may run beside it: that is refused where fibers are at work.
* A worker that died is replaced at once; one that dies soon after it was made, again and again, after pauses of up to ten
  seconds, because forking in a circle helps nobody. If in the very beginning none gets ready, that is an error of the
  program, and `run` raises.
* SIGHUP, or a worker that wants to retire: first the successors, on the same listeners; only when all of them are ready do
  the old ones leave. If one of them fails or is late, they are ended, and the old ones go on.
* SIGTTIN is one process more, SIGTTOU one less, as nginx's relatives have it since unicorn. A slot that was given up keeps
  its listeners, or who is in their queues would be reset; its neighbours mind them until there is a worker again.
* A worker that gives no sign of life is killed: by SIGABRT, with which `python -X faulthandler` shows where it hung, and
  by SIGKILL a second later.

The processes themselves, and how they are made and reaped, are in processes.py.
"""

import logging
import select
import signal
from collections.abc import Sequence
from time import monotonic
from typing import Final

from ..core.lifecycle import GRACE
from . import signalling, systemd, worker
from .adoption import mind_orphans
from .processes import Processes, kill
from .share import Report
from .slots import Slot, Succession, Worker

_log: Final = logging.getLogger("fibers.server")


class Master:
    """See the module's text. It lives in the main thread."""

    def __init__(self, crowd: Processes) -> None:
        self._crowd = crowd
        self._plan = crowd.plan
        self._successions: list[Succession] = []
        self._reload_wanted = False
        self._more_wanted = 0  # processes that there are to be beyond those that there are
        self._ready_once = False
        self._stopping = False
        self._stop_by: float | None = None  # then those that are left are killed
        self._failure: str | None = None
        self._reports: list[Report] = []
        self._watchdog = systemd.watchdog_seconds()
        self._next_sign = 0.0

    # -- the loop -------------------------------------------------------------------------------------------------

    def run(self) -> Report:
        """Until a signal, or until nothing can be started. What was cut at the end."""
        try:
            with self._crowd.signals:
                self._crowd.listen()
                for slot in self._crowd.slots:
                    self._crowd.start(slot)
                while not (self._stopping and not self._crowd.workers):
                    self._turn()
        finally:
            self._stopping = True  # nobody is replaced any more
            self._kill_all()
            self._crowd.close_listeners()
            self._crowd.remove_endpoints()
        if self._failure is not None:
            raise RuntimeError(self._failure)
        return Report.of_all(self._reports)

    def _turn(self) -> None:
        poll = select.poll()
        poll.register(self._crowd.signals.fd, select.POLLIN)
        by_fd = {each.link.fileno(): each for each in self._crowd.workers.values() if each.link.fileno() >= 0}
        for fd in by_fd:
            poll.register(fd, select.POLLIN)
        for fd, _ in poll.poll(max(0.0, self._next() - monotonic()) * 1000 + 1):
            if fd in by_fd:
                self._hear(by_fd[fd])
        self._obey()
        self._reap()
        self._succeed()
        self._look_at_the_clock()
        if self._ready_once and not self._stopping:
            mind_orphans(self._crowd.slots)

    def _next(self) -> float:
        """When there is something to do at the latest."""
        times = [monotonic() + 3600]
        if self._stop_by is not None:
            times.append(self._stop_by)
        if self._watchdog is not None:
            times.append(self._next_sign)
        times += [slot.due for slot in self._crowd.slots if slot.due is not None and not self._stopping]
        times += [late for each in self._crowd.workers.values() if (late := self._late(each)) is not None]
        return min(times)

    def _late(self, each: Worker) -> float | None:
        """When it is to be killed, if nothing happens before."""
        if each.aborted_at is not None:
            return each.aborted_at + GRACE
        if each.leave_by is not None:
            return each.leave_by
        if not each.ready:
            return each.born + self._plan.start_timeout
        return None if self._plan.worker_timeout is None else each.beat + self._plan.worker_timeout

    def _look_at_the_clock(self) -> None:
        now = monotonic()
        if self._watchdog is not None and now >= self._next_sign:
            systemd.notify("WATCHDOG=1")
            self._next_sign = now + self._watchdog
        if self._stop_by is not None and now >= self._stop_by:
            self._kill_all()
            return
        for each in list(self._crowd.workers.values()):
            late = self._late(each)
            if late is None or now < late:
                continue
            if each.aborted_at is None:
                why = "does not leave" if each.leave_by is not None else "hangs" if each.ready else "does not get ready"
                _log.error("process %d %s: it is killed", each.pid, why)
                each.aborted_at = now
                kill(each, signal.SIGABRT)
            else:
                each.aborted_at = now  # again, in a second
                kill(each, signal.SIGKILL)
        if not self._stopping:
            for slot in self._crowd.slots:
                if slot.due is not None and now >= slot.due:
                    slot.due = None
                    if slot.worker is None:
                        self._crowd.start(slot)
                    elif slot.heir is None:
                        self._begin_succession([slot], reload=False)

    # -- what is said ---------------------------------------------------------------------------------------------

    def _hear(self, each: Worker) -> None:
        for line in each.lines():
            word, _, rest = line.partition(" ")
            each.beat = monotonic()
            if word == worker.READY:
                self._crowd.ready(each)
                self._got_ready()
            elif word == worker.REPORT:
                each.report = worker.report_of(rest)
            elif word == worker.RETIRE:
                each.retiring = True
                if each.slot.worker is each and each.slot.heir is None and not self._stopping:
                    self._begin_succession([each.slot], reload=False)

    def _got_ready(self) -> None:
        if not self._ready_once and all(slot.serves() for slot in self._crowd.slots if not slot.vacant):
            self._ready_once = True
            _log.info("%d processes serve", len(self._crowd.occupied()))
            systemd.ready()

    def _obey(self) -> None:
        for number in self._crowd.signals.arrived():
            if number in signalling.STOP:
                self._stop(signal.Signals(number).name)
            elif number == signal.SIGHUP and not self._stopping:
                self._reload_wanted = True
            elif number in (signal.SIGTTIN, signal.SIGTTOU):
                self._more_wanted += 1 if number == signal.SIGTTIN else -1

    # -- beginning and ending -------------------------------------------------------------------------------------

    def _stop(self, why: str) -> None:
        again, self._stopping = self._stopping, True
        if again:
            _log.warning("%s again: what is left is cut", why)
            left: float | None = 0.0
        else:
            left = self._plan.graceful
            _log.info("%s: stopping", why)
            systemd.stopping()
            self._crowd.close_listeners()  # the workers drain theirs, and are the last who have them
        self._stop_by = None if left is None else monotonic() + left + 2 * GRACE
        self._crowd.tell_to_stop(worker.CUT if again else worker.STOP)

    def _kill_all(self) -> None:
        for each in self._crowd.workers.values():
            kill(each, signal.SIGKILL)
        self._reap(block=True)

    def _reap(self, block: bool = False) -> None:
        for each, code in self._crowd.reap(block):
            self._gone(each, code)

    def _gone(self, each: Worker, code: int) -> None:
        """A process has ended."""
        self._hear(each)
        each.link.close()
        each.gone = True
        slot = each.slot
        mine = slot.worker is each
        if mine:
            slot.worker = None
        if slot.heir is each:
            slot.heir = None
        if self._stopping:
            self._reports.append(each.report or Report(0, (f"process {each.pid}, which was killed",), ()))
            return
        if each.leave_by is not None:
            return
        _log.error("process %d of the server has ended: %s", each.pid, _ended_by(code))
        if not self._ready_once and not each.ready:
            self._failure = f"a process of the server could not start: {_ended_by(code)}; the log tells why"
            self._stop("a process could not start")
        elif mine and slot.heir is None:
            slot.due = monotonic() + slot.pause(each, monotonic())

    # -- more and fewer -------------------------------------------------------------------------------------------

    def _grow(self) -> None:
        """One process more: in a slot that was given up, or in a new one."""
        try:
            slot = self._crowd.free_slot()
        except OSError as error:
            _log.error("no further process can be started: %s", error)
            return
        self._crowd.start(slot)
        _log.info("SIGTTIN: %d processes", len(self._crowd.occupied()))

    def _shrink(self) -> None:
        """One process less; the last one stays."""
        *others, slot = self._crowd.occupied()
        if not others:
            _log.warning("SIGTTOU: there is one process only, and it stays")
            return
        slot.vacant, slot.due = True, None
        if slot.worker is not None:
            self._crowd.dismiss(slot.worker)
            slot.worker = None
        _log.info("SIGTTOU: %d processes", len(others))

    # -- successions ----------------------------------------------------------------------------------------------

    def _succeed(self) -> None:
        """Go on with what is to be replaced."""
        if self._stopping:
            return
        for each in list(self._successions):
            if each.failed():
                self._successions.remove(each)
                self._give_up(each)
            elif each.ready():
                self._successions.remove(each)
                self._hand_over(each)
        if self._more_wanted and self._ready_once and not self._successions:
            for _ in range(abs(self._more_wanted)):
                if self._more_wanted > 0:
                    self._grow()
                else:
                    self._shrink()
            self._more_wanted = 0
        if self._reload_wanted and self._ready_once and not self._successions:
            self._reload_wanted = False
            slots = self._crowd.occupied()
            _log.info("SIGHUP: starting %d new processes", len(slots))
            systemd.reloading()
            self._begin_succession(slots, reload=True)

    def _begin_succession(self, slots: Sequence[Slot], reload: bool) -> None:
        heirs = []
        for slot in slots:
            slot.due = None
            heirs.append(self._crowd.start(slot))
        self._successions.append(Succession(heirs, reload))

    def _hand_over(self, done: Succession) -> None:
        for heir in done.heirs:
            slot = heir.slot
            if slot.worker is not heir:
                old, slot.worker, slot.heir = slot.worker, heir, None
                if old is not None:
                    self._crowd.dismiss(old)
        if done.reload:
            _log.info("the new processes serve")
            systemd.ready()

    def _give_up(self, failed: Succession) -> None:
        _log.error("new processes could not start; those that there are go on")
        for heir in failed.heirs:
            slot = heir.slot
            if slot.worker is heir:
                continue  # its predecessor had died: better than nobody
            if slot.heir is heir:
                slot.heir = None
            if not heir.gone:
                heir.leave_by = heir.aborted_at = monotonic()
                kill(heir, signal.SIGKILL)
            if slot.worker is None or slot.worker.retiring:
                slot.due = monotonic() + slot.pause(heir, monotonic())
        if failed.reload:
            systemd.ready()


def _ended_by(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
