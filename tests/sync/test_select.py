"""`select` over channels, fibers, events and the clock, in one thread. (Files: test_select_files.py.)"""

import io
import math
import re
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from support.parking import parked, until_parked
from support.scale import scaled

import fibers
from fibers import Channel, ChannelClosed, Event, after, default, select
from fibers.channels.selecting import CREDIT, dice
from fibers.core.choosing import Case
from fibers.core.scheduler import get_scheduler

# -- channels


def test_a_value_that_is_there_is_received() -> None:
    channel: Channel[int] = Channel(1)
    channel.send(1)
    case = channel.receiving()
    assert select(case) == (case, 1)
    assert len(channel) == 0


def test_there_is_room_and_a_value_is_sent() -> None:
    channel: Channel[int] = Channel(1)
    case = channel.sending(1)
    assert select(case) == (case, None)
    assert channel.receive() == 1


def test_a_partner_waits_already() -> None:
    channel: Channel[int] = Channel()
    receiver = parked(channel.receive)
    sending = channel.sending(1)
    assert select(sending) == (sending, None)
    assert receiver.result(5) == 1
    sender = parked(channel.send, 2)
    receiving = channel.receiving()
    assert select(receiving) == (receiving, 2)
    sender.join(5)


def test_a_partner_comes_later() -> None:
    left: Channel[int] = Channel()
    right: Channel[int] = Channel()
    cases = left.receiving(), right.sending(7)
    choice = parked(select, *cases)
    left.send(1)
    assert choice.result(5) == (cases[0], 1)
    assert not right.try_send(0)
    assert right.try_receive() is None
    choice = parked(select, *cases)
    assert right.receive() == 7
    assert choice.result(5) == (cases[1], None)
    assert not left.try_send(0)


def test_two_selects_meet() -> None:
    channel: Channel[int] = Channel()
    receiving, sending = channel.receiving(), channel.sending(3)
    for first, second in ((receiving, sending), (sending, receiving)):
        waits = parked(select, first)
        came = select(second)
        assert {waits.result(5), came} == {(receiving, 3), (sending, None)}


def test_send_and_receive_of_one_channel_do_not_meet_in_one_select() -> None:
    channel: Channel[int] = Channel()
    cases = channel.sending(1), channel.receiving()
    alone = parked(select, *cases)
    assert not alone.done()
    other = select(*cases)
    assert {alone.result(5), other} == {(cases[0], None), (cases[1], 1)}


def test_one_case_twice_and_two_cases_of_one_channel() -> None:
    channel: Channel[int] = Channel()
    case, again = channel.receiving(), channel.receiving()
    choice = parked(select, case, case, again)
    channel.send(1)
    assert choice.result(5)[1] == 1
    assert not channel.try_send(2)
    assert not channel._receiving


def test_cases_serve_any_number_of_selects_at_once() -> None:
    channel: Channel[int] = Channel()
    case = channel.receiving()
    choices = [parked(select, case) for _ in range(5)]
    for number in range(5):
        channel.send(number)
    assert [choice.result(5) for choice in choices] == [(case, number) for number in range(5)]


def test_selects_and_plain_calls_wait_in_one_line() -> None:
    channel: Channel[int] = Channel()
    case = channel.receiving()
    waiting = [parked(channel.receive), parked(select, case), parked(channel.receive), parked(select, case)]
    for number in range(4):
        channel.send(number)
    assert [each.result(5) for each in waiting] == [0, (case, 1), 2, (case, 3)]


def test_a_full_channel_is_refilled_by_a_select_that_waits_to_send() -> None:
    channel: Channel[int] = Channel(1)
    channel.send(1)
    case = channel.sending(2)
    choice = parked(select, case)
    assert not choice.done()
    assert channel.receive() == 1
    assert choice.result(5) == (case, None)
    assert channel.receive() == 2


def test_exactly_one_case_happens() -> None:
    channels: list[Channel[int]] = [Channel(1) for _ in range(4)]
    for channel in channels:
        channel.send(0)
    select(*(channel.receiving() for channel in channels))
    assert sum(map(len, channels)) == 3
    empty: list[Channel[int]] = [Channel(1) for _ in range(4)]
    select(*(channel.sending(1) for channel in empty))
    assert sum(map(len, empty)) == 1


# -- closed channels


def test_a_closed_channel_can_always_happen() -> None:
    channel: Channel[int] = Channel(2)
    channel.send(1)
    channel.close()
    receiving, sending = channel.receiving(), channel.sending(2)
    assert select(receiving) == (receiving, 1)
    for _ in range(2):
        assert select(receiving) == (receiving, ChannelClosed)
        assert select(sending) == (sending, ChannelClosed)
        assert select(receiving, default()) == (receiving, ChannelClosed)
    assert len(channel) == 0


