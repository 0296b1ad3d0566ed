"""`cancel` and `kill`: how a fiber is asked to stop, wherever it stands.

Facts. `cancel()` is level-triggered: Cancelled at the current and at each further blocking call. `kill()` throws once. A
fiber that has not started never runs. Both derive from BaseException, so that no `except Exception` swallows them; a
joiner gets FiberCancelled, an ordinary Exception, and is never cancelled itself by that.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.scale import scaled

import fibers
from fibers import lowlevel
from fibers.io import socket

FOREVER = float("inf")


class Oops(Exception):
    pass


class Ooze(BaseException):
    pass


def started(fn: Callable[..., Any], *args: Any) -> fibers.Fiber[Any]:
    fiber = fibers.spawn(fn, *args)
    fibers.yield_now()
    return fiber


def join_endless() -> None:
    other = fibers.spawn(fibers.sleep, FOREVER)
    try:
        other.join()
    finally:
        other.cancel()


def endless(waits: Callable[[fibers.Fiber[Any]], object]) -> Callable[[], None]:
    """A wait for a fiber that has no end."""

    def place() -> None:
        other = fibers.spawn(fibers.sleep, FOREVER)
        try:
            waits(other)
        finally:
            other.cancel()

    return place


def wait_for_a_place() -> None:
    with fibers.shield(), fibers.Pool(1) as pool:
        gate = pool.spawn(lowlevel.park)
        asking = fibers.spawn(pool.spawn, int)
        fibers.yield_now()
        asking.cancel()
        asking.join()
        assert asking.cancelled()
        lowlevel.unpark(gate)
    fibers.sleep(FOREVER)


def receive() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.recv(1)


def receive_with_timeout() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(3600)
        ours.recv(1)


def send_without_end() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(bytes(10_000_000))


def accept() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.accept()


def wait_in_a_turn_queue() -> None:
    """Behind another fiber that holds the turn of the same direction."""
    ours, theirs = socket.socketpair()
    holder = fibers.spawn(ours.recv, 1)
    fibers.yield_now()
    with ours, theirs:
        try:
            ours.recv(1)
        finally:
            holder.cancel()
            fibers.current()


def yield_for_ever() -> None:
    while True:
        fibers.yield_now()


PLACES: list[Callable[[], object]] = [
    lambda: fibers.sleep(FOREVER),
    lambda: fibers.sleep(3600),
    lowlevel.park,
    lambda: lowlevel.park(3600),
    join_endless,
    endless(lambda other: fibers.wait([other])),
    endless(lambda other: fibers.gather(other)),
    endless(lambda other: next(iter(fibers.as_completed([other])))),
    wait_for_a_place,
    receive,
    receive_with_timeout,
    send_without_end,
    accept,
    wait_in_a_turn_queue,
    yield_for_ever,
]
NAMES = [
    "sleep-inf", "sleep", "park", "park-timeout", "join", "wait", "gather", "completed", "pool",
    "recv", "recv-timeout", "sendall", "accept", "turn", "yield",
]  # fmt: skip
everywhere = pytest.mark.parametrize("place", PLACES, ids=NAMES)


def settle() -> None:
    """Let fibers that were told to go on by a fiber's clean-up reach their end."""
    for _ in range(4):
        fibers.yield_now()


@everywhere
def test_cancel_wherever_it_waits(place: Callable[[], object]) -> None:
    fiber = started(place)
    settle()
    assert not fiber.done()
    fiber.cancel()
    fiber.join(5)
    assert fiber.cancelled()
    settle()


@everywhere
def test_kill_wherever_it_waits(place: Callable[[], object]) -> None:
    fiber = started(place)
    settle()
    fiber.kill(Oops("killed"))
    with pytest.raises(Oops, match="killed"):
        fiber.result(5)
    settle()


@everywhere
def test_cancel_from_another_thread(place: Callable[[], object]) -> None:
    """The owner is in its kernel wait, or about to be: the request goes through its inbox."""
    fiber = started(place)
    settle()
    thread = threading.Thread(target=fiber.cancel)
    thread.start()
    fiber.join(5)
    thread.join()
    assert fiber.cancelled()
    settle()


