"""A poller over a simulated kernel: what is reported when, and what else happens meanwhile, is up to the test.

Three flavours, after the facts in fibers/eventloop/pollers:

    epoll   one registration for a file and a number, of both directions; a report tells all that is true of the file; a
            closed number whose file lives on by a dup reports on, and cannot be forgotten
    kqueue  a filter for each direction; closing a number takes its filters along
    poll    states, and one-shot; it knows numbers only, and reports one that is closed

What real kernels and other threads may do, and tests seldom see:

* An event comes late: `hold` keeps back those of a file until the loop would sleep. An event comes for nothing, or for a
  number that has changed hands: `invent`. With a `seed` both happen by themselves, and the order is shuffled; seed 0 is
  an orderly kernel.
* Events come a few at a time: an answer has room for MAX_EVENTS.
* Something happens between the kernel and the loop: `before` and `after` a wait, when its events are collected but not
  yet returned. A peer sends, another thread closes the file; or a signal handler raises, and the events are lost.

Time. A wait that finds nothing asks `sleep`, which moves the clock and returns, or says that the wait is over. By itself
it goes to the next thing that is planned, or to the end of the wait; where neither exists it raises Stuck, since nothing
will ever happen. Numbers below the simulated ones (the loop's wakers) are real files, and are looked at without waiting.
"""

import errno
import math
import os
import random
import select
import sys
from collections import deque
from collections.abc import Callable
from typing import ClassVar, Final

from .kernel import FIRST, READ, WRITE, SimFile, SimKernel

_HANGUP: Final = 4
_BROKEN: Final = 8
_INVALID: Final = 16

#: More waits than this in a row, without any time passing, and the loop is spinning.
MAX_WAITS: Final = 300


class Stuck(AssertionError):
    """A loop went to sleep, and nothing can ever wake it."""


class Spinning(AssertionError):
    """A loop waits over and over again, and time does not pass."""


class Registration:
    """What a poller has been asked to report of a number."""

    __slots__ = ("file", "interest", "number", "pending", "urgent")

    def __init__(self, number: int, file: SimFile, interest: int) -> None:
        self.number = number
        self.file = file
        self.interest = interest
        self.pending = True  # what is ready already is reported
        self.urgent = False


