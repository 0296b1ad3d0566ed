"""The timing: in each round a fresh server for each event loop, and the same clients for all.

1. Start the servers side by side, connect to each, use every connection once.
2. Put them under load one after the other, in an order that moves on by one from round to round. A server that is not
   under load sleeps (step 3 shows it), so it takes nothing from the one that is.
3. In the last round leave all of them in peace for a while, and ask how often they woke up.

What goes wrong with one event loop is noted, and the others go on without it.
"""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from ..core.runtime import sleep
from ..measure.load import Load
from ..measure.process import Server, ServerEndedError
from ..measure.progress import Progress
from ..measure.snapshot import Snapshot
from .figures import Comparison

#: Seconds of load before the first window of a server: the interpreter adapts to the code that it runs often.
WARM = 0.05
#: Seconds that a server gets beside those of the windows: to start, to be connected to, to end.
BESIDES = 120


class _Subject:
    """A server and its clients."""

    def __init__(self, name: str, comparison: Comparison, lifetime: int) -> None:
        self.name = name
        self.comparison = comparison
        with ExitStack() as stack:
            self._stderr = stack.enter_context(tempfile.TemporaryFile("w+b"))
            self.server = stack.enter_context(Server(lifetime, stderr=self._stderr, backend=name))
            self._stack = stack.pop_all()
        self._load: Load | None = None

    def connect(self) -> None:
        plan = self.comparison.plan
        self._load = Load(self.server.port(), plan.connections, plan.size)
        self._load.connect(_nothing)
        self._load.talk(WARM, _nothing)

    def talk(self) -> None:
        """One window: a number for the rate and one for the CPU time."""
        load, figures = self._load, self.comparison.rows[self.name]
        assert load is not None
        before, answered = self.server.now(), load.requests
        load.talk(self.comparison.plan.seconds, _nothing)
        after, requests = self.server.now(), load.requests - answered
        figures.rate.append(requests / load.seconds)
        figures.cpu.append((after.user + after.system - before.user - before.system) / requests)

    def say_idle(self, before: Snapshot) -> None:
        """Note how often it has woken up since. It slept once, until this question came."""
        after = self.server.now()
        woken = max(after.turns - before.turns, after.sleeps - before.sleeps)
        self.comparison.rows[self.name].wakeups = woken - 1

    def close(self) -> None:
        """End the clients, then the server."""
        if self._load is not None:
            self._load.close()
        self._stack.close()

    @contextmanager
    def noting(self) -> Iterator[None]:
        """What is done inside is for this one alone. No step is tried when an earlier one has failed."""
        try:
            yield
        except (OSError, ServerEndedError) as error:
            self.comparison.failed.setdefault(self.name, f"{error}{self._last_words()}")

    def _last_words(self) -> str:
        if self._stderr.closed:
            return ""
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").splitlines()
        return f": {lines[-1]}" if lines else ""


def run(comparison: Comparison, progress: Progress) -> None:
    """Fill in what is timed. In the main fiber of a thread."""
    rounds, names = comparison.plan.rounds, list(comparison.rows)
    for number in range(rounds):
        turn = number % len(names)
        order = [name for name in names[turn:] + names[:turn] if name not in comparison.failed]
        _round(comparison, progress, f"round {number + 1} of {rounds}", order, last=number == rounds - 1)


def _round(comparison: Comparison, progress: Progress, title: str, order: list[str], last: bool) -> None:
    plan, failed = comparison.plan, comparison.failed
    lifetime = BESIDES + int(plan.seconds * len(order) + plan.idle)
    subjects: list[_Subject] = []
    try:
        for name in order:
            subjects.append(_Subject(name, comparison, lifetime))
        progress.show(f"{title}: starting")
        for subject in subjects:
            with subject.noting():
                subject.connect()
        for subject in subjects:
            if subject.name not in failed:
                progress.show(f"{title}: {subject.name}")
                with subject.noting():
                    subject.talk()
        if last:
            progress.show(f"{plan.idle:g} s without work")
            _idle(comparison, [subject for subject in subjects if subject.name not in failed])
    finally:
        for subject in subjects:
            with subject.noting():
                subject.close()


def _idle(comparison: Comparison, subjects: list[_Subject]) -> None:
    before: dict[str, Snapshot] = {}
    for subject in subjects:
        with subject.noting():
            before[subject.name] = subject.server.now()
    sleep(comparison.plan.idle)
    for subject in subjects:
        if subject.name in before:
            with subject.noting():
                subject.say_idle(before[subject.name])


def _nothing(*news: float) -> None:
    """The windows are too short to tell of their progress."""
