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
ALARM = "signal.setitimer(signal.ITIMER_REAL, 0.15)"


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
        "from fibers.threads.to_thread import to_thread\nto_thread(int)\n"
        + textwrap.dedent(CYCLE)
        + "left_fiber.join()"
    )
    assert "DeadlockError" in ran.stderr


def test_it_is_found_beside_the_idle_workers_of_an_executor() -> None:
    ran = program(
        "executor = fibers.ThreadPoolExecutor(2)\nexecutor.submit(int).result()\n"
        + textwrap.dedent(CYCLE)
        + "left_fiber.join()"
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


def test_each_wait_that_can_never_end_raises() -> None:
    ran = program(
        CYCLE
        + """
    for _ in range(3):
        try:
            left_fiber.join()
        except fibers.DeadlockError:
            print("told")
    """
    )
    assert ran.stdout == "told\n" * 3, ran.stderr


@pytest.mark.parametrize(
    "wait", ["right_fiber.result()", "fibers.wait([left_fiber])", "fibers.gather(left_fiber, right_fiber)",
             "list(fibers.as_completed([left_fiber]))", "fibers.run(left_fiber.join)"],
)  # fmt: skip
def test_wherever_main_waits_for_fibers(wait: str) -> None:
    ran = program(CYCLE + f"    {wait}")
    assert ran.returncode == 1
    assert "DeadlockError: every fiber waits" in ran.stderr


def test_starting_what_never_starts() -> None:
    ran = program(
        """
        def service(started):
            fibers.current().scheduler.main.join()

        with fibers.TaskGroup() as group:
            group.start(service)
        """
    )
    assert "DeadlockError: every fiber waits" in ran.stderr
    assert "for the end of fiber 'main of MainThread'" in ran.stderr
    assert "for the end of fiber 'service'" in ran.stderr


def test_fibers_behind_shields_give_way_in_the_end() -> None:
    """The group is cancelled, and they wait for each other all the same: then no shield holds."""
    ran = program(
        """
        def wait_for(other):
            with fibers.shield():
                everybody[other].join()

        everybody = []
        try:
            with fibers.TaskGroup() as group:
                everybody += [group.spawn(wait_for, 1), group.spawn(wait_for, 0)]
        except* fibers.DeadlockError as caught:
            print(len(caught.exceptions), [fiber.cancelled() for fiber in everybody])
        """
    )
    assert ran.stdout == "2 [True, True]\n", ran.stderr


def test_fibers_in_groups_far_inside() -> None:
    ran = program(
        """
        def nest(depth):
            with fibers.TaskGroup(f"level {depth}") as group:
                group.spawn(nest, depth - 1) if depth else group.spawn(fibers.current().join)

        fibers.spawn(nest, 3).join()
        """
    )
    assert "DeadlockError: every fiber waits" in ran.stderr
    for depth in range(4):
        assert f"for <TaskGroup 'level {depth}' 1 fibers left>" in ran.stderr


def test_a_report_with_an_object_that_cannot_be_shown() -> None:
    ran = program(
        """
        from fibers.core.waitqueue import WaitQueue

        class Broken:
            def __repr__(self):
                raise KeyError("no repr")

        def wait():
            queue.add(fibers.current(), Broken())
            fibers.current().scheduler.park(fibers.current(), queue)

        queue = WaitQueue()
        fibers.spawn(wait).join()
        """
    )
    assert "DeadlockError: every fiber waits" in ran.stderr
    assert "Broken object at" in ran.stderr
    assert "(its repr raises KeyError)" in ran.stderr


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
        from fibers.threads.to_thread import to_thread
        def ask():
            to_thread(int)
            left_fiber.cancel()
        fibers.spawn(ask)
    """,
    "a thread with fibers of its own": """
        def helper():
            fibers.sleep(0.05)
            left_fiber.cancel()
        threading.Thread(target=helper).start()
    """,
    "a daemon thread": """
        import time
        def helper():
            time.sleep(0.05)
            left_fiber.cancel()
        threading.Thread(target=helper, daemon=True).start()
    """,
    "a socket": """
        from fibers.io import socket
        ours, theirs = socket.socketpair()
        def reader():
            ours.recv(1)
            left_fiber.cancel()
        fibers.spawn(reader)
        if os.fork() == 0:
            theirs.send(b"x")
            os._exit(0)
    """,
    "a socket with a timeout": """
        from fibers.io import socket
        ours, theirs = socket.socketpair()
        def reader():
            ours.settimeout(0.05)
            try:
                ours.recv(1)
            except TimeoutError:
                left_fiber.cancel()
        fibers.spawn(reader)
    """,
    "a deadline": """
        def wait():
            with fibers.move_on_after(0.05):
                right_fiber.join()
            left_fiber.cancel()
        fibers.spawn(wait)
    """,
    "a fiber that runs": """
        def run():
            for _ in range(200):
                fibers.yield_now()
            left_fiber.cancel()
        fibers.spawn(run)
    """,
    "a post": """
        left_fiber.scheduler.post(left_fiber.cancel)
    """,
    "a worker of an executor": """
        import time
        def ask():
            executor.submit(time.sleep, 0.05).result()
            left_fiber.cancel()
        executor = fibers.ThreadPoolExecutor(2)
        fibers.spawn(ask)
    """,
    "a call that was given up": """
        import time
        def late():
            time.sleep(0.1)
            portal.spawn(left_fiber.cancel)
        portal = fibers.Portal()
        with fibers.move_on_after(0.01):
            fibers.to_thread(late, cancellable=True)
    """,
    "a future of others": """
        from concurrent.futures import Future
        future = Future()
        def ask():
            fibers.wait_future(future)
            left_fiber.cancel()
        fibers.spawn(ask)
        fibers.spawn_later(0.05, threading.Timer(0.05, future.set_result, (1,)).start)
    """,
    "a receiver of signals": """
        receiver = fibers.open_signal_receiver(signal.SIGALRM)
        receiver.__enter__()
        def ask():
            next(receiver)
            left_fiber.cancel()
        fibers.spawn(ask)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
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


BARE = """
        from fibers.core.waitqueue import WaitQueue
        queue = WaitQueue()
        main = fibers.current()
        queue.add(main, "an event")
"""
INTENDED = {
    "a fiber among them sleeps without end": """
        fibers.spawn(fibers.sleep, float("inf"))
        left_fiber.join()
    """,
    "a fiber among them is parked": """
        fibers.spawn(lowlevel.park)
        left_fiber.join()
    """,
    "a fiber waits for a file": """
        there, here = os.pipe()
        fibers.spawn(lowlevel.wait_readable, there)
        left_fiber.join()
    """,
    "a thread waits as well": """
        import time
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
        left_fiber.join()
    """,
    "a handler is installed": """
        signal.signal(signal.SIGUSR1, lambda *_: None)
        left_fiber.join()
    """,
    "SIGINT has a handler of the program's own": """
        signal.signal(signal.SIGINT, lambda *_: None)
        left_fiber.join()
    """,
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


@pytest.mark.parametrize("alone", [True, False])
def test_a_main_in_a_bare_wait_is_left_alone(alone: bool) -> None:
    """`Event().wait()` until Ctrl-C keeps a program alive. The picture goes into the log; with fibers, as a warning."""
    body = textwrap.dedent(BARE) + "main.scheduler.park(main, queue)\n"
    if not alone:
        body = textwrap.dedent(CYCLE) + body
    ran = program("import logging; logging.basicConfig(level=logging.INFO)\n" + ALARM + "\n" + body)
    assert ran.returncode == -signal.SIGALRM
    assert ran.stderr.count("every fiber waits, and nothing can wake one") == 1
    assert ("INFO:fibers:every" if alone else "WARNING:fibers:every") in ran.stderr
    assert "fiber 'main of MainThread' has waited" in ran.stderr
    assert "for 'an event'" in ran.stderr
    assert "DeadlockError" not in ran.stderr


def test_after_a_bare_wait_a_deadlock_is_found_all_the_same() -> None:
    ran = program(
        textwrap.dedent(CYCLE)
        + textwrap.dedent(BARE)
        + textwrap.dedent("""
        import time
        def interrupt():
            os.kill(os.getppid(), signal.SIGINT)
        pid = os.fork()
        if pid == 0:
            time.sleep(0.2)
            interrupt()
            os._exit(0)
        try:
            main.scheduler.park(main, queue)
        except KeyboardInterrupt:
            print("woken")
        left_fiber.join()
        """)
    )
    assert ran.stdout == "woken\n"
    assert "DeadlockError: every fiber waits" in ran.stderr


def test_another_threads_deadlock_is_not_looked_for() -> None:
    """Where there is one thread beside the main thread, there are two: somebody may come."""
    ran = program(
        ALARM
        + """
        def in_thread():
            first = fibers.spawn(lambda: second.join())
            second = fibers.spawn(lambda: first.join())
            first.join()
        threading.Thread(target=in_thread, daemon=True).start()
        fibers.sleep(float("inf"))
        """.replace("\n        ", "\n")
    )
    assert (ran.returncode, ran.stderr) == (-signal.SIGALRM, "")


def test_a_program_that_waits_for_files_pays_one_look() -> None:
    """Once a fiber that waits for a file has been found, nothing else is looked at while it waits."""
    ran = program(
        """
        import time
        from fibers.io import socket
        looks = 0
        count = fibers.deadlock.count_threads
        def counting():
            global looks
            looks += 1
            return count()
        fibers.deadlock.count_threads = counting
        ours, theirs = socket.socketpair()
        if os.fork() == 0:
            for _ in range(20):
                theirs.send(b"x")
                time.sleep(0.002)
            os._exit(0)
        theirs.close()
        turns = fibers.current().scheduler.loop.stats.turns
        while ours.recv(1):
            pass
        print(looks, fibers.current().scheduler.loop.stats.turns - turns > 10)
        """
    )
    assert ran.stdout == "1 True\n", ran.stderr


def test_the_hook_can_be_shared() -> None:
    """Who wants to be called when the loop is about to sleep calls the one that was there."""
    ran = program(
        CYCLE
        + """
    class Hook:
        def __init__(self, following):
            self.following = following
            self.calls = 0
        def __call__(self):
            self.calls += 1
            if self.calls == 1:
                lowlevel.unpark(waiting)  # it may make somebody ready
            else:
                self.following()

    waiting = fibers.spawn(lowlevel.park)
    scheduler = fibers.current().scheduler
    hook = scheduler.on_idle = Hook(scheduler.on_idle)
    try:
        left_fiber.join()
    except fibers.DeadlockError:
        print(waiting.done(), hook.calls)
    scheduler.on_idle = hook.following
    """
    )
    assert ran.stdout == "True 2\n", ran.stderr


@pytest.mark.parametrize(("mode", "told"), [("log", True), ("off", False), ("", None)])
def test_the_switch(mode: str, told: bool | None) -> None:
    ran = program(textwrap.dedent(CYCLE) + ALARM + "\nleft_fiber.join()", mode)
    if told is None:  # as unset
        assert "DeadlockError: every fiber waits" in ran.stderr
        return
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


def test_dump_from_a_signal_handler_while_the_loop_sleeps() -> None:
    ran = program(
        """
        def sleeps():
            fibers.sleep(60)

        def handler(*_):
            fibers.dump(sys.stdout)
            os._exit(0)

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        fibers.spawn(sleeps)
        sys.stdout.reconfigure(write_through=True)
        fibers.sleep(30)
        """
    )
    assert "event loop: 1 fibers and main" in ran.stdout, ran.stderr
    assert "fiber 'main of MainThread' has waited" in ran.stdout
    assert "fiber 'sleeps' has waited" in ran.stdout
    assert "in sleeps" in ran.stdout
    assert "in <module>" in ran.stdout


def test_dump_from_a_signal_handler_in_the_middle_of_a_write() -> None:
    """Python's buffered files refuse a second writer of the same thread; a dump comes out all the same."""
    ran = program(
        """
        import io

        class Slow(io.RawIOBase):
            def writable(self):
                return True
            def write(self, data):
                if not handled:
                    handled.append(1)
                    signal.raise_signal(signal.SIGALRM)
                return os.write(1, data)

        handled = []
        signal.signal(signal.SIGALRM, lambda *_: fibers.dump())
        fibers.sleep(0)
        sys.stderr = io.TextIOWrapper(io.BufferedWriter(Slow()), write_through=True)
        sys.stderr.write("text\\n")
        sys.stderr.flush()
        os._exit(0)
        """
    )
    assert "text" in ran.stdout, ran.stderr
    assert "fiber 'main of MainThread' runs" in ran.stderr


def test_dump_from_another_thread() -> None:
    ran = program(
        """
        def sleeps():
            fibers.sleep(60)

        def helper():
            while not loop.asleep:
                pass
            fibers.dump(sys.stdout)
            sys.stdout.flush()
            os._exit(0)

        fibers.spawn(sleeps)
        loop = fibers.current().scheduler.loop
        threading.Thread(target=helper).start()
        fibers.sleep(30)
        """
    )
    assert "event loop: 1 fibers and main" in ran.stdout, ran.stderr
    assert "fiber 'main of MainThread' has waited" in ran.stdout
    assert "at <string>:6 in sleeps" in ran.stdout
    assert "in <module>" in ran.stdout


def test_dump_of_several_threads_while_they_come_and_go() -> None:
    ran = program(
        """
        import io

        def short():
            fibers.spawn(fibers.sleep, 0.001)
            fibers.sleep(0.001)

        def come_and_go():
            while not stop:
                thread = threading.Thread(target=short)
                thread.start()
                thread.join()

        stop = []
        threads = [threading.Thread(target=come_and_go) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(100):
            fibers.dump(io.StringIO())
            fibers.all_fibers()
            fibers.sleep(0.0005)
        stop.append(1)
        for thread in threads:
            thread.join()
        print("well")
        """
    )
    assert (ran.stdout, ran.stderr) == ("well\n", "")


def test_dump_cuts_deep_stacks() -> None:
    ran = program(
        """
        def deep(depth):
            deep(depth - 1) if depth else fibers.sleep(60)

        def main():
            fibers.spawn(deep, 100, name="deep")
            fibers.yield_now()
            fibers.dump(sys.stdout)

        fibers.run(main)
        """
    )
    assert ran.stdout.count("in deep") < 50
    assert "… and 61 frames further out" in ran.stdout


def test_dump_without_fibers() -> None:
    ran = program("fibers.dump(sys.stdout)")
    assert ran.stdout == "no thread has fibers\n"
