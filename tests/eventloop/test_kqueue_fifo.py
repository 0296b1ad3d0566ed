"""Named FIFOs that a kqueue cannot serve, as on macOS: a thread waits for them in select (pollers/kqueue_fifo.py).

On Linux a fake stands for the kqueue of macOS: it reports a FIFO only while there are bytes in it, and never its end. The
tests of the poller and of fibers on it run on macOS as well, on the real one.
"""

import importlib
import os
import select
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.process import ROOT, run_python

import fibers
from fibers.eventloop import PollingLoop
from fibers.eventloop.checked_poller import CheckedPoller
from fibers.eventloop.checked_polling import CheckedPollingLoop
from fibers.eventloop.pollers import READ, WRITE, Poller
from fibers.eventloop.pollers.kqueue import KqueuePoller
from fibers.eventloop.pollers.kqueue_fifo import FifoWatch, is_named
from fibers.io import waiting
from fibers.io.state import State

MAC = sys.platform == "darwin"

if not MAC and sys.platform != "linux":
    pytest.skip("other kqueues serve FIFOs, and the fake stands on epoll", allow_module_level=True)


def is_fifo(status: os.stat_result) -> bool:
    return stat.S_ISFIFO(status.st_mode)


def macos() -> Any:
    """A module like `select`, whose kqueue is as deaf to FIFOs as that of macOS."""
    if MAC:
        return select
    fake: Any = importlib.import_module("support.fake_kqueue")

    class Deaf(fake.FakeKqueue):  # type: ignore[misc]
        def _event(self, token: int) -> Any:
            event = super()._event(token)
            if event is not None and is_fifo(os.fstat(event.ident)):
                if event.filter == fake.KQ_FILTER_WRITE and event.flags & fake.KQ_EV_EOF:
                    return None
                if event.filter == fake.KQ_FILTER_READ and not event.data:
                    return None
                event.flags &= ~fake.KQ_EV_EOF
            return event

    class Api:
        kqueue = Deaf

        def __getattr__(self, name: str) -> Any:
            return getattr(fake, name)

    return Api()


def make(helped: bool = True) -> KqueuePoller:
    # Linux has no sure sign of a named FIFO, and there need be none: pipes are served by the thread as well.
    return KqueuePoller(macos(), (is_named if MAC else is_fifo) if helped else None)


@pytest.fixture
def poller() -> Iterator[KqueuePoller]:
    poller = make()
    yield poller
    poller.close()


