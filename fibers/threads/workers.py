"""Worker threads: a pool of real threads that take jobs, oldest first.

Facts, and what follows:

* Whoever submits may be a fiber of any thread, a finaliser, or a signal handler that has struck in the middle of another
  submit. So there is no lock: a job and a worker find each other by single atomic steps (`deque.append`, `dict.popitem`,
  `dict.pop`), each followed by a second look. A submitter queues its job first and looks for a worker second; a worker
  lies down first and looks for a job second; one that leaves gives its number back first and looks for a job second. So
  of two that meet, one sees the other.
* To wake a thread costs a system call, a switch of the kernel's, and a fight for the interpreter. So at most one is on
  its way at a time: there is one *bell*. Who takes it calls a worker, which hangs it up again when it has looked for a
  job, and rings for the next if there are more. Of a hundred short calls submitted at once a few workers do all, since
  each takes the next job when it has done one; a hundred that block get a hundred threads, one ringing for the other.
  (The idea is that of Go's scheduler, where at most one thread is searching.)
* The pool grows when a job waits and nobody is idle, up to its limit. The worker that lay down last is called first, so
  that the others, if they are not needed, get to the end of their patience and leave.
* A worker lies down before it delivers. So who is woken by the delivery and submits the next job finds it, and calls that
  come one after the other are served by one thread.
* The threads do not hold up the end of the program: a name server that does not answer must not.
* They come from `_thread`, whatever is patched in the modules above, and they are known to `threading` by name while they
  live. They have no event loop; a job that makes one has to end it.
* A forked child has none of them. It starts with an empty pool.

`under_way` and `count` are for the deadlock watch, and exact: a job is under way from before the submit returns until
everybody who waits for it has been woken. Who has been woken may be gone to sleep again by then (a worker loses the
interpreter in the very system call that wakes); so whoever is held off by `under_way` leaves word at `at_rest`.
"""

import os
import sys
import threading
from _thread import allocate_lock, get_ident, start_new_thread
from collections import deque
from collections.abc import Callable
from itertools import count as counter
from typing import Any, Final, Protocol
from weakref import WeakSet

#: At most this many threads in the shared pool. What is meant to bound the calls are limiters (threads.py).
MAX_WORKERS: Final = 1000
#: Seconds after which an idle worker of the shared pool leaves.
IDLE_SECONDS: Final = 5.0
#: As `idle_seconds`: workers wait for ever.
NEVER: Final = -1.0


class Job(Protocol):
    """What a worker is given. Hashed by identity."""

    def work(self) -> None:
        """Do it. In the worker; must not raise."""

    def deliver(self) -> None:
        """Tell whoever waits for it. In the worker, which counts as idle already: only single steps, no foreign code."""

    def fail(self, error: BaseException) -> None:
        """It will not be done, for want of threads: tell whoever waits for it. Anywhere."""

    def lost(self) -> None:
        """In a forked child: it goes on in the parent only."""


