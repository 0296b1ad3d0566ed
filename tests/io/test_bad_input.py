"""Bad input: closed sockets, fds out of range, wrong types, negative timeouts: a specific error at once, nothing half done.

(What both modules are asked alike is in test_same_errors.py, raw fds in test_borrowed.py.)
"""

import fcntl
import os
import resource
from collections.abc import Iterator
from textwrap import dedent

import pytest
from support.process import run_python

import fibers
from fibers.core.scheduler import get_scheduler
from fibers.eventloop import BACKEND, ownership
from fibers.io import socket


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    a, b = socket.socketpair()
    with a, b:
        yield a, b


Pair = tuple[socket.socket, socket.socket]


@pytest.mark.parametrize("value", [-1, -0.001, float("-inf"), float("nan")])
def test_negative_timeouts_name_the_value(pair: Pair, value: float) -> None:
    a, _ = pair
    a.settimeout(3)
    with pytest.raises(ValueError, match=f"{value!r}".replace("-", r"\-")):
        a.settimeout(value)
    assert a.gettimeout() == 3, "the old one stays"


@pytest.mark.parametrize("value", ["1", [], object(), 1j])
def test_timeouts_of_a_wrong_type(pair: Pair, value: float) -> None:
    a, _ = pair
    with pytest.raises(TypeError):
        a.settimeout(value)
    assert a.gettimeout() is None


def a_high_fd(sock: socket.socket, number: int) -> int:
    """A duplicate of the socket's fd at `number` or above."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard <= number:
        pytest.skip(f"this system gives a process no fd {number}")
    if soft <= number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number + 100, hard))
    try:
        return fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD_CLOEXEC, number)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_15205_a_high_fd_number(pair: Pair) -> None:
    """#15205: tables are not sized by the limit on fds, and a high number works; select says that it cannot."""
    a, b = pair
    with socket.socket(fileno=a_high_fd(a, 5000)) as high:
        reader = fibers.spawn(high.recv, 10)
        fibers.yield_now()
        if BACKEND == "select":
            with pytest.raises(ValueError, match=rf"select cannot wait for fd {high.fileno()}.*1023"):
                reader.result(5)
            assert high.fileno() not in ownership.owners
            with pytest.raises(ValueError, match="select cannot"):
                high.recv(10)
        else:
            b.send(b"hello")
            assert reader.result(5) == b"hello"


def test_15205_a_huge_limit_costs_nothing() -> None:
    """#15205: an arena sized by RLIMIT_NOFILE ran out of memory."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    program = dedent(
        """
        import os, resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
        import fibers
        from fibers.io import socket
        a, b = socket.socketpair()
        reader = fibers.spawn(a.recv, 10)
        fibers.yield_now()
        b.send(b"fine")
        print(reader.result(5).decode())
        a.close(); b.close()
        """
    )
    done = run_python("-c", program)
    assert (done.stdout, done.stderr) == ("fine\n", ""), f"with a hard limit of {hard}"


def test_select_refuses_a_high_fd_and_leaves_nothing_half_registered() -> None:
    program = dedent(
        """
        import fcntl, resource
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))  # endless retries would eat the machine
        import fibers
        from fibers.io import socket
        from fibers.eventloop import ownership
        from fibers.core.scheduler import get_scheduler
        a, b = socket.socketpair()
        high = socket.socket(fileno=fcntl.fcntl(a.fileno(), fcntl.F_DUPFD_CLOEXEC, 1024))
        stats = get_scheduler().loop.stats
        for _ in range(2):
            try:
                high.recv(1)
            except ValueError as error:
                print(error)
        print(high.fileno() in ownership.owners, stats.registrations)
        reader = fibers.spawn(a.recv, 1)
        fibers.yield_now()
        b.send(b"x")
        print(reader.result(5))
        b.send(b"y")
        print(high.recv(1))
        for each in (a, b, high):
            each.close()
        """
    )
    done = run_python("-c", program, env={"FIBERS_EVENTLOOP": "select"})
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) == 5, done.stdout
    assert "select cannot wait for fd 1024" in lines[0]
    assert lines[0] == lines[1], "it raises, and raises again"
    assert lines[2:] == ["False 0", "b'x'", "b'y'"]


def test_a_number_that_is_no_open_file_is_refused_when_the_socket_is_made() -> None:
    for fd in (-5, 99_999, 1 << 40):
        with pytest.raises((OSError, ValueError, OverflowError)):
            socket.socket(fileno=fd)


def test_an_fd_that_vanished_raises_and_registers_nothing() -> None:
    """`os.close` behind our back, before the first wait: EBADF from the kernel, no entry."""
    a, b = socket.socketpair()
    number = a.fileno()
    os.close(number)
    stats = get_scheduler().loop.stats
    before = stats.registrations
    with pytest.raises(OSError, match="Bad file"):
        a.recv(1)
    with pytest.raises(OSError, match="Bad file"):
        a.sendall(b"x")
    assert number not in ownership.owners
    assert stats.registrations == before
    a.detach()
    b.close()


@pytest.mark.parametrize("call", ["recv", "sendall", "accept", "connect", "recv_into", "sendto"])
def test_blocking_in_a_done_callback_is_refused_and_the_socket_stays_usable(pair: Pair, call: str) -> None:
    a, b = pair
    caught: list[BaseException] = []

    def callback(_: object) -> None:
        arguments = {
            "recv": (1,),
            "sendall": (bytes(1 << 24),),
            "recv_into": (bytearray(1),),
            "connect": (("127.0.0.1", 1),),
            "sendto": (b"x", ("name.invalid", 1)),
        }.get(call, ())
        with socket.socket() if call in ("accept", "connect", "sendto") else a.dup() as sock:
            if call == "accept":
                sock.listen()
            try:
                getattr(sock, call)(*arguments)
            except (RuntimeError, OSError) as error:
                caught.append(error)

    fiber = fibers.spawn(int)
    fiber.add_done_callback(callback)
    fiber.result(5)
    assert len(caught) == 1
    assert isinstance(caught[0], RuntimeError), repr(caught[0])
    reader = fibers.spawn(a.recv, 1)
    fibers.yield_now()
    b.send(b"x")
    assert reader.result(5) == b"x"
