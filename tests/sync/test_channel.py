"""Channels in one thread: order, capacity, closing, interruption.

Go's own cases, also across threads, are in test_channel_go.py, `select` in test_select.py; all of it together against a
model is in test_channel_model.py, against interruptions in test_channel_races.py.
"""

import copy
import gc
import io
import math
import pickle
import re
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from support.parking import parked, until_parked

import fibers
from fibers import Channel, ChannelClosed
from fibers.channels.passage import CREDIT
from fibers.core.guard import guard
from fibers.core.scheduler import state


def outcome(call: Callable[..., Any], *args: Any) -> Any:
    """What a call returns, or the class of what it raises."""
    try:
        return call(*args)
    except (ChannelClosed, TimeoutError, fibers.FiberCancelled) as error:
        return type(error)


# -- passing values


def test_a_receiver_waits_for_a_sender() -> None:
    channel: Channel[int] = Channel()
    receiver = parked(channel.receive)
    assert not receiver.done()
    channel.send(7)
    assert receiver.result(5) == 7


def test_a_sender_waits_for_a_receiver() -> None:
    channel: Channel[int] = Channel()
    sender = parked(channel.send, 7)
    assert not sender.done()
    assert len(channel) == 0
    assert channel.receive() == 7
    sender.join(5)


def test_any_value_can_be_sent() -> None:
    channel: Channel[Any] = Channel(1)
    for value in (None, False, 0, (), ChannelClosed, channel, object()):
        channel.send(value)
        assert channel.receive() is value
        sender = parked(Channel.send, Channel(), value)
        sender.cancel()
        receiver = parked(channel.receive)
        channel.send(value)
        assert receiver.result() is value


def test_a_channel_holds_its_capacity_and_no_more() -> None:
    channel: Channel[int] = Channel(2)
    channel.send(1)
    channel.send(2)
    third = parked(channel.send, 3)
    assert (len(channel), third.done()) == (2, False)
    assert channel.receive() == 1
    until_parked(third)
    assert (len(channel), third.done()) == (2, True)
    assert [channel.receive(), channel.receive()] == [2, 3]


def test_values_arrive_in_order_and_who_waits_is_served_in_order() -> None:
    for capacity in (0, 1, 3):
        channel: Channel[int] = Channel(capacity)
        senders = [parked(channel.send, number) for number in range(10)]
        assert [channel.receive() for _ in range(10)] == list(range(10))
        receivers = [parked(channel.receive) for _ in range(10)]
        for number in range(10):
            channel.send(number)
        assert [receiver.result(5) for receiver in receivers] == list(range(10))
        for sender in senders:
            sender.join(5)


def test_an_unlimited_channel_never_makes_a_sender_wait() -> None:
    channel: Channel[int] = Channel(math.inf)
    for number in range(10_000):
        assert channel.try_send(number)
    assert len(channel) == 10_000
    channel.close()
    assert list(channel) == list(range(10_000))


@pytest.mark.parametrize("capacity", [0, 1, 2, 10])
def test_producers_and_consumers(capacity: int) -> None:
    channel: Channel[tuple[int, int]] = Channel(capacity)
    got: list[list[tuple[int, int]]] = [[] for _ in range(4)]

    def produce(who: int) -> None:
        for number in range(100):
            channel.send((who, number))

    with fibers.TaskGroup() as consumers:
        for mine in got:
            consumers.spawn(mine.extend, channel)
        with fibers.TaskGroup() as producers:
            for who in range(4):
                producers.spawn(produce, who)
        channel.close()
    assert sorted(value for mine in got for value in mine) == [
        (who, number) for who in range(4) for number in range(100)
    ]
    for mine in got:  # whoever receives, receives each producer's values in their order
        assert all(sorted(of) == of for of in ([n for w, n in mine if w == who] for who in range(4)))


def test_a_lone_fiber_uses_a_channel_as_a_queue() -> None:
    channel: Channel[str] = Channel(3)
    channel.send("a")
    channel.send("b")
    assert (channel.receive(), channel.try_receive(), channel.try_receive("none")) == ("a", "b", "none")


