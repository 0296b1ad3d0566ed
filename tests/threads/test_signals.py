"""Signals received as values: none lost in a storm, handlers put back whatever happens, any thread, fork and exec.

What is installed, refused and put back is tested in this process, the arrival of real signals mostly in children: a test
runner has threads and handlers of its own.
"""

import os
import signal
import textwrap
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support.process import run_python
from support.scale import SEED, scaled

import fibers
from fibers import open_signal_receiver

USR1, USR2, TERM, HUP = signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGHUP


@pytest.fixture(autouse=True)
def _handlers_are_put_back() -> Iterator[None]:
    numbers = [USR1, USR2, TERM, HUP, signal.SIGINT, signal.SIGCHLD, signal.SIGALRM]
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    after = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        signal.signal(number, before[number])
    assert after == before


def send(number: int) -> None:
    os.kill(os.getpid(), number)


# -- what arrives -----------------------------------------------------------------------------------------------------


def test_what_was_sent_is_received() -> None:
    with open_signal_receiver(USR1, USR2) as signals:
        assert iter(signals) is signals
        send(USR1)
        number = next(signals)
        assert number is USR1
        send(USR2)
        assert signals.receive(5) is USR2
        assert (signals.count(USR1), signals.count(USR2)) == (1, 1)
        with pytest.raises(KeyError):
            signals.count(TERM)


def test_iterating_waits_and_others_run() -> None:
    got: list[int] = []

    def receives() -> None:
        for number in signals:
            got.append(number)

    with open_signal_receiver(USR1) as signals:
        fiber = fibers.spawn(receives)
        for _ in range(3):
            fibers.sleep(0.001)
            send(USR1)
        fibers.sleep(0.001)
        assert not fiber.done()
    fiber.result(5)  # it ends with the receiver
    assert got == [USR1] * 3


def test_those_of_one_number_are_merged_and_nothing_arrives_before_its_time() -> None:
    with open_signal_receiver(USR1, USR2) as signals:
        send(USR2)
        for _ in range(5):
            send(USR1)
        assert [next(signals), next(signals)] == [USR2, USR1]
        assert 1 <= signals.count(USR1) <= 5
        with pytest.raises(TimeoutError, match="no signal is pending"):
            signals.receive(0)
        with pytest.raises(TimeoutError, match=r"no signal came within 0\.001 seconds"):
            signals.receive(0.001)


def test_real_time_signals_have_numbers_only() -> None:
    number = signal.SIGRTMIN + 3
    with open_signal_receiver(number) as signals:
        send(number)
        assert signals.receive(5) == number
        assert "signal 37" in repr(signals) or f"signal {number}" in repr(signals)


def test_each_goes_to_one_of_those_who_wait() -> None:
    got: list[int] = []

    def receives() -> None:
        for number in signals:
            got.append(number)

    with open_signal_receiver(USR1, USR2, HUP) as signals:
        waiting = [fibers.spawn(receives) for _ in range(3)]
        fibers.yield_now()
        for number in (USR1, USR2, HUP):
            send(number)
        fibers.sleep(0.002)
    for fiber in waiting:
        fiber.join(5)
    assert sorted(got) == sorted([USR1, USR2, HUP])


def test_a_cancelled_receiver_loses_nothing() -> None:
    with open_signal_receiver(USR1) as signals:
        with fibers.move_on_after(0.005) as scope:
            next(signals)
        assert scope.cancelled_caught
        fiber = fibers.spawn(signals.receive)
        fibers.yield_now()
        send(USR1)  # it is woken
        fiber.cancel()
        assert fiber.result(5) is USR1
        fiber = fibers.spawn(signals.receive)
        fibers.yield_now()
        fiber.cancel()
        send(USR1)  # it was taken out of the queue before
        fiber.join(5)
        assert fiber.cancelled()
        assert signals.receive(5) is USR1


