"""The counters of a loop tell what it has done: turns, registrations and their ends. They only grow."""

import logging
import socket
from typing import Any

import pytest
from support.loops import Kind
from support.waiting import looks, wait, woken

from fibers.eventloop import EventLoop

NAMES = ("turns", "registrations", "modifications", "unregistrations", "moves")


def numbers(loop: EventLoop) -> list[int]:
    return [getattr(loop.stats, name) for name in NAMES]


def test_a_new_loop_has_done_nothing(loop: EventLoop) -> None:
    assert numbers(loop) == [0] * 5
    assert loop.quiet()
    assert not loop.closed
    assert not loop.asleep
    assert not loop.ready


def test_each_turn_is_one_kernel_wait(loop: EventLoop) -> None:
    looks(loop, 5)
    assert loop.stats.turns == 5


def test_what_is_registered_is_unregistered_once(loop_factory: Kind) -> None:
    """A file costs a loop of the lifetime kind one registration in its life, and the others one for each wait."""
    loop = loop_factory()
    pairs = [socket.socketpair() for _ in range(3)]
    handles = [loop.handle(a.fileno(), True) for a, _ in pairs]
    before = numbers(loop)
    for _ in range(4):
        for handle, (a, b) in zip(handles, pairs, strict=True):
            waiter = wait(loop, handle.reading)
            b.send(b"x")
            assert woken(loop) == [waiter]
            a.recv(1)
            now = numbers(loop)
            assert all(new >= old for new, old in zip(now, before, strict=True))
            before = now
    assert loop.stats.registrations == (3 if loop_factory.lifetime else 12)
    for handle, (a, b) in zip(handles, pairs, strict=True):
        loop.release(handle, a.close)
        b.close()
    assert loop.stats.unregistrations == loop.stats.registrations
    assert loop.stats.modifications == loop.stats.moves == 0
    loop.close()
    assert loop.stats.unregistrations == loop.stats.registrations


def test_it_says_what_it_is(loop_factory: Kind, caplog: pytest.LogCaptureFixture) -> None:
    """By its name, and in the log as it starts: whether it checks itself, too."""
    with caplog.at_level(logging.INFO, "fibers.eventloop"):
        loop: Any = loop_factory()
    assert loop.name == loop_factory.backend.removeprefix("fake ")
    assert caplog.messages[0].startswith(f"fibers is using the {loop.name} event loop")
    assert ("checks that it keeps its contract" in caplog.messages[-1]) == loop_factory.checked
    loop.close()
