"""The checks of a checked loop: each rule is broken once, on purpose, and named; and a sound loop doing the same is let be.

A broken loop is a PollingLoop with one method that is wrong. `verdict` puts the checks in front of it, plays a scenario
with it and tells which rule was named. Every case is played on a sound loop, too.
"""

import os
import pickle
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from support.loops import USABLE, Kind, loops
from support.process import run_python
from support.waiting import Target, Waiter, looks, wait, woken

import fibers
from fibers.eventloop import FOREVER, MONOTONIC, PollingLoop, available, checked, new_loop
from fibers.eventloop.checked_polling import CheckedPollingLoop
from fibers.eventloop.pollers.poll import PollPoller
from fibers.eventloop.timers import TimerWheel
from fibers.threads.to_thread import to_thread


class Scene:
    """What a scenario plays with: a checked loop, a pair of sockets, the handle of the first."""

    def __init__(self, loop: Any, clock: "Clock") -> None:
        self.loop = loop
        self.clock = clock
        self.a, self.b = socket.socketpair()
        self.a.setblocking(False)
        self.handle = loop.handle(self.a.fileno(), True)
        self.order: list[Any] = []

    def reader(self, deadline: float = FOREVER) -> Waiter:
        return wait(self.loop, self.handle.reading, deadline)

    def arrive(self) -> None:
        """Somebody waits, and data come."""
        self.reader()
        self.b.send(b"x")
        self.loop.turn(True)

    def timer(self, seconds: float, name: Any = "timer") -> Any:
        return self.loop.schedule(self.loop.clock() + seconds, Target(name, self.order))


class Clock:
    """Stands still unless it is moved."""

    def __init__(self) -> None:
        self.now = MONOTONIC()

    def __call__(self) -> float:
        return self.now


def verdict(broken: type[Any], scenario: Callable[[Scene], object], poller: Any = PollPoller) -> str | None:
    """The rule that is named when the scenario is played on this loop, checked; None: nothing was found."""
    clock = Clock()
    cls: Any = CheckedPollingLoop if broken is PollingLoop else type("Checked", (CheckedPollingLoop, broken), {})
    scene = Scene(cls(poller, clock), clock)
    found = None
    try:
        scenario(scene)
        scene.loop.release(scene.handle, lambda: None)
        if not scene.loop.closed:
            scene.loop.turn(False)
        scene.loop.close()
    except fibers.ContractError as error:
        found = error
    finally:
        scene.a.close()
        scene.b.close()
        PollingLoop.close(scene.loop)
        for descriptor in scene.loop.handles():
            scene.loop._disown(descriptor)
    if found is None:
        return None
    assert repr(found.rule) in str(found)
    return found.rule


Case = tuple[str, type[Any], Callable[[Scene], object]]
CASES: list[Case] = []


def case(rule: str, scenario: Callable[[Scene], object]) -> Callable[[type[Any]], type[Any]]:
    """Marks a loop that breaks a rule in a scenario."""

    def add(broken: type[Any]) -> type[Any]:
        CASES.append((rule, broken, scenario))
        return broken

    return add


# -- waking ---------------------------------------------------------------------------------------------------------


@case("once", Scene.arrive)
class WakesTwice(PollingLoop):
    def _dispatch(self, events: Any) -> None:
        super()._dispatch(events)
        self.ready.append(self.ready[-1])


@case("once", Scene.arrive)
class LeavesTheWaiterInItsPlace(PollingLoop):
    def _dispatch(self, events: Any) -> None:
        for fd, _ in events:
            self.ready.append(self._table[fd].reading.waiter)  # type: ignore[arg-type]


@case("waiter", Scene.arrive)
class WakesAStranger(PollingLoop):
    def _dispatch(self, events: Any) -> None:
        super()._dispatch(events)
        self.ready.append(Waiter("stranger"))


def wakes_again(scene: Scene) -> None:
    scene.arrive()
    scene.loop.ready.clear()
    scene.a.recv(1)
    scene.arrive()


@case("waiter", wakes_again)
class RemembersWhomItWoke(PollingLoop):
    """It wakes him with the next event once more, who may be anywhere by then."""

    earlier: Any = None

    def _dispatch(self, events: Any) -> None:
        super()._dispatch(events)
        if self.earlier is not None and self.earlier not in self.ready:
            self.ready.append(self.earlier)
        self.earlier = self.ready[0]