def test_cancel_is_level_triggered() -> None:
    """Each further blocking call raises too, clean-up code's included."""
    caught: list[str] = []

    def stubborn() -> str:
        for attempt in (fibers.yield_now, lambda: fibers.sleep(1), lowlevel.park, fibers.spawn(int).join):
            try:
                attempt()
            except fibers.Cancelled as error:
                caught.append(str(error))
        return "did it all the same"

    fiber = fibers.spawn(stubborn, name="stubborn")
    fibers.yield_now()
    fiber.cancel()
    assert fiber.result(5) == "did it all the same"
    assert len(caught) in (3, 4)  # the join may find its fiber done, and then does not block
    assert all("'stubborn'" in text for text in caught)
    assert not fiber.cancelled()


def test_calls_that_need_not_wait_are_not_disturbed() -> None:
    ours, theirs = socket.socketpair()

    def talk() -> bytes:
        try:
            fibers.sleep(FOREVER)
        except fibers.Cancelled:
            ours.sendall(b"bye")
            return theirs.recv(3)
        raise AssertionError("the sleep ended by itself")

    with ours, theirs:
        fiber = started(talk)
        fiber.cancel()
        assert fiber.result(5) == b"bye"


def test_except_exception_does_not_swallow_it() -> None:
    def driver() -> None:
        while True:
            try:
                fibers.sleep(FOREVER)
            except Exception:
                continue

    for end in (fibers.Fiber.cancel, fibers.Fiber.kill):
        fiber = started(driver)
        end(fiber)
        fiber.join(5)
        assert fiber.cancelled()


@pytest.mark.parametrize("end", [fibers.Fiber.cancel, fibers.Fiber.kill])
def test_what_has_not_started_never_runs(end: Callable[[fibers.Fiber[Any]], None]) -> None:
    ran: list[int] = []
    every = [fibers.spawn(ran.append, number) for number in range(5)]
    for fiber in every[1:4]:
        end(fiber)
        assert fiber.done()
        assert fiber.cancelled()
    for fiber in every:
        fiber.join()
    assert ran == [0, 4]
    with pytest.raises(fibers.FiberCancelled):
        every[1].result()


def test_an_unstarted_fiber_is_cancelled_from_another_thread() -> None:
    ran: list[int] = []
    fiber = fibers.spawn(ran.append, 1)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(fiber.cancel).result()
    fiber.join()
    assert ran == ([] if fiber.cancelled() else [1])


def test_killing_an_unstarted_fiber_with_an_error_of_ones_own() -> None:
    ran: list[int] = []
    fiber = fibers.spawn(ran.append, 1)
    fiber.kill(Oops("never"))
    with pytest.raises(Oops, match="never"):
        fiber.result()
    assert ran == []


def test_a_fiber_may_cancel_itself() -> None:
    def suicidal() -> str:
        fibers.current().cancel()
        try:
            fibers.yield_now()
        except fibers.Cancelled:
            return "at the next blocking call"
        return "not at all"

    assert fibers.spawn(suicidal).result() == "at the next blocking call"


def test_a_fiber_may_kill_itself() -> None:
    def suicidal() -> None:
        fibers.current().kill(Oops("by itself"))
        fibers.sleep(FOREVER)

    with pytest.raises(Oops, match="by itself"):
        fibers.spawn(suicidal).result()


@pytest.mark.parametrize("end", [fibers.Fiber.cancel, fibers.Fiber.kill])
def test_nothing_happens_to_what_is_done(end: Callable[[fibers.Fiber[Any]], None]) -> None:
    fiber = fibers.spawn(lambda: 7)
    fiber.join()
    end(fiber)
    fibers.yield_now()
    assert fiber.result() == 7
    assert not fiber.cancelled()


def test_what_ends_before_its_next_blocking_call_has_ended_well() -> None:
    def unaware() -> int:
        fibers.current().cancel()
        return 7

    fiber = fibers.spawn(unaware)
    assert fiber.result() == 7
    assert not fiber.cancelled()


def test_kill_throws_once() -> None:
    def resilient() -> str:
        try:
            fibers.sleep(FOREVER)
        except fibers.FiberKilled:
            fibers.sleep(0.001)
            fibers.yield_now()
            return "went on"
        return "was not killed"

    fiber = started(resilient)
    fiber.kill()
    assert fiber.result(5) == "went on"


