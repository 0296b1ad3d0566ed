"""Row "fork", hazard 11: a child that registers and closes does not touch the parent's registrations.

Facts. epoll belongs to the open file, which parent and child share: a DEL in the child removes the parent's
registration. So the child makes a new kernel object and closes its copy of the inherited one. (Crystal's child
replaced its signal pipe before it had a new epoll, and the parent went deaf.) A kqueue is not inherited at all.
"""

import os

import pytest
from support.loops import Kind
from support.scenarios import printed

if not hasattr(os, "fork"):
    pytest.skip("no fork here", allow_module_level=True)

BARE = """
def scenario(kind):
    loop = kind()
    a, b = std.socketpair()
    a.setblocking(False)
    handle = loop.handle(a.fileno(), True)
    waiter = wait(loop, handle.reading, loop.clock() + 30)
    posts, order = [], []
    deadline = loop.clock() + 0.02
    loop.schedule(loop.clock() + 0.01, Target("timer", order))
    loop.post(posts.append, "post")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            loop.after_fork()
            assert loop.quiet()
            assert not loop.ready
            assert not loop.taken(a.fileno())
            b.send(b"c")
            assert looks(loop) == [], "nobody waits here"
            assert not posts
            fresh = loop.claim(loop.handle(a.fileno(), True))
            mine = wait(loop, fresh.reading)
            assert woken(loop) == [mine], "it sees what is there"
            a.recv(1)
            done = []
            def post():
                while not loop.asleep:
                    time.sleep(0)
                loop.post(done.append, 1)
            thread = threading.Thread(target=post)
            thread.start()
            while not done:
                loop.turn(True)
            loop.release(fresh, a.close)
            while loop.clock() < deadline:
                loop.turn(False)
            assert not order
            loop.close()
            code = 0
        finally:
            os._exit(code)
    print("child", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    while not order:
        loop.turn(True)
    found = looks(loop)  # the byte that the child has taken may have been an edge here
    if found:
        waiter = wait(loop, handle.reading)
    b.send(b"p")
    print(woken(loop) == [waiter], posts, order)
    loop.release(handle, a.close)
    b.close()
    loop.close()
"""

WITH_FIBERS = """
def reap(pid):
    _, status = to_thread(os.waitpid, pid, 0)
    return os.waitstatus_to_exitcode(status)

def registers_and_closes():
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
    a.close(), b.close()

def waits_for_an_inherited_socket():
    a, b = socket.socketpair()
    c, d = socket.socketpair()
    reader = fibers.spawn(a.recv, 1)
    fibers.yield_now()
    pid = os.fork()
    if pid == 0:
        mine = fibers.spawn(a.recv, 1)
        fibers.yield_now()
        b.send(b"1")
        d.send(b"sent")
        got = mine.result(5)
        a.close(), b.close()
        os._exit(0 if got in (b"1", b"2", b"3") else 1)
    # Either may get the first byte; whoever does not goes on waiting.
    c.recv(4)
    b.send(b"2")
    print(reader.result(5) in (b"1", b"2"))
    b.send(b"3")
    print("child", reap(pid))
    second = fibers.spawn(a.recv, 1)
    fibers.yield_now()
    b.send(b"4")
    print(second.result(5) in (b"2", b"3", b"4"))
    for each in (a, b, c, d):
        each.close()

def others_do_not_live_on():
    a, b = socket.socketpair()
    a.settimeout(0.05)
    def read():
        try:
            return a.recv(1)
        except TimeoutError:
            return "timeout"
    readers = [fibers.spawn(read) for _ in range(3)]
    sleeper = fibers.spawn(fibers.sleep, 0.03)
    fibers.yield_now()
    pid = os.fork()
    if pid == 0:
        loop = get_scheduler().loop
        fibers.sleep(0.08)
        os._exit(1 if len(loop.timers) or ownership.owners or fibers.all_fibers() else 0)
    print("child", reap(pid))
    print([reader.result(5) for reader in readers])
    sleeper.result(5)
    a.close(), b.close()

def idles_on_both_sides():
    fibers.sleep(0.001)
    before = get_scheduler().loop
    pid = os.fork()
    if pid == 0:
        loop = get_scheduler().loop
        turns = loop.stats.turns
        fibers.sleep(0.03)
        os._exit(0 if loop.stats.turns - turns <= 4 else 1)
    print("child", reap(pid))
    turns = before.stats.turns
    fibers.sleep(0.03)
    print(before.stats.turns - turns <= 4)

def again_and_again():
    a, b = socket.socketpair()
    for number in range(5):
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
    a.close(), b.close()

def from_another_thread(kind):
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
    thread = threading.Thread(target=lambda: fibers.run(forks, loop=kind()))
    thread.start()
    thread.join()                       # the main thread's loop does not run: it would take the byte
    b.send(b"p")
    print(reader.result(5))
    a.close(), b.close()

def scenario(kind):
    parts = [registers_and_closes, waits_for_an_inherited_socket, others_do_not_live_on]
    for main in [*parts, idles_on_both_sides, again_and_again]:
        print("--", main.__name__, flush=True)
        fibers.run(main, loop=kind())
    print("-- from_another_thread", flush=True)
    fibers.run(from_another_thread, kind, loop=kind())
    print("--", flush=True)
"""


def part(name: str, kind: Kind) -> list[str]:
    """What the part of that name of WITH_FIBERS has printed."""
    lines = printed(WITH_FIBERS, kind)
    start = lines.index(f"-- {name}") + 1
    return lines[start : next(at for at in range(start, len(lines)) if lines[at].startswith("--"))]


def test_fork_a_bare_loop_starts_afresh_in_the_child_and_goes_on_in_the_parent(loop_factory: Kind) -> None:
    assert printed(BARE, loop_factory) == ["child 0", "True ['post'] ['timer']"]


def test_fork_the_child_registers_and_closes_and_the_parent_still_gets_its_events(loop_factory: Kind) -> None:
    expected = ["child 0", "b'parent'", "b'again'", "1" if loop_factory.lifetime else "2"]
    assert part("registers_and_closes", loop_factory) == expected


def test_fork_the_child_waits_for_an_inherited_socket_and_closes_it(loop_factory: Kind) -> None:
    """The same fd, registered by both: neither disturbs the other."""
    assert part("waits_for_an_inherited_socket", loop_factory) == ["True", "child 0", "True"]


def test_fork_with_waiting_fibers_timers_and_posts_none_of_which_live_in_the_child(loop_factory: Kind) -> None:
    assert part("others_do_not_live_on", loop_factory) == ["child 0", "['timeout', 'timeout', 'timeout']"]


def test_fork_both_sides_idle_without_turns(loop_factory: Kind) -> None:
    """The child has a kernel object of its own: nothing of the parent's is reported to it."""
    assert part("idles_on_both_sides", loop_factory) == ["child 0", "True"]


def test_fork_from_another_thread_frees_the_files_of_threads_that_are_not_there(loop_factory: Kind) -> None:
    assert part("from_another_thread", loop_factory) == ["child 0", "b'p'"]


def test_fork_again_and_again(loop_factory: Kind) -> None:
    assert part("again_and_again", loop_factory) == ["done"]
