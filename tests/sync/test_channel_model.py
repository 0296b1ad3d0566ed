"""Channels and selects against a model of a page: any order of operations, in one thread and from two at once.

Each step starts an operation in a fiber (a send, a receive, or a select of several cases; plain, with a default, or with no
time), tries something, closes a channel, or interrupts an operation that waits. Then, as a rule, everything is let come to
rest, and the model tells which operations must have ended, and how. Where a select has a choice, the model takes the one
that was made, if it was possible.
"""

import collections
import math
import threading
import time
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support.parking import rests

import fibers
from fibers import Channel, ChannelClosed, FiberCancelled, default, lowlevel, select
from fibers.channels.selecting import dice
from fibers.core.choosing import Choice

CHANNELS: Final = 3
DEFAULT: Final = "default"


class Operation:
    """One call, as cases of one select: ("receive", channel) or ("send", channel, value)."""

    def __init__(self, cases: list[tuple[Any, ...]], how: str) -> None:
        self.cases = cases
        self.how = how
        self.fiber: fibers.Fiber[Any] | None = None
        self.expected: Any = None  # how it must have ended
        self.elsewhere = False
        self.made: list[Any] = []  # the cases of the select

    def __repr__(self) -> str:
        return f"{self.how} {self.cases}: {self.fiber}"


class ModelChannel:
    """What a channel is, without any of the machinery."""

    def __init__(self, capacity: float) -> None:
        self.capacity = capacity
        self.buffer: list[int] = []
        self.closed = False
        self.receivers: list[tuple[Operation, int]] = []
        self.senders: list[tuple[Operation, int]] = []


class Model:
    """What must happen."""

    def __init__(self, capacities: list[float]) -> None:
        self.channels = [ModelChannel(capacity) for capacity in capacities]

    def can(self, case: tuple[Any, ...]) -> bool:
        channel = self.channels[case[1]]
        if case[0] == "receive":
            return bool(channel.buffer or channel.senders or channel.closed)
        return bool(len(channel.buffer) < channel.capacity or channel.receivers or channel.closed)

    def do(self, case: tuple[Any, ...]) -> Any:
        """Do what can be done; its value."""
        channel = self.channels[case[1]]
        if case[0] == "receive":
            if channel.senders and not channel.closed:
                sender, at = channel.senders[0]
                channel.buffer.append(sender.cases[at][2])
                self.end(sender, (at, None))
            return channel.buffer.pop(0) if channel.buffer else ChannelClosed
        if channel.closed:
            return ChannelClosed
        if channel.receivers:
            receiver, at = channel.receivers[0]
            self.end(receiver, (at, case[2]))
        else:
            channel.buffer.append(case[2])
        return None

    def wait(self, operation: Operation, order: list[int]) -> None:
        for at in order:
            case = operation.cases[at]
            channel = self.channels[case[1]]
            (channel.receivers if case[0] == "receive" else channel.senders).append((operation, at))

    def end(self, operation: Operation, how: Any) -> None:
        operation.expected = how
        for channel in self.channels:
            channel.receivers = [entry for entry in channel.receivers if entry[0] is not operation]
            channel.senders = [entry for entry in channel.senders if entry[0] is not operation]

    def close(self, at: int) -> None:
        channel = self.channels[at]
        channel.closed = True
        for operation, case in channel.receivers + channel.senders:
            if operation.expected is None:
                self.end(operation, (case, ChannelClosed))


class Helper:
    """A second thread with fibers. `start` has a function spawned there."""

    def __init__(self) -> None:
        self.commands: collections.deque[Any] = collections.deque()
        self.main: fibers.Fiber[Any] | None = None
        self.thread = threading.Thread(target=fibers.run, args=(self._serve,))
        self.thread.start()
        while self.main is None:
            time.sleep(0)

    def _serve(self) -> None:
        self.main = fibers.current()
        while True:
            lowlevel.park()
            while self.commands:
                command = self.commands.popleft()
                if command is None:
                    return
                command()

    def start(self, command: Any) -> None:
        assert self.main is not None
        self.commands.append(command)
        lowlevel.unpark(self.main)

    def stop(self) -> None:
        self.start(None)
        self.thread.join(10)


