"""Virtual time: it stands still while anything real goes on, and jumps when nothing else is left to wait for.

Hazard 12: it jumps only when no waiter is on a real fd, no worker runs and the inbox is empty. All of this runs on a
PollingLoop, also where the backend is libevent (hazard 13: its timers are in C and obey no clock of ours).
"""

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.process import run_python

import fibers
from fibers import lowlevel, testing
from fibers.core.scheduler import get_scheduler
from fibers.eventloop import BACKEND
from fibers.io import socket
from fibers.testing import VirtualClock, VirtualClockError, VirtualLoop, virtual
from fibers.threads.to_thread import to_thread

HOUR = 3600.0


@pytest.fixture(params=[False, True], ids=["plain", "checked"])
def virtually(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Run a function on a virtual clock of its own; once on a loop that checks its contract."""

    def run(main: Callable[[], Any], clock: VirtualClock | None = None) -> Any:
        loop = testing.new_virtual_loop(clock or VirtualClock(), checked=request.param)
        with testing.runtime(loop):
            return main()

    return run


class Helper:
    """A plain thread that was there before the clock, and does one thing when told to."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.task: Callable[[], object] = int
        self.thread = threading.Thread(target=self._work)
        self.thread.start()

    def _work(self) -> None:
        self.go.wait()
        self.task()

    def do(self, task: Callable[[], object]) -> None:
        self.task = task
        self.go.set()


@pytest.fixture
def helper() -> Iterator[Helper]:
    made = Helper()
    yield made
    made.go.set()
    made.thread.join()


# -- time passes --------------------------------------------------------------------------------------------------


def test_hours_pass_at_once_and_exactly(virtually: Callable[..., Any]) -> None:
    def main() -> list[float]:
        times = [fibers.current_time()]
        for _ in range(1000):
            fibers.sleep(HOUR)
            times.append(fibers.current_time())
        return times

    assert virtually(main) == [HOUR * count for count in range(1001)]


def test_a_thousand_sleepers_wake_in_the_order_of_their_deadlines(virtually: Callable[..., Any]) -> None:
    woken: list[tuple[float, float]] = []

    def sleeper(seconds: float) -> None:
        fibers.sleep(seconds)
        woken.append((fibers.current_time(), seconds))

    def main() -> None:
        with fibers.TaskGroup() as group:
            for number in range(1000):
                group.spawn(sleeper, (number * 7919 % 1000) * 61.0)

    virtually(main)
    assert woken == [(seconds * 61.0, seconds * 61.0) for seconds in range(1000)]


def test_a_hundred_sleeps_to_one_deadline_wake_in_the_order_of_their_calls(virtually: Callable[..., Any]) -> None:
    woken: list[int] = []

    def sleeper(number: int) -> None:
        fibers.sleep(HOUR)
        woken.append(number)

    def main() -> float:
        with fibers.TaskGroup() as group:
            for number in range(100):
                group.spawn(sleeper, number)
        return fibers.current_time()

    assert virtually(main) == HOUR
    assert woken == list(range(100))


def timeout_scope() -> None:
    with pytest.raises(TimeoutError), fibers.timeout(HOUR):
        fibers.sleep(2 * HOUR)


def move_on() -> None:
    with fibers.move_on_after(HOUR) as scope:
        lowlevel.park()
    assert scope.cancelled_caught


def move_on_at() -> None:
    with fibers.move_on_at(fibers.current_time() + HOUR) as scope:
        fibers.spawn(lowlevel.park).join()
    assert scope.cancelled_caught


def join_timeout() -> None:
    fiber = fibers.spawn(lowlevel.park)
    with pytest.raises(TimeoutError):
        fiber.join(HOUR)


def park_timeout() -> None:
    with pytest.raises(TimeoutError):
        lowlevel.park(HOUR)


def later() -> None:
    assert fibers.spawn_later(HOUR, fibers.current_time).result() == fibers.current_time()


def memory_socket_timeout() -> None:
    left, right = testing.memory_pair()
    with left, right:
        left.settimeout(HOUR)
        with pytest.raises(TimeoutError):
            left.recv(1)


def scope_around_socket() -> None:
    left, right = testing.memory_pair()
    with left, right, fibers.move_on_after(HOUR), pytest.raises(TimeoutError):
        left.recv(1)


WAITS = [
    timeout_scope, move_on, move_on_at, join_timeout, park_timeout, later, memory_socket_timeout, scope_around_socket,
]  # fmt: skip


@pytest.mark.parametrize("wait", WAITS)
def test_every_kind_of_deadline_is_on_the_clock(virtually: Callable[..., Any], wait: Callable[[], None]) -> None:
    def main() -> float:
        fibers.sleep(1)
        before = fibers.current_time()
        wait()
        return fibers.current_time() - before

    assert virtually(main) == HOUR


def test_a_grace_is_on_the_clock(virtually: Callable[..., Any]) -> None:
    def stubborn() -> float:
        with fibers.shield():
            try:
                fibers.sleep(10 * HOUR)
            except fibers.Cancelled:
                return fibers.current_time()
        raise AssertionError("the shield outlived the grace")

    def main() -> float:
        with fibers.TaskGroup() as group:
            fiber = group.spawn(stubborn)
            fibers.sleep(1)
            group.cancel(grace=HOUR)
        return fiber.result()

    assert virtually(main) == HOUR + 1


def test_time_stands_still_while_a_fiber_can_run(virtually: Callable[..., Any]) -> None:
    def busy() -> float:
        for _ in range(1000):
            fibers.yield_now()
        return fibers.current_time()

    def main() -> tuple[float, float]:
        sleeper = fibers.spawn(fibers.sleep, 0.001)
        worked = fibers.spawn(busy).result()
        sleeper.join()
        return worked, fibers.current_time()

    assert virtually(main) == (0.0, 0.001)


def test_a_cancelled_timer_takes_no_time(virtually: Callable[..., Any]) -> None:
    def main() -> float:
        with fibers.move_on_after(HOUR):
            fibers.sleep(1)
        early = fibers.spawn(fibers.sleep, 5)
        fibers.sleep(1)
        early.cancel()
        early.join()
        return fibers.current_time()

    assert virtually(main) == 2.0


def test_far_and_near(virtually: Callable[..., Any]) -> None:
    def main() -> list[float]:
        times = []
        for seconds in (1e-9, 1e12, 0.0):
            fibers.sleep(seconds)
            times.append(fibers.current_time())
        return times

    near, far, same = virtually(main)
    assert near == 1e-9
    assert far == same == 1e12 + 1e-9


def test_the_clock_starts_where_it_is_told(virtually: Callable[..., Any]) -> None:
    def main() -> float:
        fibers.sleep(5)
        return fibers.current_time()

    assert virtually(main, VirtualClock(-2.0)) == 3.0


# -- real things ----------------------------------------------------------------------------------------------------


def test_time_stands_still_while_a_worker_thread_runs(virtually: Callable[..., Any], helper: Helper) -> None:
    started, go = threading.Event(), threading.Event()
    clock = VirtualClock()
    seen: list[float] = []

    def work() -> str:
        started.set()
        go.wait()
        return "worked"

    def watch() -> None:
        started.wait()
        seen.extend(clock() for _ in range(100_000))
        go.set()

    def main() -> tuple[float, str]:
        sleeper = fibers.spawn(fibers.sleep, HOUR)
        helper.do(watch)
        worked = to_thread(work)
        at = fibers.current_time()
        sleeper.join()
        return at, worked

    assert virtually(main, clock) == (0.0, "worked")
    assert set(seen) == {0.0}
    assert clock() == HOUR


def test_a_worker_that_nobody_waits_for_any_more_counts_until_it_ends(virtually: Callable[..., Any]) -> None:
    started, go = threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        go.wait()

    def main() -> float:
        fiber = fibers.spawn(to_thread, work, cancellable=True)
        fibers.yield_now()
        started.wait()
        fiber.cancel()
        fiber.join()
        fibers.spawn(to_thread, go.set)
        fibers.sleep(HOUR)
        return fibers.current_time()

    assert virtually(main) == HOUR


def test_time_stands_still_while_another_thread_runs(virtually: Callable[..., Any], helper: Helper) -> None:
    started, go = threading.Event(), threading.Event()
    clock = VirtualClock()
    seen: list[float] = []

    def work(fiber: "fibers.Fiber[Any]") -> None:
        started.set()
        go.wait()
        lowlevel.unpark(fiber)

    def watch() -> None:
        started.wait()
        seen.extend(clock() for _ in range(100_000))
        go.set()

    def main() -> float:
        sleeper = fibers.spawn(fibers.sleep, HOUR)
        helper.do(watch)
        thread = threading.Thread(target=work, args=(fibers.current(),))
        thread.start()
        lowlevel.park()
        at = fibers.current_time()
        sleeper.join()
        thread.join()
        return at

    assert virtually(main, clock) == 0.0
    assert set(seen) == {0.0}


def test_threads_may_be_left_out_of_account(virtually: Callable[..., Any]) -> None:
    go = threading.Event()

    def main() -> float:
        thread = threading.Thread(target=go.wait)
        thread.start()
        fibers.sleep(HOUR)
        go.set()
        thread.join()
        return fibers.current_time()

    assert virtually(main, VirtualClock(watch_threads=False)) == HOUR


def test_a_real_file_comes_before_any_deadline(virtually: Callable[..., Any], helper: Helper) -> None:
    """The peer is a thread, so its data needs real time; the timeout of the receiver is virtual."""

    def main() -> tuple[bytes, float]:
        left, right = socket.socketpair()
        with left, right:
            left.settimeout(5)
            sleeper = fibers.spawn(fibers.sleep, HOUR)
            fd = right.fileno()
            helper.do(lambda: os.write(fd, b"data"))
            data = left.recv(10)
            at = fibers.current_time()
            sleeper.cancel()
            sleeper.join()
            return data, at

    assert virtually(main) == (b"data", 0.0)


def test_a_file_that_never_comes_is_told_by_name(virtually: Callable[..., Any]) -> None:
    def main() -> str:
        left, right = socket.socketpair()
        with left, right:
            left.settimeout(5)
            reader = fibers.spawn(left.recv, 1, name="reader")
            fibers.spawn(fibers.sleep, HOUR)
            with pytest.raises(VirtualClockError) as told:
                reader.join()
            reader.cancel()
            return f"{left.fileno()} {told.value}"

    fd, text = virtually(main, VirtualClock(patience=0.05)).split(" ", 1)
    assert text.startswith("virtual time has stood still at 0.000000 for 0.05 real seconds: ")
    assert f"fiber 'reader' waits for fd {fd} (read)" in text
    assert "memory_pair" in text
    assert "spawned at" in text


def test_a_select_obeys_virtual_time(virtually: Callable[..., Any]) -> None:
    def main() -> float:
        channel: fibers.Channel[int] = fibers.Channel()
        hour = fibers.after(HOUR)
        assert fibers.select(channel.receiving(), hour) == (hour, None)
        with pytest.raises(TimeoutError):
            fibers.select(channel.receiving(), timeout=HOUR)
        with pytest.raises(TimeoutError):
            channel.receive(timeout=HOUR)
        return fibers.current_time()

    assert virtually(main) == 3 * HOUR


def test_time_stands_still_while_a_file_is_selected(virtually: Callable[..., Any], helper: Helper) -> None:
    def main() -> str:
        left, right = socket.socketpair()
        with left, right:
            case = fibers.readable(left)
            fd = right.fileno()
            helper.do(lambda: os.write(fd, b"data"))
            assert fibers.select(case, fibers.after(HOUR)) == (case, None)
            assert fibers.current_time() == 0.0
            left.recv(10)
            choice = fibers.spawn(fibers.select, case, fibers.after(HOUR), name="chooser")
            with pytest.raises(VirtualClockError) as told:
                choice.join()
            choice.cancel()
            choice.join()
            return f"{left.fileno()} {told.value}"

    fd, text = virtually(main, VirtualClock(patience=0.05)).split(" ", 1)
    assert f"fiber 'chooser' waits for one of: fd {fd} (read), 3600.0 seconds to pass" in text


def test_main_itself_is_told(virtually: Callable[..., Any]) -> None:
    def main() -> None:
        left, right = socket.socketpair()
        with left, right, pytest.raises(VirtualClockError, match=r"fiber 'main of \w+' waits for fd \d+ \(read\)"):
            left.recv(1)

    virtually(main, VirtualClock(patience=0.05))


def test_patience_begins_anew_whenever_something_happens(
    virtually: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each wait takes nearly as long as the patience, by a real time that the test makes; together they take longer."""
    real = [0.0]
    monkeypatch.setattr(virtual, "monotonic", lambda: real[0])

    def main() -> int:
        left, right = socket.socketpair()
        with left, right:
            fd = right.fileno()
            fibers.spawn(fibers.sleep, HOUR)
            received = 0
            for _ in range(8):
                feeder = threading.Thread(target=os.write, args=(fd, b"x"))
                feeder.start()
                received += len(left.recv(1))
                feeder.join()
                real[0] += 9.0
            return received

    assert virtually(main, VirtualClock(patience=10)) == 8


def test_a_thread_that_never_ends_is_told_by_name(virtually: Callable[..., Any]) -> None:
    go = threading.Event()

    def main() -> None:
        thread = threading.Thread(target=go.wait, name="lingers")
        thread.start()
        with pytest.raises(VirtualClockError, match="thread 'lingers' is alive"):
            fibers.sleep(HOUR)
        go.set()
        thread.join()

    virtually(main, VirtualClock(patience=0.05))


def test_where_nothing_can_happen_that_is_told(virtually: Callable[..., Any]) -> None:
    def main() -> None:
        with pytest.raises(VirtualClockError, match="nothing is left that could happen"):
            lowlevel.park()

    virtually(main, VirtualClock(patience=0.05))


@pytest.mark.parametrize("by", ["a worker", "a finaliser"])
def test_what_comes_at_the_last_moment_is_not_overtaken_by_time(
    virtually: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """A worker posts its result while the loop looks whether it is idle; a finaliser may run there as well."""
    parked: list[fibers.Fiber[Any]] = []

    def look() -> bool:
        if parked and by == "a worker":
            worker = threading.Thread(target=lowlevel.unpark, args=(parked.pop(),))
            worker.start()
            worker.join()
        elif parked:
            lowlevel.unpark(parked.pop())
        return False

    def main() -> float:
        monkeypatch.setattr(virtual, "under_way", look)
        with fibers.move_on_after(HOUR) as scope:
            parked.append(fibers.current())
            lowlevel.park()
        assert not scope.cancelled_caught
        return fibers.current_time()

    assert virtually(main) == 0.0


def test_deadlock_is_told_as_on_any_loop() -> None:
    script = """
import fibers
from fibers import testing

def main():
    fiber = fibers.spawn(lambda: first.join(), name="second")
    first = fibers.spawn(fiber.join, name="first")
    fibers.spawn(fibers.sleep, 3600)
    first.join()

try:
    testing.run(main, clock=testing.VirtualClock())
except fibers.DeadlockError as error:
    print("told", "first" in str(error))
"""
    child = run_python("-c", script)
    assert child.stdout == "told True\n", child.stderr


def test_ctrl_c_ends_a_wait_in_which_time_stands_still() -> None:
    script = """
import os, signal, threading
import fibers
from fibers import testing
from fibers.io import socket

def main():
    left, right = socket.socketpair()
    with left, right:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        left.recv(1)

try:
    testing.run(main, clock=testing.VirtualClock(patience=30, watch_threads=False))
except KeyboardInterrupt:
    print("interrupted")
"""
    child = run_python("-c", script)
    assert child.stdout == "interrupted\n", child.stderr


# -- by hand ----------------------------------------------------------------------------------------------------------


def test_advance_passes_every_deadline_in_its_time(virtually: Callable[..., Any]) -> None:
    clock = VirtualClock(auto=False)
    woken: list[tuple[str, float]] = []

    def ticker() -> None:
        while True:
            fibers.sleep(10)
            woken.append(("tick", fibers.current_time()))

    def once() -> None:
        fibers.sleep(25)
        woken.append(("once", fibers.current_time()))

    def main() -> None:
        fibers.spawn(ticker)
        fibers.spawn(once)
        clock.advance(9)
        assert woken == []
        clock.advance(1)
        assert woken == [("tick", 10.0)]
        clock.advance(22)

    virtually(main, clock)
    assert woken == [("tick", 10.0), ("tick", 20.0), ("once", 25.0), ("tick", 30.0)]
    assert clock() >= 32.0


def test_a_clock_that_is_moved_by_hand_does_not_move_itself(virtually: Callable[..., Any]) -> None:
    def main() -> None:
        with pytest.raises(VirtualClockError, match=r"auto=False.*advance\(\)"):
            fibers.sleep(1)

    clock = VirtualClock(auto=False, patience=0.05)
    virtually(main, clock)
    assert clock() >= 0.0


def test_advance_also_works_beside_jumps(virtually: Callable[..., Any]) -> None:
    clock = VirtualClock()

    def main() -> tuple[float, bool, bool]:
        near, far = fibers.spawn(fibers.sleep, 5), fibers.spawn(fibers.sleep, 50)
        clock.advance(10)
        return clock(), near.done(), far.done()

    assert virtually(main, clock) == (10.0, True, False)


def test_advance_is_for_the_thread_of_the_loop() -> None:
    with pytest.raises(RuntimeError, match="not the clock of the loop that runs in this thread"):
        VirtualClock().advance(1)
    clock = VirtualClock()
    testing.run(fibers.sleep, 1, clock=clock)
    with pytest.raises(RuntimeError, match="not the clock of the loop"):
        clock.advance(1)


# -- loops ------------------------------------------------------------------------------------------------------------


def test_the_loop_says_what_it_is() -> None:
    name = testing.run(lambda: get_scheduler().loop.name, clock=VirtualClock())
    assert name == f"virtual {'epoll' if BACKEND == 'libevent' else BACKEND}"


def test_run_takes_the_loop() -> None:
    """`fibers.run(loop=…)`, in a thread that has no loop yet."""
    times: list[float] = []

    def work() -> None:
        fibers.run(fibers.sleep, HOUR, loop=VirtualLoop(clock))
        times.append(clock())

    clock = VirtualClock()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert times == [HOUR]


def test_threads_have_clocks_of_their_own() -> None:
    times: dict[int, float] = {}

    def work(number: int) -> None:
        clock = VirtualClock(watch_threads=False)

        def main() -> None:
            for _ in range(100):
                fibers.sleep(number)

        testing.run(main, clock=clock)
        times[number] = clock()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert times == {number: number * 100.0 for number in range(1, 9)}


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="finite number of seconds, not at inf"):
        VirtualClock(float("inf"))
    with pytest.raises(ValueError, match="patience must be more than 0"):
        VirtualClock(patience=0)
    with pytest.raises(ValueError, match="patience must be 0 or more"):
        VirtualClock(patience=-1)
    with pytest.raises(TypeError, match="needs a VirtualClock, not 5"):
        VirtualLoop(5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="there is no event loop 'nope'"):
        VirtualLoop(VirtualClock(), "nope")


def test_a_clock_serves_one_loop() -> None:
    clock = VirtualClock()
    testing.run(fibers.sleep, 1, clock=clock)
    with pytest.raises(RuntimeError, match="is the clock of another loop"):
        testing.run(fibers.sleep, 1, clock=clock)
    assert clock() == 1.0


def test_advance_refuses_what_is_no_time() -> None:
    clock = VirtualClock()

    def main() -> None:
        for bad in (-1, float("nan")):
            with pytest.raises(ValueError, match="must be 0 or more seconds"):
                clock.advance(bad)
        with pytest.raises(ValueError, match="finite time only"):
            clock.advance(float("inf"))

    testing.run(main, clock=clock)
    assert clock() == 0.0
