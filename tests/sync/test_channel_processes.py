"""Channels where it takes a process of its own: raising signal handlers, finalisers, fork, deadlock, Ctrl-C.

Signal handlers that raise: at the first, second, third … point of the package's code at which CPython could run a handler,
one exception is raised there, in a fresh program (see tests/core/test_raising_handlers.py). It may come out of the call
that was under way; that is then called again. Or it goes to main. Whatever happens, each value arrives exactly once, and
nobody waits for ever.
"""

import re
import signal
import textwrap
from subprocess import CompletedProcess

import pytest
from support.process import run_python
from support.scale import scaled

EVERY_POINT = """
import os, sys
from concurrent.futures import ThreadPoolExecutor
import fibers
from fibers import Channel, ChannelClosed, select, after
from fibers.core import scheduler as module
from fibers.core.guard import guard

class Boom(BaseException):
    pass

PACKAGE = os.path.dirname(fibers.__file__) + os.sep
# Runtime code, wherever it is; and all of these, also where they run as code of the fiber.
OURS = tuple(PACKAGE + name for name in ("channels/", "core/choosing.py", "core/guard.py"))
active = False
points = came_out = 0
target = -1
where = ""

def profile(frame, event, argument):
    global points, where
    if active and (event == "call" or event == "c_return") and frame.f_code.co_filename.startswith(PACKAGE):
        scheduler = module.state.scheduler
        ours = frame.f_code.co_filename.startswith(OURS)
        if scheduler is not None and not scheduler.closed and (ours or scheduler.current is None):
            points += 1
            if points == target:
                where = f"{frame.f_code.co_qualname}, line {frame.f_lineno}, {event} {argument}"
                print("striking in", where, file=sys.stderr)
                raise Boom(where)

def again(call, *args):
    global came_out
    while True:
        try:
            return call(*args)
        except Boom:
            came_out += 1

def count_unraisable(report):
    global came_out
    assert report.exc_type is Boom, report
    came_out += 1

sys.unraisablehook = count_unraisable

def program():
    global active
    rendezvous, buffered, other = channels = Channel(), Channel(1), Channel()
    sent, got = [], []
    def send(channel, *values):
        for value in values:
            again(channel.send, value, 5)
            sent.append(value)
    def select_to_send(*values):
        for value in values:
            case, result = again(lambda: select(rendezvous.sending(value), other.sending(value), after(5)))
            assert result is None and case.channel is not None, where
            sent.append(value)
    def receive(channel):
        while True:
            try:
                got.append(again(channel.receive, 5))
            except ChannelClosed:
                return
    def select_to_receive():
        left = list(channels)
        while left:
            case, value = again(lambda: select(*[channel.receiving() for channel in left], after(5)))
            assert value is not None, where
            if value is ChannelClosed:
                left.remove(case.channel)
            else:
                got.append(value)
    def joiner(fiber):
        case, value = again(lambda: select(fiber.finishing(), after(5)))
        assert value is fiber, where
    def closer(senders):
        for fiber in senders:
            again(fiber.join, 5)
        while not again(other.try_send, 100):
            again(fibers.yield_now)
        sent.append(100)
        for channel in channels:
            again(channel.close)
    fibers.current()
    senders = [
        fibers.spawn(send, rendezvous, 1, 2, 3),
        fibers.spawn(send, buffered, 4, 5, 6),
        fibers.spawn(select_to_send, 7, 8),
    ]
    every = [
        *senders,
        fibers.spawn(receive, rendezvous),
        fibers.spawn(receive, buffered),
        fibers.spawn(receive, other),
        fibers.spawn(select_to_receive),
        fibers.spawn(joiner, senders[0]),
        fibers.spawn(closer, senders),
    ]
    booms = 0
    active = True
    sys.setprofile(profile)
    for each in every:
        while not each._done:
            try:
                each.join(10)
            except Boom:
                booms += 1
    active = False  # greenlets have profiles of their own
    sys.setprofile(None)
    scheduler = module.state.scheduler
    while scheduler.main.interrupt:
        try:
            fibers.yield_now()
        except Boom:
            booms += 1
    for each in every:
        each.result()
    assert sorted(got) == sorted(sent) == [1, 2, 3, 4, 5, 6, 7, 8, 100], (where, got, sent)
    for channel in channels:
        assert not (channel._receiving or channel._sending), where
    assert guard.free == {0: None} and guard.owner == 0, where
    return booms

def one_run(number):
    global target, points, came_out, where
    target, points, came_out, where = number, 0, 0, ""
    with ThreadPoolExecutor(1) as pool:
        def run():
            sys.setprofile(None)
            return program()
        booms = pool.submit(run).result(60)
    return booms + came_out

fibers.channels.selecting.dice.seed(0)
one_run(-1)
total = points
start, step = int(sys.argv[1]), int(sys.argv[2])
struck = lost = 0
for number in range(1 + start, total + 1, step):
    fibers.channels.selecting.dice.seed(0)
    arrived = one_run(number)
    struck += where != ""  # the number of points varies a little with the time that passes
    lost += (where != "") - arrived
print(total > 300, struck > 0, "lost:", lost)
"""


