"""The known pitfalls of binding libevent, each as a program of its own that would hang, spin, crash or eat memory.

They run as child processes with little memory, little CPU time and a deadline: a fault that has eaten a machine's memory
once shall not do so in a test.
"""

import sys
from textwrap import dedent

import pytest
from support.once import once
from support.process import run_python

from fibers.eventloop import available

pytestmark = once

if available()["libevent"] is not None:
    pytest.skip(f"libevent cannot be used here: {available()['libevent']}", allow_module_level=True)

COMMON = """
import ctypes, gc, os, resource, signal, socket as std, sys, threading, time

GUARD = 2 << 30 if sys.platform == "linux" else resource.RLIM_INFINITY
resource.setrlimit(resource.RLIMIT_AS, (GUARD, GUARD))
resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
import fibers
from fibers.eventloop import FOREVER, libevent_base, libevent_binding as c
from fibers.eventloop.libevent import LibeventLoop
from fibers.eventloop.libevent_base import LOOK, WAIT, Base
from fibers.io import socket
from fibers.core.scheduler import get_scheduler

class Waiter:
    outcome = None
    deadline = FOREVER

def wait(loop, direction):
    direction.holder = direction.waiter = waiter = Waiter()
    assert loop.watch(direction, FOREVER)
    return waiter

class Boom(BaseException):
    pass

def boom(*args):
    raise Boom
"""


def output(program: str, code: int = 0, timeout: float = 30.0) -> tuple[list[str], str]:
    """The lines that a program prints in its guarded process, and what it says on stderr."""
    done = run_python("-c", COMMON + dedent(program), env={"FIBERS_EVENTLOOP": "libevent"}, timeout=timeout)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout.splitlines(), done.stderr


def test_pitfall_nonblock_alone_never_returns_while_a_persistent_event_is_ready() -> None:
    """Our LOOK returns each time, having called back once; so does a turn."""
    assert output(
        """
        base = Base()
        reader, writer = os.pipe()
        os.write(writer, b"x")
        event = base.new_event(reader, c.EV_READ | c.EV_PERSIST, None)
        assert base.add(event) is None
        for _ in range(3):
            base.run(LOOK)
            assert event.number in base.fired
            base.fired.clear()
        assert LOOK & c.EVLOOP_ONCE
        assert LOOK & c.EVLOOP_NONBLOCK
        base.close()
        loop = LibeventLoop()
        loop.wake()
        loop.turn(False)
        loop.turn(False)
        print(loop.stats.turns)
        """
    ) == (["2"], "")


def test_pitfall_once_is_not_ended_by_internal_notifications() -> None:
    """A wait with nothing to come is ended by `wake` and by `post` from another thread, through an fd of our own."""
    assert output(
        """
        loop = LibeventLoop()
        done = []
        for end in (loop.wake, lambda: loop.post(done.append, "posted")):
            def later():
                while not loop.asleep:
                    time.sleep(0)
                end()
            thread = threading.Thread(target=later)
            thread.start()
            loop.turn(True)
            thread.join()
        print(done, loop.stats.turns)
        """
    ) == (["['posted'] 2"], "")


def test_pitfall_a_break_between_two_runs_is_lost() -> None:
    """A `wake` between two turns ends the next one; so does a `post`, and its function is called."""
    assert output(
        """
        loop = LibeventLoop()
        loop.wake()
        loop.turn(True)
        done = []
        loop.post(done.append, 1)
        loop.ready.append(Waiter())
        loop.turn(True)
        print(done, loop.stats.turns)
        """
    ) == (["[1] 2"], "")


def test_pitfall_an_empty_base_spins() -> None:
    """A base without events waits all the same; an idle program makes no turns."""
    assert output(
        """
        assert WAIT & c.EVLOOP_NO_EXIT_ON_EMPTY
        fibers.sleep(0.001)
        stats = get_scheduler().loop.stats
        turns, used = stats.turns, time.process_time()
        fibers.sleep(0.5)
        print(stats.turns - turns <= 2, time.process_time() - used < 0.1)
        """
    ) == (["True True"], "")


def test_pitfall_event_reinit_may_exit_so_a_forked_child_makes_a_new_base() -> None:
    """In the child the inherited base is left alone: the parent's registrations are not touched, and both go on."""
    assert output(
        """
        assert not hasattr(c, "event_reinit")
        a, b = socket.socketpair()
        reader = fibers.spawn(a.recv, 10)
        sleeper = fibers.spawn(fibers.sleep, 0.3)
        fibers.sleep(0.001)
        parents = get_scheduler().loop._base
        pid = os.fork()
        if not pid:
            loop = get_scheduler().loop
            assert loop._base is not parents
            assert not parents._pointer and not parents.events
            x, y = socket.socketpair()
            mine = fibers.spawn(x.recv, 10)
            fibers.yield_now()
            y.send(b"child")
            assert mine.result(5) == b"child"
            fibers.sleep(0.01)
            a.close(), b.close()
            os._exit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        b.send(b"parent")
        print(reader.result(5))
        sleeper.join(5)
        """
    ) == (["7", "b'parent'"], "")


