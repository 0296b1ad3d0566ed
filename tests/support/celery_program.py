"""A real celery worker on our pool, and the application that it and its test share.

TASKS is a module of its own in a folder. The worker finds the broker in CELERY_BROKER_URL, as celery has it.
"""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from support.process import environment
from support.servers import mortal

#: Seconds after which a test gives up.
LIMIT = 40.0

TASKS = """
import os, time
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded

URL = os.environ["CELERY_BROKER_URL"]
app = Celery("tasks", broker=URL, backend=URL)
app.conf.update(
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=1,
    worker_cancel_long_running_tasks_on_connection_loss=True,
    result_expires=600,
    broker_transport_options={"visibility_timeout": 600},
)

@app.task
def wait(seconds):
    time.sleep(seconds)
    return os.getpid()

@app.task(bind=True, acks_late=True)
def twice(self, key):
    if self.backend.client.rpush(key, os.getpid()) == 1:
        time.sleep(60)  # the first worker that gets it will not finish it
    return os.getpid()

@app.task
def cleans_up(seconds):
    try:
        time.sleep(seconds)
    except SoftTimeLimitExceeded:
        time.sleep(0.05)  # it may go on waiting
        return "cleaned up"

@app.task
def computes(seconds):
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            pass
    except SoftTimeLimitExceeded:
        return "stopped"

@app.task
def ignores(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            time.sleep(0.05)
        except BaseException:
            pass

@app.task
def fails():
    raise ValueError("on purpose")

@app.task
def leaves():
    raise SystemExit(3)
"""


class Worker:
    """A block in which a worker runs; at its end it is killed."""

    def __init__(self, folder: Path, url: str, name: str, *options: str, concurrency: int = 50) -> None:
        self.node = f"{name}@here"
        self._path = folder / f"{name}.log"
        self._log = self._path.open("wb")
        given = {"CELERY_BROKER_URL": url, "CELERY_CUSTOM_WORKER_POOL": "fibers.celery:TaskPool"}
        self.child = subprocess.Popen(
            [*mortal(), sys.executable, "-W", "ignore", "-m", "celery", "-A", "celery_tasks", "worker", "--pool", "custom",
             "-n", self.node, "-c", str(concurrency), "-l", "info", "--without-mingle", "--without-gossip", *options],
            cwd=folder, env=environment(given), stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
            start_new_session=True,
        )  # fmt: skip

    @property
    def log(self) -> str:
        return self._path.read_text(errors="replace")

    def until(self, done: Callable[[], bool], what: str) -> None:
        """Look again and again: other processes tell nobody."""
        deadline = time.monotonic() + LIMIT
        while not done():
            if time.monotonic() > deadline:
                raise AssertionError(f"this has not come about: {what}\n{self.log}")
            time.sleep(0.02)

    def wait_for(self, pattern: str) -> None:
        """Wait until the log says so."""
        self.until(lambda: re.search(pattern, self.log) is not None or self.child.poll() is not None, pattern)
        assert re.search(pattern, self.log), self.log

    def signal(self, number: int) -> None:
        self.child.send_signal(number)

    def end(self) -> int:
        """Wait for its end; the exit status."""
        self.until(lambda: self.child.poll() is not None, "the end of the worker")
        return self.child.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGKILL)
        self.child.wait()
        self._log.close()
