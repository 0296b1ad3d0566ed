"""Signals of the process: who gets Ctrl-C, and what wakes a loop that sleeps.

Facts. The default SIGINT handler raises KeyboardInterrupt wherever the interpreter is: in a strange fiber, or inside the
scheduler. Here it is main's: raised in main's own code at once, delivered to main when it waits, pending for main while
another fiber computes; if one is pending already, the second Ctrl-C raises in place, so that a fiber which computes for
ever can be stopped. A signal that another thread's C code takes must still end the main loop's kernel wait (hazard 3).

All of it in child processes: a test runner has threads and handlers of its own. Signals are sent by the process itself,
at points that the script chooses.
"""

import pytest
from support.process import run_python

COMMON = """
import os, signal, sys, threading, time
import fibers
from fibers.io import socket

def interrupt():
    signal.raise_signal(signal.SIGINT)

def interrupt_later(seconds=0.02):
    def send():
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=send).start()
"""


def run_script(script: str) -> str:
    child = run_python("-c", COMMON + script, timeout=20)
    assert child.returncode == 0, child.stderr
    assert child.stderr == ""
    return child.stdout


def test_while_main_waits_it_gets_it_and_the_fiber_that_runs_the_loop_does_not() -> None:
    """Main sleeps, and another fiber runs the loop on its stack: the interrupt is main's all the same."""
    script = """
def sleeper():
    try:
        fibers.sleep(0.1)
    except BaseException as error:
        print("stranger got", repr(error))
    return "slept"

fiber = fibers.spawn(sleeper)
interrupt_later()
try:
    fibers.sleep(30)
except KeyboardInterrupt:
    print("main")
print(fiber.result())
"""
    assert run_script(script) == "main\nslept\n"


@pytest.mark.parametrize(
    "wait",
    [
        "fibers.sleep(30)",
        "fibers.lowlevel.park()",
        "fibers.spawn(fibers.sleep, 30).join()",
        "a.recv(1)",
        "fibers.lowlevel.wait_readable(b.fileno())",
    ],
)
def test_wherever_main_waits(wait: str) -> None:
    script = f"""
a, b = socket.socketpair()
fibers.sleep(0)
started = time.monotonic()
try:
    interrupt_later()
    {wait}
except KeyboardInterrupt:
    print("main", time.monotonic() - started < 10)
"""
    assert run_script(script) == "main True\n"


def test_in_mains_own_code_it_is_raised_in_place() -> None:
    script = """
fibers.sleep(0)
try:
    interrupt()
    print("not reached")
except KeyboardInterrupt:
    print("in place")
fibers.sleep(0.001)
"""
    assert run_script(script) == "in place\n"


def test_while_another_fiber_computes_it_is_pending_for_main() -> None:
    script = """
def compute():
    interrupt()
    print("computed")
    fibers.yield_now()
    print("goes on")

fiber = fibers.spawn(compute)
try:
    fiber.join()
    print("not reached")
except KeyboardInterrupt:
    print("main")
fiber.join()
"""
    assert run_script(script) in ("computed\nmain\ngoes on\n", "computed\ngoes on\nmain\n")


def test_pending_for_a_main_that_is_ready() -> None:
    """Main only yields: its next blocking call raises. What it was woken for is not lost."""
    script = """
fibers.spawn(interrupt)
for turn in range(3):
    try:
        fibers.yield_now()
    except KeyboardInterrupt:
        print("main")
"""
    assert run_script(script) == "main\n"


def test_the_second_one_raises_in_place() -> None:
    """A fiber that computes for ever can be stopped by a second Ctrl-C."""
    script = """
def compute():
    interrupt()
    print("first: pending")
    try:
        interrupt()
        print("not reached")
    except KeyboardInterrupt:
        print("second: in place")

fiber = fibers.spawn(compute)
try:
    fiber.join()
except KeyboardInterrupt:
    print("main")
fiber.join()
"""
    assert run_script(script) == "first: pending\nsecond: in place\nmain\n"


def test_one_that_strikes_while_another_is_being_delivered() -> None:
    """Between taking the first out and clearing the flag: what is left of that was felt as a cancellation."""
    script = """
from collections import deque

class Strikes(deque):
    def popleft(self):
        taken = super().popleft()
        interrupt()
        return taken

main = fibers.current()
a, b = socket.socketpair()
for wait in (lambda: a.recv(1), fibers.yield_now, lambda: fibers.sleep(0.001), lambda: fibers.spawn(int).join()):
    main._pending = Strikes([KeyboardInterrupt()])
    main.interrupt = True
    try:
        wait()
    except KeyboardInterrupt:
        print("once", end=" ")
    main._pending = None
    b.send(b"x")
    wait()
    fibers.yield_now()
    print(main.interrupt)
"""
    assert run_script(script) == "once False\n" * 4


def test_one_that_has_been_delivered_is_not_pending_any_more() -> None:
    script = """
def compute():
    interrupt()
    print("pending")

for _ in range(3):
    try:
        fibers.spawn(compute).join()
        fibers.sleep(1)
    except KeyboardInterrupt:
        print("main")
"""
    assert run_script(script) == "pending\nmain\n" * 3


def test_a_pending_one_is_raised_at_the_end_of_run() -> None:
    script = """
def main():
    fiber = fibers.spawn(interrupt)
    while not fiber.done():
        try:
            fibers.yield_now()
        except KeyboardInterrupt:
            print("at the yield")
            raise

try:
    fibers.run(main)
except KeyboardInterrupt:
    print("out of run")
"""
    assert run_script(script) in ("out of run\n", "at the yield\nout of run\n")


