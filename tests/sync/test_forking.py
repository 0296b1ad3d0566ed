"""Fork: in the child the primitives are the surviving fiber's. Nothing goes to fibers that live on in the parent only.

Each case is a script in a process of its own, whose threads it knows.
"""

import pytest
from support.process import run_python

COMMON = """
import os, signal, sys, threading, warnings
signal.alarm(30)  # neither a script nor its children, which inherit no alarm, outlive their test
os.register_at_fork(after_in_child=lambda: signal.alarm(30))
warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of forks beside threads: that is the test
import fibers

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def reap(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def settle():
    for _ in range(5):
        fibers.yield_now()

def wait_until_parked(*names):
    '''Until the main fibers of these threads wait.'''
    while True:
        mains = {s.main.name: s for s in fibers.core.lifecycle.schedulers()}
        if all(f"main of {n}" in mains and mains[f"main of {n}"].loop.asleep for n in names):
            return
        threading.Event().wait(0.001)
"""


def lines(script: str) -> list[str]:
    """What the script printed, sorted: parent and child write in no order."""
    child = run_python("-c", COMMON + script, timeout=30)
    assert child.returncode == 0, child.stdout + child.stderr
    assert "Traceback" not in child.stderr, child.stderr
    return sorted(child.stdout.splitlines())


def in_child(setup: str, act: str, parent: str, fork_in_fiber: bool) -> list[str]:
    """Set up, fork, do `act` in the child, then `parent` in the parent."""
    script = setup + "\nparent_pid = os.getpid()\ndef forker():\n    pid = os.fork()\n    if not pid:\n"
    script += "".join(f"        {line}\n" for line in act.strip().splitlines())
    script += "        os._exit(0)\n    assert reap(pid) == 0\n"
    script += "fibers.spawn(forker).result()\n" if fork_in_fiber else "forker()\n"
    return lines(script + parent)


WAITERS = """
lock, rlock, semaphore, condition = fibers.Lock(), fibers.RLock(), fibers.Semaphore(0), fibers.Condition()
queue, full, simple, ordered = fibers.Queue(), fibers.Queue(1), fibers.SimpleQueue(), fibers.PriorityQueue()
event, group, barrier = fibers.Event(), fibers.WaitGroup(), fibers.Barrier(2)
group.add()
lock.acquire()
full.put("old")

def holder():
    with rlock:
        gate.wait()

def notified():
    with condition:
        condition.wait()

gate = fibers.Event()
fibers.spawn(holder)
settle()
waits = [lock.acquire, rlock.acquire, semaphore.acquire, notified, queue.get, lambda: full.put("new"), simple.get,
         ordered.get, event.wait, group.wait, barrier.wait, queue.join]
"""
HERE = (
    WAITERS
    + """
waiting = [fibers.spawn(wait) for wait in waits]
settle()
"""
)
ELSEWHERE = (
    WAITERS
    + """
threads = [threading.Thread(target=wait, name=f"t{number}", daemon=True) for number, wait in enumerate(waits[:-1])]
for thread in threads:
    thread.start()
wait_until_parked(*(thread.name for thread in threads))
"""
)
ACT = """
lock.release()
assert not lock.locked() and lock.acquire(False)
semaphore.release()
assert semaphore.acquire(False)
with condition:
    condition.notify_all()
queue.put(1)
assert queue.get_nowait() == 1
queue.task_done()
queue.join()
assert full.get_nowait() == "old" and full.empty()
full.put_nowait("ours")
simple.put(2)
assert simple.get_nowait() == 2
ordered.put(3)
assert ordered.get_nowait() == 3
event.set()
assert event.wait(1)
group.done()
assert group.wait(1)
fiber = fibers.spawn(lambda: (lock.acquire(), say("the child goes on")))
settle()
lock.release()
fiber.join(5)
"""
PARENT = """
gate.set()
lock.release(); semaphore.release(); event.set(); group.done()
with condition:
    condition.notify()
queue.put(1); simple.put(2); ordered.put(3)
assert full.get() == "old"
barrier.wait(5)
"""


@pytest.mark.parametrize("fork_in_fiber", [False, True])
def test_waiters_of_this_thread_are_not_there_in_the_child(fork_in_fiber: bool) -> None:
    parent = PARENT + "queue.task_done()\nfor fiber in waiting: fiber.join(5)\nsay('the parent goes on')\n"
    assert in_child(HERE, ACT, parent, fork_in_fiber) == ["the child goes on", "the parent goes on"]


@pytest.mark.parametrize("fork_in_fiber", [False, True])
def test_waiters_of_other_threads_are_not_there_in_the_child(fork_in_fiber: bool) -> None:
    parent = PARENT + "settle()\nfor thread in threads: thread.join(5)\nassert not any(t.is_alive() for t in threads)\n"
    parent += "say('the parent goes on')\n"
    assert in_child(ELSEWHERE, ACT, parent, fork_in_fiber) == ["the child goes on", "the parent goes on"]


