"""The timer wheel: order, never early, no residue, cheap crowds; and a comparison with a plain sorted list.

No test reads a clock: `now` is a number that the test chooses. FIBERS_TEST_SCALE scales the model-based test
(default 0.05; 1 is a soak).
"""

from __future__ import annotations

import math
import os
import random
import signal
import sys
import weakref
from types import FrameType

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.once import once

from fibers.eventloop import timers
from fibers.eventloop.timers import Timer, TimerWheel

pytestmark = once

SCALE = float(os.environ.get("FIBERS_TEST_SCALE", "0.05"))


class Target:
    """A target that can be told apart and weakly referenced."""

    def expire(self, timer: Timer) -> None:
        raise AssertionError("the wheel called a target")


TARGET = Target()


def check_structure(wheel: TimerWheel) -> None:
    """Each slot is in the heap, a sound ring, with a true lower bound; no more dead ticks than living."""
    assert set(wheel.occupied) <= set(wheel._heap)
    assert wheel.slots <= wheel.heap_size <= 2 * wheel.slots
    total = 0
    for tick, slot in wheel.occupied.items():
        assert slot.sequence == tick
        assert slot.after is not slot, f"tick {tick} is empty but still in the dict"
        timer = slot.after
        while timer is not slot:
            total += 1
            assert timer.slot is slot
            assert timer.before.after is timer is timer.after.before
            assert slot.deadline <= timer.deadline
            timer = timer.after
        assert slot.before.after is slot
    assert len(wheel) == total


# Order and exactness


def test_a_new_wheel_is_empty() -> None:
    wheel = TimerWheel()
    assert (len(wheel), wheel.slots, wheel.heap_size) == (0, 0, 0)
    assert wheel.next_deadline() is None
    assert wheel.expire(1e9) == []
    assert wheel.clear() == []


def test_ties_expire_in_the_order_of_their_making() -> None:
    wheel = TimerWheel()
    made = [wheel.add(5.0, TARGET) for _ in range(100)]
    assert wheel.expire(5.0) == made
    assert [timer.sequence for timer in made] == sorted(timer.sequence for timer in made)


def test_order_inside_a_slot_is_by_deadline_then_sequence() -> None:
    wheel = TimerWheel(tick=1.0)
    late, early, late_too, early_too = (wheel.add(deadline, TARGET) for deadline in (7.9, 7.1, 7.9, 7.1))
    assert wheel.slots == 1
    assert wheel.expire(8.0) == [early, early_too, late, late_too]


def test_order_across_slots_is_by_deadline() -> None:
    wheel = TimerWheel()
    deadlines = [random.Random(1).uniform(0, 10) for _ in range(500)]
    for deadline in deadlines:
        wheel.add(deadline, TARGET)
    assert [timer.deadline for timer in wheel.expire(10.0)] == sorted(deadlines)
    assert len(wheel) == wheel.heap_size == 0


def test_never_early_and_never_late_by_one_float() -> None:
    for deadline in (1e-9, 0.0001, 0.9999, 1.0, 12_345.678, 1e7 + 1 / 3):
        wheel = TimerWheel()
        timer = wheel.add(deadline, TARGET)
        assert wheel.expire(math.nextafter(deadline, -math.inf)) == []
        assert wheel.next_deadline() == deadline
        assert wheel.expire(deadline) == [timer]


def test_a_slot_expires_in_part() -> None:
    wheel = TimerWheel(tick=1.0)
    third, first, second = (wheel.add(deadline, TARGET) for deadline in (3.75, 3.25, 3.5))
    assert wheel.slots == 1
    assert wheel.next_deadline() == 3.25
    assert wheel.expire(3.3) == [first]
    assert wheel.next_deadline() == 3.5
    check_structure(wheel)
    fourth = wheel.add(3.4, TARGET)
    assert wheel.next_deadline() == 3.4
    assert wheel.expire(3.6) == [fourth, second]
    assert wheel.expire(3.7) == []
    assert wheel.expire(3.75) == [third]
    assert wheel.slots == wheel.heap_size == 0


def test_an_earlier_deadline_in_a_used_slot_comes_to_the_front() -> None:
    """Hazard 10: a timeout of 0.1 s set after one of 30 s fires at 0.1 s; here within one tick."""
    wheel = TimerWheel(tick=100.0)
    wheel.add(30.0, TARGET)
    near = wheel.add(0.1, TARGET)
    assert wheel.next_deadline() == 0.1
    assert wheel.expire(0.1) == [near]
    assert wheel.next_deadline() == 30.0


