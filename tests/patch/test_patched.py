"""The standard library, patched: what blocks suspends a fiber, and what asks who runs is told of fibers.

Patching is for a whole process, so each test is a child process; each asserts many things there and prints "fine".
"""

from pathlib import Path

import pytest
from support.once import once
from support.process import run_python

BEGIN = """
import fibers.patch
fibers.patch.patch_all()
import os, socket, sys, threading, time, queue, select, selectors, subprocess, signal

def native():
    return len(os.listdir("/proc/self/task")) if os.path.exists("/proc/self/task") else 1

def in_threads(*functions):
    "Run functions in threads, all at once."
    errors = []
    def guarded(function):
        try:
            function()
        except BaseException as error:
            errors.append(error)
    threads = [threading.Thread(target=guarded, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
"""


def run(script: str, *, timeout: float = 60.0) -> None:
    child = run_python("-c", BEGIN + script + "\nprint('fine')\n", timeout=timeout)
    assert (child.stdout, child.returncode, child.stderr) == ("fine\n", 0, "")


WAITS = """
# Each pair meets only if whoever comes first waits as a fiber: there is one thread.
log = []

def meet(wait, release):
    def first():
        wait()
        log.append("woken")
    def second():
        assert "woken" not in log, "it has not waited"
        release()
    log.clear()
    in_threads(first, second)
    assert log == ["woken"], (wait, log)

if hasattr(signal, "sigwait"):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    meet(lambda: signal.sigwait([signal.SIGUSR1]), lambda: os.kill(os.getpid(), signal.SIGUSR1))

left, right = socket.socketpair()
meet(lambda: left.recv(1), lambda: right.send(b"x"))
meet(lambda: os.read(left.fileno(), 1), lambda: right.send(b"x"))
reading, writing = os.pipe()
meet(lambda: os.read(reading, 1), lambda: os.write(writing, b"x"))
for wait in (
    lambda: select.select([reading, left], [], []),
    lambda: select.select([reading], [], [], 30),
):
    meet(wait, lambda: os.write(writing, b"x"))
    os.read(reading, 1)
def polled():
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    poll.register(left, select.POLLIN)
    assert poll.poll(30_000) == [(reading, select.POLLIN)]
meet(polled, lambda: os.write(writing, b"x"))
os.read(reading, 1)
if hasattr(select, "epoll"):
    epoll = select.epoll()
    epoll.register(reading, select.EPOLLIN)
    meet(lambda: epoll.poll(), lambda: os.write(writing, b"x"))
    os.read(reading, 1)
    assert epoll.poll(0.01) == []
    epoll.close()
with selectors.DefaultSelector() as selector:
    selector.register(left, selectors.EVENT_READ)
    selector.register(reading, selectors.EVENT_READ)
    meet(lambda: selector.select(), lambda: os.write(writing, b"x"))
    os.read(reading, 1)
for make in (queue.Queue, queue.LifoQueue, queue.PriorityQueue, queue.SimpleQueue):
    items = make()
    meet(items.get, lambda: items.put(1))
    try:
        items.get(timeout=0.01)
    except queue.Empty:
        pass
    else:
        raise AssertionError(make)
event = threading.Event()
meet(event.wait, event.set)
lock = threading.Lock()
lock.acquire()
meet(lock.acquire, lock.release)
condition = threading.Condition()
def waits():
    with condition:
        condition.wait()
def notifies():
    with condition:
        condition.notify()
meet(waits, notifies)
barrier = threading.Barrier(2)
meet(barrier.wait, barrier.wait)
semaphore = threading.Semaphore(0)
meet(semaphore.acquire, semaphore.release)
meet(lambda: time.sleep(0.01), lambda: None)
child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
meet(child.wait, child.stdin.close)
gone = os.fork()
if not gone:
    os._exit(0 if os.read(reading, 1) == b"x" else 1)
meet(lambda: log.append(os.waitpid(gone, 0)) or log.remove((gone, 0)), lambda: os.write(writing, b"x"))
gone = os.fork()
if not gone:
    os._exit(0 if os.read(reading, 1) == b"x" else 1)
meet(lambda: os.wait(), lambda: os.write(writing, b"x"))
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(4) as executor:
    gate = threading.Barrier(4)
    assert sorted(executor.map(lambda number: gate.wait() * 0 + number, range(4))) == [0, 1, 2, 3]

# A loop that is always served lets others run, too.
stop = []
def spins(look):
    def function():
        while not stop:
            look()
        stop.clear()
    return function
for look in (lambda: select.select([], [right], [], 1), lambda: select.select([], [], [], 0)):
    in_threads(spins(look), lambda: (time.sleep(0.01), stop.append(1)))

# A large write to a pipe that somebody reads.
data = os.urandom(300_000)
def reads():
    got = b""
    while len(got) < len(data):
        got += os.read(reading, 65536)
    assert got == data
in_threads(lambda: os.write(writing, data), reads)
"""


