"""`FiberThread`: a thread with a loop of its own, started, stopped, joined, left as a block; and where its errors go."""

import gc
import logging
import threading
import time
from typing import Any

import pytest
from support.process import run_python
from support.scale import scaled

import fibers
from fibers import FiberThread, LoopClosedError, from_thread
from fibers.core import lifecycle
from fibers.io import socket
from fibers.threads import fiber_thread


class Service:
    """A function that runs until it is cancelled, and unwinds slowly."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.unwound = threading.Event()

    def __call__(self) -> None:
        self.started.set()
        try:
            fibers.sleep(3600)
        finally:
            with fibers.shield():
                fibers.sleep(0.01)
            self.unwound.set()


def fails(text: str = "failed") -> None:
    fibers.yield_now()
    raise ValueError(text)


# -- a thread ---------------------------------------------------------------------------------------------------------


def test_it_is_a_thread_with_fibers() -> None:
    seen: list[Any] = []

    def main(*args: int, **kwargs: int) -> None:
        fibers.spawn(seen.append, "a fiber").join()
        seen.append((args, kwargs, threading.current_thread().name, fibers.current().name))

    thread = FiberThread(main, 1, name="mine", two=2)
    assert isinstance(thread, threading.Thread)
    assert (thread.name, thread.daemon, thread.is_alive()) == ("mine", False, False)
    thread.start()
    thread.join()
    assert not thread.is_alive()
    assert seen == ["a fiber", ((1,), {"two": 2}, "mine", "main of mine")]


def test_stop_cancels_its_function_and_its_fibers() -> None:
    service, fiber_of_it = Service(), Service()

    def main() -> None:
        fibers.spawn(fiber_of_it)
        service()

    thread = FiberThread(main)
    thread.start()
    sent = thread.spawn(Service())
    for each in (service, fiber_of_it):
        fibers.to_thread(each.started.wait, 20)
    thread.stop()
    thread.stop()
    thread.join()
    assert service.unwound.is_set()
    assert fiber_of_it.unwound.is_set()
    assert sent.cancelled()
    thread.stop()  # nothing happens


def test_join_in_a_fiber_suspends_only_that() -> None:
    service = Service()
    thread = FiberThread(service)
    thread.start()
    joiner = fibers.spawn(thread.join)
    for _ in range(3):
        fibers.sleep(0.001)
    assert not joiner.done()
    joiner.cancel()
    joiner.join()
    assert thread.is_alive()
    thread.join(0)
    thread.join(0.001)
    assert thread.is_alive()
    thread.stop()
    thread.join()


def test_join_in_a_plain_thread() -> None:
    service = Service()
    thread = FiberThread(service)
    thread.start()
    joined: list[bool] = []

    def join() -> None:
        thread.join()
        joined.append(not thread.is_alive())

    joiner = threading.Thread(target=join)
    joiner.start()
    thread.stop()
    joiner.join()
    assert joined == [True]


def test_what_runs_in_it_may_stop_it_and_may_not_join_it() -> None:
    def main() -> None:
        with pytest.raises(RuntimeError, match="cannot join current thread"):
            threading.current_thread().join()
        threading.current_thread().stop()  # type: ignore[attr-defined]
        fibers.sleep(3600)

    thread = FiberThread(main)
    thread.start()
    thread.join()


def test_run_sync_and_spawn() -> None:
    with FiberThread() as thread:
        assert thread.run_sync(threading.get_ident) == thread.ident
        assert thread.spawn(threading.get_ident).result() == thread.ident
        assert from_thread.run(threading.get_ident, portal=thread.portal) == thread.ident
        fiber = thread.spawn(lambda *args, **kwargs: (args, kwargs), 1, name="sent", two=2)
        assert fiber.name == "sent"
        assert fiber.result() == ((1,), {"two": 2})
        assert "in test_run_sync_and_spawn" in fiber.spawned_at
        with pytest.raises(ValueError, match="failed"):
            thread.run_sync(fails)


def test_thousands_of_calls_by_many() -> None:
    with FiberThread() as one, FiberThread() as other:
        count = scaled(4000, least=200)

        def ping(number: int) -> int:
            return other.run_sync(pong, number)

        def pong(number: int) -> int:
            return number + 1

        sent = [one.spawn(ping, number) for number in range(count)]
        assert [fiber.result(30) for fiber in sent] == list(range(1, count + 1))


@pytest.mark.parametrize("fn", [3, "main"])
def test_bad_input(fn: Any) -> None:
    with pytest.raises(TypeError, match=repr(fn)):
        FiberThread(fn)


def test_before_the_start() -> None:
    thread = FiberThread(name="early")
    for call in (thread.stop, lambda: thread.spawn(int), lambda: thread.run_sync(int), lambda: thread.portal):
        with pytest.raises(RuntimeError, match="has not been started: call start"):
            call()
    with pytest.raises(RuntimeError):
        thread.join()


def test_after_the_end() -> None:
    with FiberThread() as thread:
        pass
    for call in (thread.spawn, thread.run_sync):
        with pytest.raises(LoopClosedError):
            call(int)
    with pytest.raises(RuntimeError, match="threads can only be started once"):
        thread.start()


def test_a_loop_that_cannot_be_made_is_an_error_of_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> object:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(lifecycle, "get_scheduler", lambda loop: refuse())
    thread = FiberThread()
    with pytest.raises(OSError, match="Too many open files"):
        thread.start()
    assert not thread.is_alive()


# -- as a block -------------------------------------------------------------------------------------------------------


def test_the_block_is_left_when_all_that_was_spawned_is_done() -> None:
    done: list[int] = []

    def work(number: int) -> None:
        fibers.sleep(0.001 * number)
        done.append(number)

    with FiberThread() as thread:
        for number in range(5):
            thread.spawn(work, number)
    assert sorted(done) == [0, 1, 2, 3, 4]
    assert not thread.is_alive()


def test_a_block_that_fails_cancels_what_is_left() -> None:
    service = Service()
    sent: list[fibers.Fiber[None]] = []
    thread = FiberThread()

    def block() -> None:
        with thread:
            sent.append(thread.spawn(service))
            fibers.to_thread(service.started.wait, 20)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        block()
    assert sent[0].cancelled()
    assert service.unwound.is_set()
    assert not thread.is_alive()


def test_a_block_that_is_cancelled_while_it_waits_for_the_end() -> None:
    service = Service()
    thread = FiberThread()

    def cancels() -> None:
        while not thread._stopping:  # the end of the block has begun
            fibers.sleep(0.001)
        scope.cancel()

    fibers.spawn(cancels)
    with fibers.CancelScope() as scope:
        with thread:
            thread.spawn(service)
            fibers.to_thread(service.started.wait, 20)
    assert scope.cancelled_caught
    assert service.unwound.is_set()
    assert not thread.is_alive()


def test_while_the_block_ends_nothing_more_is_taken() -> None:
    seen: list[BaseException] = []
    release = threading.Event()

    def late() -> None:
        fibers.to_thread(release.wait, 20)
        try:
            thread.spawn(int)
        except LoopClosedError as error:
            seen.append(error)

    with FiberThread() as thread:
        thread.spawn(late)
        release.set()
        fibers.sleep(0)
        while not thread._stopping:
            thread.stop(cancel=False)
    assert "has ended or is stopping" in str(seen[0])


def test_a_plain_thread_may_hold_the_block() -> None:
    done: list[int] = []

    def plain() -> None:
        with FiberThread() as thread:
            thread.spawn(fibers.sleep, 0.01).add_done_callback(lambda _: done.append(1))
        assert not thread.is_alive()
        done.append(2)

    holder = threading.Thread(target=plain)
    holder.start()
    holder.join()
    assert done == [1, 2]


# -- errors -----------------------------------------------------------------------------------------------------------


def test_join_raises_what_the_function_has_raised() -> None:
    thread = FiberThread(fails)
    thread.start()
    for _ in range(2):
        with pytest.raises(ValueError, match="failed"):
            thread.join()
    with pytest.raises(ValueError, match="failed"), FiberThread(fails):
        pass


def test_errors_of_fibers_that_nobody_asked_for_arrive_as_a_group() -> None:
    thread = FiberThread(name="mine")

    def block() -> None:
        with thread:
            thread.spawn(fails, "one")
            thread.spawn(fails, "two")
            asked = thread.spawn(fails, "three")
            assert str(asked.exception()) == "three"

    with pytest.raises(ExceptionGroup, match="unhandled errors in thread 'mine'") as caught:
        block()
    assert sorted(str(error) for error in caught.value.exceptions) == ["one", "two"]


def test_both_arrive_as_a_group() -> None:
    started = threading.Event()

    def main() -> None:
        started.set()
        fibers.sleep(0.02)
        raise ZeroDivisionError

    thread = FiberThread(main)
    thread.start()
    thread.spawn(fails)
    with pytest.raises(ExceptionGroup) as caught:
        thread.join()
    assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError, ValueError]


def test_system_exit_ends_the_thread_and_that_is_all() -> None:
    thread = FiberThread(lambda: (_ for _ in ()).throw(SystemExit(3)))
    thread.start()
    thread.join()


def test_an_error_that_nobody_joined_for_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    thread = FiberThread(fails, name="forgotten")
    thread.start()
    while thread.is_alive():
        fibers.sleep(0.001)
    assert not caplog.records
    del thread
    gc.collect()
    (record,) = caplog.records
    assert "ValueError of fiber 'forgotten', spawned at" in record.getMessage()
    assert "was never retrieved" in record.getMessage()


def test_of_too_many_errors_the_oldest_are_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A thread that serves for months must not keep the error of each request until it is joined."""
    monkeypatch.setattr(fiber_thread, "ERRORS_MAX", 3)
    thread = FiberThread()

    def block() -> None:
        with thread:
            for number in range(5):
                thread.spawn(fails, str(number))
                thread.run_sync(fibers.sleep, 0.001)

    with pytest.raises(ExceptionGroup) as caught:
        block()
    assert [str(error) for error in caught.value.exceptions] == ["2", "3", "4"]
    gc.collect()
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 2


