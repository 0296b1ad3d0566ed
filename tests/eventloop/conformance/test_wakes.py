"""What other threads, signal handlers and the loop's own callers post is run, once, in order, and ends a sleep."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from support.loops import Kind
from support.waiting import Target, Waiter, looks

from fibers.eventloop import EventLoop


def later(loop: EventLoop, function: Callable[[], object]) -> threading.Thread:
    """Call it in another thread, once the loop is asleep."""

    def run() -> None:
        while not loop.asleep:
            time.sleep(0)
        function()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_posts_are_run_in_the_next_turn_in_their_order(loop: EventLoop) -> None:
    done: list[Any] = []
    for number in range(5):
        loop.post(done.append, number)
    assert not loop.quiet()
    loop.turn(False)
    assert done == list(range(5))
    assert loop.quiet()
    assert looks(loop) == []
    assert done == list(range(5))


def test_posts_are_run_in_the_thread_of_the_loop(loop: EventLoop) -> None:
    threads: list[int] = []
    thread = later(loop, lambda: loop.post(lambda: threads.append(threading.get_ident())))
    while not threads:
        loop.turn(True)
    thread.join()
    assert threads == [threading.get_ident()]


def test_a_post_ends_the_sleep(loop: EventLoop) -> None:
    done: list[str] = []
    thread = later(loop, lambda: loop.post(done.append, "posted"))
    loop.turn(True)
    thread.join()
    assert done == ["posted"]
    assert not loop.asleep


def test_a_post_may_wake(loop: EventLoop) -> None:
    waiter = Waiter()
    thread = later(loop, lambda: loop.post(loop.ready.append, waiter))
    loop.turn(True)
    thread.join()
    assert list(loop.ready) == [waiter]
    loop.ready.clear()


def test_a_post_made_by_a_post_is_run_later_and_not_lost(loop: EventLoop) -> None:
    done: list[str] = []
    loop.post(lambda: loop.post(done.append, "inner"))
    while not done:
        loop.turn(True)
    assert done == ["inner"]


def test_a_post_that_raises_does_not_take_the_others_along(loop: EventLoop) -> None:
    done: list[Any] = []

    def fail() -> None:
        raise LookupError("from a post")

    loop.post(done.append, 1)
    loop.post(fail)
    loop.post(done.append, 2)
    with pytest.raises(LookupError, match="from a post"):
        loop.turn(False)
    loop.turn(False)
    assert done == [1, 2]


def test_wake_ends_the_sleep(loop: EventLoop) -> None:
    thread = later(loop, loop.wake)
    loop.turn(True)
    thread.join()


def test_a_wake_between_two_turns_ends_the_next_one(loop: EventLoop) -> None:
    loop.wake()
    loop.wake()
    loop.turn(True)
    assert loop.stats.turns == 1


def test_nothing_is_left_of_a_wake(loop: EventLoop) -> None:
    """The turn after it sleeps again: until its timer."""
    order: list[str] = []
    for _ in range(100):
        loop.wake()
    loop.turn(True)
    turns = loop.stats.turns
    loop.schedule(loop.clock() + 0.02, Target("done", order))
    while not order:
        loop.turn(True)
    assert loop.stats.turns - turns <= 4


def test_lost_wake_between_the_look_at_the_inbox_and_the_kernel_wait(loop_factory: Kind) -> None:
    """The very moment, without luck: the loop reads its clock there, and this clock posts, once, from another thread."""
    done: list[str] = []
    armed = [False]

    def clock() -> float:
        if armed[0]:
            armed[0] = False
            thread = threading.Thread(target=loop.post, args=(done.append, "posted"))
            thread.start()
            thread.join()
        return time.monotonic()

    loop = loop_factory(clock)
    loop.schedule(time.monotonic() + 3, Target("late", done))
    armed[0] = True
    loop.turn(True)
    assert not armed[0]
    assert done == ["posted"]
    loop.close()


def test_posts_from_three_threads_are_run_once_each_in_the_order_of_its_thread(loop: EventLoop) -> None:
    seen: list[tuple[int, int]] = []
    count = 200

    def post(thread: int) -> None:
        for number in range(count):
            loop.post(seen.append, (thread, number))
            if not number % 20:
                time.sleep(0)
        loop.wake()  # a turn that begins with the last posts would then sleep, since these make nobody ready

    threads = [threading.Thread(target=post, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    while len(seen) < 3 * count:
        loop.turn(True)
    for thread in threads:
        thread.join()
    assert looks(loop) == []
    assert len(seen) == 3 * count
    for number in range(3):
        assert [each for thread_number, each in seen if thread_number == number] == list(range(count))


def test_many_posts_cost_few_turns(loop: EventLoop) -> None:
    done: list[int] = []
    posted = threading.Event()

    def hold() -> None:  # the loop is at work until all have been posted
        posted.wait(10)

    def post() -> None:
        loop.post(hold)
        for number in range(1000):
            loop.post(done.append, number)
        posted.set()
        loop.wake()  # as above

    thread = later(loop, post)
    while len(done) < 1000:
        loop.turn(True)
    thread.join()
    assert done == list(range(1000))
    assert loop.stats.turns <= 5
