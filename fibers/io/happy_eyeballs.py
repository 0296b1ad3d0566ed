"""Connecting to a host by name: the first of its addresses that answers (RFC 8305, "Happy Eyeballs").

A host has several addresses of two families, and any may be dead without saying so. They are tried in the order of
the system's policy with the families taking turns. The next attempt starts when the one before has failed, or when 250 ms
have passed without an answer, and goes on beside it. The first to succeed wins; the others are cancelled and closed.

Decisions. One look-up asks for both families, since only the resolver knows their order (RFC 6724, and the system's
configuration of it); so an address is not tried before both answers are there. TLS begins when the race is over: the
RFC leaves that open, and a certificate that is refused is no reason to ask another server. The deadline is for all of it,
from the look-up to the end of the handshake.

When nothing succeeds there is one OSError that names each address and what came of it. Its errno, and thereby its class,
is that of the first attempt that says something about the host: where IPv6 has no route and IPv4 is refused, that is
ConnectionRefusedError. The errors themselves are its cause, in a group if they are several.
"""

import errno
import os
from collections.abc import Iterable
from itertools import zip_longest
from typing import Any, Final, NamedTuple

from ..core.cancel import move_on_after, surface
from ..core.runtime import current
from ..core.scheduler import check_seconds, get_scheduler
from ..errors import Cancelled
from ..groups.group import TaskGroup
from ..sync.event import Event
from .names import getaddrinfo
from .socket import AF_INET6, AF_UNSPEC, AI_PASSIVE, IPPROTO_TCP, SOCK_STREAM, TCP_NODELAY, getdefaulttimeout, socket

try:
    from . import ssl
except ImportError:  # this Python has been built without it
    ssl = None  # type: ignore[assignment]

#: Seconds before the next address is tried beside one that has not answered: RFC 8305, section 5.
DELAY: Final = 0.25

#: What a network that this machine has no part in says: nothing about the host.
_OURS: Final = (
    errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT,
)  # fmt: skip


class Target(NamedTuple):
    """What `getaddrinfo` says of one address."""

    family: int
    kind: int
    proto: int
    name: str
    address: Any

    def __str__(self) -> str:
        host, port = self.address[:2]
        return f"[{host}]:{port}" if self.family == AF_INET6 else f"{host}:{port}"


def interleaved(targets: Iterable[Target]) -> list[Target]:
    """The targets in their order, but with families taking turns, beginning with that of the first. None twice."""
    families: dict[int, dict[Target, None]] = {}
    for target in targets:
        families.setdefault(target.family, {})[target] = None
    return [target for row in zip_longest(*families.values()) for target in row if target is not None]


def connect(
    host: str,
    port: int | str,
    *,
    timeout: float | None = None,
    tls: Any = None,
    server_hostname: str | None = None,
    local_address: str | tuple[str, int] | None = None,
    happy_eyeballs_delay: float | None = DELAY,
) -> socket:
    """A socket that is connected to `host`, by the first of its addresses that answers. See the module's text.

    `timeout` (seconds; None: no limit) is for all that happens here; the socket comes with the default timeout of
    sockets. `tls`: True for a default context, or an `ssl.SSLContext`; the result is a `fibers.io.ssl.SSLSocket` after its
    handshake, which has checked the certificate for `server_hostname` (default: the host). `local_address` is the host, or
    the pair of host and port, to connect from; only addresses of its families are tried. `happy_eyeballs_delay` in seconds
    (>= 0); None: one after the other. Nagle's algorithm is off (TCP_NODELAY).

    Raises OSError if no address can be connected to, TimeoutError, `socket.gaierror` for a host that is not known,
    `ssl.SSLError` for a handshake that fails; TypeError and ValueError for bad arguments. Any thread.
    """
    _check_host_and_port(host, port)
    if timeout is not None:
        check_seconds("timeout", timeout)
    if happy_eyeballs_delay is not None:
        check_seconds("happy_eyeballs_delay", happy_eyeballs_delay)
    context = _context(tls)
    if server_hostname is not None and context is None:
        raise ValueError(f"server_hostname={server_hostname!r} is for TLS; say tls=True, or give a context")
    race = _Race(host, port, happy_eyeballs_delay)
    try:
        with move_on_after(timeout) as scope:
            sock = race.run(local_address)
            if context is not None:
                sock = race.handshake(sock, context, server_hostname or _name(host))
            sock.settimeout(getdefaulttimeout())
            return sock
        assert scope.cancelled_caught
        raise TimeoutError(race.complaint(f"not done within {timeout} seconds"))
    except Cancelled:
        surface(current(), race.complaint("a deadline has passed"))
        raise
    finally:
        race.failures.clear()  # their tracebacks refer to frames that refer to the race


def _name(host: str) -> str:
    """Whom a certificate is issued for: without the dot that ends a full name, and the scope of an address."""
    return host.partition("%")[0].rstrip(".")


def _check_host_and_port(host: Any, port: Any) -> None:
    if not isinstance(host, str):
        raise TypeError(f"host must be a str, not {host!r}")
    if not host:
        raise ValueError("host must not be empty; this machine is 'localhost'")
    if isinstance(port, bool) or not isinstance(port, int | str):
        raise TypeError(f"port must be a number or the name of a service, not {port!r}")
    if isinstance(port, int) and not 0 < port < 65536:
        raise ValueError(f"port must be from 1 to 65535, not {port}")
    if port == "":
        raise ValueError("port must not be empty")


