"""Two threads with fibers, sockets that both use, a kernel that may do anything: what is done there, and what must hold.

What must hold, whatever the order of things:

1. What is read is what was sent to that file, each unit once and in order; what two fibers write is not mixed.
2. Operations of one direction end in the order in which they began, except those that were interrupted.
3. A timeout comes when its time has come, not before, and not if the file is ready for whoever has the turn.
4. An operation ends by what has happened: ClosedError only on a closed file, Cancelled only if somebody asked.
5. A fiber whose operation is over is not woken once more.
6. When nothing is left to do (the world is *settled*): nobody waits for a file that is ready, or closed, or beyond a
   deadline; nobody waits who was cancelled; those who wait for one file are in one thread.
7. Registrations are made once, are counted, and end with their file. A loop that has nothing to do sleeps.

The threads are Actors: they stand still until they are told to go on, and each goes on alone.
"""

import errno
import itertools
from collections.abc import Callable
from typing import Final

from fibers.core.fiber import Fiber
from fibers.eventloop import FOREVER, Direction, ownership
from fibers.eventloop.timers import Timer

from .actor import Actor
from .kernel import FIRST, READ, UNITS, WRITE, SimKernel
from .poller import FLAVOURS, SimPoller
from .puppet import Strike
from .sockets import Operation, SimSocket

#: Points inside of what a thread does, at which the other one may do something.
ELSEWHEN: Final = ("clock", "before", "after", "call", "result")

#: Rounds after which a world that still has something to do will never settle.
_ROUNDS: Final = 60