def test_zero_negative_and_past_deadlines_are_in_order() -> None:
    wheel = TimerWheel()
    deadlines = [0.0004, -0.0004, 0.0, -5.0, -0.0015, 0.0015]
    for deadline in deadlines:
        wheel.add(deadline, TARGET)
    assert wheel.next_deadline() == -5.0
    assert [timer.deadline for timer in wheel.expire(0.0)] == [-5.0, -0.0015, -0.0004, 0.0]
    assert [timer.deadline for timer in wheel.expire(1.0)] == [0.0004, 0.0015]


def test_a_clock_that_ran_for_months_still_has_one_slot_a_millisecond() -> None:
    """Hazard 16: far deadlines. At 1e7 s a float still resolves two nanoseconds."""
    wheel = TimerWheel()
    base = 1e7
    made = [wheel.add(base + (i + 0.5) / 1000, TARGET) for i in range(1000)]
    assert wheel.slots == 1000
    for i, timer in enumerate(made):
        assert wheel.expire(base + (i + 0.25) / 1000) == []
        assert wheel.expire(base + (i + 0.75) / 1000) == [timer]


def test_the_farthest_finite_deadlines_are_kept_in_order() -> None:
    wheel = TimerWheel()
    largest = sys.float_info.max
    deadlines = [largest, 1e306, 1.0, 1e300, 1e307, -1e307, -largest]
    for deadline in deadlines:
        wheel.add(deadline, TARGET)
    check_structure(wheel)
    assert wheel.next_deadline() == -largest
    assert [timer.deadline for timer in wheel.expire(1e307)] == sorted(deadlines)[:-1]
    assert wheel.next_deadline() == largest


@pytest.mark.parametrize("deadline", [math.inf, -math.inf, math.nan])
def test_a_deadline_that_is_not_finite_is_refused(deadline: float) -> None:
    wheel = TimerWheel()
    with pytest.raises(ValueError, match=f"finite number of seconds, got {deadline!r}"):
        wheel.add(deadline, TARGET)
    assert (len(wheel), wheel.slots, wheel.heap_size) == (0, 0, 0)


@pytest.mark.parametrize("tick", [0.0, -0.001, math.inf, math.nan])
def test_a_tick_that_is_no_width_is_refused(tick: float) -> None:
    with pytest.raises(ValueError, match=f"positive, finite number of seconds, got {tick!r}"):
        TimerWheel(tick)


def test_a_now_that_is_not_a_number_expires_nothing() -> None:
    wheel = TimerWheel()
    timer = wheel.add(1.0, TARGET)
    assert wheel.expire(math.nan) == []
    assert wheel.expire(1.0) == [timer]


def test_a_returned_list_belongs_to_the_caller() -> None:
    wheel = TimerWheel()
    nothing = wheel.expire(0.0)
    first = wheel.add(1.0, TARGET)
    got = wheel.expire(1.0)
    nothing.append(first)
    got.append(first)
    second = wheel.add(2.0, TARGET)
    assert wheel.expire(1.5) == []
    assert wheel.expire(2.0) == [second]
    assert got == [first, first]


def test_clear_returns_all_in_order_and_leaves_nothing() -> None:
    wheel = TimerWheel()
    made = [wheel.add(float(deadline), TARGET) for deadline in (9, 3, 6, 3)]
    wheel.cancel(made[2])
    assert wheel.clear() == [made[1], made[3], made[0]]
    assert (len(wheel), wheel.slots, wheel.heap_size) == (0, 0, 0)
    assert wheel.next_deadline() is None
    assert [timer.slot for timer in made] == [None] * 4
    assert not wheel.cancel(made[0])


# Cancelling


def test_cancel_says_whether_the_timer_was_pending() -> None:
    wheel = TimerWheel()
    cancelled, expired = wheel.add(1.0, TARGET), wheel.add(1.0, TARGET)
    assert wheel.cancel(cancelled)
    assert not wheel.cancel(cancelled)
    assert wheel.expire(1.0) == [expired]
    assert expired.target is TARGET
    assert not wheel.cancel(expired)
    assert expired.target is None


def test_cancel_takes_one_timer_out_of_a_shared_slot() -> None:
    wheel = TimerWheel()
    made = [wheel.add(4.0, TARGET) for _ in range(5)]
    assert wheel.cancel(made[2])
    assert (len(wheel), wheel.slots) == (4, 1)
    assert wheel.expire(4.0) == made[:2] + made[3:]


