"""`select`: wait for one of several things, of which exactly one happens.

    case, value = fibers.select(jobs.receiving(), results.sending(result), fibers.after(5))

The cases come from channels (`receiving`, `sending`), fibers (`finishing`), events (`setting`), files (`readable`,
`writable`) and the clock (`after`). What a case and a choice are, and why exactly one happens, is in choosing.py. One try
goes like this:

1. Look which of the cases that hold do hold.
2. In one step under the guard: look who could pass something; choose one of all that could happen, by lot, and do it. If
   none could, enter the lines of those that pass.
3. Enter the queues of those that hold. If one does by now, try again.
4. Wait. If somebody has claimed the choice and said why, that is the result; if not (a file has seen an event, a time has
   come), try again.

With `default()` a try ends after step 2. At the end of the `timeout` there is one more try: data beats timeout.
"""

from collections.abc import Sequence
from itertools import count
from random import Random
from typing import Any, Final, TypeVar

from greenlet import GreenletExit

from ..core.cancel import as_timeout
from ..core.choosing import CLOSED, ENTERING, NOTHING, TAKEN, WAITED, WAITING, Case, Choice, PassingCase
from ..core.fiber import Fiber
from ..core.guard import guard
from ..core.scheduler import Scheduler, check_seconds, get_scheduler, state
from ..errors import Cancelled, ChannelClosed, OwnershipError
from ..eventloop.clock import FOREVER
from ..eventloop.waiter import TIMED_OUT

C = TypeVar("C", bound=Case)

#: Draws among what could happen. Its own, so that programs that seed `random` are not disturbed; tests may seed this one.
dice: Final = Random()

#: How many selects in a row are served without waiting before the fiber of one of them lets others run.
CREDIT: Final = 256

_free: Final = guard.free
_served: Final = count(1)


def select(*cases: C | None, timeout: float | None = None) -> tuple[C, Any]:
    """Wait until one of the cases happens; returns it (the object that was passed) and its value.

    Exactly one happens. If several could, each is equally likely. For a closed channel, receiving and sending can always
    happen, with the value ChannelClosed (the class); so with ClosedError for a file that was closed. Otherwise the value
    is what was received; the fiber that is done; for all others None.

    None in place of a case never happens, like a nil channel in Go: `left.receiving() if wanted else None`. A case may
    appear twice, and may be used again, by any fiber of any thread.

    Raises TimeoutError after `timeout` seconds (>= 0; None: no limit), ValueError if there are no cases, TypeError for
    what is not one; what files raise that are not open.
    """
    scheduler = state.scheduler
    if scheduler is None:
        scheduler = get_scheduler()
    me = scheduler.current
    if me is None:
        raise scheduler.refuse()
    case: Any
    case, value = _Selection(scheduler, me, cases, timeout).result()
    return case, value


class After(Case):
    """Some seconds have passed since the select began."""

    __slots__ = ("seconds",)

    inside = False

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __repr__(self) -> str:
        return f"{self.seconds} seconds to pass"