def test_who_is_always_served_gives_way_now_and_then() -> None:
    channel: Channel[int] = Channel(math.inf)
    channel.send(0)
    others = 0

    def other() -> None:
        nonlocal others
        while True:
            others += 1
            fibers.yield_now()

    fiber = fibers.spawn(other)
    for number in range(4 * CREDIT):
        channel.send(number)
    assert others >= 3
    for _ in range(4 * CREDIT):
        channel.receive()
    assert others >= 6
    fiber.cancel()


# -- without waiting


def test_try_send_and_try_receive() -> None:
    channel: Channel[int] = Channel(1)
    assert channel.try_receive() is None
    assert channel.try_receive(-1) == -1
    assert channel.try_send(1)
    assert not channel.try_send(2)
    assert channel.try_receive() == 1
    rendezvous: Channel[int] = Channel()
    assert not rendezvous.try_send(1)
    receiver = parked(rendezvous.receive)
    assert rendezvous.try_send(1)
    assert not rendezvous.try_send(2)
    assert receiver.result(5) == 1
    sender = parked(rendezvous.send, 3)
    assert rendezvous.try_receive() == 3
    sender.join(5)


def test_the_try_calls_do_not_let_others_run() -> None:
    channel: Channel[int] = Channel(1)
    other = fibers.spawn(int)
    for _ in range(2 * CREDIT):
        assert channel.try_send(1)
        assert channel.try_receive() == 1
    assert not other.done()
    other.join()


# -- closing


def test_what_is_in_a_closed_channel_can_be_received() -> None:
    channel: Channel[int] = Channel(3)
    channel.send(1)
    channel.send(2)
    channel.close()
    assert channel.closed
    assert [channel.receive(), channel.try_receive()] == [1, 2]
    for call in (channel.receive, channel.try_receive):
        for _ in range(2):
            with pytest.raises(ChannelClosed, match=re.escape(f"{channel!r} has no more values")):
                call()


def test_nothing_can_be_sent_on_a_closed_channel() -> None:
    channel: Channel[int] = Channel(3)
    channel.close()
    for call in (channel.send, channel.try_send):
        with pytest.raises(ChannelClosed, match=re.escape(f"{channel!r} takes no values any more")):
            call(1)
    assert len(channel) == 0


def test_closing_ends_the_waits_of_receivers() -> None:
    channel: Channel[int] = Channel()
    receivers = [parked(channel.receive) for _ in range(3)]
    channel.close()
    for receiver in receivers:
        with pytest.raises(ChannelClosed):
            receiver.result(5)


def test_closing_ends_the_waits_of_senders_and_takes_nothing_from_them() -> None:
    channel: Channel[int] = Channel(1)
    channel.send(1)
    senders = [parked(channel.send, number) for number in (2, 3)]
    channel.close()
    for sender in senders:
        with pytest.raises(ChannelClosed):
            sender.result(5)
    assert list(channel) == [1]


def test_while_it_is_being_closed_nobody_is_served() -> None:
    """Another thread may come by between the moment at which it is closed and the end of those who wait."""
    channel: Channel[int] = Channel(1)
    channel.send(1)
    sender = parked(channel.send, 2)
    channel._closed = True
    assert channel.receive() == 1
    for call in (channel.receive, channel.try_receive):
        with pytest.raises(ChannelClosed):
            call()
    assert fibers.select(channel.receiving())[1] is ChannelClosed
    channel.close()
    with pytest.raises(ChannelClosed):
        sender.result(5)
    channel = Channel()
    receiver = parked(channel.receive)
    channel._closed = True
    for send in (channel.send, channel.try_send):
        with pytest.raises(ChannelClosed):
            send(1)
    assert fibers.select(channel.sending(1))[1] is ChannelClosed
    channel.close()
    with pytest.raises(ChannelClosed):
        receiver.result(5)