class World:
    """See the module's text. Used by one thread, which is none of the actors."""

    def __init__(self, flavour: str, seed: int) -> None:
        self.flavour = flavour
        self.kernel = SimKernel()
        self.seed = seed
        self.sockets: list[SimSocket] = []
        self.operations: list[Operation] = []
        self.failures: list[str] = []
        self._order = itertools.count(1)
        self._looking = FOREVER  # since when nobody has overslept
        self._delivered: dict[int, int] = {}  # serial of a file -> units that readers have got
        self.actors = {name: self._actor(name) for name in "AB"}

    def _actor(self, name: str) -> Actor:
        return Actor(name, self.kernel, lambda: FLAVOURS[self.flavour](self.kernel, self.seed))

    def other(self, name: str) -> Actor:
        return self.actors["B" if name == "A" else "A"]

    # -- what may be done ---------------------------------------------------------------------------------------

    def open(self, sock: SimSocket, actor: Actor, nowhere: bool = False) -> None:
        # Where no loop runs nobody sees that a number has come back, so nobody can warn those who still use it.
        actor.call(sock.open, nowhere and not any(known.gone for known in self.sockets))

    def start(self, operation: Operation, actor: Actor) -> None:
        self.operations.append(operation)
        actor.call(operation.spawn, actor)

    def operation(self, kind: str, sock: SimSocket, size: int, timeout: float | None, scope: float | None) -> Operation:
        return Operation(kind, sock, size, timeout, scope, self._order, self.check_end)

    def cancel(self, operation: Operation, actor: Actor) -> None:
        operation.cancelled = True
        self._interrupt(operation, actor, operation.fiber.cancel)

    def kill(self, operation: Operation, actor: Actor) -> None:
        operation.killed = True
        self._interrupt(operation, actor, operation.fiber.kill)

    def _interrupt(self, operation: Operation, actor: Actor, how: Callable[[], None]) -> None:
        state, ready = operation.sock.state, operation.actor.loop.ready
        direction = state.reading if operation.interest == READ else state.writing
        if operation.pending and operation.fiber in ready and operation.fiber.outcome is None:
            there = operation.sock.file.ready(operation.interest) and direction.edges != direction.drained
            operation.woken = there and direction.holder is operation.fiber
        actor.call(how)

    def close(self, sock: SimSocket, actor: Actor) -> None:
        actor.call(sock.close)

    def unused(self, sock: SimSocket) -> bool:
        """Does no fiber have anything to do with it?"""
        return all(operation.outcome or operation.fiber.done() for operation in self.of(sock))

    def can_be_stolen(self, sock: SimSocket) -> bool:
        """Do all who use it wait in its loop, registered? Nobody else can be told that the number is another's."""
        return all(each.outcome or each.fiber.done() or each.can_be_told for each in self.of(sock))

    def of(self, sock: SimSocket) -> list[Operation]:
        return [operation for operation in self.operations if operation.sock is sock]

    def steal(self, sock: SimSocket, dup: bool) -> None:
        """Somebody closes the number behind our back. With `dup`, he keeps the file under another one."""
        if dup:
            self.kernel.dup(sock.number)
        sock.gone = sock.file.stolen = True
        self.kernel.close(sock.number)

    def strike(self, actor: Actor) -> None:
        """A signal handler raises as the next wait of this thread returns."""

        def handler() -> None:
            raise Strike

        actor.poller.after.append(handler)

    def at(self, moment: str, thread: str, action: Callable[[], None]) -> None:
        """Have `thread` do something: now, or in the middle of what the other one does next.

        `clock`: as it reads the clock. `before`, `after`: in its next wait, before or after the kernel has collected
        events. `call`: in its next system call on a file, when it knows the number and has not used it yet; `result`:
        when it has its result, and has not told yet; between the two, and that, this thread makes a turn of its loop.
        """
        if moment == "now":
            action()
            return

        def now() -> None:
            if not self.actors[thread].busy:
                action()
                if moment == "result":
                    self.actors[thread].turn()

        other = self.other(thread)
        {
            "clock": other.at_clock,
            "before": other.poller.before,
            "after": other.poller.after,
            "call": other.at_call,
            "result": other.at_result,
        }[moment].append(now)

    def tick(self, seconds: float) -> None:
        """Time passes, and nobody looks."""
        self.kernel.pass_time(self.kernel.now + seconds)

    def settle(self) -> None:
        """Let everybody do what there is to do now."""
        busy = list(self.actors.values())
        for _ in range(_ROUNDS):
            for actor in busy:
                actor.settle()
            busy = [actor for actor in self.actors.values() if actor.has_something()]
            if not busy:
                break
        else:
            self.failures.append(f"after {_ROUNDS} rounds the threads {busy} still have something to do")
        self.check_settled()
        for actor in self.actors.values():
            over = [each for each in self.operations if each.actor is actor and each.outcome and not each.released]
            for operation in over:
                actor.call(operation.release)

    def advance(self, seconds: float) -> None:
        """Let time pass, and everybody do what is due, at each moment at which something is."""
        until = self.kernel.now + seconds
        self.settle()
        self._looking = self.kernel.now
        while not self.failures:
            times = [actor.poller.until for actor in self.actors.values()]
            due = [time for time in [*times, self.kernel.next_planned()] if time is not None and time <= until]
            if not due:
                break
            self.kernel.pass_time(min(due))
            self.settle()
        self._looking = FOREVER
        self.kernel.pass_time(until)

    def restart(self, name: str) -> None:
        """A thread ends its fibers and its loop, and begins with new ones."""
        actor = self.actors[name]
        for operation in self.operations:
            if operation.actor is actor:
                operation.cancelled = operation.released = True
        actor.undisturbed()
        actor.end()
        self.actors[name] = self._actor(name)

    def end(self) -> None:
        """End the threads; nothing may be left."""
        for actor in self.actors.values():
            actor.undisturbed()
        for operation in self.operations:
            operation.cancelled = operation.released = True
        for actor in self.actors.values():
            try:
                actor.end()
            except BaseException as error:
                self.failures.append(f"thread {actor} ended with {error!r}")
        for sock in self.sockets:
            sock.forget()
        for operation in self.operations:
            self._expect(operation.fiber.done(), f"{operation.describe()} goes on after its thread has ended")
        left = [number for number in ownership.owners if number >= FIRST]
        for number in left:
            del ownership.owners[number]
        self._expect(not left, f"numbers {left} still belong to a loop that has ended")

    # -- what must hold -----------------------------------------------------------------------------------------

    def _expect(self, condition: bool, complaint: str) -> None:
        if not condition:
            self.failures.append(complaint)

    def raise_failures(self) -> None:
        if self.failures:
            journal = "\n  ".join(self.kernel.journal)
            raise AssertionError("\n".join(self.failures) + f"\nwhat happened last, on the virtual clock:\n  {journal}")

    def check_end(self, operation: Operation) -> None:
        """An operation is over. In its fiber."""
        sock, outcome, now = operation.sock, operation.outcome, self.kernel.now
        what = operation.describe()
        before = [
            each for each in self.of(sock) if each.interest == operation.interest and 0 < each.began < operation.began
        ]
        if outcome == "done":
            self._check_result(operation)
        if outcome in ("done", "error"):
            # Who tries once, or by the clock, does not wait for his turn.
            overtaken = [each for each in before if each.pending and each.in_turn and operation.in_turn]
            self._expect(not overtaken, f"{what} has overtaken {overtaken}")
        elif outcome == "timeout":
            self._expect(now >= min(operation.deadline, operation.scope_deadline), f"{what} timed out too early")
            punctual = operation.deadline < self._looking or now - operation.deadline < 1e-6 or sock.closed
            self._expect(punctual, f"{what} timed out {now - operation.deadline} s late")
            # Who had queued behind others until now has no right to touch the file.
            queued = any(each.pending or each.ended_at == now for each in before)
            if not (queued or operation.outrun or sock.closed or sock.gone or now >= operation.scope_deadline):
                self._expect(
                    not sock.file.ready(operation.interest), f"{what} timed out, and {sock.file} is ready for it"
                )
        elif outcome == "scope":
            self._expect(now >= operation.scope_deadline, f"{what} was ended by its scope too early")
        elif outcome == "closed":
            self._expect(sock.closed or sock.gone, f"{what} was told that its file is closed, which is open")
        elif outcome == "refused":
            others = [each for each in self.of(sock) if each.actor is not operation.actor and each.pending]
            self._expect(bool(others), f"{what} was refused, and no other thread waits")
        elif outcome in ("cancelled", "killed"):
            asked = operation.cancelled if outcome == "cancelled" else operation.killed
            self._expect(asked, f"{what} was {outcome} by nobody")
            self._expect(
                not (operation.woken and sock.file.ready(operation.interest)),
                f"{what} was {outcome} after it had been woken for {sock.file}, which is ready",
            )
        if outcome == "error":
            allowed = {
                errno.ECONNREFUSED,
                *((errno.EPIPE,) if sock.file.broken and operation.interest == WRITE else ()),
            }
            once = operation.timeout == 0.0
            if sock.gone or (once and sock.closed):
                allowed.add(errno.EBADF)
            if once:
                allowed.add(errno.EAGAIN)
            self._expect(operation.errno in allowed, f"{what} got {errno.errorcode.get(operation.errno)}")
        if operation.kind == "sendall" and not sock.gone:  # else it may have written to whoever has the number now
            written = sock.file.written.count(operation.data()[:1])
            said = operation.size if outcome == "done" else operation.sent or 0
            self._expect(written == said, f"{what} says that {said} went out, and it were {written} ({outcome})")

    def _check_result(self, operation: Operation) -> None:
        file, what = operation.sock.file, operation.describe()
        if operation.interest == WRITE:
            if operation.kind != "sendall":
                written = file.written.count(operation.data()[:1])
                self._expect(operation.result == written > 0, f"{what} returned {operation.result}, sent {written}")
            return
        got: tuple[int, ...] = operation.result
        start = self._delivered.get(file.serial, 0)
        expected = tuple(range(file.serial * UNITS + start, file.serial * UNITS + start + len(got)))
        self._delivered[file.serial] = start + len(got)
        self._expect(got == expected, f"{what} got {got}, and {file} had {expected} for it")
        self._expect(len(got) <= operation.size, f"{what} got too much: {got}")
        self._expect(bool(got) or (file.ended and start == file.sent), f"{what} was told of an end that has not come")

    def check_settled(self) -> None:
        """Nobody has anything left to do."""
        now = self.kernel.now
        for operation in self.operations:
            what = operation.describe()
            self._expect(not operation.fault, operation.fault)
            self._expect(not operation.stray, operation.stray)
            self._expect(
                bool(operation.began) or operation.fiber.done(), f"{what} was never begun, and nobody is at work"
            )
            if operation.cancelled:
                self._expect(operation.fiber.done(), f"{what} was cancelled, and goes on")
            if operation.pending:
                self._check_waiting(operation, what, now)
        for sock in self.sockets:
            if not (sock.closed or sock.gone):
                threads = {each.actor.name for each in self.of(sock) if each.pending and each.in_turn}
                self._expect(len(threads) < 2, f"threads {sorted(threads)} both wait for {sock}")
        for sock in self.sockets:
            if hasattr(sock, "file"):
                self._check_runs(sock)

    def _check_waiting(self, operation: Operation, what: str, now: float) -> None:
        sock = operation.sock
        self._expect(now < operation.deadline, f"{what} waits beyond its deadline")
        self._expect(now < operation.scope_deadline, f"{what} waits beyond the deadline of its scope")
        self._expect(not operation.killed, f"{what} was killed, and waits on")
        self._expect(not sock.closed, f"{what} waits for a closed file")
        if sock.gone:
            # A number that comes back for a file of others nobody sees, nor does poll then see that it was closed.
            free = sock.number not in self.kernel.numbers
            self._expect(self.flavour != "poll" or not free, f"{what} waits for {sock.number}, reported as closed")
            ours = [each for each in self.sockets if each.number == sock.number and not each.gone]
            self._expect(not ours, f"{what} waits for number {sock.number}, now that of {ours}")
        else:
            ready = operation.in_turn and sock.file.ready(operation.interest)
            self._expect(not ready, f"{what} waits for {sock.file}, which is ready")

    def _check_runs(self, sock: SimSocket) -> None:
        """What one `sendall` writes stays together. (A `send` is one write.)"""
        apart = {each.began for each in self.of(sock) if not each.in_turn}
        runs = [letter for letter, _ in itertools.groupby(byte for byte in sock.file.written if byte not in apart)]
        self._expect(len(runs) == len(set(runs)), f"writers of {sock.file} are mixed: {bytes(sock.file.written)!r}")

    def check_books(self) -> None:
        """At any time."""
        for actor in self.actors.values():
            self._check_loop(actor, actor.poller)

    def _check_timers(self, actor: Actor) -> None:
        """Who has moved his deadline has not left the old timer behind. (The next deadline may look once in vain.)"""
        for slot in actor.loop.timers.occupied.values():
            timer = slot.after
            while timer is not slot:
                self._expect(_is_known(timer), f"thread {actor} keeps a timer that {timer.target!r} has no use for")
                timer = timer.after

    def _check_loop(self, actor: Actor, poller: SimPoller) -> None:
        self._check_timers(actor)
        stats, known = actor.loop.stats, len(actor.loop._table)
        self._expect(
            stats.registrations - stats.unregistrations == known,
            f"thread {actor}: {stats.registrations} registrations - {stats.unregistrations} unregistrations, {known} known",
        )
        if poller.edge_triggered:
            made = (poller.adds, poller.mods)
            counted = (stats.registrations, stats.modifications)
            self._expect(made == counted, f"thread {actor} registered and modified {made}, and counted {counted}")
        for number in poller.left:
            self._expect(False, f"number {number} was closed while thread {actor} had it registered")
        for number, descriptor in actor.loop._table.items():
            told, has = descriptor.registered, poller.interest(number)
            if number in self.kernel.numbers and not self.kernel.numbers[number].stolen:
                exact = poller.edge_triggered or not actor.struck
                self._expect(
                    told == has if exact else not told & ~has,
                    f"thread {actor} has registered {number} for {told}, as it thinks; its poller has {has}",
                )


def _is_known(timer: Timer) -> bool:
    target = timer.target
    if isinstance(target, Direction):
        return target.timer is timer
    assert isinstance(target, Fiber)
    return timer is target.alarm or timer is target.timer
