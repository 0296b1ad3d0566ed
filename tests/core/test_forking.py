"""Fork: only the forking fiber lives on in the child, and the parent notices nothing.

Facts (hazard 11). Dropping the other fibers in the child would run their `finally` blocks there: a rollback, an unlink, a
goodbye on a shared socket. A DEL through the inherited epoll would remove the *parent's* registrations. And when the
forking fiber ends in the child, the stack below it is that of a main fiber that was somewhere else.

Every case is a script in a child process of its own: pytest runs threads beside a test, and these tests need a process
whose threads they know.
"""

import pytest
from support.process import run_python

COMMON = """
import os, signal, sys, threading, warnings
signal.alarm(30)  # neither a script nor its children, which inherit no alarm, outlive their test
os.register_at_fork(after_in_child=lambda: signal.alarm(30))
warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of forks beside threads: that is the test
import fibers
from fibers.io import socket

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def reap(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def lines(script: str, code: int = 0) -> list[str]:
    """What the script printed, sorted: parent and child write in no order."""
    child = run_python("-c", COMMON + script, timeout=30)
    assert child.returncode == code, child.stdout + child.stderr
    assert "Traceback" not in child.stderr, child.stderr
    return sorted(child.stdout.splitlines())


OTHERS = """
def other(name, wait):
    try:
        wait()
    finally:
        say(name, "unwound in", "parent" if os.getpid() == parent else "CHILD")

parent = os.getpid()
a, b = socket.socketpair()
for name, wait in {
    "sleeper": lambda: fibers.sleep(3600),
    "parked": fibers.lowlevel.park,
    "reader": lambda: a.recv(1),
    "joiner": fibers.current().join if False else (lambda: fibers.spawn(fibers.sleep, 3600).join()),
}.items():
    fibers.spawn(other, name, wait)
fibers.sleep(0.001)
"""
UNWOUND = [f"{name} unwound in parent" for name in ("joiner", "parked", "reader", "sleeper")]


def test_fork_from_main_runs_no_finally_of_others_in_the_child() -> None:
    """Hazard 11: the child keeps the greenlets of the others, referenced, and never resumes them."""
    script = """
pid = os.fork()
if not pid:
    import gc
    gc.collect()
    fibers.sleep(0.005)
    say("child has", len(fibers.all_fibers()), "fibers")
    sys.exit(5)
say("exit code", reap(pid))
"""
    assert lines(OTHERS + script) == sorted([*UNWOUND, "child has 0 fibers", "exit code 5"])


def test_fork_from_a_fiber_ends_the_child_with_the_fiber() -> None:
    """Hazard 11: control goes to the main greenlet, which raises SystemExit; exit functions run, `finally` of main too."""
    script = """
import atexit
def forker():
    pid = os.fork()
    if not pid:
        atexit.register(say, "exit function of the child")
        fibers.sleep(0.005)
        say("child goes on in the fiber, with", len(fibers.all_fibers()))
        return
    say("exit code", reap(pid))

fibers.spawn(forker).join()
say("main went on in", "parent" if os.getpid() == parent else "CHILD")
"""
    assert lines(OTHERS + script) == sorted(
        [
            *UNWOUND,
            "child goes on in the fiber, with 1",
            "exit code 0",
            "exit function of the child",
            "main went on in parent",
        ]
    )


def test_a_fiber_that_fails_in_the_child_gives_an_exit_code() -> None:
    script = """
import logging
logging.disable()
def forker():
    pid = os.fork()
    if not pid:
        fibers.yield_now()
        raise ValueError("in the child")
    say("exit code", reap(pid))

fibers.spawn(forker).join()
"""
    assert lines(script) == ["exit code 1"]


@pytest.mark.parametrize(("leave", "code"), [("sys.exit(7)", 7), ("os._exit(8)", 8), ("raise SystemExit", 0)])
def test_leaving_the_child_from_the_forking_fiber(leave: str, code: int) -> None:
    script = f"""
def forker():
    pid = os.fork()
    if not pid:
        {leave}
    say("exit code", reap(pid))

def main():
    fibers.spawn(forker).join()

fibers.run(main)
"""
    assert lines(script) == [f"exit code {code}"]


def test_fork_inside_run() -> None:
    """The child's `run` belongs to a main that was waiting: it is left with SystemExit and closes its loop."""
    script = """
def forker():
    pid = os.fork()
    if not pid:
        return
    say("exit code", reap(pid))

def main():
    other = fibers.spawn(fibers.sleep, 3600)
    fibers.spawn(forker).join()
    fibers.sleep(0.001)
    return "parent's result"

say(fibers.run(main))
"""
    assert lines(script) == ["exit code 0", "parent's result"]