class Fifo:
    """Both ends of a named FIFO."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self.reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self.writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)

    def fill(self) -> None:
        try:
            while True:
                os.write(self.writer, bytes(65536))
        except BlockingIOError:
            pass

    def close(self) -> None:
        for fd in (self.reader, self.writer):
            if fd >= 0:
                os.close(fd)

    def close_reader(self) -> None:
        os.close(self.reader)
        self.reader = -1

    def close_writer(self) -> None:
        os.close(self.writer)
        self.writer = -1


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Fifo]:
    fifo = Fifo(tmp_path / "fifo")
    yield fifo
    fifo.close()


def watchers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "fibers-fifo"]


# -- the poller -----------------------------------------------------------------------------------------------------


def test_a_kqueue_as_on_macos_never_tells_the_end_of_a_fifo(fifo: Fifo) -> None:
    """Without the thread, that is. What the other tests prove depends on it."""
    poller = make(helped=False)
    poller.arm(fifo.reader, READ, 0)
    os.write(fifo.writer, b"x")
    assert poller.wait(5.0) == [(fifo.reader, READ)]
    assert os.read(fifo.reader, 10) == b"x"
    fifo.close_writer()
    assert poller.wait(0.1) == []
    assert os.read(fifo.reader, 10) == b"", "and yet it has come"
    poller.close()


def test_data_and_the_end_are_reported(poller: KqueuePoller, fifo: Fifo) -> None:
    poller.arm(fifo.reader, READ, 0)
    assert poller.wait(0.02) == []
    os.write(fifo.writer, b"x")
    assert poller.wait(5.0) == [(fifo.reader, READ)]
    assert os.read(fifo.reader, 10) == b"x"
    poller.arm(fifo.reader, READ, READ)
    assert poller.wait(0.02) == []
    fifo.close_writer()
    assert poller.wait(5.0) == [(fifo.reader, READ)]
    assert os.read(fifo.reader, 10) == b""


def test_a_writer_hears_of_room_and_of_readers_that_leave(poller: KqueuePoller, fifo: Fifo) -> None:
    fifo.fill()
    poller.arm(fifo.writer, WRITE, 0)
    assert poller.wait(0.02) == []
    while select.select([fifo.reader], [], [], 0)[0]:
        os.read(fifo.reader, 1 << 20)
    assert poller.wait(5.0) == [(fifo.writer, WRITE)]
    fifo.fill()
    poller.arm(fifo.writer, WRITE, WRITE)
    fifo.close_reader()
    assert poller.wait(5.0) == [(fifo.writer, WRITE)]
    with pytest.raises(BrokenPipeError):
        os.write(fifo.writer, b"x")


def test_a_level_is_reported_once_for_each_arm(poller: KqueuePoller, fifo: Fifo) -> None:
    """And a thread that has nothing to report sleeps: unread data does not make it spin."""
    os.write(fifo.writer, b"x")
    for _ in range(3):
        poller.arm(fifo.reader, READ, 0)
        assert poller.wait(5.0) == [(fifo.reader, READ)]
        assert poller.wait(0.02) == []
    began = time.process_time()
    assert poller.wait(0.3) == []
    assert time.process_time() - began < 0.15


def test_one_shot_says_which_files_have_to_be_armed_again(poller: KqueuePoller, fifo: Fifo) -> None:
    a, b = os.pipe() if MAC else (os.eventfd(0), os.eventfd(0))
    poller.arm(a, READ, 0)
    poller.arm(fifo.reader, READ, 0)
    assert set(poller.one_shot) == {fifo.reader}
    poller.forget(fifo.reader, READ)
    poller.forget(a, READ)
    assert not poller.one_shot
    os.close(a)
    os.close(b)


@pytest.mark.skipif(not MAC, reason="a pipe(2) is told from a named FIFO by what macOS says of it")
def test_pipes_are_left_to_the_kqueue(poller: KqueuePoller, fifo: Fifo) -> None:
    reader, writer = os.pipe()
    assert not is_named(os.fstat(reader))
    assert is_named(os.fstat(fifo.reader))
    os.close(reader)
    os.close(writer)


def test_other_files_are_heard_of_beside_fifos(poller: KqueuePoller, fifo: Fifo, tmp_path: Path) -> None:
    import socket

    a, b = socket.socketpair()
    other = Fifo(tmp_path / "other")
    with a, b:
        poller.arm(a.fileno(), READ, 0)
        poller.arm(fifo.reader, READ, 0)
        poller.arm(other.reader, READ, 0)
        b.send(b"x")
        os.write(fifo.writer, b"x")
        os.write(other.writer, b"x")
        heard: dict[int, int] = {}
        while len(heard) < 3:
            events = poller.wait(5.0)
            assert events
            heard |= dict(events)
        assert heard == {a.fileno(): READ, fifo.reader: READ, other.reader: READ}
        poller.forget(a.fileno(), READ)
    other.close()


def test_what_is_forgotten_is_silent_and_its_number_free_for_other_files(poller: KqueuePoller, fifo: Fifo) -> None:
    poller.arm(fifo.reader, READ, 0)
    poller.forget(fifo.reader, READ)
    os.write(fifo.writer, b"x")
    assert poller.wait(0.05) == []
    event = os.pipe() if MAC else (os.eventfd(0), -1)
    number = os.dup2(event[0], fifo.reader)
    poller.arm(number, READ, 0)
    assert not poller.one_shot
    assert poller.wait(0.02) == [], "the FIFO that had the number before would be readable"
    poller.forget(number, READ)
    for fd in event:
        if fd >= 0:
            os.close(fd)


def test_a_number_that_changes_hands_without_a_word_leaves_the_thread(poller: KqueuePoller, fifo: Fifo) -> None:
    poller.arm(fifo.reader, READ, 0)
    event = os.pipe() if MAC else (os.eventfd(0), -1)
    os.dup2(event[0], fifo.reader)
    poller.arm(fifo.reader, READ, 0)
    assert not poller.one_shot
    poller.forget(fifo.reader, READ)
    for fd in event:
        if fd >= 0:
            os.close(fd)


def test_a_number_that_is_closed_behind_our_back_wakes_who_waits(poller: KqueuePoller, tmp_path: Path) -> None:
    """Who waits tries, and gets the system's own word for it. (A select under way may call it readable.)"""
    other = Fifo(tmp_path / "other")
    number = other.reader
    poller.arm(number, READ, 0)
    other.close_reader()
    keeper = os.open(other.path, os.O_RDWR | os.O_NONBLOCK)
    os.close(keeper)
    poller.arm(other.writer, WRITE, 0)  # calls the thread, which then finds the number closed
    heard: dict[int, int] = {}
    while number not in heard:
        events = poller.wait(5.0)
        assert events
        heard |= dict(events)
    assert heard[number] & poller.READABLE
    other.close()


