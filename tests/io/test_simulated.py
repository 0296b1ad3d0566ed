"""Any order of things: a hypothesis state machine over two threads, simulated files and a virtual clock.

What is done stands in the rules below, what must hold in support/sim/world.py. A failure is shrunk to a script of rules;
under it stands what happened, on the virtual clock.
"""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from support.once import once
from support.scale import scaled
from support.sim.kernel import READ, WRITE
from support.sim.poller import FLAVOURS
from support.sim.script import Step, as_python, one_of, recorded, replay, shortest
from support.sim.sockets import KINDS, SimSocket, use_simulated_calls
from support.sim.world import ELSEWHEN, World

pytestmark = once

T = TypeVar("T")

#: Rules that CI plays.
STEPS = 10_000

# What is written twice happens twice as often. Seconds are binary fractions: their sums are exact, so that things happen
# at the same time.
ACTIONS = ("start", "start", "start", "peer", "peer", "peer", "go_on", "go_on")
GO_ON = ("nothing", "ready", "turn", "settle", "settle")
LIMITS = (0.25, 0.5, 1.0, 0.0)  # 0: try once
TROUBLES = {
    "interrupts": ["cancel", "kill"],
    "closes": ["close", "close and open", "drop", "drop and open"],
    "thefts": ["steal", "steal and open", "steal and dup and open"],
    "ends": ["last_words", "last_words", "finish", "leave"],
    "errors": ["fail"],
    "boundaries": ["boundary"],
    "events": ["hold", "hold", "invent"],
    "signals": ["strike"],
    "new loops": ["new loop"],
}


@st.composite
def actions(draw: st.DrawFn) -> Step:
    """What the machine does next. One rule for all: hypothesis plays some worlds without some of the rules, and a world in
    which nobody ever begins anything is not worth it.
    """
    machine = draw(st.runner())

    def one(*values: Any) -> Any:
        return draw(one_of(values))

    name = one(*ACTIONS, *(("trouble",) if machine.troubles else ()))
    values = (
        {"slot": one(*"aaab"), "thread": one(*machine.threads)}
        if name != "go_on"
        else {"thread": one(*machine.threads)}
    )
    if name == "start":
        values |= {
            "kind": one(*machine.kinds),
            "size": one(1, 2, 3),
            "timeout": one(*machine.timeouts),
            "scope": one(*machine.scopes),
            "fibers": one(1, 1, 1, 1, 2, 3),
            "then": one(*GO_ON),
        }
    elif name == "peer":
        values |= {
            "what": one(*machine.peers),
            "count": one(1, 1, 2, 3, 9),
            "moment": one(*machine.moments),
            "delay": one(0.0, 0.0, 0.25),
            "then": one(*GO_ON),
        }
    elif name == "go_on":
        values |= {
            "how": one("ready", "turn", "settle"),
            "seconds": one(0.0, 0.25, 0.5, 1.0),
            "looking": one(False, True),
        }
    else:
        values |= {"what": one(*machine.troubles), "which": one(0, 1, 2, 3), "moment": one(*machine.moments)}
    return Step(name, values)


def few(values: Sequence[T], least: int = 0, most: int = 3) -> st.SearchStrategy[list[T]]:
    return st.lists(st.sampled_from(values), min_size=least, max_size=most, unique=True)