def test_everything_that_blocks_suspends_its_fiber() -> None:
    run(WAITS)


WHO = """
import contextvars, _thread
main = threading.main_thread()
native_ident = fibers.patch.original("threading.get_ident")
assert threading.current_thread() is main and threading.get_ident() == main.ident == native_ident()
seen, local = {}, threading.local()
local.x = variable = contextvars.ContextVar("variable", default="none")
variable.set("main")

class Mine(threading.Thread):
    def run(self):
        seen[self.name] = threading.get_ident()
        assert threading.current_thread() is self and self.ident == threading.get_ident()
        assert self in threading.enumerate() and self.is_alive() and self.native_id == main.native_id
        assert not hasattr(local, "x") and variable.get() == "none"
        local.x = self
        time.sleep(0.01)
        assert local.x is self and threading.get_ident() == self.ident

threads = [Mine(name=f"mine-{number}", daemon=number == 1) for number in range(3)]
for thread in threads:
    thread.start()
assert threading.active_count() == 4 and _thread._count() >= 3
for thread in threads:
    thread.join(30)
assert len({*seen.values(), main.ident}) == 4
assert threading.enumerate() == [main] and not any(map(threading.Thread.is_alive, threads))
assert local.x is variable and variable.get() == "main"

# Re-entrant for its holder, a fiber, and for nobody else.
lock, order = threading.RLock(), []
def nested():
    with lock, lock:
        order.append(1)
        time.sleep(0.01)
        order.append(2)
in_threads(nested, nested)
assert order == [1, 2, 1, 2]

# Who only asks for the thread that it runs in is taken off the list again.
fiber = fibers.spawn(threading.current_thread)
dummy = fiber.result()
assert type(dummy) is threading._DummyThread and dummy.ident == id(fiber)
assert threading.enumerate() == [main]

# An error in a thread goes to the hook; what is no error does not.
hooked = []
threading.excepthook = hooked.append
def fails():
    1 / 0
def leaves():
    raise SystemExit
in_threads(lambda: None)
for function in (fails, leaves):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()
assert [each.exc_type for each in hooked] == [ZeroDivisionError, SystemExit]

# A join that is interrupted does not declare a thread dead that lives.
gate = threading.Event()
thread = threading.Thread(target=gate.wait)
thread.start()
try:
    with fibers.timeout(0.01):
        thread.join()
except TimeoutError:
    pass
thread.join(0.01)
assert thread.is_alive()
gate.set()
thread.join()
assert not thread.is_alive()

try:
    threading.Thread.join(main)
except RuntimeError:
    pass
timer = threading.Timer(0.01, hooked.clear)
timer.start()
timer.join()
assert not hooked
for bad in ((1, ()), (fails, []), (fails, (), 1)):
    try:
        _thread.start_new_thread(*bad)
    except TypeError:
        pass
    else:
        raise AssertionError(bad)
"""


@once
def test_threads_know_who_they_are() -> None:
    run(WHO)


NATIVE = """
import logging
stream = open(os.devnull, "w")
logging.basicConfig(stream=stream, level=logging.INFO, format="%(threadName)s %(message)s")

# Threads of the system's, and fibers, on one lock, one queue, one logger.
before = native()
lock, items, total = threading.Lock(), queue.Queue(3), [0]

def adds():
    for number in range(200):
        with lock:
            value = total[0]
            if number % 50 == 0:
                time.sleep(0.001)
            total[0] = value + 1
        logging.info("%s", number)

def puts():
    for number in range(100):
        items.put(number)

def takes():
    for number in range(100):
        items.get(timeout=30)

others = [fibers.patch.NativeThread(target=function) for function in (adds, adds, puts, takes)]
for thread in others:
    thread.start()
assert native() > before or not any(map(threading.Thread.is_alive, others))
in_threads(adds, adds, puts, takes)
for thread in others:
    thread.join()
assert total == [800] and items.empty()

# A thread that others start is a thread; in one with a loop of its own, a fiber of that loop.
def from_outside():
    inner = []
    thread = threading.Thread(target=lambda: inner.append(fibers.patch.original("threading.get_ident")()))
    thread.start()
    thread.join()
    return inner[0] == fibers.patch.original("threading.get_ident")()

assert not fibers.to_thread(from_outside)
with fibers.FiberThread() as thread:
    assert thread.run_sync(from_outside)
assert from_outside()
assert fibers.to_thread(lambda: threading.current_thread().ident) != threading.main_thread().ident
"""