def test_each_kill_throws() -> None:
    caught: list[str] = []

    def resilient() -> None:
        for _ in range(3):
            try:
                fibers.sleep(FOREVER)
            except Oops as error:
                caught.append(str(error))

    fiber = started(resilient)
    for text in "abc":
        fiber.kill(Oops(text))
    fiber.join(5)
    assert caught == ["a", "b", "c"]


@pytest.mark.parametrize("error", [Oops, Oops("x"), Ooze, Ooze("x"), fibers.FiberKilled])
def test_kill_takes_a_class_or_an_instance(error: Any) -> None:
    kind = error if isinstance(error, type) else type(error)
    fiber = started(fibers.sleep, FOREVER)
    fiber.kill(error)
    raised = fiber.exception(5)
    if kind is fibers.FiberKilled:
        assert isinstance(raised, fibers.FiberCancelled)
        raised = raised.__cause__
    assert isinstance(raised, kind)
    assert raised is error or isinstance(error, type)


@pytest.mark.parametrize("what", [None, 3, "Cancelled", int, object()])
def test_kill_refuses_what_is_no_exception(what: Any) -> None:
    """Bad input: refused in the caller; the fiber is untouched."""
    fiber = started(fibers.sleep, FOREVER)
    with pytest.raises(TypeError, match="exception"):
        fiber.kill(what)
    fibers.yield_now()
    assert not fiber.done()
    fiber.cancel()
    fiber.join()


@pytest.mark.parametrize("end", [fibers.Fiber.cancel, fibers.Fiber.kill])
def test_a_joiner_gets_an_ordinary_exception(end: Callable[[fibers.Fiber[Any]], None]) -> None:
    fiber = started(fibers.sleep, FOREVER)
    end(fiber)
    with pytest.raises(fibers.FiberCancelled) as caught:
        fiber.result()
    assert isinstance(caught.value, Exception)
    assert isinstance(caught.value.__cause__, fibers.Cancelled | fibers.FiberKilled)
    assert isinstance(fiber.exception(), fibers.FiberCancelled)
    fibers.yield_now()  # the joiner itself is not cancelled


def test_cancel_then_kill_raises_both() -> None:
    caught: list[str] = []

    def resilient() -> None:
        for _ in range(4):
            try:
                fibers.sleep(FOREVER)
            except (fibers.Cancelled, Oops) as error:
                caught.append(type(error).__name__)

    fiber = started(resilient)
    fiber.cancel()
    fiber.kill(Oops())
    fiber.join(5)
    assert sorted(caught) == ["Cancelled", "Cancelled", "Cancelled", "Oops"]


def test_a_wake_that_came_first_is_not_lost_to_a_cancel() -> None:
    """A fiber that has been woken already keeps what it was woken for; its next wait raises."""
    seen: list[str] = []

    def waiter() -> None:
        lowlevel.park()
        seen.append("unparked")
        lowlevel.park()
        seen.append("unparked again")

    fiber = started(waiter)
    lowlevel.unpark(fiber)
    fiber.cancel()
    fiber.join(5)
    assert seen == ["unparked"]
    assert fiber.cancelled()


def test_main_can_be_killed_by_a_fiber_of_its_own() -> None:
    main = fibers.current()
    fibers.spawn(main.kill, Oops("main"))
    with pytest.raises(Oops, match="main"):
        fibers.sleep(FOREVER)
    fibers.sleep(0.001)


def test_a_fiber_cancelled_from_many_threads_ends_once() -> None:
    """Wake, timeout and cancellation reach for the same fibers from three threads; each fiber ends exactly once."""
    rounds = scaled(20_000, least=500)
    ends: list[int] = []

    def sleeper(number: int) -> None:
        try:
            lowlevel.park(0.001 * (number % 3))
        except (TimeoutError, fibers.Cancelled):
            pass
        ends.append(number)

    def disturb(every: list[fibers.Fiber[None]], act: Callable[[fibers.Fiber[Any]], None]) -> None:
        for fiber in every:
            act(fiber)

    with ThreadPoolExecutor(2) as pool:
        for start in range(0, rounds, 100):
            every = [fibers.spawn(sleeper, start + number) for number in range(100)]
            fibers.yield_now()
            jobs = [pool.submit(disturb, every, act) for act in (fibers.Fiber.cancel, lowlevel.unpark)]
            for fiber in every:
                fiber.join(20)
            assert all(job.result() is None for job in jobs)
    assert sorted(ends) == list(range(start + 100))
