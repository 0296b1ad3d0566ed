"""Finalisers and gc callbacks: code that CPython runs wherever it likes, also in the middle of the runtime.

Facts (hazard 7). Such code cannot know where it is. Finalisers that re-entered a plain wheel insert lost half of 200,000
timers. While runtime code runs, `current` is None: then blocking raises, and what is asked for goes through the inbox.
Elsewhere a finaliser is ordinary fiber code, and may even wait.

A gc callback with a threshold of a few objects strikes nearly everywhere; a cycle whose finaliser asks for something
strikes where the collector does.
"""

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.scale import scaled

import fibers
from fibers.core.scheduler import get_scheduler
from fibers.io import socket


@pytest.fixture
def often() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Have something done at nearly every point where CPython may collect: `often(fn)`."""
    callbacks: list[Any] = []
    threshold = gc.get_threshold()
    inside: list[None] = []

    def install(fn: Callable[[], None]) -> None:
        def callback(phase: str, info: object) -> None:
            if phase == "stop" and not inside:
                inside.append(None)
                try:
                    fn()
                finally:
                    inside.pop()

        callbacks.append(callback)
        gc.callbacks.append(callback)
        gc.set_threshold(1, 1000, 1000)

    yield install
    gc.set_threshold(*threshold)
    for callback in callbacks:
        gc.callbacks.remove(callback)


def busy_program() -> list[int]:
    """Everything that runtime code does: spawn, sleep, join, time out, yield, park, read, write."""
    near, far = socket.socketpair()
    total: list[int] = []

    def reader() -> None:
        for _ in range(scaled(1000, least=30)):
            near.settimeout(5)
            total.append(len(near.recv(1)))

    def writer() -> None:
        for _ in range(scaled(1000, least=30)):
            far.sendall(b"x")
            fibers.sleep(0.0001)

    def spawner() -> None:
        for _ in range(scaled(1000, least=30)):
            fiber = fibers.spawn(fibers.sleep, 0.0002)
            try:
                fiber.join(0)
            except TimeoutError:
                pass
            fiber.join(5)
            total.append(1)

    def parker() -> None:
        for _ in range(scaled(1000, least=30)):
            fibers.spawn(fibers.lowlevel.unpark, fibers.current())
            fibers.lowlevel.park(5)
            fibers.yield_now()
            total.append(1)

    every = [fibers.spawn(each) for each in (reader, writer, spawner, parker)]
    for fiber in every:
        fiber.result(20)
    near.close()
    far.close()
    return total


def test_spawning_at_any_moment(often: Callable[[Callable[[], None]], None]) -> None:
    """Every fiber spawned from a finaliser runs, and the program under it goes on."""
    ran: list[None] = []
    spawned: list[fibers.Fiber[None]] = []
    often(lambda: spawned.append(fibers.spawn(ran.append, None)))
    total = busy_program()
    gc.set_threshold(0)
    for fiber in list(spawned):
        fiber.join(5)
    assert len(total) == 3 * scaled(1000, least=30)
    assert len(spawned) > 50
    assert len(ran) == len(spawned)


def test_cancelling_and_unparking_at_any_moment(often: Callable[[Callable[[], None]], None]) -> None:
    victims = [fibers.spawn(fibers.lowlevel.park) for _ in range(200)]
    sleepers = [fibers.spawn(fibers.sleep, 3600) for _ in range(200)]
    fibers.yield_now()
    left, alone = list(victims), list(sleepers)

    def disturb() -> None:
        if left:
            fibers.lowlevel.unpark(left.pop())
        if alone:
            alone.pop().cancel()

    often(disturb)
    busy_program()
    gc.set_threshold(0)
    for fiber in left:
        fibers.lowlevel.unpark(fiber)
    for sleeper in alone:
        sleeper.cancel()
    for fiber in victims:
        fiber.result(5)
    for sleeper in sleepers:
        sleeper.join(5)
        assert sleeper.cancelled()


def test_closing_registered_sockets_at_any_moment(often: Callable[[Callable[[], None]], None]) -> None:
    """Each has a reader that waits; each reader gets ClosedError, and no number is closed twice."""
    pairs = [socket.socketpair() for _ in range(100)]
    readers = [fibers.spawn(near.recv, 1) for near, _ in pairs]
    fibers.yield_now()
    left = [near for near, _ in pairs]

    def close_one() -> None:
        if left:
            left.pop().close()

    often(close_one)
    busy_program()
    gc.set_threshold(0)
    for near in left:
        near.close()
    for reader in readers:
        assert isinstance(reader.exception(5), fibers.ClosedError)
    for _, far in pairs:
        far.close()


def test_blocking_at_any_moment_waits_or_is_refused(often: Callable[[Callable[[], None]], None]) -> None:
    """Bad input: in runtime code a clear error, in a fiber's own code an ordinary wait; never a corrupted scheduler."""
    outcomes: dict[str, int] = {"waited": 0, "refused": 0}
    wheel = 0

    def block() -> None:
        nonlocal wheel
        wheel += 1
        if wheel % 5:
            return
        try:
            fibers.sleep(0.00001)
            outcomes["waited"] += 1
        except RuntimeError as error:
            outcomes["refused" if "inside the runtime" in str(error) else str(error)] += 1

    often(block)
    total = busy_program()
    gc.set_threshold(0)
    assert len(total) == 3 * scaled(1000, least=30)
    assert outcomes["waited"] > 0