def test_locks_queues_and_logging_are_safe_between_threads_and_fibers() -> None:
    run(NATIVE)


EARLY = """
import atexit
@atexit.register  # before there is anything of ours: it is called last
def end():
    items.put("works")
    items.put(None)
    done.wait()
    print("exit")
"""
END = """
items, done = queue.Queue(), threading.Event()

def daemon():
    try:
        for item in iter(items.get, None):
            print("a daemon still", item)
            done.set()
        time.sleep(100)
    finally:
        print("a daemon was unwound")

def last():
    time.sleep(0.05)
    print("waited for")
    try: threading.Thread(target=lambda: (time.sleep(0.01), print("also"))).start()
    except RuntimeError: print("also")  # CPython 3.12 starts none any more, and says so

threading.Thread(target=daemon, daemon=True).start()
threading.Thread(target=last).start()
"""


@once
def test_at_the_end_threads_are_waited_for_and_daemons_are_left() -> None:
    child = run_python("-c", EARLY + BEGIN + END + "\nprint('main is over')\n")
    assert (child.stdout, child.stderr) == ("main is over\nwaited for\nalso\na daemon still works\nexit\n", "")


FORK = """
import multiprocessing, warnings, weakref

def forked(check):
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            check()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0) == (pid, 0), check

def alone(thread):
    def check():
        assert threading.current_thread() is threading.main_thread() is thread and threading.active_count() == 1
        assert threading.get_ident() == fibers.patch.original("threading.get_ident")() == thread.ident
        done = []
        new = threading.Thread(target=lambda: (time.sleep(0.01), done.append(1)))
        new.start()
        new.join()
        assert done == [1]
        subprocess.run(["true"], check=True)
    return check

# With others alive: they are in the parent only.
gate = threading.Event()
other = threading.Thread(target=gate.wait)
other.start()
forked(alone(threading.current_thread()))
in_threads(lambda: forked(alone(threading.current_thread())))
assert other.is_alive() and threading.get_ident() == threading.main_thread().ident
gate.set()
other.join()

def again():
    "In a child whose main thread is a fiber, another one forks, and that one is none the worse for it."
    main = threading.main_thread()
    in_threads(lambda: forked(alone(threading.current_thread())))
    assert threading.current_thread() is main and threading.get_ident() == main.ident
in_threads(lambda: forked(again))

def in_child_that_ends_by_itself():
    pid = os.fork()
    if not pid:
        threading.Thread(target=time.sleep, args=(0.01,)).start()
        return
    assert os.waitpid(pid, 0) == (pid, 0)
in_threads(in_child_that_ends_by_itself)

finalised = []
class Thing:
    pass
thing = Thing()
weakref.finalize(thing, finalised.append, 1)
del thing
assert finalised == [1]

def double(number):
    time.sleep(0.01)
    return 2 * number

log = []
if __name__ == "__main__":
    context = multiprocessing.get_context(METHOD)
    items = context.Queue()
    process = context.Process(target=items.put, args=("hello",))
    process.start()
    in_threads(lambda: process.join(30))
    assert items.get(timeout=30) == "hello" and process.exitcode == 0
    items.close()
    items.join_thread()
    ours, theirs = multiprocessing.Pipe()  # sockets, whose numbers are handed on
    in_threads(lambda: ours.send("a") or theirs.send(theirs.recv()), lambda: log.append(ours.recv()))
    assert log == ["a"]
    if METHOD == "fork":
        with context.Pool(2) as pool:
            assert pool.map(double, range(10)) == [2 * number for number in range(10)]
    print("fine")
"""


@once
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_fork_and_multiprocessing(method: str, tmp_path: Path) -> None:
    if method == "fork":
        child = run_python("-c", BEGIN + FORK.replace("METHOD", repr(method)))
    else:  # these import the program again in the child
        program = tmp_path / "program.py"
        begin, end = BEGIN, FORK[FORK.index("def double") :].replace("METHOD", repr(method))
        program.write_text(f"import multiprocessing\n{begin}\n{end}")
        child = run_python(program)
    assert (child.stdout, child.stderr, child.returncode) == ("fine\n", "", 0)
