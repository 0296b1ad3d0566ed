"""How groups come to an end when it is not a failure: kill, KeyboardInterrupt, SystemExit, fork, the end of a thread.

Facts. What ends code from outside (a kill, a generator's or greenlet's exit) leaves a group bare, if nothing has failed
beside it. KeyboardInterrupt and SystemExit leave it bare in any case, after all children are done; what else has failed
is in the log then. A group leaves no garbage that only the collector would find.
"""

import gc
import sys
import threading
import weakref
from collections.abc import Generator
from typing import Any

import greenlet
import pytest
from support.process import run_python

import fibers

FOREVER = float("inf")


class Oops(Exception):
    pass


def fail(error: BaseException) -> None:
    raise error


def clean_up(steps: list[str]) -> None:
    try:
        fibers.sleep(FOREVER)
    finally:
        with fibers.shield():
            fibers.sleep(0.001)
        steps.append("cleaned up")


# -- from outside ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [fibers.FiberKilled(), greenlet.GreenletExit()])
@pytest.mark.parametrize("where", ["body", "end"])
def test_a_killed_owner_waits_for_its_children_and_goes(error: BaseException, where: str) -> None:
    steps: list[str] = []

    def owner() -> None:
        with fibers.TaskGroup() as group:
            group.spawn(clean_up, steps)
            if where == "body":
                fibers.sleep(FOREVER)
        steps.append("not reached")

    fiber = fibers.spawn(owner)
    fibers.yield_now()
    fibers.yield_now()
    fiber.kill(error)
    fiber.join(5)
    assert steps == ["cleaned up"]
    if isinstance(error, fibers.FiberKilled):
        assert fiber.cancelled()
    else:
        assert fiber.result() is None  # how greenlets say "stop"


def test_an_owner_killed_with_an_error_has_failed() -> None:
    def owner() -> None:
        with fibers.TaskGroup() as group:
            group.spawn(fibers.sleep, FOREVER)

    fiber = fibers.spawn(owner)
    fibers.yield_now()
    fibers.yield_now()
    fiber.kill(Oops("killed"))
    with pytest.raises(ExceptionGroup) as caught:
        fiber.result(5)
    assert [str(error) for error in caught.value.exceptions] == ["killed"]


def test_an_owner_killed_over_and_over_waits_all_the_same() -> None:
    steps: list[str] = []

    def owner() -> None:
        with fibers.TaskGroup() as group:
            group.spawn(clean_up, steps)

    fiber = fibers.spawn(owner)
    fibers.yield_now()
    fibers.yield_now()
    for number in range(3):
        fiber.kill(Oops(str(number)))
        fibers.yield_now()
        assert not fiber.done()
    with pytest.raises(ExceptionGroup) as caught:
        fiber.result(5)
    assert [str(error) for error in caught.value.exceptions] == ["0", "1", "2"]
    assert steps == ["cleaned up"]


def test_a_kill_beside_a_failure_is_in_the_group() -> None:
    def owner() -> None:
        with fibers.TaskGroup() as group:
            child = group.spawn(fibers.sleep, FOREVER)
            fibers.yield_now()
            child.kill(Oops("child"))
            fibers.current().kill()

    fiber = fibers.spawn(owner)
    with pytest.raises(BaseExceptionGroup) as caught:
        fiber.result(5)
    assert sorted(type(error).__name__ for error in caught.value.exceptions) == ["FiberKilled", "Oops"]


def test_a_generator_that_is_closed_inside_of_a_group() -> None:
    steps: list[str] = []

    def generate() -> Generator[int, None, None]:
        with fibers.TaskGroup() as group:
            group.spawn(clean_up, steps)
            fibers.yield_now()
            yield 1

    generator = generate()
    assert next(generator) == 1
    generator.close()
    assert steps == ["cleaned up"]
    assert fibers.current().scope is None