@case("lost", Scene.arrive)
class TakesOutAndForgets(PollingLoop):
    def _dispatch(self, events: Any) -> None:
        for fd, _ in events:
            self._table[fd].reading.waiter = None


# -- running nobody ---------------------------------------------------------------------------------------------------


@case("run nobody", Scene.arrive)
class RunsSomebody(PollingLoop):
    def _dispatch(self, events: Any) -> None:
        super()._dispatch(events)
        self.ready.popleft()


@case("run nobody", Scene.arrive)
class TurnsInsideATurn(PollingLoop):
    def _dispatch(self, events: Any) -> None:
        super()._dispatch(events)
        self.turn(False)


@case("run nobody", Scene.arrive)
class RunsWhoThenWaits(PollingLoop):
    def _dispatch(self, events: Any) -> None:
        super()._dispatch(events)
        for handle in list(self._table.values()):
            self.watch(handle.writing, FOREVER)


def expires_between_turns(scene: Scene) -> None:
    scene.timer(1)
    scene.clock.now += 2
    scene.loop.post(len, "")
    scene.loop.turn(False)


@case("run nobody", expires_between_turns)
class ExpiresBetweenTurns(PollingLoop):
    def post(self, function: Any, *args: object) -> None:
        super().post(function, *args)
        self._expire(self.clock())


# -- timers -----------------------------------------------------------------------------------------------------------


def in_a_second(scene: Scene) -> None:
    scene.timer(1)
    scene.loop.turn(False)


@case("never early", in_a_second)
class Early(PollingLoop):
    def turn(self, block: bool) -> None:
        super().turn(block)
        self._expire(self.clock() + 2)


def two_timers(scene: Scene) -> None:
    scene.timer(2, "second")
    scene.timer(1, "first")
    scene.timer(1, "first of the same")
    scene.clock.now += 3
    scene.loop.turn(False)


@case("in order", two_timers)
class OutOfOrder(PollingLoop):
    def _expire(self, now: float) -> None:
        for timer in reversed(self.timers.expire(now)):
            assert timer.target is not None
            timer.target.expire(timer)


@case("in order", two_timers)
class OutOfOrderAmongEquals(PollingLoop):
    def _expire(self, now: float) -> None:
        for timer in sorted(self.timers.expire(now), key=lambda timer: (timer.deadline, -timer.sequence)):
            assert timer.target is not None
            timer.target.expire(timer)


@case("once", two_timers)
class ExpiresTwice(PollingLoop):
    def _expire(self, now: float) -> None:
        for timer in self.timers.expire(now):
            for _ in range(2):
                assert timer.target is not None
                timer.target.expire(timer)


def unscheduled(scene: Scene) -> None:
    timer = scene.timer(1)
    scene.loop.unschedule(timer)
    scene.clock.now += 2
    scene.loop.turn(False)
    assert scene.order == []


@case("once", unscheduled)
class ExpiresWhatWasUnscheduled(PollingLoop):
    def _new_timers(self) -> None:
        super()._new_timers()
        self.unschedule = bool


def long_ago(scene: Scene) -> None:
    scene.timer(1)
    scene.clock.now += 5
    looks(scene.loop, 5)


@case("late", long_ago)
class ForgetsATimer(PollingLoop):
    def _expire(self, now: float) -> None:
        self.timers.expire(now)


class BlindWheel(TimerWheel):
    def next_deadline(self) -> float | None:
        return None


@case("late", long_ago)
class LooksAtNoTimer(PollingLoop):
    def _new_timers(self) -> None:
        super()._new_timers()
        self.timers = BlindWheel()
        self.schedule = self.timers.add
        self.unschedule = self.timers.cancel


def with_a_deadline(scene: Scene) -> None:
    scene.reader(scene.loop.clock() + 1)


@case("alarm", with_a_deadline)
class SetsNoAlarm(PollingLoop):
    def watch(self, direction: Any, deadline: float) -> bool:
        return super().watch(direction, FOREVER)


def both_due(scene: Scene) -> None:
    scene.timer(1)
    scene.reader()
    scene.b.send(b"x")
    scene.clock.now += 2
    scene.loop.turn(True)


