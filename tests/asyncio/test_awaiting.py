"""`await_` in a fiber, `await fiber` in a coroutine: results, errors, whose loop, cancellation and deadlines both ways."""

import asyncio
import contextvars
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support.parking import parked, until_parked
from support.process import run_python

import fibers
import fibers.asyncio
from fibers.asyncio import await_
from fibers.core.scheduler import get_scheduler
from fibers.testing import VirtualClock
from fibers.testing import run as run_virtual


@pytest.fixture(autouse=True)
def _no_helper_is_left() -> Iterator[None]:
    yield
    fibers.asyncio.close()


class Log(list[str]):
    """What has happened, in order."""

    begun = 0  # how many have started

    def wait_begun(self) -> None:
        """Let others run until one more has."""
        while not self.begun:
            fibers.yield_now()
        self.begun -= 1

    def awaiting(self, name: str, cleaning: float = 0.0) -> "fibers.Fiber[str]":
        """A fiber that awaits a coroutine that has begun."""
        fiber = fibers.spawn(await_, self.outlive(name, cleaning=cleaning))
        self.wait_begun()
        return fiber

    async def outlive(self, name: str, delay: float = 60.0, cleaning: float = 0.0) -> str:
        """Wait, and tell how that ended."""
        self.begun += 1
        try:
            await asyncio.sleep(delay)
        except asyncio.CancelledError:
            await asyncio.sleep(cleaning)
            self.append(f"{name} cancelled")
            raise
        self.append(f"{name} done")
        return name

    def outlast(self, name: str, delay: float = 60.0) -> str:
        """The same as a fiber."""
        self.begun += 1
        try:
            fibers.sleep(delay)
        except fibers.Cancelled:
            with fibers.shield():
                fibers.sleep(0.001)
            self.append(f"{name} cancelled")
            raise
        self.append(f"{name} done")
        return name


@pytest.fixture
def log() -> Log:
    return Log()


async def value(what: Any) -> Any:
    await asyncio.sleep(0)
    return what


def late(what: Any, seconds: float = 0.01) -> Any:
    """The same as a fiber."""
    fibers.sleep(seconds)
    return what


def tick() -> None:
    for _ in range(3):
        fibers.sleep(0.001)