# -- what it is for ---------------------------------------------------------------------------------------------------


def test_a_server_with_a_loop_in_each_of_several_threads() -> None:
    def serve(listener: socket.socket) -> None:
        with listener:
            while True:
                connection, _ = listener.accept()
                fibers.spawn(answer, connection)

    def answer(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(100):
                connection.sendall(threading.current_thread().name.encode() + b" " + data)

    listeners: list[socket.socket] = []
    port = 0
    for _ in range(3):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(100)
        port = listener.getsockname()[1]
        listeners.append(listener)
    servers = [FiberThread(serve, listener, name=f"server-{n}") for n, listener in enumerate(listeners)]
    for server in servers:
        server.start()

    def ask() -> str:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"hello")
            return connection.recv(100).decode()

    clients = [fibers.spawn(ask) for _ in range(60)]
    answers = {client.result(20) for client in clients}
    assert answers <= {f"server-{number} hello" for number in range(3)}
    assert len(answers) > 1
    for server in servers:
        server.stop()
    for server in servers:
        server.join(20)
        assert not server.is_alive()


# -- in processes of their own ----------------------------------------------------------------------------------------


def script(body: str, code: int = 0) -> tuple[str, str]:
    started = time.monotonic()
    ran = run_python("-c", "import threading, time\nimport fibers\n" + body, timeout=40)
    assert ran.returncode == code, ran.stderr
    assert time.monotonic() - started < 30
    return ran.stdout, ran.stderr


