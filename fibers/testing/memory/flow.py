"""One direction between two in-memory sockets: bytes on their way, and news of the other end.

A flow is a queue of items with the time at which each arrives, on the clock of the thread that made it. What has arrived
is moved into a buffer when somebody looks; nothing runs by itself. News (the end of the data, the other end closed or
was reset) travel in the same queue, behind the bytes sent before, as they do on a wire.

Both sockets of a pair refer to the two flows between them and not to each other, so that a socket which is dropped
without having been closed can be noticed.

State changes in several steps, which threads may ask for at once, so the callers hold `guard` (guard.py); nothing here
waits, and `Link.delay`, which may call user code, is asked before.
"""

import errno
import os
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Final

from ...core.guard import guard
from ...core.scheduler import check_seconds
from ...core.waitqueue import WaitQueue
from ...eventloop.clock import FOREVER, Clock

#: Bytes that fit into a flow, where nothing else is said.
CAPACITY: Final = 65_536
#: With a bandwidth, bytes arrive in pieces of at most this size.
SEGMENT: Final = 1460


class News(Enum):
    """What one end learns of the other, besides bytes."""

    END = "it sends no more"
    DEAF = "it receives no more"
    GONE = "it is closed"
    UNREAD = "it is closed, and had not received everything"
    RESET = "it was reset"


class Link:
    """How one direction behaves. May be changed at any time; the delay of what is on its way already stays as it was.

    `latency`: seconds that everything takes, or a function that returns them (order is kept); infinity: what is sent from
    now on never arrives. `bandwidth`: bytes per second; None: no limit. `capacity`: bytes that are on their way or have
    arrived and were not received; a sender waits for room. `max_send` and `max_receive`: at most so many bytes are taken
    by one send, or given by one receive; None: no limit. While `held` is true nothing arrives; afterwards all that is due
    does at once. Raises TypeError or ValueError for what makes no sense.
    """

    __slots__ = ("_bandwidth", "_capacity", "_held", "_latency", "_max_receive", "_max_send", "on_change")

    def __init__(
        self,
        latency: float | Callable[[], float] = 0.0,
        bandwidth: float | None = None,
        capacity: int = CAPACITY,
        max_send: int | None = None,
        max_receive: int | None = None,
    ) -> None:
        self.on_change: Callable[[], None] | None = None  # tells the flow
        self._held = False
        self.latency = latency
        self.bandwidth = bandwidth
        self.capacity = capacity
        self.max_send = max_send
        self.max_receive = max_receive

    @property
    def latency(self) -> float | Callable[[], float]:
        return self._latency

    @latency.setter
    def latency(self, latency: float | Callable[[], float]) -> None:
        self._latency = latency if callable(latency) else check_seconds("latency", latency)

    @property
    def bandwidth(self) -> float | None:
        return self._bandwidth

    @bandwidth.setter
    def bandwidth(self, bandwidth: float | None) -> None:
        if bandwidth is not None and check_seconds("bandwidth", bandwidth) == 0:
            raise ValueError("bandwidth must be more than 0 bytes per second; hold() stops a link")
        self._bandwidth = None if bandwidth == FOREVER else bandwidth

    @property
    def capacity(self) -> int:
        return self._capacity

    @capacity.setter
    def capacity(self, capacity: int) -> None:
        self._capacity = _count("capacity", capacity)
        self._changed()

    @property
    def max_send(self) -> int | None:
        return self._max_send

    @max_send.setter
    def max_send(self, size: int | None) -> None:
        self._max_send = None if size is None else _count("max_send", size)

    @property
    def max_receive(self) -> int | None:
        return self._max_receive

    @max_receive.setter
    def max_receive(self, size: int | None) -> None:
        self._max_receive = None if size is None else _count("max_receive", size)

    @property
    def held(self) -> bool:
        return self._held

    @held.setter
    def held(self, held: bool) -> None:
        self._held = bool(held)
        self._changed()

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change()

    def delay(self) -> float:
        """The latency of what is sent now, in seconds."""
        if callable(self._latency):
            return check_seconds("latency", self._latency())
        return self._latency

    def copy(self) -> "Link":
        return Link(self.latency, self.bandwidth, self.capacity, self.max_send, self.max_receive)


def _count(what: str, size: int) -> int:
    if not isinstance(size, int) or isinstance(size, bool):
        raise TypeError(f"{what} must be a whole number of bytes, not {size!r}")
    if size < 1:
        raise ValueError(f"{what} must be 1 byte or more, not {size}")
    return size


