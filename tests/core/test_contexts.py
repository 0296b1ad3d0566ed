"""Context variables: every fiber has its own copy, unless two share one on purpose.

Facts (hazard 17). `Context.run` refuses a context that is entered already, so two live fibers cannot both stand in
`Context.run` of the same one. The private copy made at spawn uses `Context.run`; an explicit `context=` is set through
the greenlet, and cleared afterwards, for the carrier goes on to run other fibers.
"""

import random
import weakref
from collections.abc import Callable
from contextvars import Context, ContextVar, Token, copy_context
from typing import Any

import pytest
from greenlet import getcurrent, greenlet
from support.scale import SEED, scaled

import fibers
from fibers.threads.to_thread import to_thread

who: ContextVar[str] = ContextVar("who", default="nobody")

held: ContextVar[object] = ContextVar("held")


class Thing:
    pass


def change(to: str, rounds: int = 1) -> list[str]:
    seen = [who.get()]
    who.set(to)
    for _ in range(rounds):
        fibers.yield_now()
        seen.append(who.get())
    return seen


def test_spawn_copies_the_callers_context() -> None:
    token = who.set("caller")
    try:
        fiber = fibers.spawn(change, "fiber")
        who.set("caller, later")
        assert fiber.result() == ["caller", "fiber"]
        assert who.get() == "caller, later"
    finally:
        who.reset(token)


def test_spawn_from_a_fiber_copies_that_fibers_context() -> None:
    def parent() -> list[str]:
        who.set("parent")
        return fibers.spawn(change, "child").result()

    assert fibers.spawn(parent).result() == ["parent", "child"]
    assert who.get() == "nobody"


def test_private_copies_do_not_mix() -> None:
    rounds = scaled(100, least=5)
    every = {str(number): fibers.spawn(change, str(number), rounds) for number in range(300)}
    for name, fiber in every.items():
        assert fiber.result() == ["nobody", *[name] * rounds]
    assert who.get() == "nobody"


def test_an_explicit_context_is_shared_by_two_live_fibers() -> None:
    """Hazard 17: with `Context.run` the second fails with "already entered"."""
    shared = Context()
    first = fibers.spawn(change, "first", 2, context=shared)
    second = fibers.spawn(change, "second", 2, context=shared)
    assert first.result() == ["nobody", "second", "second"]
    assert second.result() == ["first", "second", "second"]
    assert shared[who] == "second"
    assert who.get() == "nobody"


def test_many_live_fibers_share_one_context() -> None:
    shared = Context()
    every = [fibers.spawn(change, str(number), context=shared) for number in range(300)]
    for fiber in every:
        fiber.join()
    assert every[-1].result()[-1] == "299"
    assert every[0].result()[-1] == "299"


def test_the_callers_own_context_may_be_given() -> None:
    """The context that the caller is in at this moment; main stands in it without `Context.run`."""

    def parent() -> str:
        fiber = fibers.spawn(change, "child", context=copy_context())
        fiber.join()
        return who.get()

    assert fibers.spawn(parent).result() == "nobody"


def test_a_carrier_takes_no_context_along_to_the_next_fiber() -> None:
    """The same carrier runs many fibers: what an explicit context set must be gone for the next."""
    shared = Context()
    for _ in range(5):
        fibers.spawn(change, "explicit", context=shared).join()
        assert fibers.spawn(change, "private").result() == ["nobody", "private"]


def test_a_failing_fiber_leaves_its_context_too() -> None:
    def fail() -> None:
        who.set("failed")
        raise ValueError("on purpose")

    shared = Context()
    assert isinstance(fibers.spawn(fail, context=shared).exception(), ValueError)
    assert isinstance(fibers.spawn(fail).exception(), ValueError)
    assert shared[who] == "failed"
    assert fibers.spawn(change, "next").result()[0] == "nobody"
    assert fibers.spawn(change, "next", context=shared).result()[0] == "failed"


def test_an_explicit_context_is_let_go_of_when_its_fiber_ends() -> None:
    """An idle carrier would otherwise keep the last one, with all that is in it."""
    shared = Context()
    thing = Thing()
    gone = weakref.ref(thing)
    shared.run(held.set, thing)
    fibers.spawn(fibers.yield_now, context=shared).join()
    del shared, thing
    assert gone() is None


