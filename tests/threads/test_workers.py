"""The pool of worker threads: it grows with need, shrinks when idle, loses no job and no thread, whoever submits."""

import _thread
import gc
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from support.process import run_python
from support.scale import SEED, scaled

from fibers.threads import workers
from fibers.threads.workers import WorkerPool


class Work:
    """A job that tells of itself."""

    def __init__(self, function: Callable[[], object] = int) -> None:
        self.function = function
        self.worked = self.delivered = 0
        self.over = threading.Event()
        self.worker: str | None = None

    def work(self) -> None:
        self.worker = threading.current_thread().name
        self.function()
        self.worked += 1

    def deliver(self) -> None:
        self.delivered += 1
        self.over.set()

    def fail(self, error: BaseException) -> None: ...

    def lost(self) -> None: ...


@contextmanager
def pool(limit: int, idle_seconds: float = workers.NEVER) -> Iterator[WorkerPool]:
    made = WorkerPool(limit, "test-worker-", idle_seconds)
    try:
        yield made
    finally:
        made.close()
    wait_for(lambda: len(made) == 0)


def wait_for(condition: Callable[[], bool]) -> None:
    """Not as a fiber: some of these tests are about what threads do while no loop turns."""
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.0005)


def test_it_grows_with_need_up_to_its_limit_and_serves_the_rest_by_and_by() -> None:
    gate = threading.Event()
    order: list[int] = []
    with pool(3) as three:
        blocked = [Work(lambda: gate.wait(20)) for _ in range(3)]
        for job in blocked:
            three.submit(job)
        rest = [Work(partial(order.append, number)) for number in range(50)]
        for job in rest:
            three.submit(job)
        wait_for(lambda: all(job.worker is not None for job in blocked))
        assert len(three) == 3
        assert workers.under_way()
        gate.set()
        for job in [*blocked, *rest]:
            assert job.over.wait(20)
        assert len(three) == 3
    assert {job.worker for job in [*blocked, *rest]} == {"test-worker-0", "test-worker-1", "test-worker-2"}
    assert sorted(order) == list(range(50))


def test_one_worker_keeps_the_order() -> None:
    order: list[int] = []
    with pool(1) as one:
        jobs = [Work(partial(order.append, number)) for number in range(500)]
        for job in jobs:
            one.submit(job)
        assert jobs[-1].over.wait(20)
    assert order == list(range(500))


def test_an_idle_worker_is_taken_before_a_new_one_is_made() -> None:
    with pool(10) as ten:
        for _ in range(100):
            job = Work()
            ten.submit(job)
            assert job.over.wait(20)
        assert len(ten) == 1


def test_it_shrinks_when_idle() -> None:
    gate = threading.Event()
    with pool(5, idle_seconds=0.01) as five:
        jobs = [Work(lambda: gate.wait(20)) for _ in range(5)]
        for job in jobs:
            five.submit(job)
        wait_for(lambda: len(five) == 5)
        gate.set()
        wait_for(lambda: len(five) == 0)
        again = Work()
        five.submit(again)
        assert again.over.wait(20)


def test_a_closed_one_takes_nothing_more_and_finishes_what_it_has() -> None:
    gate = threading.Event()
    with pool(1) as one:
        jobs = [Work(lambda: gate.wait(20)), *(Work() for _ in range(10))]
        for job in jobs:
            one.submit(job)
        one.close()
        with pytest.raises(RuntimeError, match="takes no more calls"):
            one.submit(Work())
        gate.set()
        for job in jobs:
            assert job.over.wait(20)
    assert not workers.under_way()


def test_jobs_that_have_not_been_begun_can_be_taken_back() -> None:
    gate = threading.Event()
    with pool(1) as one:
        first, second, third = Work(lambda: gate.wait(20)), Work(), Work()
        for job in (first, second, third):
            one.submit(job)
        wait_for(lambda: first.worker is not None)
        assert one.withdraw(second)
        assert not one.withdraw(second)
        assert not one.withdraw(first)
        assert one.drain() == [third]
        gate.set()
        assert first.over.wait(20)
    assert (second.worked, third.worked) == (0, 0)
    assert not workers.under_way()


def fail(*_: object) -> int:
    raise RuntimeError("can't start new thread")


def test_no_thread_to_be_had_is_an_error_and_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    with pool(5) as five:
        monkeypatch.setattr(workers, "start_new_thread", fail)
        job = Work()
        with pytest.raises(RuntimeError, match="can't start new thread"):
            five.submit(job)
        assert len(five) == 0
        assert not workers.under_way()
        monkeypatch.undo()
        five.submit(job)
        assert job.over.wait(20)


