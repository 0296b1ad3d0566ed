"""asyncio programs as the business of one fiber: results, errors, several at once, how they end."""

import asyncio
import contextvars
import signal
import threading
from typing import Any

import pytest
from support.parking import parked, until_parked
from support.process import run_python

import fibers
import fibers.asyncio
from fibers.core.scheduler import get_scheduler


async def answer(value: Any, delay: float = 0.0) -> Any:
    await asyncio.sleep(delay)
    return value


async def fail(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


def test_returns_and_raises_what_the_coroutine_does() -> None:
    assert fibers.asyncio.run(answer(3)) == 3
    with pytest.raises(KeyError, match="x"):
        fibers.asyncio.run(fail(KeyError("x")))
    with pytest.raises(SystemExit):
        fibers.asyncio.run(fail(SystemExit(3)))


def test_what_is_no_coroutine_is_refused_and_so_is_a_coroutine_that_runs_another_loop() -> None:
    with pytest.raises(ValueError, match="a coroutine was expected"):
        fibers.asyncio.run(3)  # type: ignore[arg-type]

    async def nested() -> None:
        coroutine = answer(1)
        try:
            fibers.asyncio.run(coroutine)
        finally:
            coroutine.close()

    with pytest.raises(RuntimeError, match="running event loop"):
        fibers.asyncio.run(nested())


def test_other_fibers_run_while_the_loop_sleeps_and_while_it_never_does() -> None:
    trace: list[str] = []

    def beside() -> None:
        for _ in range(3):
            trace.append("fiber")
            fibers.sleep(0.001)

    async def sleepy() -> None:
        await asyncio.sleep(0.02)
        trace.append("slept")

    fibers.spawn(beside)
    fibers.asyncio.run(sleepy())
    assert trace == ["fiber", "fiber", "fiber", "slept"]

    async def busy() -> int:
        turns = 0
        while not fiber.done():
            turns += 1
            await asyncio.sleep(0)
        return turns

    fiber = fibers.spawn(beside)
    assert fibers.asyncio.run(busy()) > 3


def test_several_loops_run_in_one_thread_each_in_its_fiber() -> None:
    loops = set()

    async def main(number: int) -> int:
        loops.add(asyncio.get_running_loop())
        for _ in range(10):
            await asyncio.sleep(0.001)
            assert asyncio.get_running_loop() in loops
        return number

    assert fibers.gather(*(fibers.spawn(fibers.asyncio.run, main(number)) for number in range(5))) == list(range(5))
    assert len(loops) == 5


def test_while_others_run_no_loop_is_the_running_one_and_the_hooks_of_generators_are_the_threads_own() -> None:
    seen = []

    def look() -> None:
        import sys

        seen.append((asyncio._get_running_loop(), sys.get_asyncgen_hooks().firstiter))

    async def main() -> None:
        await fibers.spawn(look)
        fibers.spawn(look)
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        seen.append((asyncio._get_running_loop(), None))

    fibers.asyncio.run(main())
    assert seen[:2] == [(None, None), (None, None)]
    assert isinstance(seen[2][0], fibers.asyncio.FiberEventLoop)


def test_asynchronous_generators_are_closed_with_the_loop() -> None:
    closed = []

    async def generator() -> Any:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    async def main() -> int:
        numbers.append(generator())
        async for number in numbers[0]:
            return int(number)
        return 0

    numbers: list[Any] = []
    assert fibers.asyncio.run(main()) == 1
    assert closed == [True]


def test_a_coroutine_that_blocks_holds_up_its_own_loop_and_no_other() -> None:
    """The coroutine is asyncio's idea of what is running; other fibers can start and run loops of ours all the same."""
    trace: list[str] = []

    async def blocking() -> None:
        fibers.sleep(0.03)
        trace.append("blocked")
        assert isinstance(asyncio.get_running_loop(), fibers.asyncio.FiberEventLoop)
        assert await answer(1, 0.001) == 1

    def beside() -> None:
        assert fibers.asyncio.await_(answer("helper", 0.001), loop=None) == "helper"
        assert fibers.asyncio.run(answer("run", 0.001)) == "run"
        trace.append("beside")

    def main() -> None:
        runner = parked(fibers.asyncio.run, blocking())
        fibers.spawn(beside).result()
        runner.result()
        fibers.asyncio.close()

    main()
    assert trace == ["beside", "blocked"]


# -- cancellation ---------------------------------------------------------------------------------------------------


def test_a_cancelled_fiber_cancels_the_main_task_and_waits_for_its_end() -> None:
    trace: list[str] = []

    async def main() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.005)  # it still may wait
            await asyncio.get_running_loop().run_in_executor(None, trace.append, "cleaned up")

    fiber = parked(fibers.asyncio.run, main())
    fiber.cancel()
    fiber.join()
    assert fiber.cancelled()
    assert trace == ["cleaned up"]


