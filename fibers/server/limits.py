"""How many connections there may be: in all, and from one address; across all threads of a server.

Who is too many *in all* waits, in the kernel's queue or (one for each loop, where two loops have accepted at the same
moment) before its handler. Who is too many *from one address* is told so by closing the connection: to know where it
comes from it had to be accepted, and waiting would only serve him who keeps others out.

An address of IPv6 counts by its first 64 bits, for a host has all of them; one of IPv4 in the guise of IPv6 as IPv4.
Connections of unix sockets have no address, and so no limit of this kind.
"""

import socket as std
import threading
from collections.abc import Callable
from typing import Any

from ..sync.semaphore import Semaphore

_MAPPED = bytes(10) + b"\xff\xff"


class ConnectionLimits:
    """See the module's text. `total` and `per_address` are counts (1 or more); None: no limit. Any thread."""

    __slots__ = ("_counts", "_lock", "_per_address", "_permits", "_watchers", "refused")

    def __init__(self, total: int | None = None, per_address: int | None = None) -> None:
        for name, limit in (("max_connections", total), ("max_connections_per_address", per_address)):
            if limit is not None and (not isinstance(limit, int) or limit < 1):
                raise ValueError(f"{name} must be a number from 1 on, or None, not {limit!r}")
        self._permits = None if total is None else Semaphore(total)
        self._per_address = per_address
        self._counts: dict[object, int] = {}
        self._lock = threading.Lock()
        self._watchers: list[Callable[[], None]] = []
        self.refused = 0  # closed because their address had too many

    def watch(self, changed: Callable[[], None]) -> None:
        """Have `changed` called when there may be room again."""
        self._watchers.append(changed)

    def room(self) -> bool:
        """Is there room in all?"""
        return self._permits is None or self._permits._value > 0

    def admit(self, address: Any) -> bool:
        """One more from this address? False: it has too many. If True, `leave` is to be called in the end."""
        if self._per_address is None:
            return True
        key = _key(address)
        if key is None:
            return True
        with self._lock:
            count = self._counts.get(key, 0)
            if count >= self._per_address:
                self.refused += 1
                return False
            self._counts[key] = count + 1
        return True

    def leave(self, address: Any) -> None:
        """The connection that was admitted is closed."""
        if self._per_address is None or (key := _key(address)) is None:
            return
        with self._lock:
            count = self._counts[key] - 1
            if count:
                self._counts[key] = count
            else:
                del self._counts[key]

    def try_acquire(self) -> bool:
        """A permit of those in all, if there is one now. `release` gives it back."""
        return self._permits is None or self._permits.acquire(False)

    def acquire(self) -> None:
        """As `try_acquire`; waits for it."""
        if self._permits is not None:
            self._permits.acquire()

    def release(self) -> None:
        """Give back a permit, and tell those who watch."""
        if self._permits is not None:
            self._permits.release()
            for changed in self._watchers:
                changed()


def _key(address: Any) -> object:
    if not isinstance(address, tuple):
        return None
    host: str = address[0]
    if ":" not in host:
        return host
    packed = std.inet_pton(std.AF_INET6, host.partition("%")[0])
    return std.inet_ntop(std.AF_INET, packed[12:]) if packed.startswith(_MAPPED) else packed[:8]