def test_a_deadline_surfaces_as_the_timeout_once() -> None:
    with open_signal_receiver(USR1) as signals, fibers.move_on_after(0.005) as scope:
        with pytest.raises(TimeoutError):
            signals.receive(20)
        with pytest.raises(fibers.Cancelled):
            signals.receive(20)
        signals.receive(20)
    assert scope.cancelled_caught


def test_what_is_left_when_it_is_closed_is_delivered_and_then_it_ends() -> None:
    with open_signal_receiver(USR1, USR2) as signals:
        send(USR1)
        send(USR2)
    assert list(signals) == [USR1, USR2]
    with pytest.raises(RuntimeError, match="closed> is not open"):
        signals.receive()


# -- handlers ----------------------------------------------------------------------------------------------------------


def ours(number: int, frame: object) -> None:
    seen.append(number)


seen: list[int] = []


@pytest.fixture(autouse=True)
def _forget() -> None:
    seen.clear()


@pytest.mark.parametrize("before", [signal.SIG_DFL, signal.SIG_IGN, ours])
def test_what_was_there_is_put_back(before: Any) -> None:
    def block() -> None:
        with open_signal_receiver(USR1, USR2):
            assert signal.getsignal(USR1) is not before
            raise ZeroDivisionError

    signal.signal(USR1, before)
    try:
        with pytest.raises(ZeroDivisionError):
            block()
        assert signal.getsignal(USR1) == before
    finally:
        signal.signal(USR1, signal.SIG_DFL)


def test_other_handlers_go_on_working() -> None:
    signal.signal(USR2, ours)
    try:
        with open_signal_receiver(USR1) as signals:
            send(USR2)
            send(USR1)
            assert next(signals) is USR1
            assert seen == [USR2]
    finally:
        signal.signal(USR2, signal.SIG_DFL)


def test_several_receivers_of_one_signal_all_get_it() -> None:
    with open_signal_receiver(USR1) as outer, open_signal_receiver(USR1, USR2) as inner:
        send(USR1)
        assert outer.receive(5) is inner.receive(5) is USR1
        send(USR2)
        assert inner.receive(5) is USR2
        with pytest.raises(TimeoutError):
            outer.receive(0)


@pytest.mark.parametrize("first", [0, 1])
def test_they_may_be_closed_in_any_order(first: int) -> None:
    signal.signal(USR1, ours)
    try:
        receivers = [open_signal_receiver(USR1), open_signal_receiver(USR1)]
        for receiver in receivers:
            receiver.__enter__()
        receivers[first].__exit__(None, None, None)
        send(USR1)
        assert receivers[1 - first].receive(5) is USR1
        receivers[1 - first].__exit__(None, None, None)
        send(USR1)
        assert seen == [USR1]
        assert signal.getsignal(USR1) is ours
    finally:
        signal.signal(USR1, signal.SIG_DFL)


def test_a_handler_that_was_set_meanwhile_stays() -> None:
    try:
        with open_signal_receiver(USR1) as signals:
            signal.signal(USR1, ours)
            send(USR1)
            assert seen == [USR1]
            with open_signal_receiver(USR1) as inner:
                send(USR1)
                assert inner.receive(5) is USR1
            with pytest.raises(TimeoutError):
                signals.receive(0)
            assert signal.getsignal(USR1) is ours
        assert signal.getsignal(USR1) is ours
    finally:
        signal.signal(USR1, signal.SIG_DFL)


def test_ours_put_back_by_others_after_its_time_hands_the_signal_on() -> None:
    signal.signal(USR1, ours)
    try:
        with open_signal_receiver(USR1):
            theirs = signal.signal(USR1, signal.SIG_IGN)
        signal.signal(USR1, theirs)
        send(USR1)
        send(USR1)
        assert seen == [USR1] * 2
        assert signal.getsignal(USR1) is ours
    finally:
        signal.signal(USR1, signal.SIG_DFL)