class Machine(RuleBasedStateMachine):
    """One world and what is done in it.

    A world has a few kinds of things happen, and those often: what all happens together hides most faults.

    Sockets stand in slots, `a` and `b`: whatever is to be done with a slot that holds none makes one first. `thread` is
    who does it. `moment` is now, or a point inside of what the other thread does next (see World.at). `then` is who goes
    on afterwards.
    """

    steps = 0
    last: "Machine"

    def __init__(self) -> None:
        super().__init__()
        self.script: list[Step] = []
        Machine.last = self

    @initialize(
        flavour=st.sampled_from(sorted(FLAVOURS)),
        seed=st.sampled_from([0, 0, 0, 1, 2, 3, 4, 5]),
        streams=st.booleans(),
        threads=st.sampled_from(["A", "AAB", "AB"]),
        kinds=few(list(KINDS), 1, 2),
        timeouts=few(LIMITS, 0, 3),
        scopes=few(LIMITS[:3], 0, 1),
        moments=few(ELSEWHEN, 0, 3),
        troubles=few(list(TROUBLES), 0, 2),
    )
    @recorded
    def begin(
        self,
        flavour: str,
        seed: int,
        streams: bool,
        threads: str,
        kinds: list[str],
        timeouts: list[float],
        scopes: list[float],
        moments: list[str],
        troubles: list[str],
    ) -> None:
        self.world = World(flavour, seed)
        self.streams = streams
        self.slots: dict[str, SimSocket] = {}
        self.threads = threads
        self.kinds = kinds
        self.peers = [{READ: "send", WRITE: "take"}[KINDS[kind]] for kind in kinds]
        self.timeouts = [None, *timeouts]
        self.scopes = [None, None, *scopes]
        self.moments = ["now", "now", *moments]
        self.troubles = [what for group in troubles for what in TROUBLES[group]]

    @rule(action=actions())
    def act(self, action: Step) -> None:
        getattr(self, action.name)(**action.values)

    def _socket(self, slot: str, thread: str) -> SimSocket:
        sock = self.slots.get(slot)
        if sock is not None and sock.file.told and not (sock.closed or sock.gone) and self.world.unused(sock):
            self.world.close(sock, self.world.actors[thread])  # nothing new will happen to it
        if sock is None or sock.closed or sock.gone:
            sock = SimSocket(f"{slot}{len(self.world.sockets) + 1}", self.world.kernel, self.streams)
            self.slots[slot] = sock
            self.world.sockets.append(sock)
            self.world.open(sock, self.world.actors[thread])
        return sock

    @recorded
    def start(
        self,
        slot: str,
        thread: str,
        kind: str,
        size: int,
        timeout: float | None,
        scope: float | None,
        fibers: int,
        then: str,
    ) -> None:
        """Fibers that do the same; they begin when somebody lets them run."""
        sock = self._socket(slot, thread)
        if kind == "sendall":
            size *= 3
            timeout = timeout or None  # to send all at once or not at all is the C type's own business
        for _ in range(fibers):
            if len(self.world.operations) < 255:
                operation = self.world.operation(kind, sock, size, timeout, scope)
                self.world.start(operation, self.world.actors[thread])
        self._go_on(then, thread)

    @recorded
    def peer(self, slot: str, what: str, count: int, thread: str, moment: str, delay: float, then: str) -> None:
        """The other end of the connection sends, or takes what was sent to it."""
        file = self._socket(slot, thread).file
        self.world.at(moment, thread, lambda: self.world.kernel.plan(delay, lambda: getattr(file, what)(count)))
        self._go_on(then, thread)

    @recorded
    def go_on(self, how: str, seconds: float, looking: bool, thread: str) -> None:
        """Time passes. `looking`: each thread does what is due when it is due, else they see it later."""
        if looking and seconds:
            self.world.advance(seconds)
        else:
            self.world.tick(seconds)
        self._go_on(how, thread)

    def _go_on(self, how: str, thread: str) -> None:
        if how == "ready":
            self.world.actors[thread].run_ready()
        elif how == "turn":
            self.world.actors[thread].turn()
        elif how == "settle":
            self.world.settle()

    @recorded
    def trouble(self, slot: str, what: str, which: int, thread: str, moment: str) -> None:
        """Something that ends, breaks or disturbs. `which`: of the fibers that use the socket, as they came."""
        world = self.world
        if what == "new loop":
            world.restart(thread)
        elif what == "strike":
            world.strike(world.actors[thread])
        elif what in TROUBLES["interrupts"]:
            world.at(moment, thread, lambda: self._interrupt(slot, what, which, thread))
        elif what in (*TROUBLES["closes"], *TROUBLES["thefts"]):
            world.at(moment, thread, lambda: self._close(slot, what, thread))
        elif what in TROUBLES["events"]:
            self._disturb(slot, what, which, thread)
        elif what in TROUBLES["boundaries"]:
            # A read stops there. Streams are told of it, but for a kqueue; on others a short read proves nothing.
            if not (self.streams and world.flavour == "kqueue"):
                file = self._socket(slot, thread).file
                (file.mark if self.streams else file.boundary)()
        else:
            world.at(moment, thread, getattr(self._socket(slot, thread).file, what))

    def _interrupt(self, slot: str, how: str, which: int, thread: str) -> None:
        if slot in self.slots:
            live = [each for each in self.world.of(self.slots[slot]) if not each.outcome]
            if which < len(live):
                getattr(self.world, how)(live[which], self.world.actors[thread])

    def _close(self, slot: str, how: str, thread: str) -> None:
        sock = self.slots.get(slot)
        if sock is None or sock.closed or sock.gone or sock.state.handle.calling():
            return  # who closes a file waits for a first try that is under way, and here that stands still
        if how.startswith("close"):
            self.world.close(sock, self.world.actors[thread])
        elif how == "drop" and self.world.unused(sock):
            self.world.actors[thread].call(sock.drop)
        elif how.startswith("steal") and self.world.can_be_stolen(sock):
            self.world.steal(sock, "dup" in how)
        if how.endswith("open"):
            self._socket(slot, thread)

    def _disturb(self, slot: str, what: str, which: int, thread: str) -> None:
        sock = self.slots.get(slot)
        if sock is not None and what == "hold":
            self.world.actors[thread].poller.hold(sock.file)
        elif sock is not None and sock.number >= 0:
            self.world.actors[thread].poller.invent(sock.number, which or 3)

    # -- what holds -----------------------------------------------------------------------------------------------

    def check(self) -> None:
        if hasattr(self, "world"):
            self.world.check_books()
            self.world.raise_failures()

    def check_invariants(self, *_: object, **__: object) -> None:
        """After each rule. (An `@invariant` would be a line of its own after each line of a script.)"""
        type(self).steps += 1
        self.check()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            failed = bool(self.world.failures)
            try:
                if not failed:
                    self.world.settle()
            finally:
                self.world.end()
            if not failed:
                self.world.raise_failures()