def test_no_more_threads_to_be_had_is_none_while_there_are_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine is at its limit: those that there are do all the work."""
    gate = threading.Event()
    with pool(5) as five:
        jobs = [Work(lambda: gate.wait(20)), *(Work() for _ in range(20))]
        five.submit(jobs[0])
        monkeypatch.setattr(workers, "start_new_thread", fail)
        for job in jobs[1:]:
            five.submit(job)
        gate.set()
        for job in jobs:
            assert job.over.wait(20)
        assert {job.worker for job in jobs} == {"test-worker-0"}


def test_to_thread_says_so_and_returns_its_token() -> None:
    ran = run_python(
        "-c",
        "import resource, fibers\n"
        "from fibers.threads import workers\n"
        "def fail(*_): raise RuntimeError('cannot')\n"
        "real, workers.start_new_thread = workers.start_new_thread, fail\n"
        "limiter = fibers.CapacityLimiter(1)\n"
        "try: fibers.to_thread(int, limiter=limiter)\n"
        "except RuntimeError as error: print(error, limiter.borrowed)\n"
        "workers.start_new_thread = real\n"
        "print(fibers.to_thread(int, limiter=limiter))\n",
    )
    assert ran.stdout == "cannot 0\n0\n", ran.stderr


def test_a_burst_of_short_calls_needs_few_threads_and_one_of_blocking_calls_as_many_as_it_has() -> None:
    """At most one thread is on its way at a time; who comes rings for the next, if there is work."""
    with pool(100) as hundred:
        jobs = [Work() for _ in range(100)]
        for job in jobs:
            hundred.submit(job)
        for job in jobs:
            assert job.over.wait(20)
        assert len(hundred) < 50
        barrier = threading.Barrier(100)
        blocking = [Work(lambda: barrier.wait(20)) for _ in range(100)]
        for job in blocking:
            hundred.submit(job)
        for job in blocking:
            assert job.over.wait(20)
        assert len(hundred) == 100


def test_submitters_who_rely_on_one_that_finds_no_thread_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    failed: list[BaseException] = []

    class Told(Work):
        def fail(self, error: BaseException) -> None:
            failed.append(error)

    with pool(1) as one:
        other = Told()

        def submits_another(*_: object) -> int:
            one.submit(other)  # as another thread may at this moment: the bell is taken
            return fail()

        monkeypatch.setattr(workers, "start_new_thread", submits_another)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            one.submit(Work())
        assert [str(error) for error in failed] == ["can't start new thread"]
        assert not workers.under_way()


@pytest.mark.parametrize("limit", [1, 2, 7, 1000])
def test_each_job_is_done_exactly_once_however_many_submit(limit: int) -> None:
    """Submitters, workers that come and workers that go (an idle one leaves at once) meet at random."""
    rng = random.Random(SEED)
    each = scaled(20_000, least=600)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with pool(limit, idle_seconds=0.0) as hurried:
            all_jobs: list[Work] = []

            def submit(seed: int) -> None:
                mine = random.Random(seed)
                for _ in range(each):
                    job = Work()
                    all_jobs.append(job)
                    hurried.submit(job)
                    if mine.random() < 0.05:
                        time.sleep(0)
                    if mine.random() < 0.01:
                        assert job.over.wait(20)

            submitters = [threading.Thread(target=submit, args=(rng.random(),)) for _ in range(3)]
            for thread in submitters:
                thread.start()
            for thread in submitters:
                thread.join()
            for job in all_jobs:
                assert job.over.wait(20)
            wait_for(lambda: len(hurried) == 0)
            assert not hurried._waiting
            assert len(hurried._free) <= limit
            assert len(set(hurried._free)) == len(hurried._free)
    finally:
        sys.setswitchinterval(interval)
    assert len(all_jobs) == 3 * each
    assert {(job.worked, job.delivered) for job in all_jobs} == {(1, 1)}
    assert not workers.under_way()


def test_a_finaliser_that_strikes_in_the_middle_of_a_submit_may_submit() -> None:
    """A lock would have it wait for itself, for ever."""
    with pool(2) as two:
        done: list[Work] = []

        class Finalised:
            def __init__(self) -> None:
                self.itself = self

            def __del__(self) -> None:
                job = Work()
                done.append(job)
                two.submit(job)

        thresholds = gc.get_threshold()
        gc.set_threshold(1)
        try:
            jobs = []
            for _ in range(scaled(5000, least=300)):
                Finalised()
                job = Work()
                jobs.append(job)
                two.submit(job)
        finally:
            gc.set_threshold(*thresholds)
        gc.collect()
        for job in [*jobs, *done]:
            assert job.over.wait(20)
        assert len(done) == len(jobs)


STRUCK = """
import random, signal, time
import fibers
from fibers.threads import workers

