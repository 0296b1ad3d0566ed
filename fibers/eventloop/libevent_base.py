"""One libevent base, as one thread uses it: make events, add and delete them, run the base, see what has come.

Facts, and what follows:

* A base belongs to the thread that made it (BASE_NOLOCK): a deletion from another thread would wait for a callback
  that waits for the GIL. Who wants something of it from elsewhere wakes the loop and has it do that itself.
* A callback must outlive its events, and may not run Python (libevent_binding.py). So there is one for each base, which
  lives as long as the base, and an event is known to it by an integer. `max(fd, what, number, key=…)` is the call that
  takes three arguments and hands each to a recorder written in C; the recorder is a dict that makes an entry for what it
  is asked for. Numbers of events start above any fd, so the entries for the other two arguments are told apart.
* Recorded events stay recorded until they have been dealt with, so an exception that strikes in between (a signal
  handler's) loses none. Dealing with one twice must be harmless.
* EVLOOP_NONBLOCK alone does not return while a persistent level-triggered event stays ready, and has eaten the memory of
  machines; with EVLOOP_ONCE it looks once. An empty base returns at once unless told otherwise, so a loop over it spins.
* The clock is coarse (1 to 4 ms) unless a precise one is asked for. Even that is not ours: a timer may come early.
* A base that a child inherits by fork shares its kernel object with the parent, in which every deletion would have its
  effect; `event_reinit` ends the process if it fails. So the child lets it lie, memory, fds and all, and makes a new one.
* libevent ends the process when a base cannot have the pipe that it would like to have for signals. So whether there are
  descriptors is asked before.
* EVENT_EPOLL_USE_CHANGELIST=1 puts registrations off until the next wait. A file that is closed and whose number comes
  back before that then counts as registered when it is not. The poll method is taken instead.
"""

import ctypes
import errno
import itertools
import logging
import math
import os
from collections import defaultdict
from functools import partial
from typing import Final

from ..errors import LoopClosedError
from .libevent_binding import (
    BASE_NOLOCK,
    BASE_PRECISE_TIMER,
    EV_TIMEOUT,
    EVLOOP_NO_EXIT_ON_EMPTY,
    EVLOOP_NONBLOCK,
    EVLOOP_ONCE,
    EventCallback,
    Timeval,
    event_active,
    event_add,
    event_base_free,
    event_base_get_features,
    event_base_get_method,
    event_base_loop,
    event_base_new_with_config,
    event_config_avoid_method,
    event_config_free,
    event_config_new,
    event_config_set_flag,
    event_del,
    event_free,
    event_new,
    failure,
)

_log: Final = logging.getLogger("fibers.eventloop")

LOOK: Final = EVLOOP_ONCE | EVLOOP_NONBLOCK | EVLOOP_NO_EXIT_ON_EMPTY
WAIT: Final = EVLOOP_ONCE | EVLOOP_NO_EXIT_ON_EMPTY

#: Numbers of events are greater than any fd, and fit into a pointer of 32 bits.
FIRST_NUMBER: Final = 1 << 31
#: The end of what select takes. libevent would take more, but the C library aborts the process then.
FD_SETSIZE: Final = 1024
#: The longest duration (seconds) that libevent is asked for. Whoever wants more adds again.
LONGEST: Final = 86_400.0

_FEATURES: Final = {0x01: "edge-triggered", 0x02: "constant time", 0x04: "any file", 0x08: "early close"}

#: What children inherited and must neither use nor free: callbacks and bases.
_inherited: Final[list[object]] = []


class Event:
    """One libevent event. `target` is for whoever made it. `pointer` is 0 when the event is gone."""

    __slots__ = ("number", "pointer", "target")

    def __init__(self, number: int, pointer: int, target: object) -> None:
        self.number = number
        self.pointer = pointer
        self.target = target


def _new_base(avoid: bytes | None = None) -> int:
    """A base as above, perhaps without one of libevent's methods. Raises OSError."""
    _ask_for_descriptors()
    config = event_config_new()
    try:
        event_config_set_flag(config, BASE_NOLOCK | BASE_PRECISE_TIMER)
        if avoid is not None:
            event_config_avoid_method(config, avoid)
        pointer: int | None = event_base_new_with_config(config)
    finally:
        event_config_free(config)
    if pointer is None:
        error = failure()
        raise OSError(error.errno or errno.ENOSYS, error.strerror)  # libevent itself sets no errno here
    return pointer


