"""A runtime of its own inside a thread that has one: nothing of either is seen in the other, and nothing is left."""

import signal
import threading

import pytest
from support.process import run_python

import fibers
from fibers import lowlevel, testing
from fibers.core.scheduler import get_scheduler, state
from fibers.testing import VirtualClock, leaks


class Oops(Exception):
    pass


def fail() -> None:
    raise Oops("on purpose")


def test_it_has_a_scheduler_of_its_own_and_puts_the_other_back() -> None:
    outer = get_scheduler()
    handler = signal.getsignal(signal.SIGINT)
    inner = testing.run(get_scheduler)
    assert inner is not outer
    assert inner.closed
    assert inner.loop.closed
    assert get_scheduler() is outer
    assert signal.getsignal(signal.SIGINT) == handler


def test_fibers_of_the_thread_stand_still_meanwhile() -> None:
    ran: list[str] = []
    fiber = fibers.spawn(ran.append, "outer")
    testing.run(lambda: fibers.spawn(ran.append, "inner").join())
    assert ran == ["inner"]
    fiber.join()
    assert ran == ["inner", "outer"]


def test_what_is_posted_meanwhile_is_kept() -> None:
    parked = fibers.spawn(lowlevel.park)
    fibers.yield_now()

    def main() -> None:
        thread = threading.Thread(target=lambda: lowlevel.unpark(parked))
        thread.start()
        thread.join()

    testing.run(main)
    assert not parked.done()
    parked.join()


def test_its_fibers_end_with_it() -> None:
    ended: list[bool] = []

    def live() -> None:
        try:
            fibers.sleep(3600)
        finally:
            ended.append(True)

    def main() -> None:
        fibers.spawn(live)
        fibers.yield_now()

    testing.run(main)
    assert ended == [True]


def test_it_leaves_nothing_behind() -> None:
    before = leaks.take()
    for clock in (None, VirtualClock()):
        testing.run(fibers.sleep, 0.0001, clock=clock)
        with pytest.raises(Oops):
            testing.run(fail, clock=None if clock is None else VirtualClock())
    assert leaks.check(before) == []


def test_results_and_errors_come_out() -> None:
    assert testing.run(pow, 2, 5) == 32
    with pytest.raises(Oops):
        testing.run(fail, seed=5)


def test_it_may_be_the_first_in_its_thread() -> None:
    seen: list[object] = []

    def work() -> None:
        seen.append(testing.run(fibers.current_time, clock=VirtualClock(7)))
        seen.append(state.scheduler)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [7.0, None]


def test_runs_nest_in_main_code() -> None:
    def main() -> tuple[float, float]:
        fibers.sleep(5)
        inner = testing.run(fibers.current_time, clock=VirtualClock(100))
        return inner, fibers.current_time()

    assert testing.run(main, clock=VirtualClock()) == (100.0, 5.0)


def test_fibers_run_may_be_called_inside() -> None:
    assert testing.run(lambda: fibers.run(fibers.current_time), clock=VirtualClock(3)) == 3.0


def test_it_refuses_to_begin_inside_a_fiber() -> None:
    fiber = fibers.spawn(testing.run, int)
    with pytest.raises(RuntimeError, match="cannot begin inside a fiber"):
        fiber.result()
    before = leaks.open_fds()
    fiber = fibers.spawn(lambda: testing.run(int, clock=VirtualClock()))
    assert isinstance(fiber.exception(), RuntimeError)
    assert leaks.open_fds() == before


def test_bad_input() -> None:
    with pytest.raises(TypeError, match="run\\(\\) takes a function, not 5"):
        testing.run(5)  # type: ignore[arg-type]


def test_ctrl_c_reaches_the_inner_main_and_then_the_outer_one() -> None:
    script = """
import os, signal, threading
import fibers
from fibers import testing
fibers.sleep(0)

def inner():
    me = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    me.start()
    fibers.spawn(fibers.sleep, 60)
    try:
        fibers.sleep(60)
    finally:
        me.join()

for attempt in (lambda: testing.run(inner), inner):
    try:
        attempt()
    except KeyboardInterrupt:
        print("interrupted", signal.getsignal(signal.SIGINT).__self__ is fibers.core.scheduler.state.scheduler)
"""
    child = run_python("-c", script)
    assert child.stdout == "interrupted True\ninterrupted True\n", child.stderr


def test_a_forked_child_may_come_back_to_the_outer_scheduler() -> None:
    """The loop that was set aside is the parent's: the child gets kernel objects of its own, the parent keeps its."""
    script = """
import os
import fibers
from fibers import testing
from fibers.io import socket

left, right = socket.socketpair()
parked = fibers.spawn(left.recv, 1)
fibers.yield_now()
pid = testing.run(os.fork)
if pid == 0:
    a, b = socket.socketpair()
    reader = fibers.spawn(a.recv, 1)
    fibers.yield_now()
    b.send(b"c")
    print("child", reader.result(), fibers.spawn(int).result(), parked.done(), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
fibers.sleep(0.001)
right.send(b"p")
print("parent", parked.result())
"""
    child = run_python("-c", script)
    assert child.stdout == "child b'c' 0 True\nparent b'p'\n", child.stdout + child.stderr