def test_a_cancelled_timer_keeps_no_reference_to_its_target() -> None:
    wheel = TimerWheel()
    target = Target()
    alive = weakref.ref(target)
    timer = wheel.add(1.0, target)
    neighbour = wheel.add(1.0, TARGET)
    del target
    assert alive() is not None
    assert wheel.cancel(timer)
    assert alive() is None
    assert timer.slot is None
    assert wheel.expire(1.0) == [neighbour]


def test_the_wheel_keeps_no_reference_to_what_has_expired() -> None:
    wheel = TimerWheel()
    target = Target()
    alive = weakref.ref(target)
    wheel.add(1.0, target)
    wheel.add(1.0005, TARGET)
    del target
    assert len(wheel.expire(1.0)) == 1
    assert alive() is None


def test_a_timer_that_has_gone_keeps_no_reference_to_its_neighbours() -> None:
    wheel = TimerWheel()
    left, right = Target(), Target()
    alive = [weakref.ref(left), weakref.ref(right)]
    expired = wheel.add(1.0, TARGET)
    wheel.add(1.0001, left)
    cancelled = wheel.add(1.0, TARGET)
    wheel.add(1.0001, right)
    del left, right
    assert wheel.slots == 1
    assert wheel.cancel(cancelled)
    assert wheel.expire(1.0) == [expired]
    assert len(wheel.clear()) == 2
    assert [ref() for ref in alive] == [None, None]


def test_a_finaliser_of_a_dropped_target_finds_the_wheel_in_order() -> None:
    """Hazard 7: cancel may free the target, whose finaliser may want a timer in the very same tick."""
    wheel = TimerWheel()
    added: list[Timer] = []

    class Dying(Target):
        def __del__(self) -> None:
            check_structure(wheel)
            added.append(wheel.add(1.0, TARGET))

    timer = wheel.add(1.0, Dying())
    assert wheel.cancel(timer)
    assert len(added) == 1
    check_structure(wheel)
    assert wheel.expire(1.0) == added


def test_the_last_cancel_of_a_slot_removes_the_slot_at_once() -> None:
    wheel = TimerWheel()
    one, two = wheel.add(1.0, TARGET), wheel.add(1.0, TARGET)
    wheel.cancel(one)
    assert wheel.slots == 1
    wheel.cancel(two)
    assert (len(wheel), wheel.slots, wheel.heap_size) == (0, 0, 0)
    assert wheel.next_deadline() is None


def test_add_and_cancel_on_a_fresh_far_tick_leaves_no_dead_heap_entry() -> None:
    wheel = TimerWheel()
    for deadline in range(100):
        wheel.add(float(deadline), TARGET)
    for deadline in range(1000, 2000):
        wheel.cancel(wheel.add(float(deadline), TARGET))
        assert wheel.heap_size == wheel.slots == 100


def test_dead_ticks_never_outnumber_the_living() -> None:
    wheel = TimerWheel()
    made = [wheel.add(float(deadline), TARGET) for deadline in range(1000)]
    random.Random(2).shuffle(made)
    sizes = []
    while made:
        wheel.cancel(made.pop())
        assert wheel.slots == len(made)
        assert wheel.heap_size <= 2 * wheel.slots
        sizes.append(wheel.heap_size)
    assert max(sizes) > 500, "no dead entry ever stayed: this test would not see a missing compaction"
    assert sizes[-1] == 0


def test_dead_ticks_go_also_when_the_living_expire() -> None:
    wheel = TimerWheel()
    for deadline in range(10):
        wheel.add(float(deadline), TARGET)
    far = [wheel.add(float(deadline), TARGET) for deadline in range(100, 110)]
    for timer in far[1:9]:
        wheel.cancel(timer)
    assert wheel.heap_size > wheel.slots
    assert len(wheel.expire(50.0)) == 10
    assert (wheel.slots, wheel.heap_size) == (2, 2)
    assert wheel.expire(200.0) == [far[0], far[9]]


def test_a_tick_that_dies_and_is_used_again_does_no_harm() -> None:
    wheel = TimerWheel()
    others = [wheel.add(float(deadline), TARGET) for deadline in (1, 3, 4, 5)]
    for _ in range(50):
        wheel.cancel(wheel.add(2.0, TARGET))
        check_structure(wheel)
    again = wheel.add(2.0, TARGET)
    assert wheel.expire(2.0) == [others[0], again]
    third = wheel.add(2.0, TARGET)
    assert wheel.next_deadline() == 2.0
    assert wheel.expire(10.0) == [third, *others[1:]]
    assert wheel.heap_size == 0