def play(examples: int, steps: int) -> None:
    """Raises what the machine finds, with the shortest script that shows it."""
    with use_simulated_calls():
        try:
            run_state_machine_as_test(
                Machine, settings=settings(max_examples=examples, stateful_step_count=steps, report_multiple_bugs=False)
            )
        except Exception as error:
            script = shortest(Machine, Machine.last.script)
            failure = replay(Machine, script) or error
            raise AssertionError(f"{failure}\nafter\n{as_python(script)}") from error


@pytest.mark.timeout(300)  # some 15 s on a quiet machine
def test_any_order_of_things() -> None:
    Machine.steps = 0
    play(scaled(6000, least=300), 50)
    print(f"{Machine.steps} rules were played")
    assert Machine.steps >= STEPS


# -- scripts that found something -----------------------------------------------------------------------------------

WORLD: dict[str, Any] = {
    "flavour": "epoll",
    "seed": 0,
    "streams": False,
    "threads": "A",
    "kinds": ["recv"],
    "timeouts": [],
    "scopes": [],
    "moments": [],
    "troubles": [],
}  # fmt: skip


@pytest.fixture
def machine() -> Iterator[Machine]:
    with use_simulated_calls():
        machine = Machine()
        yield machine
        machine.check()
        machine.teardown()


def start(machine: Machine, kind: str, then: str, **values: Any) -> None:
    machine.start(
        **{
            "slot": "a",
            "thread": "A",
            "kind": kind,
            "size": 1,
            "timeout": None,
            "scope": None,
            "fibers": 1,
            "then": then,
            **values,
        }
    )


def test_a_recv_that_is_woken_for_nothing_keeps_its_place(machine: Machine) -> None:
    """It handed the turn on, and stood behind those who had come later."""
    machine.begin(**WORLD)
    start(machine, "recv", "settle")
    machine.peer(slot="a", thread="A", what="send", count=1, moment="now", delay=0.0, then="settle")
    start(machine, "recv", "settle", fibers=2)
    machine.trouble(slot="a", thread="A", what="invent", which=1, moment="now")
    machine.go_on(thread="A", how="settle", seconds=0.0, looking=False)
    machine.peer(slot="a", thread="A", what="send", count=1, moment="now", delay=0.0, then="settle")


def test_a_recv_that_waits_keeps_its_own_timeout(machine: Machine) -> None:
    """Woken for nothing, or by a close, it took the timeout that somebody else had set on the socket since."""
    machine.begin(**WORLD)
    start(machine, "recv", "settle")
    machine.peer(slot="a", thread="A", what="send", count=1, moment="now", delay=0.0, then="settle")
    start(machine, "recv", "settle")
    start(machine, "recv", "settle", timeout=0.25)
    machine.trouble(slot="a", thread="A", what="invent", which=1, moment="now")
    machine.go_on(thread="A", how="settle", seconds=1.0, looking=True)
    start(machine, "recv", "settle", timeout=0.0)
    machine.trouble(slot="a", thread="A", what="close", which=0, moment="now")


def test_who_tries_by_the_clock_takes_no_turn(machine: Machine) -> None:
    """Two of them handed the turn that they had no use for to each other, without end."""
    machine.begin(**WORLD)
    start(machine, "send by the clock", "ready", size=3, fibers=4)
    start(machine, "send", "settle", scope=0.25)
    machine.go_on(thread="A", how="settle", seconds=1.0, looking=True)
    machine.trouble(slot="a", thread="A", what="close", which=0, moment="now")