class SimPoller:
    """See the module's text, and Poller. Made by the classes below; for one thread at a time."""

    name: ClassVar[str]
    edge_triggered: ClassVar[bool] = True
    READABLE: ClassVar[int] = READ | _BROKEN
    WRITABLE: ClassVar[int] = WRITE | _BROKEN
    HANGUP: ClassVar[int] = _HANGUP
    INVALID: ClassVar[int] = 0
    one_shot: ClassVar[frozenset[int]] = frozenset()
    MAX_EVENTS: ClassVar[int] = 2

    def __init__(self, kernel: SimKernel, seed: int = 0) -> None:
        self.kernel = kernel
        self.closed = False
        self.until: float | None = None  # when the last wait that slept was to end
        self.left: list[
            int
        ] = []  # numbers that were closed while they were registered here, and nobody had stolen them
        self.reported: list[tuple[int, int]] = []  # by the last waits, until somebody clears it
        self.full = False  # the last wait may have left something behind
        self.waits = 0  # since time last passed
        self.time = kernel.now
        self.adds = 0  # files registered, directions added, files unregistered
        self.mods = 0
        self.dels = 0
        self.before: deque[Callable[[], None]] = deque()
        self.after: deque[Callable[[], None]] = deque()
        self.held: set[SimFile] = set()
        self.sleep: Callable[[float | None], bool] = self.let_time_pass
        self._invented: list[tuple[int, int]] = []
        self._chance = random.Random(seed) if seed else None
        self._known: dict[object, Registration] = {}
        self._real: dict[int, int] = {}  # number -> interest
        kernel.listeners.append(self)

    # -- the verbs ----------------------------------------------------------------------------------------------

    def arm(self, fd: int, interest: int, armed: int) -> None:
        self._check_open()
        if fd < FIRST:
            self._real[fd] = self._real.get(fd, 0) | interest
        else:
            self._arm(fd, interest, armed)

    def disarm(self, fd: int, interest: int) -> None:
        """Only level-triggered pollers have a use for it."""

    def forget(self, fd: int, armed: int) -> None:
        self._real.pop(fd, None)
        if fd >= FIRST:
            self._forget(fd, armed)

    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        self._check_open()
        kernel = self.kernel
        if kernel.now > self.time:
            self.time, self.waits = kernel.now, 0
        self.waits += 1
        if self.waits > MAX_WAITS:
            self.waits = 0
            raise Spinning(f"{MAX_WAITS} waits at {kernel.now}, the last for {timeout} s")
        while self.before:
            self.before.popleft()()
        events = self._collect(orderly=False)
        if not events and timeout != 0.0:
            # However short, a wait lets some time pass, or a loop whose deadline is nearer than the next float would spin.
            self.until = until = (
                None if timeout is None else max(kernel.now + timeout, math.nextafter(kernel.now, math.inf))
            )
            while not (events := self._collect(orderly=True)) and self.sleep(until):
                pass
        told = [f"{fd} {self._word(bits)}" for fd, bits in events if fd >= FIRST]
        if told:
            kernel.note(f"{self.name} reports {', '.join(told)}")
        while self.after:
            self.after.popleft()()  # may raise, and then the events are lost
        self.full = len(events) >= self.MAX_EVENTS
        self.reported += events
        return events

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._known.clear()
            self._real.clear()
            self.kernel.listeners.remove(self)

    def fileno(self) -> int:
        return -1

    # -- the script ---------------------------------------------------------------------------------------------

    def hold(self, file: SimFile) -> None:
        """Keep back what is to be reported of a file, until the loop would sleep."""
        self.held.add(file)

    def invent(self, number: int, interest: int) -> None:
        """Report a number in the next wait, for no reason at all."""
        self._invented.append((number, interest))

    def has_something(self) -> bool:
        """Would a wait return at once?"""
        return bool(self._invented or self._real_events(look=True)) or any(
            self._report(registration, look=True) for registration in self._known.values()
        )

    def interest(self, number: int) -> int:
        """What is armed for a number, as the file that has it now."""
        file = self.kernel.numbers.get(number)
        return sum(known.interest for known in self._known.values() if known.number == number and known.file is file)

    # -- collecting ---------------------------------------------------------------------------------------------

    def _collect(self, orderly: bool) -> list[tuple[int, int]]:
        if orderly:
            self.held.clear()
        events = self._real_events() + self._invented
        for number, interest in self._invented:
            for registration in [known for known in self._known.values() if known.number == number]:
                self._reported(registration, interest)
        self._invented = []
        candidates = list(self._known.values())
        if self._chance is not None:
            self._chance.shuffle(candidates)
        for registration in candidates:
            if len(events) >= self.MAX_EVENTS:
                break
            if registration.file in self.held or (not orderly and self._by_chance()):
                continue
            bits = self._report(registration)
            if bits:
                events.append((registration.number, bits))
        if not orderly and self._by_chance() and candidates:
            registration = candidates[0]
            events.append((registration.number, registration.interest))
            self._reported(registration, registration.interest)
        return events

    def _by_chance(self) -> bool:
        return self._chance is not None and self._chance.random() < 0.3

    def _real_events(self, look: bool = False) -> list[tuple[int, int]]:
        if not self._real:
            return []
        poll = select.poll()
        for fd in self._real:
            poll.register(fd, select.POLLIN)
        events = [(fd, READ) for fd, bits in poll.poll(0) if bits & select.POLLIN]
        if not (self.edge_triggered or look):
            for fd, _ in events:
                del self._real[fd]
        return events

    def let_time_pass(self, until: float | None) -> bool:
        """What a wait does with nothing to report, if nobody has set `sleep`. False: its time is over."""
        kernel = self.kernel
        planned = kernel.next_planned()
        times = [time for time in (until, planned) if time is not None]
        if not times:
            raise Stuck("the loop sleeps without a deadline, and nothing is planned")
        if until is not None and kernel.now >= until:
            return False
        kernel.pass_time(min(times))
        return True

    def _word(self, bits: int) -> str:
        letters = ((READ, "r"), (WRITE, "w"), (_HANGUP, "h"), (_BROKEN, "b"), (_INVALID, "i"))
        return "".join(letter for bit, letter in letters if bits & bit)

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on a closed simulated poller")

    # -- what differs from flavour to flavour --------------------------------------------------------------------

    def _arm(self, number: int, interest: int, armed: int) -> None:
        raise NotImplementedError

    def _forget(self, number: int, armed: int) -> None:
        raise NotImplementedError

    def _report(self, registration: Registration, look: bool = False) -> int:
        """The bits to be reported now, 0 if none. `look`: they are not reported yet."""
        raise NotImplementedError

    def _reported(self, registration: Registration, interest: int) -> None:
        """Something was reported that had not happened."""

    def _leave(self, number: int, file: SimFile) -> None:
        if not file.stolen and any(known.number == number and known.file is file for known in self._known.values()):
            self.left.append(number)

    def active(self, file: SimFile, interest: int, urgent: bool) -> None:
        raise NotImplementedError

    def number_closed(self, number: int, file: SimFile) -> None:
        raise NotImplementedError