def test_a_deadline_ends_it() -> None:
    with pytest.raises(TimeoutError), fibers.timeout(0.005):
        fibers.asyncio.run(asyncio.sleep(60))
    with fibers.move_on_after(0.005) as scope:
        fibers.asyncio.run(asyncio.sleep(60))
    assert scope.cancelled_caught


def test_an_error_in_the_clean_up_is_raised_in_place_of_the_cancellation() -> None:
    async def main() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise KeyError("clean-up")

    with pytest.raises(KeyError, match="clean-up"), fibers.move_on_after(0.005):
        fibers.asyncio.run(main())


def test_background_tasks_are_cancelled_in_a_cancelled_fiber_too() -> None:
    trace: list[str] = []

    async def background() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.001)
            trace.append("background")
            raise

    async def main() -> None:
        task = asyncio.create_task(background())
        await asyncio.sleep(0)
        await asyncio.sleep(60)
        await task

    with fibers.move_on_after(0.005):
        fibers.asyncio.run(main())
    assert trace == ["background"]


def test_one_that_is_cancelled_before_it_starts_runs_nothing() -> None:
    async def main() -> None:
        raise AssertionError("it has started")

    with fibers.CancelScope() as scope:
        scope.cancel()
        fibers.asyncio.run(main())
    assert scope.cancelled_caught


def test_a_blocking_call_in_a_coroutine_is_interrupted_as_anywhere() -> None:
    async def main() -> None:
        fibers.sleep(60)

    with fibers.move_on_after(0.005) as scope:
        fibers.asyncio.run(main())
    assert scope.cancelled_caught


def test_run_forever_can_be_cancelled_and_called_again() -> None:
    loop = fibers.asyncio.new_event_loop()
    try:
        with fibers.move_on_after(0.005) as scope:
            loop.run_forever()
        assert scope.cancelled_caught
        assert not loop.is_running()
        assert loop.run_until_complete(answer(4)) == 4
    finally:
        loop.close()


def test_kill_comes_at_once() -> None:
    fiber = parked(fibers.asyncio.run, asyncio.sleep(60))
    fiber.kill(KeyError("killed"))
    with pytest.raises(KeyError, match="killed"):
        fiber.result(5)


# -- the loop as an object --------------------------------------------------------------------------------------------


def test_as_a_loop_factory_and_moved_from_thread_to_thread() -> None:
    with asyncio.Runner(loop_factory=fibers.asyncio.new_event_loop) as runner:
        assert runner.run(answer(1)) == 1
        assert runner.run(answer(2)) == 2

    async def serve() -> int:
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        assert await reader.read() == b""
        writer.close()
        server.close()
        return threading.get_ident()

    loop = fibers.asyncio.new_event_loop()
    try:
        here = loop.run_until_complete(serve())
        there = fibers.to_thread(loop.run_until_complete, serve())
        assert here == loop.run_until_complete(serve()) == threading.get_ident() != there
    finally:
        loop.close()


def test_it_runs_in_one_fiber_at_a_time() -> None:
    loop = fibers.asyncio.new_event_loop()
    try:
        fiber = parked(loop.run_until_complete, answer(1, 0.01))
        with pytest.raises(RuntimeError, match="already running"):
            loop.run_forever()
        assert fiber.result() == 1
    finally:
        loop.close()


def test_it_cannot_run_inside_the_runtime() -> None:
    loop = fibers.asyncio.new_event_loop()
    errors: list[BaseException] = []

    def callback(fiber: object) -> None:
        try:
            loop.run_forever()
        except RuntimeError as error:
            errors.append(error)

    fiber = fibers.spawn(int)
    fiber.add_done_callback(callback)
    fiber.join()
    loop.close()
    assert "inside the runtime" in str(errors.pop())