# -- urgent ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt("x"), SystemExit(3)])
def test_the_body_raises_an_urgent_error(error: BaseException) -> None:
    steps: list[str] = []
    with pytest.raises(type(error)) as caught:
        with fibers.TaskGroup() as group:
            group.spawn(clean_up, steps)
            fibers.yield_now()
            raise error
    assert caught.value is error
    assert steps == ["cleaned up"]


@pytest.mark.parametrize("error", [KeyboardInterrupt("x"), SystemExit(3)])
def test_a_child_raises_an_urgent_error(error: BaseException) -> None:
    """It goes the way of every error, through its group, and is not wrapped; main does not get it a second time."""
    steps: list[str] = []
    with pytest.raises(type(error)) as caught:
        with fibers.TaskGroup() as outer:
            with fibers.TaskGroup() as inner:
                outer.spawn(clean_up, steps)
                inner.spawn(clean_up, steps)
                fibers.yield_now()
                inner.spawn(fail, error)
    assert caught.value is error
    assert steps == ["cleaned up"] * 2
    for _ in range(3):
        fibers.yield_now()


def test_from_a_group_of_a_plain_fiber_it_goes_to_main() -> None:
    def owner() -> None:
        with fibers.TaskGroup() as group:
            group.spawn(fail, SystemExit(3))

    fiber = fibers.spawn(owner)
    with pytest.raises(SystemExit):
        fibers.sleep(FOREVER)
    assert fiber.done()


def test_what_fails_beside_it_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def fail_in_clean_up() -> None:
        try:
            fibers.sleep(FOREVER)
        finally:
            raise Oops("beside it")

    with pytest.raises(KeyboardInterrupt):
        with fibers.TaskGroup("works") as group:
            group.spawn(fail_in_clean_up)
            fibers.yield_now()
            raise KeyboardInterrupt
    assert "Oops of fiber" in caplog.text
    assert "TaskGroup 'works'" in caplog.text
    assert "beside it" in caplog.text


SIGNALS = """
import os, signal, sys, threading, time
import fibers

def child():
    try:
        fibers.sleep(60)
    finally:
        with fibers.shield():
            fibers.sleep(0.001)
        print("cleaned up")
"""


def test_ctrl_c_while_main_waits_at_the_end_of_a_group() -> None:
    ran = run_python(
        "-c",
        SIGNALS
        + """
def strike():
    fibers.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)
try:
    with fibers.TaskGroup() as group:
        group.spawn(child)
        group.spawn(strike)
except KeyboardInterrupt:
    print("main")
""",
        timeout=30,
    )
    assert (ran.stdout, ran.stderr) == ("cleaned up\nmain\n", "")


def test_ctrl_c_does_not_strike_between_two_steps_of_entering_and_leaving() -> None:
    """Wherever in this package main is struck, its scopes are left in order, and it gets the interrupt at its next wait."""
    ran = run_python(
        "-c",
        SIGNALS
        + """
fibers.sleep(0)
struck = 0
codes = set()
def trace(frame, event, arg):
    global struck
    if "fibers" + os.sep in frame.f_code.co_filename and event == "line" and armed:
        key = (frame.f_code.co_filename, frame.f_lineno)
        if key not in codes:
            codes.add(key)
            struck += 1
            sys.settrace(None)
            frame.f_trace = None
            armed.clear()
            signal.getsignal(signal.SIGINT)(signal.SIGINT, frame)  # as CPython does, at this line
            return None
    return trace

armed = []
rounds = caught = 0
while True:
    before = struck
    armed.append(1)
    rounds += 1
    try:
        sys.settrace(trace)
        try:
            with fibers.timeout(60):
                with fibers.TaskGroup() as group:
                    group.spawn(fibers.yield_now)
                    group.spawn(int).join()
            sys.settrace(None)
        finally:
            sys.settrace(None)
            armed.clear()
        fibers.sleep(0.0001)
    except KeyboardInterrupt:
        caught += 1
    except BaseExceptionGroup as error:
        print("wrapped", error)
    assert fibers.current().scope is None, (fibers.current().scope, struck)
    assert not fibers.all_fibers()
    fibers.yield_now()
    if struck == before:
        break
print("struck", struck > 40, "caught all", caught == struck)
""",
        timeout=60,
    )
    assert (ran.stdout, ran.stderr) == ("struck True caught all True\n", "")


