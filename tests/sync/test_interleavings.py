"""Each pair of operations of two threads, interleaved at every point at which CPython may change threads.

The random tests find what is likely; here is what is not. The windows are a few instructions wide.
"""

from collections.abc import Callable
from typing import Any

import pytest
from support.interleave import Player, explore
from support.settling import settle

import fibers

SOURCES = ("fibers/sync/", "fibers/core/waitqueue.py")


def pair(
    make: Callable[[], Any],
    first: Callable[[Any], Any],
    second: Callable[[Any], Any],
    verify: Callable[[Any, Player, Player], None],
) -> None:
    """Both orders of the two."""

    def turned(state: Any, one: Player, other: Player) -> None:
        verify(state, other, one)

    assert explore(make, first, second, verify, SOURCES) > 0
    assert explore(make, second, first, turned, SOURCES) > 0


def both_end(*players: Player) -> list[Any]:
    for player in players:
        player.end()
        if player.error is not None:
            raise player.error
    return [player.result for player in players]


# -- Lock and Semaphore


def taken(kind: Callable[[], Any]) -> Callable[[], Any]:
    def make() -> Any:
        lock = kind()
        lock.acquire()
        return lock

    return make


@pytest.mark.parametrize("kind", [fibers.Lock, fibers.Semaphore, fibers.BoundedSemaphore])
def test_acquire_and_release(kind: Callable[[], Any]) -> None:
    def verify(lock: Any, acquirer: Player, releaser: Player) -> None:
        assert both_end(acquirer, releaser)[0] is True
        assert not lock.acquire(False)
        lock.release()
        assert lock.acquire(False)

    pair(taken(kind), lambda lock: lock.acquire(), lambda lock: lock.release(), verify)


@pytest.mark.parametrize("kind", [fibers.Lock, fibers.RLock, fibers.Semaphore])
def test_two_that_acquire(kind: Callable[[], Any]) -> None:
    """One has it; the other waits, and gets it when it is released."""

    def hold(lock: Any) -> None:
        lock.acquire()
        lock.release()

    def verify(lock: Any, one: Player, other: Player) -> None:
        both_end(one, other)
        assert lock.acquire(False)

    pair(kind, hold, hold, verify)


@pytest.mark.parametrize("kind", [fibers.Lock, fibers.Semaphore])
def test_release_and_a_waiter_that_is_cancelled(kind: Callable[[], Any]) -> None:
    """The lock goes to the waiter or is free; nothing between."""

    class Scene:
        def __init__(self) -> None:
            self.lock = kind()
            self.lock.acquire()
            self.got: list[bool] = []
            self.waiter = Player(self.wait)
            self.waiter.start()

        def wait(self) -> None:
            with fibers.CancelScope() as self.scope:
                self.lock.acquire()
                self.got.append(True)

    def cancel(scene: Scene) -> None:
        scene.scope.cancel()
        scene.waiter.settle()

    def verify(scene: Scene, releaser: Player, canceller: Player) -> None:
        both_end(releaser, canceller, scene.waiter)
        assert scene.lock.acquire(False) is not bool(scene.got)

    assert explore(Scene, lambda scene: scene.lock.release(), cancel, verify, SOURCES) > 0


# -- Event, WaitGroup, Condition


def test_wait_and_set() -> None:
    def verify(event: fibers.Event, waiter: Player, setter: Player) -> None:
        assert both_end(waiter, setter)[0] is True

    pair(fibers.Event, lambda event: event.wait(), lambda event: event.set(), verify)


def test_wait_and_done() -> None:
    def make() -> fibers.WaitGroup:
        group = fibers.WaitGroup()
        group.add()
        return group

    def verify(group: fibers.WaitGroup, waiter: Player, worker: Player) -> None:
        assert both_end(waiter, worker)[0] is True

    pair(make, lambda group: group.wait(), lambda group: group.done(), verify)


