"""Any order of things, one floor below fibers: a state machine over two loops, with a model in the place of operations.

The model waits as io/waiting.py does: in a turn, for an edge, and tries again. It is no fiber, so every step of it can be
taken apart: whoever is ready goes on when a rule says so, a loop is closed under those who wait in it. After each rule
every waiter is in one place, or in none if it is over: woken exactly once.
"""

import errno
import functools
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from support.once import once
from support.scale import scaled
from support.sim.kernel import FIRST, READ, WRITE, SimKernel
from support.sim.poller import FLAVOURS, SimPoller
from support.sim.puppet import Puppet, Strike
from support.sim.script import Step, as_python, one_of, recorded, replay, shortest

from fibers.errors import ClosedError, OwnershipError
from fibers.eventloop import CLOSED, FOREVER, RETRY, TIMED_OUT, Direction, Handle, Outcome, PollingLoop, ownership

pytestmark = once

STEPS = 3000

TROUBLES = {
    "abandon": ["abandon"],
    "close": ["close", "close and open", "steal", "steal and open"],
    "peer": ["finish", "fail", "leave"],
    "disturb": ["hold", "invent", "strike"],
    "end": ["close loop"],
}


@st.composite
def actions(draw: st.DrawFn) -> Step:
    """What the machine does next. (One rule for all, as in io/test_simulated.py.)"""
    machine = draw(st.runner())

    def one(*values: Any) -> Any:
        return draw(one_of(values))

    names = ("wait", "wait", "peer", "peer", "turn", "turn", "resume", "resume", "settle", "pass_time")
    name = one(*names, *(("trouble", "trouble") if machine.troubles else ()))
    if name == "settle":
        return Step(name, {})
    if name == "pass_time":
        return Step(name, {"seconds": one(0.25, 0.25, 0.5, 1.0)})
    values = {"thread": one(*"AAAB")}
    if name == "turn":
        values |= {"block": one(False, True)}
    elif name != "resume":
        values |= {"slot": one(*"aab")}
    if name == "wait":
        timeout = one(FOREVER, FOREVER, 0.25, 0.5, 1.0)
        values |= {"interest": one(READ, READ, WRITE), "timeout": timeout, "count": one(1, 1, 2, 3)}
    elif name == "peer":
        values |= {"interest": one(READ, READ, WRITE), "count": one(1, 2, 3), "delay": one(0.0, 0.0, 0.25)}
    elif name == "trouble":
        values |= {"what": one(*machine.troubles), "which": one(0, 1, 2, 3)}
    return Step(name, values)


class LoopPuppet(Puppet):
    """A thread with a loop, and nothing that runs in it."""

    def __init__(self, name: str, kernel: SimKernel, make_poller: Callable[[], SimPoller]) -> None:
        self._kernel, self._make_poller = kernel, make_poller
        super().__init__(name)

    def live(self) -> None:
        self.loop = PollingLoop(self._poller, self._kernel.clock)
        try:
            self.serve()
        finally:
            self.loop.close()

    def _poller(self) -> SimPoller:
        self.poller = self._make_poller()
        self.poller.sleep = self._sleep
        return self.poller

    def _sleep(self, until: float | None) -> bool:
        if until is None and self._kernel.next_planned() is None:
            self.loop.wake()  # nothing would
            return True
        return self.poller.let_time_pass(until)

    def strike(self) -> None:
        raise Strike


class Waiter:
    """One operation that waits. What a loop may touch is `outcome` and `deadline`."""

    def __init__(self, name: str, thread: str, slot: "Slot", interest: int, deadline: float) -> None:
        self.name = name
        self.thread = thread
        self.slot = slot
        self.interest = interest
        self.deadline = deadline
        self.outcome: Outcome | None = None
        self.over = ""
        self.direction: Direction

    def __repr__(self) -> str:
        return f"{self.name} ({'reads' if self.interest == READ else 'writes'} {self.slot.file} in {self.thread})"


class Slot:
    """A file, its number, and the handle under which it is known now."""

    def __init__(self, kernel: SimKernel, thread: str) -> None:
        self.kernel = kernel
        self.number = kernel.open(room=1)
        self.file = kernel.file(self.number)
        self.handle: Handle
        self.closed = self.stolen = False

    def close(self) -> None:
        self.kernel.close(self.number)


