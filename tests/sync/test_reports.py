"""What the deadlock report and `fibers.dump()` say of fibers that wait at a primitive: for what, and who holds it."""

import signal
import textwrap
from subprocess import CompletedProcess

from support.process import run_python
from support.settling import settle, started

import fibers
from fibers.core.dump import picture


def program(body: str) -> CompletedProcess[str]:
    return run_python("-c", "import signal\nimport fibers\n" + textwrap.dedent(body), timeout=30)


def test_two_fibers_that_wait_for_each_others_locks() -> None:
    ran = program(
        """
        def left():
            with one:
                fibers.yield_now()
                with two:
                    pass

        def right():
            with two:
                fibers.yield_now()
                with one:
                    pass

        one, two = fibers.Lock(), fibers.RLock()
        fibers.spawn(left)
        fibers.spawn(right).join()
        """
    )
    report = ran.stderr[ran.stderr.index("DeadlockError") :]
    assert "fiber 'left' has waited" in report
    assert "s for <locked fibers.RLock object held by fiber 'right' at 0x" in report
    assert "s for <locked fibers.Lock object held by fiber 'left' at 0x" in report
    assert "at <string>:7 in left" in report


def test_a_lock_whose_holder_has_ended() -> None:
    ran = program(
        """
        lock = fibers.Lock()
        fibers.spawn(lock.acquire, name="forgetful").join()
        fibers.spawn(lock.acquire).join()
        """
    )
    assert "held by fiber 'forgetful', which is done, at 0x" in ran.stderr


def test_main_that_has_the_lock_and_waits_for_who_wants_it() -> None:
    ran = program(
        """
        before, lock = fibers.Lock(), fibers.Lock()
        before.acquire()  # the thread has no fibers yet
        fibers.sleep(0)
        with lock:
            fibers.spawn(before.acquire)
            fibers.spawn(lock.acquire, name="victim").join()
        """
    )
    assert "fiber 'victim' has waited" in ran.stderr
    assert "held by fiber 'main of MainThread' at 0x" in ran.stderr
    assert "held by thread 'MainThread' at 0x" in ran.stderr


def test_every_other_primitive_is_named() -> None:
    ran = program(
        """
        queue, full, simple = fibers.PriorityQueue(), fibers.Queue(1), fibers.SimpleQueue()
        full.put(0)
        condition, group = fibers.Condition(fibers.Lock()), fibers.WaitGroup()
        group.add(2)

        def notified():
            with condition:
                condition.wait()

        with fibers.TaskGroup() as everything:
            for wait in (queue.get, lambda: full.put(1), simple.get, notified, group.wait, fibers.Event().wait,
                         fibers.Semaphore(0).acquire, fibers.Barrier(2).wait, full.join):
                everything.spawn(wait)
        """
    )
    report = ran.stderr
    for text in (
        "for <fibers.PriorityQueue at 0x",
        "for room in <fibers.Queue at 0x",
        ": 1 of 1 items>",
        "for <fibers.SimpleQueue at 0x",
        "for <fibers.Condition at 0x",
        "for <fibers.WaitGroup at 0x",
        ": 2 under way>",
        "for <fibers.Event at 0x",
        ": unset>",
        "for <fibers.Semaphore at 0x",
        ": value=0>",
    ):
        assert text in report, (text, report)


def test_main_that_waits_at_a_primitive_alone_is_left_alone() -> None:
    """A bare `Event().wait()` until Ctrl-C is a way to keep a program alive."""
    ran = program("signal.setitimer(signal.ITIMER_REAL, 0.3)\nfibers.Event().wait()")
    assert (ran.returncode, ran.stderr) == (-signal.SIGALRM, "")


def test_dump() -> None:
    lock = fibers.Lock()

    def hold() -> None:
        with lock:
            fibers.sleep(3600)

    holder, waiter = started(hold, name="holder"), started(lock.acquire, name="waiter")
    text = picture()
    line = next(line for line in text.splitlines() if "fiber 'waiter'" in line)
    assert "s for <locked fibers.Lock object held by fiber 'holder' at 0x" in line
    for fiber in (waiter, holder):
        fiber.cancel()
        fiber.join(5)
    settle()