@pytest.mark.parametrize("lock", [fibers.Lock, fibers.RLock])
def test_wait_and_notify(lock: Callable[[], Any]) -> None:
    class Scene:
        def __init__(self) -> None:
            self.condition = fibers.Condition(lock())
            self.true = False

        def wait(self) -> bool:
            with self.condition:
                return self.condition.wait_for(lambda: self.true)

        def notify(self) -> None:
            with self.condition:
                self.true = True
                self.condition.notify()

    def verify(scene: Scene, waiter: Player, notifier: Player) -> None:
        assert both_end(waiter, notifier)[0] is True
        assert scene.condition.acquire(False)

    pair(Scene, Scene.wait, Scene.notify, verify)


def test_two_parties_of_a_barrier() -> None:
    def verify(barrier: fibers.Barrier, one: Player, other: Player) -> None:
        assert sorted(both_end(one, other)) == [0, 1]

    pair(lambda: fibers.Barrier(2), lambda barrier: barrier.wait(), lambda barrier: barrier.wait(), verify)


# -- queues

KINDS = [fibers.Queue, fibers.LifoQueue, fibers.PriorityQueue]
kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.mark.parametrize("kind", [*KINDS, fibers.SimpleQueue])
def test_get_and_put(kind: Callable[[], Any]) -> None:
    def verify(queue: Any, getter: Player, putter: Player) -> None:
        assert both_end(getter, putter)[0] == 1
        assert queue.empty()

    pair(kind, lambda queue: queue.get(), lambda queue: queue.put(1), verify)


@pytest.mark.parametrize("kind", [*KINDS, fibers.SimpleQueue])
def test_two_that_get(kind: Callable[[], Any]) -> None:
    def make() -> Any:
        queue = kind()
        queue.put(1)
        return queue

    def verify(queue: Any, one: Player, other: Player) -> None:
        queue.put(2)
        assert sorted(both_end(one, other)) == [1, 2]

    pair(make, lambda queue: queue.get(), lambda queue: queue.get(), verify)


def full(kind: Callable[[int], Any]) -> Callable[[], Any]:
    def make() -> Any:
        queue = kind(1)
        queue.put(0)
        return queue

    return make


@kinds
def test_put_into_a_full_queue_and_get(kind: Callable[[int], Any]) -> None:
    def verify(queue: Any, putter: Player, getter: Player) -> None:
        assert both_end(putter, getter)[1] in (0, 1)  # a LifoQueue may give what came last
        assert queue.qsize() == 1
        with pytest.raises(fibers.Full):
            queue.put_nowait(2)
        queue.get()
        queue.put_nowait(3)
        assert queue.unfinished_tasks == 3

    pair(full(kind), lambda queue: queue.put(1), lambda queue: queue.get(), verify)


@kinds
def test_two_that_get_from_a_full_queue_at_which_a_put_waits(kind: Callable[[int], Any]) -> None:
    """Where the first has taken an item and the place is not given yet, the second finds nothing and waits; and gets it."""

    class Scene:
        def __init__(self) -> None:
            self.queue = full(kind)()
            self.putter = Player(lambda: self.queue.put(1))
            self.putter.start()

        def get(self) -> int:
            return self.queue.get()  # type: ignore[no-any-return]

    def verify(scene: Scene, one: Player, other: Player) -> None:
        assert sorted(both_end(one, other, scene.putter)[:2]) == [0, 1]
        assert scene.queue.empty()
        scene.queue.put_nowait(2)
        with pytest.raises(fibers.Full):
            scene.queue.put_nowait(3)

    pair(Scene, Scene.get, Scene.get, verify)


@kinds
def test_two_that_put_where_there_is_room_for_one(kind: Callable[[int], Any]) -> None:
    def verify(queue: Any, one: Player, other: Player) -> None:
        assert queue.qsize() == 1
        got = [queue.get(), queue.get()]
        both_end(one, other)
        assert sorted(got) == [1, 2]
        assert queue.empty()

    pair(lambda: kind(1), lambda queue: queue.put(1), lambda queue: queue.put(2), verify)