def test_spawn_later_runs_in_the_context_of_the_spawn() -> None:
    token = who.set("then")
    try:
        fiber = fibers.spawn_later(0.001, who.get)
    finally:
        who.reset(token)
    assert fiber.result() == "then"


def test_children_inherit_down_a_tree_and_nothing_comes_up() -> None:
    def live(path: tuple[int, ...], depth: int) -> int:
        assert who.get() == str(path[:-1])
        who.set(str(path))
        fibers.yield_now()
        children = [fibers.spawn(live, (*path, number), depth - 1) for number in range(3)] if depth else []
        count = 1 + sum(child.result() for child in children)
        assert who.get() == str(path)
        return count

    token = who.set("()")
    try:
        depth = 7 if scaled(100) > 50 else 6
        assert fibers.spawn(live, (0,), depth).result() == (3 ** (depth + 1) - 1) // 2
        assert who.get() == "()"
    finally:
        who.reset(token)


# -- thousands of fibers against a model ----------------------------------------------------------------------------------

VARIABLES = [ContextVar[int](f"variable {number}", default=-1) for number in range(4)]
Model = dict[ContextVar[int], int]


class Life:
    """One fiber that sets, resets, enters contexts, waits and spawns at random, and knows what it must see.

    `model` is what the variables are in its context; fibers that share a context share their model.
    """

    def __init__(self, draw: random.Random, model: Model, depth: int) -> None:
        self.draw = draw
        self.model = model
        self.depth = depth
        self.tokens: list[tuple[ContextVar[int], Token[int], int]] = []
        self.children: list[fibers.Fiber[None]] = []

    def check(self) -> None:
        for variable in VARIABLES:
            assert variable.get() == self.model.get(variable, -1), variable.name

    def live(self, steps: int) -> None:
        actions: list[Callable[[], None]] = [self.set, self.set, self.undo, self.wait, self.wait, self.wait, self.enter]
        if self.depth:
            actions += [self.spawn, self.hand_over]
        for _ in range(steps):
            self.draw.choice(actions)()
            self.check()
        for child in self.children:
            child.result()

    def set(self) -> None:
        variable, value = self.draw.choice(VARIABLES), self.draw.randrange(1_000_000)
        before = self.model.get(variable, -1)
        self.tokens.append((variable, variable.set(value), before))
        self.model[variable] = value

    def undo(self) -> None:
        if self.tokens:
            variable, token, before = self.tokens.pop()
            variable.reset(token)
            self.model[variable] = before

    def wait(self) -> None:
        if self.draw.random() < 0.1:
            fibers.sleep(self.draw.random() / 1000)
        else:
            fibers.yield_now()

    def enter(self) -> None:
        """`Context.run`, with waits inside."""
        inner = Life(self.draw, dict(self.model), 0)
        copy_context().run(inner.live, 4)

    def spawn(self) -> None:
        child = Life(random.Random(self.draw.random()), dict(self.model), self.depth - 1)
        fiber = fibers.spawn(child.live, 6)
        if self.draw.random() < 0.5:
            fiber.result()
        else:
            self.children.append(fiber)

    def hand_over(self) -> None:
        """Two fibers in one context, one after the other, and what the first has set is there for the second."""
        context, model = copy_context(), dict(self.model)
        for _ in range(2):
            fibers.spawn(Life(random.Random(self.draw.random()), model, 0).live, 4, context=context).result()


def test_thousands_of_fibers_see_their_own_variables() -> None:
    count = scaled(20_000, least=2_000)
    every = [fibers.spawn(Life(random.Random(f"{SEED} {number}"), {}, 2).live, 8) for number in range(count)]
    for fiber in every:
        fiber.result()
    Life(random.Random(SEED), {}, 0).check()


def test_thousands_of_fibers_share_contexts_by_tens() -> None:
    """All fibers of one context see each other's changes, at every switch, and those of no other."""

    def live(draw: random.Random, model: Model, steps: int) -> None:
        for _ in range(steps):
            variable, value = draw.choice(VARIABLES), draw.randrange(1_000_000)
            variable.set(value)
            model[variable] = value
            fibers.yield_now()
            for known in VARIABLES:
                assert known.get() == model.get(known, -1)

    every = []
    for number in range(scaled(2_000, least=200)):
        context: Context = Context()
        model: Model = {}
        for member in range(10):
            every.append(fibers.spawn(live, random.Random(f"{number} {member}"), model, 5, context=context))
    for fiber in every:
        fiber.result()