@case("data first", both_due)
class DeadlinesFirst(PollingLoop):
    def _dispatch(self, events: Any) -> None:
        self._expire(self.clock())
        super()._dispatch(events)


# -- posts and threads ------------------------------------------------------------------------------------------------


def posted(scene: Scene) -> None:
    scene.loop.post(scene.order.append, 1)
    scene.loop.turn(False)


@case("posts", posted)
class DropsAPost(PollingLoop):
    def _run_inbox(self) -> None:
        self._inbox.clear()


@case("posts", posted)
class NeverLooks(PollingLoop):
    def _run_inbox(self) -> None:
        if self.closed:
            super()._run_inbox()


@case("once", posted)
class RunsAPostTwice(PollingLoop):
    def _run_inbox(self) -> None:
        for function, args in self._inbox:
            function(*args)
        super()._run_inbox()


def posted_by_another_thread(scene: Scene) -> None:
    raised = []

    def post() -> None:
        try:
            scene.loop.post(scene.order.append, 1)
        except fibers.ContractError as error:
            raised.append(error)

    thread = threading.Thread(target=post)
    thread.start()
    thread.join()
    for error in raised:
        raise error


@case("thread", posted_by_another_thread)
class RunsAPostWhereItIsPosted(PollingLoop):
    def post(self, function: Any, *args: object) -> None:
        function(*args)


@case("asleep", posted)
class SaysThatItSleeps(PollingLoop):
    def turn(self, block: bool) -> None:
        super().turn(block)
        self.asleep = True


# -- closing ----------------------------------------------------------------------------------------------------------


def closed(scene: Scene) -> None:
    scene.reader()
    scene.loop.close()


@case("closed", closed)
class LeavesThemWaiting(PollingLoop):
    def close(self) -> None:
        self.closed = True
        self._shut()


@case("lost", closed)
class ForgetsThemAtTheEnd(PollingLoop):
    def close(self) -> None:
        for handle in self._table.values():
            handle.reading.waiter = None
        super().close()


@case("balance", closed)
class KeepsItsTables(PollingLoop):
    def close(self) -> None:
        for handle in self._table.values():
            handle.close()
        self.closed = True
        self._shut()


def released(scene: Scene) -> None:
    scene.reader()
    looks(scene.loop)
    scene.loop.release(scene.handle, lambda: None)
    scene.loop.turn(False)


@case("release", released)
class ClosesTheFdFirst(PollingLoop):
    def release(self, handle: Any, finish: Any) -> None:
        finish()
        super().release(handle, lambda: None)


@case("release", released)
class ClosesTheFdTwice(PollingLoop):
    def release(self, handle: Any, finish: Any) -> None:
        super().release(handle, finish)
        finish()


@case("release", released)
class DoesNotMarkItClosed(PollingLoop):
    def release(self, handle: Any, finish: Any) -> None:
        pass


@case("balance", released)
class DoesNotCount(PollingLoop):
    def _evict(self, descriptor: Any, outcome: Any) -> None:
        super()._evict(descriptor, outcome)
        self.stats.unregistrations -= 1


@case("balance", released)
class ForgetsToUnregister(PollingLoop):
    """It counts, and takes the file out of its tables, and does not tell the poller."""

    def _evict(self, descriptor: Any, outcome: Any) -> None:
        self._disown(descriptor)
        self.stats.unregistrations += 1
        descriptor.close(outcome)


@case("balance", released)
class CountsTwice(PollingLoop):
    def _arm(self, direction: Any) -> bool:
        self.stats.registrations += 1
        return super()._arm(direction)


@pytest.mark.parametrize(
    ("rule", "broken", "scenario"), CASES, ids=[f"{rule}: {broken.__name__}" for rule, broken, _ in CASES]
)
def test_a_broken_loop_is_found_and_a_sound_one_is_not(
    rule: str, broken: type[Any], scenario: Callable[[Scene], object]
) -> None:
    assert verdict(PollingLoop, scenario) is None
    assert verdict(broken, scenario) == rule


def test_every_rule_has_its_case() -> None:
    """The table at the head of checked.py is the list."""
    assert checked.__doc__ is not None
    table = checked.__doc__.split("named in the errors:\n\n")[1].split("\n\n")[0]
    named = {line[4:16].strip() for line in table.splitlines() if line[4] != " "}
    assert named == {rule for rule, _, _ in CASES} | {"time"}


