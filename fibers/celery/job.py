"""One task in the pool: a fiber that runs it, and one that keeps its limits.

Facts, and what follows:

* celery's green pools cannot raise the soft limit, since nothing there interrupts one greenlet for another. A fiber can be
  interrupted at its next wait by anybody (`kill`); one that does not wait is reached by a signal (overtime.py).
* The soft limit is an exception that the task may catch, to clean up in its own time: it is raised once. The hard one is
  not to be caught: the fiber is cancelled, and every further wait raises again.
* An exception that is on its way when the task has just returned must not strike what follows, which is the worker's own
  book-keeping. From the return on the task is `finished`, nothing is sent any more, and what was sent is taken out.
* A prefork worker's process that is killed reports nothing; its master does. So here: who is ended from outside calls no
  callback. For a hard limit that is `timeout_callback`, for a revocation celery's own words.
* Who was ended from outside may turn that into something else: return, or raise an error of its own. Nobody is to hear.
* A revocation may come before the task has begun: then it is carried out by the task's own fiber, in the very callback that
  says it has begun. That callback must not be cut off.
"""

import logging
import sys
from collections.abc import Callable
from time import monotonic
from typing import Any, Final, Protocol

from billiard.einfo import ExceptionInfo
from billiard.exceptions import SoftTimeLimitExceeded, WorkerLostError
from celery.exceptions import WorkerShutdown, WorkerTerminate

from ..core.cancel import shield
from ..core.fiber import Fiber
from ..core.lifecycle import GRACE
from ..core.runtime import current, sleep, spawn, yield_now
from ..errors import Cancelled, FiberKilled

_log: Final = logging.getLogger("celery.pool")

#: Why a job is ended from outside.
TERMINATED, OVERDUE = "terminated", "overdue"

Callback = Callable[..., object]


class Crew(Protocol):
    """What a job needs of its pool."""

    def limited(self, job: "Job", begins: bool) -> None:
        """It has a limit, and its work begins, or ends."""

    def ended(self, job: "Job") -> None:
        """Its place is free. Called once."""


