"""Queue and Semaphore against simple models: every order of calls, waits, cancellations and ends that hypothesis thinks of.

The model is a list of items (a number of permits) and two lists of who waits. After each step every fiber is where the model
says, and has got what the model says.
"""

from collections import deque
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.settling import Oops, settle, waiting

import fibers


class Call:
    """A call of a fiber, and what it came to."""

    def __init__(self, what: Any = None) -> None:
        self.what = what
        self.fiber: fibers.Fiber[None] = fibers.spawn(self.run)
        self.came_to: Any = None

    def run(self) -> None:
        try:
            self.came_to = self.act()
        except (Oops, fibers.ShutDown) as error:
            self.came_to = type(error)

    def act(self) -> Any:
        raise NotImplementedError


class QueueMachine(RuleBasedStateMachine):
    """A queue with room for `maxsize`, fibers that put and get."""

    @initialize(maxsize=st.integers(0, 3), kind=st.sampled_from([fibers.Queue, fibers.LifoQueue, fibers.PriorityQueue]))
    def make(self, maxsize: int, kind: Any) -> None:
        self.queue = queue = kind(maxsize)
        self.kind, self.maxsize = kind, maxsize
        self.items: list[int] = []
        self.getters: deque[Call] = deque()
        self.putters: deque[Call] = deque()
        self.expected: dict[Call, Any] = {}
        self.number = self.unfinished = 0
        self.shut = False

        class Get(Call):
            def act(self) -> Any:
                return queue.get()

        class Put(Call):
            def act(self) -> Any:
                return queue.put(self.what)

        self.get_call, self.put_call = Get, Put

    # -- the model

    def full(self) -> bool:
        return 0 < self.maxsize <= len(self.items)

    def take(self) -> int:
        if self.kind is fibers.LifoQueue:
            return self.items.pop()
        if self.kind is fibers.PriorityQueue:
            self.items.sort()
        return self.items.pop(0)

    def add(self, item: int) -> None:
        self.unfinished += 1
        if self.getters:
            self.expected[self.getters.popleft()] = item
        else:
            self.items.append(item)

    def removed(self) -> None:
        while self.putters and not self.full():
            call = self.putters.popleft()
            self.add(call.what)
            self.expected[call] = None

    # -- what is done

    @rule()
    def get(self) -> None:
        call = self.get_call()
        settle()
        if self.items:
            self.expected[call] = self.take()
            self.removed()
        elif self.shut:
            self.expected[call] = fibers.ShutDown
        else:
            self.getters.append(call)

    @rule(value=st.integers(0, 5))
    def put(self, value: int) -> None:
        self.number += 1
        call = self.put_call(value * 1000 + self.number)
        settle()
        if self.shut:
            self.expected[call] = fibers.ShutDown
        elif self.full():
            self.putters.append(call)
        else:
            self.add(call.what)
            self.expected[call] = None

    @rule()
    def get_without_waiting(self) -> None:
        try:
            item = self.queue.get_nowait()
        except (fibers.Empty, fibers.ShutDown):
            assert not self.items
        else:
            assert item == self.take()
            self.removed()

    @rule(immediate=st.booleans(), item=st.integers(6, 9))
    def put_without_waiting(self, immediate: bool, item: int) -> None:
        self.number += 1
        item = item * 1000 + self.number
        try:
            self.queue.put(item, timeout=0) if immediate else self.queue.put_nowait(item)
        except fibers.ShutDown:
            assert self.shut
        except fibers.Full:
            assert self.full()
        else:
            assert not self.shut
            self.add(item)

    @precondition(lambda self: self.getters or self.putters)
    @rule(data=st.data(), kill=st.booleans())
    def interrupt(self, data: st.DataObject, kill: bool) -> None:
        call = data.draw(st.sampled_from([*self.getters, *self.putters]))
        call.fiber.kill(Oops) if kill else call.fiber.cancel()
        (self.getters if call in self.getters else self.putters).remove(call)
        self.expected[call] = Oops if kill else None

    @precondition(lambda self: self.unfinished > 0)
    @rule()
    def task_done(self) -> None:
        self.queue.task_done()
        self.unfinished -= 1

    @precondition(lambda self: self.number > 15)
    @rule(immediate=st.booleans())
    def shutdown(self, immediate: bool) -> None:
        self.queue.shutdown(immediate)
        self.shut = True
        for call in [*self.getters, *self.putters]:
            self.expected[call] = fibers.ShutDown
        self.getters.clear()
        self.putters.clear()
        if immediate:
            self.unfinished = max(0, self.unfinished - len(self.items))
            self.items.clear()

    # -- what holds

    @invariant()
    def as_the_model_says(self) -> None:
        settle()
        assert all(waiting(call.fiber) for call in [*self.getters, *self.putters])
        for call, result in self.expected.items():
            assert call.fiber.done()
            assert call.came_to == result
        self.expected.clear()
        assert self.queue.qsize() == len(self.items)
        assert self.queue.unfinished_tasks == self.unfinished

    def teardown(self) -> None:
        for call in [*self.getters, *self.putters]:
            call.fiber.cancel()
        settle()


TestQueues = QueueMachine.TestCase


class SemaphoreMachine(RuleBasedStateMachine):
    """A semaphore, and fibers that acquire."""

    @initialize(value=st.integers(0, 3))
    def make(self, value: int) -> None:
        self.semaphore = semaphore = fibers.Semaphore(value)
        self.value = value
        self.waiters: deque[Call] = deque()
        self.expected: dict[Call, Any] = {}

        class Acquire(Call):
            def act(self) -> Any:
                return semaphore.acquire()

        self.call = Acquire

    @rule()
    def acquire(self) -> None:
        call = self.call()
        settle()
        if self.value:
            self.value -= 1
            self.expected[call] = True
        else:
            self.waiters.append(call)

    @rule()
    def acquire_without_waiting(self) -> None:
        assert self.semaphore.acquire(False) is (self.value > 0)
        self.value = max(0, self.value - 1)

    @rule(n=st.integers(1, 4))
    def release(self, n: int) -> None:
        self.semaphore.release(n)
        for _ in range(n):
            if self.waiters:
                self.expected[self.waiters.popleft()] = True
            else:
                self.value += 1

    @precondition(lambda self: self.waiters)
    @rule(data=st.data(), kill=st.booleans(), release=st.sampled_from(["no", "before", "after"]))
    def interrupt(self, data: st.DataObject, kill: bool, release: str) -> None:
        """Also together with a release: who was given a permit first keeps it."""
        call = data.draw(st.sampled_from(list(self.waiters)))
        if release == "before":
            self.release(1)
        call.fiber.kill(Oops) if kill else call.fiber.cancel()
        if call in self.waiters:
            self.waiters.remove(call)
            self.expected[call] = Oops if kill else None
        if release == "after":
            self.release(1)

    @invariant()
    def as_the_model_says(self) -> None:
        settle()
        assert all(waiting(call.fiber) for call in self.waiters)
        for call, result in self.expected.items():
            assert call.fiber.done()
            assert call.came_to == result
        self.expected.clear()
        assert self.semaphore._value == self.value

    def teardown(self) -> None:
        for call in self.waiters:
            call.fiber.cancel()
        settle()


TestSemaphores = SemaphoreMachine.TestCase
