"""How worker threads meet the end: of the interpreter, of a thread, of a process that has forked. All in child processes."""

import textwrap
import time

import pytest
from support.process import run_python

COMMON = """
import os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of forks beside threads: that is the test
import fibers
from fibers.threads import workers
signal.alarm(60)

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def reap(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def lines(script: str, code: int = 0) -> list[str]:
    ran = run_python("-c", COMMON + textwrap.dedent(script), timeout=70)
    assert ran.returncode == code, ran.stdout + ran.stderr
    assert ran.stderr == ""
    return ran.stdout.splitlines()


# -- the end of the interpreter ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cancellable", [False, True])
def test_a_busy_worker_that_nobody_waits_for_does_not_hold_up_the_end(cancellable: bool) -> None:
    started = time.monotonic()
    said = lines(
        f"""
        entered = threading.Event()
        def blocks():
            entered.set()
            time.sleep(50)
        def calls():
            try:
                fibers.to_thread(blocks, cancellable={cancellable})
            finally:
                say("unwound")
        fiber = fibers.spawn(calls)
        while not entered.is_set():
            fibers.sleep(0.001)
        {"fiber.cancel(); fiber.join()" if cancellable else "fiber.kill(); fiber.join()"}
        say("end")
        """
    )
    assert said == ["unwound", "end"]
    assert time.monotonic() - started < 30


def test_a_fiber_that_waits_for_a_busy_worker_gets_the_grace_of_all_fibers() -> None:
    """It cannot be told to stop; what goes on is named, and the program ends."""
    started = time.monotonic()
    ran = run_python(
        "-c",
        COMMON
        + textwrap.dedent(
            """
            entered = threading.Event()
            def blocks():
                entered.set()
                time.sleep(50)
            fibers.spawn(fibers.to_thread, blocks)
            while not entered.is_set():
                fibers.sleep(0.001)
            say("end")
            """
        ),
        timeout=40,
    )
    assert (ran.returncode, ran.stdout) == (0, "end\n")
    assert "fiber 'to_thread', spawned at <string>:18 in <module>, goes on after it was cancelled" in ran.stderr
    assert time.monotonic() - started < 30


def test_workers_that_finish_while_the_interpreter_ends() -> None:
    """Calls of all ages, over and over: no crash, no output, no hang."""
    for _ in range(3):
        assert lines(
            """
            def work(number):
                time.sleep(0.0001 * (number % 50))
            def give_up():
                with fibers.move_on_after(0.003):
                    with fibers.TaskGroup() as group:
                        for number in range(60):
                            group.spawn(fibers.to_thread, work, number, cancellable=True)
            give_up()
            say("end")
            """
        ) == ["end"]


def test_calls_by_exit_functions() -> None:
    """By workers that are there: some Pythons start no thread any more at this time."""
    assert lines(
        """
        import atexit
        fibers.to_thread(int)
        atexit.register(lambda: say(fibers.to_thread(lambda: threading.current_thread().name[:13])))
        """
    ) == ["fibers-worker"]


# -- the end of a thread ------------------------------------------------------------------------------------------------


def test_a_thread_that_ends_while_its_fiber_waits_for_a_worker() -> None:
    said = lines(
        """
        import logging
        logging.disable()  # that it goes on is said; see above
        entered, go = threading.Event(), threading.Event()
        def blocks():
            entered.set()
            go.wait(20)
            say("blocked to the end")
        def thread():
            fibers.spawn(fibers.to_thread, blocks)
            while not entered.is_set():
                fibers.sleep(0.001)
        threading.Thread(target=thread).start()
        entered.wait()
        while threading.active_count() > 2:
            time.sleep(0.01)
        go.set()
        while workers.under_way():
            time.sleep(0.001)
        say(fibers.to_thread(int), fibers.threads.to_thread.default_limiter.borrowed)
        """
    )
    assert said == ["blocked to the end", "0 0"]


# -- fork -----------------------------------------------------------------------------------------------------------------


def test_a_child_has_a_pool_of_its_own_and_free_tokens() -> None:
    said = lines(
        """
        go = threading.Event()
        limiter = fibers.CapacityLimiter(1)
        call = fibers.spawn(fibers.to_thread, go.wait, 20, limiter=limiter)
        fibers.sleep(0.01)
        with fibers.CapacityLimiter(2) as _:
            mine = fibers.CapacityLimiter(1)
            mine.acquire()
            pid = os.fork()
            if pid == 0:
                signal.alarm(30)
                assert not workers.under_way() and workers.count() == 0
                assert (limiter.borrowed, limiter.waiting, mine.borrowed) == (0, 0, 1)
                say("child", fibers.to_thread(pow, 2, 3, limiter=limiter), workers.count())
                mine.release()
                os._exit(7)
        assert reap(pid) == 7
        go.set()
        say("parent", call.result(20), limiter.borrowed)
        """
    )
    assert said == ["child 8 1", "parent True 0"]


def test_a_child_forked_by_a_fiber_that_is_not_main() -> None:
    said = lines(
        """
        def forks():
            pid = os.fork()
            if pid == 0:
                signal.alarm(30)
                say("child", fibers.to_thread(pow, 2, 3))
                return
            say("code", reap(pid))
        fibers.to_thread(int)
        fibers.spawn(forks).join()
        """
    )
    assert said == ["child 8", "code 0"]


def test_a_call_that_forks_ends_the_child_with_itself() -> None:
    """The child is the worker, and nothing else: it does not take up its parent's other calls, nor wake its fibers."""
    said = lines(
        """
        limiter = fibers.CapacityLimiter(1)
        def forks():
            pid = os.fork()
            if pid == 0:
                signal.alarm(30)
                say("child", fibers.from_thread.run.__name__)
                try:
                    fibers.from_thread.run(say, "never")
                except fibers.LoopClosedError:
                    say("the loop of the caller is in the parent")
                return "the child's result"
            return reap(pid)
        call = fibers.spawn(fibers.to_thread, forks, limiter=limiter)
        others = [fibers.spawn(fibers.to_thread, say, "other", number, limiter=limiter) for number in range(3)]
        say("code", call.result(20))
        for other in others:
            other.join()
        """
    )
    assert said[:2] == ["child run", "the loop of the caller is in the parent"]
    assert sorted(said[2:]) == ["code 0", "other 0", "other 1", "other 2"]


def test_forks_in_the_middle_of_everything() -> None:
    """While other threads submit, finish and cancel; each child makes calls of its own."""
    said = lines(
        """
        over = False
        def busy():
            def main():
                while not over:
                    with fibers.move_on_after(0.002), fibers.TaskGroup() as group:
                        for number in range(8):
                            group.spawn(fibers.to_thread, time.sleep, 0.0001 * number, cancellable=number % 2 == 0)
            fibers.run(main)
        threads = [threading.Thread(target=busy) for _ in range(2)]
        for thread in threads:
            thread.start()
        codes = []
        for _ in range(15):
            fibers.sleep(0.002)
            pid = os.fork()
            if pid == 0:
                signal.alarm(30)
                calls = [fibers.spawn(fibers.to_thread, pow, number, 2) for number in range(20)]
                os._exit(7 if [call.result(20) for call in calls] == [n * n for n in range(20)] else 1)
            codes.append(fibers.to_thread(reap, pid))
        over = True
        for thread in threads:
            thread.join()
        say(set(codes))
        """
    )
    assert said == ["{7}"]
