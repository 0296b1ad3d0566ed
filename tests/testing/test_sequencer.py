"""Sequencer: steps of several fibers, and threads, in the order of their numbers."""

import random
import threading
from io import StringIO
from typing import Any

import pytest
from support.scale import SEED, scaled

import fibers
from fibers import testing
from fibers.testing import Sequencer, wait_all_parked


def test_steps_run_in_the_order_of_their_numbers() -> None:
    seq, order = Sequencer(), []

    def worker(numbers: list[int]) -> None:
        for number in numbers:
            with seq(number):
                fibers.yield_now()
                order.append(number)

    with fibers.TaskGroup() as group:
        group.spawn(worker, [1, 4, 5])
        group.spawn(worker, [0, 3])
        group.spawn(worker, [2])
    assert order == [0, 1, 2, 3, 4, 5]


def test_random_distributions_in_random_orders() -> None:
    for round_ in range(scaled(400, least=20)):
        draw = random.Random(SEED + round_)
        owner = [draw.randrange(8) for _ in range(60)]
        order: list[int] = []

        def worker(who: int, owner: list[int], seq: Sequencer, order: list[int]) -> None:
            for number in [number for number, one in enumerate(owner) if one == who]:
                with seq(number):
                    fibers.sleep(number % 3)
                    order.append(number)

        def main(owner: list[int] = owner, order: list[int] = order) -> None:
            seq = Sequencer()
            with fibers.TaskGroup() as group:
                for who in range(8):
                    group.spawn(worker, who, owner, seq, order)

        testing.run(main, clock=testing.VirtualClock(), seed=round_)
        assert order == list(range(60))


def test_fibers_of_several_threads() -> None:
    seq, order = Sequencer(), []

    def worker(first: int) -> None:
        for number in range(first, 60, 3):
            with seq(number):
                order.append((number, threading.get_ident()))

    threads = [threading.Thread(target=worker, args=(first,)) for first in (1, 2)]
    for thread in threads:
        thread.start()
    worker(0)
    for thread in threads:
        thread.join()
    assert [number for number, _ in order] == list(range(60))
    assert len({thread for _, thread in order}) == 3


def test_a_step_that_raises_is_over() -> None:
    seq = Sequencer()
    after = fibers.spawn(lambda: seq(1).__enter__())

    def block() -> None:
        fibers.yield_now()
        assert not after.done()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), seq(0):
        block()
    after.result()


def test_each_number_is_used_once() -> None:
    seq = Sequencer()
    with seq(0):
        pass
    with pytest.raises(RuntimeError, match="step 0 of this Sequencer has been taken already"):
        seq(0)


def test_who_is_interrupted_breaks_it_for_all() -> None:
    seq = Sequencer()
    errors: list[str] = []

    def worker(number: int) -> None:
        try:
            with seq(number):
                raise AssertionError("nobody has taken step 0")
        except RuntimeError as error:
            errors.append(str(error))

    victim = fibers.spawn(worker, 1, name="victim")
    other = fibers.spawn(worker, 2)
    wait_all_parked()
    victim.cancel()
    other.join()
    assert victim.cancelled()
    broken = "the Sequencer is broken: fiber 'victim' got Cancelled while it waited for step 1"
    assert errors == [broken]
    with pytest.raises(RuntimeError, match="is broken: fiber 'victim'"), seq(0):
        pass


def test_a_deadline_passes() -> None:
    seq = Sequencer()
    with fibers.move_on_after(0.001) as scope, seq(1):
        pass
    assert scope.cancelled_caught


def test_a_report_says_who_waits_for_which_step() -> None:
    seq = Sequencer()
    fiber = fibers.spawn(lambda: seq(3).__enter__())
    wait_all_parked()
    text = StringIO()
    fibers.dump(text)
    assert "step 3 of a Sequencer that is at step 0" in text.getvalue()
    fiber.cancel()
    fiber.join()


@pytest.mark.parametrize(("number", "error"), [(-1, ValueError), ("1", TypeError), (True, TypeError), (0.5, TypeError)])
def test_bad_input(number: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="of a Sequencer"):
        Sequencer()(number)
