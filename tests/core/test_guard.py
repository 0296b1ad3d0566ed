"""The guard: one thread inside at a time, re-entering refused, nothing that raises leaves it shut."""

import sys
import threading

import pytest
from support.scale import scaled

from fibers.core.guard import Guard


def test_one_at_a_time() -> None:
    guard = Guard()
    count, inside = 0, 0
    rounds = scaled(40_000, least=1000)

    def work() -> None:
        nonlocal count, inside
        for _ in range(rounds):
            with guard:
                inside += 1
                assert inside == 1
                here = count
                sum(range(10))  # calls, at which threads may change
                count = here + 1
                inside -= 1

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert (count, inside) == (4 * rounds, 0)
    assert (guard.free, guard.owner) == ({0: None}, 0)


def test_entering_again_is_refused_and_leaves_it_as_it_is() -> None:
    guard = Guard()
    with guard:
        with pytest.raises(RuntimeError, match="in the middle of using one"):
            guard.__enter__()
        assert guard.owner == threading.get_ident()
        assert not guard.free
    assert (guard.free, guard.owner) == ({0: None}, 0)


def test_an_error_inside_leaves_it_free() -> None:
    guard = Guard()
    with pytest.raises(KeyError), guard:
        raise KeyError
    with guard:
        pass
    assert guard.free == {0: None}


def test_who_finds_it_taken_waits_until_it_is_free() -> None:
    guard = Guard()
    entered: list[str] = []

    def work() -> None:
        with guard:
            entered.append("other")

    with guard:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(0.01)
        entered.append("this")
    thread.join(10)
    assert entered == ["this", "other"]


def test_it_is_made_anew_in_a_child() -> None:
    guard = Guard()
    guard.__enter__()
    guard.renew()
    with guard:
        pass
