"""Row "fork", hazard 11: a child that registers and closes does not touch the parent's registrations.

Facts. epoll belongs to the open file, which parent and child share: a DEL in the child removes the parent's
registration. So the child makes a new kernel object and closes its copy of the inherited one. (Crystal's child
replaced its signal pipe before it had a new epoll, and the parent went deaf.)
"""

import os
from textwrap import dedent

import pytest
from support.backends import LIFETIME, lifetime_only
from support.process import run_python

if not hasattr(os, "fork"):
    pytest.skip("no fork here", allow_module_level=True)

COMMON = """
import os, signal, sys, threading
import fibers
from fibers import lowlevel
from fibers.eventloop import ownership
from fibers.io import socket
from fibers.scheduler import get_scheduler
from fibers.threads import to_thread

def reap(pid):
    _, status = to_thread(os.waitpid, pid, 0)
    return os.waitstatus_to_exitcode(status)
"""


def output(program: str, timeout: float = 30.0) -> list[str]:
    done = run_python("-W", "ignore::DeprecationWarning", "-c", COMMON + dedent(program), timeout=timeout)
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout.splitlines()


def test_fork_the_child_registers_and_closes_and_the_parent_still_gets_its_events() -> None:
    assert output(
        """
        a, b = socket.socketpair()
        reader = fibers.spawn(a.recv, 10)
        fibers.yield_now()
        pid = os.fork()
        if pid == 0:
            c, d = socket.socketpair()
            mine = fibers.spawn(c.recv, 10)
            fibers.yield_now()
            d.send(b"child")
            assert mine.result(5) == b"child"
            a.close()                       # closes the child's copies only
            for each in (b, c, d):
                each.close()
            os._exit(0)
        print("child", reap(pid))
        b.send(b"parent")
        print(reader.result(5))
        second = fibers.spawn(a.recv, 10)
        fibers.yield_now()
        b.send(b"again")
        print(second.result(5))
        print(get_scheduler().loop.stats.registrations)
        a.close(); b.close()
        """
    ) == ["child 0", "b'parent'", "b'again'", "1" if LIFETIME else "2"]


def test_fork_the_child_waits_for_an_inherited_socket_and_closes_it() -> None:
    """The same fd, registered by both: neither disturbs the other."""
    assert output(
        """
        a, b = socket.socketpair()
        reader = fibers.spawn(a.recv, 1)
        fibers.yield_now()
        pid = os.fork()
        if pid == 0:
            mine = fibers.spawn(a.recv, 1)
            fibers.yield_now()
            b.send(b"1")
            ok = mine.result(5) == b"1"
            a.close(); b.close()
            os._exit(0 if ok else 1)
        # Either may get the byte; whoever does not goes on waiting.
        fibers.sleep(0.05)
        b.send(b"2")
        print(reader.result(5) in (b"1", b"2"))
        b.send(b"3")
        print("child", reap(pid))
        second = fibers.spawn(a.recv, 1)
        fibers.yield_now()
        b.send(b"4")
        print(second.result(5) in (b"2", b"3", b"4"))
        a.close(); b.close()
        """
    )[::2] == ["True", "True"]


def test_fork_with_waiting_fibers_timers_and_posts_none_of_which_live_in_the_child() -> None:
    assert output(
        """
        a, b = socket.socketpair()
        a.settimeout(0.2)
        def read():
            try:
                return a.recv(1)
            except TimeoutError:
                return "timeout"
        readers = [fibers.spawn(read) for _ in range(3)]
        sleeper = fibers.spawn(fibers.sleep, 0.1)
        fibers.yield_now()
        pid = os.fork()
        if pid == 0:
            loop = get_scheduler().loop
            fibers.sleep(0.3)
            if len(loop.timers) or ownership.owners or fibers.all_fibers():
                os._exit(1)
            os._exit(0)
        print("child", reap(pid))
        print([reader.result(5) for reader in readers])
        sleeper.result(5)
        a.close(); b.close()
        """
    ) == ["child 0", "['timeout', 'timeout', 'timeout']"]


@lifetime_only
def test_fork_the_child_has_a_kernel_object_of_its_own() -> None:
    assert output(
        """
        fibers.sleep(0.001)
        before = get_scheduler().loop
        fd = before._poller.fileno()
        identity = os.fstat(fd).st_ino if fd >= 0 else None
        pid = os.fork()
        if pid == 0:
            loop = get_scheduler().loop
            turns = loop.stats.turns
            fibers.sleep(0.05)
            os._exit(0 if loop.stats.turns - turns <= 4 else 1)
        print("child", reap(pid))
        turns = before.stats.turns
        fibers.sleep(0.05)
        print(before.stats.turns - turns <= 4)
        """
    ) == ["child 0", "True"]


def test_fork_from_another_thread_frees_the_files_of_threads_that_are_not_there() -> None:
    assert output(
        """
        a, b = socket.socketpair()
        reader = fibers.spawn(a.recv, 1)    # pending in the main thread's loop
        fibers.yield_now()
        def forks():
            pid = os.fork()
            if pid == 0:
                mine = fibers.spawn(a.recv, 1)
                fibers.yield_now()
                b.send(b"c")
                os._exit(0 if mine.result(5) == b"c" else 1)
            print("child", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        thread = threading.Thread(target=fibers.run, args=(forks,))
        thread.start()
        thread.join()                       # the main thread's loop does not run: it would take the byte
        b.send(b"p")
        print(reader.result(5))
        a.close(); b.close()
        """
    ) == ["child 0", "b'p'"]


def test_fork_again_and_again() -> None:
    assert output(
        """
        a, b = socket.socketpair()
        for number in range(10):
            reader = fibers.spawn(a.recv, 10)
            fibers.yield_now()
            pid = os.fork()
            if pid == 0:
                fibers.sleep(0.001)
                c, d = socket.socketpair()
                mine = fibers.spawn(c.recv, 1)
                fibers.yield_now()
                d.send(b"x")
                os._exit(0 if mine.result(5) == b"x" else 1)
            assert reap(pid) == 0
            b.send(b"%d" % number)
            assert reader.result(5) == b"%d" % number
        print("done")
        a.close(); b.close()
        """
    ) == ["done"]