def test_a_token_is_of_the_context_that_it_was_made_in() -> None:
    token = who.set("here")
    try:
        fiber = fibers.spawn(who.reset, token)
        assert isinstance(fiber.exception(), ValueError)
        assert who.get() == "here"
    finally:
        who.reset(token)


def test_a_context_that_is_entered_refuses_a_second_fiber_to_enter_it() -> None:
    """What `Context.run` promises holds between fibers, too."""
    context = Context()
    first = fibers.spawn(context.run, fibers.yield_now)
    second = fibers.spawn(context.run, int)
    with pytest.raises(RuntimeError, match="already entered"):
        second.result()
    first.result()
    assert fibers.spawn(context.run, int).result() == 0


def test_variables_go_along_into_groups_and_worker_threads() -> None:
    token = who.set("caller")
    try:
        with fibers.TaskGroup() as group:
            inherited = group.spawn(who.get)
            shared = group.spawn(who.get, context=Context())
            worker = group.spawn(to_thread, who.get)
            changed = group.spawn(to_thread, who.set, "in the worker")
        assert (inherited.result(), shared.result(), worker.result()) == ("caller", "nobody", "caller")
        assert changed.result().old_value == "caller"
        assert who.get() == "caller"
    finally:
        who.reset(token)


# -- greenlets of the program's own, inside a fiber --------------------------------------------------------------------


def test_a_greenlet_inside_a_fiber_has_a_context_of_its_own() -> None:
    """greenlet's rule: it begins with an empty one. What it waits for meanwhile changes nothing in that."""

    def inside() -> list[str]:
        seen = [who.get()]
        who.set("greenlet")
        fibers.yield_now()
        seen.append(who.get())
        fibers.sleep(0.0001)
        return [*seen, who.get()]

    def main(number: int) -> None:
        who.set(f"fiber {number}")
        assert greenlet(inside).switch() == ["nobody", "greenlet", "greenlet"]
        assert who.get() == f"fiber {number}"

    every = [fibers.spawn(main, number) for number in range(200)]
    for fiber in every:
        fiber.result()
    assert who.get() == "nobody"


def test_a_greenlet_may_be_given_the_context_of_its_fiber() -> None:
    def inside() -> str:
        fibers.yield_now()
        found = who.get()
        who.set("greenlet")
        fibers.yield_now()
        return found

    def main(number: int) -> None:
        who.set(f"fiber {number}")
        inner = greenlet(inside)
        inner.gr_context = copy_context()
        assert inner.switch() == f"fiber {number}"
        assert who.get() == f"fiber {number}"

    every = [fibers.spawn(main, number) for number in range(200)]
    for fiber in every:
        fiber.result()


@pytest.mark.parametrize("shared", [False, True], ids=["private", "shared"])
def test_thousands_of_switches_between_fibers_and_their_greenlets(shared: bool) -> None:
    """Fiber and greenlet hand over to each other, each also lets other fibers run, and each keeps its own variable."""

    def inside(number: int, rounds: int, home: Any) -> None:
        for turn in range(rounds):
            who.set(f"greenlet {number} {turn}")
            fibers.yield_now()
            assert who.get() == f"greenlet {number} {turn}"
            home.switch()
            assert who.get() == f"greenlet {number} {turn}"

    def main(number: int, rounds: int) -> None:
        mark = "shared" if shared else f"fiber {number}"
        who.set(mark)
        inner = greenlet(inside)
        inner.switch(number, rounds, getcurrent())
        for _ in range(rounds - 1):
            assert who.get() == mark
            fibers.yield_now()
            assert who.get() == mark
            inner.switch()
        inner.switch()
        assert inner.dead
        assert who.get() == mark

    context = Context()
    rounds = scaled(100, least=5)
    every = [fibers.spawn(main, number, rounds, context=context if shared else None) for number in range(1000)]
    for fiber in every:
        fiber.result()
    assert who.get() == "nobody"


def test_a_carrier_that_ran_greenlets_takes_no_context_along() -> None:
    def main() -> None:
        inner = greenlet(lambda: who.set("greenlet"))
        inner.gr_context = Context()
        inner.switch()
        who.set("fiber")

    for _ in range(5):
        fibers.spawn(main, context=Context()).result()
        assert fibers.spawn(who.get).result() == "nobody"