class Job:
    """See the module's text. celery keeps it as what `apply_async` returns."""

    __slots__ = (
        "__weakref__", "_accept", "_args", "_began", "_callback", "_crew", "_ended", "_error_callback", "_hard", "_kwargs",
        "_left", "_reported", "_soft", "_soft_raised", "_target", "_timeout_callback", "_watch", "fiber", "finished",
        "number",
    )  # fmt: skip

    def __init__(
        self,
        crew: Crew,
        number: int,
        target: Callable[..., Any],
        args: Any,
        kwargs: Any,
        *,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
        accept_callback: Callback | None = None,
        timeout_callback: Callback | None = None,
        soft_timeout: float | None = None,
        timeout: float | None = None,
    ) -> None:
        self.number = number  # what celery takes for a pid
        self.fiber: Fiber[None] | None = None
        self.finished = False  # the task itself is over
        self._crew = crew
        self._target, self._args, self._kwargs = target, args, kwargs
        self._callback, self._error_callback = callback, error_callback
        self._accept, self._timeout_callback = accept_callback, timeout_callback
        self._soft, self._hard = soft_timeout, timeout
        self._began = 0.0
        self._watch: Fiber[None] | None = None
        self._ended: str | None = None
        self._soft_raised = False
        self._reported = False  # that the soft limit has passed
        self._left = False  # the pool counts it no more

    def start(self) -> None:
        """Run it, in a fiber of its own."""
        self.fiber = spawn(self._run, name=f"celery task {self.number}")
        self.fiber.add_done_callback(self._over)  # also of one that is cancelled before it runs

    def terminate(self, signal: int) -> None:
        """celery calls this after the pool's `terminate_job`, which has done it."""

    # -- in its fiber -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        self._began = monotonic()
        self._call(self._accept, self.number, self._began)
        if self._ended is None:
            self._work()
        self.finished = True

    def _work(self) -> None:
        limited = self._soft is not None or self._hard is not None
        if limited:
            self._watch = spawn(self._keep_limits, name=f"limits of celery task {self.number}")
            self._crew.limited(self, True)
        try:
            outcome = self._target(*self._args, **self._kwargs)
        except (Cancelled, FiberKilled):
            self.finished = True
            if self._ended is None:
                raise  # the program ends
            return
        except (WorkerShutdown, WorkerTerminate):
            self.finished = True
            self._settle()
            raise  # meant for the worker, and will get there: the main fiber gets what is a SystemExit
        except BaseException as error:
            self.finished = True
            self._settle()
            if self._ended is None:
                self._fail(error)
        else:
            self.finished = True
            self._settle()
            if self._ended is None:
                self._call(self._callback, outcome)
        finally:
            if limited:
                self._crew.limited(self, False)

    def _settle(self) -> None:
        """The task is over: nothing that was meant for it may strike what follows."""
        if self._ended is not None:
            return
        if self._watch is not None:
            self._watch.cancel()
        if self._soft_raised:
            try:
                yield_now()
            except SoftTimeLimitExceeded:
                pass
            self._report_soft()

    def _fail(self, error: BaseException) -> None:
        """What is raised here celery's tracer has not taken care of. In an `except`."""
        if isinstance(error, Exception):
            self._call(self._error_callback, ExceptionInfo())
            return
        try:
            raise WorkerLostError(f"The task has ended by {error!r}").with_traceback(sys.exc_info()[2])
        except WorkerLostError:
            self._call(self._error_callback, ExceptionInfo())

    def _call(self, callback: Callback | None, *args: Any) -> None:
        if callback is None:
            return
        try:
            callback(*args)
        except Exception:
            _log.exception("celery's own part of task %s has failed", self.number)

    def _over(self, fiber: Fiber[None]) -> None:
        """A done-callback."""
        if self._ended != OVERDUE:  # that has still to be told; the pool is not to be empty before
            self._leave()

    def _leave(self) -> None:
        if not self._left:
            self._left = True
            self._crew.ended(self)

    # -- its limits -----------------------------------------------------------------------------------------------------

    def _keep_limits(self) -> None:
        """In a fiber of its own, which is cancelled when the task returns in time."""
        if self._soft is not None and (self._hard is None or self._soft < self._hard):
            sleep(max(0.0, self._began + self._soft - monotonic()))
            with shield():
                self._report_soft()
            self.strike_soft()
        if self._hard is None:
            return
        sleep(max(0.0, self._began + self._hard - monotonic()))
        if self.finished and self._ended is None:
            return
        with shield():
            self.end(OVERDUE)
            self._call(self._timeout_callback, False, self._hard)
            self._part()

    def _part(self) -> None:
        """It was cancelled. If it goes on nevertheless, its place is given to another one."""
        fiber = self.fiber
        assert fiber is not None
        try:
            fiber.join(GRACE)
        except TimeoutError:
            _log.error("task %s goes on although it was cancelled; its place is given to another one", self.number)
        self._leave()

    def _report_soft(self) -> None:
        if not self._reported and self._soft is not None:
            self._reported = True
            self._call(self._timeout_callback, True, self._soft)

    def strike_soft(self) -> None:
        """Raise SoftTimeLimitExceeded in it, once."""
        if self.fiber is not None and not (self.finished or self._soft_raised or self._ended):
            self._soft_raised = True
            self.fiber.kill(SoftTimeLimitExceeded() if self._soft is None else SoftTimeLimitExceeded(self._soft))

    def look(self) -> None:
        """It is computing right now: raise what is due. In a signal handler, in its fiber."""
        if self.finished or self._ended is not None:
            return
        passed = monotonic() - self._began
        if self._hard is not None and passed >= self._hard:
            self._ended = OVERDUE
            assert self.fiber is not None
            self.fiber.cancel()
            raise Cancelled(f"celery task {self.number} has passed its hard limit of {self._hard} seconds")
        if self._soft is not None and passed >= self._soft and not self._soft_raised:
            self._soft_raised = True
            raise SoftTimeLimitExceeded(self._soft)

    def end(self, why: str) -> None:
        """Stop it from outside. Nothing is called back. A second call does nothing."""
        if self.finished or self._ended is not None:
            return
        self._ended = why
        fiber = self.fiber
        if fiber is not None and fiber is not current():
            fiber.cancel()
            if why == TERMINATED:
                if self._watch is not None:
                    self._watch.cancel()
                spawn(self._part, name=f"the end of celery task {self.number}")
