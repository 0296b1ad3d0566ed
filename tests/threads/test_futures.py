"""The executor and its futures do what the standard library's do, beside those; a fiber that waits suspends only itself."""

import concurrent.futures as std
import contextvars
import gc
import random
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures.thread import BrokenThreadPool
from typing import Any

import pytest
from support.process import run_python
from support.scale import SEED, scaled

import fibers
from fibers import ThreadPoolExecutor, as_future, wait_future

Make = Callable[..., Any]


@pytest.fixture(params=["ours", "the standard library's"])
def make(request: pytest.FixtureRequest) -> Make:
    """What the two are to have in common is tested on both."""
    return ThreadPoolExecutor if request.param == "ours" else std.ThreadPoolExecutor


def ident_after_a_while(_: int) -> int:
    time.sleep(0.001)
    return threading.get_ident()


def seven_after_a_while() -> int:
    fibers.sleep(0.005)
    return 7


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    made = threading.Event()
    yield made
    made.set()


# -- as the standard library's ----------------------------------------------------------------------------------------


def test_submit(make: Make) -> None:
    with make(2) as executor:
        future = executor.submit(lambda *args, **kwargs: (args, kwargs), 1, fn=2)
        assert future.result() == ((1,), {"fn": 2})
        assert future.done()
        assert not future.cancel()
        assert executor.submit(divmod, 7, 0).exception().__class__ is ZeroDivisionError
        with pytest.raises(ZeroDivisionError):
            executor.submit(divmod, 7, 0).result()


