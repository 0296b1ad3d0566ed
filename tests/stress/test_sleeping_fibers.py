"""100,000 sleeping fibers (scaled), started from inside fibers: no recursion error, all of them wake; memory is printed."""

from textwrap import dedent

import pytest
from support.process import run_python
from support.scale import scaled

# In a process of its own, so that the memory is that of these fibers and of nothing else.
PROGRAM = dedent(
    """
    import sys
    import fibers
    from fibers.core.scheduler import get_scheduler

    COUNT, FANOUT = int(sys.argv[1]), 10
    woken = 0
    alive = 1

    def memory_kb():
        try:
            with open("/proc/self/status") as status:
                return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
        except OSError:
            return 0

    def sleeper(budget):
        # Start up to FANOUT more, each with its share of what is left to start; then sleep with the rest.
        global alive, woken
        alive += 1
        budget -= 1
        share, rest = divmod(budget, FANOUT)
        for number in range(FANOUT):
            part = share + (number < rest)
            if part:
                fibers.spawn(sleeper, part)
        fibers.sleep(until - fibers.current_time())
        woken += 1

    def main():
        global until
        fibers.sleep(0.001)
        before = memory_kb()
        until = fibers.current_time() + 2 + COUNT / 20_000
        fibers.spawn(sleeper, COUNT)
        while alive <= COUNT:
            fibers.sleep(0.01)
        assert len(fibers.all_fibers()) == COUNT
        each = (memory_kb() - before) / COUNT
        stats = get_scheduler().loop.stats
        turns = stats.turns
        fibers.sleep(0.3)
        turns = stats.turns - turns
        for fiber in fibers.all_fibers():
            fiber.result()
        print(woken, turns, f"{each:.2f}")

    fibers.run(main)
    """
)


def test_sleeping_fibers_started_from_inside_fibers(capsys: pytest.CaptureFixture[str]) -> None:
    count = scaled(100_000, least=5_000)
    done = run_python("-c", PROGRAM, str(count), timeout=110)
    assert done.stderr == ""
    woken, turns, each = done.stdout.split()
    assert int(woken) == count
    assert int(turns) <= 3
    assert float(each) < 16, "kB a fiber"
    with capsys.disabled():
        print(f"\n{count} sleeping fibers: {each} kB each, {turns} turns in 0.3 s")


def test_a_chain_of_fibers_each_started_by_the_one_before() -> None:
    """The C stacks must not nest: a prototype died of RecursionError at a few thousand."""
    program = dedent(
        """
        import sys
        import fibers

        def link(left):
            if left:
                fibers.spawn(link, left - 1).join()

        fibers.run(link, int(sys.argv[1]))
        print("done")
        """
    )
    done = run_python("-c", program, str(scaled(100_000, least=5_000)), timeout=110)
    assert done.stderr == ""
    assert done.stdout == "done\n"
