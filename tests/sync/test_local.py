"""`fibers.Local`: as threading.local, with fibers in place of threads.

Facts. Carriers are pooled: values must die with their fiber, not with a greenlet. Greenlets of a fiber share its values.
"""

import copy
import gc
import pickle
import random
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import pytest
from greenlet import greenlet
from support.process import run_python
from support.scale import SEED, scaled
from support.settling import Oops, started

import fibers

KINDS = [threading.local, fibers.Local]
#: The same test over both. Each is derived from, where the test needs it.
both = pytest.mark.parametrize("kind", KINDS, ids=["threading.local", "fibers.Local"])


def elsewhere(kind: type, fn: Any) -> Any:
    """What `fn()` returns in another thread, or in another fiber."""
    if kind is fibers.Local:
        return fibers.spawn(fn).result(5)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(fn).result(5)


# -- what threading.local does


@both
def test_values_are_ones_own(kind: Any) -> None:
    local = kind()
    local.x = 1

    def other() -> Any:
        assert not hasattr(local, "x")
        local.x = 2
        local.y = 3
        return vars(local)

    assert elsewhere(kind, other) == {"x": 2, "y": 3}
    assert vars(local) == {"x": 1}
    assert local.x == 1
    del local.x
    assert not hasattr(local, "x")
    with pytest.raises(AttributeError, match="x"):
        del local.x
    with pytest.raises(AttributeError, match="nothing"):
        _ = local.nothing


@both
def test_derived_classes_are_initialised_everywhere_with_the_same_arguments(kind: Any) -> None:
    class Derived(kind):  # type: ignore[misc]
        shared = "of the class"

        def __init__(self, start: int, *, step: int = 1) -> None:
            self.number = start
            self.step = step
            made.append(start)

        def advance(self) -> int:
            self.number += self.step
            return self.number

        @property
        def doubled(self) -> int:
            return self.number * 2

        @doubled.setter
        def doubled(self, value: int) -> None:
            self.number = value // 2

        @doubled.deleter
        def doubled(self) -> None:
            self.number = 0

    made: list[int] = []
    local = Derived(5, step=10)
    assert made == [5]
    assert local.advance() == 15
    assert elsewhere(kind, lambda: (local.number, local.advance(), local.doubled)) == (5, 15, 30)
    assert made == [5, 5]
    local.doubled = 8
    assert (local.number, local.doubled) == (4, 8)
    assert "doubled" not in vars(local)
    del local.doubled
    assert local.number == 0
    local.shared = "of this one"
    assert (local.shared, Derived.shared) == ("of this one", "of the class")
    assert elsewhere(kind, lambda: local.shared) == "of the class"


@both
def test_a_property_without_a_setter_is_in_the_way(kind: Any) -> None:
    class Derived(kind):  # type: ignore[misc]
        @property
        def fixed(self) -> int:
            return 1

    local = Derived()
    with pytest.raises(AttributeError):
        local.fixed = 2  # type: ignore[misc]
    local.__dict__["fixed"] = 3
    assert local.fixed == 1
    with pytest.raises(AttributeError):
        del local.fixed


@both
def test_slots_are_shared(kind: Any) -> None:
    class Derived(kind):  # type: ignore[misc]
        __slots__ = ("common",)

    local = Derived()
    local.common, local.own = 1, 2
    assert elsewhere(kind, lambda: (local.common, hasattr(local, "own"))) == (1, False)


@both
def test_arguments_need_an_init(kind: Any) -> None:
    with pytest.raises(TypeError, match="Initialization arguments are not supported"):
        kind(1)
    with pytest.raises(TypeError, match="Initialization arguments are not supported"):
        kind(a=1)

    class Derived(kind):  # type: ignore[misc]
        def __init__(self, a: int) -> None:
            self.a = a

    with pytest.raises(TypeError):
        Derived()  # type: ignore[call-arg]
    assert Derived(1).a == 1


@both
def test_an_init_that_fails_is_run_again(kind: Any) -> None:
    class Derived(kind):  # type: ignore[misc]
        def __init__(self) -> None:
            if fail:
                raise Oops
            self.ready = True

    fail: list[int] = []
    local = Derived()

    def other() -> Any:
        fail.append(1)
        with pytest.raises(Oops):
            _ = local.ready
        fail.clear()
        return local.ready

    assert elsewhere(kind, other) is True


@both
def test_dict_cannot_be_replaced(kind: Any) -> None:
    local = kind()
    with pytest.raises(AttributeError, match="read-only"):
        local.__dict__ = {}
    with pytest.raises(AttributeError, match="read-only"):
        del local.__dict__
    local.__dict__["x"] = 1
    assert local.x == 1
    assert "x" in dir(local)


@both
def test_getattr_of_a_derived_class(kind: Any) -> None:
    class Derived(kind):  # type: ignore[misc]
        def __getattr__(self, name: str) -> str:
            return f"made up: {name}"

    local = Derived()
    local.x = 1
    assert (local.x, local.y) == (1, "made up: y")


@both
def test_it_cannot_be_copied(kind: Any) -> None:
    for attempt in (copy.copy, pickle.dumps):
        with pytest.raises(TypeError):
            attempt(kind())


@both
def test_values_go_with_the_local(kind: Any) -> None:
    class Thing:
        pass

    gc.disable()
    try:
        local = kind()
        local.thing = Thing()
        gone = weakref.ref(local.thing)
        del local
        assert gone() is None
    finally:
        gc.enable()


@both
def test_a_value_that_refers_to_its_local_is_found_by_the_collector(kind: Any) -> None:
    local = kind()
    local.self = local
    gone = weakref.ref(local)
    del local
    gc.collect()
    assert gone() is None


# -- what is a fiber's