async def fail(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


# -- a fiber waits for a coroutine ------------------------------------------------------------------------------------


def test_results_and_errors_arrive() -> None:
    assert await_(value(1)) == 1
    with pytest.raises(KeyError, match="key"):
        await_(fail(KeyError("key")))
    with pytest.raises(asyncio.CancelledError):
        await_(fail(asyncio.CancelledError()))


def test_all_kinds_of_awaitables() -> None:
    class Awaitable:
        def __await__(self) -> Any:
            return value("awaitable").__await__()

    async def make() -> tuple["asyncio.Future[str]", "asyncio.Task[str]"]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[str] = loop.create_future()
        loop.call_later(0.001, future.set_result, "future")
        return future, asyncio.create_task(value("task"))

    future, task = await_(make())
    assert [await_(Awaitable()), await_(future), await_(future), await_(task)] == [
        "awaitable",
        "future",
        "future",
        "task",
    ]
    assert await_(fibers.spawn(lambda: "fiber")) == "fiber"


@pytest.mark.parametrize("what", [3, None, "coroutine", value])
def test_what_cannot_be_awaited_is_refused(what: Any) -> None:
    with pytest.raises(TypeError, match=r"await_\(\) takes a coroutine"):
        await_(what)


def test_many_fibers_wait_at_once_and_other_fibers_run_meanwhile() -> None:
    def one(number: int) -> int:
        return int(await_(value(number)))

    ticks = fibers.spawn(tick)
    assert fibers.gather(*(fibers.spawn(one, number) for number in range(100))) == list(range(100))
    ticks.join()


def test_the_context_of_the_fiber_goes_into_the_coroutine_and_not_back() -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable")

    async def add() -> int:
        variable.set(variable.get() + 1)
        return variable.get()

    variable.set(1)
    assert [await_(add()), await_(add()), variable.get()] == [2, 2, 1]


def test_in_a_coroutine_it_is_refused() -> None:
    async def wrong() -> None:
        coroutine = value(1)
        try:
            await_(coroutine)
        finally:
            coroutine.close()

    with pytest.raises(RuntimeError, match="use await there"):
        await_(wrong())
    with pytest.raises(RuntimeError, match="use await there"):
        fibers.asyncio.run(wrong())


def test_inside_the_runtime_it_is_refused() -> None:
    errors: list[BaseException] = []
    coroutine = value(1)

    def callback(fiber: object) -> None:
        try:
            await_(coroutine)
        except RuntimeError as error:
            errors.append(error)

    fiber = fibers.spawn(int)
    fiber.add_done_callback(callback)
    fiber.join()
    coroutine.close()
    assert "inside the runtime" in str(errors.pop())


# -- whose loop -------------------------------------------------------------------------------------------------------


async def which() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def test_one_helper_serves_a_thread_until_it_is_closed() -> None:
    first = await_(which())
    assert fibers.spawn(await_, which()).result() is first
    fibers.asyncio.close()
    assert first.is_closed()
    second = await_(which())
    assert second is not first
    fibers.asyncio.close()
    fibers.asyncio.close()


def test_fibers_spawned_in_run_use_its_loop_and_others_do_not() -> None:
    helper = await_(which())

    async def main() -> None:
        mine = asyncio.get_running_loop()
        assert mine is not helper
        assert await fibers.spawn(await_, which()) is mine
        assert await fibers.spawn(lambda: fibers.spawn(await_, which()).result()) is mine

    fibers.spawn(fibers.asyncio.run, main()).result()
    assert await_(which()) is helper


def test_what_main_runs_is_the_loop_of_its_thread() -> None:
    def program() -> None:
        orders: fibers.Channel[None] = fibers.Channel()
        worker = fibers.spawn(lambda: (orders.receive(), await_(which()))[1])  # before there is a loop

        async def main() -> None:
            orders.send(None)
            assert await worker is asyncio.get_running_loop()

        with asyncio.Runner(loop_factory=fibers.asyncio.new_event_loop) as runner:
            runner.run(main())

    fibers.to_thread(fibers.run, program)


def test_the_loop_can_be_given() -> None:
    async def main() -> None:
        mine = asyncio.get_running_loop()
        assert await fibers.spawn(lambda: await_(which(), loop=mine), context=contextvars.Context()) is mine

    fibers.spawn(fibers.asyncio.run, main()).result()


def test_loops_and_futures_from_elsewhere_are_refused() -> None:
    plain = asyncio.new_event_loop()
    idle = fibers.asyncio.new_event_loop()
    coroutine = value(1)
    try:
        with pytest.raises(ValueError, match="run_coroutine_threadsafe"):
            await_(plain.create_future())
        with pytest.raises(ValueError, match="does not run in this thread now"):
            await_(idle.create_future())
        with pytest.raises(ValueError, match="does not run in this thread now"):
            await_(coroutine, loop=idle)
        future = await_(which()).create_future()
        with pytest.raises(ValueError, match="belongs to another loop"):
            await_(future, loop=idle)
        with pytest.raises(ValueError, match="does not run in this thread now"):
            fibers.to_thread(await_, future)
    finally:
        coroutine.close()
        plain.close()
        idle.close()


def test_the_helper_cannot_be_closed_from_within() -> None:
    async def suicide() -> None:
        fibers.asyncio.close()

    with pytest.raises(RuntimeError, match="call it in another fiber"):
        await_(suicide())


def test_close_cancels_what_the_helper_runs(log: Log) -> None:
    fiber = log.awaiting("task", cleaning=0.002)
    fibers.asyncio.close()
    with pytest.raises(asyncio.CancelledError):
        fiber.result()
    assert log == ["task cancelled"]


def test_a_future_whose_loop_is_closed_does_not_hang_who_waits() -> None:
    future = await_(which()).create_future()
    fiber = parked(await_, future)
    fibers.asyncio.close()
    with pytest.raises(RuntimeError, match="loop was closed before"):
        fiber.result()


def test_each_thread_has_a_helper_which_ends_with_it() -> None:
    def thread() -> asyncio.AbstractEventLoop:
        return await_(which())

    other = fibers.to_thread(thread)
    assert other is not await_(which())
    assert other.is_closed()

    def twice() -> bool:
        return thread() is fibers.spawn(thread).result()

    assert fibers.to_thread(twice)


def test_a_coroutine_of_plain_asyncio_may_block_in_it() -> None:
    """That holds up its own loop, as any blocking call does; the helper is another."""

    async def main() -> None:
        mine = asyncio.get_running_loop()
        assert await_(which()) is not mine
        assert await_(value(1)) == 1
        assert asyncio.get_running_loop() is mine
        await asyncio.sleep(0)

    asyncio.run(main())
    assert await_(value(2)) == 2


# -- cancelled in await_ ------------------------------------------------------------------------------------------------


def test_a_cancelled_fiber_cancels_its_task_and_waits_for_it(log: Log) -> None:
    fiber = log.awaiting("task", cleaning=0.005)
    fiber.cancel()
    fiber.join()
    assert fiber.cancelled()
    assert log == ["task cancelled"]


def test_a_deadline_cancels_the_task(log: Log) -> None:
    with pytest.raises(TimeoutError), fibers.timeout(0.005):
        await_(log.outlive("task"))
    with fibers.move_on_after(0.005):
        await_(log.outlive("other"))
    assert log == ["task cancelled", "other cancelled"]


def test_the_error_of_a_cancelled_task_is_raised_and_its_result_dropped() -> None:
    async def stubborn(error: BaseException | None) -> int:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if error is not None:
                raise error from None
        return 1

    with fibers.move_on_after(0.005) as scope:
        await_(stubborn(None))
    assert scope.cancelled_caught
    with pytest.raises(KeyError, match="mine"), fibers.move_on_after(0.005):
        await_(stubborn(KeyError("mine")))


def test_what_is_shielded_goes_on(log: Log) -> None:
    async def start() -> "asyncio.Task[str]":
        return asyncio.create_task(log.outlive("task", 0.02))

    task = await_(start())
    with fibers.move_on_after(0.005) as scope:
        await_(asyncio.shield(task))
    assert scope.cancelled_caught
    assert await_(task) == "task"
    with fibers.move_on_after(0.001), fibers.shield():
        assert await_(log.outlive("shielded", 0.01)) == "shielded"
    assert log == ["task done", "shielded done"]


def test_kill_does_not_wait_for_the_task(log: Log) -> None:
    fiber = log.awaiting("task", cleaning=60)
    fiber.kill(KeyError("killed"))
    with pytest.raises(KeyError, match="killed"):
        fiber.result()
    assert log == []


def test_a_fiber_that_was_cancelled_before_starts_nothing(log: Log) -> None:
    with fibers.CancelScope() as scope:
        scope.cancel()
        await_(log.outlive("task"))
    assert scope.cancelled_caught
    assert log == []


def test_a_task_that_others_cancel_raises_cancelled_error(log: Log) -> None:
    async def start() -> "asyncio.Task[str]":
        return asyncio.create_task(log.outlive("task"))

    task = await_(start())
    fiber = parked(await_, task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        fiber.result()
    assert log == ["task cancelled"]


# -- a coroutine waits for a fiber ----------------------------------------------------------------------------------------


def test_await_returns_and_raises_what_the_fiber_does() -> None:
    def error() -> None:
        raise KeyError("of the fiber")

    def stop() -> None:
        raise StopIteration

    async def main() -> None:
        assert await fibers.spawn(lambda: 1) == 1
        slow = fibers.spawn(late, 1)
        assert await asyncio.gather(slow, fibers.spawn(lambda: 2), value(3)) == [1, 2, 3]  # type: ignore[comparison-overlap]
        assert await slow == 1
        with pytest.raises(KeyError, match="of the fiber"):
            await fibers.spawn(error)
        with pytest.raises(RuntimeError, match="raised StopIteration"):
            await fibers.spawn(stop)

    fibers.asyncio.run(main())
    await_(main())


def test_await_in_a_loop_of_another_thread() -> None:
    async def main(fiber: fibers.Fiber[str]) -> str:
        return await fiber

    fiber = fibers.spawn(late, "here")
    assert fibers.to_thread(asyncio.run, main(fiber)) == "here"
    fiber = fibers.spawn(late, "there")
    assert fibers.to_thread(fibers.asyncio.run, main(fiber)) == "there"


def test_await_in_a_loop_that_holds_up_the_fiber_is_refused() -> None:
    fiber = fibers.spawn(fibers.sleep, 0.001)

    async def main() -> None:
        await fiber

    with pytest.raises(RuntimeError, match=r"run the loop by fibers\.asyncio\.run"):
        asyncio.run(main())
    fiber.join()
    asyncio.run(main())  # nothing is held up that is done


def test_await_without_the_bridge_says_what_is_missing() -> None:
    script = """
import asyncio, fibers
async def main():
    try:
        await fibers.spawn(int)
    except RuntimeError as error:
        print(error)
asyncio.run(main())
"""
    child = run_python("-c", script)
    assert "import fibers.asyncio first" in child.stdout, child.stderr


def test_a_cancelled_task_cancels_the_fiber_and_waits_for_it(log: Log) -> None:
    async def main() -> None:
        task = asyncio.create_task(value_of(fibers.spawn(log.outlast, "fiber")))
        await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert log == ["fiber cancelled"]

    async def value_of(fiber: fibers.Fiber[str]) -> str:
        return await fiber

    fibers.asyncio.run(main())


def test_the_deadlines_of_asyncio_hold_for_fibers(log: Log) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.005):
                await fibers.spawn(log.outlast, "one")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(fibers.spawn(log.outlast, "two"), 0.005)
        with pytest.raises(ExceptionGroup, match="unhandled errors in a TaskGroup"):
            await one_fails()

    async def one_fails() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(wait_for(fibers.spawn(log.outlast, "three")))
            await asyncio.sleep(0.002)
            group.create_task(fail(KeyError("x")))

    async def wait_for(fiber: fibers.Fiber[str]) -> None:
        await fiber

    fibers.asyncio.run(main())
    assert log == ["one cancelled", "two cancelled", "three cancelled"]


def test_a_fiber_that_others_cancel_raises_fiber_cancelled(log: Log) -> None:
    async def main() -> None:
        fiber = parked(log.outlast, "fiber")
        fiber.cancel()
        with pytest.raises(fibers.FiberCancelled):
            await fiber

    fibers.asyncio.run(main())


def test_a_fiber_that_ends_well_all_the_same_gives_its_result() -> None:
    def stubborn() -> int:
        with fibers.shield():
            fibers.sleep(0.02)
        return 5

    async def main() -> int:
        async def inner() -> int:
            return await fibers.spawn(stubborn)

        task = asyncio.create_task(inner())
        await asyncio.sleep(0.005)
        task.cancel()
        return await task

    assert fibers.asyncio.run(main()) == 5


def test_a_loop_that_is_gone_when_the_fiber_ends_disturbs_nobody() -> None:
    def late() -> str:
        with fibers.shield():
            go.wait()
        return "late"

    async def main() -> None:
        asyncio.create_task(wait()).add_done_callback(ends.append)
        await asyncio.sleep(0)
        asyncio.get_running_loop().stop()

    async def wait() -> str:
        return await fiber

    go, fiber = fibers.Event(), fibers.spawn(late)
    ends: list[object] = []
    loop = fibers.asyncio.new_event_loop()
    loop.create_task(main())
    loop.run_forever()
    loop.close()
    go.set()
    assert fiber.result() == "late"
    assert ends == []


def test_deadlines_nest_through_both_worlds_and_the_innermost_that_passes_counts(log: Log) -> None:
    """fiber → task → fiber → task; all of them are told, from the inside out."""

    def inner_fiber() -> str:
        try:
            return await_(log.outlive("inner task"))
        finally:
            log.append("inner fiber")

    async def outer_task(limit: float) -> None:
        try:
            async with asyncio.timeout(limit):
                await fibers.spawn(inner_fiber)
        finally:
            log.append("outer task")

    def outer_fiber(outer: float, inner: float) -> None:
        with fibers.timeout(outer):
            await_(outer_task(inner))

    everybody = ["inner task cancelled", "inner fiber", "outer task"]
    with pytest.raises(TimeoutError, match="not done within"):
        fibers.spawn(outer_fiber, 0.01, 60.0).result()
    assert log == everybody
    log.clear()
    with pytest.raises(TimeoutError):
        fibers.spawn(outer_fiber, 60.0, 0.01).result()
    assert log == everybody


# -- what sleeps sleeps, what is ready runs -------------------------------------------------------------------------------


def test_an_idle_loop_makes_no_turns() -> None:
    async def connected() -> Any:
        return await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)

    server = await_(connected())
    loop = get_scheduler().loop
    fibers.sleep(0.001)
    before = loop.stats.turns
    fibers.sleep(0.1)
    assert loop.stats.turns - before <= 4
    await_(asyncio.sleep(0))
    server.close()


