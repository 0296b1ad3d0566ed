"""Patching itself: what is replaced where, what is left alone and said, how it is undone, and what is refused."""

from pathlib import Path

from support.once import once
from support.process import run_python

pytestmark = once

REFUSE = """
def refuses(kind, text, function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except kind as error:
        assert text in str(error), error
    else:
        raise AssertionError(f"no {kind.__name__}: {text}")
"""


def run(script: str, **env: str) -> None:
    child = run_python("-c", REFUSE + script + "\nprint('fine')\n", env=env)
    assert (child.stdout, child.returncode, child.stderr) == ("fine\n", 0, "")


NAMES = """
import functools, os, select, selectors, socket, ssl, subprocess, sys, threading, time, types
from time import sleep

user = types.ModuleType("user")
exec('''
import os, select, time
from select import *
from threading import *
from time import sleep
class Reader:
    read = os.read
    pause = staticmethod(sleep)
    def method(self, read=os.read, *, pause=sleep):
        return read, pause
''', user.__dict__)
user.Reader.__module__ = "user"
sys.modules["user"] = user

class Socket(socket.socket):
    pass

near, far = socket.socketpair()
classes = socket.socket, ssl.SSLSocket, subprocess.Popen, threading.Thread, ssl.SSLContext
import fibers.patch as patch
from fibers.patch import names
std = patch.original
before = {module: dict(vars(module)) for module in names.foreign_modules()}
bodies = {kind: dict(vars(kind)) for kind in classes}

def check(patched):
    for here in (time.sleep, sleep, user.sleep, user.Reader.pause, user.Reader().method()[1]):
        assert (here is not std("time.sleep")) is patched
    for here in (os.read, user.os.read, user.Reader.read, user.Reader().read, user.Reader().method()[0]):
        assert (here is not std("os.read")) is patched
    for name in ("time.sleep", "select.poll", "socket.socket.recv", "ssl.SSLSocket._create", "subprocess.Popen.communicate",
                 "_thread.get_ident", "threading.get_ident", "socket.getaddrinfo", "queue.SimpleQueue"):
        assert patch.is_patched(name) is patched, name
    if hasattr(select, "epoll"):
        assert (selectors.EpollSelector._selector_cls is not std("select.epoll")) is patched
    assert not patch.is_patched("time.time") and not patch.is_patched("socket.socket.listen")
    assert classes == (socket.socket, ssl.SSLSocket, subprocess.Popen, threading.Thread, ssl.SSLContext)
    assert isinstance(near, socket.socket) and type(ssl.create_default_context()) is ssl.SSLContext
    assert ssl.SSLContext.sslsocket_class is ssl.SSLSocket

def ping(near, far):
    import fibers
    reader = fibers.spawn(near.recv, 4)
    fibers.yield_now()  # it waits, if that is a matter of fibers
    far.sendall(b"ping")
    assert reader.result() == b"ping"

check(False)
with patch.applied():
    check(True)
    ping(near, far)  # made before
    ping(*socket.socketpair())
    mine, other = socket.socketpair()
    ping(Socket(fileno=mine.detach()), other)
check(False)
for module, held in before.items():
    for name, value in held.items():
        assert vars(module).get(name, None) is value, (module, name)
for kind, held in bodies.items():
    assert dict(vars(kind)) == held

with patch.applied(time=True):
    assert patch.is_patched("time.sleep") and not patch.is_patched("os.read")
    patch.patch_all(os=True)  # adds to it
    assert patch.is_patched("os.read") and not patch.is_patched("threading.get_ident")
check(False)
with patch.applied(subprocess=False, threading=False):
    assert not patch.is_patched("subprocess.Popen.communicate") and not patch.is_patched("threading.get_ident")
    assert patch.is_patched("time.sleep")
check(False)
"""


def test_names_are_replaced_everywhere_and_put_back() -> None:
    run(NAMES)