class Flow:
    """See the module's text."""

    __slots__ = (
        "_busy_until",
        "_clock",
        "_flight",
        "_flying",
        "_last_arrival",
        "buffer",
        "deaf",
        "dropped",
        "ended",
        "gone",
        "link",
        "readers",
        "reset",
        "rude",
        "version",
        "writers",
    )

    def __init__(self, clock: Clock, link: Link) -> None:
        self._clock = clock
        self.link = link
        self._flight: deque[tuple[float, bytes | News]] = deque()
        self._flying = 0  # bytes in it
        self._busy_until = -FOREVER  # when the last byte has been put on the wire
        self._last_arrival = -FOREVER
        self.version = 0  # changes with everything that might end a wait
        # What has arrived:
        self.buffer = bytearray()
        self.ended = False  # no more bytes will come
        self.deaf = False  # the sender of this flow receives no more: sending to it is in vain
        self.gone = False  # the sender of this flow is closed
        self.reset = False  # an error that nobody has been told of
        self.rude = False  # it is one that senders are told of, too
        self.dropped = False  # the receiver of this flow is closed; what arrives is thrown away
        self.readers = WaitQueue()  # the fiber that waits for bytes or news
        self.writers = WaitQueue()  # the fiber that waits for room
        link.on_change = self.link_changed

    # -- the sender's side ----------------------------------------------------------------------------------------

    def room(self) -> int:
        """Bytes that may be sent now."""
        room = self.link.capacity - self._flying - len(self.buffer)
        most = self.link.max_send
        return room if most is None else min(room, most)

    def send(self, data: bytes, delay: float) -> None:
        """`data` fits. `delay` is `link.delay()`."""
        bandwidth = self.link.bandwidth
        self._flying += len(data)
        if self.dropped:
            return
        if bandwidth is None:
            self._launch(data, self._clock() + delay)
        else:
            for start in range(0, len(data), SEGMENT):
                piece = data[start : start + SEGMENT]
                self._busy_until = max(self._busy_until, self._clock()) + len(piece) / bandwidth
                self._launch(piece, self._busy_until + delay)
        self.changed(self.readers)

    def tell(self, news: News, delay: float) -> None:
        """Send news."""
        self._launch(news, max(self._busy_until, self._clock()) + delay)
        self.changed(self.readers)

    def _launch(self, item: bytes | News, arrival: float) -> None:
        self._last_arrival = max(self._last_arrival, arrival)
        self._flight.append((self._last_arrival, item))

    # -- the receiver's side ----------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Look what has arrived."""
        flight = self._flight
        if not flight or self.link.held:
            return
        now = self._clock()
        while flight and flight[0][0] <= now:
            item = flight.popleft()[1]
            self.version += 1
            if isinstance(item, bytes):
                self._flying -= len(item)
                self.buffer += item
                continue
            if item is News.DEAF:
                self.deaf = True
            else:
                self.ended = True
                self.gone = self.gone or item is not News.END
                self.rude = self.rude or item is News.RESET
                self.reset = self.reset or item in (News.RESET, News.UNREAD)

    def next_arrival(self) -> float:
        """When there will be more; FOREVER if nothing is on its way. After `settle`."""
        return self._flight[0][0] if self._flight and not self.link.held else FOREVER

    def take(self, size: int, peek: bool) -> bytes:
        """Bytes from the buffer, at most `size` and what the link gives at once; b"" if there are none."""
        most = self.link.max_receive
        data = bytes(self.buffer[: size if most is None else min(size, most)])
        if data and not peek:
            del self.buffer[: len(data)]
            self.changed(self.writers)
        return data

    def drop(self) -> bool:
        """The receiver is closed. Was there anything that it has not received?

        What is on its way, and what is still sent, is never received: it takes up room until the sender hears of it.
        """
        self.settle()
        self._flying += len(self.buffer)
        self.buffer.clear()
        self._flight = deque((arrival, item) for arrival, item in self._flight if isinstance(item, News))
        self.dropped = True
        return self._flying > 0

    def raise_reset(self) -> None:
        """Raise the error that the other end was reset, if there is one. Once: afterwards the data has just ended."""
        if self.reset:
            self.reset = False
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))

    # -- both -----------------------------------------------------------------------------------------------------

    def link_changed(self) -> None:
        """The link behaves otherwise from now on."""
        with guard:
            self.changed(self.readers)
            self.changed(self.writers)

    def changed(self, queue: WaitQueue) -> None:
        """Something that a fiber in `queue` may wait for has changed."""
        self.version += 1
        queue.wake_all()