def test_fork_from_another_thread() -> None:
    """The thread that forks is the child's main thread; its scheduler lives on, the main thread's does not."""
    script = """
def work():
    fibers.spawn(other, "of the thread", lambda: fibers.sleep(3600))
    fibers.sleep(0.001)
    pid = os.fork()
    if not pid:
        fibers.spawn(say, "child spawns").join()
        fibers.sleep(0.005)
        os._exit(len(fibers.all_fibers()))
    say("exit code", reap(pid))

thread = threading.Thread(target=work)
thread.start()
thread.join()
"""
    found = lines(OTHERS + script)
    assert found == sorted([*UNWOUND, "of the thread unwound in parent", "child spawns", "exit code 0"])


def test_fork_before_any_use() -> None:
    script = """
pid = os.fork()
fibers.run(lambda: fibers.spawn(fibers.sleep, 0.001).join())
if pid:
    say("exit code", reap(pid))
"""
    assert lines(script) == ["exit code 0"]


def test_the_parent_gets_its_events_after_the_child_registered_and_closed() -> None:
    """Row "fork": fds waiting in the parent; the child waits on the same fds, closes them all and ends."""
    script = """
pairs = [socket.socketpair() for _ in range(5)]
def reader(number, sock):
    say("parent reads", number, sock.recv(10).decode())

readers = [fibers.spawn(reader, number, near) for number, (near, _) in enumerate(pairs)]
fibers.sleep(0.001)
pid = os.fork()
if not pid:
    for near, far in pairs:
        near.settimeout(0.001)
        try:
            near.recv(1)
        except TimeoutError:
            pass
        near.close()
        far.close()
    own = socket.socketpair()
    fibers.spawn(own[0].sendall, b"x")
    assert own[1].recv(1) == b"x"
    os._exit(0)
say("exit code", reap(pid))
for _, far in pairs:
    fibers.sleep(0.001)
    far.sendall(b"hello")
for each in readers:
    each.join(5)
"""
    assert lines(script) == ["exit code 0", *[f"parent reads {number} hello" for number in range(5)]]


def test_the_child_waits_on_inherited_fds_for_itself() -> None:
    """A socket whose reader stayed in the parent can be waited for in the child; registered anew, in the child's epoll."""
    script = """
near, far = socket.socketpair()
fibers.spawn(near.recv, 1)
fibers.sleep(0.001)
pid = os.fork()
if not pid:
    fibers.spawn_later(0.005, far.sendall, b"x")
    say("child reads", near.recv(1).decode())
    os._exit(0)
say("exit code", reap(pid))
os._exit(0)
"""
    assert lines(script) == ["child reads x", "exit code 0"]


def test_wakes_from_threads_reach_the_parent_after_a_fork() -> None:
    """Row "fork": a child that closed the parent's waker or signal pipe would leave the parent deaf."""
    script = """
pid = os.fork()
if not pid:
    fibers.sleep(0.005)
    os._exit(0)
reap(pid)
me = fibers.current()
for _ in range(20):
    threading.Thread(target=fibers.lowlevel.unpark, args=(me,)).start()
    fibers.lowlevel.park(5)
say("still hears")
"""
    assert lines("fibers.sleep(0.001)\n" + script) == ["still hears"]


def test_timers_of_the_parents_fibers_do_not_fire_in_the_child() -> None:
    script = """
def late():
    fibers.sleep(0.01)
    say("fired in", "parent" if os.getpid() == parent else "CHILD")

parent = os.getpid()
fiber = fibers.spawn(late)
fibers.sleep(0.001)
pid = os.fork()
if not pid:
    fibers.sleep(0.03)
    assert fiber.done()
    os._exit(0)
fiber.join()
say("exit code", reap(pid))
"""
    assert lines(script) == ["exit code 0", "fired in parent"]


def test_a_fiber_of_the_parent_is_over_in_the_child() -> None:
    """Nothing hangs on it: it is done, and asking it for a result says what became of it."""
    script = """
fiber = fibers.spawn(fibers.sleep, 3600)
fibers.sleep(0.001)
pid = os.fork()
if not pid:
    fiber.join(5)
    fiber.cancel()
    fiber.kill()
    fiber.add_done_callback(lambda _: None)
    say(type(fiber.exception()).__name__, fiber.exception().__cause__)
    os._exit(0)
say("exit code", reap(pid))
"""
    assert lines(script) == ["FiberCancelled it lives on in the parent process only", "exit code 0"]


def test_forks_in_a_row() -> None:
    """A child that forks, from a fiber again: each generation has its own loop, each ends."""
    script = """
def generation(left):
    pid = os.fork()
    if not pid:
        fibers.sleep(0.001)
        if left:
            fibers.spawn(generation, left - 1).join()
        return
    say("generation", left, "ended with", reap(pid))

fibers.spawn(generation, 3).join()
"""
    assert lines(script) == [f"generation {left} ended with 0" for left in range(4)]
