"""Context variables: every fiber has its own copy, unless two share one on purpose.

Facts (hazard 17). `Context.run` refuses a context that is entered already, so two live fibers cannot both stand in
`Context.run` of the same one. The private copy made at spawn uses `Context.run`; an explicit `context=` is set through
the greenlet, and cleared afterwards, for the carrier goes on to run other fibers.
"""

import weakref
from contextvars import Context, ContextVar, copy_context

from support.scale import scaled

import fibers

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