def test_closing_twice_is_nothing() -> None:
    channel: Channel[int] = Channel(1)
    channel.send(1)
    channel.close()
    channel.close()
    assert list(channel) == [1]


def test_a_loop_over_a_channel_ends_when_it_is_closed() -> None:
    channel: Channel[int] = Channel()
    loops = [parked(list, channel) for _ in range(2)]
    for number in range(6):
        channel.send(number)
    channel.close()
    assert sorted(loops[0].result(5) + loops[1].result(5)) == list(range(6))
    assert list(channel) == []


def test_an_error_in_the_body_of_a_loop_is_not_taken_for_its_end() -> None:
    channel: Channel[int] = Channel(2)
    channel.send(1)

    def loop() -> None:
        for _ in channel:
            raise ChannelClosed("mine")

    with pytest.raises(ChannelClosed, match="mine"):
        loop()


# -- timeouts


@pytest.mark.parametrize("timeout", [0, 0.0005, 0.01])
def test_timeouts(timeout: float) -> None:
    channel: Channel[int] = Channel(1)
    before = fibers.current_time()
    with pytest.raises(TimeoutError, match=rf"no value came from .* within {timeout} seconds"):
        channel.receive(timeout=timeout)
    assert fibers.current_time() - before >= timeout
    channel.send(1, timeout=timeout)
    before = fibers.current_time()
    with pytest.raises(TimeoutError, match=rf"nobody took a value from .* within {timeout} seconds"):
        channel.send(2, timeout=timeout)
    assert fibers.current_time() - before >= timeout
    assert channel.receive(timeout=timeout) == 1
    assert len(channel) == 0


def test_a_wait_that_timed_out_leaves_nothing_behind() -> None:
    channel: Channel[int] = Channel()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            channel.receive(0.0001)
        with pytest.raises(TimeoutError):
            channel.send(0, 0.0001)
    assert not channel.try_send(1)
    assert channel.try_receive() is None
    assert not channel._receiving
    assert not channel._sending


def busy_until(seconds: float) -> None:
    end = fibers.current_time() + seconds
    while fibers.current_time() < end:
        pass


def test_a_value_beats_the_timeout() -> None:
    channel: Channel[int] = Channel(1)
    receiver = parked(channel.receive, 0.001)
    busy_until(0.005)
    channel.send(4)  # the time is up, and nobody has looked
    assert receiver.result(5) == 4

    def late() -> None:
        fibers.sleep(0.0005)
        channel.send(5)

    sender = parked(late)
    receiver = parked(channel.receive, 0.001)
    busy_until(0.005)  # in one turn of the loop both times are up; the sender runs first
    assert receiver.result(5) == 5
    channel.send(6)

    def taker() -> None:
        fibers.sleep(0.0005)
        channel.receive()

    parked(taker)
    sender = parked(channel.send, 7, 0.001)
    busy_until(0.005)
    sender.result(5)


def test_infinity_is_no_timeout() -> None:
    channel: Channel[int] = Channel()
    receiver = parked(channel.receive, math.inf)
    channel.send(1, math.inf)
    assert receiver.result(5) == 1


# -- interruption


@pytest.mark.parametrize("end", ["cancel", "kill"])
def test_an_interrupted_wait_passes_nothing(end: str) -> None:
    channel: Channel[int] = Channel()
    for call in (channel.receive, lambda: channel.send(1)):
        fiber = parked(call)
        getattr(fiber, end)()
        with pytest.raises(fibers.FiberCancelled):
            fiber.result(5)
        assert channel.try_receive() is None
        assert not channel.try_send(2)


@pytest.mark.parametrize("end", ["cancel", "kill"])
def test_who_was_served_and_is_then_interrupted_ends_its_call_well(end: str) -> None:
    channel: Channel[int] = Channel()
    receiver = parked(channel.receive)
    channel.send(1)
    getattr(receiver, end)()
    assert receiver.result(5) == 1
    sender = parked(channel.send, 2)
    assert channel.receive() == 2
    getattr(sender, end)()
    sender.result(5)