class Default(Case):
    """Nothing else could happen."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "nothing"


def after(seconds: float) -> After:
    """For `select`: the case that `seconds` (>= 0; infinity: never) have passed since the select began.

    Unlike `timeout=` it is one case among others: if it meets with another, either may happen.
    """
    return After(check_seconds("seconds", seconds))


_DEFAULT: Final = Default()


def default() -> Default:
    """For `select`: the case that no other could happen at once. It makes select non-blocking. Always the same object."""
    return _DEFAULT


class _Selection:
    """One call of `select`."""

    __slots__ = (
        "_cases",
        "_deadline",
        "_default",
        "_due",
        "_holding",
        "_inside",
        "_me",
        "_passing",
        "_scheduler",
        "_timeout",
    )

    def __init__(
        self, scheduler: Scheduler, me: Fiber[Any], cases: Sequence[Case | None], timeout: float | None
    ) -> None:
        if not cases:
            raise ValueError("select() needs at least one case, such as channel.receiving() or after(seconds)")
        self._scheduler = scheduler
        self._me = me
        self._cases = cases
        self._timeout = timeout
        self._passing: list[PassingCase] = []
        self._holding: list[Case] = []
        self._default: Case | None = None
        self._due: list[tuple[float, Case]] = []
        self._inside = True
        now = None
        for case in cases:
            if isinstance(case, PassingCase):
                self._passing.append(case)
                continue
            if isinstance(case, After):
                if now is None:
                    now = scheduler.loop.clock()
                self._due.append((now + case.seconds, case))
            elif isinstance(case, Default):
                self._default = case
            elif isinstance(case, Case):
                self._holding.append(case)
            elif case is not None:
                raise TypeError(
                    f"select() takes cases, such as channel.receiving(), channel.sending(value), fiber.finishing() or "
                    f"readable(sock), not {case!r}"
                )
            else:
                continue
            self._inside = self._inside and case.inside
        self._deadline = scheduler.deadline(timeout)

    def result(self) -> tuple[Case, Any]:
        end = self._deadline
        for due, _ in self._due:
            if due < FOREVER and (end is None or due < end):
                end = due
        passed = -FOREVER  # the time that the last wait has ended at, if it has
        while True:
            last = self._deadline is not None and self._deadline <= passed
            choice = Choice(self._me, self._cases, self._inside)
            try:
                if self._try(choice, passed, end, last) and end is not None:
                    passed = end
            except BaseException as error:
                if not self._survives(choice, error):
                    raise
            if choice.case is not None:
                value = choice.value
                if value is TAKEN:
                    value = None
                elif value is CLOSED:
                    value = ChannelClosed
                return choice.case, value

    def _try(self, choice: Choice, passed: float, end: float | None, last: bool) -> bool:
        """One try, as in the module's text. True: the time is up."""
        could = self._look(passed)
        if (could or self._passing) and self._choose(choice, could, enter=self._default is None and not last):
            if self._default is None and not next(_served) % CREDIT:
                self._scheduler.ready.append(self._me)
                self._scheduler.park(self._me, None)
            return False
        if self._default is not None:
            choice.case = self._default
            choice.value = None
            return False
        if last:
            raise TimeoutError(f"nothing that was selected happened within {self._timeout} seconds")
        return self._wait(choice, end)

    def _look(self, passed: float) -> list[tuple[Case, object]]:
        """What holds now."""
        me = self._me
        could: list[tuple[Case, object]] = []
        for case in self._holding:
            value = case.look(me)
            if value is not NOTHING:
                could.append((case, value))
        if self._due:
            now = max(passed, self._scheduler.loop.clock())
            could += [(case, None) for due, case in self._due if due <= now]
        return could

    def _choose(self, choice: Choice, could: list[tuple[Case, object]], enter: bool) -> bool:
        """Let one of what could happen happen. If nothing could (False), enter the lines."""
        scheduler, me = self._scheduler, self._me
        thread = scheduler.thread
        scheduler.current = None
        try:
            try:
                del _free[0]
            except KeyError:
                guard.wait()
            guard.owner = thread
            try:
                could += [(case, NOTHING) for case in self._passing if case.may_pass()]
                while could:
                    place = int(dice.random() * len(could)) if len(could) > 1 else 0
                    case, value = could[place]
                    if value is not NOTHING:
                        choice.case = case
                        choice.value = value
                        break
                    if isinstance(case, PassingCase) and case.pass_now(choice):
                        break
                    del could[place]  # its partner has just been called off
                else:
                    if enter:
                        if len(self._passing) > 1:
                            dice.shuffle(self._passing)  # of two that enter one line, the first will be served
                        for passing in self._passing:
                            passing.enter(choice)
            finally:
                guard.owner = 0
                _free[0] = None
            if choice.partner is not None:
                choice.partner.scheduler.wake(choice.partner)
        finally:
            scheduler.current = me
        return choice.case is not None

    def _wait(self, choice: Choice, end: float | None) -> bool:
        """Wait until the choice is claimed. True: the time is up."""
        me = self._me
        for case in self._holding:
            if case.enter(choice):
                try:
                    del choice._waiting[me]
                    choice.progress = WAITED
                except KeyError:
                    break  # it has been claimed: the wake-up is on its way
                choice.withdraw()
                return False
        choice.progress = WAITING
        late = self._scheduler.park(me, choice, end) is TIMED_OUT
        choice.progress = WAITED
        choice.withdraw()
        return late

    def _survives(self, choice: Choice, error: BaseException) -> bool:
        """Something has raised: an interruption, the time, a file that cannot be watched, a signal handler. Has a case
        happened all the same? Then what a handler has raised goes to main.
        """
        scheduler, me = self._scheduler, self._me
        exits = isinstance(error, GreenletExit)
        if not choice.abandon(me) and not exits:
            progress = choice.progress
            if progress is ENTERING or (progress is WAITING and choice.case is not None):
                scheduler.park(me, None)  # a partner has claimed it meanwhile: the wake-up is on its way
        choice.withdraw()
        if choice.case is None or exits:
            if self._timeout is not None and isinstance(error, Cancelled) and (late := as_timeout(me)) is not None:
                raise late from None
            return False
        if me in scheduler.ready:
            scheduler.ready.remove(me)  # it was about to give way
        if not isinstance(error, OSError | OwnershipError | ValueError):
            scheduler.wake_again(choice.partner)
            scheduler._strike(error)
        return True