def test_a_tick_that_stands_in_the_heap_twice_surfaces_once() -> None:
    wheel = TimerWheel()
    others = [wheel.add(float(deadline), TARGET) for deadline in (1, 3, 4, 5)]
    middle = wheel.add(2.0, TARGET)
    tail = wheel.add(9.0, TARGET)
    wheel.cancel(middle)
    again = wheel.add(2.0, TARGET)
    assert wheel.heap_size == wheel.slots + 1, "the tick is not doubled: this test shows nothing"
    assert wheel.expire(2.0) == [others[0], again]
    assert wheel.next_deadline() == 3.0
    assert wheel.expire(9.0) == [*others[1:], tail]
    assert wheel.heap_size == 0


def test_a_cancel_of_the_earliest_costs_at_most_one_vain_surfacing() -> None:
    wheel = TimerWheel(tick=1.0)
    first, second = wheel.add(1.25, TARGET), wheel.add(1.75, TARGET)
    wheel.cancel(first)
    assert wheel.next_deadline() in (1.25, 1.75)
    assert wheel.expire(1.25) == []
    assert wheel.next_deadline() == 1.75
    assert wheel.expire(1.75) == [second]


def test_next_deadline_passes_over_slots_that_were_cancelled() -> None:
    wheel = TimerWheel()
    made = [wheel.add(float(deadline), TARGET) for deadline in range(10)]
    for timer in made[:4]:
        wheel.cancel(timer)
    assert wheel.next_deadline() == 4.0


def test_a_million_equal_timeouts_are_one_heap_entry() -> None:
    wheel = TimerWheel()
    made = [wheel.add(30.0, TARGET) for _ in range(1_000_000)]
    assert (len(wheel), wheel.slots, wheel.heap_size) == (1_000_000, 1, 1)
    for timer in made[::2]:
        wheel.cancel(timer)
    assert wheel.expire(30.0) == made[1::2]
    assert (len(wheel), wheel.slots, wheel.heap_size) == (0, 0, 0)


# Interruption


class Fragile(float):
    """A deadline whose first comparison with a `now` of 3 raises, as a signal handler might at that point."""

    armed = True

    def __gt__(self, other: float) -> bool:
        if self.armed and other == 3.0:
            self.armed = False
            raise InterruptedError
        return float(self) > other


def test_an_interrupted_expire_loses_no_timer_and_repeats_none() -> None:
    """Hazard 1: what was collected when a handler raised is due at once and returned by the next call."""
    wheel = TimerWheel(tick=1.0)
    whole, before, struck, after, other = (
        wheel.add(deadline, TARGET) for deadline in (0.5, 1.25, Fragile(1.5), 1.75, 2.5)
    )
    with pytest.raises(InterruptedError):
        wheel.expire(3.0)
    assert wheel.next_deadline() == 0.5
    assert not wheel.cancel(before), "collected: no longer pending"
    assert before.target is None, "but it can still be stopped"
    assert wheel.cancel(after)
    assert wheel.expire(0.0) == [whole, before], "collected before the interruption, whatever the time is now"
    assert wheel.expire(3.0) == [struck, other]
    check_structure(wheel)


class StruckError(Exception):
    """Raised by the signal handler of the test below."""


def test_a_signal_handler_that_raises_anywhere_inside_loses_no_timer() -> None:
    """Hazard 1, with a real signal: at a random moment, and only inside the wheel's own code."""
    random_source = random.Random(3)
    strikes = 0

    def handler(number: int, frame: FrameType | None) -> None:
        nonlocal strikes
        if frame is not None and frame.f_code.co_filename == timers.__file__:
            strikes += 1
            raise StruckError

    previous = signal.signal(signal.SIGALRM, handler)
    try:
        for _ in range(5000):
            wheel = TimerWheel()
            made = [wheel.add(i / 10_000, TARGET) for i in range(1000)]
            got: list[Timer] = []
            signal.setitimer(signal.ITIMER_REAL, random_source.uniform(0.00001, 0.0005))
            try:
                got += wheel.expire(1.0)
            except StruckError:
                assert wheel.next_deadline() is not None
            signal.setitimer(signal.ITIMER_REAL, 0)
            got += wheel.expire(1.0)
            assert got == made
            assert (len(wheel), wheel.slots, wheel.heap_size) == (0, 0, 0)
            if strikes == 50:
                break
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert strikes == 50, "the signal hardly ever struck inside the wheel: the test shows nothing"


