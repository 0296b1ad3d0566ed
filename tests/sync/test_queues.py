"""Queue, LifoQueue, PriorityQueue and SimpleQueue in fibers. What a plain thread can see is in test_cpython_suites.py."""

import copy
import gc
import queue as stdlib
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from support.settling import Oops, settle, started, waiting

import fibers


class Derived(fibers.Queue[Any]):
    """Into which code of the user puts."""

    def _put(self, item: Any) -> None:
        super()._put(item)


class Sneaky(fibers.Queue[Any]):
    """Other fibers run in the middle of each put and get."""

    def _put(self, item: Any) -> None:
        fibers.yield_now()
        self.queue.append(item)
        fibers.yield_now()

    def _get(self) -> Any:
        fibers.yield_now()
        return self.queue.popleft()


LIMITED: list[Callable[..., Any]] = [fibers.Queue, fibers.LifoQueue, fibers.PriorityQueue, Derived, Sneaky]
limited = pytest.mark.parametrize("kind", LIMITED, ids=lambda kind: kind.__name__)
every_kind = pytest.mark.parametrize("kind", [*LIMITED, fibers.SimpleQueue], ids=lambda kind: kind.__name__)


# -- getting


@every_kind
def test_who_has_waited_longest_gets_the_next_item(kind: Callable[..., Any]) -> None:
    queue = kind()
    getters = [started(queue.get) for _ in range(5)]
    for item in range(5):
        queue.put(item)
    assert [fiber.result(5) for fiber in getters] == list(range(5))
    assert queue.empty()


@every_kind
def test_a_newcomer_does_not_get_what_was_put_for_another(kind: Callable[..., Any]) -> None:
    queue = kind()
    getter = started(queue.get)
    queue.put("for the getter")
    with pytest.raises(fibers.Empty):
        queue.get_nowait()
    assert getter.result(5) == "for the getter"


@every_kind
@pytest.mark.parametrize("how", ["cancel", "kill", "timeout", "scope"])
def test_a_get_that_is_interrupted_swallows_no_item(kind: Callable[..., Any], how: str) -> None:
    queue = kind()
    scopes: list[fibers.CancelScope] = []

    def impatient() -> object:
        with fibers.CancelScope() as scope:
            scopes.append(scope)
            try:
                return queue.get(timeout=0.001 if how == "timeout" else None)
            except fibers.Empty:
                return "empty"
        return "cancelled"

    fiber = started(impatient)
    behind = started(queue.get)
    if how == "cancel":
        fiber.cancel()
    elif how == "kill":
        fiber.kill(Oops)
    elif how == "scope":
        scopes[0].cancel()
    fiber.join(5)
    if how in ("timeout", "scope"):
        assert fiber.result() == ("empty" if how == "timeout" else "cancelled")
    else:
        assert fiber.exception() is not None
    queue.put(7)
    assert behind.result(5) == 7
    queue.put(8)
    assert queue.qsize() == 1


@every_kind
@pytest.mark.parametrize("how", ["cancel", "kill"])
def test_a_get_that_was_given_an_item_returns_it_although_it_is_cancelled(kind: Callable[..., Any], how: str) -> None:
    queue, got = kind(), []

    def worker() -> None:
        got.append(queue.get())
        fibers.sleep(3600)

    fiber = started(worker)
    queue.put("item")
    fiber.cancel() if how == "cancel" else fiber.kill(Oops)
    assert fiber.exception(5) is not None
    assert got == ["item"]
    assert queue.empty()


@every_kind
def test_a_deadline_further_out_surfaces_once_as_empty(kind: Callable[..., Any]) -> None:
    queue = kind()

    def worker() -> list[object]:
        seen: list[object] = []
        with fibers.move_on_after(0.001):
            with pytest.raises(fibers.Empty):
                queue.get(timeout=3600)
            seen.append("empty")
            queue.get(timeout=3600)
            seen.append("never")
        with fibers.move_on_after(0.001):
            queue.get()
            seen.append("never")
        return seen

    assert fibers.spawn(worker).result(5) == ["empty"]


