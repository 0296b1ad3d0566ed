"""Trees of scopes, groups and fibers against a model, step by step.

Each *actor* is a fiber that does what it is told: enter a scope or a group, leave the innermost one, fail. While it waits
to be told, it waits like any fiber, and can be cancelled. After each step everything settles; then the model must agree
about who stands in which scopes, which scopes are cancelled and which have caught, and how each fiber has ended. The clock
is virtual: it stands still but for the step that advances it.

The model knows nothing of how scopes are made. It says: an actor that is cancelled where it stands unwinds, from the
innermost scope outwards; a group on the way waits for its actors; the outermost scope that is cancelled, and not shielded
from there, catches.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from support.virtual import VirtualClock, run_virtual

import fibers
from fibers import lowlevel
from fibers.core.scheduler import get_scheduler

FOREVER = float("inf")
SECONDS = st.sampled_from([8, 5, 3, 2, 1, 0])
# A group, or (shield, seconds, raises, absolute) of a scope; the simplest first, for shrinking.
SCOPES = st.just("group") | st.tuples(st.booleans(), st.none() | SECONDS, st.booleans(), st.booleans())
GRACES = st.sampled_from([None, None, 0, 2, 4])


class Oops(Exception):
    """What an actor fails with."""


# -- the real ones --------------------------------------------------------------------------------------------------


class Actor:
    """A fiber that does what it is told."""

    def __init__(self, timed: bool) -> None:
        self.fiber: fibers.Fiber[Any]
        self.told: list[tuple[str, Any]] = []
        self.stack: list[fibers.CancelScope] = []
        self.answers: list[float] = []
        self.timeouts: list[fibers.CancelScope] = []
        self.limit = 1e9 if timed else None

    def tell(self, what: str, scope: Any = None) -> None:
        self.told.append((what, scope))
        lowlevel.unpark(self.fiber)

    def run(self) -> None:
        self._block()

    def _block(self) -> None:
        while True:
            while not self.told:
                lowlevel.park(self.limit)
            what, scope = self.told.pop()
            if what == "leave":
                return
            if what == "fail":
                raise Oops
            if what == "ask":
                self.answers.append(fibers.current_deadline())
            else:
                self._enter(scope)

    def _enter(self, scope: fibers.CancelScope) -> None:
        try:
            with scope:
                self.stack.append(scope)
                self._block()
        except TimeoutError as error:
            if hasattr(error, "scope") or not scope._raises:
                raise
            self.timeouts.append(scope)
        finally:
            self.stack.pop()


# -- the model ------------------------------------------------------------------------------------------------------


class MScope:
    """A scope, or an actor as the outermost of its scopes."""

    def __init__(self, real: Any, shield: bool = False, deadline: float = FOREVER, raises: bool = False) -> None:
        self.real = real
        self.shield = shield
        self.deadline = deadline
        self.raises = raises
        self.cancelled = self.by_deadline = self.final = False
        self.final_at = FOREVER
        self.caught = self.timed_out = self.left = False

    def look(self, now: float) -> None:
        if not self.cancelled and self.deadline <= now:
            self.cancelled = self.by_deadline = True
        if self.cancelled and self.final_at <= now:
            self.final = True

    def next_look(self) -> float:
        if not self.cancelled:
            return self.deadline
        return FOREVER if self.final else self.final_at


class MGroup(MScope):
    def __init__(self, real: fibers.TaskGroup, owner: "MActor") -> None:
        super().__init__(real)
        self.owner = owner
        self.living: list[MActor] = []
        self.failures = 0


class MActor(MScope):
    def __init__(self, real: Actor, group: MGroup | None, timed: bool) -> None:
        super().__init__(real)
        self.group = group
        self.timed = timed
        self.stack: list[MScope] = []
        self.leaving = False  # it is at the end of its innermost block
        self.error: Any = None  # with what: None, "cancelled", "failed", or the scope whose deadline has surfaced
        self.told: set[MScope] = set()
        self.end: str | None = None

    def outwards(self, below: MScope | None = None) -> Iterator[MScope]:
        """The scopes that it is in, from the one around `below` (None: from the innermost) outwards."""
        inner = self.stack if below is None else self.stack[: self.stack.index(below)]
        yield from reversed(inner)
        yield self
        if self.group is not None:
            yield self.group
            yield from self.group.owner.outwards(self.group)


def felt(scopes: Iterator[MScope], shielded: bool = False) -> MScope | None:
    """The outermost cancelled scope that is felt."""
    found = None
    for scope in scopes:
        if scope.cancelled and (scope.final or not shielded):
            found = scope
        shielded = shielded or scope.shield
    return found


def step(actor: MActor) -> bool:
    """Let an actor go on, if it can. Has anything changed?"""
    if actor.end is not None:
        return False
    cause = felt(actor.outwards())
    if not actor.leaving:
        if cause is None:
            return False
        actor.leaving, actor.error = True, "cancelled"
        if actor.timed and cause.by_deadline and cause not in actor.told:
            actor.told.add(cause)
            actor.error = cause
    if not actor.stack:
        finish(actor)
        return True
    scope = actor.stack[-1]
    if isinstance(scope, MGroup):
        if scope.living:
            return wait_at_the_end(actor, scope, cause)
        scope.cancelled = scope.cancelled or actor.error is not None
        if scope.failures or actor.error == "failed":
            actor.error = "failed"
    actor.stack.pop()
    scope.left = True
    if actor.error == "cancelled":
        mine = scope.cancelled and felt(actor.outwards(), scope.shield) is None
    else:
        mine = actor.error is scope
    if mine:
        scope.caught = True
        scope.timed_out = scope.raises and scope.by_deadline
        actor.error = None
    if actor.error is None:
        actor.leaving = False
    return True


def wait_at_the_end(actor: MActor, group: MGroup, cause: MScope | None) -> bool:
    """Cancellation is handed on, and the wait goes on."""
    if actor.error is None and cause is not None:
        actor.error = "cancelled"
    elif actor.error is None or group.cancelled:
        return False
    changed = not group.cancelled
    group.cancelled = True
    return changed


def finish(actor: MActor) -> None:
    actor.end = actor.error if actor.error in (None, "cancelled", "failed") else "told"
    actor.end = actor.end or "well"
    if actor.group is not None:
        actor.group.living.remove(actor)
        if actor.end == "failed":
            actor.group.failures += 1
            actor.group.cancelled = True


# -- the machine ----------------------------------------------------------------------------------------------------


class ScopeTrees(RuleBasedStateMachine):
    clock: VirtualClock

    def __init__(self) -> None:
        super().__init__()
        self.actors: list[MActor] = []
        self.scopes: list[MScope] = []

    # -- what can be chosen

    def waiting(self) -> list[MActor]:
        return [actor for actor in self.actors if actor.end is None and not actor.leaving]

    def open_scopes(self) -> list[MScope]:
        return [scope for scope in self.scopes if not scope.left]

    def groups(self) -> list[MGroup]:
        return [scope for scope in self.open_scopes() if isinstance(scope, MGroup)]

    def choose(self, data: st.DataObject, among: list[Any]) -> Any:
        return among[data.draw(st.integers(0, len(among) - 1))]

    # -- steps

    @precondition(lambda self: len([a for a in self.actors if a.end is None]) < 12)
    @rule(timed=st.booleans())
    def spawn(self, timed: bool) -> None:
        real = Actor(timed)
        real.fiber = fibers.spawn(real.run)
        self.actors.append(MActor(real, None, timed))
        self.compare()

    @precondition(lambda self: self.groups() and len([a for a in self.actors if a.end is None]) < 12)
    @rule(data=st.data(), timed=st.booleans())
    def spawn_in_a_group(self, data: st.DataObject, timed: bool) -> None:
        group: MGroup = self.choose(data, self.groups())
        real = Actor(timed)
        real.fiber = group.real.spawn(real.run)
        actor = MActor(real, group, timed)
        self.actors.append(actor)
        if felt(actor.outwards()) is None:
            group.living.append(actor)
        else:
            actor.end = "cancelled"  # it never runs
        self.compare()

    @initialize()
    def begin(self) -> None:
        for timed in (False, True):
            self.spawn(timed)

    @precondition(lambda self: self.waiting())
    @rule(data=st.data(), specifications=st.lists(SCOPES, min_size=1, max_size=3))
    def enter(self, data: st.DataObject, specifications: list[Any]) -> None:
        actor = self.choose(data, self.waiting())
        for specification in specifications:
            if actor.end is not None or actor.leaving:
                break
            if specification == "group":
                self.put(actor, MGroup(fibers.TaskGroup(), actor))
                continue
            shield, seconds, raises, absolute = specification
            deadline = FOREVER if seconds is None else self.clock() + seconds
            if absolute and not raises:
                real = fibers.CancelScope(deadline=deadline, shield=shield)
            else:
                real = (fibers.timeout if raises else fibers.move_on_after)(seconds, shield=shield)
            self.put(actor, MScope(real, shield, deadline, raises))

    @precondition(lambda self: self.waiting())
    @rule(data=st.data(), grace=GRACES)
    def enter_a_cancelled_one(self, data: st.DataObject, grace: float | None) -> None:
        real = fibers.CancelScope()
        real.cancel(grace)
        scope = MScope(real)
        scope.cancelled = True
        if grace is not None:
            scope.final_at = self.clock() + grace
        self.put(self.choose(data, self.waiting()), scope)

    def put(self, actor: MActor, scope: MScope) -> None:
        actor.real.tell("enter", scope.real)
        actor.stack.append(scope)
        self.scopes.append(scope)
        self.compare()

    @precondition(lambda self: self.waiting())
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        actor = self.choose(data, self.waiting())
        actor.real.tell("leave")
        actor.leaving = True
        self.compare()

    @precondition(lambda self: self.open_scopes())
    @rule(data=st.data(), grace=GRACES)
    def cancel(self, data: st.DataObject, grace: float | None) -> None:
        scope = self.choose(data, self.open_scopes())
        scope.real.cancel(grace)
        scope.cancelled = True
        if grace is not None:
            scope.final_at = min(scope.final_at, self.clock() + grace)
        self.compare()

    @precondition(lambda self: self.waiting())
    @rule(data=st.data(), fails=st.booleans())
    def end(self, data: st.DataObject, fails: bool) -> None:
        """Of an actor, or of more: by its failure, or because it is cancelled."""
        actor = self.choose(data, self.waiting())
        if fails:
            actor.real.tell("fail")
            actor.leaving, actor.error = True, "failed"
        else:
            actor.real.fiber.cancel()
            actor.cancelled = True
        self.compare()

    @precondition(lambda self: self.open_scopes())
    @rule(data=st.data(), seconds=st.none() | SECONDS)
    def move_a_deadline(self, data: st.DataObject, seconds: float | None) -> None:
        scope = self.choose(data, self.open_scopes())
        scope.deadline = scope.real.deadline = FOREVER if seconds is None else self.clock() + seconds
        self.compare()

    @precondition(lambda self: self.open_scopes())
    @rule(data=st.data(), shield=st.booleans())
    def change_a_shield(self, data: st.DataObject, shield: bool) -> None:
        scope = self.choose(data, self.open_scopes())
        scope.shield = scope.real.shield = shield
        self.compare()

    @rule(seconds=SECONDS)
    def advance(self, seconds: float) -> None:
        until = self.clock() + seconds
        now = self.clock()
        while True:
            looks = [look for scope in self.everything() if (look := scope.next_look()) <= until]
            if not looks:
                break
            now = max(now, min(looks))
            self.settle_the_model(now)
        fibers.sleep(seconds)
        assert self.clock() == until
        self.compare()

    @precondition(lambda self: self.waiting())
    @rule(data=st.data())
    def ask_for_the_deadline(self, data: st.DataObject) -> None:
        actor = self.choose(data, self.waiting())
        actor.real.tell("ask")
        self.settle()
        expected, shielded = FOREVER, False
        for scope in actor.outwards():
            if scope.cancelled:
                expected = min(expected, scope.final_at)
            elif not shielded:
                expected = min(expected, scope.deadline)
            shielded = shielded or scope.shield
        assert actor.real.answers.pop() == expected
        self.compare()

    # -- agreement

    def everything(self) -> list[MScope]:
        return [*self.open_scopes(), *(actor for actor in self.actors if actor.end is None)]

    def settle_the_model(self, now: float) -> None:
        for scope in self.everything():
            scope.look(now)
        changed = True
        while changed:
            changed = sum([step(actor) for actor in self.actors]) > 0
            for scope in self.everything():
                scope.look(now)

    def settle(self) -> None:
        scheduler = get_scheduler()
        loop: Any = scheduler.loop
        fibers.yield_now()
        while scheduler.ready or loop._inbox:
            fibers.yield_now()

    def compare(self) -> None:
        self.settle()
        self.settle_the_model(self.clock())
        for scope in self.scopes:
            assert scope.real.cancel_called == scope.cancelled
            assert scope.real.cancelled_caught == scope.caught
        for actor in self.actors:
            assert actor.real.stack == [scope.real for scope in actor.stack]
            assert ends_as(actor.real.fiber) == actor.end
            assert not actor.real.fiber.interrupt or actor.end or actor.leaving
        living = [actor for actor in self.actors if actor.end is None]
        loop: Any = get_scheduler().loop
        assert len(loop.timers) <= 2 * len(living)  # an alarm each, and the limit of a timed wait
        timed_out = [scope.real for scope in self.scopes if scope.timed_out]
        assert sorted(map(id, timed_out)) == sorted(id(s) for actor in self.actors for s in actor.real.timeouts)

    def teardown(self) -> None:
        for actor in self.actors:
            if actor.end is None and actor.group is None:
                with fibers.CancelScope():
                    actor.real.fiber.cancel()
        for scope in self.open_scopes():
            scope.real.cancel(grace=0)
        self.settle()
        for actor in self.actors:
            assert actor.real.fiber.done()
            assert actor.real.fiber.scope is None
        loop: Any = get_scheduler().loop
        assert len(loop.timers) == 0


def ends_as(fiber: fibers.Fiber[Any]) -> str | None:
    if not fiber.done():
        return None
    error = fiber.exception()
    if error is None:
        return "well"
    if isinstance(error, fibers.FiberCancelled):
        return "cancelled"
    return "told" if isinstance(error, TimeoutError) else "failed"


@pytest.mark.timeout(3600)
def test_trees_of_scopes_behave_as_the_model_says() -> None:
    def main(clock: VirtualClock) -> None:
        ScopeTrees.clock = clock
        run_state_machine_as_test(ScopeTrees)

    run_virtual(main)
