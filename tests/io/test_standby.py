"""Waiting for a file without a fiber, and becoming one."""

import os
from contextvars import copy_context
from typing import Any

import pytest
from support.backends import lifetime_only
from support.process import run_python
from support.sockets import tcp_pair

import fibers
from fibers.core.fiber import Fiber
from fibers.core.scheduler import get_scheduler
from fibers.core.standby import Standby
from fibers.eventloop import CLOSED, Outcome
from fibers.io import socket
from fibers.io.operations import recv_now
from fibers.io.state import state_of
from fibers.io.waiting import stand_by, stand_down


class Echo(Standby):
    """Sends back whatever comes, and has a fiber only while it does that."""

    __slots__ = ("ends", "fibers", "io", "sock")

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self.sock = sock
        self.io = state_of(sock)
        self.fibers = 0
        self.ends: list[Outcome | None] = []

    def wait(self) -> bool:
        while not stand_by(self.io, self.io.reading, self):
            if not self.serve():
                return False
        return True

    def embody(self) -> Fiber[Any]:
        self.fibers += 1
        scheduler = get_scheduler()
        return Fiber(scheduler, self.run, (), copy_context(), scheduler.main.root, Echo.embody.__code__, 0)

    def run(self) -> None:
        if self.io.reading.holder is self:
            self.io.reading.release()
        self.ends.append(self.outcome)
        if self.outcome is None and self.serve():
            self.wait()

    def serve(self) -> bool:
        data = recv_now(self.sock, 1000)
        if data:
            self.sock.sendall(data)
        return data != b""


def test_a_fiber_is_made_when_bytes_come_and_is_gone_afterwards() -> None:
    near, far = tcp_pair()
    with near, far:
        echo = Echo(near)
        assert echo.wait()
        assert fibers.all_fibers() == []
        for number in range(1, 4):
            far.sendall(b"hello")
            assert far.recv(100) == b"hello"
            assert echo.fibers == number
            fibers.yield_now()
            assert fibers.all_fibers() == []
        assert stand_down(echo.io.reading, echo)


@lifetime_only
def test_it_costs_no_registrations() -> None:
    near, far = tcp_pair()
    with near, far:
        echo = Echo(near)
        echo.wait()
        stats = get_scheduler().loop.stats
        far.sendall(b"x")
        far.recv(1)
        before = stats.registrations + stats.modifications
        for _ in range(20):
            far.sendall(b"x")
            assert far.recv(1) == b"x"
        assert stats.registrations + stats.modifications == before
        fibers.yield_now()
        assert stand_down(echo.io.reading, echo)


def test_data_that_is_there_is_not_waited_for() -> None:
    near, far = tcp_pair()
    with near, far:
        far.sendall(b"early")
        echo = Echo(near)
        assert echo.wait()
        assert far.recv(100) == b"early"
        assert echo.fibers == 0
        assert stand_down(echo.io.reading, echo)
        assert not stand_down(echo.io.reading, echo)


def test_it_holds_the_turn() -> None:
    near, far = tcp_pair()
    with near, far:
        first, second = Echo(near), Echo(near)
        first.wait()
        with pytest.raises(fibers.BusyError, match="waits for fd"):
            second.wait()
        reader = fibers.spawn(near.recv, 100)
        fibers.yield_now()
        with pytest.raises(fibers.BusyError):
            second.wait()
        assert stand_down(first.io.reading, first)  # the turn goes to the reader
        far.sendall(b"for the reader")
        assert reader.result() == b"for the reader"
        assert second.wait()
        assert stand_down(second.io.reading, second)


def test_it_is_told_that_the_file_is_closed() -> None:
    near, far = tcp_pair()
    with far:
        echo = Echo(near)
        echo.wait()
        near.close()
        fibers.yield_now()
        assert echo.ends == [CLOSED]
        with pytest.raises(fibers.ClosedError):
            echo.wait()


def test_the_end_of_the_data_is_readiness() -> None:
    near, far = tcp_pair()
    with near:
        echo = Echo(near)
        echo.wait()
        far.close()
        while not echo.ends:
            fibers.sleep(0.001)
        assert echo.ends == [None]


def test_many_at_once() -> None:
    pairs = [socket.socketpair() for _ in range(200)]
    echoes = [Echo(near) for near, _ in pairs]
    for echo in echoes:
        echo.wait()
    for _ in range(5):
        for _, far in pairs:
            far.sendall(b"x")
        for _, far in pairs:
            assert far.recv(10) == b"x"
    fibers.yield_now()
    assert [echo.fibers for echo in echoes] == [5] * 200
    for near, far in pairs:
        near.close()
        far.close()
    fibers.yield_now()


def test_a_signal_handler_that_raises_loses_none() -> None:
    """It may strike in `embody`, before and after: the connection is served all the same, by one fiber."""
    near, far = tcp_pair()
    raised: list[KeyError] = []

    class Struck(Echo):
        __slots__ = ()

        def embody(self) -> Fiber[Any]:
            if len(raised) < 3:
                raised.append(KeyError(len(raised)))
                raise raised[-1]
            return super().embody()

    with near, far:
        echo = Struck(near)
        echo.wait()
        caught = 0
        far.sendall(b"x")
        while True:
            try:
                assert far.recv(1) == b"x"
                break
            except KeyError:
                caught += 1
        while caught < 3:
            try:
                fibers.yield_now()
            except KeyError:
                caught += 1
        assert echo.fibers == 1
        assert stand_down(echo.io.reading, echo)


def test_a_forked_child_has_none() -> None:
    near, far = tcp_pair()
    with near, far:
        echo = Echo(near)
        echo.wait()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                fibers.yield_now()
                status = 0 if not echo.ends else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        far.sendall(b"x")
        assert far.recv(1) == b"x"
        fibers.yield_now()
        assert stand_down(echo.io.reading, echo)


NO_DEADLOCK = """
import fibers
from fibers.io import socket
from fibers.io.operations import recv_now
from fibers.io.state import state_of
from fibers.io.waiting import stand_by
from fibers.core.standby import Standby
from fibers.core.waitqueue import WaitQueue
import subprocess
from contextvars import copy_context

class Waits(Standby):
    def embody(self):
        scheduler = fibers.core.scheduler.get_scheduler()
        return fibers.Fiber(scheduler, queue.wake_all, (), copy_context(), None, None, 0)

def sleeper():
    me = fibers.current()
    queue.add(me)
    me.scheduler.park(me, queue)
    return "woken"

near, far = socket.socketpair()
queue = WaitQueue()
waits = Waits()
state = state_of(near)
while not stand_by(state, state.reading, waits):
    recv_now(near, 1)
command = ["sh", "-c", f"read line; echo x >&{far.fileno()}"]
child = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[far.fileno()])
fiber = fibers.spawn(sleeper)
fibers.yield_now()
child.stdin.write(b"go\\n")
child.stdin.close()
print(fiber.result())
child.wait()
"""


def test_it_may_wake_others_so_there_is_no_deadlock() -> None:
    done = run_python("-c", NO_DEADLOCK)
    assert done.stdout == "woken\n", done.stderr