def test_pitfall_a_child_whose_interpreter_ends_does_not_reach_into_the_parent() -> None:
    """Not only `_exit`: everything is torn down in the child, and collected."""
    assert output(
        """
        a, b = socket.socketpair()
        readers = [fibers.spawn(a.recv, 5), fibers.spawn(b.recv, 5)]
        fibers.sleep(0.001)
        pid = os.fork()
        if not pid:
            gc.collect()
            sys.exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        std.socket.send(a, b"right")
        std.socket.send(b, b"left")
        print(readers[0].result(5), readers[1].result(5))
        """
    ) == (["0", "b'left' b'right'"], "")


def test_pitfall_a_deletion_from_another_thread_can_deadlock() -> None:
    """Bases are confined: while a loop sleeps in the kernel, another thread closes its file, and does not touch its base."""
    assert output(
        """
        threads, inner = [], c.event_free
        libevent_base.event_free = lambda pointer: (threads.append(threading.current_thread().name), inner(pointer))
        a, b = socket.socketpair()
        reader = fibers.spawn(a.recv, 10)
        fibers.yield_now()
        loop = get_scheduler().loop

        def close():
            while not loop.asleep:
                time.sleep(0)
            a.close()

        thread = threading.Thread(target=close, name="other")
        thread.start()
        try:
            reader.result(5)
        except fibers.ClosedError as error:
            print(type(error).__name__)
        thread.join()
        print(threads)
        """
    ) == (["ClosedError", "['MainThread']"], "")


def test_pitfall_callbacks_outlive_their_events() -> None:
    """One callback a base, referred to by it; events are known by numbers, so a late one finds nothing."""
    assert output(
        """
        base = Base()
        pairs = [std.socketpair() for _ in range(100)]
        events = [base.new_event(a.fileno(), c.EV_READ, None) for a, _ in pairs]
        for event in events:
            base.add(event)
        for _, b in pairs:
            b.send(b"x")
        numbers = {event.number for event in events}
        for event in events[::2]:
            base.free(event)
            base.free(event)
        del events, event
        gc.collect()
        while len(numbers & base.fired.keys()) < 50:
            base.run(LOOK)
        print(min(numbers) >= 1 << 31, len(numbers & base.events.keys()))
        base.close()
        base.close()
        """
    ) == (["True 50"], "")


def test_pitfall_what_a_signal_handler_raises_is_not_lost_in_a_callback() -> None:
    """A handler that runs inside a callback would raise into ctypes, which prints and drops it. Each of 200 comes out."""
    lines, errors = output(
        """
        loop = LibeventLoop()
        signal.signal(signal.SIGUSR1, boom)
        a, b = std.socketpair()
        a.setblocking(False)
        handle = loop.handle(a.fileno(), True)
        caught = woken = 0
        me = threading.get_ident()
        for _ in range(200):
            wait(loop, handle.reading)
            def strike():
                while not loop.asleep:
                    time.sleep(0)
                b.send(b"x")
                signal.pthread_kill(me, signal.SIGUSR1)
            thread = threading.Thread(target=strike)
            thread.start()
            struck = False
            while True:
                try:
                    while not (struck and loop.ready):
                        loop.turn(not loop.ready)
                    break
                except Boom:
                    struck = True
                    caught += 1
            thread.join()
            woken += len(loop.ready)
            loop.ready.clear()
            a.recv(1)
        print(caught, woken)
        """
    )
    assert errors == ""
    assert lines == ["200 200"]


def test_pitfall_logging_and_fatal_errors_do_not_print_or_exit_by_themselves() -> None:
    """What libevent wants to log is kept for the error; a fatal error shows the stacks and aborts."""
    lines, errors = output(
        """
        base = Base()
        with open("/dev/null") as file:
            error = base.add(base.new_event(file.fileno(), c.EV_READ, None))
        print(error is None or "ADD" in str(error))
        """
    )
    assert (lines, errors) == (["True"], "")
    lines, errors = output(
        """
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        c.messages[3] = b"the last word"
        c.fatal_callback(1)
        print("went on")
        """,
        code=-6,
    )
    assert lines == []
    assert "libevent cannot go on: the last word" in errors
    assert "most recent call first" in errors


def test_pitfall_the_default_clock_is_coarse() -> None:
    """1 to 4 ms unless a precise one is asked for. The quickest of a hundred sleeps of 0.2 ms is well below 1 ms."""
    lines, _ = output(
        """
        taken = []
        for _ in range(100):
            start = time.monotonic()
            fibers.sleep(0.0002)
            taken.append(time.monotonic() - start)
        print(min(taken) >= 0.0002, min(taken) < 0.0009)
        """
    )
    assert lines == ["True True"]