def _ask_for_descriptors() -> None:
    """Raises OSError unless there are as many as a base takes: two for signals, two to wait and for precise timers."""
    held: list[int] = []
    try:
        held += os.pipe()
        held += os.pipe()
    finally:
        for fd in held:
            os.close(fd)


class Base:
    """See the module's text. For the thread that made it."""

    __slots__ = (
        "_callback",
        "_numbers",
        "_pointer",
        "_timeval",
        "_timeval_at",
        "events",
        "features",
        "fired",
        "method",
    )

    def __init__(self) -> None:
        self._pointer = _new_base()
        self.method: str = event_base_get_method(self._pointer).decode()
        if "changelist" in self.method:
            event_base_free(self._pointer)
            self._pointer = _new_base(avoid=b"epoll")
            self.method = event_base_get_method(self._pointer).decode()
            _log.warning("EVENT_EPOLL_USE_CHANGELIST is not safe here; libevent uses %s instead", self.method)
        bits: int = event_base_get_features(self._pointer)
        self.features = [word for bit, word in _FEATURES.items() if bits & bit]
        self.events: dict[int, Event] = {}
        self.fired: defaultdict[int, int] = defaultdict(int)  # numbers of events that have come, in this order
        self._callback = EventCallback(partial(max, key=self.fired.__getitem__))
        self._numbers = itertools.count(FIRST_NUMBER)
        self._timeval = Timeval()
        self._timeval_at = ctypes.addressof(self._timeval)

    def new_event(self, fd: int, what: int, target: object) -> Event:
        """An event for an fd (-1: for time alone). Raises LoopClosedError when the base is gone, ValueError for an fd that
        the method cannot have.
        """
        if not self._pointer:
            raise LoopClosedError("the event loop is closed")
        if fd >= FD_SETSIZE and self.method == "select":
            raise ValueError(
                f"fd {fd} is too high for the select method of libevent, which takes numbers below {FD_SETSIZE}; "
                f"unset EVENT_NOPOLL or EVENT_NOEPOLL, or use FIBERS_EVENTLOOP=poll"
            )
        number = next(self._numbers)
        pointer: int | None = event_new(self._pointer, fd, what, self._callback, number)
        if pointer is None:
            raise MemoryError("libevent has no memory for an event")
        event = self.events[number] = Event(number, pointer, target)
        return event

    def add(self, event: Event) -> OSError | None:
        """Wait for the event, once unless it is persistent. Returns the error if the kernel refuses."""
        if event.pointer and event_add(event.pointer, None) < 0:
            return failure()
        return None

    def add_timer(self, event: Event, seconds: float) -> None:
        """Have the event come in that time, rounded up to microseconds; LONGEST at the most. Raises OSError."""
        micros = math.ceil(min(max(seconds, 0.0), LONGEST) * 1e6)
        timeval = self._timeval
        timeval.tv_sec, timeval.tv_usec = divmod(micros, 1_000_000)
        if event.pointer and event_add(event.pointer, self._timeval_at) < 0:
            raise failure()

    def activate(self, event: Event) -> None:
        """The event comes at the next run, whatever it waits for."""
        if event.pointer:
            event_active(event.pointer, EV_TIMEOUT, 0)

    def delete(self, event: Event) -> None:
        """Do not wait for the event any more."""
        if event.pointer:
            event_del(event.pointer)

    def free(self, event: Event) -> None:
        """Delete the event for good. A second call does nothing."""
        pointer, event.pointer = event.pointer, 0
        if pointer:
            event_free(pointer)
        self.events.pop(event.number, None)

    def run(self, flags: int) -> None:
        """Wait (WAIT) or look (LOOK) once; what has come is in `fired` then. Raises OSError if the method fails."""
        if event_base_loop(self._pointer, flags) < 0:
            raise failure()

    def close(self) -> None:
        """Free everything. A second call does nothing."""
        for event in list(self.events.values()):
            self.free(event)
        pointer, self._pointer = self._pointer, 0
        if pointer:
            event_base_free(pointer)

    def abandon(self) -> None:
        """In a forked child: touch nothing of it from now on, and keep its memory, which others may share."""
        _inherited.append(self._callback)
        for event in self.events.values():
            event.pointer = 0
        self.events.clear()
        self._pointer = 0


def _check() -> None:
    """Raises ImportError where no base can be made: EVENT_NOEPOLL=1 and its like can leave the library without a method."""
    try:
        event_base_free(_new_base())
    except OSError as error:
        raise ImportError(f"libevent cannot wait here: {error.strerror}; see EVENT_NOEPOLL and its like") from error


_check()
