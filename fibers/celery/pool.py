"""The pool: which tasks run, and how many.

Facts, and what follows:

* To celery this is a pool whose tasks run in this very process. Where the transport can do it (Redis, AMQP), celery's own
  loop runs in the main fiber, over the patched `select.epoll`: timers, heartbeats and remote commands are served while tasks
  wait. Where it cannot, celery reads the broker in the main fiber, and this is a "green" pool, with the remote commands in a
  fiber of their own.
* A task that has been given to the pool and has not begun is in no danger: it is not acknowledged before it begins, so the
  broker delivers it again. So when the connection is lost or the worker stops, such tasks are forgotten.
* A task ends in its own fiber, and what celery has to do then (acknowledge, send events) it puts aside for its loop. The
  loop has to be woken for that, or it may sleep for a second.
* While the pool is joined at the end nobody turns celery's loop. So its timers (heartbeats) and the acknowledgements are
  looked after from here.
"""

import logging
import signal as signals
from _socket import socket as Raw  # noqa: N812
from collections import deque
from itertools import count
from socket import MSG_DONTWAIT
from typing import Any, Final

from celery.concurrency.base import BasePool
from kombu.asynchronous import get_event_loop
from kombu.message import Message

from ..core.fiber import Fiber
from ..core.lifecycle import GRACE
from ..core.runtime import spawn
from ..eventloop import BACKEND
from ..io.socket import socket, socketpair
from ..patch import is_patched
from ..sync.event import Event
from . import relay
from .job import TERMINATED, Job
from .overtime import Overtime

_log: Final = logging.getLogger("celery.pool")

#: Seconds between two looks at celery's loop while the pool is joined.
TEND: Final = 0.5


