"""The programs by which Go tests its channels: test/chan/*.go and runtime/chan_test.go of that language, retold.

Each runs three times: its goroutines are fibers of one thread, threads, or fibers spread over threads. What those programs
check of Go's types and expressions has no counterpart here. A nil channel is None in place of a case.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.goroutines import STYLES, Go
from support.parking import parked
from support.scale import scaled

import fibers
from fibers import Channel, ChannelClosed, after, default, select


@pytest.fixture(params=STYLES)
def go(request: pytest.FixtureRequest) -> Iterator[Go]:
    with Go(request.param) as running:
        yield running


def few(go: Go, many: int, threads: int) -> int:
    """A number of goroutines: fewer where each is a thread."""
    return threads if go.style == "threads" else many


# -- test/chan/sieve1.go


def test_sieve(go: Go) -> None:
    def generate(out: Channel[int]) -> None:
        number = 2
        while select(out.sending(number), stop.receiving())[1] is not ChannelClosed:
            number += 1

    def keep_others(inward: Channel[int], out: Channel[int], prime: int) -> None:
        while (number := select(inward.receiving(), stop.receiving())[1]) is not ChannelClosed:
            if number % prime and select(out.sending(number), stop.receiving())[1] is ChannelClosed:
                return

    stop: Channel[None] = Channel()
    primes: list[int] = []
    channel: Channel[int] = Channel()
    go(generate, channel)
    for _ in range(few(go, 40, 15)):
        primes.append(channel.receive(30))
        after: Channel[int] = Channel()
        go(keep_others, channel, after, primes[-1])
        channel = after
    stop.close()
    assert primes == [n for n in range(2, primes[-1] + 1) if all(n % d for d in range(2, n))]


# -- test/chan/powser1.go: power series as channels of coefficients, which are split, added and multiplied


def test_power_series(go: Go) -> None:
    stop: Channel[None] = Channel()

    def put(out: Channel[int], value: int) -> bool:
        return select(out.sending(value), stop.receiving())[1] is None

    def ones(out: Channel[int]) -> None:
        while put(out, 1):
            pass

    def split(series: Channel[int], left: Channel[int], right: Channel[int]) -> None:
        """Both get all; neither waits for the other, but that each value is fetched when the first wants it."""
        queues: tuple[list[int], list[int]] = ([], [])
        while True:
            cases = (
                left.sending(queues[0][0]) if queues[0] else None,
                right.sending(queues[1][0]) if queues[1] else None,
                series.receiving() if min(map(len, queues)) == 0 else None,
                stop.receiving(),
            )
            case, value = select(*cases)
            if value is ChannelClosed:
                return
            if case is cases[2]:
                queues[0].append(value)
                queues[1].append(value)
            else:
                queues[0 if case is cases[0] else 1].pop(0)

    def product(f: Channel[int], g: Channel[int], out: Channel[int]) -> None:
        left: list[int] = []
        right: list[int] = []
        while True:
            for series, known in ((f, left), (g, right)):
                value = select(series.receiving(), stop.receiving())[1]
                if value is ChannelClosed:
                    return
                known.append(value)
            if not put(out, sum(a * b for a, b in zip(left, reversed(right), strict=True))):
                return

    def squared(series: Channel[int]) -> Channel[int]:
        left, right, out = Channel[int](), Channel[int](), Channel[int]()
        go(split, series, left, right)
        go(product, left, right, out)
        return out

    series = Channel[int]()
    go(ones, series)
    fourth_power = squared(squared(series))  # 1 / (1 - x)^4
    coefficients = [fourth_power.receive(30) for _ in range(20)]
    stop.close()
    assert coefficients == [math.comb(n + 3, 3) for n in range(20)]


# -- test/chan/fifo.go


def test_a_buffered_channel_keeps_the_order(go: Go) -> None:
    channel: Channel[int] = Channel(10)
    for number in range(10):
        channel.send(number)
    assert [channel.receive() for _ in range(10)] == list(range(10))

    def send() -> None:
        for number in range(1000):
            channel.send(number)

    go(send)
    assert [channel.receive(30) for _ in range(1000)] == list(range(1000))


def test_a_chain_lets_one_through_after_the_other(go: Go) -> None:
    """Each waits for the one before, sends its number, and lets the next go."""
    channel: Channel[int] = Channel()
    before: Channel[None] = Channel()
    count = few(go, 300, 30)

    def link(number: int, inward: Channel[None], out: Channel[None]) -> None:
        inward.receive()
        channel.send(number)
        out.send(None)

    first = before
    for number in range(count):
        following: Channel[None] = Channel()
        go(link, number, before, following)
        before = following
    first.send(None)
    assert [channel.receive(30) for _ in range(count)] == list(range(count))
    before.receive()


# -- test/chan/goroutines.go


def test_a_long_chain_of_goroutines(go: Go) -> None:
    count = few(go, scaled(10_000, least=1000), 100)
    rightmost: Channel[int] = Channel()
    left = right = rightmost

    def add(left: Channel[int], right: Channel[int]) -> None:
        left.send(1 + right.receive())

    for _ in range(count):
        right = Channel()
        go(add, left, right)
        left = right
    go(right.send, 0)
    assert rightmost.receive(60) == count


# -- test/chan/doubleselect.go: selects against selects must not deliver a value twice


@pytest.mark.parametrize("capacity", [0, 1])
def test_double_select(go: Go, capacity: int) -> None:
    count = scaled(20_000, least=500)
    channels: list[Channel[int]] = [Channel(capacity) for _ in range(4)]

    def sender() -> None:
        for number in range(count):
            select(*(channel.sending(number) for channel in channels))
        for channel in channels:
            channel.close()

    got: list[list[int]] = [[], []]

    def receiver(mine: list[int]) -> None:
        open_ones = list(channels)
        while open_ones:
            case, value = select(*(channel.receiving() for channel in open_ones))
            if value is ChannelClosed:
                open_ones.remove(case.channel)
            else:
                mine.append(value)

    go(sender)
    for mine in got:
        go(receiver, mine)
    go.wait()
    assert sorted(got[0] + got[1]) == list(range(count))
    if not capacity:  # a rendezvous keeps the order also over several channels
        assert all(sorted(mine) == mine for mine in got)


# -- test/chan/nonblock.go


@pytest.mark.parametrize("capacity", [0, 1])
def test_non_blocking_selects(go: Go, capacity: int) -> None:
    channel: Channel[int] = Channel(capacity)
    sync: Channel[None] = Channel()
    receiving = channel.receiving()
    assert select(receiving, default()) == (default(), None)

    def receiver() -> None:
        sync.receive()
        assert channel.receive(30) == 8
        sync.send(None)
        channel.send(9)

    if capacity:
        assert select(channel.sending(7), default())[0] is not default()
        assert select(channel.sending(7), default())[0] is default()
        assert channel.receive() == 7
    go(receiver)
    if not capacity:
        assert select(channel.sending(8), default())[0] is default()
    sync.send(None)
    while select(channel.sending(8), default())[0] is default():  # until the receiver is there
        fibers.yield_now()
    sync.receive()
    while (got := select(receiving, default()))[0] is default():
        fibers.yield_now()
    assert got == (receiving, 9)


# -- test/chan/select.go: alternate senders by setting channels to nil


def test_select_with_channels_switched_on_and_off(go: Go) -> None:
    left: Channel[int] = Channel(1)
    right: Channel[int] = Channel(1)

    def send() -> None:
        value, a, b = 0, True, True
        while True:
            cases = left.sending(value) if a else None, right.sending(value) if b else None
            if not a and not b:
                return
            case, _ = select(*cases)
            value += 1
            if case is cases[0]:
                a = value < 20
            else:
                b = value < 20

    go(send)
    # When one is switched off for good, the other sends once more.
    got = [select(left.receiving(), right.receiving(), timeout=30)[1] for _ in range(21)]
    assert sorted(got) == list(range(21))


# -- test/chan/select2.go: what a select leaves behind while others are busy


def test_selects_that_always_take_the_other_case_leave_nothing(go: Go) -> None:
    channel: Channel[int] = Channel()
    dummy: Channel[int] = Channel()
    count = scaled(20_000, least=1000)

    def sender() -> None:
        for _ in range(count):
            channel.send(1)

    go(sender)
    for _ in range(count):
        assert select(channel.receiving(), dummy.receiving(), timeout=30)[1] == 1
    assert not dummy._receiving
    assert not dummy._sending


# -- test/chan/select3.go: which operations block


NIL = None
OPERATIONS: list[tuple[str, Callable[[], Any], bool]] = []


def blocks(fn: Callable[[], Any]) -> Callable[[], Any]:
    OPERATIONS.append((fn.__name__, fn, True))
    return fn


def goes_on(fn: Callable[[], Any]) -> Callable[[], Any]:
    OPERATIONS.append((fn.__name__, fn, False))
    return fn


def closed(capacity: int = 0) -> Channel[int]:
    channel: Channel[int] = Channel(capacity)
    channel.close()
    return channel


def full(capacity: int) -> Channel[int]:
    channel: Channel[int] = Channel(capacity)
    for number in range(capacity):
        channel.send(number)
    return channel


@blocks
def nil_case() -> Any:
    return select(NIL)


@goes_on
def nil_case_with_default() -> Any:
    return select(NIL, default())


@goes_on
def receive_from_closed() -> Any:
    return select(closed().receiving())


@goes_on
def send_to_closed() -> Any:
    return select(closed().sending(7))


@goes_on
def receive_from_closed_buffered() -> Any:
    return select(closed(10).receiving())


@goes_on
def send_to_closed_buffered() -> Any:
    return select(closed(10).sending(7))


@blocks
def receive_from_empty_unbuffered() -> Any:
    return select(Channel().receiving())


@blocks
def send_to_unbuffered_without_receiver() -> Any:
    return select(Channel[int]().sending(7))


@blocks
def receive_from_empty_buffered() -> Any:
    return select(Channel(10).receiving())


@goes_on
def send_to_empty_buffered() -> Any:
    return select(Channel[int](10).sending(7))


@goes_on
def receive_from_full() -> Any:
    return select(full(10).receiving())


@blocks
def send_to_full() -> Any:
    return select(full(10).sending(7))


@goes_on
def receive_from_closed_and_full() -> Any:
    channel = full(10)
    channel.close()
    return select(channel.receiving())


@blocks
def send_and_receive_alone() -> Any:
    channel: Channel[int] = Channel()
    return select(channel.sending(7), channel.receiving())


@goes_on
def send_and_receive_on_a_half_full_one() -> Any:
    channel: Channel[int] = Channel(2)
    channel.send(1)
    return select(channel.sending(7), channel.receiving())


@blocks
def nil_beside_an_empty_one() -> Any:
    return select(NIL, Channel().receiving())


@goes_on
def nil_beside_a_closed_one() -> Any:
    return select(NIL, closed().receiving())


@goes_on
def a_time_that_has_come() -> Any:
    return select(after(0), Channel().receiving())


@blocks
def a_time_that_never_comes() -> Any:
    return select(after(math.inf))


@blocks
def plain_receive_from_empty() -> Any:
    return Channel().receive()


@blocks
def plain_send_to_full() -> Any:
    return full(1).send(1)


@goes_on
def plain_receive_from_full() -> Any:
    return full(1).receive()


@pytest.mark.parametrize(("operation", "expected"), [row[1:] for row in OPERATIONS], ids=[row[0] for row in OPERATIONS])
def test_which_operations_block(operation: Callable[[], Any], expected: bool) -> None:
    fiber = parked(operation)
    assert fiber.done() is not expected
    fiber.cancel()
    fiber.join(5)
    assert fiber.cancelled() is expected


# -- test/chan/select6.go: a select leaves the line of a channel at which others wait behind it


def test_a_select_that_leaves_a_line_leaves_the_others_in_it(go: Go) -> None:
    c1, c2, c3 = Channel[str](), Channel[str](), Channel[str]()
    answers: Channel[str] = Channel(10)

    def first() -> None:
        answers.send("first " + c1.receive())

    def second() -> None:
        got = select(c1.receiving(), c2.receiving())[1]
        c3.send("second " + got)
        answers.send("second again " + c1.receive())

    go(first)
    while len(c1._receiving) < 1:
        fibers.yield_now()
    go(second)
    while len(c1._receiving) < 2:
        fibers.yield_now()
    go(first)
    while len(c1._receiving) < 3:
        fibers.yield_now()
    c2.send("c2")
    assert c3.receive(30) == "second c2"
    for number in range(3):
        c1.send(str(number), timeout=30)
    assert sorted(answers.receive(30)[:6] for _ in range(3)) == ["first ", "first ", "second"]


# -- test/chan/select7.go: receive in several ways what is sent in several ways


def _receive_plainly(channel: Channel[int]) -> int:
    return channel.receive()


def _receive_by_select(channel: Channel[int]) -> int:
    return int(select(channel.receiving())[1])


def _receive_with_another_case(channel: Channel[int]) -> int:
    return int(select(Channel().receiving(), channel.receiving(), Channel[int]().sending(1))[1])


def _receive_in_a_loop(channel: Channel[int]) -> int:
    return next(channel)


def _receive_by_trying(channel: Channel[int]) -> int:
    while (value := channel.try_receive()) is None:
        fibers.sleep(0.0001)
    return int(value)


def _send_plainly(channel: Channel[int], value: int) -> None:
    channel.send(value)


def _send_by_select(channel: Channel[int], value: int) -> None:
    assert select(channel.sending(value))[1] is None


def _send_with_another_case(channel: Channel[int], value: int) -> None:
    assert select(Channel().receiving(), channel.sending(value))[1] is None


def _send_by_trying(channel: Channel[int], value: int) -> None:
    while not channel.try_send(value):
        fibers.sleep(0.0001)


RECEIVERS = [
    _receive_plainly, _receive_by_select, _receive_with_another_case, _receive_in_a_loop, _receive_by_trying,
]  # fmt: skip
SENDERS = [_send_plainly, _send_by_select, _send_with_another_case, _send_by_trying]


@pytest.mark.parametrize("send", SENDERS)
@pytest.mark.parametrize("receive", RECEIVERS)
def test_every_way_to_send_meets_every_way_to_receive(go: Go, send: Any, receive: Any) -> None:
    for capacity in (0, 1, 2):
        if not capacity and (send, receive) == (_send_by_trying, _receive_by_trying):
            continue  # neither ever waits for the other
        channel: Channel[int] = Channel(capacity)
        got: Channel[int] = Channel(1)

        def receiver(channel: Channel[int] = channel, got: Channel[int] = got) -> None:
            got.send(receive(channel))

        go(receiver)
        go(send, channel, 42)
        assert got.receive(30) == 42
        go.wait()
        assert len(channel) == 0


# -- runtime/chan_test.go


def test_nonblocking_receive_never_misses_what_is_there_or_will_never_be(go: Go) -> None:
    """TestNonblockRecvRace and TestNonblockSelectRace: of a buffered value and a close, one is always seen."""
    for _ in range(few(go, scaled(20_000, least=300), scaled(2000, least=100))):
        full_one, closing = Channel[int](1), Channel[int](1)
        seen: Channel[bool] = Channel(1)
        full_one.send(1)

        def look(
            full_one: Channel[int] = full_one, closing: Channel[int] = closing, seen: Channel[bool] = seen
        ) -> None:
            seen.send(select(full_one.receiving(), closing.receiving(), default())[0] is not default())

        go(look)
        closing.close()
        full_one.try_receive()
        assert seen.receive(30)
        go.wait()


@pytest.mark.parametrize("capacity", [0, 10])
def test_self_select(go: Go, capacity: int) -> None:
    """TestSelfSelect: several that select between sending and receiving on the same channel get on, and never alone."""
    channel: Channel[int] = Channel(capacity)
    rounds = scaled(20_000, least=500)

    def work(me: int) -> None:
        sent = received = 0
        while sent < rounds and received < rounds:
            cases = channel.sending(me), channel.receiving()
            if me:
                cases = cases[::-1]  # type: ignore[assignment]
            case, value = select(*cases)
            if value is ChannelClosed:
                return
            if case is cases[me]:
                sent += 1
            else:
                received += 1
                assert capacity or value != me, "it has met itself"
        channel.close()

    for me in range(2):
        go(work, me)
    go.wait()


def test_select_stress(go: Go) -> None:
    """TestSelectStress: plain senders and receivers, and selects over all of four channels, must balance."""
    channels: list[Channel[int]] = [Channel(capacity) for capacity in (0, 0, 2, 3)]
    count = scaled(10_000, least=300)

    def all_by_select(cases_of: Callable[[Channel[int]], Any]) -> None:
        left = dict.fromkeys(channels, count)
        while left:
            case, _ = select(*map(cases_of, left))
            left[case.channel] -= 1
            if not left[case.channel]:
                del left[case.channel]

    def repeat(call: Callable[..., Any], *args: Any) -> None:
        for _ in range(count):
            call(*args)

    for channel in channels:
        go(repeat, channel.send, 0)
        go(repeat, channel.receive)
    go(all_by_select, lambda channel: channel.sending(0))
    go(all_by_select, lambda channel: channel.receiving())
    go.wait()
    assert [len(channel) for channel in channels] == [0] * 4


def test_select_fairness(go: Go) -> None:
    """TestSelectFairness: of two that are always ready, beside two that never are, each gets about half."""
    trials = 2000
    left, right = Channel[int](trials + 1), Channel[int](trials + 1)
    for _ in range(trials + 1):
        left.send(1)
        right.send(2)
    idle: list[Channel[int]] = [Channel(), Channel()]
    out: Channel[int] = Channel()
    stop: Channel[None] = Channel()

    def work() -> None:
        while True:
            value = select(*(each.receiving() for each in (*idle, left, right)))[1]
            if select(out.sending(value), stop.receiving())[1] is ChannelClosed:
                return

    go(work)
    counts = [0, 0, 0]
    for _ in range(trials):
        counts[out.receive(30)] += 1
    stop.close()
    assert abs(counts[1] - counts[2]) < 6 * math.sqrt(trials), counts  # six deviations


def test_pseudo_random_send() -> None:
    """TestPseudoRandomSend: a select between two sends on one channel is no constant."""
    for capacity in (0, 100):
        channel: Channel[int] = Channel(capacity)
        got: list[int] = []
        receiver = fibers.spawn(got.extend, channel)
        for _ in range(100):
            select(channel.sending(0), channel.sending(1))
        channel.close()
        receiver.join(5)
        assert 20 < sum(got) < 80


def test_multi_consumer(go: Go) -> None:
    """TestMultiConsumer: many workers, one queue, one results channel."""
    count = scaled(20_000, least=1000)
    queue, results = Channel[int](count // 4 + 1), Channel[int](count // 4 + 1)

    def consume() -> None:
        for value in queue:
            if value % 7 == 0:
                fibers.yield_now()
            results.send(value)

    workers = 23
    for _ in range(workers):
        go(consume)

    def produce() -> None:
        for number in range(count):
            queue.send(number)
        queue.close()

    go(produce)
    assert sorted(results.receive(30) for _ in range(count)) == list(range(count))


def test_select_on_the_same_channel_twice(go: Go) -> None:
    """TestSelectDuplicateChannel: one that waits twice in a line, in front of another, leaves it as a whole."""
    channel, other = Channel[int](), Channel[int]()
    answers: Channel[int] = Channel(3)

    def twice() -> None:
        answers.send(select(channel.receiving(), channel.receiving(), other.receiving())[1])

    def once() -> None:
        answers.send(channel.receive())

    go(twice)
    while len(channel._receiving) < 2:
        fibers.yield_now()
    go(once)
    while len(channel._receiving) < 3:
        fibers.yield_now()
    other.send(8, timeout=30)
    assert answers.receive(30) == 8
    channel.send(9, timeout=30)
    assert answers.receive(30) == 9


def test_close_while_many_are_blocked(go: Go) -> None:
    for capacity in (0, 2):
        inward, outward = Channel[int](), full(capacity)
        ends: Channel[Any] = Channel(math.inf)

        def end(call: Callable[..., Any], *args: Any, by_select: bool = False, ends: Channel[Any] = ends) -> None:
            try:
                result = call(*args)
            except ChannelClosed:
                result = ChannelClosed
            ends.send(result[1] if by_select else result)

        count = 6
        for number in range(count):
            go(end, inward.receive)
            go(end, outward.send, number)
            go(lambda end=end, inward=inward: end(select, inward.receiving(), by_select=True))
            go(lambda end=end, outward=outward: end(select, outward.sending(1), by_select=True))
        while len(inward._receiving) < 2 * count or len(outward._sending) < 2 * count:
            fibers.yield_now()
        inward.close()
        outward.close()
        assert [ends.receive(30) for _ in range(4 * count)] == [ChannelClosed] * (4 * count)
        assert list(outward) == list(range(capacity))