def test_a_failure_to_install_one_takes_the_others_back(monkeypatch: pytest.MonkeyPatch) -> None:
    real = signal.signal

    def refuse(number: int, handler: Any) -> Any:
        if number == USR2:
            raise OSError(22, "Invalid argument")
        return real(number, handler)

    monkeypatch.setattr(signal, "signal", refuse)
    receiver = open_signal_receiver(USR1, USR2)
    with pytest.raises(OSError, match="Invalid argument"):
        receiver.__enter__()
    assert signal.getsignal(USR1) == signal.SIG_DFL


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signals", "error", "text"),
    [
        ((), ValueError, "at least one signal"),
        (("SIGTERM",), TypeError, "as signal.SIGTERM, not 'SIGTERM'"),
        ((True,), TypeError, "not True"),
        ((0,), ValueError, "0 is not the number of a signal here"),
        ((9999,), ValueError, "9999 is not the number"),
        ((signal.SIGKILL,), ValueError, "SIGKILL cannot be received: the system lets nobody handle it"),
        ((USR1, signal.SIGSTOP), ValueError, "SIGSTOP cannot be received"),
        ((signal.SIGSEGV,), ValueError, r"SIGSEGV cannot be received: .*faulthandler"),
    ],
)
def test_what_cannot_be_received(signals: tuple[Any, ...], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        open_signal_receiver(*signals)


def test_it_is_opened_once() -> None:
    receiver = open_signal_receiver(USR1)
    assert repr(receiver) == "<SignalReceiver SIGUSR1 not opened>"
    with receiver:
        assert repr(receiver) == "<SignalReceiver SIGUSR1>"
        with pytest.raises(RuntimeError, match="has been opened before"):
            receiver.__enter__()
    with pytest.raises(RuntimeError, match="has been opened before"):
        receiver.__enter__()


def test_opened_in_the_main_thread_only_and_used_in_any() -> None:
    def elsewhere() -> str:
        with pytest.raises(RuntimeError) as caught:
            open_signal_receiver(USR1).__enter__()
        return str(caught.value)

    assert "only that can open a receiver; open it there" in fibers.to_thread(elsewhere)
    got: list[int] = []
    with open_signal_receiver(USR1) as signals, fibers.FiberThread() as thread:
        fiber = thread.spawn(signals.receive)
        with pytest.raises(RuntimeError, match="must be closed in the main thread"):
            thread.run_sync(signals.__exit__, None, None, None)
        send(USR1)
        assert fiber.result(10) is USR1
        loop = thread.spawn(lambda: got.extend(signals))
        for _ in range(20):
            count = len(got)
            send(USR1)
            while signals._pending:
                fibers.sleep(0.001)
            assert count <= len(got) + 1
        thread.stop(cancel=False)
        signals._open = False  # what closing does first
        signals._queue.wake_all()
        loop.join(10)
    assert got == [USR1] * 20


def test_a_finaliser_inside_the_runtime_cannot_wait() -> None:
    errors: list[BaseException] = []

    def callback(_: object) -> None:
        try:
            next(signals)
        except RuntimeError as error:
            errors.append(error)

    with open_signal_receiver(USR1) as signals:
        fiber = fibers.spawn(int)
        fiber.add_done_callback(callback)
        fiber.join()
    assert "would block inside the runtime" in str(errors[0])


# -- in processes of their own -------------------------------------------------------------------------------------------

COMMON = """
import os, random, signal, subprocess, sys, threading, time
import fibers
from fibers import open_signal_receiver
signal.alarm(60)
"""


def output(script: str, code: int = 0) -> str:
    ran = run_python("-c", COMMON + textwrap.dedent(script), timeout=70)
    assert ran.returncode == code, ran.stderr
    assert ran.stderr == ""
    return ran.stdout


SENDER = """
import os, sys
number, count = int(sys.argv[1]), int(sys.argv[2])
for _ in range(count):
    os.kill(os.getppid(), number)
os.kill(os.getppid(), int(sys.argv[3]))
"""


@pytest.mark.parametrize("where", ["main", "fiber", "thread"])
def test_a_storm_loses_no_wake_up(where: str) -> None:
    """10,000 from another process. Whoever receives is done only when it has been told after the last one."""
    printed = output(
        f"""
        where, total = {where!r}, 10_000
        # The last one is another signal, sent when all the others have been.
        sender = subprocess.Popen(
            [sys.executable, "-S", "-c", {SENDER!r}, str(int(signal.SIGUSR1)), str(total), str(int(signal.SIGUSR2))]
        )
        rounds = 0
        def receive(signals):
            global rounds
            for number in signals:
                if number == signal.SIGUSR1:
                    rounds += 1
                else:
                    break
            try:  # of two that are pending at once, the system decides which comes first
                while signals.receive(0.02) == signal.SIGUSR1:
                    rounds += 1
            except TimeoutError:
                pass
            return 1 <= rounds <= signals.count(signal.SIGUSR1) <= total

        with open_signal_receiver(signal.SIGUSR1, signal.SIGUSR2) as signals:
            if where == "main":
                print(receive(signals))
            elif where == "fiber":
                print(fibers.spawn(receive, signals).result(50))
            else:
                with fibers.FiberThread() as thread:
                    print(thread.spawn(receive, signals).result(50))
            fibers.to_thread(sender.wait)
        """
    )
    assert printed == "True\n"


def test_a_wake_up_for_each_of_thousands_sent_one_by_one() -> None:
    """Each is sent when the one before has been received: a lost wake-up would leave both waiting for ever."""
    rounds = scaled(20_000, least=1000)
    printed = output(
        f"""
        rng = random.Random({SEED})
        received, sent = threading.Semaphore(0), 0
        def sender():
            for _ in range({rounds}):
                if rng.random() < 0.2:
                    time.sleep(rng.random() * 0.0003)
                os.kill(os.getpid(), signal.SIGUSR1)
                received.acquire()
        thread = threading.Thread(target=sender)
        with open_signal_receiver(signal.SIGUSR1) as signals:
            thread.start()
            for number in signals:
                received.release()
                sent += 1
                if sent == {rounds}:
                    break
            thread.join()
        print(sent)
        """
    )
    assert printed == f"{rounds}\n"


def test_a_signal_that_another_thread_takes_wakes_the_loop_of_main() -> None:
    printed = output(
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])  # main does not take it
        got = []
        with open_signal_receiver(signal.SIGUSR1) as signals:
            loop = fibers.current().scheduler.loop
            def taker():
                signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
                for _ in range(100):
                    while not loop.asleep:
                        time.sleep(0)
                    count = len(got)
                    signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
                    while len(got) == count:
                        time.sleep(0)
            thread = threading.Thread(target=taker)
            thread.start()
            for number in signals:
                got.append(number)
                if len(got) == 100:
                    break
            thread.join()
        print(len(got))
        """
    )
    assert printed == "100\n"


def test_main_may_block_while_fibers_of_another_thread_receive() -> None:
    printed = output(
        """
        with open_signal_receiver(signal.SIGUSR1) as signals, fibers.FiberThread() as thread:
            fiber = thread.spawn(signals.receive)
            done = threading.Event()
            fiber.add_done_callback(lambda _: done.set())
            threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGUSR1)).start()
            done.wait(20)  # no fiber: the whole thread
            print(fiber.result().name)
        """
    )
    assert printed == "SIGUSR1\n"


def test_a_raising_handler_of_the_programs_own_loses_no_wake_up() -> None:
    """SIGALRM's handler raises wherever it strikes, also inside of ours. Then a signal may go unheard (its handler was cut
    short), and is sent again; but who has been chosen to be woken is woken.
    """
    rounds = scaled(6000, least=400)
    printed = output(
        f"""
        rng = random.Random({SEED})
        class Struck(Exception): ...
        def strikes(*_):
            raise Struck
        received = struck = late = 0
        def sender():
            last, tries = -1, 0
            while received < {rounds}:
                tries += 1
                if received != last or tries > 50:
                    last, tries = received, 0
                    os.kill(os.getpid(), signal.SIGUSR1)
                time.sleep(rng.random() * 0.0002)
        def receive():
            global received, late
            try:
                signals.receive(10)
            except TimeoutError:
                late += 1
            received += 1
        def insist(function, depth):
            global struck
            while received < {rounds}:
                try:
                    if depth:
                        insist(function, depth - 1)
                    else:
                        function()
                except Struck:
                    struck += 1
        with open_signal_receiver(signal.SIGUSR1) as signals:
            thread = threading.Thread(target=sender)
            thread.start()
            fiber = fibers.spawn(insist, receive, 10)
            signal.signal(signal.SIGALRM, strikes)
            signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0011)
            while signal.getsignal(signal.SIGALRM) is strikes:
                try:
                    insist(fiber.join, 10)
                    signal.setitimer(signal.ITIMER_REAL, 0)
                    signal.signal(signal.SIGALRM, signal.SIG_IGN)  # a last one, which waits to be handled, strikes here
                except Struck:
                    pass
            fiber.join()
            fibers.to_thread(thread.join)
        print(late, struck > 0)
        """
    )
    assert printed == "0 True\n"


def test_children_are_reaped_by_subprocess_while_sigchld_is_received() -> None:
    printed = output(
        """
        with open_signal_receiver(signal.SIGCHLD) as signals:
            for number in range(5):
                child = subprocess.Popen([sys.executable, "-S", "-c", "import sys; sys.exit(%d)" % number])
                assert signals.receive(30) is signal.SIGCHLD
                assert child.wait() == number
            assert subprocess.run([sys.executable, "-S", "-c", "print('child')"], capture_output=True).stdout == b"child\\n"
            assert signals.receive(30) is signal.SIGCHLD
        print(signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL)
        """
    )
    assert printed == "True\n"


def test_in_a_forked_child_it_receives_what_is_sent_to_the_child() -> None:
    printed = output(
        """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        def receives(name):
            os.write(1, f"{name} {signals.receive(20).name}\\n".encode())
        with open_signal_receiver(signal.SIGUSR1, signal.SIGUSR2) as signals, fibers.FiberThread() as thread:
            waiting = thread.spawn(receives, "thread of the parent")
            other = fibers.spawn(receives, "fiber of the parent")
            fibers.yield_now()
            ready, tell = os.pipe()
            pid = os.fork()
            if pid == 0:
                signal.alarm(30)
                assert signals.count(signal.SIGUSR2) == 0
                os.write(tell, b"x")
                receives("child")
                os._exit(0)
            os.read(ready, 1)
            os.kill(pid, signal.SIGUSR2)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            fibers.sleep(0.01)
            assert not waiting.done() and not other.done()
            os.kill(os.getpid(), signal.SIGUSR1)
            while not (waiting.done() or other.done()):
                fibers.sleep(0.001)
            os.kill(os.getpid(), signal.SIGUSR1)
            waiting.result(20), other.result(20)
        """
    )
    assert sorted(printed.splitlines()) == [
        "child SIGUSR2",
        "fiber of the parent SIGUSR1",
        "thread of the parent SIGUSR1",
    ]


def test_what_was_pending_in_the_parent_is_not_pending_in_the_child() -> None:
    printed = output(
        """
        with open_signal_receiver(signal.SIGUSR1) as signals:
            os.kill(os.getpid(), signal.SIGUSR1)
            pid = os.fork()
            try:
                found = signals.receive(0).name
            except TimeoutError:
                found = "nothing"
            os.write(1, f"{'parent' if pid else 'child'} {found}\\n".encode())
            if not pid:
                os._exit(0)
            os.waitpid(pid, 0)
        """
    )
    assert sorted(printed.splitlines()) == ["child nothing", "parent SIGUSR1"]


def test_a_program_started_by_exec_inherits_neither_handlers_nor_descriptors() -> None:
    program = (
        "import os, signal; print(signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL, signal.set_wakeup_fd(-1), "
        "len(os.listdir('/proc/self/fd')) if os.path.exists('/proc/self/fd') else 4)"
    )
    printed = output(
        f"""
        fibers.sleep(0.001)
        receiver = open_signal_receiver(signal.SIGUSR1)
        receiver.__enter__()
        os.execv(sys.executable, [sys.executable, "-S", "-c", {program!r}])
        """
    )
    assert printed == "True -1 4\n"


def test_closed_while_ctrl_c_is_received_the_programs_way_is_back() -> None:
    printed = output(
        """
        def main():
            with open_signal_receiver(signal.SIGINT) as signals:
                os.kill(os.getpid(), signal.SIGINT)
                print(signals.receive(20).name)
            try:
                os.kill(os.getpid(), signal.SIGINT)
                fibers.sleep(20)
            except KeyboardInterrupt:
                print("KeyboardInterrupt")
        fibers.run(main)
        print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
        """
    )
    assert printed == "SIGINT\nKeyboardInterrupt\nTrue\n"


def test_a_receiver_around_run_and_one_that_outlives_it() -> None:
    printed = output(
        """
        with open_signal_receiver(signal.SIGINT) as signals:
            def main():
                os.kill(os.getpid(), signal.SIGINT)
                print(signals.receive(20).name)
            fibers.run(main)
        def opens():
            receiver = open_signal_receiver(signal.SIGINT)
            receiver.__enter__()
            return receiver
        fibers.run(opens).__exit__(None, None, None)
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(20)
        except KeyboardInterrupt:
            print("KeyboardInterrupt")
        """
    )
    assert printed == "SIGINT\nKeyboardInterrupt\n"


def test_sigterm_ends_a_server() -> None:
    """The use that it is for, with a real kill(2) from another process."""
    printed = output(
        """
        from fibers.io import socket
        def serve(listener):
            with fibers.TaskGroup() as group:
                try:
                    while True:
                        connection, _ = listener.accept()
                        group.spawn(connection.recv, 10)
                finally:
                    print("served", flush=True)
        with open_signal_receiver(signal.SIGTERM, signal.SIGHUP) as signals:
            listener = socket.create_server(("127.0.0.1", 0))
            server = fibers.spawn(serve, listener)
            client = socket.create_connection(listener.getsockname())
            subprocess.Popen(
                [sys.executable, "-S", "-c",
                 "import os, signal; [os.kill(os.getppid(), n) for n in (signal.SIGHUP, signal.SIGTERM)]"]
            )
            for number in signals:
                print(number.name, flush=True)
                if number == signal.SIGTERM:
                    break
            server.cancel()
            server.join()
        """
    )
    assert sorted(printed.splitlines()) == ["SIGHUP", "SIGTERM", "served"]


@pytest.mark.parametrize("waits", ["signals.receive()", "left_fiber.join()"])
def test_an_open_receiver_is_a_reason_that_nothing_is_a_deadlock(waits: str) -> None:
    body = f"""
        def left():
            right_fiber.join()
        def right():
            left_fiber.join()
        def ends():
            left_fiber.cancel()
        left_fiber, right_fiber = fibers.spawn(left), fibers.spawn(right)
        with open_signal_receiver(signal.SIGUSR1) as signals:
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            {waits}
        """
    ran = run_python("-c", COMMON + textwrap.dedent(body), timeout=30)
    assert (ran.returncode, ran.stderr) == (-signal.SIGALRM, "")


def test_one_received_by_a_fiber_of_a_thread_that_ends_is_left_for_others() -> None:
    with open_signal_receiver(USR1) as signals:
        thread = fibers.FiberThread(signals.receive)
        thread.start()
        until = time.monotonic() + 20
        while not len(signals._queue):
            assert time.monotonic() < until
            time.sleep(0.001)
        thread.stop()
        thread.join()
        send(USR1)
        assert signals.receive(5) is USR1
        assert threading.active_count() >= 1