class TaskPool(BasePool):  # type: ignore[misc] # celery has no types
    """celery's tasks in fibers. Made and used by a worker, in its main thread; see docs/deployment.md."""

    signal_safe = False  # the end waits for tasks, which a signal handler must not
    task_join_will_block = False
    body_can_be_buffer = True

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if not is_patched("time.sleep") or not is_patched("select.select"):
            raise RuntimeError(
                "fibers.celery.TaskPool needs the standard library patched: start the worker with "
                "CELERY_CUSTOM_WORKER_POOL=fibers.celery:TaskPool and --pool custom, or call fibers.patch.patch_all() first"
            )
        relay.install()  # the worker installs its handlers later
        self._numbers = count(1)
        self._running: dict[int, Job] = {}
        self._waiting: deque[Job] = deque()
        self._by_fiber: dict[Fiber[Any], Job] = {}  # those with a limit
        self._idle = Event()
        self._idle.set()
        self._overtime = Overtime(self._look)
        self._bell: tuple[socket, socket] | None = None

    @property
    def is_green(self) -> bool:
        """Does celery run without a loop of its own here? Then it leaves some things to fibers of the pool."""
        return bool(self.options.get("threads"))

    def spawn_n(self, function: Any, *args: Any) -> Fiber[Any]:
        """For celery: run a service of the worker beside the tasks."""
        return spawn(function, *args)

    def on_start(self) -> None:
        """Say what of the worker's options means nothing here."""
        for name in ("maxtasksperchild", "max_memory_per_child"):
            if self.options.get(name):
                _log.warning("%s does nothing: tasks run in the worker itself, which has no children", name)

    # -- tasks ------------------------------------------------------------------------------------------------------------

    def on_apply(
        self,
        target: Any,
        args: Any = (),
        kwargs: Any = None,
        timeout: float | None = None,
        soft_timeout: float | None = None,
        callback: Any = None,
        error_callback: Any = None,
        accept_callback: Any = None,
        timeout_callback: Any = None,
        **_: Any,
    ) -> Job:
        """Take a task. It begins at once if there is a place for it, else when there is one."""
        job = Job(
            self, next(self._numbers), target, args, kwargs or {},
            callback=callback, error_callback=error_callback, accept_callback=accept_callback,
            timeout_callback=timeout_callback,
            timeout=timeout or self.options.get("timeout"),
            soft_timeout=soft_timeout or self.options.get("soft_timeout"),
        )  # fmt: skip
        self._waiting.append(job)
        self._fill()
        return job

    def _fill(self) -> None:
        while self._waiting and len(self._running) < self.limit and self.active:
            job = self._waiting.popleft()
            self._running[job.number] = job
            self._idle.clear()
            job.start()

    def ended(self, job: Job) -> None:
        """See `job.Crew`."""
        del self._running[job.number]
        self._fill()
        if not self._running:
            self._idle.set()
        self._ring()

    def limited(self, job: Job, begins: bool) -> None:
        """See `job.Crew`."""
        assert job.fiber is not None
        if begins:
            self._by_fiber[job.fiber] = job
            self._overtime.begin()
        else:
            self._overtime.end()
            del self._by_fiber[job.fiber]

    def _look(self, fiber: Fiber[Any]) -> None:
        job = self._by_fiber.get(fiber)
        if job is not None:
            job.look()

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        """End a task that runs: what `revoke(terminate=True)` comes to. SIGUSR1 raises SoftTimeLimitExceeded in it."""
        job = self._running.get(pid)
        if job is None:
            return
        if signal == signals.SIGUSR1:
            job.strike_soft()
        else:
            job.end(TERMINATED)

    def flush(self) -> None:
        """The connection is lost, or the worker stops: who has not begun will be delivered again."""
        self._waiting.clear()

    def grow(self, n: int = 1) -> None:
        """Run up to `n` more tasks at once."""
        self.limit += n
        self._fill()

    def shrink(self, n: int = 1) -> None:
        """Run up to `n` fewer; those that run are left alone. Raises ValueError if that would leave none."""
        if n >= self.limit:
            raise ValueError("Can't shrink pool. All processes busy!")  # as the prefork pool says it
        self.limit -= n

    def _get_info(self) -> dict[str, Any]:
        return {
            **super()._get_info(),
            "running": len(self._running),
            "waiting": len(self._waiting),
            "timeouts": (self.options.get("soft_timeout") or 0, self.options.get("timeout") or 0),
            "event-loop": BACKEND,
        }

    # -- celery's loop ------------------------------------------------------------------------------------------------------

    def register_with_event_loop(self, hub: Any) -> None:
        """Once for each connection to the broker."""
        if self._bell is None:
            self._bell = socketpair()
            for each in self._bell:
                each.settimeout(0.0)
            relay.relay.wake = self._ring
        hub.add_reader(self._bell[0].fileno(), self._rung)

    def _ring(self) -> None:
        """Wake celery's loop. Also in a signal handler."""
        if self._bell is not None:
            try:
                Raw.send(self._bell[1], b"!", MSG_DONTWAIT)  # which has no turns: a signal may strike in here, too
            except BlockingIOError:
                pass  # it has been rung often enough

    def _rung(self) -> None:
        assert self._bell is not None
        try:
            Raw.recv(self._bell[0], 4096, MSG_DONTWAIT)
        except BlockingIOError:
            pass
        relay.relay.run()

    # -- the end ----------------------------------------------------------------------------------------------------

    def on_close(self) -> None:
        """Nothing begins any more."""
        self._waiting.clear()

    def on_stop(self) -> None:
        """Wait for those that run."""
        self._waiting.clear()
        while not self._idle.wait(TEND):
            _tend()
        _tend()

    def on_terminate(self) -> None:
        """End those that run."""
        self._waiting.clear()
        for job in list(self._running.values()):
            job.end(TERMINATED)
        if not self._idle.wait(GRACE):
            _log.warning("%d tasks go on although they were cancelled", len(self._running))


def _tend() -> None:
    """Do for celery's loop, if it has one, what cannot wait: its timers, and acknowledgements."""
    hub = get_event_loop()
    if hub is None:
        return
    try:
        hub.fire_timers()
        pop_ready = getattr(hub, "_pop_ready", list)
        for callback in pop_ready():
            if _acknowledges(callback):
                callback()
            else:
                hub.call_soon(callback)
    except Exception:
        _log.warning("celery's loop has failed while the pool is joined", exc_info=True)


def _acknowledges(callback: Any) -> bool:
    """(Others may be readers of sockets, which would bring more tasks.)"""
    function = getattr(callback, "fun", None)
    return isinstance(getattr(function, "__self__", None), Message) and getattr(function, "__name__", "") in (
        "ack_log_error",
        "reject_log_error",
    )