# -- the clock, and callers at fault ------------------------------------------------------------------------------------


def test_a_clock_that_goes_back(loop_factory: Kind) -> None:
    clock = Clock()
    loop = loop_factory(clock)
    looks(loop)
    before = clock.now
    clock.now += 1
    loop.clock()
    clock.now = before
    if loop_factory.checked:
        with pytest.raises(fibers.ContractError, match="went back") as caught:
            loop.clock()
        assert caught.value.rule == "time"
    loop.clock()
    loop.close()


def test_a_clock_that_goes_back_inside_a_turn() -> None:
    def scenario(scene: Scene) -> None:
        def back() -> None:
            scene.clock.now -= 1
            scene.loop.clock()

        scene.loop.clock()
        scene.loop.post(back)
        scene.loop.turn(False)

    assert verdict(PollingLoop, scenario) == "time"


CHECKED_LOOPS = loops(lambda kind: kind.checked, "others believe their callers")
VERBS: dict[str, Callable[[Any, Any], object]] = {
    "turn": lambda loop, handle: loop.turn(False),
    "quiet": lambda loop, handle: loop.quiet(),
    "handle": lambda loop, handle: loop.handle(handle.fd, False),
    "claim": lambda loop, handle: loop.claim(handle),
    "watch": lambda loop, handle: loop.watch(handle.reading, FOREVER),
    "unwatch": lambda loop, handle: loop.unwatch(handle.reading),
    "schedule": lambda loop, handle: loop.schedule(0.0, Target("timer", [])),
    "close": lambda loop, handle: loop.close(),
}


@CHECKED_LOOPS
@pytest.mark.parametrize("verb", VERBS)
def test_what_only_the_loops_own_thread_may_call(loop: Any, verb: str) -> None:
    reader, writer = os.pipe()
    handle = loop.handle(reader, True)

    def call() -> str:
        with pytest.raises(fibers.ContractError, match=rf"{verb}\(\) was called") as caught:
            VERBS[verb](loop, handle)
        return caught.value.rule

    assert to_thread(call) == "thread"
    loop.turn(False)
    loop.release(handle, lambda: os.close(reader))
    os.close(writer)


@CHECKED_LOOPS
def test_what_any_thread_may_call(loop: Any) -> None:
    reader, writer = os.pipe()
    handle = loop.handle(reader, True)
    done: list[int] = []

    def call() -> None:
        loop.post(done.append, 1)
        loop.wake()
        loop.taken(reader)
        loop.release(handle, lambda: done.append(2))

    to_thread(call)
    looks(loop)
    assert sorted(done) == [1, 2]
    os.close(reader)
    os.close(writer)


@CHECKED_LOOPS
@pytest.mark.parametrize("verb", ["turn", "claim", "watch", "schedule"])
def test_what_cannot_be_asked_of_a_closed_loop(loop: Any, verb: str) -> None:
    reader, writer = os.pipe()
    handle = loop.handle(reader, True)
    loop.close()
    with pytest.raises(fibers.ContractError) as caught:
        VERBS[verb](loop, handle)
    assert caught.value.rule == "closed"
    loop.post(len, "")
    loop.wake()
    loop.close()
    os.close(reader)
    os.close(writer)


def test_a_waiter_put_into_the_ready_queue_by_another_thread_in_a_turn() -> None:
    """The loop may be asleep: nobody would look."""

    def scenario(scene: Scene) -> None:
        raised: list[fibers.ContractError] = []

        def append() -> None:
            try:
                scene.loop.ready.append(Waiter("foreign"))
            except fibers.ContractError as error:
                raised.append(error)

        def elsewhere() -> None:
            thread = threading.Thread(target=append)
            thread.start()
            thread.join()

        scene.loop.post(elsewhere)
        scene.loop.turn(False)
        for error in raised:
            raise error

    assert verdict(PollingLoop, scenario) == "thread"


# -- what is no fault ---------------------------------------------------------------------------------------------------


