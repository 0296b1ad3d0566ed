"""What CPython's own tests have found in the patch, for every loop and every version (tests/cpython/ runs them on one).

Each program is patched from its first line, in a child process, and checks itself.
"""

import re
from pathlib import Path

import pytest
from support.process import run_python

#: Whoever joins waits as a fiber, whatever it is that ends.
JOINS = """
import sys, threading, time
import fibers.patch
from fibers.patch import NativeThread

ticks = 0
def tick():
    global ticks
    while True:
        ticks += 1
        time.sleep(0.002)
threading.Thread(target=tick, daemon=True).start()

native = NativeThread(target=fibers.patch.original("time.sleep"), args=(0.05,))
native.start()
native.join(0.001)
assert native.is_alive()
native.join()
assert not native.is_alive() and ticks > 3, ticks

slow = threading.Thread(target=time.sleep, args=(0.02,))
slow.start()
several = [threading.Thread(target=slow.join) for _ in range(4)]
for each in several: each.start()
for each in several: each.join()
assert not slow.is_alive()

main = threading.main_thread()
def last():
    main.join()
    sys.stdout.write("a fiber saw the end\\n")  # a line in one step
threading.Thread(target=last).start()
NativeThread(target=lambda: (main.join(), sys.stdout.write("a thread saw the end\\n"))).start()
time.sleep(0.01)
print("end of main")
"""

#: Loops that ask and ask let the others run; a look comes before, and says what is wrong at once.
ASKING = """
import os, queue, select, socket, threading, time

items = queue.Queue()
items.put(1)
threading.Thread(target=items.get).start()
while not items.empty(): pass

lock = threading.Lock()
lock.acquire()
threading.Thread(target=lock.release).start()
while not lock.acquire(False): pass

here, there = socket.socketpair()
done = []
threading.Thread(target=done.append, args=(1,)).start()
while not done: assert select.select([], [here], [], 10) == ([], [here], [])
done.clear()
threading.Thread(target=done.append, args=(1,)).start()
poll = select.poll()
poll.register(here, select.POLLIN)
while not done: assert poll.poll(0) == []

closed = os.dup(0)
os.close(closed)
for call in (lambda: select.select([closed], [], [], 0), lambda: select.select([closed], [], [], 10)):
    try: call()
    except OSError: pass
    else: raise AssertionError("closed, and nobody says so")

waiter = threading.Thread(target=poll.poll)
waiter.start()
time.sleep(0)
try: poll.poll()
except RuntimeError as error: assert "concurrent" in str(error)
else: raise AssertionError("two at once")
there.send(b"x")
waiter.join()
for timeout in (2**31, 1 << 64):
    try: poll.poll(timeout)
    except OverflowError: pass
    else: raise AssertionError(timeout)

readable, writable = os.pipe()
for call in (lambda: os.write(readable, b"x"), lambda: os.read(writable, 1)):
    try: call()
    except OSError: pass
    else: raise AssertionError("open for the other direction only")
print("ok", end="")
"""

#: What is given away, and what is seen of ours.
OBJECTS = """
import os, pickle, socket, ssl, threading, multiprocessing

here, there = socket.socketpair()
here.send(b"x")
fd = here.detach()
assert os.get_blocking(fd) and here.detach() == -1
os.close(fd)
there.settimeout(1)
assert not os.get_blocking(there.detach())

one, other = multiprocessing.Pipe()
threading.Timer(0.01, other.send, ["late"]).start()
assert one.recv() == "late"

assert threading.Lock.__module__ == threading.get_ident.__module__ == "_thread"
assert pickle.loads(pickle.dumps(os.read)) is os.read
try: type("Mine", (type(threading.Lock()),), {})
except TypeError: pass
else: raise AssertionError("a lock is no base")
threading.RLock(1, a=2) if hasattr(threading, "_shutdown_locks") else None

sock = socket.socket()
try: ssl.create_default_context().wrap_socket(sock, server_hostname=".bad")
except UnicodeError: assert sock.fileno() == -1
else: raise AssertionError("a bad name")
print("ok", end="")
"""

#: Exit functions are called once, the last first; one that forks goes on in the child.
EXITS = """
import atexit, os, sys

@atexit.register
def first():
    sys.stdout.write("first\\n")

def forking():
    try:
        pid = os.fork()
    except RuntimeError:
        if sys.version_info[:2] != (3, 12): raise
        sys.stdout.write("parent\\nfirst\\n")  # this one forks no more at its end: with or without a patch
        return
    if pid:
        assert os.waitpid(pid, 0) == (pid, 0)
        sys.stdout.write("parent\\n")
atexit.register(forking)

def never():
    raise AssertionError
atexit.register(never)
atexit.unregister(never)
"""

#: Locks are taken in the child before it is known to be one; whoever takes so many of them lets others run, but not there.
FORKS = """
import os, threading, time
from fibers.patch import locks

done = threading.Event()
def others():
    while not done.is_set():
        time.sleep(0)
        if os.getpid() != parent: os._exit(1)
parent = os.getpid()
threading.Thread(target=others).start()

def fork(credit):
    locks._credit.left = credit
    pid = os.fork()
    if not pid: os._exit(0)
    assert os.waitpid(pid, 0) == (pid, 0), credit
for credit in range(1, 20):
    each = threading.Thread(target=fork, args=(credit,))
    each.start()
    each.join()
done.set()
print("ok", end="")
"""

#: What a thread without a Thread raises is told as ever.
UNRAISABLE = """
import _thread, sys, time

def told(function):
    _thread.start_new_thread(function, ())
    time.sleep(0.01)
def fails():
    raise ValueError("as ever")
sys.stderr = sys.stdout
told(fails)
sys.unraisablehook = lambda args: print(args.exc_type.__name__, args.exc_value)
told(fails)
"""


@pytest.mark.parametrize("name", ["forks", "joins", "asking", "objects", "exits"])
def test_programs_that_check_themselves(name: str, tmp_path: Path) -> None:
    program, printed = {
        "joins": (JOINS, "end of main\na fiber saw the end\na thread saw the end"),
        "asking": (ASKING, "ok"),
        "objects": (OBJECTS, "ok"),
        "forks": (FORKS, "ok"),
        "exits": (EXITS, "first\nparent\nfirst"),
    }[name]
    path = tmp_path / f"{name}.py"
    path.write_text(program)
    ended = run_python("-m", "fibers", "run", str(path), timeout=30)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert sorted(ended.stdout.splitlines()) == sorted(printed.splitlines())


def test_an_error_in_a_thread_without_a_thread_object_is_told(tmp_path: Path) -> None:
    path = tmp_path / "unraisable.py"
    path.write_text(UNRAISABLE)
    plain, patched = run_python(str(path)), run_python("-m", "fibers", "run", str(path))

    def shape(text: str) -> list[str]:
        return [re.sub(" at 0x[0-9a-f]+", "", line) for line in text.splitlines()]

    assert (patched.returncode, patched.stderr) == (0, "")
    assert shape(patched.stdout) == shape(plain.stdout)
    assert "ValueError: as ever" in patched.stdout.splitlines()