class _Worker:
    """A thread. `door` is locked while it has not been called."""

    __slots__ = ("called", "door", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.called = True  # it holds the bell
        self.door = allocate_lock()
        self.door.acquire()


#: Of all pools.
_jobs: Final[dict[Job, bool]] = {}
_workers: Final[dict[_Worker, bool]] = {}


#: What is to be called when nothing is under way any more, once. From any thread; must not raise or block.
at_rest: Final[deque[Callable[[], object]]] = deque()


def tell() -> None:
    """Call what is at `at_rest`."""
    while True:
        try:
            function = at_rest.popleft()
        except IndexError:
            return
        function()


class WorkerPool:
    """At most `limit` threads, named `name` and a number. `submit` and `close` may be called from anywhere."""

    __slots__ = (
        "__weakref__",
        "_bell",
        "_free",
        "_idle",
        "_living",
        "_new",
        "_numbers",
        "_present",
        "_trouble",
        "_waiting",
        "closing",
        "idle_seconds",
        "limit",
        "name",
    )

    #: Does `begin` take its time? Then others are called meanwhile.
    begins_slowly = False

    def __init__(self, limit: int, name: str, idle_seconds: float) -> None:
        self.limit = limit
        self.name = name
        self.idle_seconds = idle_seconds
        self.closing = False
        self.reset()
        _pools.add(self)

    def reset(self) -> None:
        """Begin again without any threads and jobs: made, or in a forked child."""
        self._waiting: deque[Job] = deque()
        self._bell: list[bool] = [True]
        self._idle: dict[_Worker, bool] = {}
        self._living: dict[_Worker, bool] = {}  # will look for jobs
        self._present: dict[_Worker, bool] = {}  # and those that will not, and are not gone
        self._new: dict[_Worker, bool] = {}  # are beginning
        self._numbers = counter()
        self._free: deque[int] = deque()
        self._trouble: RuntimeError | None = None  # why the last thread could not be started

    # -- for everybody ------------------------------------------------------------------------------------------

    def submit(self, job: Job) -> None:
        """Have the job done. Raises RuntimeError if the pool is closed, or has no thread and cannot start one."""
        _jobs[job] = True
        self._waiting.append(job)
        if self.closing and self.withdraw(job):
            raise RuntimeError(f"the thread pool {self.name!r} takes no more calls")
        self._call()
        error = self._trouble
        if error is not None and not self._living:
            mine = False
            for other in self.drain():
                if other is job:
                    mine = True
                else:
                    other.fail(error)  # who submitted it has relied on this call
            if mine:
                raise error

    def withdraw(self, job: Job) -> bool:
        """Take back a job; False if it has been begun."""
        try:
            self._waiting.remove(job)
        except ValueError:
            return False
        _jobs.pop(job, None)
        return True

    def drain(self) -> list[Any]:
        """Take back all jobs that have not been begun."""
        return [job for job in list(self._waiting) if self.withdraw(job)]

    def close(self) -> None:
        """Take no more jobs; the workers leave when there is nothing left to do."""
        self.closing = True
        while True:
            try:
                worker, _ = self._idle.popitem()
            except KeyError:
                return
            worker.door.release()

    def __len__(self) -> int:
        """How many threads it has, those that are about to end included."""
        return len(self._present)

    # -- the meeting of jobs and workers --------------------------------------------------------------------------

    def _call(self) -> None:
        """Have a worker look for a job: an idle one, or a new one. If there is none to be had, all will look by and by."""
        try:
            while True:
                try:
                    self._bell.pop()
                except IndexError:
                    return  # somebody is called, or calling, and will look after that
                try:
                    worker, _ = self._idle.popitem()
                except KeyError:
                    number = self._number()
                    if number is not None and self._start(number):
                        return
                    self._hang_up()
                    if not (self._waiting and self._idle):
                        return
                else:
                    worker.called = True
                    worker.door.release()
                    return
        except BaseException:
            self._hang_up()  # a signal handler has raised in here: without a bell nobody would ever be called again
            raise

    def _hang_up(self) -> None:
        if not self._bell:  # to have two for a moment does no harm
            self._bell.append(True)

    def _number(self) -> int | None:
        """A number for one more worker; None if there are as many as may be."""
        try:
            return self._free.popleft()
        except IndexError:
            number = next(self._numbers)
            return number if number < self.limit else None

    def _start(self, number: int) -> bool:
        worker = _Worker(number)
        self._living[worker] = self._present[worker] = self._new[worker] = True
        try:
            start_new_thread(self._live, (worker,))
        except RuntimeError as error:
            # The system has no more threads. If there are workers, each looks for a job when it has done its own.
            self._trouble = error
            del self._present[worker], self._new[worker]
            self._retire(worker)
            return False
        self._trouble = None
        return True

    def _retire(self, worker: _Worker) -> None:
        self._living.pop(worker, None)
        _workers.pop(worker, None)
        self._free.append(worker.number)

    # -- in the worker ----------------------------------------------------------------------------------------------

    def _live(self, worker: _Worker) -> None:
        _workers[worker] = True
        threading.current_thread().name = f"{self.name}{worker.number}"
        if (trace := threading.gettrace()) is not None:
            sys.settrace(trace)
        if (profile := threading.getprofile()) is not None:
            sys.setprofile(profile)
        try:
            if self.begins_slowly:
                self._answer(worker)
                if len(self._waiting) > len(self._new):
                    self._call()
            begun = self.begin()
            self._new.pop(worker, None)
            if begun:
                self._work(worker)
            else:
                self._answer(worker)
                self._retire(worker)
                self.failed()
        finally:
            # On older Pythons `threading` would list for ever a thread that it has not started itself.
            threading._active.pop(get_ident(), None)  # type: ignore[attr-defined]
            self._present.pop(worker, None)
            self.left()

    def begin(self) -> bool:
        """A worker begins. False: it cannot."""
        return True

    def failed(self) -> None:
        """`begin` has returned False."""

    def left(self) -> None:
        """A worker has ended, but for the last instructions of its thread."""

    def _answer(self, worker: _Worker) -> None:
        """It has looked for a job: hang the bell up again, if this worker has it."""
        if worker.called:
            worker.called = False
            self._hang_up()

    def _work(self, worker: _Worker) -> None:
        waiting, idle, door = self._waiting, self._idle, worker.door
        job: Job | None
        while True:
            try:
                job = waiting.popleft()
            except IndexError:
                job = None
            if job is not None or not self.closing:
                if job is not None:
                    self._answer(worker)
                    if waiting:
                        self._call()
                    job.work()
                    if job not in _jobs:
                        return  # it has forked, and this is the child, which has no workers
                idle[worker] = True
                self._answer(worker)
                if job is not None:
                    job.deliver()
                    _jobs.pop(job, None)
                    job = None
                    if at_rest and not _jobs:
                        tell()
                if (waiting or self.closing) and idle.pop(worker, False):
                    continue
                if door.acquire(True, self.idle_seconds):
                    continue
                if not idle.pop(worker, False):  # called at the last moment
                    door.acquire(True, IDLE_SECONDS)  # never that long, unless a signal handler has struck who called
                    continue
            self._answer(worker)
            self._retire(worker)
            if not waiting or (number := self._number()) is None:
                return
            worker.number = number
            _workers[worker] = self._living[worker] = True


_pools: Final[WeakSet[WorkerPool]] = WeakSet()

#: The pool that the whole process shares.
shared: Final = WorkerPool(MAX_WORKERS, "fibers-worker-", IDLE_SECONDS)


def under_way() -> bool:
    """Is any worker at work, or about to be? If not, whatever they were asked for has been delivered."""
    return bool(_jobs)


def knows(job: Job) -> bool:
    """Is this job under way in this process? False where the job itself has forked, in the child."""
    return job in _jobs


def count() -> int:
    """How many threads all pools have. One that begins or ends may be counted by the interpreter, and not here."""
    return len(_workers)


def _after_fork_in_child() -> None:
    """The threads are in the parent."""
    lost = list(_jobs)
    _jobs.clear()
    _workers.clear()
    at_rest.clear()
    for pool in list(_pools):
        pool.reset()
    for job in lost:
        job.lost()


os.register_at_fork(after_in_child=_after_fork_in_child)
