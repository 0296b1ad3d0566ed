"""10^6 operations on channels that are interrupted, time out or complete, whichever comes first: nothing is lost or doubled.

Workers send, receive and select at random. Meanwhile they are thrown exceptions, from their own thread and from others, and
have timeouts of a few microseconds. Each knows of every value whether its send said "sent". In the end these, and no others,
must have been received, once each.
"""

import random
import sys
import threading
from collections import Counter
from typing import Any

import pytest
from support.scale import SEED, scaled

import fibers
from fibers import Channel, ChannelClosed, after, select
from fibers.channels.channel import Sending


class Kick(Exception):
    """Thrown into workers."""


class Fray:
    """Workers of any number of threads over a few channels, until `operations` have been begun."""

    def __init__(self, operations: int) -> None:
        self.channels: list[Channel[Any]] = [Channel(capacity) for capacity in (0, 0, 1, 5)]
        self.left = operations
        self.workers: list[fibers.Fiber[Any]] = []
        self.sent: list[list[Any]] = []
        self.got: list[list[Any]] = []
        self.unsent: list[list[Any]] = []
        self.interrupted = 0
        self.completed = 0

    def work(self, seed: str) -> None:
        draw = random.Random(seed)
        sent: list[Any] = []
        got: list[Any] = []
        unsent: list[Any] = []
        self.sent.append(sent)
        self.got.append(got)
        self.unsent.append(unsent)
        number = 0
        while True:
            self.left -= 1
            number += 1
            values = [(seed, number, which) for which in range(2)]
            timeout = draw.choice((None, None, 0, 0.00001, 0.001))
            kind = draw.randrange(4)
            first, second = draw.sample(self.channels, 2)
            went, came = None, None
            try:
                if kind == 0:
                    first.send(values[0], timeout)
                    went = values[0]
                elif kind == 1:
                    came = first.receive(timeout)
                else:
                    cases: list[Any] = [first.sending(values[0]), second.sending(values[1])]
                    cases += [first.receiving(), second.receiving()]
                    if kind == 3:
                        cases = draw.sample(cases, 2)
                    case, value = select(*cases, after(timeout or 0.0001), timeout=timeout)
                    if value is ChannelClosed:
                        raise ChannelClosed
                    if value is not None:
                        came = value
                    elif isinstance(case, Sending):
                        went = case.value
            except ChannelClosed:
                unsent += values
                return
            except (Kick, TimeoutError):
                self.interrupted += 1
            else:
                self.completed += 1
            if came is not None:
                got.append(came)
            if went is not None:
                sent.append(went)
            unsent += [value for value in values if value != went]

    def harass(self, seed: str) -> None:
        """Throw something into somebody, again and again."""
        draw = random.Random(seed)
        while self.left > 0:
            for _ in range(draw.randrange(4)):
                draw.choice(self.workers).kill(Kick())
            fibers.yield_now()

    def run(self, seed: str, workers: int, begin: threading.Barrier) -> None:
        mine = [fibers.spawn(self.work, f"{seed}/{number}") for number in range(workers)]
        self.workers += mine
        begin.wait(20)
        self.harass(f"{seed}/harasser")
        for channel in self.channels:
            channel.close()
        for worker in mine:
            while not worker.done():
                try:
                    worker.result(60)
                except Kick:  # it was thrown before the worker had begun
                    break

    def check(self) -> None:
        got = Counter(value for each in self.got for value in each)
        sent = Counter(value for each in self.sent for value in each)
        for channel in self.channels:
            got.update(channel)
            assert not channel._receiving
            assert not channel._sending
        assert got == sent
        assert all(times == 1 for times in got.values())
        assert not got.keys() & {value for each in self.unsent for value in each}
        assert self.interrupted > 0.05 * self.completed, (self.interrupted, self.completed)
        assert self.completed > 0.05 * self.interrupted, (self.interrupted, self.completed)


@pytest.mark.parametrize("threads", [1, 3])
def test_interrupted_timed_out_or_completed(threads: int) -> None:
    fray = Fray(scaled(1_000_000, least=20_000))
    begin = threading.Barrier(threads)
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0001)
    try:
        if threads == 1:
            fibers.run(fray.run, f"{SEED} 0", 8, begin)
        else:
            running = [
                threading.Thread(target=fibers.run, args=(fray.run, f"{SEED} {number}", 4, begin))
                for number in range(threads)
            ]
            for thread in running:
                thread.start()
            for thread in running:
                thread.join()
    finally:
        sys.setswitchinterval(before)
    fray.check()
