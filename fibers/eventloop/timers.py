"""The timers of an event loop: a min-heap timer wheel.

Facts, and what follows from them:

* Nearly every timer is a timeout that never fires. Cancelling is therefore the hot path, and a plain binary
  heap is the wrong home for a timer: removal from the middle costs O(log n) and a search, or leaves the dead
  lying in it.
* Timeouts come in crowds. Ten thousand connections with a 30-second limit, made within one millisecond, have
  deadlines that differ by nothing anybody can observe. So deadlines fall into *slots* one tick wide; a dict
  finds a slot by its tick number; only tick numbers stand in a heap. A million equal timeouts are one heap
  entry.
* A wheel that rounded deadlines to its ticks would fire early or up to a tick late. The tick therefore
  decides only where a timer is kept. Each slot knows a lower bound of the deadlines in it, surfaces at that
  instant and expires in part.
* Equal deadlines always share a slot, and deadline -> tick number never decreases. So going through the slots
  in tick order, and through one slot in (deadline, sequence) order, is going through all timers in (deadline,
  sequence) order. A slot keeps the order of adding, that is of sequence: a stable sort by deadline will do.
* A slot that loses its last timer leaves the dict at once, but its number may sit anywhere in the heap. It
  stays there until it surfaces or until such leftovers outnumber the living slots; then the heap is rebuilt
  from the dict. The work is proportional to the number of cancels that caused it. A tick that dies and is
  used again may stand in the heap twice: the entry that surfaces after the slot has gone finds no slot and is
  thrown away. Twice is harmless, missing would be fatal.
* The timers of a slot are a ring, linked through the timers themselves. A dict in each slot would do the
  same, but its tables are more memory, and cold memory once many slots are in use.
* The last item of a heap can be removed without re-ordering anything, and the tick just pushed is usually the
  last item. So "add, then soon cancel" on a fresh tick leaves nothing behind at all.
* A signal handler may raise between any two steps, also in here. A timer that had been taken out but not yet
  handed over would then be lost, and its sleeper would sleep for ever. So `expire` collects into a list that
  the wheel itself holds, and lets go of it in the step that returns it; after an interruption the next
  `expire` hands over what was collected.

A `TimerWheel` is neither thread-safe nor re-entrant. One loop owns it and guarantees that no other thread,
signal handler or finaliser calls into it while one of its methods runs. It reads no clock and calls no
target.

The idea of a heap of buckets is that of the Linux and Kafka timer wheels, without the hierarchy: a dict is
the wheel.
"""

from __future__ import annotations

import math
import sys
from heapq import heapify, heappop, heappush
from operator import attrgetter
from typing import Protocol

_LARGEST_FLOAT = sys.float_info.max
# At or beyond the tick number of every quotient that a float can hold.
_FARTHEST_TICK = int(_LARGEST_FLOAT)

_deadline_of = attrgetter("deadline")


class TimerTarget(Protocol):
    """What a timer is for. The wheel only carries it; the loop calls it."""

    def expire(self, timer: Timer) -> None:
        """Called by the loop, in its thread, after `TimerWheel.expire` returned `timer`. Must not raise."""


class Timer:
    """One pending deadline. Only `TimerWheel.add` makes one; to others its attributes are read-only.

    `deadline` is in seconds on the clock of the loop. `sequence` counts the timers of a wheel and breaks
    ties. `slot` is None unless the timer is pending. `target` is None once the timer was cancelled.

    Whoever keeps a Timer in its own target should forget it, or set `target` to None, once it has expired:
    the two refer to each other, and an expired timer still needs its target.

    A slot is a ring of timers closed by a head. The head is a Timer too, because attribute access is fastest
    where it meets a single class: its `deadline` is never later than a deadline in the ring (earlier only
    after a cancel, until the slot surfaces), its `sequence` is the tick number, its `slot` and `target` are
    None.
    """

    __slots__ = ("after", "before", "deadline", "sequence", "slot", "target")

    deadline: float
    sequence: int
    target: TimerTarget | None
    slot: Timer | None
    # Neighbours in the ring; private to the wheel.
    before: Timer
    after: Timer

    # No __init__: it would cost a Python call for each timer.


# Both neighbours of whatever is in no ring. Links left standing would keep strangers alive.
_NOBODY = Timer()