OWN = """
import importlib, pkgutil, select, sys, threading, types
import fibers.patch
from fibers.patch import applying, originals

fibers.patch.patch_all()
loaded = set(sys.modules)
for found in pkgutil.walk_packages(fibers.__path__, "fibers."):
    if found.name.startswith(("fibers.eventloop", "fibers.server", "fibers.measure")) and "kqueue" not in found.name:
        try:
            importlib.import_module(found.name)
        except ImportError as missing:  # libevent
            assert "libevent" in str(missing)
assert {"fibers.server.master", "fibers.eventloop.pollers.poll"} <= set(sys.modules) - loaded
foreign = {id(module): name for name, module in originals.STANDARD.items()}
foreign[id(threading.Thread)] = "threading.Thread"
for key, (name, _) in applying._patch.old.items():
    new = applying._patch.new[key]
    if new.__module__.startswith("fibers.patch."):  # what is of use without a patch is theirs
        foreign[id(new)] = name
for name, module in list(sys.modules.items()):
    if name.startswith("fibers.") and not name.startswith("fibers.patch"):
        held = [f"{name}.{key}: {foreign[id(value)]}" for key, value in vars(module).items() if id(value) in foreign]
        assert not held, held

# So the loops go on standing on the real thing.
import time
from fibers.eventloop import new_loop
for backend in ("poll", "select"):
    fibers.run(time.sleep, 0.01) if backend is None else None
    result = []
    def turn():
        thread = threading.Thread(target=lambda: (time.sleep(0.01), result.append(backend)))
        thread.start()
        thread.join()
    fibers.to_thread(lambda: fibers.run(turn, loop=new_loop(backend)))
    assert result == [backend]
"""


def test_our_own_modules_keep_the_originals_however_late_they_are_imported() -> None:
    run(OWN)


LOCKS = """
import collections, concurrent.futures, functools, logging, queue, sys, threading, time

class Slotted:
    __slots__ = ("lock",)
    lock_of_all = threading.RLock()
    def __init__(self):
        self.lock = threading.Lock()

class Plain:
    def __init__(self):
        self.lock = threading.RLock()
        self.condition = threading.Condition(self.lock)

slotted, plain, items, event = Slotted(), Plain(), queue.Queue(), threading.Event()
simple, local, listed = queue.SimpleQueue(), threading.local(), [threading.Lock()]
simple.put(1)
local.x = 2
pool = concurrent.futures.ThreadPoolExecutor(2)

def enclosed(lock):
    return lambda: lock
closure = enclosed(threading.Lock())
held, unreachable, key = threading.Lock(), (threading.Lock(),), {threading.Lock(): 1}
held.acquire()
class Derived(threading.local):
    pass

def closing_over(pause):
    return lambda: pause
escaped = closing_over(time.sleep), functools.partial(time.sleep, 0)

import fibers.patch
from fibers.patch.locks import Lock, RLock

std = type(threading.Lock()), type(threading.RLock())
def check(lock, rlock):
    for each in (slotted.lock, items.mutex, items.not_empty._lock, event._cond._lock, listed[0], closure(),
                 pool._shutdown_lock):
        assert type(each) is lock, each
    for each in (Slotted.lock_of_all, plain.lock, plain.condition._lock, logging._lock, logging.lastResort.lock):
        assert type(each) is rlock, each
    assert items.mutex is items.all_tasks_done._lock and plain.lock is plain.condition._lock
    assert type(held) is type(unreachable[0]) is type(next(iter(key))) is std[0]
    assert local.x == 2
    with plain.condition, logging._lock:
        plain.condition.notify_all()

with fibers.patch.applied():
    check(Lock, RLock)
    assert simple.get() == 1 and type(simple) is fibers.SimpleQueue and type(local) is fibers.Local
    assert pool.submit(lambda: 3).result() == 3
    pool.shutdown()
    found = [str(each) for each in fibers.patch.verify()]
    for text in (
        "a _thread.lock, which is held,: made before, in module __main__",
        "a _thread.lock: made before, in a tuple",
        "a _thread.lock: made before, in a dict",
        "_thread._local: derived from by __main__.Derived",
        "time.sleep: in a closure of __main__.closing_over.<locals>.<lambda>",
        "time.sleep: in <functools.partial object",
    ):
        assert any(each.startswith(text) for each in found), (text, found)
    refuses(RuntimeError, "time.sleep: in a closure", fibers.patch.verify, strict=True)
    assert all(type(each) in std for each in (held, unreachable[0]))
    held.release()  # for threads it works as ever
    with held:
        pass
    held.acquire()
check(*std)

# Who is still alive when the patch is to be undone is named, and then it is not.
def block():
    with fibers.patch.applied():
        gates[0] = threading.Event()
        thread = threading.Thread(target=gates[0].wait, name="late")
        thread.start()
        threads.append(thread)
gates, threads = [threading.Event()], []
refuses(RuntimeError, "threads that are fibers have not ended: late; join them", block)
gates[0].set()
threads[0].join()
assert fibers.patch.is_patched("time.sleep")
"""


