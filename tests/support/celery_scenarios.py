"""What celery workers on our pool do, told line by line: `python -m support.celery_scenarios FOLDER`.

A process of its own, since celery's client keeps connections, signal handlers and threads to itself for as long as it
lives. For each scenario it prints a line of JSON: its name, and what went wrong, or "".
"""

import importlib.util
import json
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from celery.exceptions import SoftTimeLimitExceeded, TaskRevokedError, TimeLimitExceeded
from support.celery_program import TASKS, Worker
from support.scale import SCALE, scaled
from support.servers import Redis

from fibers.eventloop import BACKEND

#: Tasks at once.
TASKS_AT_ONCE: Final = scaled(2000, least=60)


@contextmanager
def raises(kind: type[BaseException], match: str = "") -> Iterator[Any]:
    """As pytest's."""
    caught = SimpleNamespace(value=None)
    try:
        yield caught
    except kind as error:
        caught.value = error
    if caught.value is None or not re.search(match, str(caught.value)):
        raise AssertionError(f"{kind.__name__} was not raised, but {caught.value!r}")


def load(path: Path) -> Any:
    """The tasks, as their module."""
    spec = importlib.util.spec_from_file_location("celery_tasks", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["celery_tasks"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Site:
    """Two workers, and the tasks as their clients know them."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        (folder / "celery_tasks.py").write_text(TASKS)
        self.workers = [Worker(folder, url, name) for name in ("one", "two")]
        os.environ["CELERY_BROKER_URL"] = url
        self.tasks = load(folder / "celery_tasks.py")
        for worker in self.workers:
            worker.wait_for("ready")

    def get(self, result: Any) -> Any:
        return result.get(timeout=30)

    def inspect(self, worker: Worker) -> Any:
        return self.tasks.app.control.inspect(destination=[worker.node], timeout=20)


def tasks_wait_side_by_side_in_all_workers(celery: Site) -> None:
    wait = celery.tasks.wait
    results = [wait.delay(0.3) for _ in range(TASKS_AT_ONCE)]
    began = time.monotonic()
    for worker in celery.workers:
        assert celery.inspect(worker).ping() == {worker.node: {"ok": "pong"}}
    assert time.monotonic() - began < 5  # busy or not, they answer
    pids = [celery.get(result) for result in results]
    assert set(pids) == {worker.child.pid for worker in celery.workers}


def limits(celery: Site) -> None:
    """Soft and hard, for tasks that wait, that compute, and that will not hear."""
    tasks = celery.tasks
    began = time.monotonic()
    cleans_up = tasks.cleans_up.apply_async((60,), soft_time_limit=0.2, time_limit=20)
    not_caught = tasks.wait.apply_async((60,), soft_time_limit=0.2)
    too_late = tasks.cleans_up.apply_async((60,), time_limit=0.2)
    in_time = tasks.cleans_up.apply_async((0.1,), soft_time_limit=10, time_limit=20)
    assert celery.get(cleans_up) == "cleaned up"
    with raises(SoftTimeLimitExceeded):
        celery.get(not_caught)
    with raises(TimeLimitExceeded):
        celery.get(too_late)
    assert celery.get(in_time) is None
    stopped = tasks.computes.apply_async((60,), soft_time_limit=0.2)
    cut = tasks.computes.apply_async((60,), time_limit=0.4)
    assert celery.get(stopped) == "stopped"
    with raises(TimeLimitExceeded):
        celery.get(cut)
    ignores = tasks.ignores.apply_async((3,), time_limit=0.2)
    with raises(TimeLimitExceeded):
        celery.get(ignores)
    assert time.monotonic() - began < 30


def errors(celery: Site) -> None:
    with raises(ValueError, match="on purpose"):
        celery.get(celery.tasks.fails.delay())
    with raises(Exception, match=r"SystemExit\(3\)") as caught:
        celery.get(celery.tasks.leaves.delay())
    assert type(caught.value).__name__ == "WorkerLostError"
    assert celery.get(celery.tasks.wait.delay(0))


def revocation_and_what_inspect_says(celery: Site) -> None:
    one = celery.workers[0]
    running = [celery.tasks.wait.delay(60) for _ in range(4)]
    ids = {result.id for result in running}

    def active() -> set[str]:
        return {each["id"] for worker in celery.workers for each in celery.inspect(worker).active()[worker.node]}

    one.until(lambda: ids <= active(), "four active tasks")
    (stats,) = celery.inspect(one).stats().values()
    assert stats["pool"]["implementation"] == "fibers.celery.pool:TaskPool"
    assert stats["pool"]["max-concurrency"] == 50
    assert stats["pool"]["event-loop"] == BACKEND
    for result in running[:3]:
        result.revoke(terminate=True)
    running[3].revoke(terminate=True, signal="SIGUSR1")
    for result in running[:3]:
        with raises(TaskRevokedError):
            celery.get(result)
    one.until(lambda: not ids & active(), "the end of the revoked tasks")
    # celery says at once that it is revoked; what the task makes of the exception is stored over that.
    struck = celery.tasks.app.AsyncResult(running[3].id)
    one.until(lambda: struck.state == "FAILURE", "what the task makes of SIGUSR1")
    assert isinstance(struck.result, SoftTimeLimitExceeded)
    grown = celery.tasks.app.control.pool_grow(2, destination=[one.node], reply=True)
    assert "pool will grow" in str(grown)
    assert next(iter(celery.inspect(one).stats().values()))["pool"]["max-concurrency"] == 52


def the_ends_of_workers(celery: Site) -> None:
    """A warm end loses nothing of what runs, a cold one gives it back to the broker."""
    one, two = celery.workers
    client = celery.tasks.app.backend.client
    unfinished = celery.tasks.twice.delay("begun")
    one.until(lambda: client.llen("begun") == 1, "the beginning of a task")
    (pid,) = map(int, client.lrange("begun", 0, -1))
    cold, warm = (one, two) if pid == one.child.pid else (two, one)
    cold.signal(signal.SIGQUIT)
    assert celery.get(unfinished) == warm.child.pid
    assert list(map(int, client.lrange("begun", 0, -1))) == [cold.child.pid, warm.child.pid]
    begun = re.compile(r"wait\[\S+ received")
    before = len(begun.findall(warm.log))
    results = [celery.tasks.wait.delay(0.3) for _ in range(40)]
    warm.until(lambda: len(begun.findall(warm.log)) == before + 40, "40 tasks")
    warm.signal(signal.SIGTERM)
    assert warm.end() == 0
    cold.end()
    assert {celery.get(result) for result in results} == {warm.child.pid}


def a_transport_without_a_loop(celery: Site) -> None:
    """celery reads the broker in a loop of another kind then, and expects other things of a pool."""
    folder = celery.folder / "files"
    for name in ("queue", "control", "results"):
        (folder / name).mkdir(parents=True)
    (folder / "celery_tasks.py").write_text(
        TASKS.replace("backend=URL", f"backend='file://{folder}/results'")
        + f"app.conf.broker_transport_options = {{'data_folder_in': '{folder}/queue', 'data_folder_out': "
        f"'{folder}/queue', 'control_folder': '{folder}/control'}}\n"
    )
    os.environ["CELERY_BROKER_URL"] = "filesystem://"
    tasks = load(folder / "celery_tasks.py")
    # All of them before the worker begins: this transport may read a file that is still being written.
    results = [tasks.wait.delay(0.3) for _ in range(20)]
    soft = tasks.cleans_up.apply_async((60,), soft_time_limit=0.2)
    hard = tasks.wait.apply_async((60,), time_limit=0.2)
    with Worker(folder, "filesystem://", "files") as worker:
        assert {celery.get(result) for result in results} == {worker.child.pid}
        assert celery.get(soft) == "cleaned up"
        with raises(TimeLimitExceeded):
            celery.get(hard)
        ping = tasks.app.control.inspect(destination=[worker.node], timeout=20).ping()
        assert ping == {worker.node: {"ok": "pong"}}
        worker.signal(signal.SIGTERM)
        assert worker.end() == 0


SCENARIOS: Final = (
    tasks_wait_side_by_side_in_all_workers,
    limits,
    errors,
    revocation_and_what_inspect_says,
    the_ends_of_workers,
    *([a_transport_without_a_loop] if SCALE >= 1 else []),
)


def main(folder: Path) -> None:
    with Redis() as server:
        site = Site(folder, f"redis://127.0.0.1:{server.port}/0")
        try:
            for scenario in SCENARIOS:
                problem = ""
                try:
                    scenario(site)
                except Exception:
                    problem = traceback.format_exc() + "".join(worker.log[-5000:] for worker in site.workers)
                print(json.dumps([scenario.__name__, problem]), flush=True)
        finally:
            for worker in site.workers:
                worker.__exit__(None, None, None)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    os._exit(0)  # whatever celery's client would still like to do