class Struck(Exception): ...
def strikes(*_):
    raise Struck

def insist(function, depth):
    while not over():
        try:
            if depth:
                insist(function, depth - 1)
            else:
                function()
        except Struck:
            pass

count = 0
def call():
    global count
    fibers.to_thread(int)
    count += 1

over = lambda: count >= {rounds}
fibers.to_thread(int)
signal.signal(signal.SIGALRM, strikes)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0003)
for _ in range(10):
    try:
        insist(call, 12)
        signal.setitimer(signal.ITIMER_REAL, 0)
    except Struck:
        pass
for _ in range(10):
    try:
        fibers.yield_now()  # one may be on its way to main
    except Struck:
        pass
calls = [fibers.spawn(fibers.to_thread, pow, number, 2) for number in range(100)]
print([call.result(10) for call in calls] == [number * number for number in range(100)])
print(fibers.threads.to_thread.default_limiter.borrowed)
"""


def test_signal_handlers_that_raise_in_the_middle_of_a_submit_do_not_kill_the_pool() -> None:
    ran = run_python("-c", STRUCK.format(rounds=scaled(40_000, least=2000)), timeout=100)
    assert ran.stdout.splitlines()[:1] == ["True"], ran.stderr


def test_under_way_and_count_are_exact() -> None:
    """The deadlock watch trusts them: a call is under way from before the submit until it has been delivered."""
    wrong: list[str] = []

    class Looks(Work):
        def work(self) -> None:
            if not workers.under_way():
                wrong.append("at work")
            super().work()

        def deliver(self) -> None:
            if not workers.under_way():
                wrong.append("not delivered")
            super().deliver()

    with pool(3) as three:
        for _ in range(scaled(5000, least=300)):
            job = Looks()
            three.submit(job)
            if not job.delivered and not workers.under_way() and not job.delivered:
                wrong.append("submitted")
            job.over.wait(20)
        wait_for(lambda: not workers.under_way())
        assert workers.count() >= 1
        assert _thread._count() >= workers.count()
    assert wrong == []


def test_word_left_at_rest_is_given_once_when_all_is_done() -> None:
    gate, told = threading.Event(), threading.Event()
    with pool(2) as two:
        first, second = Work(), Work(lambda: gate.wait(20))
        two.submit(second)
        workers.at_rest.append(told.set)
        two.submit(first)
        assert first.over.wait(20)
        assert not told.is_set()
        gate.set()
        assert told.wait(20)
    assert not workers.at_rest


def test_trace_and_profile_functions_of_threading_are_used() -> None:
    """So that coverage tools and debuggers see what runs in workers."""
    seen: list[str] = []

    def trace(frame: Any, event: str, argument: object) -> None:
        seen.append(frame.f_code.co_name)

    def marked() -> None: ...

    threading.settrace(trace)
    threading.setprofile(trace)
    try:
        with pool(1) as one:
            job = Work(marked)
            one.submit(job)
            assert job.over.wait(20)
    finally:
        threading.settrace(None)
        threading.setprofile(None)
    assert seen.count("marked") >= 2


def test_threading_forgets_workers_that_have_gone() -> None:
    with pool(3) as three:
        job = Work()
        three.submit(job)
        assert job.over.wait(20)
        assert "test-worker-0" in [thread.name for thread in threading.enumerate()]
    wait_for(lambda: "test-worker-0" not in [thread.name for thread in threading.enumerate()])


def test_a_deadlock_behind_a_worker_is_found_although_it_is_looked_for_before_the_worker_rests() -> None:
    """Main has gone to sleep again before the worker that woke it had got around to counting itself out."""
    ran = run_python(
        "-c",
        "import fibers\n"
        "def left(): fibers.to_thread(int); right_fiber.join()\n"
        "def right(): left_fiber.join()\n"
        "left_fiber, right_fiber = fibers.spawn(left), fibers.spawn(right)\n"
        "left_fiber.join()\n",
        timeout=30,
    )
    assert "DeadlockError" in ran.stderr