def test_locks_made_before_are_replaced_as_a_whole_or_listed() -> None:
    run(LOCKS)


REFUSED = """
import threading, time
import fibers.patch as patch

refuses(ValueError, "there is nothing called 'sokcet' to patch; known are ", patch.patch_all, sokcet=True)
refuses(TypeError, "time=1: True or False is needed", patch.patch_all, time=1)
refuses(ValueError, "names look like 'time.sleep'", patch.original, "sleep")
refuses(TypeError, "a name such as 'time.sleep'", patch.original, time.sleep)
refuses(AttributeError, "nothing", patch.original, "time.nothing")
refuses(RuntimeError, "nothing is patched", patch.verify)

def in_another_thread():
    try:
        refuses(RuntimeError, "call it in the main thread", patch.patch_all)
        done.append(1)
    finally:
        gate.set()
done, gate = [], threading.Event()
thread = threading.Thread(target=in_another_thread)
thread.start()
gate.wait()
thread.join()
assert done == [1] and not patch.is_patched("time.sleep")

# A thread that was there before holds a lock: it stays a lock of threads, and works.
lock, taken, go = threading.Lock(), threading.Event(), threading.Event()
def holds():
    with lock:
        taken.set()
        go.wait()
thread = threading.Thread(target=holds)
thread.start()
taken.wait()
patch.patch_all()
assert any("_thread.lock, which is held" in each.name for each in patch.verify())
assert not lock.acquire(timeout=0.01)
go.set()
with lock:
    thread.join()

patch.patch_all()  # twice: nothing happens
patch.patch_all(time=True)
refuses(RuntimeError, "patch_all() was called", patch.applied().__enter__)
def in_a_fiber():
    patch.patch_all()
    done.append(2)
thread = threading.Thread(target=in_a_fiber)
thread.start()
thread.join()
assert done == [1, 2]
"""


def test_what_makes_no_sense_is_refused_and_what_does_works() -> None:
    run(REFUSED)


def test_other_packages_plug_in_and_a_failure_leaves_nothing_half_done(tmp_path: Path) -> None:
    (tmp_path / "plugin.py").write_text(
        "import os\n\nplace = {'name': 'old'}\n\n\ndef patch(journal):\n    journal.set_item(place, 'name', 'new')\n"
        "    if os.environ.get('FAIL'):\n        raise OSError('no')\n"
    )
    info = tmp_path / "plugin-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[fibers.patches]\nmine = plugin:patch\n")
    run(
        "import os, plugin, time, fibers.patch\n"
        "with fibers.patch.applied():\n    assert plugin.place == {'name': 'new'}\n"
        "assert plugin.place == {'name': 'old'}\n"
        "os.environ['FAIL'] = '1'\n"
        "try:\n    fibers.patch.patch_all()\nexcept OSError as error:\n"
        "    assert error.__notes__ == [\"in the entry point 'mine' = 'plugin:patch' of 'fibers.patches'\"]\n"
        "else:\n    raise AssertionError\n"
        "assert plugin.place == {'name': 'old'} and not fibers.patch.is_patched('time.sleep')\n",
        PYTHONPATH=str(tmp_path),
    )