def test_the_context_of_the_fiber_is_that_of_the_coroutine() -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)

    async def main() -> tuple[int, int]:
        variable.set(variable.get() + 1)
        return variable.get(), await fibers.spawn(variable.get)

    variable.set(5)
    assert fibers.asyncio.run(main()) == (6, 6)
    assert variable.get() == 5


# -- Ctrl-C and fork, in child processes --------------------------------------------------------------------------------


def run_script(script: str) -> str:
    child = run_python(
        "-c", "import asyncio, os, signal, threading, time, fibers, fibers.asyncio\n" + script, timeout=30
    )
    assert child.returncode == 0, child.stderr
    assert child.stderr == ""
    return child.stdout


def test_ctrl_c_cancels_the_main_task_as_in_asyncio() -> None:
    script = """
async def main():
    threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        print("cancelled")
        raise
def program():
    try:
        fibers.asyncio.run(main())
    except KeyboardInterrupt:
        print("interrupted")
    signal.raise_signal(signal.SIGINT)
try:
    fibers.run(program)
except KeyboardInterrupt:
    print("ours again")
"""
    assert run_script(script) == "cancelled\ninterrupted\nours again\n"


def test_ctrl_c_while_another_fiber_computes_is_still_the_main_tasks() -> None:
    script = """
def compute():
    signal.raise_signal(signal.SIGINT)
    print("computed")
async def main():
    fibers.spawn(compute)
    await asyncio.sleep(60)
try:
    fibers.asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted")
"""
    assert run_script(script) == "computed\ninterrupted\n"


def test_ctrl_c_ends_a_fiber_that_awaits_and_its_task() -> None:
    script = """
async def task():
    try:
        await asyncio.sleep(60)
    finally:
        print("cancelled")
def program():
    threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT)).start()
    fibers.asyncio.await_(task())
try:
    fibers.run(program)
except KeyboardInterrupt:
    print("interrupted")
"""
    assert run_script(script) == "cancelled\ninterrupted\n"


def test_the_helper_of_a_forked_child_is_a_new_one() -> None:
    script = """
async def value():
    await asyncio.sleep(0.001)
    return os.getpid()
def program():
    assert fibers.asyncio.await_(value()) == os.getpid()
    if (pid := os.fork()) == 0:
        assert fibers.asyncio.await_(value()) == os.getpid() != pid
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert fibers.asyncio.await_(value()) == os.getpid()
    print("both")
fibers.run(program)
"""
    assert run_script(script) == "both\n"


def test_everything_ends_with_the_program_wherever_it_was_started() -> None:
    script = """
async def forever():
    try:
        await asyncio.sleep(3600)
    finally:
        print("ended")
fibers.spawn(fibers.asyncio.await_, forever())
fibers.sleep(0.01)
def thread():
    fibers.spawn(fibers.asyncio.await_, forever())
    fibers.sleep(0.01)
worker = threading.Thread(target=thread)
worker.start()
worker.join()
print("main")
"""
    assert run_script(script) == "ended\nmain\nended\n"


def test_signal_handlers_wake_the_loop_and_give_back_what_was_there() -> None:
    received: list[int] = []
    scheduler = get_scheduler()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def handle(number: int = 0) -> None:
            received.append(number)
            done.set()

        for number in (signal.SIGUSR1, signal.SIGINT):
            done.clear()
            loop.add_signal_handler(number, handle, number)
            threading.Timer(0.01, signal.pthread_kill, (threading.get_ident(), number)).start()
            await done.wait()
            assert loop.remove_signal_handler(number)
            assert not loop.remove_signal_handler(number)
        with pytest.raises(ValueError, match="signal number"):
            loop.add_signal_handler(1000, handle)
        with pytest.raises(RuntimeError, match="cannot be caught"):
            loop.add_signal_handler(signal.SIGKILL, handle)
        with pytest.raises(TypeError, match="coroutines"):
            loop.add_signal_handler(signal.SIGUSR1, main)
        loop.add_signal_handler(signal.SIGUSR1, handle)  # for `close` to remove

    before = signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGINT)
    fiber = fibers.spawn(fibers.asyncio.run, main())
    until_parked(fiber)
    fiber.result(30)
    assert received == [signal.SIGUSR1, signal.SIGINT]
    assert (signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGINT)) == before
    assert scheduler.loop.closed is False