@every_kind
def test_a_get_holds_on_to_nothing(kind: Callable[..., Any]) -> None:
    """An item is let go as soon as it has left, also one that was handed over."""

    class Item:
        def __lt__(self, other: object) -> bool:
            return False

    def reference() -> "weakref.ref[Item]":
        item = Item()
        queue.put(item)
        return weakref.ref(item)

    def use() -> None:
        queue.get()
        fibers.sleep(3600)

    queue = kind()
    gc.disable()
    try:
        kept = reference()
        queue.get()
        assert kept() is None
        fiber = started(use)
        handed = reference()
        settle()
        fiber.cancel()
        fiber.join(5)
        assert handed() is None
    finally:
        gc.enable()


# -- putting


@limited
def test_who_has_waited_longest_gets_room_first(kind: Callable[..., Any]) -> None:
    queue = kind(1)
    queue.put(0)
    putters = [started(queue.put, number) for number in range(1, 6)]
    assert queue.full()
    if kind is fibers.LifoQueue or kind is fibers.PriorityQueue:
        got = [queue.get() for _ in range(6)]
        assert got == list(range(6))
    else:
        assert [queue.get() for _ in range(6)] == list(range(6))
    for fiber in putters:
        fiber.result(5)
    assert queue.empty()


@limited
def test_a_newcomer_does_not_take_room_that_is_anothers(kind: Callable[..., Any]) -> None:
    queue = kind(1)
    queue.put(0)
    putter = started(queue.put, 1)
    assert queue.get() == 0
    with pytest.raises(fibers.Full):
        queue.put_nowait(2)
    putter.result(5)
    assert queue.get() == 1


@limited
@pytest.mark.parametrize("how", ["cancel", "kill", "timeout", "scope"])
def test_a_put_that_is_interrupted_leaves_no_item(kind: Callable[..., Any], how: str) -> None:
    queue = kind(1)
    queue.put(0)
    scopes: list[fibers.CancelScope] = []

    def impatient() -> object:
        with fibers.CancelScope() as scope:
            scopes.append(scope)
            try:
                queue.put(1, timeout=0.001 if how == "timeout" else None)
            except fibers.Full:
                return "full"
            return "put"
        return "cancelled"

    fiber = started(impatient)
    behind = started(queue.put, 2)
    if how == "cancel":
        fiber.cancel()
    elif how == "kill":
        fiber.kill(Oops)
    elif how == "scope":
        scopes[0].cancel()
    fiber.join(5)
    if how in ("timeout", "scope"):
        assert fiber.result() == ("full" if how == "timeout" else "cancelled")
    else:
        assert fiber.exception() is not None
    assert [queue.get(), queue.get()] == [0, 2]
    behind.result(5)
    assert queue.empty()
    assert queue.unfinished_tasks == 2


@limited
@pytest.mark.parametrize("how", ["cancel", "kill"])
def test_a_put_whose_item_was_accepted_returns_although_it_is_cancelled(kind: Callable[..., Any], how: str) -> None:
    queue, seen = kind(1), []
    queue.put(0)

    def worker() -> None:
        queue.put(1)
        seen.append("accepted")
        fibers.sleep(3600)

    fiber = started(worker)
    assert queue.get() == 0
    fiber.cancel() if how == "cancel" else fiber.kill(Oops)
    assert fiber.exception(5) is not None
    assert seen == ["accepted"]
    assert queue.get() == 1


@limited
def test_a_deadline_further_out_surfaces_once_as_full(kind: Callable[..., Any]) -> None:
    queue = kind(1)
    queue.put(0)

    def worker() -> list[str]:
        seen: list[str] = []
        with fibers.move_on_after(0.001):
            with pytest.raises(fibers.Full):
                queue.put(1, timeout=3600)
            seen.append("full")
            queue.put(1, timeout=3600)
            seen.append("never")
        with fibers.move_on_after(0.001):
            queue.put(1)
            seen.append("never")
        return seen

    assert fibers.spawn(worker).result(5) == ["full"]
    assert queue.qsize() == 1


@limited
def test_producers_and_consumers_of_a_narrow_queue(kind: Callable[..., Any]) -> None:
    queue, got = kind(2), []

    def produce(start: int) -> None:
        for number in range(start, start + 50):
            queue.put(number)

    def consume() -> None:
        for _ in range(50):
            got.append(queue.get())
            queue.task_done()

    every = [fibers.spawn(produce, start) for start in (0, 50, 100)] + [fibers.spawn(consume) for _ in range(3)]
    queue.join()
    for fiber in every:
        fiber.result(5)
    queue.join()
    assert sorted(got) == list(range(150))
    assert queue.unfinished_tasks == 0


