"""A task in the pool: its limits, its end from outside, and who hears of it."""

import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("celery", reason="pip install fibers-runtime[celery]")

from billiard.exceptions import SoftTimeLimitExceeded
from celery.exceptions import WorkerShutdown

import fibers
from fibers.celery.job import OVERDUE, TERMINATED, Job
from fibers.celery.overtime import Overtime


class Crew:
    """A pool of one."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.over = fibers.Event()
        self.overtime = Overtime(self.look)
        self.job: Job | None = None

    def limited(self, job: Job, begins: bool) -> None:
        (self.overtime.begin if begins else self.overtime.end)()

    def ended(self, job: Job) -> None:
        self.heard.append("over")
        self.over.set()

    def look(self, fiber: Any) -> None:
        if self.job is not None and fiber is self.job.fiber:
            self.job.look()

    def run(self, target: Callable[[], Any], **options: Any) -> Job:
        def hear(what: str) -> Callable[..., None]:
            return lambda *args: self.heard.append((what, *(str(each) for each in args[:2] if what != "accepted")))

        options = {"accept_callback": hear("accepted"), **options}
        self.job = Job(
            self, 7, target, (), {}, callback=hear("done"), error_callback=hear("failed"), timeout_callback=hear("late"),
            **options,
        )  # fmt: skip
        self.job.start()
        return self.job

    def wait(self) -> list[Any]:
        assert self.over.wait(20)
        assert self.job is not None
        assert self.job.fiber is not None
        return self.heard


@pytest.fixture
def crew() -> Iterator[Crew]:
    made = Crew()
    yield made
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
    signal.signal(signal.SIGVTALRM, signal.SIG_DFL)


def test_a_task_that_ends_in_time(crew: Crew) -> None:
    crew.run(lambda: 5, soft_timeout=60, timeout=60)
    assert crew.wait() == [("accepted",), ("done", "5"), "over"]


def test_a_soft_limit_is_raised_once(crew: Crew) -> None:
    def work() -> str:
        try:
            fibers.sleep(60)
        except SoftTimeLimitExceeded as error:
            fibers.sleep(0.01)
            return f"cleaned up after {error.args}"
        return "no"

    crew.run(work, soft_timeout=0.01, timeout=60)
    assert crew.wait() == [("accepted",), ("late", "True", "0.01"), ("done", "cleaned up after (0.01,)"), "over"]


def test_a_soft_limit_that_comes_with_the_end_strikes_nobody_else(crew: Crew) -> None:
    """It is on its way when the task returns: what celery does then may wait, and is not hit."""

    def work() -> str:
        assert crew.job is not None
        crew.job.strike_soft()
        return "in time"

    def book(outcome: str) -> None:
        fibers.sleep(0.001)
        crew.heard.append(outcome)

    job = crew.run(work)
    job._callback = book
    assert crew.wait() == [("accepted",), "in time", "over"]


def test_a_hard_limit_is_not_caught(crew: Crew) -> None:
    def work() -> None:
        while True:
            try:
                fibers.sleep(60)
            except Exception:
                crew.heard.append("caught")

    crew.run(work, timeout=0.01)
    assert crew.wait() == [("accepted",), ("late", "False", "0.01"), "over"]


def test_nobody_hears_what_a_task_makes_of_its_end(crew: Crew) -> None:
    def work() -> None:
        try:
            fibers.sleep(60)
        except fibers.Cancelled:
            raise ValueError("of my own") from None

    job = crew.run(work, soft_timeout=60, timeout=60)
    fibers.sleep(0)
    fibers.sleep(0)
    job.end(TERMINATED)
    job.end(OVERDUE)
    assert crew.wait() == [("accepted",), "over"]
    fibers.sleep(0)  # who waits for its end sees it, too


@pytest.mark.parametrize("how", [TERMINATED, OVERDUE])
def test_a_task_that_will_not_end_loses_its_place(
    crew: Crew, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr("fibers.celery.job.GRACE", 0.05)
    go_on = True

    def work() -> None:
        while go_on:
            try:
                fibers.sleep(0.01)
            except fibers.Cancelled:
                pass

    job = crew.run(work, timeout=0.01 if how == OVERDUE else None)
    if how == TERMINATED:
        fibers.sleep(0)
        job.end(TERMINATED)
    told = [("late", "False", "0.01")] if how == OVERDUE else []
    assert crew.wait() == [("accepted",), *told, "over"]
    assert "task 7 goes on although it was cancelled" in caplog.text
    assert job.fiber is not None
    assert not job.fiber.done()
    go_on = False
    job.fiber.join()
    assert crew.heard.count("over") == 1


def test_ended_before_it_runs(crew: Crew) -> None:
    job = crew.run(lambda: crew.heard.append("worked"))
    job.end(TERMINATED)
    assert crew.wait() == ["over"]


def test_ended_while_it_begins(crew: Crew) -> None:
    """The callback that says it has begun carries out a revocation, and may wait while doing so."""

    def accept(number: int, when: float) -> None:
        assert crew.job is not None
        crew.job.end(TERMINATED)
        fibers.sleep(0.001)
        crew.heard.append("told")

    crew.run(lambda: crew.heard.append("worked"), accept_callback=accept)
    assert crew.wait() == ["told", "over"]


def compute() -> str:
    end = time.monotonic() + 60
    try:
        while time.monotonic() < end:
            pass
    except SoftTimeLimitExceeded:
        return "stopped"
    return "no"


def test_limits_of_tasks_that_compute(crew: Crew) -> None:
    crew.run(compute, soft_timeout=0.05, timeout=60)
    assert crew.wait() == [("accepted",), ("late", "True", "0.05"), ("done", "stopped"), "over"]
    crew.heard.clear()
    crew.over.clear()
    crew.run(compute, timeout=0.05)
    assert crew.wait() == [("accepted",), ("late", "False", "0.05"), "over"]


def test_errors_that_celery_does_not_see_to(crew: Crew) -> None:
    def leave() -> None:
        raise SystemExit(3)

    crew.run(leave)
    heard = crew.wait()
    assert heard[0] == ("accepted",)
    assert "SystemExit(3)" in str(heard[1])
    crew.heard.clear()
    crew.over.clear()

    def shut_down() -> None:
        raise WorkerShutdown(0)

    crew.run(shut_down, timeout=60)
    with pytest.raises(WorkerShutdown):
        crew.wait()