def test_who_was_interrupted_is_served_nothing() -> None:
    channel: Channel[int] = Channel()
    first, second = parked(channel.receive), parked(channel.receive)
    first.cancel()
    channel.send(1)
    assert second.result(5) == 1
    assert first.cancelled()
    first, second = parked(channel.send, 2), parked(channel.send, 3)
    first.cancel()
    assert channel.receive() == 3
    second.join(5)


def test_an_operation_that_need_not_wait_is_not_interrupted() -> None:
    channel: Channel[int] = Channel(1)

    def work() -> int:
        fibers.current().cancel()
        channel.send(1)
        value = channel.receive()
        with pytest.raises(fibers.Cancelled):
            channel.receive()
        with pytest.raises(fibers.Cancelled):  # and again: cancellation is a level
            channel.receive()
        return value

    assert fibers.spawn(work).result(5) == 1


def test_a_scope_around_a_wait() -> None:
    channel: Channel[int] = Channel()
    with fibers.move_on_after(0.001) as scope:
        channel.receive()
    assert scope.cancelled_caught
    with pytest.raises(TimeoutError, match=r"not done within 0\.001 seconds"), fibers.timeout(0.001):
        channel.send(1)


def test_the_deadline_of_a_scope_surfaces_as_the_timeout_that_the_call_was_given() -> None:
    channel: Channel[int] = Channel()
    for call in (lambda: channel.receive(60), lambda: channel.send(1, 60)):
        with fibers.move_on_after(0.001):
            with pytest.raises(TimeoutError, match="timed out"):
                call()
            with pytest.raises(fibers.Cancelled):
                call()


def test_woken_for_nothing() -> None:
    """After a raising signal handler fibers may be woken that nobody has served: they wait on, at the end of the line."""
    channel: Channel[int] = Channel()
    receiver, sender = parked(channel.receive), None
    assert receiver.waiting is not None
    assert receiver.waiting.abandon(receiver)
    receiver.scheduler.wake(receiver)
    fibers.yield_now()
    until_parked(receiver)
    assert not receiver.done()
    channel.send(1)
    assert receiver.result(5) == 1
    sender = parked(channel.send, 2)
    assert sender.waiting is not None
    assert sender.waiting.abandon(sender)
    sender.scheduler.wake(sender)
    fibers.yield_now()
    until_parked(sender)
    assert channel.receive() == 2
    sender.result(5)


# -- where nothing may wait


def test_in_a_done_callback() -> None:
    channel: Channel[int] = Channel(1)
    seen: list[Any] = []

    def callback(fiber: fibers.Fiber[Any]) -> None:
        seen.append(channel.try_send(1))
        seen.append(channel.try_receive())
        with pytest.raises(RuntimeError, match="would block inside the runtime"):
            channel.receive()
        with pytest.raises(RuntimeError, match="would block inside the runtime"):
            channel.send(1)
        with pytest.raises(RuntimeError, match="would block inside the runtime"):
            fibers.select(channel.receiving())
        channel.close()
        seen.append("closed")

    fiber = fibers.spawn(int)
    fiber.add_done_callback(callback)
    fiber.join()
    assert seen == [True, 1, "closed"]


def test_close_inside_an_operation_of_its_own_thread_is_done_later() -> None:
    """As by a finaliser that strikes in there."""
    channel: Channel[int] = Channel()
    other: Channel[int] = Channel(1)
    receiver = parked(channel.receive)
    with guard:
        channel.close()
        with pytest.raises(RuntimeError, match="in the middle of using one"):
            other.try_send(1)
        with pytest.raises(RuntimeError, match="in the middle of using one"):
            other.send(1)
        with pytest.raises(RuntimeError, match="in the middle of using one"):
            fibers.select(other.sending(1))
    assert fibers.current() is not None
    assert other.try_send(1)
    with pytest.raises(ChannelClosed):
        receiver.result(5)