def test_timers_lose_nothing_to_finalisers(often: Callable[[Callable[[], None]], None]) -> None:
    """Hazard 7's own experiment: timers added by finalisers while timers are added."""
    late: list[fibers.Fiber[None]] = []

    def add() -> None:
        if len(late) < 2000:
            late.append(fibers.spawn_later(0.001, int))  # type: ignore[arg-type]

    often(add)
    every = [fibers.spawn(fibers.sleep, 0.0001 * (number % 17)) for number in range(scaled(20_000, least=1000))]
    for fiber in every:
        fiber.join(20)
    gc.set_threshold(0)
    for fiber in list(late):
        fiber.result(20)
    assert len(get_scheduler().loop.timers) == 0  # type: ignore[attr-defined]


def test_spawning_at_any_moment_while_run_ends(often: Callable[[Callable[[], None]], None]) -> None:
    """The end goes through the live fibers while finalisers add to them."""
    left = list(range(2000))

    def spawn_one() -> None:
        if left:
            left.pop()
            fibers.spawn(int)

    often(spawn_one)

    def main() -> None:
        for _ in range(50):
            fibers.spawn(fibers.sleep, 3600)
        fibers.yield_now()

    fibers.run(main)
    gc.set_threshold(0)
    fibers.sleep(0.001)


def test_a_finaliser_in_a_fibers_own_code_may_wait() -> None:
    waited: list[float] = []

    class Slow:
        def __del__(self) -> None:
            before = fibers.current_time()
            fibers.sleep(0.002)
            waited.append(fibers.current_time() - before)

    def program() -> None:
        thing = Slow()
        del thing

    every = [fibers.spawn(program) for _ in range(10)]
    for fiber in every:
        fiber.join()
    assert len(waited) == 10
    assert min(waited) >= 0.002


def test_a_finaliser_that_runs_as_a_fiber_ends_is_refused_and_told_so() -> None:
    """The last reference to an argument goes in runtime code: waiting there is an error of the finaliser's own."""
    outcomes: list[str] = []

    class Slow:
        def __del__(self) -> None:
            try:
                fibers.sleep(0.001)
                outcomes.append("waited")
            except RuntimeError as error:
                outcomes.append(str(error))

    def program(thing: Slow) -> None:
        fibers.yield_now()

    fiber = fibers.spawn(program, Slow())
    fiber.join()
    fibers.yield_now()
    assert len(outcomes) == 1
    assert outcomes[0] == "waited" or "inside the runtime" in outcomes[0]
