"""The leak guard that users have. (That of this suite, made of the same parts, is tested in test_leak_guard.py.)"""

import os
import threading

import pytest

import fibers
from fibers import lowlevel
from fibers.io import socket
from fibers.testing import LeakError, leak_guard


def test_nothing_is_said_where_nothing_is_left() -> None:
    with leak_guard():
        left, right = socket.socketpair()
        fibers.spawn(left.sendall, b"x").join()
        assert right.recv(1) == b"x"
        left.close()
        right.close()
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()


def test_an_fd_is_named() -> None:
    kept = []
    with pytest.raises(LeakError) as told, leak_guard():
        kept.append(os.dup(1))
    assert str(told.value).startswith(f"left behind:\n  fd {kept[0]}: ")
    os.close(kept[0])


def test_a_socket_is_named_with_its_addresses() -> None:
    kept = []
    with pytest.raises(LeakError, match=r"fd \d+: .*\('127\.0\.0\.1', \d+\)"), leak_guard():
        kept.append(socket.create_server(("127.0.0.1", 0)))
    kept[0].close()


def test_a_thread_is_named() -> None:
    go = threading.Event()
    thread = threading.Thread(target=go.wait, name="forgotten", daemon=True)
    with pytest.raises(LeakError, match=r"thread 'forgotten' \(daemon\)"), leak_guard():
        thread.start()
    go.set()
    thread.join()


def test_a_fiber_is_named_with_what_it_waits_for_and_its_origin() -> None:
    kept = []
    with pytest.raises(LeakError) as told, leak_guard():
        kept.append(fibers.spawn(lowlevel.park, name="forgotten"))
    assert "fiber <Fiber 'forgotten'" in str(told.value)
    assert "waiting for lowlevel.unpark" in str(told.value)
    assert f"spawned at {__file__}:" in str(told.value)
    kept[0].cancel()
    kept[0].join()


def test_what_was_there_before_does_not_count() -> None:
    fd = os.dup(1)
    fiber = fibers.spawn(lowlevel.park)
    with leak_guard():
        pass
    fiber.cancel()
    fiber.join()
    os.close(fd)


def test_the_error_of_the_block_is_what_is_told() -> None:
    kept = []

    def block() -> None:
        kept.append(os.dup(1))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), leak_guard():
        block()
    os.close(kept[0])


def test_everything_that_is_left_gets_a_line() -> None:
    kept = [os.dup(1) for _ in range(3)]
    for fd in kept:
        os.close(fd)
    with pytest.raises(LeakError) as told, leak_guard():
        kept[:] = [os.dup(1) for _ in range(3)]
    assert str(told.value).count("\n  fd ") == 3
    for fd in kept:
        os.close(fd)