def test_the_other_end_hears_of_a_close_at_once(poller: KqueuePoller, fifo: Fifo) -> None:
    """A kernel keeps a file open while a thread waits for it; who forgets one calls the thread out of its wait."""
    fifo.fill()
    poller.arm(fifo.writer, WRITE, 0)
    poller.forget(fifo.writer, WRITE)
    fifo.close_writer()
    os.set_blocking(fifo.reader, True)
    while os.read(fifo.reader, 1 << 20):
        pass  # until the end: it would never come


def test_numbers_beyond_the_limit_of_select_are_refused_by_name(poller: KqueuePoller, fifo: Fifo) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1100:
        pytest.skip(f"needs numbers over 1,024, and the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1100), hard))
    high = os.dup2(fifo.reader, 1030)
    try:
        with pytest.raises(ValueError, match=r"fd 1030 is a named FIFO.* limit is 1023: open FIFOs before"):
            poller.arm(high, READ, 0)
        assert high not in poller.one_shot
    finally:
        os.close(high)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_close_ends_the_thread_and_gives_its_descriptors_back(fifo: Fifo) -> None:
    folder = "/dev/fd" if MAC else "/proc/self/fd"
    before = set(os.listdir(folder))
    poller = make()
    assert watchers() == [], "no FIFO, no thread"
    poller.arm(fifo.reader, READ, 0)
    poller.arm(fifo.writer, WRITE, 0)
    assert len(watchers()) == 1
    poller.close()
    poller.close()
    assert watchers() == []
    assert set(os.listdir(folder)) == before
    with pytest.raises(ValueError, match="closed"):
        poller.arm(fifo.reader, READ, 0)
    assert watchers() == []


def test_a_watch_that_is_closed_refuses() -> None:
    watch = FifoWatch()
    watch.close()
    with pytest.raises(ValueError, match="closed"):
        watch.arm(0, READ)


def test_a_forked_child_closes_its_copy_and_the_parent_goes_on(tmp_path: Path) -> None:
    code = f"""
import importlib, os, stat, threading
from fibers.eventloop.pollers.kqueue import KqueuePoller
import select
api = select if hasattr(select, "kqueue") else importlib.import_module("support.fake_kqueue")
poller = KqueuePoller(api, lambda status: stat.S_ISFIFO(status.st_mode))
os.mkfifo({str(tmp_path / "fifo")!r})
reader = os.open({str(tmp_path / "fifo")!r}, os.O_RDONLY | os.O_NONBLOCK)
writer = os.open({str(tmp_path / "fifo")!r}, os.O_WRONLY)
poller.arm(reader, 1, 0)
child = os.fork()
if child == 0:
    poller.close()
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
os.write(writer, b"x")
assert poller.wait(10.0) == [(reader, 1)]
poller.close()
assert threading.active_count() == 1
"""
    done = run_python("-W", "ignore", "-c", code, env={"PYTHONPATH": str(ROOT / "tests")})
    assert done.returncode == 0, done.stderr


# -- fibers on it ---------------------------------------------------------------------------------------------------


def checked() -> Poller:
    poller: Any = CheckedPoller(make())
    return poller  # type: ignore[no-any-return]


LOOPS = {
    "plain": lambda: PollingLoop(make),
    "checked": lambda: CheckedPollingLoop(checked),
}


@pytest.fixture(params=list(LOOPS))
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[PollingLoop], None]], None]:
    """Runs a function with fibers on such a loop, in a thread of its own."""

    def run(main: Callable[[PollingLoop], None]) -> None:
        failures: list[BaseException] = []

        def thread() -> None:
            try:
                make: Callable[[], Any] = LOOPS[request.param]
                loop = make()
                fibers.run(main, loop, loop=loop)
            except BaseException as error:
                failures.append(error)

        worker = threading.Thread(target=thread)
        worker.start()
        worker.join(60)
        assert not worker.is_alive()
        if failures:
            raise failures[0]
        assert watchers() == []

    return run