# The model


class WheelAgainstSortedList(RuleBasedStateMachine):
    """The wheel does what a list sorted by (deadline, sequence) would do, and its structure stays sound."""

    def __init__(self) -> None:
        super().__init__()
        self.wheel = TimerWheel()
        self.now = 1000.0
        self.pending: list[Timer] = []
        self.gone: list[Timer] = []
        self.cancels = 0
        self.vain = 0

    def _add(self, deadline: float) -> None:
        timer = self.wheel.add(deadline, TARGET)
        assert timer.deadline == deadline
        assert timer.target is TARGET
        self.pending.append(timer)
        self.pending.sort(key=lambda timer: (timer.deadline, timer.sequence))

    def _expect(self, got: list[Timer]) -> None:
        due = [timer for timer in self.pending if timer.deadline <= self.now]
        assert got == due
        assert all(timer.slot is None and timer.target is TARGET for timer in got)
        self.pending = self.pending[len(due) :]
        self.gone += due

    @rule(steps=st.integers(-8, 40))
    def add_clustered(self, steps: int) -> None:
        """Quarters of a tick around now: crowded slots, ties and deadlines that have passed."""
        self._add(self.now + steps * 0.00025)

    @rule(delay=st.floats(0.0, 60.0))
    def add_usual(self, delay: float) -> None:
        self._add(self.now + delay)

    @rule(deadline=st.floats(allow_nan=False, allow_infinity=False))
    def add_anywhere(self, deadline: float) -> None:
        self._add(deadline)

    @precondition(lambda self: self.pending)
    @rule(data=st.data())
    def add_tie(self, data: st.DataObject) -> None:
        self._add(data.draw(st.sampled_from(self.pending)).deadline)

    @precondition(lambda self: self.pending)
    @rule(data=st.data(), again=st.booleans())
    def cancel(self, data: st.DataObject, again: bool) -> None:
        index = data.draw(st.integers(0, len(self.pending) - 1))
        timer = self.pending.pop(index)
        self.gone.append(timer)
        self.cancels += 1
        assert self.wheel.cancel(timer)
        assert timer.target is None
        if again:
            self._add(timer.deadline)

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def cancel_what_has_gone(self, data: st.DataObject) -> None:
        assert not self.wheel.cancel(data.draw(st.sampled_from(self.gone)))

    @rule(step=st.one_of(st.just(0.0), st.integers(0, 12).map(lambda n: n * 0.00025), st.floats(0.0, 30.0)))
    def advance(self, step: float) -> None:
        self.now += step
        self._expect(self.wheel.expire(self.now))

    @precondition(lambda self: self.pending)
    @rule()
    def run_to_the_next_deadline(self) -> None:
        """As the loop does: sleep until next_deadline, expire, and again if that was in vain."""
        while True:
            deadline = self.wheel.next_deadline()
            assert deadline is not None
            # Time stands still for the farthest deadlines, or the rest of the run would have only the past.
            kept, self.now = self.now, max(self.now, deadline)
            got = self.wheel.expire(self.now)
            self._expect(got)
            if self.now > 1e6:
                self.now = kept
            if got:
                return
            self.vain += 1
            assert self.vain <= self.cancels, "more vain surfacings than cancels"

    @rule()
    def clear(self) -> None:
        assert self.wheel.clear() == self.pending
        self.gone += self.pending
        self.pending = []

    @invariant()
    def length_and_next_deadline_agree(self) -> None:
        assert len(self.wheel) == len(self.pending)
        assert bool(self.wheel) == bool(self.pending)
        deadline = self.wheel.next_deadline()
        if self.pending:
            assert deadline is not None
            assert deadline <= self.pending[0].deadline
            if not self.cancels:
                assert deadline == self.pending[0].deadline
        else:
            assert deadline is None

    @invariant()
    def structure_is_in_order(self) -> None:
        check_structure(self.wheel)


WheelAgainstSortedList.TestCase.settings = settings(
    max_examples=max(5, int(4000 * SCALE)), stateful_step_count=50, deadline=None
)
TestWheelAgainstSortedList = WheelAgainstSortedList.TestCase
