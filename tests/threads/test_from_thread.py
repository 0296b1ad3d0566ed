"""Into the fibers of another thread, from workers, plain threads and fibers elsewhere; cancelled; with the target gone."""

import contextvars
import gc
import random
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.process import run_python
from support.scale import SEED, scaled

import fibers
from fibers import LoopClosedError, Portal, from_thread
from fibers.core import lifecycle


def in_thread(function: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    """Begin `function(*args)` in a plain thread; the returned function waits for it as a fiber, and gives its outcome."""
    outcome: list[Any] = []
    over = threading.Event()

    def body() -> None:
        try:
            outcome.append(function(*args))
        except BaseException as error:
            outcome.append(error)
        over.set()

    thread = threading.Thread(target=body)
    thread.start()

    def result() -> Any:
        assert fibers.to_thread(over.wait, 20), "the thread does not end"
        thread.join()
        return outcome[0]

    return result


class Target:
    """A thread with fibers, which lives until it is told to end."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._ready = threading.Event()
        self.thread = threading.Thread(target=fibers.run, args=(self._main,))
        self.thread.start()
        assert self._ready.wait(20)

    def _main(self) -> None:
        self.portal = Portal()
        self.main = fibers.current()
        self._ready.set()
        fibers.lowlevel.park()

    def end(self) -> None:
        fibers.lowlevel.unpark(self.main)

    def join(self) -> None:
        self.end()
        self.thread.join(20)
        assert not self.thread.is_alive()


@pytest.fixture
def target() -> Iterator[Target]:
    made = Target()
    yield made
    made.join()


def ident_of_a_fiber_that_waits() -> int:
    fibers.sleep(0.001)
    return threading.get_ident()


# -- where it runs ----------------------------------------------------------------------------------------------------


def test_a_worker_gets_into_the_thread_of_its_caller() -> None:
    assert fibers.to_thread(from_thread.run, ident_of_a_fiber_that_waits) == threading.get_ident()


def test_also_one_whose_caller_has_a_loop_of_its_own(target: Target) -> None:
    def there() -> bool:
        found: int = fibers.to_thread(from_thread.run, ident_of_a_fiber_that_waits)
        return found == threading.get_ident()

    assert target.portal.run(there)


def test_through_a_portal_from_a_plain_thread_without_making_a_loop_there() -> None:
    portal = Portal()
    before = len(lifecycle.schedulers())

    def plain() -> tuple[int, int]:
        return portal.run(ident_of_a_fiber_that_waits), len(lifecycle.schedulers())

    assert in_thread(plain)() == (threading.get_ident(), before)


def test_through_a_portal_from_a_fiber_which_alone_waits(target: Target) -> None:
    go = threading.Event()
    fiber = fibers.spawn(target.portal.run, fibers.to_thread, go.wait, 20)
    for _ in range(3):
        fibers.sleep(0.001)
    assert not fiber.done()
    go.set()
    assert fiber.result(20) is True


def test_through_a_portal_into_the_own_thread() -> None:
    portal = Portal()
    assert portal.run(ident_of_a_fiber_that_waits) == threading.get_ident()
    assert portal.spawn(ident_of_a_fiber_that_waits).result(5) == threading.get_ident()


def test_functions_of_the_module_take_a_portal(target: Target) -> None:
    assert from_thread.run(ident_of_a_fiber_that_waits, portal=target.portal) == target.thread.ident
    fiber = from_thread.spawn(ident_of_a_fiber_that_waits, portal=target.portal, name="sent")
    assert fiber.name == "sent"
    assert fiber.result(20) == target.thread.ident


def test_arguments_context_and_results_come_through(target: Target) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="")

    def there(*args: int, **kwargs: int) -> tuple[Any, ...]:
        return args, kwargs, variable.get()

    variable.set("of the caller")
    assert target.portal.run(there, 1, two=2) == ((1,), {"two": 2}, "of the caller")
    assert target.portal.spawn(there, 1, two=2).result(20) == ((1,), {"two": 2}, "of the caller")
    assert fibers.to_thread(from_thread.run, there, 3) == ((3,), {}, "of the caller")


def test_errors_come_through_with_a_traceback_without_machinery(target: Target) -> None:
    def fails() -> None:
        fibers.yield_now()
        raise ValueError("there")

    for call in (target.portal.run, lambda fn: fibers.to_thread(target.portal.run, fn)):
        with pytest.raises(ValueError, match="there") as caught:
            call(fails)
        names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert names[-2:] == ["_run", "fails"]
        assert "_carry" not in names


def test_a_fiber_that_was_sent_tells_where_from(target: Target) -> None:
    fiber = target.portal.spawn(int)
    assert "in test_a_fiber_that_was_sent_tells_where_from" in fiber.spawned_at
    fiber = from_thread.spawn(int, portal=target.portal)
    assert "in test_a_fiber_that_was_sent_tells_where_from" in fiber.spawned_at
    assert "in test_a_fiber_that_was_sent_tells_where_from" in target.portal.run(lambda: fibers.current().spawned_at)
    fiber.join()


def test_nothing_is_kept_by_those_who_waited() -> None:
    class Thing: ...

    portal = Portal()

    thing = Thing()
    gone = weakref.ref(thing)
    gc.disable()
    try:
        assert fibers.to_thread(portal.run, lambda argument: argument, thing) is thing
        fibers.to_thread(portal.run, int)
        del thing
        assert gone() is None
    finally:
        gc.enable()


def test_back_and_forth() -> None:
    """Worker, fiber, worker, fiber: each waits for the next."""

    def down(depth: int) -> int:
        return depth if depth == 20 else fibers.to_thread(up, depth)

    def up(depth: int) -> int:
        return from_thread.run(down, depth + 1)

    assert down(0) == 20


def test_thousands_from_many_threads(target: Target) -> None:
    portals = [Portal(), target.portal]
    each = scaled(5000, least=200)
    wrong: list[int] = []

    def plain(seed: int) -> None:
        rng = random.Random(seed)
        for number in range(each):
            portal = rng.choice(portals)
            result = portal.run(pow, number, 2) if rng.random() < 0.7 else portal.spawn(pow, number, 2).result(20)
            if result != number * number:
                wrong.append(number)

    results = [in_thread(plain, SEED + number) for number in range(4)]
    assert [result() for result in results] == [None] * 4
    assert wrong == []


# -- bad input --------------------------------------------------------------------------------------------------------


def test_without_a_portal_outside_of_a_worker() -> None:
    for call in (from_thread.run, from_thread.spawn):
        with pytest.raises(RuntimeError, match=r"no worker of fibers.to_thread\(\), so it must be said which thread"):
            call(int)


@pytest.mark.parametrize("call", ["run", "spawn"])
def test_bad_input(call: str) -> None:
    with pytest.raises(TypeError, match="portal must be a fibers.Portal, not 5"):  # noqa: RUF043
        getattr(from_thread, call)(int, portal=5)
    with pytest.raises(TypeError, match="a function is needed, not 7"):
        getattr(Portal(), call)(7)


def test_run_cannot_wait_inside_the_runtime_and_spawn_need_not() -> None:
    portal = Portal()
    seen: list[Any] = []

    def callback(_: object) -> None:
        try:
            portal.run(int)
        except RuntimeError as error:
            seen.append(str(error))
        seen.append(portal.spawn(int))

    fiber = fibers.spawn(int)
    fiber.add_done_callback(callback)
    fiber.join()
    assert "would block inside the runtime" in seen[0]
    assert seen[1].result(5) == 0


# -- cancellation -----------------------------------------------------------------------------------------------------


class Sleeper:
    """A fiber that sleeps, unwinds slowly, and tells."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.unwound = threading.Event()

    def __call__(self) -> None:
        self.started.set()
        try:
            fibers.sleep(3600)
        finally:
            with fibers.shield():
                fibers.sleep(0.02)
            self.unwound.set()


def test_a_cancelled_caller_has_the_fiber_cancelled_and_waits_for_its_end(target: Target) -> None:
    sleeper = Sleeper()
    caller = fibers.spawn(target.portal.run, sleeper)
    fibers.to_thread(sleeper.started.wait, 20)
    caller.cancel()
    caller.join(20)
    assert caller.cancelled()
    assert sleeper.unwound.is_set()


def test_a_deadline_of_the_caller_too(target: Target) -> None:
    sleeper = Sleeper()
    with fibers.move_on_after(0.05) as scope:
        target.portal.run(sleeper)
    assert scope.cancelled_caught
    assert sleeper.started.is_set() == sleeper.unwound.is_set()


def test_kill_comes_at_once_and_the_fiber_is_cancelled(target: Target) -> None:
    sleeper = Sleeper()
    caller = fibers.spawn(target.portal.run, sleeper)
    fibers.to_thread(sleeper.started.wait, 20)
    caller.kill(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        caller.result(20)
    assert fibers.to_thread(sleeper.unwound.wait, 20)


def test_cancellation_goes_through_workers() -> None:
    """to_thread -> from_thread.run -> to_thread -> from_thread.run: the innermost fiber is cancelled, all unwind."""
    sleeper = Sleeper()
    raised: list[type[BaseException]] = []

    def watched(function: Callable[..., Any], *args: Any) -> Any:
        try:
            return function(*args)
        except BaseException as error:
            raised.append(type(error))
            raise

    def worker(depth: int) -> None:
        watched(from_thread.run, sleeper if depth == 0 else fiber, depth - 1)

    def fiber(depth: int) -> None:
        watched(fibers.to_thread, worker if depth else innermost, depth)

    def innermost(_: int) -> None:
        watched(from_thread.run, sleeper)

    outermost = fibers.spawn(fiber, 2)
    fibers.to_thread(sleeper.started.wait, 20)
    outermost.cancel()
    outermost.join(20)
    assert outermost.cancelled()
    assert sleeper.unwound.is_set()
    assert raised == [fibers.Cancelled] * len(raised)
    assert len(raised) == 6


def test_a_worker_whose_caller_was_cancelled_before_it_asks() -> None:
    entered, go = threading.Event(), threading.Event()
    ran: list[int] = []
    raised: list[str] = []

    def worker() -> None:
        entered.set()
        go.wait(20)
        try:
            from_thread.run(ran.append, 1)
        except fibers.Cancelled:
            raised.append("Cancelled")
            raise

    caller = fibers.spawn(fibers.to_thread, worker)
    fibers.to_thread(entered.wait, 20)
    caller.cancel()
    fibers.yield_now()
    go.set()
    caller.join(20)
    assert caller.cancelled()
    assert (ran, raised) == ([], ["Cancelled"])


def test_a_fiber_cancelled_by_others_is_told_to_who_waits(target: Target) -> None:
    def cancels_itself() -> None:
        fibers.current().cancel()
        fibers.sleep(1)

    with pytest.raises(fibers.FiberCancelled):
        target.portal.run(cancels_itself)
    assert isinstance(in_thread(target.portal.run, cancels_itself)(), fibers.FiberCancelled)


def test_a_sent_fiber_can_be_cancelled_from_where_it_was_sent(target: Target) -> None:
    for _ in range(scaled(2000, least=100)):
        fiber = target.portal.spawn(fibers.sleep, 3600)
        fiber.cancel()
        fiber.join(20)
        assert fiber.cancelled()


def test_cancelled_at_any_moment_every_call_ends(target: Target) -> None:
    rng = random.Random(SEED)
    began = ended = 0

    def there(turns: int) -> int:
        nonlocal began, ended
        began += 1
        try:
            for _ in range(turns):
                fibers.yield_now()
            return turns
        finally:
            ended += 1

    for _ in range(scaled(5000, least=200)):
        turns = rng.randrange(4)
        if rng.random() < 0.5:
            caller = fibers.spawn(target.portal.run, there, turns)
        else:
            caller = fibers.spawn(fibers.to_thread, target.portal.run, there, turns)
        for _ in range(rng.randrange(6)):
            fibers.yield_now()
        if rng.random() < 0.3:
            time.sleep(0)
        caller.cancel()
        caller.join(20)
        assert caller.cancelled() or caller.result() == turns
        assert began == ended


# -- with the target gone ---------------------------------------------------------------------------------------------


def test_a_closed_target_is_an_error_at_once() -> None:
    target = Target()
    target.join()
    for call in (target.portal.run, target.portal.spawn):
        with pytest.raises(LoopClosedError, match="has ended; nothing can run there any more"):
            call(int)
        assert isinstance(in_thread(call, int)(), LoopClosedError)
    assert repr(target.portal).endswith(" closed>")


@pytest.mark.parametrize("plain", [False, True])
def test_a_target_that_ends_meanwhile(plain: bool) -> None:
    target = Target()
    sleeper = Sleeper()
    if plain:
        result = in_thread(target.portal.run, sleeper)
    else:
        fiber = fibers.spawn(target.portal.run, sleeper)
        result = fiber.exception
    fibers.to_thread(sleeper.started.wait, 20)
    target.end()
    assert isinstance(result(), LoopClosedError)
    assert sleeper.unwound.is_set()
    target.join()


def test_a_target_that_ends_while_a_fiber_is_on_its_way() -> None:
    """Its main runs, and never looks at the inbox before it ends."""
    sent = threading.Event()
    portals: list[Portal] = []
    there = threading.Event()

    def main() -> None:
        portals.append(Portal())
        there.set()
        sent.wait(20)  # blocking: no turn of the loop

    thread = threading.Thread(target=fibers.run, args=(main,))
    thread.start()
    assert there.wait(20)
    fiber = portals[0].spawn(int)
    result = in_thread(portals[0].run, int)
    while len(from_thread._entering) < 2:
        time.sleep(0.001)
    sent.set()
    assert isinstance(result(), LoopClosedError)
    fiber.join(20)
    assert fiber.cancelled()
    thread.join()
    assert not from_thread._entering


def test_a_fiber_that_ignores_the_end_of_its_target() -> None:
    """It is never resumed; whoever waits for it is told."""
    target = Target()
    started = threading.Event()

    def stubborn() -> None:
        started.set()
        while True:
            try:
                fibers.sleep(0.05)
            except fibers.Cancelled:
                pass

    result = in_thread(target.portal.run, stubborn)
    fibers.to_thread(started.wait, 20)
    target.end()
    assert isinstance(result(), LoopClosedError)
    target.join()


def test_a_caller_that_gave_up_may_leave_a_worker_behind_whose_target_is_gone() -> None:
    go, entered = threading.Event(), threading.Event()
    seen: list[BaseException] = []
    over = threading.Event()

    def worker() -> None:
        entered.set()
        go.wait(20)
        try:
            from_thread.run(int)
        except BaseException as error:
            seen.append(error)
        try:
            from_thread.spawn(int)
        except BaseException as error:
            seen.append(error)
        over.set()

    def main() -> None:
        def cancels() -> None:
            fibers.to_thread(entered.wait, 20)
            scope.cancel()

        with fibers.CancelScope() as scope:
            fibers.spawn(cancels)
            fibers.to_thread(worker, cancellable=True)

    thread = threading.Thread(target=fibers.run, args=(main,))
    thread.start()
    thread.join(20)
    go.set()
    assert fibers.to_thread(over.wait, 20)
    assert [type(error) for error in seen] == [fibers.Cancelled, LoopClosedError]


def test_targets_that_end_at_any_moment_never_leave_anybody_waiting() -> None:
    rng = random.Random(SEED)
    for _ in range(scaled(400, least=25)):
        target = Target()
        results: list[Callable[[], Any]] = []

        def ask(portal: Portal, number: int) -> int:
            return portal.run(there, number)

        def there(number: int) -> int:
            for _ in range(number % 3):
                fibers.yield_now()
            return number

        for number in range(6):
            results.append(in_thread(ask, target.portal, number))
        for _ in range(rng.randrange(4)):
            time.sleep(0)
        target.end()
        for number, result in enumerate(results):
            came = result()
            assert came == number or isinstance(came, LoopClosedError)
        target.join()
        with pytest.raises(LoopClosedError):
            target.portal.run(int)


def test_a_thread_that_ends_with_living_fibers_ends_them() -> None:
    """Also those that came through a portal: they unwind in their own thread."""
    sleeper = Sleeper()
    portals: list[Portal] = []
    there, go = threading.Event(), threading.Event()

    def plain() -> None:
        fibers.sleep(0)  # a loop, without run()
        portals.append(Portal())
        there.set()
        while not sleeper.started.is_set():
            fibers.sleep(0.001)
        go.wait(20)

    thread = threading.Thread(target=plain)
    thread.start()
    assert there.wait(20)
    fiber = portals[0].spawn(sleeper)
    go.set()
    fiber.join(20)
    assert fiber.cancelled()
    thread.join(20)
    assert sleeper.unwound.is_set()
    with pytest.raises(LoopClosedError):
        portals[0].spawn(int)


# -- in processes of their own ----------------------------------------------------------------------------------------


def test_ctrl_c_in_a_plain_main_thread_cancels_what_it_waits_for() -> None:
    ran = run_python(
        "-c",
        """
import os, signal, threading, time
import fibers
made = []
ready = threading.Event()
def main():
    made.append(fibers.Portal())
    ready.set()
    fibers.lowlevel.park()
def unwinds():
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        fibers.sleep(60)
    finally:
        os.write(1, b"unwound\\n")
threading.Thread(target=fibers.run, args=(main,), daemon=True).start()
ready.wait()
try:
    made[0].run(unwinds)
except KeyboardInterrupt:
    os.write(1, b"main\\n")
made[0].run(int)
""",
        timeout=30,
    )
    assert sorted(ran.stdout.split()) == ["main", "unwound"], ran.stderr


def test_in_a_forked_child_other_threads_are_gone() -> None:
    ran = run_python(
        "-c",
        """
import os, signal, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)
import fibers
signal.alarm(30)
made = []
ready = threading.Event()
def main():
    made.append(fibers.Portal())
    ready.set()
    fibers.lowlevel.park()
threading.Thread(target=fibers.run, args=(main,), daemon=True).start()
ready.wait()
own = fibers.Portal()
pid = os.fork()
if pid == 0:
    signal.alarm(30)
    try:
        made[0].run(int)
    except fibers.LoopClosedError as error:
        os.write(1, b"gone\\n")
    assert own.run(int) == 0
    assert fibers.to_thread(lambda: fibers.from_thread.run(lambda: 5)) == 5
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
assert made[0].run(int) == 0
os.write(1, b"parent\\n")
os._exit(0)
""",
        timeout=30,
    )
    assert (ran.stdout, ran.returncode) == ("gone\nparent\n", 0), ran.stderr


def test_spawn_from_a_signal_handler() -> None:
    ran = run_python(
        "-c",
        """
import os, signal
import fibers
portal = fibers.Portal()
main = fibers.current()
signal.signal(signal.SIGUSR1, lambda *_: portal.spawn(lambda: (print("spawned"), fibers.lowlevel.unpark(main))))
fibers.spawn_later(0.02, os.kill, os.getpid(), signal.SIGUSR1)
fibers.lowlevel.park(10)
os.kill(os.getpid(), signal.SIGUSR1)
fibers.lowlevel.park(10)
""",
        timeout=30,
    )
    assert ran.stdout == "spawned\nspawned\n", ran.stderr