def test_whatever_a_fiber_schedules_wakes_the_loop() -> None:
    loop: Any = await_(which())
    done = fibers.Event()
    begin = time.monotonic()
    until_parked()
    for schedule in (
        lambda: loop.call_soon(done.set),
        lambda: loop.call_later(0.001, done.set),
        lambda: loop.call_soon_threadsafe(done.set),
        lambda: threading.Thread(target=loop.call_soon_threadsafe, args=(done.set,)).start(),
        lambda: loop.call_soon(loop.call_later, 0.001, done.set),
    ):
        sleeping = loop.call_later(3600, done.set)
        fibers.sleep(0.002)
        done.clear()
        schedule()
        done.wait(30)
        sleeping.cancel()
    assert time.monotonic() - begin < 30


def test_a_file_that_a_fiber_adds_wakes_a_loop_that_had_none() -> None:
    import socket

    loop: Any = await_(which())
    fibers.sleep(0.002)  # it sleeps without files
    done = fibers.Event()
    a, b = socket.socketpair()
    with a, b:
        loop.add_reader(a, done.set)
        b.send(b"x")
        done.wait(30)
        assert loop.remove_reader(a)
        done.clear()
        fibers.sleep(0.002)
        loop.add_writer(a, done.set)
        done.wait(30)
        assert loop.remove_writer(a)