# -- what was there before


def test_order() -> None:
    for kind, order in ((fibers.Queue, [3, 1, 2]), (fibers.LifoQueue, [2, 1, 3]), (fibers.PriorityQueue, [1, 2, 3])):
        queue: Any = kind()
        for item in (3, 1, 2):
            queue.put(item)
        assert [queue.get() for _ in range(3)] == order


def test_exceptions_are_the_standard_librarys() -> None:
    assert fibers.Empty is stdlib.Empty
    assert fibers.Full is stdlib.Full
    if sys.version_info >= (3, 13):
        assert fibers.ShutDown is stdlib.ShutDown


@limited
def test_bad_timeouts(kind: Callable[..., Any]) -> None:
    queue = kind(1)
    with pytest.raises(ValueError, match=r"'timeout' must be a non-negative number, not -1"):
        queue.get(timeout=-1)
    with pytest.raises(ValueError, match="non-negative"):
        queue.put(1, timeout=-1)
    with pytest.raises(OverflowError, match="too large"):
        queue.get(timeout=float("inf"))
    with pytest.raises(ValueError, match="nan"):
        queue.get(timeout=float("nan"))
    with pytest.raises(TypeError):
        queue.get(timeout="1")
    assert queue.empty()
    queue.put(1, timeout=0)
    with pytest.raises(fibers.Full):
        queue.put(1, timeout=0)
    assert queue.get(timeout=0) == 1
    with pytest.raises(fibers.Empty):
        queue.get(timeout=0)


@every_kind
def test_inside_the_runtime_nothing_may_wait(kind: Callable[..., Any]) -> None:
    queue, seen = kind(), []

    def callback(fiber: object) -> None:
        queue.put(1)
        seen.append(queue.get())
        try:
            queue.get()
        except RuntimeError as error:
            seen.append(str(error))

    fiber = fibers.spawn(int)
    fiber.add_done_callback(callback)
    fiber.join(5)
    if kind is not Sneaky:
        assert seen[0] == 1
        assert "inside the runtime" in seen[1]


@limited
def test_task_done_and_join(kind: Callable[..., Any]) -> None:
    queue = kind()
    queue.join()
    with pytest.raises(ValueError, match="called too many times"):
        queue.task_done()
    queue.put(1)
    queue.put(2)
    joiner = started(queue.join)
    for _ in range(2):
        assert waiting(joiner)
        queue.get()
        queue.task_done()
    joiner.result(5)


@every_kind
def test_none_of_them_can_be_copied(kind: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="cannot pickle"):
        copy.copy(kind())


# -- the end


@limited
@pytest.mark.parametrize("immediate", [False, True])
def test_shutdown(kind: Callable[..., Any], immediate: bool) -> None:
    queue = kind(2)
    queue.put(0)
    queue.put(1)
    putters = [started(queue.put, 2) for _ in range(2)]
    queue.shutdown(immediate)
    for fiber in putters:
        with pytest.raises(fibers.ShutDown):
            fiber.result(5)
    with pytest.raises(fibers.ShutDown):
        queue.put(3)
    with pytest.raises(fibers.ShutDown):
        queue.put_nowait(3)
    if not immediate:
        assert sorted([queue.get(), queue.get_nowait()]) == [0, 1]
        assert queue.unfinished_tasks == 2
    else:
        queue.join()
    for attempt in (queue.get, queue.get_nowait):
        with pytest.raises(fibers.ShutDown):
            attempt()
    with pytest.raises(fibers.ShutDown):
        queue.put(4)  # also after what was there has been taken
    queue.shutdown()
    assert queue.is_shutdown
    assert "shut down" in repr(queue)


@limited
def test_shutdown_wakes_those_who_wait_for_items_or_for_the_end(kind: Callable[..., Any]) -> None:
    queue = kind()
    queue.put(0)
    joiner = started(queue.join)
    queue.shutdown(immediate=True)
    joiner.result(5)
    queue = kind()
    getters = [started(queue.get) for _ in range(3)]
    queue.shutdown()
    for fiber in getters:
        with pytest.raises(fibers.ShutDown):
            fiber.result(5)


# -- queues with code of the user


class Touchy:
    """Cannot be compared with some."""

    def __init__(self, value: int, touchy: bool = False) -> None:
        self.value = value
        self.touchy = touchy

    def __lt__(self, other: "Touchy") -> bool:
        if self.touchy or other.touchy:
            raise Oops(self.value)
        return self.value < other.value