Run = Callable[[Callable[[PollingLoop], None]], None]


def test_fibers_wait_for_a_borrowed_fifo_until_its_end(run: Run, fifo: Fifo) -> None:
    def main(loop: PollingLoop) -> None:
        got = []

        def read() -> None:
            while True:
                fibers.lowlevel.wait_readable(fifo.reader, 10)
                got.append(os.read(fifo.reader, 10))
                if not got[-1]:
                    return

        reader = fibers.spawn(read)
        for word in (b"one", b"two"):
            fibers.sleep(0.01)
            os.write(fifo.writer, word)
        fibers.sleep(0.01)
        fifo.close_writer()
        reader.result(10)
        assert got == [b"one", b"two", b""]

    run(main)


def test_a_fifo_of_ours_is_registered_once_and_armed_at_each_wait(run: Run, fifo: Fifo) -> None:
    def main(loop: PollingLoop) -> None:
        state = State(fifo, loop.handle(fifo.reader, True), None, False)

        def read(file: Any) -> bytes:
            return os.read(fifo.reader, 1)

        def reader() -> list[bytes]:
            return [waiting.perform(None, state, state.reading, 0, read) for _ in range(20)]

        reading = fibers.spawn(reader)
        for _ in range(20):
            fibers.yield_now()
            os.write(fifo.writer, b"x")
        assert reading.result(10) == [b"x"] * 20
        assert (loop.stats.registrations, loop.stats.modifications) == (1, 0)
        loop.release(state.handle, lambda: None)
        assert loop.stats.unregistrations == 1

    run(main)


def test_unread_data_does_not_keep_a_loop_awake(run: Run, fifo: Fifo) -> None:
    def main(loop: PollingLoop) -> None:
        os.write(fifo.writer, b"x")
        fibers.lowlevel.wait_readable(fifo.reader)
        turns = loop.stats.turns
        fibers.sleep(0.2)
        assert loop.stats.turns - turns < 5

    run(main)


def test_a_timeout_a_cancellation_and_the_end_of_the_loop_meet_a_wait(run: Run, fifo: Fifo) -> None:
    def main(loop: PollingLoop) -> None:
        with pytest.raises(TimeoutError):
            fibers.lowlevel.wait_readable(fifo.reader, 0.02)
        waiter = fibers.spawn(fibers.lowlevel.wait_readable, fifo.reader)
        fibers.sleep(0.01)
        waiter.cancel()
        waiter.join(10)
        assert waiter.cancelled()
        fibers.spawn(fibers.lowlevel.wait_readable, fifo.reader)
        fibers.sleep(0.01)  # and it still waits when all this ends

    run(main)
