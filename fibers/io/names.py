"""Names and addresses. The C library's look-ups block and cannot be interrupted, so they run in worker threads, and a
cancelled caller does not wait for the end.

Numeric addresses, and no host at all, need no look-up and no thread. The C methods of a socket resolve a host name in an
address by themselves, blocking; so an address is resolved here before it is handed to them.
"""

import _socket
from _socket import socket as Raw  # noqa: N812
from functools import lru_cache
from socket import AF_INET, AF_INET6, AF_UNSPEC, AddressFamily, SocketKind, inet_pton
from typing import Any

from ..threads.to_thread import to_thread


@lru_cache(maxsize=1024)
def _numeric(host: str | bytes, family: int) -> bool:
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    host = host.partition("%")[0]  # a scope
    for each in (AF_INET, AF_INET6):
        if family in (each, AF_UNSPEC):
            try:
                inet_pton(each, host)
            except OSError:
                continue
            except ValueError:
                pass  # a NUL in it: the C method says so
            return True
    return False


def _needs_no_thread(host: Any, port: Any, family: int) -> bool:
    if not (port is None or isinstance(port, int) or (isinstance(port, str | bytes) and port.isdigit())):
        return False  # service names are looked up in files
    return host is None or host in ("", b"") or not isinstance(host, str | bytes) or _numeric(host, family)


def getaddrinfo(
    host: bytes | str | None,
    port: bytes | str | int | None,
    family: int = 0,
    type: int = 0,
    proto: int = 0,
    flags: int = 0,
) -> list[tuple[AddressFamily, SocketKind, int, str, Any]]:
    """As `socket.getaddrinfo`; only the calling fiber waits. Numeric addresses do without a thread."""
    if _needs_no_thread(host, port, family):
        found = _socket.getaddrinfo(host, port, family, type, proto, flags)
    else:
        found = to_thread(_socket.getaddrinfo, host, port, family, type, proto, flags, cancellable=True)
    return [
        (_enum(AddressFamily, af), _enum(SocketKind, kind), proto, name, address)
        for af, kind, proto, name, address in found
    ]


def _enum(kind: Any, value: int) -> Any:
    try:
        return kind(value)
    except ValueError:
        return value


def resolve(sock: Any, address: Any) -> Any:
    """An address that the C methods of `sock` take without looking anything up. What is not an IP address stays as it is."""
    family = Raw.family.__get__(sock)
    if family not in (AF_INET, AF_INET6) or not isinstance(address, tuple) or not address:
        return address
    host = address[0]
    if not isinstance(host, str | bytes) or host in ("", "<broadcast>") or _numeric(host, family):
        return address
    found = to_thread(
        _socket.getaddrinfo, host, None, family, Raw.type.__get__(sock), Raw.proto.__get__(sock), 0, cancellable=True
    )
    return (found[0][4][0], *address[1:])


def gethostbyname(hostname: str) -> str:
    """As `socket.gethostbyname`; only the calling fiber waits."""
    return (
        hostname
        if isinstance(hostname, str) and _numeric(hostname, AF_INET)
        else to_thread(_socket.gethostbyname, hostname, cancellable=True)
    )


def gethostbyname_ex(hostname: str) -> tuple[str, list[str], list[str]]:
    """As `socket.gethostbyname_ex`; only the calling fiber waits."""
    return to_thread(_socket.gethostbyname_ex, hostname, cancellable=True)


def gethostbyaddr(ip_address: str) -> tuple[str, list[str], list[str]]:
    """As `socket.gethostbyaddr`; only the calling fiber waits."""
    return to_thread(_socket.gethostbyaddr, ip_address, cancellable=True)


def getnameinfo(sockaddr: tuple[Any, ...], flags: int) -> tuple[str, str]:
    """As `socket.getnameinfo`; only the calling fiber waits."""
    return to_thread(_socket.getnameinfo, sockaddr, flags, cancellable=True)


def getfqdn(name: str = "") -> str:
    """As `socket.getfqdn`; only the calling fiber waits."""
    name = name.strip()
    if name in ("", "0.0.0.0", "::"):
        name = _socket.gethostname()
    try:
        found, aliases, _ = gethostbyaddr(name)
    except OSError:
        return name
    return next((each for each in (found, *aliases) if "." in each), found)
