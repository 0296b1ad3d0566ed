"""All of the measurement, in its order: what is counted, then what is timed."""

from dataclasses import replace

from ..core.lifecycle import run as run_fibers
from ..eventloop import DEFAULT, available, new_loop
from ..measure.limits import fit
from ..measure.progress import Progress
from . import counts, rounds
from .figures import Comparison, Figures, Plan


def compare(plan: Plan, progress: Progress) -> Comparison:
    """Measure every event loop that is usable here. In a thread that has not waited in a fiber yet: it gets a loop for this.

    Raises ValueError if the process may not have enough open files for one connection to each.
    """
    names = [name for name, why_not in available().items() if why_not is None]
    reference = "epoll" if "epoll" in names else DEFAULT
    connections, remark = fit(plan.connections * len(names), reference)
    if remark:
        each = connections // len(names)
        if not each:
            raise ValueError(f"not one connection fits: {remark}")
        plan = replace(plan, connections=each)
        progress.say(f"{remark}; so {each} to each event loop")
    comparison = Comparison(reference, plan, {name: Figures() for name in names})
    progress.show("counting system calls")
    counts.run(comparison)
    # The clients' loop does not check its contract, whatever FIBERS_DEBUG says: they are not what is measured.
    run_fibers(rounds.run, comparison, progress, loop=new_loop(reference, checked=False))
    progress.clear()
    return comparison