# -- threads and forks ----------------------------------------------------------------------------------------------


def test_a_thread_that_ends_with_a_group_open_in_a_fiber() -> None:
    """Its fibers are cancelled, innermost first or not: each group waits for its own."""
    steps: list[str] = []

    def owner() -> None:
        try:
            with fibers.TaskGroup() as group:
                group.spawn(clean_up, steps)
        finally:
            steps.append("owner")

    def in_thread() -> None:
        fibers.spawn(owner)
        fibers.yield_now()
        fibers.yield_now()

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    assert steps == ["cleaned up", "owner"]


def test_run_that_ends_by_an_error_inside_of_a_group() -> None:
    steps: list[str] = []

    def main() -> None:
        with fibers.TaskGroup() as group:
            group.spawn(clean_up, steps)
            fibers.yield_now()
            raise Oops("main")

    with pytest.raises(ExceptionGroup):
        fibers.run(main)
    assert steps == ["cleaned up"]


FORK = """
import os, sys
import fibers

def reap(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def forked(script: str) -> str:
    ran = run_python("-c", FORK + script, timeout=30)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_fork_in_the_body_the_child_has_no_children_to_wait_for() -> None:
    out = forked("""
def main():
    with fibers.TaskGroup() as group:
        sleeper = group.spawn(fibers.sleep, 0.02)
        fibers.yield_now()
        pid = os.fork()
        if pid == 0:
            assert sleeper.done() and sleeper.cancelled()
            group.spawn(print, "child of the child", flush=True)
    if pid == 0:
        print("left", flush=True)
        os._exit(7)
    print("parent", reap(pid), sleeper.cancelled())
fibers.run(main)
""")
    assert out == "child of the child\nleft\nparent 7 False\n"


def test_fork_in_a_child_of_a_group_of_main() -> None:
    out = forked("""
def child():
    pid = os.fork()
    if pid == 0:
        with fibers.TaskGroup() as own:
            own.spawn(print, "own group", flush=True)
        return
    print("parent", reap(pid))

def main():
    with fibers.TaskGroup() as group:
        group.spawn(child)
        group.spawn(fibers.sleep, 0.01)
fibers.run(main)
""")
    assert out == "own group\nparent 0\n"


def test_a_failure_in_a_forked_child_of_a_group_is_seen() -> None:
    ran = run_python(
        "-c",
        FORK
        + """
def child():
    pid = os.fork()
    if pid == 0:
        raise KeyError("in the forked child")
    print("parent", reap(pid))

def owner():
    with fibers.TaskGroup() as group:
        group.spawn(child)

def main():
    with fibers.TaskGroup() as group:
        group.spawn(child if sys.argv[1] == "main" else owner)
fibers.run(main)
""",
        "main",
        timeout=30,
    )
    assert ran.stdout == "parent 1\n", ran.stderr
    assert "in the forked child" in ran.stderr


def test_a_failure_in_a_forked_child_whose_groups_owner_is_not_there() -> None:
    ran = run_python(
        "-c",
        FORK
        + """
def child():
    pid = os.fork()
    if pid == 0:
        assert fibers.current_deadline() == float("inf")
        raise KeyError("in the forked child")
    print("parent", reap(pid))

def owner():
    with fibers.timeout(60), fibers.TaskGroup() as group:
        group.spawn(child)

fibers.run(lambda: fibers.spawn(owner).join())
""",
        timeout=30,
    )
    assert ran.stdout == "parent 1\n", ran.stderr
    assert "in the forked child" in ran.stderr


def test_sys_exit_in_a_forked_child_of_a_group() -> None:
    out = forked("""
def child():
    pid = os.fork()
    if pid == 0:
        sys.exit(5)
    print("parent", reap(pid))