def test_closing_ends_selects_that_wait() -> None:
    for capacity in (0, 1):
        left: Channel[int] = Channel(capacity)
        right: Channel[int] = Channel(capacity)
        right.try_send(1)
        receiving, sending = left.receiving(), right.sending(2)
        choices = [parked(select, receiving), parked(select, sending)]
        left.close()
        right.close()
        assert choices[0].result(5) == (receiving, ChannelClosed)
        assert choices[1].result(5) == (sending, ChannelClosed)
        assert list(right) == [1] * capacity
    both: Channel[int] = Channel()
    choice = parked(select, both.sending(2), both.receiving())
    both.close()
    assert choice.result(5)[1] is ChannelClosed


def test_closing_one_of_several() -> None:
    left: Channel[int] = Channel()
    right: Channel[int] = Channel()
    cases = left.receiving(), right.receiving()
    choice = parked(select, *cases)
    right.close()
    assert choice.result(5) == (cases[1], ChannelClosed)
    assert not left._receiving


# -- fairness


def shares(draw: Callable[[], object], rounds: int) -> Counter[object]:
    return Counter(draw() for _ in range(rounds))


@pytest.mark.parametrize("count", [2, 3, 10])
def test_the_choice_among_what_could_happen_is_fair(count: int) -> None:
    dice.seed(1)
    ready: list[Channel[int]] = [Channel(1) for _ in range(count)]
    idle: list[Channel[int]] = [Channel() for _ in range(3)]
    cases: list[Case] = [idle[0].receiving(), idle[1].sending(0)]
    cases[1:1] = [channel.sending(0) for channel in ready[::2]]
    for channel in ready[1::2]:
        channel.close()
    cases += [channel.receiving() for channel in ready[1::2]]

    def draw() -> object:
        case, _ = select(*cases)
        for channel in ready:
            channel.closed or channel.try_receive()
        return case

    seen = shares(draw, 200 * count)
    assert len(seen) == count
    assert all(120 < times < 280 for times in seen.values()), seen  # 200 expected, 14 the deviation


def test_the_choice_is_fair_between_all_kinds_of_cases() -> None:
    dice.seed(2)
    channel: Channel[int] = Channel(math.inf)
    done = fibers.spawn(int)
    done.join()
    event = Event()
    event.set()
    cases = channel.sending(1), done.finishing(), event.setting(), after(0)
    seen = shares(lambda: select(*cases)[0], 800)
    assert len(seen) == 4
    assert all(120 < times < 280 for times in seen.values()), seen


def test_the_dice_are_its_own() -> None:
    import random

    random.seed(5)
    state = random.getstate()
    test_exactly_one_case_happens()
    assert random.getstate() == state


def test_who_is_always_served_gives_way_now_and_then() -> None:
    channel: Channel[int] = Channel(1)
    channel.close()
    other = fibers.spawn(int)
    for _ in range(CREDIT):
        select(channel.receiving())
    assert other.done()


# -- not waiting


def test_default() -> None:
    channel: Channel[int] = Channel()
    assert select(channel.receiving(), default()) == (default(), None)
    assert select(default(), channel.sending(1)) == (default(), None)
    assert select(default()) == (default(), None)
    assert select(default(), None) == (default(), None)
    assert not channel._receiving
    assert not channel._sending
    sender = parked(channel.send, 1)
    case = channel.receiving()
    assert select(case, default()) == (case, 1)
    sender.join()


def test_default_lets_nobody_run() -> None:
    other = fibers.spawn(int)
    channel: Channel[int] = Channel(1)
    for _ in range(2 * CREDIT):
        select(channel.sending(1), default())
        select(channel.receiving(), default())
        select(channel.receiving(), default())
    assert not other.done()
    other.join()


def test_default_in_a_cancelled_fiber() -> None:
    def work() -> object:
        fibers.current().cancel()
        return select(Channel().receiving(), default())[0]

    assert fibers.spawn(work).result(5) is default()


# -- time


def test_after() -> None:
    channel: Channel[int] = Channel()
    soon = after(0.001)
    for _ in range(2):  # it counts from the start of each select
        before = fibers.current_time()
        assert select(channel.receiving(), after(60), soon) == (soon, None)
        assert fibers.current_time() - before >= 0.001
    assert not channel._receiving
    now = after(0)
    assert select(channel.receiving(), now) == (now, None)


def test_a_value_comes_before_the_time() -> None:
    channel: Channel[int] = Channel()
    case = channel.receiving()
    choice = parked(select, case, after(60))
    channel.send(1)
    assert choice.result(5) == (case, 1)
    assert get_scheduler().loop.quiet()


