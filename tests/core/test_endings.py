"""How programs and threads end: exit codes, live fibers at the end, and what may still be called afterwards.

Facts (hazard 4). 100 threads that ended with parked fibers leaked 100 epoll fds and ran no `finally` in the first
prototype. So a thread's end and the interpreter's cancel what lives, give it a short grace to unwind, and close; afterwards
nothing can wait. Ends of the interpreter are scripts in child processes.
"""

import re
import threading

import pytest
from support.process import run_python
from support.scale import scaled

import fibers
from fibers.testing import leaks

PRELUDE = "import atexit, gc, sys, threading\nimport fibers\nfrom fibers.io import socket\n"


def end_of(script: str, timeout: float = 20) -> tuple[int, str, str]:
    child = run_python("-c", PRELUDE + script, timeout=timeout)
    return child.returncode, child.stdout, child.stderr


def test_threads_that_end_with_parked_fibers_leave_no_fd_and_run_their_finally() -> None:
    """Hazard 4: 100 threads, each with fibers asleep, parked and reading, and none of them ended."""
    unwound: list[str] = []
    count = scaled(1000, least=100)
    before = leaks.open_fds()

    def waiting(name: str) -> None:
        try:
            fibers.sleep(3600) if name == "sleeper" else fibers.lowlevel.park()
        finally:
            unwound.append(name)

    def thread() -> None:
        fibers.spawn(waiting, "sleeper")
        fibers.spawn(waiting, "parked")
        fibers.sleep(0.0001)

    for _ in range(count // 10):
        threads = [threading.Thread(target=thread) for _ in range(10)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    assert sorted(unwound) == ["parked"] * count + ["sleeper"] * count
    assert leaks.open_fds() == before


def test_fibers_may_wait_while_they_unwind_at_the_end_of_a_thread() -> None:
    """The grace: clean-up that completes without waiting goes through, and joins of what has ended do too."""
    ends: list[str] = []

    def inner() -> None:
        try:
            fibers.sleep(3600)
        finally:
            ends.append("inner")

    def outer() -> None:
        fiber = fibers.spawn(inner)
        try:
            fibers.sleep(3600)
        finally:
            ends.append("outer")
            assert not fiber.cancelled() or fiber.done()

    def thread() -> None:
        fibers.spawn(outer)
        fibers.sleep(0.001)

    each = threading.Thread(target=thread)
    each.start()
    each.join()
    assert sorted(ends) == ["inner", "outer"]


def test_a_joiner_in_another_thread_learns_of_the_end_of_the_thread() -> None:
    """Nobody waits for ever for a fiber whose thread has ended."""
    handed: list[fibers.Fiber[None]] = []
    given, go = threading.Event(), threading.Event()

    def thread() -> None:
        handed.append(fibers.spawn(fibers.sleep, 3600))
        fibers.sleep(0.001)
        given.set()
        go.wait()

    each = threading.Thread(target=thread)
    each.start()
    given.wait()
    joiner = fibers.spawn(handed[0].join, 10)
    fibers.yield_now()
    go.set()
    joiner.result()
    each.join()
    assert handed[0].cancelled()


def test_a_fiber_of_an_ended_thread_can_still_be_asked() -> None:
    handed: list[fibers.Fiber[int]] = []

    def thread() -> None:
        handed.append(fibers.spawn(lambda: 7))
        handed.append(fibers.spawn(fibers.lowlevel.park))  # type: ignore[arg-type]
        fibers.sleep(0.001)

    each = threading.Thread(target=thread)
    each.start()
    each.join()
    assert handed[0].result() == 7
    handed[1].cancel()
    handed[1].kill()
    fibers.lowlevel.unpark(handed[1])
    assert handed[1].cancelled()
    calls: list[object] = []
    handed[1].add_done_callback(calls.append)
    assert calls == [handed[1]]


@pytest.mark.parametrize("use", ["", "fibers.sleep(0.001)", "fibers.run(fibers.sleep, 0.001)"])
def test_a_script_that_uses_fibers_at_top_level_just_works(use: str) -> None:
    assert end_of(f"{use}\nfiber = fibers.spawn(lambda: 7)\nprint(fiber.result())") == (0, "7\n", "")


def test_live_fibers_at_the_end_of_the_interpreter_are_cancelled_and_unwind() -> None:
    script = """
def waiting(wait):
    try:
        wait()
    finally:
        print("unwound")

a, b = socket.socketpair()
for wait in (lambda: fibers.sleep(3600), fibers.lowlevel.park, lambda: a.recv(1), fibers.yield_now):
    fibers.spawn(waiting, wait)
fibers.sleep(0)
"""
    assert end_of(script) == (0, "unwound\n" * 4, "")


def test_fibers_that_never_started_never_run_at_the_end() -> None:
    assert end_of("fibers.spawn(print, 'ran')") == (0, "", "")


@pytest.mark.parametrize(
    ("script", "code", "error"),
    [
        ("sys.exit(3)", 3, ""),
        ("fibers.spawn(sys.exit, 3).join()", 3, ""),
        ("fibers.spawn(sys.exit, 3); fibers.sleep(3600)", 3, ""),
        ("fibers.run(lambda: fibers.spawn(sys.exit, 3).join())", 3, ""),
        ("fibers.run(sys.exit, 3)", 3, ""),
        ("fibers.spawn(sys.exit, 'farewell').join()", 1, r"farewell\n"),
        ("fibers.spawn(lambda: 1 / 0).result()", 1, r"(?s)Traceback.*ZeroDivisionError.*"),
        ("fibers.spawn(lambda: 1 / 0).join()", 0, r"(?s).*ZeroDivisionError.*was never retrieved.*Traceback.*"),
        ("f = fibers.spawn(lambda: 1 / 0); f.join()", 0, r"(?s).*ZeroDivisionError.*was never retrieved.*"),
        ("f = fibers.spawn(lambda: 1 / 0); f.join(); f.exception()", 0, ""),
        ("fibers.spawn(fibers.current().kill, ZeroDivisionError('x')).join(); fibers.sleep(9)", 1, r"(?s).*ZeroDiv.*"),
        ("def f(): raise KeyboardInterrupt\nfibers.spawn(f).join()", -2, r"(?s)Traceback.*KeyboardInterrupt.*"),
    ],
)
def test_exit_codes(script: str, code: int, error: str) -> None:
    """SystemExit and KeyboardInterrupt that escape a fiber go to main, and end the program as they always do."""
    found, _, stderr = end_of(script)
    assert found == code, stderr
    assert re.fullmatch(error, stderr), stderr


def test_daemon_threads_with_fibers_do_not_disturb_the_end() -> None:
    script = """
def forever():
    fibers.spawn(fibers.sleep, 3600)
    started.set()
    fibers.sleep(3600)

started = threading.Event()
threading.Thread(target=forever, daemon=True).start()
started.wait()
fibers.sleep(0.01)
print("end")
"""
    assert end_of(script) == (0, "end\n", "")


def test_threads_that_outlive_main_finish_their_fibers() -> None:
    script = """
def work():
    fibers.sleep(0.05)
    print(fibers.spawn(lambda: "worked").result())

threading.Thread(target=work).start()
"""
    assert end_of(script) == (0, "worked\n", "")


def test_waiting_after_the_end_is_refused() -> None:
    """Hazard 4: afterwards `park` raises. A finaliser of the interpreter's last moments hangs nobody."""
    script = """
def late():
    for attempt in (fibers.yield_now, lambda: fibers.sleep(1), fibers.lowlevel.park, lambda: fibers.spawn(int)):
        try:
            attempt()
        except fibers.LoopClosedError:
            print("refused")

atexit.unregister(fibers.core.lifecycle._at_exit)
atexit.register(late)
atexit.register(fibers.core.lifecycle._at_exit)
fibers.sleep(0.001)
"""
    assert end_of("import fibers.core.lifecycle\n" + script) == (0, "refused\n" * 4, "")


def test_exit_functions_registered_later_can_still_use_fibers() -> None:
    """Exit functions run in reverse order: those registered after the import come before the runtime's own."""
    script = """
atexit.register(lambda: print(fibers.spawn(lambda: 7).result()))
fibers.sleep(0.001)
"""
    assert end_of(script) == (0, "7\n", "")


def test_the_end_with_thousands_of_fibers_is_quick_and_quiet() -> None:
    script = """
every = [fibers.spawn(fibers.sleep, 3600) for _ in range(5000)]
fibers.sleep(0)
"""
    assert end_of(script) == (0, "", "")


def test_an_object_cycle_with_a_parked_fiber_at_the_end() -> None:
    script = """
class Holder: pass
def waiting(holder):
    try:
        fibers.lowlevel.park()
    finally:
        print("unwound")

holder = Holder()
holder.fiber = fibers.spawn(waiting, holder)
fibers.sleep(0)
del holder
gc.collect()
"""
    assert end_of(script) == (0, "unwound\n", "")
