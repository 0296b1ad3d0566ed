"""What needs no name server: the addresses of `localhost`, and the ports of services.

`localhost`, and every name that ends in `.localhost`, is this machine (RFC 6761, 6.3): no query is sent for it. What the
file of hosts says about it holds, as with the C library, so that whoever has taken `::1` out of there gets what they
wanted; a name that it does not list has both loopback addresses. If it says something else than loopback addresses, or is
too long to be read in passing, the C library is asked.

Both files are read when they are first needed, and again only when they have changed: one `stat` a call, no parsing.
"""

import _socket
import os
from collections.abc import Callable
from socket import AF_INET6, SOCK_DGRAM
from typing import Any, Final

from .lookups import look_up

#: Bytes of a file of hosts that are read without a thread. (Lists of advertisers have megabytes.)
READABLE: Final = 65536

_V4, _V6 = "127.0.0.1", "::1"


class _File:
    """Tells whether a file has changed."""

    __slots__ = ("_seen", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self._seen: tuple[int, ...] | None = ()

    def changed(self) -> bool:
        """Since the last call? True at the first."""
        try:
            status = os.stat(self.path)
        except OSError:
            now = None
        else:
            now = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if now == self._seen:
            return False
        self._seen = now
        return True


class Hosts:
    """The names of this machine in a file of hosts."""

    __slots__ = ("_file", "_names")

    def __init__(self, path: str) -> None:
        self._file = _File(path)
        self._names: dict[str, set[str]] | None = {}

    def loopback(self, host: str | bytes) -> frozenset[str]:
        """The loopback addresses of a host; none if it is not `localhost`, or the C library knows better."""
        if isinstance(host, bytes):
            host = host.decode("ascii", "replace")
        if len(host) > 255 or "localhost" not in (name := host.lower().removesuffix(".")):
            return frozenset()
        if name != "localhost" and not name.endswith(".localhost"):
            return frozenset()
        if self._file.changed():
            self._names = _read_hosts(self._file.path)
        if self._names is None:
            return frozenset()
        found = self._names.get(name) or self._names.get("localhost") or {_V4, _V6}
        return frozenset(found) if found <= {_V4, _V6} else frozenset()


def _read_hosts(path: str) -> dict[str, set[str]] | None:
    """The addresses of the names of this machine; None if the file is too long."""
    try:
        with open(path, "rb") as file:
            data = file.read(READABLE + 1)
    except OSError:
        return {}
    if len(data) > READABLE:
        return None
    names: dict[str, set[str]] = {}
    for line in data.decode("utf-8", "replace").splitlines():
        address, *aliases = line.partition("#")[0].split() or [""]
        for alias in aliases:
            if alias.lower() == "localhost" or alias.lower().endswith(".localhost"):
                names.setdefault(alias.lower(), set()).add(address)
    for addresses in names.values():
        if _V6 in addresses:
            addresses.add(_V4)  # the C library takes the one for the other
    return names


def can_reach_v6() -> bool:
    """Has this machine an address `::1`? (Connecting a datagram socket sends nothing.)"""
    try:
        probe = _socket.socket(AF_INET6, SOCK_DGRAM)
    except OSError:
        return False
    try:
        probe.connect((_V6, 9))
    except OSError:
        return False
    finally:
        probe.close()
    return True


class Services:
    """Answers of the C library about a file of names and numbers, kept until the file changes."""

    __slots__ = ("_file", "_known")

    def __init__(self, path: str) -> None:
        self._file = _File(path)
        self._known: dict[Any, Any] = {}

    def ask(self, function: Callable[..., Any], *args: Any) -> Any:
        """`function(*args)`; raises what it raises. The first time it is asked in a worker thread."""
        if self._file.changed():
            self._known = {}
        known = self._known
        key = (function, *args)
        try:
            return known[key]
        except KeyError:
            pass
        found = look_up(function, *args)
        if len(known) >= 1024:
            known.clear()
        known[key] = found
        return found


hosts: Final = Hosts("/etc/hosts")
services: Final = Services("/etc/services")
protocols: Final = Services("/etc/protocols")