def main():
    with fibers.TaskGroup() as group:
        group.spawn(child)
fibers.run(main)
""")
    assert out == "parent 5\n"


def test_deadlines_hold_in_a_forked_child() -> None:
    """The timers of the loop are the parent's; the deadlines of the scopes that the child is in are not."""
    out = forked("""
def child():
    pid = os.fork()
    if pid == 0:
        with fibers.move_on_after(60) as inner:
            fibers.sleep(60)
        os._exit(9)
    print("parent", reap(pid))

def main():
    with fibers.move_on_after(0.05) as scope:
        pid = os.fork()
        fibers.sleep(60)
    if pid == 0:
        os._exit(3 if scope.cancelled_caught else 4)
    print("main", reap(pid))
    with fibers.move_on_after(0.2):
        with fibers.TaskGroup() as group:
            group.spawn(child)
fibers.run(main)
""")
    assert out == "main 3\nparent 0\n"


# -- garbage --------------------------------------------------------------------------------------------------------


def oops() -> None:
    raise Oops("child")


def plain() -> None:
    with fibers.TaskGroup() as group:
        group.spawn(int)
        group.spawn(fibers.yield_now)


def failing() -> None:
    with fibers.TaskGroup() as group:
        group.spawn(fibers.sleep, FOREVER)
        fibers.yield_now()
        group.spawn(oops)
        fibers.sleep(FOREVER)


def cancelled() -> None:
    with fibers.TaskGroup() as group:
        group.spawn(fibers.sleep, FOREVER)
        group.spawn(group.cancel)


def cancelled_from_outside() -> None:
    with fibers.move_on_after(0.001):
        with fibers.TaskGroup() as group:
            group.spawn(fibers.sleep, FOREVER)


def failing_body() -> None:
    with fibers.TaskGroup() as group:
        group.spawn(fibers.sleep, FOREVER)
        fibers.yield_now()
        raise Oops("body")


def urgent() -> None:
    with fibers.TaskGroup() as group:
        group.spawn(sys.exit, 1)
        fibers.sleep(FOREVER)


def killed() -> None:
    def owner() -> None:
        with fibers.TaskGroup() as group:
            group.spawn(fibers.sleep, FOREVER)

    fiber = fibers.spawn(owner)
    fibers.yield_now()
    fiber.kill()
    fiber.join()


def nested() -> None:
    with fibers.TaskGroup() as group:
        group.spawn(failing)


BLOCKS = [plain, failing, cancelled, cancelled_from_outside, failing_body, urgent, killed, nested]


@pytest.mark.parametrize("block", BLOCKS)
def test_no_garbage_for_the_collector(block: Any) -> None:
    def once() -> None:
        try:
            block()
        except (ExceptionGroup, SystemExit):
            pass

    once()
    fibers.yield_now()
    gc.collect()
    gc.disable()
    try:
        once()
        fibers.yield_now()
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_a_groups_error_refers_to_no_fiber_and_no_frame_of_ours() -> None:
    """What a child held is let go when the error is, and the error does not hold the group."""
    watched: list[weakref.ref[Any]] = []

    def child() -> None:
        fibers.sleep(FOREVER)

    def block() -> None:
        with fibers.TaskGroup() as group:
            watched.append(weakref.ref(group.spawn(child)))
            fibers.yield_now()
            raise Oops("body")

    error: BaseException | None = None
    try:
        block()
    except ExceptionGroup as caught:
        error = caught
    assert isinstance(error, ExceptionGroup)
    fibers.yield_now()
    assert watched[0]() is None


def test_tracebacks_show_the_code_of_users() -> None:
    def child() -> None:
        inner()

    def inner() -> None:
        raise Oops("deep")

    with pytest.raises(ExceptionGroup) as caught:
        with fibers.TaskGroup() as group:
            group.spawn(child)
    traceback = caught.value.exceptions[0].__traceback__
    found = []
    while traceback is not None:
        found.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    assert found == ["child", "inner"]