HANDED = """
lock, semaphore = fibers.Lock(), fibers.Semaphore(0)
queue, simple, ordered, full = fibers.Queue(), fibers.SimpleQueue(), fibers.PriorityQueue(), fibers.Queue(1)
condition = fibers.Condition(fibers.Lock())
lock.acquire()
full.put("old")
got = []

def notified():
    with condition:
        condition.wait()
    return "notified"

waits = [lock.acquire, semaphore.acquire, queue.get, simple.get, ordered.get, notified]
waiting = [fibers.spawn(lambda wait=wait: got.append(wait())) for wait in waits]
putter = fibers.spawn(lambda: (full.put("new"), got.append("put")))
settle()
lock.release(); semaphore.release(); queue.put(1); simple.put(2); ordered.put(3)
assert full.get() == "old"
with condition:
    condition.notify()
assert got == []  # everybody has been given what it waits for, and nobody has run yet
"""


def test_what_was_handed_to_a_fiber_that_has_not_run_since_is_in_both_processes() -> None:
    act = """
assert not lock.locked() and semaphore.acquire(False)
assert [queue.get_nowait(), simple.get_nowait(), ordered.get_nowait()] == [1, 2, 3]
assert full.get_nowait() == "new"
full.put_nowait("ours")
assert got == []
say("the child has it")
"""
    parent = """
for fiber in [*waiting, putter]:
    fiber.join(5)
assert sorted(map(str, got)) == sorted(map(str, [True, True, 1, 2, 3, "notified", "put"])), got
assert lock.locked() and full.get_nowait() == "new"
say("the parent has it")
"""
    assert in_child(HANDED, act, parent, False) == ["the child has it", "the parent has it"]


def test_what_is_taken_back_goes_to_a_survivor_that_waits() -> None:
    """Main waits behind the one who was given the lock, and a fiber forks: in the child main is the next."""
    script = """
lock = fibers.Lock()
lock.acquire()

def forker():
    fibers.yield_now()
    lock.release()  # to `first`, which does not run before the fork
    pid = os.fork()
    if not pid:
        assert not lock.locked(), repr(lock)
        say("free in the child")
        os._exit(0)
    assert reap(pid) == 0

first = fibers.spawn(lambda: (lock.acquire(), lock.release()))
forking = fibers.spawn(forker)
lock.acquire()
say("main has it in the parent")
forking.join()
"""
    assert lines(script) == ["free in the child", "main has it in the parent"]


def test_what_a_fiber_of_the_parent_holds_stays_locked_in_the_child_and_says_so() -> None:
    setup = """
lock = fibers.Lock()
def hold():
    with lock:
        gate.wait()
gate = fibers.Event()
holder = fibers.spawn(hold, name="gardener")
settle()
"""
    act = """
assert not lock.acquire(False)
assert "held by fiber 'gardener', which is done" in repr(lock)
lock._at_fork_reinit()
assert lock.acquire(False)
"""
    assert in_child(setup, act, "gate.set(); holder.join(5); assert not lock.locked()", False) == []


def test_a_child_that_uses_primitives_does_not_wake_the_parents_threads() -> None:
    """A waker is a file that both processes have: a child that wrote to it would make the parent's loop turn."""
    setup = """
lock = fibers.Lock()
lock.acquire()
def wait():
    lock.acquire()
thread = threading.Thread(target=wait, name="t")
thread.start()
wait_until_parked("t")
loop = next(s.loop for s in fibers.core.lifecycle.schedulers() if s.main.name == "main of t")
turns = loop.stats.turns
"""
    act = "for _ in range(100):\n    lock.release()\n    lock.acquire()"
    parent = "assert loop.stats.turns == turns, (loop.stats.turns, turns)\nlock.release()\nthread.join(5)\nsay('quiet')"
    assert in_child(setup, act, parent, False) == ["quiet"]


def test_what_a_thread_gives_back_in_the_child_does_not_go_to_another_thread_of_the_parent() -> None:
    setup = """
from fibers.eventloop.waker import Waker
lock = fibers.Lock()
lock.acquire()
def wait():
    lock.acquire()
threads = [threading.Thread(target=wait, name=f"t{number}") for number in range(7)]
for thread in threads:
    thread.start()
    wait_until_parked(thread.name)
loops = [s.loop for s in fibers.core.lifecycle.schedulers() if s.main.name != "main of t0" and s.loop.asleep]
turns = [loop.stats.turns for loop in loops]
assert len(loops) == 6
wake, told = Waker.wake, []
Waker.wake = lambda waker: told.append(waker)  # between the release and the fork nobody gets up
lock.release()
"""
    act = "assert not lock.locked()"
    parent = """
Waker.wake = wake
for waker in told:
    waker.wake()
threads[0].join(5)
assert [loop.stats.turns for loop in loops] == turns
for thread in threads[1:]:
    lock.release()
    thread.join(5)
say('quiet')
"""
    assert in_child(setup, act, parent, False) == ["quiet"]
