"""CPython's own tests of `threading` and `queue`, run over our primitives.

They come with the interpreter (`test.lock_tests`, `test.test_queue`) and use plain threads; so they tell two things: that
signatures, results and errors are those of the standard library, and that plain threads may use what fibers use.
"""

import time
import unittest
from types import SimpleNamespace
from typing import Any

import pytest

from fibers import sync
from fibers.eventloop import BACKEND, DEFAULT

if BACKEND != DEFAULT:
    pytest.skip(
        "many seconds of sleeping threads, which say nothing of a loop that the other files do not; run on one loop only",
        allow_module_level=True,
    )

lock_tests: Any = pytest.importorskip("test.lock_tests", reason="this Python came without its own test suite")
test_queue: Any = pytest.importorskip("test.test_queue", reason="this Python came without its own test suite")


@pytest.fixture(autouse=True)
def _shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests sleep so that a thread has time to block. If it has not, they test less, and pass all the same."""
    monkeypatch.setattr(test_queue, "time", SimpleNamespace(sleep=lambda seconds: time.sleep(seconds / 10)))


class TestLock(lock_tests.LockTests):  # type: ignore[misc]
    locktype = staticmethod(sync.Lock)


class TestRLock(lock_tests.RLockTests):  # type: ignore[misc]
    locktype = staticmethod(sync.RLock)


class TestEvent(lock_tests.EventTests):  # type: ignore[misc]
    eventtype = staticmethod(sync.Event)
    test_at_fork_reinit = None  # looks at a private attribute of theirs


class TestCondition(lock_tests.ConditionTests):  # type: ignore[misc]
    condtype = staticmethod(sync.Condition)


class TestSemaphore(lock_tests.SemaphoreTests):  # type: ignore[misc]
    semtype = staticmethod(sync.Semaphore)


class TestBoundedSemaphore(lock_tests.BoundedSemaphoreTests):  # type: ignore[misc]
    semtype = staticmethod(sync.BoundedSemaphore)


class TestBarrier(lock_tests.BarrierTests):  # type: ignore[misc]
    barriertype = staticmethod(sync.Barrier)


class TestQueue(test_queue.QueueTest, unittest.TestCase):  # type: ignore[misc]
    queue = sync


class TestLifoQueue(test_queue.LifoQueueTest, unittest.TestCase):  # type: ignore[misc]
    queue = sync


class TestPriorityQueue(test_queue.PriorityQueueTest, unittest.TestCase):  # type: ignore[misc]
    queue = sync


class TestFailingQueue(test_queue.FailingQueueTest, unittest.TestCase):  # type: ignore[misc]
    queue = sync


class TestSimpleQueue(test_queue.BaseSimpleQueueTest, unittest.TestCase):  # type: ignore[misc]
    queue = sync
    type2test = sync.SimpleQueue
    test_references = None  # makes 60 full collections; test_queues.py has the same with none