class Machine(RuleBasedStateMachine):
    """See the module's text."""

    steps = 0
    last: "Machine"

    def __init__(self) -> None:
        super().__init__()
        self.script: list[Step] = []
        Machine.last = self

    @initialize(
        flavour=st.sampled_from(sorted(FLAVOURS)),
        seed=st.sampled_from([0, 0, 1, 2, 3]),
        troubles=st.lists(st.sampled_from(sorted(TROUBLES)), max_size=2, unique=True),
    )
    @recorded
    def begin(self, flavour: str, seed: int, troubles: list[str]) -> None:
        self.kernel = SimKernel()
        self.flavour, self.seed = flavour, seed
        self.troubles = [what for group in troubles for what in TROUBLES[group]]
        self.puppets = {name: self._puppet(name) for name in "AB"}
        self.slots: dict[str, Slot] = {}
        self.waiters: list[Waiter] = []

    @rule(action=actions())
    def act(self, action: Step) -> None:
        getattr(self, action.name)(**action.values)

    def _puppet(self, name: str) -> LoopPuppet:
        return LoopPuppet(name, self.kernel, lambda: FLAVOURS[self.flavour](self.kernel, self.seed))

    def _slot(self, name: str, thread: str) -> Slot:
        slot = self.slots.get(name)
        if slot is None or slot.closed or slot.stolen:
            slot = self.slots[name] = Slot(self.kernel, thread)
            puppet = self.puppets[thread]
            slot.handle = puppet.call(puppet.loop.handle, slot.number, True)
        return slot

    # -- the model of an operation ----------------------------------------------------------------------------------

    @recorded
    def wait(self, slot: str, thread: str, interest: int, timeout: float, count: int) -> None:
        """Begin an operation: try, or wait for the turn."""
        where = self._slot(slot, thread)
        for _ in range(count):
            waiter = Waiter(f"w{len(self.waiters) + 1}", thread, where, interest, self.kernel.now + timeout)
            self.waiters.append(waiter)
            self.puppets[thread].call(self._begin, waiter)

    def _begin(self, waiter: Waiter) -> None:
        slot, loop = waiter.slot, self.puppets[waiter.thread].loop
        waiter.outcome = None
        try:
            slot.handle = loop.claim(slot.handle)
        except ClosedError:
            assert slot.closed or slot.stolen, f"{waiter} was told that an open file is closed"
            waiter.over = "closed"
            return
        except OwnershipError:
            others = [each for each in self.waiters if each.slot is slot and not each.over and each is not waiter]
            assert any(each.thread != waiter.thread for each in others), f"{waiter} was refused for nobody's sake"
            waiter.over = "refused"
            return
        direction = waiter.direction = slot.handle.reading if waiter.interest == READ else slot.handle.writing
        if direction.holder is not None:
            direction.enqueue(waiter)
            if waiter.deadline < direction.alarm:
                direction.set_alarm(waiter.deadline)
        else:
            direction.holder = waiter
            self._go_on(waiter)

    def _go_on(self, waiter: Waiter, woken: bool = False) -> None:
        """It has the turn. Whoever was woken tries, whatever the latch says."""
        direction, loop = waiter.direction, self.puppets[waiter.thread].loop
        while direction.loop is loop and not direction.closed:
            if direction.edges == direction.drained and not woken:
                direction.waiter = waiter
                armed = direction.armed and waiter.deadline >= direction.alarm
                if armed or loop.watch(direction, waiter.deadline):
                    return
                direction.waiter = None
            woken, seen = False, direction.edges
            try:
                if waiter.interest == READ:
                    self.kernel.read(waiter.slot.number, 1)
                else:
                    self.kernel.write(waiter.slot.number, b"x")
            except BlockingIOError:
                direction.drained = seen
                if waiter.outcome is TIMED_OUT:
                    self._end(waiter, "timeout")
                    return
                continue
            except OSError as error:
                if error.errno == errno.EBADF and not waiter.slot.stolen:
                    raise AssertionError(f"{waiter} was let at a closed number") from error
            self._end(waiter, "done")
            return
        self._end(waiter, "")
        self._begin(waiter)

    def _end(self, waiter: Waiter, how: str) -> None:
        waiter.over = how
        if how:
            self.kernel.note(f"{waiter} ends: {how}")
        waiter.direction.waiter = None
        waiter.direction.release()

    @recorded
    def resume(self, thread: str) -> None:
        """Whoever is ready goes on."""
        puppet = self.puppets[thread]
        puppet.call(self._resume, puppet.loop)

    def _resume(self, loop: PollingLoop) -> None:
        for _ in range(len(loop.ready)):
            waiter: Any = loop.ready.popleft()
            outcome, direction, slot = waiter.outcome, waiter.direction, waiter.slot
            self.kernel.note(f"{waiter} goes on: {outcome}")
            if outcome is TIMED_OUT:
                assert self.kernel.now >= waiter.deadline, f"{waiter} was timed out too early"
            elif outcome is CLOSED:
                assert slot.closed or slot.stolen, f"{waiter} was told that an open file is closed"
            if outcome is RETRY:
                assert loop.closed, f"{waiter} was sent away by an open loop"
                if direction.holder is waiter:
                    self._end(waiter, "")
                self._begin(waiter)
            elif direction.holder is waiter:
                self._go_on(waiter, woken=True)
            elif outcome is TIMED_OUT:
                waiter.over = "timeout"
            else:
                assert outcome is not None, f"{waiter} was woken out of the queue, and has not got the turn"
                self._begin(waiter)

    # -- what else may happen ---------------------------------------------------------------------------------------

    @recorded
    def peer(self, slot: str, thread: str, interest: int, count: int, delay: float) -> None:
        file = self._slot(slot, thread).file
        self.kernel.plan(delay, functools.partial(file.send if interest == READ else file.take, count))

    @recorded
    def turn(self, thread: str, block: bool) -> None:
        """One turn. With `block`, time passes in it."""
        puppet = self.puppets[thread]
        puppet.call(self._turn, puppet, block)

    def _turn(self, puppet: LoopPuppet, block: bool) -> None:
        loop, poller = puppet.loop, puppet.poller
        waiting = {each: each.direction for each in self.waiters if not each.over and each.direction.waiter is each}
        poller.reported.clear()
        began = self.kernel.now
        try:
            loop.turn(block)
        except Strike:
            return
        assert not poller.full, "a full batch of events was looked at, and not for more"
        if block and began < self.kernel.now:
            mine = [each for each in self.waiters if not each.over and each.thread == puppet.name]
            late = [each for each in mine if each.deadline < self.kernel.now and each not in loop.ready]
            assert not late, f"{puppet.name} has slept beyond the deadline of {late}"
        for waiter, direction in waiting.items():
            if direction.loop is loop and waiter.outcome is TIMED_OUT:
                mask = poller.READABLE if direction.interest == READ else poller.WRITABLE
                told = [fd for fd, bits in poller.reported if fd == direction.handle.fd and bits & mask]
                assert not told, f"{waiter} was timed out in a turn that had an event for it"

    @recorded
    def pass_time(self, seconds: float) -> None:
        self.kernel.pass_time(self.kernel.now + seconds)

    @recorded
    def settle(self) -> None:
        """Everybody does what there is to do, until there is nothing."""
        for _ in range(100):
            for puppet in self.puppets.values():
                puppet.call(self._turn, puppet, False)
                puppet.call(self._resume, puppet.loop)
            if not any(self._busy(puppet) for puppet in self.puppets.values()):
                break
        else:
            raise AssertionError("there is always something to do")
        for waiter in self.waiters:
            if waiter.over:
                continue
            slot = waiter.slot
            assert waiter.deadline > self.kernel.now, f"{waiter} waits beyond its deadline"
            assert not slot.closed, f"{waiter} waits for a closed file"
            if slot.stolen:
                assert slot.number not in self.kernel.numbers, f"{waiter} waits for a number that is another's now"
                assert self.flavour != "poll", f"{waiter} waits for a number that is reported as closed"
            else:
                assert not slot.file.ready(waiter.interest), f"{waiter} waits for a file that is ready"

    def _busy(self, puppet: LoopPuppet) -> bool:
        loop, deadline = puppet.loop, puppet.loop.timers.next_deadline()
        late = deadline is not None and deadline <= self.kernel.now
        puppet.poller.held.clear()
        return bool(loop.ready or loop._inbox or late or puppet.poller.has_something())

    @recorded
    def trouble(self, slot: str, what: str, which: int, thread: str) -> None:
        puppet, where = self.puppets[thread], self._slot(slot, thread)
        if what == "abandon":
            mine = [each for each in self.waiters if each.thread == thread and not each.over]
            if which < len(mine):
                puppet.call(self._abandon, mine[which])
        elif what.startswith("close") and what != "close loop":
            where.closed = True
            owner = where.handle.loop
            assert owner is not None
            puppet.call(owner.release, where.handle, where.close)
        elif what.startswith("steal"):
            where.stolen = where.file.stolen = True
            self.kernel.close(where.number)
        elif what == "hold":
            puppet.poller.hold(where.file)
        elif what == "invent":
            puppet.poller.invent(where.number, which or 3)
        elif what == "strike":
            puppet.poller.after.append(puppet.strike)
        elif what == "close loop":
            puppet.call(puppet.loop.close)
            self.puppets[thread] = self._puppet(thread)
            self.puppets[thread].call(self._resume, puppet.loop)
            puppet.end()
        else:
            getattr(where.file, what)()
        if what.endswith("open"):
            self._slot(slot, thread)

    def _abandon(self, waiter: Waiter) -> None:
        """It is interrupted. If it has been woken already, it goes on."""
        waits = waiter.direction.holds(waiter)
        assert waiter.direction.abandon(waiter) == waits, f"{waiter} was taken out of a place where it was not"
        if waits:
            if waiter.direction.holder is waiter:
                self._end(waiter, "abandoned")
            else:
                waiter.over = "abandoned"

    # -- what holds -------------------------------------------------------------------------------------------------

    def _places(self, waiter: Waiter) -> list[Any]:
        """Itself, once for each place in which it is."""
        direction = waiter.__dict__.get("direction")
        found = [] if direction is None else [direction.waiter, *(direction.queue or ())]
        for puppet in self.puppets.values():
            found += puppet.loop.ready
        return [each for each in found if each is waiter]

    def check(self) -> None:
        for waiter in self.waiters:
            places = len(self._places(waiter))
            assert places == (0 if waiter.over else 1), f"{waiter} is in {places} places ({waiter.over or 'waiting'})"
        for name, puppet in self.puppets.items():
            stats, table = puppet.loop.stats, puppet.loop._table
            assert stats.registrations - stats.unregistrations == len(table), f"the books of {name} do not balance"
            assert not puppet.poller.left, f"numbers {puppet.poller.left} were closed while they were registered"

    def check_invariants(self, *_: object, **__: object) -> None:
        type(self).steps += 1
        if hasattr(self, "kernel"):
            self.check()

    def teardown(self) -> None:
        if hasattr(self, "kernel"):
            for puppet in self.puppets.values():
                puppet.poller.after.clear()
                puppet.call(puppet.loop.close)
                puppet.end()
            left = [number for number in ownership.owners if number >= FIRST]
            for number in left:
                del ownership.owners[number]
            assert not left, f"numbers {left} belong to loops that have ended"


def play(examples: int, steps: int) -> None:
    """Raises what the machine finds, with the shortest script that shows it."""
    try:
        run_state_machine_as_test(
            Machine, settings=settings(max_examples=examples, stateful_step_count=steps, report_multiple_bugs=False)
        )
    except Exception as error:
        journal = "\n".join(Machine.last.kernel.journal)
        script = shortest(Machine, Machine.last.script)
        failure = replay(Machine, script) or error
        raise AssertionError(f"{failure}\n{journal}\nafter\n{as_python(script)}") from error


def test_any_order_of_things_in_a_loop() -> None:
    Machine.steps = 0
    play(scaled(2000, least=100), 50)
    print(f"{Machine.steps} rules were played")
    assert Machine.steps >= STEPS
