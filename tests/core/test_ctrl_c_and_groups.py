"""Ctrl-C unwinds task groups: main gets it, its groups cancel their fibers and wait for them, and it comes out bare.

Facts. A group's fibers are cancelled, so their `finally` blocks run before the block of the group is left. Clean-up under a
shield is waited for. KeyboardInterrupt is not wrapped in an ExceptionGroup. All with a real kill(2), in processes of their
own.
"""

import textwrap

import pytest
from support.process import run_python

COMMON = '''
import math, os, signal, threading, time
import fibers

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

def interrupt_when_asleep():
    """Once all that there is has started, and main's loop sleeps."""
    loop = fibers.current().scheduler.loop
    def send():
        while not loop.asleep:
            time.sleep(0.001)
        interrupt()
    threading.Thread(target=send).start()

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def sleeper(name, seconds=1000):
    try:
        fibers.sleep(seconds)
    finally:
        with fibers.shield():
            fibers.sleep(0.001)
        say(name, "unwound")
'''


def lines(script: str, logged: str = "") -> list[str]:
    """What the script prints. It ends well, and logs nothing, or one record with `logged` in it."""
    ran = run_python("-c", COMMON + textwrap.dedent(script), timeout=30)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.count("was never retrieved") == bool(logged)
    assert logged in ran.stderr if logged else not ran.stderr
    return ran.stdout.splitlines()


WAITS = {
    "for the end of the group": "pass",
    "in a sleep without end": "fibers.sleep(math.inf)",
    "for a fiber of the group": "fiber.join()",
    "in a group inside": "with fibers.TaskGroup() as inner: inner.spawn(sleeper, 'inner')",
}


@pytest.mark.parametrize("where", WAITS)
def test_main_waits_and_the_loop_sleeps(where: str) -> None:
    """Nothing is due for hours: only the signal itself ends the kernel wait."""
    said = lines(
        f"""
        def main():
            with fibers.TaskGroup() as group:
                fiber = group.spawn(sleeper, "one")
                group.spawn(sleeper, "two")
                interrupt_when_asleep()
                {WAITS[where]}
        started = time.monotonic()
        try:
            fibers.run(main)
        except KeyboardInterrupt:
            say("main", time.monotonic() - started < 15)
        """
    )
    unwound = ["one unwound", "two unwound", *(["inner unwound"] if "inside" in where else [])]
    assert sorted(said[:-1]) == sorted(unwound)
    assert said[-1] == "main True"


def test_main_computes_in_the_block() -> None:
    said = lines(
        """
        try:
            with fibers.TaskGroup() as group:
                group.spawn(sleeper, "one")
                fibers.yield_now()
                interrupt()
                while True:
                    pass
        except KeyboardInterrupt:
            say("main")
        """
    )
    assert said == ["one unwound", "main"]


def test_a_fiber_of_the_group_computes() -> None:
    said = lines(
        """
        def computes():
            interrupt()
            for _ in range(1000):
                pass
            say("computed")
            fibers.sleep(1000)
        try:
            with fibers.TaskGroup() as group:
                group.spawn(sleeper, "one")
                group.spawn(computes)
        except KeyboardInterrupt:
            say("main")
        """
    )
    assert said == ["computed", "one unwound", "main"]


def test_groups_in_fibers_are_unwound_from_outside_in() -> None:
    said = lines(
        """
        def branch(name, depth):
            try:
                with fibers.TaskGroup() as group:
                    if depth:
                        group.spawn(branch, name + ".1", depth - 1)
                        group.spawn(branch, name + ".2", depth - 1)
                    else:
                        group.spawn(sleeper, name)
            finally:
                say(name, "left")
        try:
            interrupt_when_asleep()
            with fibers.TaskGroup() as group:
                group.spawn(branch, "1", 2)
        except KeyboardInterrupt:
            say("main")
        """
    )
    assert said[-2:] == ["1 left", "main"]
    assert len(said) == 4 + 7 + 1
    for inner in ("1.1", "1.2"):
        assert said.index(f"{inner}.1 left") < said.index(f"{inner} left")
        assert said.index(f"{inner}.2 unwound") < said.index(f"{inner}.2 left")


def test_errors_of_fibers_that_unwind_do_not_hide_it() -> None:
    said = lines(
        """
        def fails():
            try:
                fibers.sleep(1000)
            finally:
                raise ValueError("while unwinding")
        try:
            interrupt_when_asleep()
            with fibers.TaskGroup() as group:
                group.spawn(fails)
        except KeyboardInterrupt:
            say("main")
        """,
        logged="ValueError: while unwinding",
    )
    assert said == ["main"]


def test_twice_and_the_second_does_not_cut_the_unwinding_short() -> None:
    """Who cleans up under a shield is waited for; the group stays whole."""
    said = lines(
        """
        def slow():
            try:
                fibers.sleep(1000)
            finally:
                with fibers.shield():
                    interrupt()
                    fibers.sleep(0.05)
                say("slow unwound")
        try:
            interrupt_when_asleep()
            with fibers.TaskGroup() as group:
                group.spawn(slow)
        except KeyboardInterrupt:
            say("main", len(group._children))
        """
    )
    assert said == ["slow unwound", "main 0"]


THREADS = {
    "a call in a worker": "fibers.to_thread(blocks)",
    "a token": "fibers.to_thread(int, limiter=full)",
    "a future": "executor.submit(blocks).result()",
    "a call elsewhere": "thread.run_sync(fibers.sleep, 1000)",
    "the end of a thread": "thread.join()",
    "a signal": "signals.receive()",
}


@pytest.mark.parametrize("what", THREADS)
def test_main_waits_for_other_threads(what: str) -> None:
    """Ctrl-C comes at once; a call that cannot be stopped is given up."""
    said = lines(
        f"""
        go = threading.Event()
        def blocks():
            go.wait(20)
        full = fibers.CapacityLimiter(1)
        full.acquire_for(object())
        executor = fibers.ThreadPoolExecutor(1)
        thread = fibers.FiberThread(sleeper, "elsewhere")
        thread.start()
        started = time.monotonic()
        with fibers.open_signal_receiver(signal.SIGUSR1) as signals:
            try:
                interrupt_when_asleep()
                {THREADS[what]}
            except KeyboardInterrupt:
                say("main", time.monotonic() - started < 10)
        go.set()
        thread.stop()
        thread.join()
        executor.shutdown()
        """
    )
    assert said == ["main True", "elsewhere unwound"]


def test_groups_of_other_threads_go_on() -> None:
    said = lines(
        """
        def works():
            with fibers.TaskGroup() as group:
                group.spawn(sleeper, "elsewhere", 0.15)
            say("done")
        with fibers.FiberThread() as thread:
            thread.spawn(works)
            try:
                interrupt_when_asleep()
                fibers.sleep(20)
            except KeyboardInterrupt:
                say("main")
        """
    )
    assert said == ["main", "elsewhere unwound", "done"]