def test_stop_from_another_fiber() -> None:
    loop = fibers.asyncio.new_event_loop()
    fiber = parked(loop.run_forever)
    loop.stop()
    fiber.join(30)
    loop.close()


def test_timers_keep_their_order_and_are_never_early() -> None:
    async def main() -> list[tuple[int, float]]:
        loop = asyncio.get_running_loop()
        fired: list[tuple[int, float]] = []
        begin = loop.time()

        def fire(number: int) -> None:
            fired.append((number, loop.time() - begin))

        for number in (3, 1, 2, 0):
            loop.call_later(number * 0.003, fire, number)
        await asyncio.sleep(0.012)
        return fired

    fired = await_(main())
    assert [number for number, _ in fired] == [0, 1, 2, 3]
    assert all(when >= number * 0.003 for number, when in fired)


def test_virtual_time_passes_for_asyncio_too() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        await asyncio.gather(asyncio.sleep(3600), fibers.spawn(fibers.sleep, 7200))
        return loop.time() - begin

    assert run_virtual(fibers.asyncio.run, main(), clock=VirtualClock()) == 7200
    assert run_virtual(await_, main(), clock=VirtualClock()) == 7200


def test_an_idle_helper_hides_no_deadlock() -> None:
    script = """
import asyncio, fibers, fibers.asyncio
def program():
    fibers.asyncio.await_(asyncio.sleep(0.001))
    lock = fibers.Lock()
    lock.acquire()
    fibers.spawn(lock.acquire).join()
try:
    fibers.run(program)
except fibers.DeadlockError:
    print("deadlock")
"""
    child = run_python("-c", script, timeout=20)
    assert child.stdout == "deadlock\n", child.stderr