def test_one_that_comes_while_the_last_fiber_computes_is_not_lost_with_the_end_of_run() -> None:
    """Between it and the end of `run` the loop makes no turn; it is raised all the same."""
    script = """
def main():
    fiber = fibers.spawn(interrupt)
    try:
        fiber.join()
    except KeyboardInterrupt:
        print("at the join")
        raise
    return "the result"

try:
    print(fibers.run(main))
except KeyboardInterrupt:
    print("out of run")
"""
    assert run_script(script) in ("out of run\n", "at the join\nout of run\n")


def test_the_default_handler_is_back_after_run() -> None:
    script = """
before = signal.getsignal(signal.SIGINT)
fibers.run(lambda: print(signal.getsignal(signal.SIGINT) is not before))
print(signal.getsignal(signal.SIGINT) is before is signal.default_int_handler)
print(signal.set_wakeup_fd(-1))
"""
    assert run_script(script) == "True\nTrue\n-1\n"


@pytest.mark.parametrize("handler", ["signal.SIG_IGN", "signal.SIG_DFL", "lambda *_: print('custom')"])
def test_a_handler_of_the_programs_own_is_left_alone(handler: str) -> None:
    script = f"""
mine = {handler}
signal.signal(signal.SIGINT, mine)
fibers.run(fibers.sleep, 0.001)
fibers.run(lambda: print(signal.getsignal(signal.SIGINT) == mine))
print(signal.getsignal(signal.SIGINT) == mine)
"""
    assert run_script(script) == "True\nTrue\n"


def test_a_handler_installed_inside_run_stays_after_it() -> None:
    script = """
mine = lambda *_: None
fibers.run(lambda: signal.signal(signal.SIGINT, mine))
print(signal.getsignal(signal.SIGINT) is mine)
"""
    assert run_script(script) == "True\n"


def test_unhandled_it_ends_the_program_like_any_other_and_fibers_unwind() -> None:
    script = """
def child():
    try:
        fibers.sleep(30)
    finally:
        print("unwound", flush=True)

def main():
    fibers.spawn(child)
    interrupt_later()
    fibers.sleep(30)

fibers.run(main)
"""
    child = run_python("-c", COMMON + script, timeout=20)
    assert child.returncode == -2
    assert child.stdout == "unwound\n"
    assert "KeyboardInterrupt" in child.stderr


def test_a_handler_runs_while_the_loop_sleeps_and_may_spawn_and_wake() -> None:
    """Hazard 7 with a signal handler in the kernel wait: what it asks for goes through the inbox, and happens at once."""
    script = """
main = fibers.current()
def handler(*_):
    try:
        fibers.sleep(1)
    except RuntimeError:
        print("refused")
    fibers.spawn(print, "spawned")
    fibers.lowlevel.unpark(main)

signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.02)
fibers.lowlevel.park(10)
fibers.sleep(0.001)
"""
    assert run_script(script) == "refused\nspawned\n"


def test_a_signal_that_another_thread_takes_wakes_the_loop() -> None:
    """Hazard 3: with no timeout pending the handler never ran at all; with one it ran when that passed."""
    script = """
main = fibers.current()
loop = main.scheduler.loop
def handler(*_):
    fibers.lowlevel.unpark(main)

signal.signal(signal.SIGUSR1, handler)
def other():
    while not loop.asleep:
        time.sleep(0)
    signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)  # this thread takes it, at C level

signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
def taker():
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
    other()

threading.Thread(target=taker).start()
started = time.monotonic()
fibers.lowlevel.park(15)
print(time.monotonic() - started < 10)
"""
    assert run_script(script) == "True\n"


def test_an_earlier_wakeup_fd_keeps_getting_its_bytes_and_is_put_back() -> None:
    """Hazard 3: the wakeup fd is chained to any earlier one."""
    script = """
import _socket
reader, writer = _socket.socketpair()
writer.setblocking(False)
reader.settimeout(5)
signal.set_wakeup_fd(writer.fileno())
signal.signal(signal.SIGUSR1, lambda *_: None)
def main():
    signal.raise_signal(signal.SIGUSR1)
    fibers.sleep(0.01)

fibers.run(main)
print(reader.recv(10) == bytes([signal.SIGUSR1]))
print(signal.set_wakeup_fd(-1) == writer.fileno())
"""
    assert run_script(script) == "True\nTrue\n"


def test_a_storm_of_harmless_signals_changes_nothing() -> None:
    """Row "EINTR": thousands of handled signals during sleeps and reads; no event lost, no sleep early."""
    script = """
count = 0
def handler(*_):
    global count
    count += 1

signal.signal(signal.SIGALRM, handler)
a, b = socket.socketpair()
def reader():
    total = b""
    while len(total) < 200:
        total += a.recv(1)
    return total

def sleeper():
    for _ in range(50):
        before = time.monotonic()
        fibers.sleep(0.002)
        assert time.monotonic() - before >= 0.002

signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
reading, sleeping = fibers.spawn(reader), fibers.spawn(sleeper)
for _ in range(200):
    b.sendall(b"x")
    fibers.sleep(0.0001)
print(len(reading.result(10)), sleeping.result(10), count > 20)
signal.setitimer(signal.ITIMER_REAL, 0)
"""
    assert run_script(script) == "200 None True\n"
