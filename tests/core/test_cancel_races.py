"""Cancellation against completion, over and over: nothing is lost, and nothing is resumed twice.

Facts. A wake-up (a byte, the end of a fiber, a permit), a deadline and a cancellation may reach for a waiting fiber in the
same turn, or from another thread at the same moment. Exactly one of them has it: who takes the fiber out of its place. So
each wait ends once; what it was woken for it gets; and what it did not get is still there for the next.

At scale 1 these are 10^6 rounds in all, on whatever event loop the suite runs on.
"""

import random
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from support.scale import SEED, scaled
from support.sockets import tcp_pair

import fibers
from fibers import lowlevel
from fibers.io import socket

FOREVER = float("inf")


def rounds(full: int) -> int:
    return scaled(full, least=full // 100)


class Canceller:
    """Another thread that cancels what it is given, at once or a moment later."""

    def __init__(self) -> None:
        self._work: list[Callable[[], object]] = []
        self._there = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            self._there.acquire()
            action = self._work.pop()
            if action is print:
                return
            action()

    def do(self, action: Callable[[], object]) -> None:
        self._work.append(action)
        self._there.release()

    def end(self) -> None:
        self.do(print)
        self._thread.join()


@pytest.fixture
def canceller() -> Any:
    made = Canceller()
    yield made
    made.end()


def test_join_against_cancel(canceller: Canceller) -> None:
    """The joiner is cancelled while what it joins ends: it has the result, or Cancelled, and ends once."""
    chance = random.Random(SEED)
    ends = {"result": 0, "cancelled": 0}
    for _ in range(rounds(150_000)):
        other = fibers.spawn(fibers.yield_now)
        joiner = fibers.spawn(other.result)
        for _ in range(chance.randrange(3)):
            fibers.yield_now()
        if chance.random() < 0.5:
            joiner.cancel()
        else:
            canceller.do(joiner.cancel)
        joiner.join(20)
        other.join(20)
        assert other.result() is None
        ends["cancelled" if joiner.cancelled() else "result"] += 1
    assert min(ends.values()) > 0, f"FIBERS_TEST_SEED={SEED}: {ends}"


def test_sleep_against_cancel_and_deadline(canceller: Canceller) -> None:
    chance = random.Random(SEED)
    for _ in range(rounds(100_000) // 10):
        resumed: list[int] = []
        scopes = [fibers.move_on_after(chance.choice([0.0005, 60])) for _ in range(10)]

        def sleeper(number: int, scopes: list[Any] = scopes, resumed: list[int] = resumed) -> None:
            with scopes[number]:
                fibers.sleep(0.0005)
            resumed.append(number)
            fibers.sleep(0)

        several = [fibers.spawn(sleeper, number) for number in range(10)]
        fibers.yield_now()
        for fiber, scope in zip(several, scopes, strict=True):
            act = chance.random()
            if act < 0.2:
                scope.cancel()
            elif act < 0.4:
                canceller.do(scope.cancel)
            elif act < 0.5:
                canceller.do(fiber.cancel)
        for fiber in several:
            fiber.join(20)
        went_on = [number for number, fiber in enumerate(several) if not fiber.cancelled()]
        assert sorted(set(resumed)) == sorted(resumed), f"resumed twice, FIBERS_TEST_SEED={SEED}"
        assert set(went_on) <= set(resumed)


def test_unpark_against_cancel(canceller: Canceller) -> None:
    """A permit that was given is used, or still there: never lost, never used twice."""
    chance = random.Random(SEED)
    for _ in range(rounds(200_000)):
        used: list[int] = []
        scope = fibers.CancelScope()

        def waiter(scope: fibers.CancelScope = scope, used: list[int] = used) -> None:
            with scope:
                lowlevel.park()
                used.append(1)
            if not used:
                lowlevel.park(20)  # the permit is there, or comes
                used.append(2)

        fiber = fibers.spawn(waiter)
        fibers.yield_now()
        order = chance.random()
        if order < 0.5:
            canceller.do(scope.cancel)
            lowlevel.unpark(fiber)
        else:
            scope.cancel()
            lowlevel.unpark(fiber)
        fiber.join(20)
        assert len(used) == 1, f"FIBERS_TEST_SEED={SEED}"
        assert not fiber._permit


def test_groups_against_cancel(canceller: Canceller) -> None:
    """A group is cancelled while its fibers end, fail, and are spawned: it is left when all are done, with all errors."""
    chance = random.Random(SEED)
    for _ in range(rounds(150_000) // 5):
        failures = 0
        group = fibers.TaskGroup()

        def child(kind: float) -> None:
            nonlocal failures
            for _ in range(int(kind * 10) % 3):
                fibers.yield_now()
            if kind < 0.1:
                failures += 1
                raise ValueError

        children = []
        found = 0
        try:
            with group:
                for _ in range(5):
                    children.append(group.spawn(child, chance.random()))
                    if chance.random() < 0.2:
                        fibers.yield_now()
                act = chance.random()
                if act < 0.3:
                    canceller.do(group.cancel)
                elif act < 0.4:
                    group.spawn(group.cancel)
        except ExceptionGroup as errors:
            found = len(errors.exceptions)
        assert all(fiber.done() for fiber in children)
        assert found == failures, f"FIBERS_TEST_SEED={SEED}"
        assert not group._children


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_recv_against_cancel(kind: str, canceller: Canceller) -> None:
    """One byte after the other, and a reader that is cut off at random: each byte is read exactly once, in order."""
    chance = random.Random(SEED)
    near, far = tcp_pair() if kind == "tcp" else socket.socketpair()
    received = bytearray()
    count = rounds(100_000)

    current = [fibers.CancelScope()]
    cuts = 0

    def read() -> None:
        nonlocal cuts
        while len(received) < count:
            scope = current[0] = fibers.CancelScope()
            with scope:
                received.extend(near.recv(3))
            cuts += scope.cancelled_caught

    def cut() -> None:
        while len(received) < count:
            scope = current[0]
            act = chance.random()
            if act < 0.3:
                canceller.do(scope.cancel)
            elif act < 0.6:
                scope.cancel()
            elif act < 0.9:
                scope.deadline = fibers.current_time()
            fibers.yield_now()

    def write() -> None:
        for number in range(count):
            far.sendall(bytes([number % 251]))
            if chance.random() < 0.3:
                fibers.yield_now()

    with near, far:
        with fibers.TaskGroup() as group:
            for each in (read, write, cut):
                group.spawn(each)
    assert received == bytes(number % 251 for number in range(count)), f"FIBERS_TEST_SEED={SEED}"
    assert cuts > count / 100


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_sendall_against_cancel(kind: str, canceller: Canceller) -> None:
    """A sender that is cut off at random goes on where `bytes_sent` says: the stream has no gap and no byte twice."""
    chance = random.Random(SEED)
    near, far = tcp_pair() if kind == "tcp" else socket.socketpair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    pattern = bytes(number % 251 for number in range(251 * 40))
    total = rounds(50_000) * 251
    received = bytearray()

    def send() -> None:
        sent = 0
        while sent < total:
            start = sent % 251
            piece = pattern[start : start + min(total - sent, 9_000)]
            with fibers.move_on_after(chance.choice([0, 0.0002, 60])) as scope:
                act = chance.random()
                if act < 0.2:
                    canceller.do(scope.cancel)
                elif act < 0.4:
                    fibers.spawn(scope.cancel)
                try:
                    near.sendall(piece)
                    sent += len(piece)
                except (TimeoutError, fibers.Cancelled) as error:
                    sent += error.bytes_sent  # type: ignore[union-attr]
                    raise
        near.shutdown(socket.SHUT_WR)

    def drain() -> None:
        while data := far.recv(chance.randrange(1, 8_000)):
            received.extend(data)

    with near, far:
        with fibers.TaskGroup() as group:
            group.spawn(send)
            group.spawn(drain)
    assert len(received) == total
    assert received == (pattern * (total // len(pattern) + 1))[:total], f"FIBERS_TEST_SEED={SEED}"


def test_threads_that_cancel_wake_and_kill_the_same_fibers(canceller: Canceller) -> None:
    """Everybody at once: each fiber ends exactly once, whoever came first."""
    chance = random.Random(SEED)
    ends: list[int] = []
    kills = 0

    def sleeper(number: int) -> None:
        try:
            with fibers.move_on_after(0.0003):
                lowlevel.park(0.0005)
        except (TimeoutError, fibers.Cancelled, fibers.FiberKilled):
            pass
        ends.append(number)

    total = 0
    for _ in range(rounds(200_000) // 20):
        several = [fibers.spawn(sleeper, total + number) for number in range(20)]
        total += 20
        fibers.yield_now()
        for fiber in several:
            for act in (fiber.cancel, fiber.kill):
                if chance.random() < 0.3:
                    canceller.do(act)
                    kills += 1
            if chance.random() < 0.3:
                lowlevel.unpark(fiber)
        for fiber in several:
            fiber.join(20)
    assert sorted(ends) == sorted(set(ends)), f"resumed twice, FIBERS_TEST_SEED={SEED}"
    assert len(ends) == total


def test_leaving_against_cancel_and_other_questions_from_another_thread() -> None:
    """A scope is being left while another thread cancels it, again and again, between any two steps."""
    current: list[fibers.CancelScope] = [fibers.CancelScope()]
    problems: list[BaseException] = []
    stop: list[bool] = []

    def disturb() -> None:
        try:
            while not stop:
                scope = current[0]
                scope.cancel()
                scope.cancel(grace=0)
                repr(scope)
                _ = scope.cancel_called, scope.cancelled_caught, scope.deadline
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=disturb)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        thread.start()
        for _ in range(rounds(100_000)):
            scope = current[0] = fibers.move_on_after(60)
            with scope:
                pass
            group = current[0] = fibers.TaskGroup()
            with group:
                group.spawn(fibers.yield_now)
    finally:
        stop.append(True)
        thread.join()
        sys.setswitchinterval(interval)
    assert problems == []
    for _ in range(3):
        fibers.yield_now()