@kinds
def test_a_put_that_is_cancelled_and_a_get(kind: Callable[[int], Any]) -> None:
    """The item of the put is in the queue if, and only if, the put has returned."""

    class Scene:
        def __init__(self) -> None:
            self.queue = full(kind)()
            self.accepted: list[bool] = []
            self.putter = Player(self.put)
            self.putter.start()

        def put(self) -> None:
            with fibers.CancelScope() as self.scope:
                self.queue.put(1)
                self.accepted.append(True)

        def cancel(self) -> None:
            self.scope.cancel()
            self.putter.settle()

    def verify(scene: Scene, getter: Player, canceller: Player) -> None:
        both_end(getter, canceller, scene.putter)
        assert scene.queue.qsize() == len(scene.accepted)
        assert scene.queue.unfinished_tasks == 1 + len(scene.accepted)

    assert explore(Scene, lambda scene: scene.queue.get(), Scene.cancel, verify, SOURCES) > 0


@pytest.mark.parametrize("kind", [*KINDS, fibers.SimpleQueue])
def test_a_get_that_is_cancelled_and_a_put(kind: Callable[[], Any]) -> None:
    """The item is received if, and only if, it is not in the queue any more."""

    class Scene:
        def __init__(self) -> None:
            self.queue = kind()
            self.got: list[int] = []
            self.getter = Player(self.get)
            self.getter.start()

        def get(self) -> None:
            with fibers.CancelScope() as self.scope:
                self.got.append(self.queue.get())

        def cancel(self) -> None:
            self.scope.cancel()
            self.getter.settle()

    def verify(scene: Scene, putter: Player, canceller: Player) -> None:
        both_end(putter, canceller, scene.getter)
        assert scene.queue.qsize() + len(scene.got) == 1

    assert explore(Scene, lambda scene: scene.queue.put(1), Scene.cancel, verify, SOURCES) > 0


@kinds
def test_join_and_the_last_task_done(kind: Callable[[], Any]) -> None:
    def make() -> Any:
        queue = kind()
        queue.put(1)
        queue.get()
        return queue

    def verify(queue: Any, joiner: Player, worker: Player) -> None:
        both_end(joiner, worker)
        assert queue.unfinished_tasks == 0

    pair(make, lambda queue: queue.join(), lambda queue: queue.task_done(), verify)


@kinds
@pytest.mark.parametrize("immediate", [False, True])
def test_shutdown_and_whoever_waits(kind: Callable[[int], Any], immediate: bool) -> None:
    def attempt(fn: Callable[[], Any]) -> str:
        try:
            fn()
        except fibers.ShutDown:
            return "shut down"
        return "done"

    def got(queue: Any, getter: Player, closer: Player) -> None:
        assert both_end(getter, closer)[0] == "shut down"

    def put(queue: Any, putter: Player, closer: Player) -> None:
        assert both_end(putter, closer)[0] == "shut down"
        assert queue.qsize() == (0 if immediate else 1)

    shut = lambda queue: queue.shutdown(immediate)  # noqa: E731
    pair(lambda: kind(1), lambda queue: attempt(queue.get), shut, got)
    pair(full(kind), lambda queue: attempt(lambda: queue.put(1)), shut, put)


# -- the tool


def test_the_tool_finds_what_is_not_safe() -> None:
    """A lock that looks and then takes, with a call between."""

    class Naive:
        def __init__(self) -> None:
            self.held: list[int] = []

        def take(self) -> bool:
            if not self.is_held():
                self.held.append(1)
                return True
            return False

        def is_held(self) -> bool:
            return bool(self.held)

    def verify(lock: Naive, one: Player, other: Player) -> None:
        assert sorted(both_end(one, other)) == [False, True]

    with pytest.raises(AssertionError) as caught:
        explore(Naive, Naive.take, Naive.take, verify, (__file__,))
    assert "Naive" in caught.value.__notes__[0]
    settle()