def test_a_signal_handler_may_make_ready_whom_it_likes() -> None:
    """It strikes in the middle of a dispatch; that is not the loop's doing."""
    woken_by_handler = Waiter("woken by a handler")

    class Struck(PollingLoop):
        def _dispatch(self, events: Any) -> None:
            super()._dispatch(events)
            signal.raise_signal(signal.SIGUSR1)

    def scenario(scene: Scene) -> None:
        signal.signal(signal.SIGUSR1, lambda *args: scene.loop.ready.append(woken_by_handler))
        scene.arrive()
        assert woken_by_handler in scene.loop.ready

    before = signal.getsignal(signal.SIGUSR1)
    try:
        assert verdict(Struck, scenario) is None
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_an_exception_in_the_middle_of_a_wake_loses_nobody_and_is_no_fault() -> None:
    """As a raising handler may strike: the waiter has left its place, and is not ready yet."""

    class Struck(PollingLoop):
        def _dispatch(self, events: Any) -> None:
            for handle in self._table.values():
                handle.reading.waiter = None
                raise LookupError("from a handler")

    def scenario(scene: Scene) -> None:
        waiter = scene.reader()
        scene.b.send(b"x")
        with pytest.raises(LookupError):
            scene.loop.turn(True)
        assert list(scene.loop.ready) == [waiter]

    assert verdict(Struck, scenario) is None


def test_after_an_exception_a_timer_may_come_again_and_the_books_are_read_anew() -> None:
    def scenario(scene: Scene) -> None:
        def fail() -> None:
            if len(scene.order) == 1:
                scene.loop.stats.registrations += 1  # as where a handler struck between two lines
                raise LookupError("from a handler")

        scene.loop.turn(False)
        scene.loop.schedule(scene.loop.clock(), Target("timer", scene.order, fail))
        with pytest.raises(LookupError):
            scene.loop.turn(False)
        looks(scene.loop)
        assert scene.order == ["timer", "timer"]

    assert verdict(PollingLoop, scenario) is None


def test_a_refused_registration_is_no_fault_and_leaves_the_books_in_order() -> None:
    class Full(PollPoller):
        def arm(self, fd: int, interest: int, armed: int) -> None:
            if fd == self.refused:
                raise OSError(28, "No space left on device")
            super().arm(fd, interest, armed)

        refused = -1

    def scenario(scene: Scene) -> None:
        looks(scene.loop)
        scene.loop._poller.poller.refused = scene.handle.fd
        for _ in range(2):
            with pytest.raises(OSError, match="No space"):
                scene.loop.watch(scene.handle.reading, FOREVER)
            looks(scene.loop)
        scene.loop._poller.poller.refused = -1
        scene.arrive()

    assert verdict(PollingLoop, scenario, Full) is None
    assert verdict(CountsTwice, scenario, Full) == "balance"


def test_who_was_made_ready_twice_between_turns_is_no_fault_of_the_loop() -> None:
    """Its users may do that after a signal handler has raised, and who waits may be among them: wakes may be spurious."""

    def scenario(scene: Scene) -> None:
        waiter, other = scene.reader(), Waiter("other")
        scene.loop.ready.extend([other, waiter, other])
        scene.b.send(b"x")
        scene.loop.turn(False)
        assert list(scene.loop.ready) == [other, waiter, other, waiter]

    assert verdict(PollingLoop, scenario) is None


# -- how it tells -------------------------------------------------------------------------------------------------------


def test_the_error_shows_where_it_was_noticed_and_survives_pickling() -> None:
    scene = Scene(type("Checked", (CheckedPollingLoop, WakesAStranger), {})(PollPoller, MONOTONIC), Clock())
    with pytest.raises(fibers.ContractError, match="stranger") as caught:
        scene.arrive()
    assert "in _dispatch" in caught.value.__notes__[0]
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.rule, str(copy)) == ("waiter", str(caught.value))
    assert len(scene.loop.ready) == 2, "and the turn was not cut short"
    scene.loop.close()
    scene.a.close()
    scene.b.close()


def test_with_many_files_it_looks_less_often_and_finds_it_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checked, "PER_TURN", 2)
    pairs = [socket.socketpair() for _ in range(10)]

    def scenario(scene: Scene) -> None:
        handles = [scene.loop.handle(a.fileno(), True) for a, _ in pairs]
        for handle in handles:
            wait(scene.loop, handle.reading)
        try:
            for _ in range(20):
                scene.arrive()
                scene.loop.ready.clear()
                scene.a.recv(1)
        finally:
            for handle in handles:
                scene.loop.release(handle, lambda: None)

    assert verdict(PollingLoop, scenario) is None
    assert verdict(WakesAStranger, scenario) == "waiter"
    for a, b in pairs:
        a.close()
        b.close()