SLEEPS = """
import os
def sleeps():
    try:
        fibers.sleep(1000)
    finally:
        os.write(1, b"unwound\\n")
"""


def test_one_without_a_function_does_not_hold_up_the_end_of_the_program() -> None:
    body = "thread = fibers.FiberThread()\nthread.start()\nthread.spawn(sleeps)\n"
    body += "thread.run_sync(int)\nos.write(1, b'end\\n')"
    assert script(SLEEPS + body) == ("end\nunwound\n", "")


def test_nor_does_a_daemon() -> None:
    body = (
        "thread = fibers.FiberThread(sleeps, daemon=True)\nthread.start()\nthread.run_sync(int)\nos.write(1, b'end\\n')"
    )
    assert script(SLEEPS + body) == ("end\nunwound\n", "")


def test_one_with_a_function_is_waited_for_as_any_thread() -> None:
    body = "fibers.FiberThread(lambda: (fibers.sleep(0.1), print('done'))).start()\nprint('end')"
    assert script(body) == ("end\ndone\n", "")


def test_errors_that_nobody_has_joined_for_are_logged_at_the_end_of_the_program() -> None:
    body = "def fails(): raise ValueError('lost?')\nthread = fibers.FiberThread(fails)\nthread.start()"
    printed, logged = script(body)
    assert printed == ""
    assert "ValueError of fiber 'Thread-1', spawned at <string>:4 in <module>, was never retrieved" in logged


def test_ctrl_c_while_a_block_waits_for_its_end() -> None:
    body = """
import os, signal
def interrupts():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        fibers.sleep(1000)
    finally:
        os.write(1, b"unwound\\n")
def main():
    with fibers.FiberThread() as thread:
        thread.spawn(interrupts)
try:
    fibers.run(main)
except KeyboardInterrupt:
    os.write(1, b"main\\n")
"""
    printed, _ = script(body)
    assert sorted(printed.split()) == ["main", "unwound"]


def test_fork() -> None:
    body = """
import os, signal, warnings
warnings.simplefilter("ignore", DeprecationWarning)
signal.alarm(30)
thread = fibers.FiberThread()
thread.start()
pid = os.fork()
if pid == 0:
    signal.alarm(30)
    try:
        thread.run_sync(int)
    except fibers.LoopClosedError:
        os.write(1, b"gone\\n")
    thread.join()
    with fibers.FiberThread() as other:
        assert other.run_sync(pow, 2, 3) == 8
    raise SystemExit(7)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
assert thread.run_sync(pow, 2, 3) == 8
os.write(1, b"parent\\n")
"""
    assert script(body) == ("gone\nparent\n", "")