def test_an_item_that_cannot_be_compared_is_refused_and_the_queue_goes_on() -> None:
    queue = fibers.PriorityQueue[Touchy](3)
    queue.put(Touchy(1))
    with pytest.raises(Oops):
        queue.put(Touchy(0, touchy=True))
    assert queue.qsize() == queue.unfinished_tasks == 1
    assert not queue._mutex.locked()  # type: ignore[union-attr]
    queue.put(Touchy(0))
    assert [queue.get().value, queue.get().value] == [0, 1]


def test_a_heap_is_as_it_was_when_a_comparison_fails_anywhere() -> None:
    class Fails:
        """Compares as its value, and fails at the n-th time."""

        left = sys.maxsize

        def __init__(self, value: int) -> None:
            self.value = value

        def __lt__(self, other: "Fails") -> bool:
            Fails.left -= 1
            if Fails.left < 0:
                raise Oops
            return self.value < other.value

    for size in range(20):
        for limit in range(5):
            queue = fibers.PriorityQueue[Fails]()
            for value in range(size):
                queue.put(Fails(value))
            before = list(queue.queue)
            Fails.left = limit
            try:
                queue.put(Fails(-1))
            except Oops:
                assert queue.queue == before
            Fails.left = limit
            total = queue.qsize()
            try:
                queue.get()
            except Oops:
                assert queue.qsize() == total
            Fails.left = sys.maxsize


def test_what_is_raised_about_an_item_goes_to_who_brought_it() -> None:
    class Picky(fibers.Queue[Any]):
        def _put(self, item: Any) -> None:
            if item == "bad":
                raise Oops(item)
            super()._put(item)

    queue = Picky(1)
    queue.put("good")
    bad, good = started(queue.put, "bad"), started(queue.put, "also good")
    assert queue.get() == "good"
    with pytest.raises(Oops):
        bad.result(5)
    good.result(5)
    assert queue.get() == "also good"
    assert queue.unfinished_tasks == 2


def test_what_is_raised_as_an_item_is_taken_goes_to_who_wants_it() -> None:
    class Sticky(fibers.Queue[Any]):
        def _get(self) -> Any:
            item = super()._get()
            if item == "sticky":
                raise Oops(item)
            return item

    queue = Sticky()
    first, second = started(queue.get), started(queue.get)
    queue.put("sticky")
    queue.put("loose")
    with pytest.raises(Oops):
        first.result(5)
    assert second.result(5) == "loose"


def test_a_comparison_may_wait() -> None:
    """Other fibers use the queue meanwhile, and wait until it is whole again."""

    class Slow:
        def __init__(self, value: int) -> None:
            self.value = value

        def __lt__(self, other: "Slow") -> bool:
            fibers.sleep(0.0001)
            return self.value < other.value

    queue = fibers.PriorityQueue[Slow]()
    for fiber in [fibers.spawn(queue.put, Slow(value)) for value in (5, 3, 8, 1, 9, 2)]:
        fiber.result(5)
    getters = [fibers.spawn(queue.get) for _ in range(6)]
    assert [fiber.result(5).value for fiber in getters] == [1, 2, 3, 5, 8, 9]


def test_hooks_see_every_item() -> None:
    class Unique(fibers.Queue[int]):
        def _init(self, maxsize: int) -> None:
            self.queue = set()

        def _put(self, item: int) -> None:
            self.queue.add(item)

        def _get(self) -> int:
            return self.queue.pop()  # type: ignore[no-any-return]

    queue = Unique()
    for item in (1, 1, 1):
        queue.put(item)
    assert queue.qsize() == 1
    getter = started(lambda: (queue.get(), queue.get()))
    settle()
    queue.put(2)
    assert getter.result(5) == (1, 2)


def test_a_hook_that_is_kept_waiting_does_not_lose_its_turn() -> None:
    queue, order = Sneaky(1), []

    def producer(number: int) -> None:
        for turn in range(5):
            queue.put((number, turn))

    def consumer() -> None:
        for _ in range(15):
            order.append(queue.get())

    every = [fibers.spawn(producer, number) for number in range(3)]
    fibers.spawn(consumer).join(5)
    for fiber in every:
        fiber.result(5)
    for number in range(3):
        assert [turn for who, turn in order if who == number] == list(range(5))