def test_a_fault_in_a_program_is_raised_in_main() -> None:
    def main() -> None:
        fibers.spawn(fibers.sleep, 60)
        fibers.sleep(60)

    def program() -> str:
        loop: Any = type("Checked", (CheckedPollingLoop, Early2), {})(PollPoller)
        with pytest.raises(fibers.ContractError) as caught:
            fibers.run(main, loop=loop)
        return caught.value.rule

    class Early2(PollingLoop):
        def turn(self, block: bool) -> None:
            super().turn(False)
            self._expire(self.clock() + 3600)

    assert to_thread(program) == "never early"


# -- libevent -----------------------------------------------------------------------------------------------------------

needs_libevent = pytest.mark.skipif(available()["libevent"] is not None, reason=f"libevent: {available()['libevent']}")


@needs_libevent
@pytest.mark.parametrize("fault", ["once", "waiter", "lost", "balance", "never early", "posts", "release"])
def test_faults_of_a_libevent_loop(fault: str) -> None:
    """The same checks stand in front of the other kind of loop."""
    from fibers.eventloop.checked_libevent import CheckedLibeventLoop
    from fibers.eventloop.libevent import LibeventLoop

    class Broken(LibeventLoop):
        broken = False

        def _collect(self, groups: Any) -> int:
            files = super()._collect(groups)
            if self.broken and files:
                if fault == "once":
                    self.ready.append(self.ready[-1])
                elif fault == "waiter":
                    self.ready.append(Waiter("stranger"))
                elif fault == "lost":
                    self.ready.pop()
                elif fault == "balance":
                    self.stats.registrations += 1
                elif fault == "never early":
                    self._due.append(timer)
            return files

        def _run_inbox(self) -> None:
            if self.broken and fault == "posts":
                self._inbox.clear()
            super()._run_inbox()

        def release(self, handle: Any, finish: Any) -> None:
            if self.broken and fault == "release":
                finish()
            super().release(handle, finish)

    for broken in (False, True):
        loop: Any = type("Checked", (CheckedLibeventLoop, Broken), {})()
        a, b = socket.socketpair()
        handle = loop.handle(a.fileno(), True)
        timer = loop.schedule(loop.clock() + 60, Target("timer", []))
        waiter = wait(loop, handle.reading)
        assert looks(loop) == []
        loop.broken = broken
        loop.post(len, "")
        b.send(b"x")
        found = None
        try:
            assert woken(loop) == [waiter]
            loop.release(handle, lambda: None)
        except fibers.ContractError as error:
            found = error.rule
        assert found == (fault if broken else None)
        loop.broken = False
        loop.release(handle, lambda: None)
        LibeventLoop.close(loop)
        a.close()
        b.close()


# -- choosing it --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in USABLE if kind.backend in available()], ids=str)
def test_new_loop_checks_if_it_is_told_to(kind: Kind) -> None:
    loop = new_loop(kind.backend, checked=kind.checked)
    assert isinstance(loop, checked.CheckedLoop) == kind.checked
    loop.close()


SHOW = """
import fibers
from fibers.eventloop import CHECKED, checked
from fibers.core.scheduler import get_scheduler
fibers.sleep(0.001)
print(CHECKED, isinstance(get_scheduler().loop, checked.CheckedLoop))
"""


@pytest.mark.parametrize(("value", "shown"), [("loop", "True True"), ("loop,", "True True"), ("", "False False")])
def test_the_switch_is_read_at_import(value: str, shown: str) -> None:
    done = run_python("-c", SHOW, env={"FIBERS_DEBUG": value})
    assert (done.stdout.strip(), done.stderr) == (shown, "")


def test_an_unknown_word_is_refused_at_import() -> None:
    done = run_python("-c", SHOW, env={"FIBERS_DEBUG": "loops"})
    assert done.returncode == 1
    assert "ImportError: FIBERS_DEBUG='loops' is not known; known is 'loop'" in done.stderr
