"""Deadlock: reported where it is certain, and only there. And `dump()`, the same picture of a program that is well.

Each program runs in a process of its own: it must have no thread but its main one. Where it must *not* be reported, the
program goes on and prints "went on", or stands still until the alarm ends it.
"""

import signal
import textwrap
from subprocess import CompletedProcess

import pytest
from support.process import run_python

CYCLE = """
    def left():
        right_fiber.join()

    def right():
        left_fiber.join()

    left_fiber = fibers.spawn(left)
    right_fiber = fibers.spawn(right)
"""
ALARM = "signal.setitimer(signal.ITIMER_REAL, 0.5)"


def program(body: str, mode: str | None = None) -> CompletedProcess[str]:
    code = "import os, signal, sys, threading\nimport fibers\nfrom fibers import lowlevel\n" + textwrap.dedent(body)
    return run_python("-c", code, timeout=30, env={} if mode is None else {"FIBERS_DEADLOCK": mode})


def test_fibers_that_join_each_other() -> None:
    ran = program(CYCLE + "\n    left_fiber.join()")
    assert ran.returncode == 1
    last = ran.stderr[ran.stderr.index("DeadlockError") :]
    assert "every fiber waits, and nothing can wake one" in last
    assert "fiber 'left' has waited 0.0" in last
    assert "s for the end of fiber 'right'" in last
    assert "<string>:6 in left\n      spawned at <string>:11 in <module>" in last
    assert "fiber 'main of MainThread' has waited" in last


def test_fibers_of_a_group() -> None:
    ran = program(
        """
        try:
            with fibers.TaskGroup("pair") as group:
                first = group.spawn(lambda: second.join(), name="first")
                second = group.spawn(lambda: first.join(), name="second")
        except* fibers.DeadlockError as caught:
            print(first.cancelled(), second.cancelled(), caught.exceptions[0])
        """
    )
    assert ran.stdout.startswith("True True every fiber waits"), ran.stderr
    assert "for <TaskGroup 'pair'" in ran.stdout


def test_it_is_found_after_the_last_timer() -> None:
    ran = program(CYCLE + "    fibers.spawn_later(0.05, print, 'late')\n    left_fiber.join()")
    assert ran.stdout == "late\n"
    assert "DeadlockError" in ran.stderr


def test_it_is_found_beside_idle_workers() -> None:
    """Their threads are there, but nothing can come of them."""
    ran = program(
        "from fibers.threads import to_thread\nto_thread(int)\n" + textwrap.dedent(CYCLE) + "left_fiber.join()"
    )
    assert "DeadlockError" in ran.stderr


def test_main_can_catch_it_and_go_on() -> None:
    ran = program(
        CYCLE
        + """
    try:
        left_fiber.join()
    except fibers.DeadlockError:
        left_fiber.cancel()
    right_fiber.join()
    print("went on")
    """
    )
    assert ran.stdout == "went on\n", ran.stderr


STILL_POSSIBLE = {
    "a timer": "fibers.spawn_later(0.05, left_fiber.cancel)",
    "a file": """
        there, here = os.pipe()
        def reader():
            lowlevel.wait_readable(there)
            left_fiber.cancel()
        fibers.spawn(reader)
        if os.fork() == 0:
            os.write(here, b"x")
            os._exit(0)
    """,
    "a thread": """
        gate = threading.Event()
        def helper():
            gate.wait()
            left_fiber.cancel()
        threading.Thread(target=helper).start()
        real_turn = fibers.deadlock.Watch.__call__
        def turn(self):
            real_turn(self)
            gate.set()
        fibers.deadlock.Watch.__call__ = turn
    """,
    "a worker": """
        from fibers.threads import to_thread
        def ask():
            to_thread(int)
            left_fiber.cancel()
        fibers.spawn(ask)
    """,
    "a handler": """
        signal.signal(signal.SIGALRM, lambda *_: left_fiber.cancel())
        signal.setitimer(signal.ITIMER_REAL, 0.1)
    """,
}


@pytest.mark.parametrize("outside", STILL_POSSIBLE)
def test_no_alarm_while_something_can_wake_a_fiber(outside: str) -> None:
    body = (
        textwrap.dedent(CYCLE) + textwrap.dedent(STILL_POSSIBLE[outside]) + "\nright_fiber.join()\nprint('went on')\n"
    )
    ran = program(body)
    assert (ran.stdout, ran.stderr) == ("went on\n", "")


INTENDED = {
    "main sleeps without end": "fibers.sleep(float('inf'))",
    "a fiber sleeps without end": "fibers.spawn(fibers.sleep, float('inf')).join()",
    "main is parked": "lowlevel.park()",
    "a fiber is parked": "fibers.spawn(lowlevel.park).join()",
    "a C library has a thread": """
        import ctypes
        libc = ctypes.CDLL(None)
        thread = ctypes.c_ulong()
        assert libc.pthread_create(ctypes.byref(thread), None, ctypes.cast(libc.sleep, ctypes.c_void_p), 1000) == 0
        left_fiber.join()
    """,
}


@pytest.mark.parametrize("intention", INTENDED)
def test_no_alarm_where_it_may_be_intended(intention: str) -> None:
    ran = program(textwrap.dedent(CYCLE) + ALARM + "\n" + textwrap.dedent(INTENDED[intention]))
    assert (ran.returncode, ran.stderr) == (-signal.SIGALRM, "")


@pytest.mark.parametrize(("mode", "told"), [("log", True), ("off", False)])
def test_the_switch(mode: str, told: bool) -> None:
    ran = program(textwrap.dedent(CYCLE) + ALARM + "\nleft_fiber.join()", mode)
    assert ran.returncode == -signal.SIGALRM
    assert ran.stderr.count("every fiber waits") == told


def test_an_unknown_mode_is_refused() -> None:
    ran = program("", "never")
    assert ran.returncode == 1
    assert "FIBERS_DEADLOCK='never' is not known; use one of error, log, off" in ran.stderr


def test_dump_tells_what_each_fiber_does() -> None:
    ran = program(
        """
        from fibers.io import socket
        ours, theirs = socket.socketpair()

        def reads():
            ours.recv(1)

        def sleeps():
            fibers.sleep(60)

        def main():
            fibers.spawn(reads, name="reader")
            fibers.spawn(sleeps)
            fibers.yield_now()
            fibers.spawn(sleeps, name="new")
            fibers.dump(sys.stdout)

        fibers.run(main)
        """
    )
    assert ran.stderr == ""
    lines = [line.strip() for line in ran.stdout.splitlines()]
    assert lines[0].endswith("event loop: 3 fibers and main")
    assert lines[1] == "fiber 'main of MainThread' runs"
    at = {line.split("'")[1]: line for line in lines if line.startswith("fiber")}
    assert " s for fd " in at["reader"]
    assert at["reader"].endswith("(read)")
    assert at["sleeps"].endswith("for its time to come")
    assert at["new"] == "fiber 'new' has not started"
    assert "at <string>:9 in reads" in lines
