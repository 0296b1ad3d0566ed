"""What the fake kqueue refuses, as a real one does or because it does not model it. What it does: test_kqueue.py."""

import errno
import os
import socket
import sys
from collections.abc import Iterator

import pytest

if sys.platform != "linux":
    pytest.skip("the fake stands on epoll", allow_module_level=True)

from support import fake_kqueue as kq
from support.fake_kqueue import FakeKevent, FakeKqueue
from support.process import ROOT, run_python

READ, WRITE = kq.KQ_FILTER_READ, kq.KQ_FILTER_WRITE
CLEAR = kq.KQ_EV_ADD | kq.KQ_EV_CLEAR


@pytest.fixture
def queue() -> Iterator[FakeKqueue]:
    queue = kq.kqueue()
    yield queue
    queue.close()


def add(queue: FakeKqueue, fd: int, filter: int, udata: int = 0) -> None:
    assert queue.control([kq.kevent(fd, filter, CLEAR, 0, 0, udata)], 0, 0) == []


def events(queue: FakeKqueue, timeout: float | None = 0) -> list[FakeKevent]:
    return queue.control(None, 16, timeout)


def test_refuses_what_a_real_one_refuses(queue: FakeKqueue) -> None:
    a, b = socket.socketpair()
    with a, b:
        fd = a.fileno()
        for bad in (
            kq.kevent(fd, 0, CLEAR),
            kq.kevent(fd, -99, CLEAR),
            kq.kevent(fd, READ, CLEAR | kq.KQ_EV_DELETE),
            kq.kevent(fd, READ, CLEAR | 0x100000),
        ):
            with pytest.raises(OSError, match="filter") as caught:
                queue.control([bad], 0, 0)
            assert caught.value.errno == errno.EINVAL
        with pytest.raises(FileNotFoundError):
            queue.control([kq.kevent(fd, READ, 0)], 0, 0)
        with pytest.raises(ValueError, match="positive"):
            queue.control(None, 1, -0.001)
        with pytest.raises(ValueError, match="NaN"):
            queue.control(None, 1, float("nan"))
        with pytest.raises(ValueError, match="got -1"):
            queue.control(None, -1, 0)
        with pytest.raises(OSError, match="Invalid argument"):
            queue.control(None, 1, 1e12)
        with pytest.raises(TypeError):
            queue.control([42], 0, 0)  # type: ignore[list-item]
        with pytest.raises(TypeError):
            queue.control(None, 1, "1")  # type: ignore[arg-type]
    with open(os.devnull) as null, pytest.raises(OSError, match="No such device") as caught:
        add(queue, null.fileno(), READ)
    assert caught.value.errno == errno.ENODEV
    assert events(queue) == []


def test_refuses_what_it_does_not_model(queue: FakeKqueue) -> None:
    a, b = socket.socketpair()
    with a, b, open(__file__) as file:
        for unmodelled in (
            kq.kevent(a.fileno(), READ, kq.KQ_EV_ADD),
            kq.kevent(a.fileno(), READ, CLEAR | kq.KQ_EV_ONESHOT),
            kq.kevent(a.fileno(), -7, CLEAR),
            kq.kevent(file.fileno(), READ, CLEAR),
        ):
            with pytest.raises(NotImplementedError, match="not modelled"):
                queue.control([unmodelled], 0, 0)
    assert events(queue) == []


def test_close_is_final_and_gives_every_fd_back() -> None:
    before = set(os.listdir("/proc/self/fd"))
    queue = kq.kqueue()
    states = [queue.closed]
    queue.close()
    queue.close()
    states.append(queue.closed)
    assert states == [False, True]
    for use in (queue.fileno, lambda: events(queue)):
        with pytest.raises(ValueError, match="closed kqueue"):
            use()
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_child_sees_it_closed_and_the_parent_keeps_its_filters() -> None:
    code = """
import os, socket
from support import fake_kqueue as kq
queue = kq.kqueue()
a, b = socket.socketpair()
queue.control([kq.kevent(a.fileno(), kq.KQ_FILTER_READ, kq.KQ_EV_ADD | kq.KQ_EV_CLEAR)], 0, 0)
child = os.fork()
if child == 0:
    os._exit(0 if queue.closed else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
b.send(b"x")
assert [event.ident for event in queue.control(None, 16, 5)] == [a.fileno()]
"""
    done = run_python("-c", code, env={"PYTHONPATH": str(ROOT / "tests")})
    assert done.returncode == 0, done.stderr


def test_kevents_are_plain_data() -> None:
    a, b = socket.socketpair()
    with a, b:
        event = kq.kevent(a)
        assert (event.ident, event.filter, event.flags) == (a.fileno(), READ, kq.KQ_EV_ADD)
        assert event == kq.kevent(a.fileno())
        assert event != kq.kevent(b.fileno())
        assert event != a.fileno()
        assert f"ident={a.fileno()}" in repr(event)