def test_map(make: Make) -> None:
    with make(3) as executor:
        assert list(executor.map(pow, range(20), [2] * 20)) == [number * number for number in range(20)]
        results = executor.map(lambda number: 6 // number, [3, 2, 0, 1])
        assert (next(results), next(results)) == (2, 3)
        with pytest.raises(ZeroDivisionError):
            next(results)


def test_map_has_a_timeout(make: Make, gate: threading.Event) -> None:
    with make(1) as executor:
        results = executor.map(lambda _: gate.wait(20), range(2), timeout=0.01)
        with pytest.raises(TimeoutError):
            next(results)
        gate.set()


@pytest.mark.parametrize(("workers", "error"), [(0, ValueError), (-1, ValueError), ("5", TypeError)])
def test_bad_sizes(make: Make, workers: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        make(workers)


def test_a_bad_initializer(make: Make) -> None:
    with pytest.raises(TypeError, match="initializer must be a callable"):
        make(1, initializer=5)


def test_the_default_size(make: Make) -> None:
    with make() as executor:
        size = executor._max_workers if isinstance(executor, std.ThreadPoolExecutor) else executor._pool.limit
    assert size == std.ThreadPoolExecutor()._max_workers


def test_names_of_threads(make: Make, gate: threading.Event) -> None:
    with make(2, thread_name_prefix="special") as executor:
        futures = [executor.submit(lambda: (gate.wait(20), threading.current_thread().name)[1]) for _ in range(3)]
        gate.set()
        assert {future.result() for future in futures} <= {"special_0", "special_1"}
    with make(1) as executor:
        name = executor.submit(lambda: threading.current_thread().name).result()
    assert name.startswith("ThreadPoolExecutor-")
    assert name.endswith("_0")


def test_the_initializer_runs_once_in_each_thread(make: Make) -> None:
    local = threading.local()
    ran: list[int] = []
    barrier = threading.Barrier(3)

    def initialize(value: int) -> None:
        local.value = value
        ran.append(threading.get_ident())

    def look(_: int) -> int:
        barrier.wait(20)
        value: int = local.value
        return value

    with make(3, initializer=initialize, initargs=(7,)) as executor:
        assert list(executor.map(look, range(6))) == [7] * 6
    assert len(ran) == len(set(ran)) == 3


def test_an_initializer_that_fails_breaks_the_pool(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    def initialize() -> None:
        assert started.wait(20)
        raise ValueError("no database")

    started = threading.Event()
    executor = make(1, initializer=initialize)
    futures = [executor.submit(int) for _ in range(3)]
    started.set()
    for future in futures:
        with pytest.raises(BrokenThreadPool, match="A thread initializer failed"):
            future.result()
    with pytest.raises(BrokenThreadPool):
        executor.submit(int)
    executor.shutdown()
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("concurrent.futures", "CRITICAL")
    assert record.exc_info is not None
    assert "no database" in str(record.exc_info[1])


def test_no_more_threads_than_asked_for_and_no_fewer_than_needed(make: Make, gate: threading.Event) -> None:
    barrier = threading.Barrier(4)
    with make(4) as executor:
        assert sorted(executor.submit(barrier.wait, 20).result is not None for _ in range(4)) == [True] * 4
        seen = list(executor.map(ident_after_a_while, range(50)))
    assert len(set(seen)) <= 4


def test_one_worker_keeps_the_order(make: Make) -> None:
    order: list[int] = []
    with make(1) as executor:
        for number in range(200):
            executor.submit(order.append, number)
    assert order == list(range(200))


def test_cancel(make: Make, gate: threading.Event) -> None:
    with make(1) as executor:
        running = executor.submit(gate.wait, 20)
        waiting = executor.submit(int)
        other = executor.submit(int)
        while not running.running():
            time.sleep(0.001)
        assert not running.cancel()
        assert waiting.cancel()
        assert waiting.cancelled()
        with pytest.raises(std.CancelledError):
            waiting.result()
        gate.set()
        assert other.result() == 0


@pytest.mark.parametrize("cancel_futures", [False, True])
def test_shutdown(make: Make, gate: threading.Event, cancel_futures: bool) -> None:
    executor = make(1)
    futures = [executor.submit(gate.wait, 20), *(executor.submit(int) for _ in range(3))]
    while not futures[0].running():
        time.sleep(0.001)
    executor.shutdown(wait=False, cancel_futures=cancel_futures)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(int)
    gate.set()
    executor.shutdown()
    executor.shutdown()
    assert [future.cancelled() for future in futures] == [False, *[cancel_futures] * 3]
    assert all(future.done() for future in futures)


def test_waiting_for_several_with_the_standard_functions(make: Make) -> None:
    with make(3) as executor:
        futures = [executor.submit(pow, number, 2) for number in range(10)]
        assert std.wait(futures, 20).not_done == set()
        assert sorted(future.result() for future in std.as_completed(futures, 20)) == [n * n for n in range(10)]


def test_futures_taken_back_at_shutdown_are_told_to_who_waits_for_several(gate: threading.Event) -> None:
    executor = ThreadPoolExecutor(1)
    running: std.Future[bool] = executor.submit(gate.wait, 20)
    waiting: std.Future[int] = executor.submit(int)
    while not running.running():
        time.sleep(0.001)
    executor.shutdown(wait=False, cancel_futures=True)
    assert std.wait([waiting], 20).done == {waiting}
    gate.set()
    assert running.result(20)
    executor.shutdown()


def test_done_callbacks_and_exceptions_in_them(make: Make) -> None:
    seen: list[object] = []
    with make(1) as executor:
        executor.submit(int).add_done_callback(lambda future: seen.append(future.result()))
    assert seen == [0]


def test_threads_of_an_executor_that_was_collected_end(make: Make) -> None:
    executor = make(2, thread_name_prefix="collected")
    executor.submit(int).result()
    gone = weakref.ref(executor)
    del executor
    gc.collect()
    assert gone() is None
    until = time.monotonic() + 20
    while [thread for thread in threading.enumerate() if thread.name.startswith("collected")]:
        assert time.monotonic() < until
        time.sleep(0.001)


def test_neither_result_nor_error_is_kept_by_a_worker(make: Make) -> None:
    class Thing: ...

    def fails(thing: Thing) -> None:
        raise ValueError(thing)

    with make(1) as executor:
        thing = Thing()
        gone = weakref.ref(thing)
        assert executor.submit(lambda argument: argument, thing).result() is thing
        try:
            executor.submit(fails, thing).result()
        except ValueError:
            pass
        executor.submit(int).result()
        del thing
        gc.collect()
        assert gone() is None


# -- and more ---------------------------------------------------------------------------------------------------------


def test_a_fiber_that_waits_suspends_only_itself(gate: threading.Event) -> None:
    with ThreadPoolExecutor(1) as executor:
        future = executor.submit(gate.wait, 20)
        calls: list[Callable[[], object]] = [future.result, future.exception, lambda: wait_future(future)]
        waiting = [fibers.spawn(call) for call in calls]
        for _ in range(3):
            fibers.sleep(0.001)
        assert not any(fiber.done() for fiber in waiting)
        gate.set()
        assert [fiber.result(20) for fiber in waiting] == [True, None, True]


def test_also_at_the_end_of_the_block(gate: threading.Event) -> None:
    ticks: list[int] = []

    def holds() -> None:
        with ThreadPoolExecutor(1) as executor:
            executor.submit(gate.wait, 20)

    fiber = fibers.spawn(holds)
    for tick in range(3):
        fibers.sleep(0.001)
        ticks.append(tick)
    assert not fiber.done()
    gate.set()
    fiber.result(20)
    assert ticks == [0, 1, 2]


def test_contexts_are_carried_over() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="")
    with ThreadPoolExecutor(1) as executor:
        variable.set("of the caller")
        assert executor.submit(variable.get).result() == "of the caller"
        executor.submit(variable.set, "of the call").result()
        assert executor.submit(variable.get).result() == "of the caller"


def test_tracebacks_show_no_machinery() -> None:
    def fails() -> None:
        raise ValueError("there")

    with ThreadPoolExecutor(1) as executor:
        error = executor.submit(fails).exception()
    assert error is not None
    assert [frame.name for frame in traceback.extract_tb(error.__traceback__)] == ["fails"]


def test_a_fiber_cancelled_while_it_waits_leaves_the_call_alone(gate: threading.Event) -> None:
    with ThreadPoolExecutor(1) as executor:
        future = executor.submit(gate.wait, 20)
        fiber = fibers.spawn(future.result)
        fibers.yield_now()
        fiber.cancel()
        fiber.join(20)
        assert fiber.cancelled()
        gate.set()
        assert future.result() is True


def test_a_cancelled_end_of_a_block_waits_for_the_calls_that_run(gate: threading.Event) -> None:
    future: list[Any] = []

    def holds() -> None:
        with ThreadPoolExecutor(1) as executor:
            future.append(executor.submit(gate.wait, 20))

    fiber = fibers.spawn(holds)
    fibers.sleep(0.002)
    fiber.cancel()
    fibers.sleep(0.002)
    assert not fiber.done()
    gate.set()
    fiber.join(20)
    assert fiber.cancelled()
    assert future[0].done()


@pytest.mark.parametrize("call", ["result", "exception"])
def test_timeouts(gate: threading.Event, call: str) -> None:
    with ThreadPoolExecutor(1) as executor:
        future = executor.submit(gate.wait, 20)
        for timeout in (0, 0.01, -1):
            with pytest.raises(TimeoutError):
                getattr(future, call)(timeout)
        gate.set()


def test_a_deadline_is_felt_as_the_timeout_that_the_call_documents_or_as_cancelled(gate: threading.Event) -> None:
    with ThreadPoolExecutor(1) as executor:
        future = executor.submit(gate.wait, 20)
        with fibers.move_on_after(0.01) as scope:
            try:
                future.result(timeout=20)
            except TimeoutError:
                with pytest.raises(fibers.Cancelled):
                    future.result(timeout=20)
                raise
        assert scope.cancelled_caught
        with fibers.move_on_after(0.01):
            with pytest.raises(fibers.Cancelled):
                future.result()
        gate.set()


def test_a_call_cannot_wait_for_the_end_of_its_executor() -> None:
    with ThreadPoolExecutor(1) as executor:
        error = executor.submit(executor.shutdown).exception()
        assert isinstance(error, RuntimeError)
        assert "cannot wait for the end of the executor that runs it" in str(error)


def test_submitted_by_a_done_callback() -> None:
    with ThreadPoolExecutor(1) as executor:
        more: list[Any] = []
        first = executor.submit(int)
        first.add_done_callback(lambda _: more.append(executor.submit(pow, 2, 3)))
        while not more:
            fibers.sleep(0.001)
        assert more[0].result(20) == 8


def test_thousands_of_calls_of_fibers_and_threads() -> None:
    rng = random.Random(SEED)
    count = scaled(4000, least=200)
    wrong: list[int] = []
    with ThreadPoolExecutor(8) as executor:

        def use(number: int) -> None:
            for power in range(count // 40):
                future = executor.submit(pow, number, power)
                if future.result() != number**power:
                    wrong.append(number)

        plain = [threading.Thread(target=use, args=(number,)) for number in range(4)]
        for thread in plain:
            thread.start()
        living = [fibers.spawn(use, rng.randrange(9)) for _ in range(36)]
        for fiber in living:
            fiber.result(60)
        for thread in plain:
            fibers.to_thread(thread.join)
    assert wrong == []


# -- futures of others ------------------------------------------------------------------------------------------------


def test_waiting_for_a_future_of_others() -> None:
    future: std.Future[int] = std.Future()
    waiting = [fibers.spawn(wait_future, future) for _ in range(3)]
    fibers.yield_now()
    threading.Thread(target=future.set_result, args=(5,)).start()
    assert [fiber.result(20) for fiber in waiting] == [5] * 3
    assert wait_future(future) == 5


def test_waiting_in_a_plain_thread() -> None:
    future: std.Future[int] = std.Future()
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(wait_future(future, 20)))
    thread.start()
    future.set_result(7)
    thread.join()
    assert seen == [7]


def test_errors_and_cancellation_of_a_future_of_others() -> None:
    future: std.Future[int] = std.Future()
    fiber = fibers.spawn(wait_future, future)
    fibers.yield_now()
    future.set_exception(ValueError("theirs"))
    with pytest.raises(ValueError, match="theirs"):
        fiber.result(20)
    other: std.Future[int] = std.Future()
    fiber = fibers.spawn(wait_future, other)
    fibers.yield_now()
    other.cancel()
    with pytest.raises(std.CancelledError):
        fiber.result(20)


def test_many_waits_leave_one_callback() -> None:
    future: std.Future[int] = std.Future()
    for _ in range(20):
        with pytest.raises(TimeoutError):
            wait_future(future, 0.0005)
    assert len(future._done_callbacks) == 1  # type: ignore[attr-defined]
    future.set_result(1)


def test_what_is_no_future() -> None:
    with pytest.raises(TypeError, match="takes a concurrent.futures.Future, not 5"):  # noqa: RUF043
        wait_future(5)  # type: ignore[arg-type]


def test_waiting_meets_completion_and_cancellation_at_any_moment() -> None:
    rng = random.Random(SEED)
    for _ in range(scaled(5000, least=300)):
        future: std.Future[int] = std.Future()
        waiting = [fibers.spawn(wait_future, future) for _ in range(2)]
        for _ in range(rng.randrange(3)):
            fibers.yield_now()
        if rng.random() < 0.5:
            call = fibers.spawn(fibers.to_thread, future.set_result, 3)
        else:
            future.set_result(3)
            call = fibers.spawn(int)
        waiting[0].cancel()
        for fiber in waiting:
            fiber.join(20)
        assert waiting[1].result() == 3
        assert waiting[0].cancelled() or waiting[0].result() == 3
        call.join(20)


# -- a fiber as a future ----------------------------------------------------------------------------------------------


def test_a_fiber_as_a_future() -> None:
    fiber = fibers.spawn(seven_after_a_while)
    future = as_future(fiber)
    assert not future.done()
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.append(future.result(20)))
    thread.start()
    assert future.result() == 7
    fibers.to_thread(thread.join)
    assert seen == [7]
    assert as_future(fiber).result(5) == 7


def test_the_error_of_a_fiber_counts_as_retrieved(caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> None:
        raise ValueError("from the fiber")

    future = as_future(fibers.spawn(fails))
    with pytest.raises(ValueError, match="from the fiber"):
        future.result()
    gc.collect()
    assert not caplog.records


def test_cancelling_the_future_cancels_the_fiber() -> None:
    fiber = fibers.spawn(fibers.sleep, 3600)
    future = as_future(fiber)
    fibers.yield_now()
    assert future.cancel()
    fiber.join(5)
    assert fiber.cancelled()
    assert std.wait([future], 5).done == {future}


def test_cancelling_the_fiber_cancels_the_future() -> None:
    fiber = fibers.spawn(fibers.sleep, 3600)
    future = as_future(fiber)
    fibers.yield_now()
    fiber.cancel()
    with pytest.raises(std.CancelledError):
        future.result(5)
    assert future.cancelled()


def test_fibers_of_other_threads_as_futures() -> None:
    with fibers.FiberThread() as thread:
        futures = [as_future(thread.spawn(pow, number, 2)) for number in range(100)]
        assert [future.result(20) for future in futures] == [number * number for number in range(100)]


def test_what_is_no_fiber() -> None:
    with pytest.raises(TypeError, match="takes a fiber, not 5"):
        as_future(5)  # type: ignore[arg-type]


# -- in processes of their own ----------------------------------------------------------------------------------------


def test_what_was_submitted_is_done_before_the_program_ends() -> None:
    ran = run_python(
        "-c",
        "import fibers, os, time\n"
        "executor = fibers.ThreadPoolExecutor(2)\n"
        "for number in range(6): executor.submit(lambda n: (time.sleep(0.02), os.write(1, b'%d\\n' % n)), number)\n"
        "os.write(1, b'end\\n')\n",
        timeout=30,
    )
    assert sorted(ran.stdout.split()) == ["0", "1", "2", "3", "4", "5", "end"], ran.stderr
    assert ran.returncode == 0


def test_calls_that_need_a_fiber_of_main_are_done_then_too() -> None:
    ran = run_python(
        "-c",
        "import fibers, time\n"
        "portal = fibers.Portal()\n"
        "executor = fibers.ThreadPoolExecutor(2)\n"
        "executor.submit(lambda: (time.sleep(0.02), portal.run(print, 'by main')))\n",
        timeout=30,
    )
    assert ran.stdout == "by main\n", ran.stderr


def test_fork() -> None:
    ran = run_python(
        "-c",
        """
import os, signal, threading, warnings
from concurrent.futures import BrokenExecutor
warnings.simplefilter("ignore", DeprecationWarning)
import fibers
signal.alarm(30)
executor = fibers.ThreadPoolExecutor(1)
go = threading.Event()
running, waiting = executor.submit(go.wait, 20), executor.submit(int)
while not running.running():
    fibers.sleep(0.001)
pid = os.fork()
if pid == 0:
    signal.alarm(30)
    for future in (running, waiting):
        try:
            future.result()
        except BrokenExecutor as error:
            os.write(1, f"{error}\\n".encode())
    assert executor.submit(pow, 2, 3).result() == 8
    executor.shutdown()
    raise SystemExit(7)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
go.set()
assert running.result() and waiting.result() == 0
executor.shutdown()
os.write(1, b"parent\\n")
""",
        timeout=30,
    )
    assert ran.stdout == "the call goes on in the parent process only\n" * 2 + "parent\n", ran.stderr