def test_an_attribute_may_have_any_name() -> None:
    local = fibers.Local()
    for name in ("_store", "args", "values", "__weakref__x", "__name__", "mro"):
        assert not hasattr(local, name)
        setattr(local, name, name)
        assert getattr(local, name) == name
    assert vars(local)["_store"] == "_store"


def test_values_die_with_the_fiber_although_its_carrier_and_its_fiber_object_live_on() -> None:
    class Thing:
        pass

    local, gone = fibers.Local(), []

    def use() -> None:
        assert not vars(local)  # nothing of whoever this carrier ran before
        local.thing = Thing()
        gone.append(weakref.ref(local.thing))

    def use_and_wait() -> None:
        use()
        fibers.sleep(3600)

    gc.disable()
    try:
        users = [fibers.spawn(use) for _ in range(100)]
        for fiber in users:
            fiber.join(5)
        assert [each() for each in gone] == [None] * 100
        stopped = started(use_and_wait)
        assert gone[-1]() is not None
        stopped.cancel()
        stopped.join(5)
        assert gone[-1]() is None
    finally:
        gc.enable()


def test_a_fiber_starts_with_none() -> None:
    local = fibers.Local()
    local.x = 1
    assert fibers.spawn(lambda: fibers.spawn(lambda: vars(local)).result()).result(5) == {}


def test_greenlets_of_a_fiber_share_its_values() -> None:
    local = fibers.Local()

    def work() -> list[Any]:
        local.x = "fiber's"

        def inner() -> Any:
            seen = local.x
            fibers.yield_now()
            local.x = "greenlet's"
            return seen

        return [greenlet(inner).switch(), local.x]

    others = [fibers.spawn(work) for _ in range(10)]
    assert [fiber.result(5) for fiber in others] == [["fiber's", "greenlet's"]] * 10


def test_a_thread_and_its_main_fiber_are_one() -> None:
    local = fibers.Local()

    def thread() -> list[Any]:
        local.x = 1  # before the thread has fibers
        seen = [fibers.run(lambda: local.x)]
        seen.append(fibers.run(lambda: fibers.spawn(lambda: vars(local)).result()))
        return [*seen, local.x]

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(thread).result(5) == [1, {}, 1]


def test_values_of_a_thread_go_with_the_thread() -> None:
    class Thing:
        pass

    local, gone = fibers.Local(), []

    def thread() -> None:
        local.thing = Thing()
        gone.append(weakref.ref(local.thing))
        fibers.sleep(0)

    plain = threading.Thread(target=thread)
    plain.start()
    plain.join(5)
    assert gone[0]() is None


def test_callbacks_inside_the_runtime_see_the_values_of_main() -> None:
    local, seen = fibers.Local(), []
    local.x = "main's"

    def work() -> None:
        local.x = "fiber's"

    fiber = fibers.spawn(work)
    fiber.add_done_callback(lambda _: seen.append(local.x))
    fiber.join(5)
    assert seen == ["main's"]


def test_thousands_of_switching_fibers() -> None:
    """Beside context variables, which are copied when a fiber is spawned, and are its own from then on."""
    local, variable = fibers.Local(), ContextVar[int]("variable", default=-1)
    luck = random.Random(SEED)

    def inner() -> None:
        fibers.yield_now()
        local.turn = local.turn

    def work(number: int, inherited: int) -> None:
        assert variable.get() == inherited
        assert vars(local) == {}
        for turn in range(scaled(40, least=3)):
            local.number, local.turn = number, turn
            variable.set(number)
            if luck.random() < 0.8:
                fibers.yield_now()
            else:
                fibers.sleep(luck.random() / 1000)
            if number % 50 == 0:
                greenlet(inner).switch()
            assert (local.number, local.turn, variable.get()) == (number, turn, number)

    def spawn(number: int) -> fibers.Fiber[None]:
        variable.set(1000 + number)
        return fibers.spawn(work, number, 1000 + number)

    workers = [spawn(number) for number in range(3000)]
    for fiber in workers:
        fiber.result(60)


def test_fibers_of_several_threads() -> None:
    class Counter(fibers.Local):
        def __init__(self) -> None:
            self.count = 0

    local = Counter()

    def work() -> int:
        for _ in range(scaled(2000, least=50)):
            local.count += 1
            fibers.yield_now()
        return local.count

    def thread() -> list[int]:
        return [fiber.result() for fiber in [fibers.spawn(work) for _ in range(10)]]

    with ThreadPoolExecutor(3) as pool:
        for each in [pool.submit(fibers.run, thread) for _ in range(3)]:
            assert each.result(60) == [scaled(2000, least=50)] * 10


def test_a_forked_child_has_the_values_of_the_fiber_that_forked() -> None:
    ran = run_python(
        "-c",
        """
import os
import fibers
local = fibers.Local()

class Thing:
    def __del__(self):
        os.write(1, b"finalised\\n")

def other():
    local.thing = Thing()
    gate.wait()

def forker():
    local.x = "forker"
    pid = os.fork()
    if not pid:
        assert vars(local) == {"x": "forker"}
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0

gate = fibers.Event()
first = fibers.spawn(other)
fibers.spawn(forker).result()
os.write(1, b"forked\\n")
gate.set()
first.join()
""",
    )
    assert (ran.stdout, ran.stderr) == ("forked\nfinalised\n", "")


def test_values_are_there_until_the_interpreter_has_ended() -> None:
    """The collector clears weak references to all that goes, and then calls the finalisers."""
    ended = run_python(
        "-c",
        "import fibers\n"
        "class Late:\n"
        "    def __del__(self):\n"
        "        print(values.name)\n"
        "values = fibers.Local()\n"
        "values.name = 'still there'\n"
        "late = Late()\n",
    )
    assert (ended.stdout, ended.stderr) == ("still there\n", "")