class TimerWheel:
    """Pending timers in the order of their deadlines. One thread only; not re-entrant.

    `tick` is the width of a slot in seconds, positive and finite, else ValueError. It trades heap work
    (narrow slots) against sorting at expiry (wide ones) and has no influence on when a timer expires.
    """

    __slots__ = ("_collected", "_heap", "_sequence", "_tick", "occupied")

    def __init__(self, tick: float = 0.001) -> None:
        if not 0.0 < tick < math.inf:
            raise ValueError(f"the tick must be a positive, finite number of seconds, got {tick!r}")
        self._tick = tick
        self._sequence = 0
        # Tick number -> slot. The loop looks at it, only to see whether it is empty; it changes nothing.
        self.occupied: dict[int, Timer] = {}
        # Every key of `occupied` at least once; besides, numbers whose slot has gone.
        self._heap: list[int] = []
        # Taken out of their slots by an expire() that has not returned.
        self._collected: list[Timer] = []

    def add(self, deadline: float, target: TimerTarget) -> Timer:
        """Make a timer for `deadline`, in seconds on the clock of the loop; it may be past, zero or negative.

        O(1) in a tick that is in use already, O(log slots) otherwise. Raises ValueError for an infinite
        deadline (to wait for ever takes no timer) and for NaN; nothing is added then.
        """
        try:
            tick = int(deadline / self._tick)
        except (OverflowError, ValueError):
            tick = _tick_out_of_range(deadline)
        timer = Timer()
        timer.deadline = deadline
        timer.target = target
        timer.sequence = sequence = self._sequence + 1
        slots = self.occupied
        if tick in slots:
            slot = slots[tick]
            last = slot.before
            timer.slot = slot
            timer.after = slot
            timer.before = last
            last.after = timer
            slot.before = timer
            self._sequence = sequence
            if deadline < slot.deadline:
                slot.deadline = deadline
            return timer
        slot = Timer()
        slot.deadline = deadline
        slot.sequence = tick
        slot.slot = slot.target = None
        slot.before = slot.after = timer
        timer.slot = timer.before = timer.after = slot
        # Heap first: a signal handler raising at this call leaves a dead number, not a timer nobody holds.
        heappush(self._heap, tick)
        slots[tick] = slot
        self._sequence = sequence
        return timer

    def cancel(self, timer: Timer) -> bool:
        """Remove a timer of this wheel and drop its target. True if it was pending. O(1), amortised.

        False if it was cancelled before or has expired. If it is in a list that `expire` returned, dropping
        the target is how a caller still stops it: the loop passes over a timer whose target is None.
        """
        slot = timer.slot
        if slot is None:
            timer.target = None
            return False
        before = timer.before
        after = timer.after
        before.after = after
        after.before = before
        timer.slot = None
        timer.before = timer.after = _NOBODY
        if before is after:
            self._close(slot)
        # Last: it may free the target, and a finaliser must find the wheel in order.
        timer.target = None
        return True

    def next_deadline(self) -> float | None:
        """The earliest pending deadline, in seconds; None if nothing is pending.

        Never too late. Too early only after a cancel of the earliest timer of a slot: `expire` then returns
        nothing at that instant and corrects itself, so that each cancel costs at most one vain wake-up.
        """
        if self._collected:
            return self._collected[0].deadline
        heap = self._heap
        slots = self.occupied
        while heap:
            tick = heap[0]
            if tick in slots:
                return slots[tick].deadline
            heappop(heap)
        return None

    def expire(self, now: float) -> list[Timer]:
        """Remove and return all timers with deadline <= now in (deadline, sequence) order. Never early.

        The caller owns the list and calls `timer.target.expire(timer)` for each item whose target is not
        None. The timers are no longer pending, their targets are kept. If a signal handler raises in here, no
        timer is lost: the next call returns it.
        """
        heap = self._heap
        slots = self.occupied
        collected = self._collected
        while heap:
            tick = heap[0]
            if tick not in slots:
                heappop(heap)
                continue
            slot = slots[tick]
            # Not "> now": a `now` of NaN must end here too.
            if not slot.deadline <= now:
                break
            members = []
            timer = slot.after
            while timer is not slot:
                members.append(timer)
                timer = timer.after
            members.sort(key=_deadline_of)
            for timer in members:
                if timer.deadline > now:
                    slot.deadline = timer.deadline
                    break
                # In one go: CPython runs signal handlers after calls and at backward jumps only.
                before = timer.before
                after = timer.after
                before.after = after
                after.before = before
                timer.slot = None
                timer.before = timer.after = _NOBODY
                collected.append(timer)
            else:
                del slots[tick]
                slot.before = slot.after = _NOBODY
                heappop(heap)
        if not collected:
            return []
        if len(heap) > 2 * len(slots):
            self._compact()
        self._collected = []
        return collected

    def clear(self) -> list[Timer]:
        """Remove and return all pending timers in (deadline, sequence) order, as if all had expired."""
        return self.expire(math.inf)

    def __len__(self) -> int:
        """The number of pending timers. Slow, it walks them: a counter would cost add and cancel a tenth."""
        count = 0
        for slot in self.occupied.values():
            timer = slot.after
            while timer is not slot:
                count += 1
                timer = timer.after
        return count

    def __bool__(self) -> bool:
        """Whether a timer is pending. O(1)."""
        return bool(self.occupied)

    @property
    def slots(self) -> int:
        """The number of ticks that hold a pending timer."""
        return len(self.occupied)

    @property
    def heap_size(self) -> int:
        """The number of heap entries, dead ones included; never more than twice `slots`."""
        return len(self._heap)

    def _close(self, slot: Timer) -> None:
        """Forget a slot whose last timer was cancelled."""
        tick = slot.sequence
        slots = self.occupied
        heap = self._heap
        del slots[tick]
        slot.before = slot.after = _NOBODY
        if heap[-1] == tick:
            heap.pop()
        if len(heap) > 2 * len(slots):
            self._compact()

    def _compact(self) -> None:
        """Rebuild the heap from the living slots. O(slots)."""
        heap = list(self.occupied)
        heapify(heap)
        self._heap = heap


def _tick_out_of_range(deadline: float) -> int:
    """The tick number of a deadline whose quotient by the tick overflows. ValueError if it is not finite."""
    if not -_LARGEST_FLOAT <= deadline <= _LARGEST_FLOAT:
        raise ValueError(f"a deadline must be a finite number of seconds, got {deadline!r}") from None
    return _FARTHEST_TICK if deadline > 0 else -_FARTHEST_TICK
