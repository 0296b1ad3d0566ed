"""Signal handlers and finalisers: code that CPython runs in the middle of a primitive.

Facts. It may call what does not wait (`Event.set`, `Lock.release`, `Semaphore.release`, `WaitGroup.done`, `put` of queues),
also of the very primitive whose code it has interrupted. It may also raise. Then the operation it has struck has happened or
has not; and nobody else is the worse for it: no fiber that is waiting is forgotten.
"""

import gc
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
from support.interleave import Points
from support.scale import scaled
from support.settling import Oops, settle, started

import fibers


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


@pytest.fixture
def alarms() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Have something done by a signal handler, many times: `alarms(fn)`."""
    old = signal.getsignal(signal.SIGALRM)

    def install(fn: Callable[[], None]) -> None:
        signal.signal(signal.SIGALRM, lambda *_: fn())
        signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)

    yield install
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, old)


@pytest.fixture(params=["often", "alarms"])
def strike(request: pytest.FixtureRequest) -> Callable[[Callable[[], None]], None]:
    found: Callable[[Callable[[], None]], None] = request.getfixturevalue(request.param)
    return found


Strike = Callable[[Callable[[], None]], None]


@pytest.mark.parametrize("kind", [fibers.SimpleQueue, fibers.Queue, fibers.LifoQueue])
def test_putting_at_any_moment(strike: Strike, kind: Callable[[], Any]) -> None:
    """While fibers put into and get from the same queue."""
    queue, count = kind(), scaled(20_000, least=300)
    struck: list[int] = []
    got: list[int] = []

    def handler() -> None:
        if len(struck) < count:
            struck.append(-len(struck) - 1)
            queue.put(struck[-1])

    def produce() -> None:
        for number in range(count):
            queue.put(number)
            if number % 5 == 0:
                fibers.yield_now()

    def consume() -> None:
        while True:
            got.append(queue.get())

    consumers = [fibers.spawn(consume) for _ in range(3)]
    producer = fibers.spawn(produce)
    strike(handler)
    producer.join(60)
    gc.set_threshold(0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    settle()
    for fiber in consumers:
        fiber.cancel()
        fiber.join(5)
    left = [queue.get_nowait() for _ in range(queue.qsize())]
    assert sorted(got + left) == sorted([*range(count), *struck])
    assert struck


def test_releasing_at_any_moment(strike: Strike) -> None:
    semaphore, count = fibers.Semaphore(0), scaled(20_000, least=300)
    released, taken = [0], [0]

    def handler() -> None:
        released[0] += 1
        semaphore.release()

    def take() -> None:
        while True:
            semaphore.acquire()
            taken[0] += 1

    def give() -> None:
        for turn in range(count):
            semaphore.release()
            if turn % 5 == 0:
                fibers.yield_now()

    takers = [fibers.spawn(take) for _ in range(3)]
    giver = fibers.spawn(give)
    strike(handler)
    giver.join(60)
    gc.set_threshold(0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    settle()
    for fiber in takers:
        fiber.cancel()
        fiber.join(5)
    assert taken[0] + semaphore._value == released[0] + count
    assert released[0]


def test_taking_and_releasing_a_lock_at_any_moment(strike: Strike) -> None:
    """Without waiting. The holder is never robbed."""
    lock, inside = fibers.Lock(), [0]
    seen = {True: 0, False: 0}

    def handler() -> None:
        got = lock.acquire(False)
        seen[got] += 1
        if got:
            assert inside[0] == 0
            lock.release()

    def work() -> None:
        for _ in range(scaled(20_000, least=300)):
            with lock:
                inside[0] += 1
                assert inside[0] == 1
                [[] for _ in range(3)]  # something to collect
                fibers.yield_now()
                inside[0] -= 1
            [[] for _ in range(3)]

    workers = [fibers.spawn(work) for _ in range(3)]
    strike(handler)
    for fiber in workers:
        fiber.join(60)
    gc.set_threshold(0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    for fiber in workers:
        fiber.result()
    assert not lock.locked()
    assert sum(seen.values()) > 0


def test_setting_from_a_handler_wakes_who_waits() -> None:
    event, group, queue = fibers.Event(), fibers.WaitGroup(), fibers.SimpleQueue[int]()
    group.add()
    old = signal.getsignal(signal.SIGALRM)

    def handler(*_: object) -> None:
        event.set()
        group.done()
        queue.put(1)

    signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        waiters = [started(event.wait), started(group.wait), started(queue.get)]
        assert event.wait(10)
        assert [fiber.result(5) for fiber in waiters] == [True, True, 1]
    finally:
        signal.signal(signal.SIGALRM, old)


def test_putting_from_a_finaliser() -> None:
    class Thing:
        def __del__(self) -> None:
            queue.put("gone")

    queue = fibers.SimpleQueue[str]()
    getter = started(queue.get)
    thing = Thing()
    del thing
    assert getter.result(5) == "gone"


# -- handlers that raise, at every point at which they can


class Raising:
    """Raises Oops in the calling fiber at the n-th point of `fibers/sync` and the wait queue at which a handler could."""

    def __init__(self, point: int) -> None:
        self.left = point
        self.raised = False
        self.points = Points()
        self.where = "the start of park"
        self.before: Callable[[], object] | None = None  # what the handler does before it raises
        self.parked = False  # the fiber has let others run: what comes is the business of the scheduler's own tests

    def __enter__(self) -> "Raising":
        sys._getframe().f_trace_opcodes = True  # before: some Pythons look only then whether anybody wants opcodes
        sys.settrace(self.trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def trace(self, frame: FrameType, event: str, argument: object) -> Any:
        if self.raised or self.parked:
            return None
        name = frame.f_code.co_filename
        if "fibers/sync/" in name or name.endswith("fibers/core/waitqueue.py"):
            frame.f_trace_opcodes = True
            if event == "call" or (event == "opcode" and self.points.is_one(frame)):
                self.where = f"{frame.f_code.co_qualname}:{frame.f_lineno} {event} {frame.f_lasti}"
                self.point()
        elif event == "call" and frame.f_code.co_qualname == "Carriers.park":
            self.point()
        if event == "return":
            self.points.leaves(frame)
        return self.trace

    def point(self) -> None:
        self.left -= 1
        if self.left < 0:
            self.raised = True
            if self.before is not None:
                self.before()
            raise Oops


def at_every_point(act: Callable[[Raising], None]) -> int:
    """Call `act(raising)` for each point, until one is not reached."""
    act(Raising(sys.maxsize))  # some Pythons trace the opcodes of a function from its second traced call on
    point = 0
    while True:
        raising = Raising(point)
        try:
            act(raising)
        except BaseException as error:
            error.add_note(f"struck at {raising.where}")
            raise
        if not raising.raised:
            return point
        point += 1


@pytest.mark.parametrize("kind", [fibers.Lock, fibers.Semaphore, fibers.BoundedSemaphore, fibers.RLock])
def test_a_release_that_is_struck(kind: Callable[[], Any]) -> None:
    """It has handed over or it has not; done again if not, both waiters have it in their turn."""

    def act(raising: Raising) -> None:
        lock, got = kind(), []

        def worker(number: int) -> None:
            lock.acquire()
            got.append(number)
            lock.release()

        lock.acquire()
        workers = [started(worker, number) for number in range(2)]
        try:
            with raising:
                lock.release()
        except Oops:
            settle()
            if not got:
                lock.release()
        for fiber in workers:
            fiber.join(5)
        assert got == [0, 1]
        assert lock.acquire(False)

    assert at_every_point(act) >= 5


@pytest.mark.parametrize("kind", [fibers.SimpleQueue, fibers.Queue, lambda: fibers.Queue(1), fibers.LifoQueue])
def test_a_put_that_is_struck(kind: Callable[[], Any]) -> None:
    def act(raising: Raising) -> None:
        queue = kind()
        getters = [started(queue.get) for _ in range(2)]
        try:
            with raising:
                queue.put(0)
        except Oops:
            settle()
            if not getters[0].done() and queue.empty():
                queue.put(0)
        queue.put(1)
        assert [fiber.result(5) for fiber in getters] == [0, 1]
        assert queue.empty()

    assert at_every_point(act) >= 5


@pytest.mark.parametrize("kind", [fibers.Queue, fibers.LifoQueue])
def test_a_get_that_makes_room_and_is_struck(kind: Callable[[int], Any]) -> None:
    """Those who wait for room go on, one for each item that is taken out. (With an item its place may be lost.)"""

    def act(raising: Raising) -> None:
        queue = kind(1)
        queue.put(0)
        putters = [started(queue.put, number) for number in (1, 2)]
        try:
            with raising:
                queue.get()
        except Oops:
            pass
        got = []
        while queue.qsize() or queue._putting:
            got.append(queue.get(timeout=5))
        for fiber in putters:
            fiber.result(5)
        assert sorted(got) in ([1, 2], [0, 1, 2])

    assert at_every_point(act) >= 5


@pytest.mark.parametrize("kind", [fibers.Event, fibers.WaitGroup])
def test_a_set_that_is_struck(kind: Callable[[], Any]) -> None:
    """All who wait go on, or nobody does, and then it can be made true again."""

    def act(raising: Raising) -> None:
        event = kind()
        if isinstance(event, fibers.WaitGroup):
            event.add()
        waiters = [started(event.wait) for _ in range(3)]
        try:
            with raising:
                event.done() if isinstance(event, fibers.WaitGroup) else event.set()
        except Oops:
            settle()
            woken = {fiber.done() for fiber in waiters}
            assert len(woken) == 1
            if woken == {False}:
                if isinstance(event, fibers.Event):
                    event.set()
                else:
                    event.add(1 - event.count)
                    event.done()
        assert [fiber.result(5) for fiber in waiters] == [True] * 3

    assert at_every_point(act) >= 3


@pytest.mark.parametrize("kind", [fibers.Lock, fibers.Semaphore])
@pytest.mark.parametrize("handed", [False, True])
def test_an_acquire_that_is_struck(kind: Callable[[], Any], handed: bool) -> None:
    """It does not have the lock, and does not stand in the queue.

    With `handed` the handler releases the lock first, so that the fiber it strikes has been given it; that is passed on.
    """

    def act(raising: Raising) -> None:
        lock = kind()
        lock.acquire()
        if handed:
            raising.before = lock.release

        def acquire() -> bool:
            try:
                with raising:
                    lock.acquire()
            except Oops:
                return False
            lock.release()
            return True

        def watch() -> None:
            raising.parked = True
            if not (handed and raising.raised):
                lock.release()

        def come_after() -> None:
            lock.acquire()
            lock.release()

        acquirer, others = fibers.spawn(acquire), [fibers.spawn(watch), fibers.spawn(come_after)]
        assert acquirer.result(5) is not raising.raised
        for fiber in others:
            fiber.result(5)
        assert not lock._line
        assert lock.acquire(False)
        assert not lock.acquire(False)

    assert at_every_point(act) >= 3


@pytest.mark.parametrize("kind", [fibers.SimpleQueue, fibers.Queue, fibers.LifoQueue])
@pytest.mark.parametrize("handed", [False, True])
def test_a_get_that_is_struck(kind: Callable[[], Any], handed: bool) -> None:
    """It has not taken an item. With `handed` the handler puts one in first, which may go to the fiber that it strikes."""

    def act(raising: Raising) -> None:
        queue = kind()
        if handed:
            raising.before = lambda: queue.put(1)

        def get() -> object:
            try:
                with raising:
                    return queue.get()
            except Oops:
                return None

        def watch() -> None:
            raising.parked = True
            if not raising.raised or raising.before is None:
                queue.put(1)

        getter, watcher, behind = fibers.spawn(get), fibers.spawn(watch), fibers.spawn(queue.get)
        assert getter.result(5) == (None if raising.raised else 1)
        watcher.result(5)
        if not raising.raised:
            queue.put(1)
        assert behind.result(5) == 1
        assert queue.empty()
        assert not queue._getting

    assert at_every_point(act) >= 3