def test_a_plain_thread_that_only_tries_gets_no_event_loop() -> None:
    channel: Channel[int] = Channel(1)
    seen: list[Any] = []

    def work() -> None:
        seen.append(channel.try_send(1))
        seen.append(channel.try_receive())
        channel.close()
        seen.append(state.scheduler)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)
    assert seen == [True, 1, None]
    assert channel.closed


# -- what it is


def test_what_it_tells_of_itself() -> None:
    channel: Channel[int] = Channel(3)
    assert (len(channel), channel.capacity, channel.closed, bool(channel)) == (0, 3, False, True)
    channel.send(1)
    assert len(channel) == 1
    assert re.fullmatch(r"<Channel 1 of 3 at 0x[0-9a-f]+>", repr(channel))
    channel.close()
    assert re.fullmatch(r"<Channel closed, 1 of 3 at 0x[0-9a-f]+>", repr(channel))
    assert repr(Channel(math.inf)).startswith("<Channel 0 of inf at")
    assert Channel().capacity == 0


def picture() -> str:
    text = io.StringIO()
    fibers.dump(text)
    return text.getvalue()


def test_what_is_waited_for_is_seen_in_a_dump() -> None:
    channel: Channel[int] = Channel()
    receiver = parked(channel.receive)
    assert f"for a value from {channel!r}\n" in picture()
    channel.send(1)
    sender = parked(channel.send, 1)
    assert f"for a taker for its value in {channel!r}\n" in picture()
    sender.cancel()
    receiver.join()


@pytest.mark.parametrize(
    ("capacity", "error"),
    [
        (-1, ValueError),
        (-math.inf, TypeError),
        (1.5, TypeError),
        (math.nan, TypeError),
        ("1", TypeError),
        (True, TypeError),
    ],
)
def test_what_is_no_capacity_is_refused(capacity: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=rf"capacity must be .* not {re.escape(repr(capacity))}"):
        Channel(capacity)
    with pytest.raises(TypeError, match="None"):
        Channel(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("timeout", [-1, math.nan, "1"])
def test_what_is_no_timeout_is_refused_and_passes_nothing(timeout: Any) -> None:
    channel: Channel[int] = Channel(1)
    with pytest.raises((TypeError, ValueError), match="timeout must be"):
        channel.send(1, timeout)
    assert len(channel) == 0
    channel.send(1)
    with pytest.raises((TypeError, ValueError), match="timeout must be"):
        channel.receive(timeout)
    assert len(channel) == 1


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_channel_cannot_be_copied(duplicate: Callable[[Any], object]) -> None:
    with pytest.raises(TypeError, match="cannot pickle or copy a Channel"):
        duplicate(Channel())


def test_a_channel_needs_no_garbage_collector() -> None:
    gc.disable()
    try:
        channel: Channel[int] = Channel(1)
        receiver = parked(channel.receive)
        channel.send(1)
        receiver.join()
        gone = weakref.ref(channel)
        del channel, receiver
        assert gone() is None
    finally:
        gc.enable()


def test_a_received_value_is_not_kept() -> None:
    class Value:
        pass

    channel: Channel[Value] = Channel()

    def work() -> None:
        for _ in range(2):
            channel.receive()

    receiver = parked(work)
    value = Value()
    gone = weakref.ref(value)
    channel.send(value)
    del value
    until_parked(receiver)
    assert gone() is None
    receiver.cancel()
    receiver.join()
    sender = parked(outcome, channel.send, Value())
    sender.cancel()
    sender.join()
    del sender
    gc.collect()
    assert not [each for each in gc.get_objects() if isinstance(each, Value)]


def test_serving_is_as_fast_with_many_who_wait() -> None:
    """The lines do not get slower as they get longer: told by work, not by time. (A plain dict would.)"""
    channel: Channel[int] = Channel()
    waiting = [fibers.spawn(channel.receive) for _ in range(5000)]
    fibers.yield_now()
    assert type(channel._receiving).__name__ == "OrderedDict"
    for number in range(5000):
        channel.send(number)
    assert [each.result() for each in waiting] == list(range(5000))