def _context(tls: Any) -> Any:
    if tls is None or tls is False:
        return None
    if ssl is None:
        raise RuntimeError("this Python has been built without the ssl module, so there is no TLS")
    if tls is True:
        return ssl.create_default_context()
    if not isinstance(tls, ssl.SSLContext):
        raise TypeError(f"tls must be True or an ssl.SSLContext, not {tls!r}")
    return tls


class _Race:
    """One call of `connect`."""

    __slots__ = ("_delay", "_host", "_port", "_running", "_stage", "_winner", "failures")

    def __init__(self, host: str, port: int | str, delay: float | None) -> None:
        self._host = host
        self._port = port
        self._delay = delay
        self.failures: dict[Target, OSError] = {}
        self._running: dict[Target, None] = {}
        self._winner: socket | None = None
        self._stage = "looking the name up"

    def run(self, local_address: Any) -> socket:
        """The winner's socket."""
        sources = _sources(local_address)
        targets = interleaved(Target(*found) for found in getaddrinfo(self._host, self._port, AF_UNSPEC, SOCK_STREAM))
        self._stage = ""
        if sources is not None:
            usable = [target for target in targets if target.family in sources]
            if targets and not usable:
                raise OSError(
                    errno.EAFNOSUPPORT,
                    f"{self._host!r} has no address of the same family as local_address {local_address!r}",
                )
            targets = usable
        try:
            self._try(targets, sources)
            if self._winner is None:
                if self._running:  # a deadline has ended the attempts, and not yet this fiber
                    get_scheduler().check_interrupt(current())
                raise self._failure()
        except BaseException:
            if self._winner is not None:
                self._winner.close()
            raise
        return self._winner

    def _try(self, targets: list[Target], sources: dict[int, Any] | None) -> None:
        if len(targets) == 1:
            self._try_only(targets[0], sources)
            return
        with TaskGroup(f"connecting to {self._host}") as group:
            for target in targets:
                moved = Event()  # the attempt has ended
                self._running[target] = None
                group.spawn(self._attempt, group, target, sources, moved, name=str(target))
                with move_on_after(self._delay):
                    moved.wait()
                if self._winner is not None:
                    return

    def _try_only(self, target: Target, sources: dict[int, Any] | None) -> None:
        """No race, and no fibers for it."""
        self._running[target] = None
        try:
            self._winner = _connected(target, sources)
        except OSError as error:
            if getattr(error, "scope", None) is not None:
                error.args = (self.complaint("a deadline has passed"),)
                raise
            self._fail(target, error)

    def _attempt(self, group: TaskGroup, target: Target, sources: dict[int, Any] | None, moved: Event) -> None:
        try:
            sock = _connected(target, sources)
        except OSError as error:
            if getattr(error, "scope", None) is None:  # else a deadline has struck: there has been no answer
                self._fail(target, error)
        else:
            if self._winner is None:
                self._winner = sock
                group.cancel()
            else:
                sock.close()
        finally:
            moved.set()

    def _fail(self, target: Target, error: OSError) -> None:
        self.failures[target] = error
        self._running.pop(target, None)

    def handshake(self, sock: socket, context: Any, server_hostname: str) -> Any:
        self._stage = "the TLS handshake"
        try:
            return ssl.wrap_socket(sock, server_hostname=server_hostname, context=context)  # type: ignore[call-arg]
        except BaseException:
            sock.close()
            raise

    def complaint(self, end: str) -> str:
        """What has come of it, when it is over for want of time."""
        told = [f"{target}: {_text(error)}" for target, error in self.failures.items()]
        told += [f"{target}: no answer" for target in self._running]
        if self._stage:
            told = [self._stage]
        return f"connecting to {self._host} port {self._port}: {end} ({'; '.join(told)})"

    def _failure(self) -> OSError:
        failures = self.failures
        if not failures:
            return OSError(f"getaddrinfo found no address for {self._host!r}")
        errors = list(failures.values())
        chosen = next((error for error in errors if error.errno not in _OURS), errors[0])
        told = "; ".join(f"{target}: {_text(error)}" for target, error in failures.items())
        text = f"connecting to {self._host} port {self._port} has failed ({told})"
        failure = OSError(text) if chosen.errno is None else OSError(chosen.errno, text)
        failure.__cause__ = errors[0] if len(errors) == 1 else ExceptionGroup("each address has failed", errors)
        return failure


def _connected(target: Target, sources: dict[int, Any] | None) -> socket:
    """A socket that is connected to the target, and waits without a limit: the scopes have the deadlines."""
    sock = socket(target.family, target.kind, target.proto)
    try:
        sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        sock.settimeout(None)
        if sources is not None:
            sock.bind(sources[target.family])
        sock.connect(target.address)
    except BaseException:
        sock.close()
        raise
    return sock


def _text(error: OSError) -> str:
    return error.strerror or str(error) or os.strerror(error.errno or errno.EIO)


def _sources(local_address: Any) -> dict[int, Any] | None:
    """The addresses to bind to, by family."""
    if local_address is None:
        return None
    pair = (local_address, 0) if isinstance(local_address, str) else local_address
    if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], int)):
        raise TypeError(f"local_address must be a host or a pair of host and port, not {local_address!r}")
    found: dict[int, Any] = {}
    for family, _, _, _, address in getaddrinfo(pair[0] or None, pair[1], AF_UNSPEC, SOCK_STREAM, 0, AI_PASSIVE):
        found.setdefault(family, address)
    return found