def test_timeout() -> None:
    channel: Channel[int] = Channel()
    for timeout in (0, 0.001):
        before = fibers.current_time()
        with pytest.raises(TimeoutError, match=f"nothing that was selected happened within {timeout} seconds"):
            select(channel.receiving(), channel.sending(1), timeout=timeout)
        assert fibers.current_time() - before >= timeout
    assert not channel._receiving
    assert not channel._sending
    case = channel.sending(1)
    receiver = parked(channel.receive)
    assert select(case, timeout=0) == (case, None)
    receiver.join()


def test_timeout_and_after() -> None:
    early = after(0.001)
    assert select(early, timeout=60) == (early, None)
    with pytest.raises(TimeoutError):
        select(after(60), after(math.inf), timeout=0.001)
    same = after(0.001)
    assert select(same, timeout=0.001) == (same, None)  # what can happen beats the timeout


def test_a_value_beats_the_timeout() -> None:
    channel: Channel[int] = Channel(1)
    case = channel.receiving()

    def late() -> None:
        fibers.sleep(0.0005)
        channel.send(5)

    parked(late)
    choice = parked(select, case, timeout=0.001)
    end = fibers.current_time() + 0.005
    while fibers.current_time() < end:  # in one turn of the loop both times are up; the sender runs first
        pass
    assert choice.result(5) == (case, 5)


@pytest.mark.parametrize("seconds", [-1, math.nan, "1", None])
def test_what_is_no_duration_is_refused(seconds: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="seconds"):
        after(seconds)
    if seconds is not None:
        with pytest.raises((TypeError, ValueError), match="timeout"):
            select(after(1), timeout=seconds)


# -- fibers and events


def test_finishing() -> None:
    channel: Channel[int] = Channel()
    fiber = parked(channel.receive)
    case = fiber.finishing()
    choice = parked(select, case, after(60))
    assert not choice.done()
    channel.send(3)
    assert choice.result(5) == (case, fiber)
    assert select(case, default()) == (case, fiber)
    assert fiber.result() == 3


def test_finishing_however_it_ends() -> None:
    def fail() -> None:
        raise ValueError("lost")

    failed = fibers.spawn(fail)
    assert select(failed.finishing())[1] is failed
    assert isinstance(failed.exception(), ValueError)
    cancelled = parked(fibers.sleep, 60)
    choice = parked(select, cancelled.finishing())
    cancelled.cancel()
    assert choice.result(5)[1] is cancelled
    unstarted = fibers.spawn(int)
    unstarted.cancel()
    assert select(unstarted.finishing())[1] is unstarted


def test_the_first_of_several_fibers() -> None:
    slow, quick = fibers.spawn(fibers.sleep, 60), fibers.spawn(fibers.sleep, 0.001)
    assert select(slow.finishing(), quick.finishing())[1] is quick
    slow.cancel()
    slow.join()


def test_setting() -> None:
    event = Event()
    case = event.setting()
    assert select(case, default()) == (default(), None)
    choices = [parked(select, case, after(60)) for _ in range(3)]
    assert len(event._waiting) == 3
    event.set()
    assert [choice.result(5) for choice in choices] == [(case, None)] * 3
    assert select(case) == (case, None)
    assert len(event._waiting) == 0


def test_an_event_that_is_set_for_a_moment_is_not_missed() -> None:
    event = Event()
    case = event.setting()
    choice = parked(select, case)
    event.set()
    event.clear()
    assert choice.result(5) == (case, None)


def test_an_event_that_another_thread_sets() -> None:
    event = Event()
    case = event.setting()
    for _ in range(scaled(2000, least=100)):
        choices = [parked(select, case, Channel[int]().receiving()) for _ in range(3)]
        thread = threading.Thread(target=event.set)
        thread.start()
        assert [choice.result(5) for choice in choices] == [(case, None)] * 3
        thread.join()
        event.clear()


def test_other_cases_win_and_leave_no_offer() -> None:
    event, fiber, channel = Event(), parked(fibers.sleep, 60), Channel[int]()
    choice = parked(select, event.setting(), fiber.finishing(), channel.sending(1), after(60))
    assert channel.receive() == 1
    choice.join(5)
    assert len(event._waiting) == 0
    assert len(fiber._ended) == 0
    event.set()
    fiber.cancel()
    fiber.join()


# -- interruption


@pytest.mark.parametrize("end", ["cancel", "kill"])
def test_an_interrupted_select_has_passed_nothing(end: str) -> None:
    event, channel = Event(), Channel[int]()
    choice = parked(select, channel.receiving(), channel.sending(1), event.setting(), after(60), timeout=60)
    getattr(choice, end)()
    assert not channel.try_send(2)  # also before the fiber has withdrawn
    assert channel.try_receive() is None
    with pytest.raises(fibers.FiberCancelled):
        choice.result(5)
    assert not channel._receiving
    assert not channel._sending
    assert len(event._waiting) == 0