class SimEpoll(SimPoller):
    """Registrations are known by number and file."""

    name: ClassVar[str] = "sim epoll"

    def _arm(self, number: int, interest: int, armed: int) -> None:
        file = self.kernel.file(number)
        known = self._known.get((number, file))
        if armed:
            if known is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            assert known.interest == armed, f"{number} is said to be armed for {armed}, and is for {known.interest}"
            assert not interest & armed, f"{number} is armed for {interest} already"
            self.mods += 1
        else:
            # A living one can only be that of a number that was closed behind the loop's back, and came back with its file.
            assert known is None or file.stolen, f"{number} ({file}) is registered already"
            self.adds += 1
        self._known[number, file] = Registration(number, file, interest | armed)

    def _forget(self, number: int, armed: int) -> None:
        file = self.kernel.numbers.get(number)
        if armed and file is not None and self._known.pop((number, file), None) is not None:
            self.dels += 1

    def _report(self, registration: Registration, look: bool = False) -> int:
        if not registration.pending:
            return 0
        file, interest = registration.file, registration.interest
        bits = 0
        if interest & READ and (file.readable() or registration.urgent):
            bits |= READ | _HANGUP if file.ended or registration.urgent else READ
        if interest & WRITE and file.writable():
            bits |= WRITE
        if file.error is not None or file.broken:
            bits |= _BROKEN | _HANGUP if file.broken else _BROKEN
        if not look:
            registration.pending = registration.urgent = False
            file.refused |= bool(interest & WRITE) and not file.writable()  # to be told of room is asked for by looking
        return bits

    def active(self, file: SimFile, interest: int, urgent: bool) -> None:
        for registration in self._known.values():
            if registration.file is file and registration.interest & interest:
                registration.pending = True
                registration.urgent |= urgent

    def number_closed(self, number: int, file: SimFile) -> None:
        self._leave(number, file)
        if not file.numbers:
            self._known = {key: known for key, known in self._known.items() if known.file is not file}


class SimKqueue(SimPoller):
    """Filters are known by number and direction."""

    name: ClassVar[str] = "sim kqueue"

    def _arm(self, number: int, interest: int, armed: int) -> None:
        file = self.kernel.file(number)
        assert (number, interest) not in self._known, f"{number} ({file}) is armed for {interest} already"
        if armed:
            self.mods += 1
        else:
            self.adds += 1
        self._known[number, interest] = Registration(number, file, interest)

    def _forget(self, number: int, armed: int) -> None:
        gone = [self._known.pop((number, interest), None) for interest in (READ, WRITE) if armed & interest]
        self.dels += any(gone)

    def _report(self, registration: Registration, look: bool = False) -> int:
        file, interest = registration.file, registration.interest
        if not registration.pending:
            return 0
        if not look:
            registration.pending = False
        if not file.ready(interest):
            file.refused |= interest == WRITE and not look
            return 0
        if interest == READ:
            return READ | _HANGUP if file.ended else READ
        return WRITE | _BROKEN if file.broken else WRITE

    def active(self, file: SimFile, interest: int, urgent: bool) -> None:
        for registration in self._known.values():
            if registration.file is file and registration.interest & interest:
                registration.pending = True

    def number_closed(self, number: int, file: SimFile) -> None:
        self._leave(number, file)
        for interest in (READ, WRITE):
            self._known.pop((number, interest), None)


class SimPoll(SimPoller):
    """States of numbers; what has been reported is dropped."""

    name: ClassVar[str] = "sim poll"
    edge_triggered: ClassVar[bool] = False
    INVALID: ClassVar[int] = _INVALID
    MAX_EVENTS: ClassVar[int] = sys.maxsize

    def _arm(self, number: int, interest: int, armed: int) -> None:
        known = self._known.get(number)
        if known is None:
            self.adds += 1
            # Nobody looks at the number before the wait, and at the file behind it not at all.
            self._known[number] = Registration(number, self.kernel.numbers.get(number) or _NO_FILE, interest)
        else:
            known.interest |= interest

    def disarm(self, fd: int, interest: int) -> None:
        known = self._known.get(fd)
        if known is not None:
            self._reported(known, interest)

    def _forget(self, number: int, armed: int) -> None:
        self.dels += self._known.pop(number, None) is not None

    def _report(self, registration: Registration, look: bool = False) -> int:
        number, interest = registration.number, registration.interest
        file = self.kernel.numbers.get(number)
        if file is None:
            bits = _INVALID
        else:
            bits = READ if interest & READ and (file.readable() or file.urgent()) else 0
            if bits and (file.ended or file.urgent()):
                bits |= _HANGUP
            if interest & WRITE and file.writable():
                bits |= WRITE
            if file.error is not None or file.broken:
                bits |= _BROKEN | _HANGUP if file.broken else _BROKEN
        if bits and not look:
            self._reported(registration, READ | WRITE if bits & (_INVALID | _BROKEN) else bits)
        return bits

    def _reported(self, registration: Registration, interest: int) -> None:
        registration.interest &= ~interest
        if not registration.interest:
            self._known.pop(registration.number, None)

    def active(self, file: SimFile, interest: int, urgent: bool) -> None:
        """States are looked at when somebody asks."""

    def number_closed(self, number: int, file: SimFile) -> None:
        """Seen at the next wait, and at each further one, until it is forgotten."""
        self._leave(number, file)


_NO_FILE: Final = SimFile(SimKernel(), 0, 0)

FLAVOURS: Final[dict[str, type[SimPoller]]] = {"epoll": SimEpoll, "kqueue": SimKqueue, "poll": SimPoll}