class ChannelMachine(RuleBasedStateMachine):
    """One thread."""

    helper: Helper | None = None

    @initialize(capacities=st.lists(st.sampled_from([0, 0, 1, 2, math.inf]), min_size=CHANNELS, max_size=CHANNELS))
    def begin(self, capacities: list[float]) -> None:
        dice.seed(0)  # one example, one course
        self.model = Model(capacities)
        self.channels: list[Channel[int]] = [Channel(capacity) for capacity in capacities]
        self.waiting: list[Operation] = []
        self.value = 0

    def drawn(self, spec: list[tuple[str, int]]) -> list[tuple[Any, ...]]:
        """Cases with values of their own."""
        cases: list[tuple[Any, ...]] = []
        for verb, at in spec:
            self.value += 1
            cases.append((verb, at, self.value) if verb == "send" else (verb, at))
        return cases

    # -- the steps

    @rule(
        spec=st.lists(
            st.tuples(st.sampled_from(["send", "receive"]), st.integers(0, CHANNELS - 1)), min_size=1, max_size=4
        ),
        how=st.sampled_from(["wait", "wait", "wait", "plain", "plain", "default", "no time"]),
        elsewhere=st.booleans(),
    )
    def operate(self, spec: list[tuple[str, int]], how: str, elsewhere: bool) -> None:
        operation = Operation(self.drawn(spec[:1] if how == "plain" else spec), how)
        model, cases = self.model, operation.cases
        self.come_to_rest()
        possible = [at for at, case in enumerate(cases) if model.can(case)]
        operation.elsewhere = elsewhere and self.helper is not None
        self.start(operation, elsewhere)
        if possible:
            self.let_end(operation)
            at = self.result(operation)[0]
            assert at in possible, (operation, at)
            operation.expected = (at, model.do(cases[at]))
        elif how == "default":
            operation.expected = (DEFAULT, None)
        elif how == "no time":
            operation.expected = TimeoutError
        else:
            model.wait(operation, self.order(operation))
        self.waiting.append(operation)
        self.come_to_rest()

    @rule(at=st.integers(0, CHANNELS - 1), rest=st.booleans())
    def try_receive(self, at: int, rest: bool) -> None:
        case = ("receive", at)
        expected = self.model.do(case) if self.model.can(case) else "nothing"
        try:
            assert self.channels[at].try_receive("nothing") == expected
        except ChannelClosed:
            assert expected is ChannelClosed
        if rest:
            self.come_to_rest()

    @rule(at=st.integers(0, CHANNELS - 1), rest=st.booleans())
    def try_send(self, at: int, rest: bool) -> None:
        (case,) = self.drawn([("send", at)])
        can = self.model.can(case)
        expected = self.model.do(case) if can else None
        try:
            assert self.channels[at].try_send(case[2]) is can
            assert expected is None
        except ChannelClosed:
            assert expected is ChannelClosed
        if rest:
            self.come_to_rest()

    @rule(at=st.integers(0, CHANNELS - 1), sure=st.integers(0, 5), rest=st.booleans())
    def close(self, at: int, sure: int, rest: bool) -> None:
        if not sure or self.model.channels[at].closed:
            self.channels[at].close()
            self.model.close(at)
            if rest:
                self.come_to_rest()

    @rule(number=st.integers(0, 1000), kill=st.booleans(), rest=st.booleans())
    def interrupt(self, number: int, kill: bool, rest: bool) -> None:
        if not self.waiting:
            return
        operation = self.waiting[number % len(self.waiting)]
        assert operation.fiber is not None
        if kill:
            operation.fiber.kill()
        else:
            operation.fiber.cancel()
        if operation.expected is None:  # else it has been served, and nothing overtakes that
            self.model.end(operation, FiberCancelled)
        if rest or operation.elsewhere:  # in another thread it is told by a message
            self.come_to_rest()

    # -- doing it

    def start(self, operation: Operation, elsewhere: bool) -> None:
        def call() -> Any:
            if operation.how == "plain":
                verb, at, *value = operation.cases[0]
                try:
                    return 0, getattr(self.channels[at], verb)(*value)
                except ChannelClosed:
                    return 0, ChannelClosed
            cases = operation.made
            for verb, at, *value in operation.cases:
                channel = self.channels[at]
                cases.append(channel.receiving() if verb == "receive" else channel.sending(*value))
            if operation.how == "default":
                cases.append(default())
            case, got = select(*cases, timeout=0 if operation.how == "no time" else None)
            return DEFAULT if case is default() else cases.index(case), got

        def spawn() -> None:
            operation.fiber = fibers.spawn(call)

        if self.helper is not None and elsewhere:
            self.helper.start(spawn)
            while operation.fiber is None:
                time.sleep(0)
        else:
            spawn()

    def order(self, operation: Operation) -> list[int]:
        """In which order it stands in the lines: drawn by lot, and of importance if it stands in one more than once."""
        self.let_rest(operation)
        if operation.how == "plain":
            return [0]
        assert operation.fiber is not None
        choice = operation.fiber.waiting
        assert isinstance(choice, Choice)
        return [operation.made.index(offer.case) for offer in choice.offers]

    def let_rest(self, operation: Operation) -> None:
        end = time.monotonic() + 20
        while operation.fiber is None or not rests(operation.fiber):
            fibers.yield_now()
            if self.helper is not None:
                time.sleep(0)
            assert time.monotonic() < end, f"it does not come to rest: {operation}"

    def let_end(self, operation: Operation) -> None:
        fiber = operation.fiber
        assert fiber is not None
        end = time.monotonic() + 20
        while not fiber.done():
            fibers.yield_now()
            if self.helper is not None:
                time.sleep(0)
            assert time.monotonic() < end, f"it should have ended: {operation}"

    def come_to_rest(self) -> None:
        for operation in list(self.waiting):
            if operation.expected is not None:
                self.let_end(operation)
                assert self.result(operation) == operation.expected, operation
                self.waiting.remove(operation)
            else:
                self.let_rest(operation)
                assert operation.fiber is not None
                assert not operation.fiber.done(), f"it should wait: {operation}"

    @staticmethod
    def result(operation: Operation) -> Any:
        assert operation.fiber is not None
        try:
            return operation.fiber.result()
        except (TimeoutError, FiberCancelled) as error:
            return type(error)

    @invariant()
    def looks_as_it_should(self) -> None:
        for channel, model in zip(self.channels, self.model.channels, strict=True):
            assert list(channel._buffer) == model.buffer
            assert len(channel) <= channel.capacity
            assert channel.closed == model.closed
            assert not (model.receivers and model.buffer)
        for operation in self.waiting:
            assert operation.fiber is not None
            assert operation.expected is not None or not operation.fiber.done(), f"it should wait: {operation}"

    def teardown(self) -> None:
        if not hasattr(self, "waiting"):
            return
        for operation in self.waiting:
            assert operation.fiber is not None
            operation.fiber.cancel()
        for operation in self.waiting:
            self.let_end(operation)
        for channel in self.channels:
            channel.close()
            assert not channel._receiving
            assert not channel._sending


class TwoThreadsMachine(ChannelMachine):
    """Half of the operations are fibers of another thread."""

    def __init__(self) -> None:
        super().__init__()
        self.helper = Helper()

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            assert self.helper is not None
            self.helper.stop()


TestChannelModel = ChannelMachine.TestCase
TestChannelModelOfTwoThreads = TwoThreadsMachine.TestCase