def test_hazard_13_a_hundred_equal_timeouts_come_in_order() -> None:
    """Hazard 13: they came back nearly reversed."""
    assert output(
        """
        order = []
        class Target:
            def __init__(self, number):
                self.number = number
            def expire(self, timer):
                order.append(self.number)
        loop = LibeventLoop()
        for spread in (0.0, 1e-6):
            del order[:]
            start = loop.clock() + 0.005
            for number in range(100):
                loop.schedule(start + number * spread, Target(number))
            while loop.clock() < start + 0.001:
                pass
            while len(order) < 100:
                loop.turn(True)
            print(order == list(range(100)))
        """
    ) == (["True", "True"], "")


def test_hazard_13_signals_end_the_wait() -> None:
    """Hazard 13: a handler ran 0.9 s late, or, with no timeout, never: the signal had been taken by another thread."""
    assert output(
        """
        got = []
        signal.signal(signal.SIGUSR1, lambda *args: got.append(1))
        parked = threading.Event()
        def elsewhere():
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
            parked.wait()
        thread = threading.Thread(target=elsewhere)
        thread.start()
        loop = LibeventLoop()
        def strike():
            while not loop.asleep:
                time.sleep(0)
            signal.pthread_kill(thread.ident, signal.SIGUSR1)
        striker = threading.Thread(target=strike)
        striker.start()
        loop.turn(True)
        print(got)
        parked.set()
        thread.join(), striker.join()
        """
    ) == (["[1]"], "")


@pytest.mark.skipif(sys.platform != "linux", reason="the methods of Linux")
@pytest.mark.parametrize("forbidden", [(), ("EPOLL",), ("EPOLL", "POLL")])
def test_pitfall_an_fd_closed_behind_our_back_does_not_spin_or_kill_the_loop(forbidden: tuple[str, ...]) -> None:
    """epoll forgets it, poll says that it is ready, select fails each time. The waiter hears when the number comes back."""
    done = run_python(
        "-c",
        COMMON
        + dedent(
            """
            a, b = socket.socketpair()
            c2, d = socket.socketpair()
            reader, other = fibers.spawn(a.recv, 10), fibers.spawn(c2.recv, 10)
            fibers.sleep(0.001)
            os.close(a.fileno())
            used = time.process_time()
            d.send(b"unharmed")
            print(other.result(5))
            fibers.sleep(0.2)
            print(time.process_time() - used < 0.15)
            new, peer = socket.socketpair()  # takes the number
            try:
                reader.result(5)
            except OSError as error:
                print(error.errno == 9)
            late = fibers.spawn(new.recv, 10)
            fibers.yield_now()
            peer.send(b"new")
            print(late.result(5))
            std.socket.detach(a)
            """
        ),
        env={"FIBERS_EVENTLOOP": "libevent"} | {f"EVENT_NO{name}": "1" for name in forbidden},
        timeout=30,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["b'unharmed'", "True", "True", "b'new'"]


@pytest.mark.skipif(sys.platform != "linux", reason="the methods of Linux")
def test_pitfall_select_with_a_high_fd_aborts_the_process() -> None:
    """The C library checks FD_SET and aborts; ours is an error that names the fd, and the loop goes on."""
    done = run_python(
        "-c",
        COMMON
        + dedent(
            """
            import fcntl
            resource.setrlimit(resource.RLIMIT_NOFILE, (2048, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
            loop = LibeventLoop()
            a, b = std.socketpair()
            high = fcntl.fcntl(a.fileno(), fcntl.F_DUPFD, 1500)
            handle = loop.handle(high, True)
            try:
                wait(loop, handle.reading)
            except ValueError as error:
                print(error)
            print(loop.stats.registrations)
            loop.release(handle, lambda: os.close(high))
            loop.ready.clear()
            waiter = wait(loop, loop.handle(a.fileno(), True).reading)
            b.send(b"x")
            loop.turn(True)
            print(list(loop.ready) == [waiter])
            """
        ),
        env={"FIBERS_EVENTLOOP": "libevent", "EVENT_NOEPOLL": "1", "EVENT_NOPOLL": "1"},
        timeout=30,
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert "fd 1500 is too high" in lines[0]
    assert "FIBERS_EVENTLOOP=poll" in lines[0]
    assert lines[1:] == ["0", "True"]


def test_pitfall_memory_stays_flat() -> None:
    """Waits, timeouts and closed files leave no events behind."""
    assert output(
        """
        base = get_scheduler().loop._base
        def round():
            a, b = socket.socketpair()
            with a, b:
                a.settimeout(0.0001)
                try:
                    a.recv(1)
                except TimeoutError:
                    pass
                reader = fibers.spawn(b.recv, 1)
                fibers.yield_now()
                a.send(b"x")
                reader.result(5)
        for _ in range(10):
            round()
        before = len(base.events)
        for _ in range(300):
            round()
        print(len(base.events) - before, len(base.fired), len(get_scheduler().loop._table))
        """
    ) == (["0 0 0"], "")