def test_a_handler_that_raises_at_any_point_loses_no_value() -> None:
    step = max(1, 10 // scaled(10, least=1))
    child = run_python("-c", EVERY_POINT, "0", str(step), timeout=110)
    assert child.returncode == 0, child.stderr[-3000:]
    assert child.stdout == "True True lost: 0\n", child.stderr[-3000:]


HEAD = """
import gc, os, signal, sys, threading, warnings
import fibers
from fibers import *
warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of forks beside threads: that is the test
"""


def program(body: str, **env: str) -> CompletedProcess[str]:
    code = HEAD + textwrap.dedent(body)
    return run_python("-c", code, timeout=60, env=env)


def test_a_signal_handler_that_sends_wakes_who_receives() -> None:
    """As Go's signal.Notify: the handler strikes while the loop sleeps in the kernel."""
    ran = program(
        """
        signals = Channel(4)
        signal.signal(signal.SIGALRM, lambda number, frame: signals.try_send(number))
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        assert signals.receive() == signal.SIGALRM
        assert select(signals.receiving(), after(20))[1] == signal.SIGALRM
        assert fibers.spawn(signals.receive).result() == signal.SIGALRM
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, lambda number, frame: signals.close())
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        assert len(list(signals)) <= 4
        print("well")
        """
    )
    assert (ran.stdout, ran.stderr) == ("well\n", "")


def test_ctrl_c_reaches_main_where_it_waits() -> None:
    ran = program(
        """
        channel = Channel()
        for wait in (channel.receive, lambda: channel.send(1), lambda: select(channel.receiving())):
            fibers.spawn_later(0.001, os.kill, os.getpid(), signal.SIGINT)
            try:
                wait()
            except KeyboardInterrupt:
                print("interrupted")
            assert not channel.try_send(2)
            assert channel.try_receive() is None
        """
    )
    assert (ran.stdout, ran.stderr) == ("interrupted\n" * 3, "")


def test_a_storm_of_ctrl_c_breaks_no_operation() -> None:
    ran = program(
        """
        channel, got, interrupts = Channel(), [], []
        def send():
            for number in range(20_000):
                channel.send(number)
            channel.close()
        def main():
            fibers.spawn(send)
            killer.start()
            while True:
                try:
                    while True:
                        try:
                            got.append(channel.receive())
                        except KeyboardInterrupt:
                            interrupts.append("in the operation, or behind it")
                except KeyboardInterrupt:
                    interrupts.append("at the jump back")
                except ChannelClosed:
                    return
        over = threading.Event()
        def kill():
            while not got and not over.wait(0.0005):
                pass
            while not over.is_set():
                before = len(interrupts)
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
                while len(interrupts) == before and not over.wait(0.0005):
                    pass  # one at a time: none strikes in the handling of another
                over.wait(0.0005)
        killer = threading.Thread(target=kill)
        for step in (lambda: fibers.run(main), over.set, over.set, killer.join, killer.join):
            try:
                step()
            except KeyboardInterrupt:
                interrupts.append("at the end")
        # One may strike in main's own code, between the receive and the append.
        assert len(got) + len(interrupts) >= 20_000 and sorted(set(got)) == got
        print(len(interrupts) > 1)
        """
    )
    assert (ran.stdout, ran.stderr) == ("True\n", "")


def test_finalisers_that_use_channels_wherever_they_strike() -> None:
    """In the middle of an operation of their thread they are told so; everywhere else they work."""
    ran = program(
        """
        log, refused = Channel(float("inf")), 0
        class Garbage:
            def __init__(self):
                self.me = self
            def __del__(self):
                global made
                made += 1
                log.try_send(made)
                spare.close()
        def unraisable(report):
            global refused
            assert "in the middle of using one" in str(report.exc_value), report
            refused += 1
        sys.unraisablehook = unraisable
        made, spare = 0, Channel()
        channel, other = Channel(), Channel(2)
        def send():
            for number in range(5000):
                Garbage()
                channel.send(number)
                select(other.sending(number), other.receiving())
            channel.close()
        gc.set_threshold(10, 1, 1)
        fibers.spawn(send)
        assert list(channel) == list(range(5000))
        assert spare.closed
        gc.disable()
        gc.collect()
        assert made > 1000 and refused < made
        log.close()
        assert len(list(log)) == made - refused
        print("well")
        """
    )
    assert (ran.stdout, ran.stderr) == ("well\n", "")


CYCLE = """
channel, other = Channel(), Channel()
def first():
    channel.receive()
    other.send(1)
def second():
    other.receive()
    select(channel.sending(1), other.receiving())
fibers.spawn(second)
"""


def test_a_deadlock_over_channels_is_reported() -> None:
    ran = program(CYCLE + "fibers.spawn(first, name='first').join()")
    assert ran.returncode == 1
    last = ran.stderr[ran.stderr.index("DeadlockError") :]
    assert re.search(r"fiber 'first' has waited 0\.\d+ s for a value from <Channel 0 of 0 at ", last)
    assert re.search(r"fiber 'second' has waited 0\.\d+ s for a value from <Channel 0 of 0 at ", last)


def test_a_deadlock_over_selects_is_reported() -> None:
    ran = program(
        """
        channel, fiber = Channel(), None
        def choose():
            select(channel.receiving(), channel.sending(1), fiber.finishing(), None)
        fiber = fibers.spawn(choose)
        fiber.join()
        """
    )
    assert ran.returncode == 1
    last = ran.stderr[ran.stderr.index("DeadlockError") :]
    assert "s for one of: a value from <Channel" in last
    assert "the end of fiber 'choose'" in last


@pytest.mark.parametrize(
    "beside", ["after(float('inf'))", "after(100)", "readable(there)", "channel.receiving(), timeout=100"]
)
def test_no_alarm_while_something_else_is_selected_too(beside: str) -> None:
    ran = program(
        f"""
        there, here = os.pipe()
        channel = Channel()
        fiber = fibers.spawn(lambda: select(channel.receiving(), {beside}))
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        fiber.join()
        """
    )
    assert (ran.returncode, ran.stderr) == (-signal.SIGALRM, "")


def test_main_that_waits_for_a_value_is_told_in_the_log() -> None:
    """A main fiber may wait to be interrupted: that is no error, and is said once."""
    ran = program(
        """
        import logging
        logging.basicConfig(level=logging.WARNING)
        channel = Channel()
        fibers.spawn(channel.receive)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        channel.receive()
        """
    )
    assert ran.returncode == -signal.SIGALRM
    assert ran.stderr.count("every fiber waits, and nothing can wake one") == 1


def test_in_a_forked_child_nobody_is_served_who_does_not_exist_there() -> None:
    ran = program(
        """
        channel, other = Channel(), Channel(1)
        def elsewhere():  # fibers of another thread, and its main
            every = [fibers.spawn(channel.receive), fibers.spawn(select, channel.receiving(), other.sending(0))]
            for each in every:
                each.join()
            for _ in range(2):
                channel.receive()
        other.send(5)
        thread = threading.Thread(target=fibers.run, args=(elsewhere,))
        thread.start()
        mine = [fibers.spawn(channel.receive), fibers.spawn(select, channel.receiving())]
        while len(channel._receiving) < 4:
            fibers.yield_now()
        child = os.fork()
        if not child:
            # None of those is here.
            assert not channel.try_send(1), channel._receiving
            assert select(channel.sending(1), default())[0] is default()
            assert other.receive() == 5
            assert other.try_receive() is None
            receiver = fibers.spawn(channel.receive)
            fibers.yield_now()
            channel.send(2)
            assert receiver.result(5) == 2
            channel.close()
            print("child well", flush=True)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert other.receive() == 5
        for number in range(6):
            fibers.yield_now()
            channel.try_send(number)
        for each in mine:
            each.join(5)
        while thread.is_alive():
            channel.try_send(9)
            fibers.sleep(0.001)
        print("well")
        """
    )
    assert (ran.stdout, ran.stderr) == ("child well\nwell\n", "")


def test_in_a_forked_child_the_guard_is_free_whoever_held_it() -> None:
    ran = program(
        """
        from fibers.core.guard import guard
        entered, leave = threading.Event(), threading.Event()
        def hold():
            with guard:
                entered.set()
                leave.wait()
        thread = threading.Thread(target=hold)
        thread.start()
        entered.wait()
        child = os.fork()
        if not child:
            channel = Channel(1)
            channel.send(1)
            assert channel.receive() == 1
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        leave.set()
        thread.join()
        channel = Channel(1)
        channel.send(1)
        print("well")
        """
    )
    assert (ran.stdout, ran.stderr) == ("well\n", "")


def test_a_thread_that_ends_leaves_nobody_in_line() -> None:
    ran = program(
        """
        channel = Channel()
        def work():
            fibers.spawn(channel.receive)
            fibers.spawn(select, channel.receiving(), after(100))
            fibers.yield_now()
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert not channel.try_send(1)
        assert not channel._receiving
        print("well")
        """
    )
    assert (ran.stdout, ran.stderr) == ("well\n", "")