@pytest.mark.parametrize("end", ["cancel", "kill"])
def test_who_was_served_and_is_then_interrupted_ends_its_call_well(end: str) -> None:
    channel: Channel[int] = Channel()
    case = channel.receiving()
    choice = parked(select, case, after(60))
    channel.send(1)
    getattr(choice, end)()
    assert choice.result(5) == (case, 1)


def test_the_deadline_of_a_scope_surfaces_as_the_timeout_that_was_given() -> None:
    channel: Channel[int] = Channel()
    with fibers.move_on_after(0.001):
        with pytest.raises(TimeoutError, match="timed out"):
            select(channel.receiving(), timeout=60)
        with pytest.raises(fibers.Cancelled):
            select(channel.receiving(), timeout=60)
    with fibers.move_on_after(0.001) as scope:
        select(channel.receiving())
    assert scope.cancelled_caught
    assert not channel._receiving


def test_woken_for_nothing() -> None:
    channel: Channel[int] = Channel()
    case = channel.receiving()
    choice = parked(select, case, after(60))
    assert choice.waiting is not None
    assert choice.waiting.abandon(choice)
    choice.scheduler.wake(choice)
    fibers.yield_now()
    until_parked(choice)
    channel.send(1)
    assert choice.result(5) == (case, 1)


# -- what is no case


def test_no_cases() -> None:
    with pytest.raises(ValueError, match="at least one case"):
        select()
    with pytest.raises(ValueError, match="at least one case"):
        select(timeout=1)


@pytest.mark.parametrize("what", [Channel(), 1, "x", fibers.current, [default()], after])
def test_what_is_no_case_is_refused_by_name_and_nothing_happens(what: Any) -> None:
    channel: Channel[int] = Channel(1)
    with pytest.raises(TypeError, match=rf"select\(\) takes cases, .* not {re.escape(repr(what))}"):
        select(channel.sending(1), what)
    assert len(channel) == 0


def test_none_never_happens() -> None:
    channel: Channel[int] = Channel(1)
    case = channel.sending(1)
    assert select(None, case, None) == (case, None)
    with pytest.raises(TimeoutError):
        select(None, None, timeout=0.001)
    forever = parked(select, None)
    assert not forever.done()
    forever.cancel()
    forever.join(5)


def test_a_case_must_say_what_it_does() -> None:
    with pytest.raises(NotImplementedError, match="Case does not say when it holds"):
        select(Case())


def test_reports_tell_what_is_selected() -> None:
    channel: Channel[int] = Channel()
    event = Event()
    fiber = parked(fibers.sleep, 60, name="sleeper")
    choice = parked(
        select, channel.receiving(), None, channel.sending(1), event.setting(), fiber.finishing(), after(60)
    )
    text = io.StringIO()
    fibers.dump(text)
    told = (
        f"one of: a value from {channel!r}, a taker for its value in {channel!r}, {event!r}, the end of fiber 'sleeper'"
    )
    assert f"{told}, 60 seconds to pass\n" in text.getvalue()
    assert repr(default()) == "nothing"
    choice.cancel()
    fiber.cancel()
    choice.join()
    fiber.join()


def test_the_parts_of_a_case_can_be_read() -> None:
    channel, event, fiber = Channel[int](), Event(), fibers.current()
    assert channel.receiving().channel is channel
    assert (channel.sending(3).channel, channel.sending(3).value) == (channel, 3)
    assert event.setting().event is event
    assert fiber.finishing().fiber is fiber
    assert after(3).seconds == 3


# -- at random


def test_tokens_are_passed_around_at_random_and_none_is_lost() -> None:
    """Fibers that do nothing but select between taking a token from anywhere and putting one anywhere."""
    dice.seed(3)
    channels: list[Channel[int]] = [Channel(capacity) for capacity in (0, 0, 1, 3)]
    moves = scaled(40_000, least=1000)
    held: list[list[int]] = [[number] for number in range(6)] + [[] for _ in range(6)]
    left = moves

    def work(mine: list[int]) -> None:
        nonlocal left
        while left > 0:
            cases: list[Case] = [channel.receiving() for channel in channels]
            if mine:
                cases += [channel.sending(mine[-1]) for channel in channels]
            try:
                _, value = select(*cases, timeout=0.01)
            except TimeoutError:
                continue
            left -= 1
            if value is None:
                mine.pop()
            else:
                mine.append(value)

    with fibers.TaskGroup() as group:
        for mine in held:
            group.spawn(work, mine)
    tokens = [token for mine in held for token in mine]
    for channel in channels:
        assert not channel._receiving
        assert not channel._sending
        channel.close()
        tokens += channel
    assert sorted(tokens) == list(range(6))
