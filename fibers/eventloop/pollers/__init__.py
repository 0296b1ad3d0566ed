"""The kernel half of a polling loop: fd numbers, interest bits, one wait. One small file per system call.

Facts about the four system calls, and what that means here:

* epoll and kqueue keep the set of files in the kernel and can report changes ("edges") instead of states
  ("levels"). One registration per direction then serves for the life of the file. poll and select know levels
  only: a ready file that nobody reads would be reported by every wait. So a level-triggered poller is
  *one-shot*: it drops what it has reported, and the next waiter arms again. One verb, `arm`, says both: "from
  now on I must hear of the next edge".
* An event carries a number and bits, nothing else. Between the wait and its reader the number may have
  changed hands, so an event is a hint, never a fact; the caller tries its operation again. Spurious events
  are therefore allowed, and so is an empty list before the time is over. Lost events are not.
* The systems differ in what they say about a peer that has gone. epoll and poll tell half closed from ready,
  kqueue flags it on the read filter, select says nothing. `HANGUP` exists to warn "no further edge will come
  for what is queued now"; a level-triggered poller reports again at the next `arm` whatever is queued, so
  select may leave it 0.
* poll and select see a closed fd at each wait (POLLNVAL, EBADF) for ever; epoll and kqueue forget it
  silently. So the former report `INVALID`, once, and drop the fd.
* Each call has its own idea of a long wait (milliseconds in an int, a timeval, a timespec) and of a negative
  one (for ever, in epoll and poll). Every wait is therefore clamped to 0 ... LONGEST_WAIT.

The modules beside this one are imported by whoever chose one of them: where the system lacks the call, the
import of `epoll` (ImportError) or `poll`, or the construction of a KqueuePoller (AttributeError), fails.
"""

from collections.abc import Collection
from typing import ClassVar, Final, Protocol

READ: Final = 1
WRITE: Final = 2

LONGEST_WAIT: Final = 86_400.0
"""Seconds. Short enough for every kernel's type, long enough that waking once a day is nothing."""


class Poller(Protocol):
    """What a PollingLoop asks of the kernel.

    Threads: `wait` and `close` are for the owner of the loop. `arm`, `disarm` and `forget` may also be called
    by another thread, or by a signal handler, while `wait` is in the kernel; whether the wait in progress
    takes notice is the system's choice, so who needs that ends the wait himself (see waker.py).

    After close() only close() and fileno() may be called; the other verbs raise ValueError, or do nothing
    (forget, disarm) where the poller has no kernel object.
    """

    name: ClassVar[str]

    edge_triggered: ClassVar[bool]
    """True: a direction is armed once in the life of a file (but for files in `one_shot`). False: `wait` disarms each
    direction that it reports (READ if the bits meet READABLE, WRITE if they meet WRITABLE, both if they meet INVALID)."""

    READABLE: ClassVar[int]
    WRITABLE: ClassVar[int]
    """Masks over the bits of an event: an edge in that direction. Errors and full hang-ups meet both."""

    HANGUP: ClassVar[int]
    """Mask: the peer closed its writing half, or everything. 0 where the system does not tell. Not sticky."""

    INVALID: ClassVar[int]
    """Mask: this number is no open file; it has been dropped. 0 where the system does not tell."""

    @property
    def one_shot(self) -> Collection[int]:
        """Files that an edge-triggered poller reports once for each `arm`: those are armed at every wait, again and again.

        A number enters by `arm` and leaves by `forget`. Empty almost everywhere (see kqueue_fifo.py).
        """

    MAX_EVENTS: ClassVar[int]
    """A wait that returns this many or more may have left some behind: wait again with 0 to hear of them."""

    def arm(self, fd: int, interest: int, armed: int) -> None:
        """Add `interest` (READ or WRITE) to an fd for which `armed` (a mask, or 0) has been armed already.

        What is ready already is reported by the next wait. Raises OSError, leaving what was armed before and
        nothing else: EPERM says that the file never blocks (regular files; not from poll and select, which
        report those as ready), EBADF that it is not open (poll and select tell by INVALID instead). Raises
        ValueError if the number is negative or too large for the system call.
        """

    def disarm(self, fd: int, interest: int) -> None:
        """The last waiter of a direction has left before the edge came. Does nothing if it is not armed."""

    def forget(self, fd: int, armed: int) -> None:
        """Unregister what is armed. To be called before close(2): the number means nothing afterwards.

        Does not mind if the fd was closed, or its number re-used, behind our back.
        """

    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        """Sleep until something is ready or `timeout` seconds have passed; None: for ever, below 0: as 0.

        Returns (fd, bits). Rounding never makes it return early. Raises what a signal handler raises; events
        that it had collected are lost then, and a level-triggered poller may have disarmed what they were
        about, so that everything has to be armed again.
        """

    def close(self) -> None:
        """Give the kernel object back. A second call does nothing."""

    def fileno(self) -> int:
        """The fd of the kernel object; -1 where there is none, or none any more."""
