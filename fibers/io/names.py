"""Names and addresses, as the standard module has them; only the calling fiber waits.

Numeric addresses, `localhost` and no host at all need no look-up and no thread (hosts.py). Everything else is asked of
the C library in a thread (lookups.py). The C methods of a socket resolve a host name in an address by themselves,
blocking; so an address is resolved here before it is handed to them.
"""

import _socket
import operator
from _socket import socket as Raw  # noqa: N812
from functools import lru_cache
from socket import (
    AF_INET,
    AF_INET6,
    AF_UNSPEC,
    AI_ADDRCONFIG,
    AI_NUMERICHOST,
    AI_NUMERICSERV,
    AI_PASSIVE,
    IPPROTO_TCP,
    IPPROTO_UDP,
    NI_NUMERICHOST,
    NI_NUMERICSERV,
    SOCK_DGRAM,
    SOCK_STREAM,
    AddressFamily,
    SocketKind,
    inet_pton,
)
from typing import Any, Final

from .hosts import can_reach_v6, hosts, protocols, services
from .lookups import look_up

_PROTOCOLS: Final[dict[tuple[int, int], str]] = {
    (SOCK_STREAM, 0): "tcp",
    (SOCK_STREAM, IPPROTO_TCP): "tcp",
    (SOCK_DGRAM, 0): "udp",
    (SOCK_DGRAM, IPPROTO_UDP): "udp",
}
#: With these flags, `localhost` is answered here; others ask for what only the C library knows.
_LOCAL_FLAGS: Final = AI_PASSIVE | AI_ADDRCONFIG | AI_NUMERICSERV
_NUMERIC: Final = NI_NUMERICHOST | NI_NUMERICSERV


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


def getaddrinfo(
    host: bytes | str | None,
    port: bytes | str | int | None,
    family: int = 0,
    type: int = 0,
    proto: int = 0,
    flags: int = 0,
) -> list[tuple[AddressFamily, SocketKind, int, str, Any]]:
    """As `socket.getaddrinfo`; only the calling fiber waits, and those who ask the same at the same time share a look-up.

    Numeric addresses and `localhost` do without a thread. Where the system has no address `::1`, `localhost` is only
    127.0.0.1.
    """
    return [
        (_enum(AddressFamily, af), _enum(SocketKind, kind), proto, name, address)
        for af, kind, proto, name, address in _find(host, port, *map(operator.index, (family, type, proto, flags)))
    ]


def _find(host: Any, port: Any, family: int, kind: int, proto: int, flags: int) -> list[Any]:
    named = port is not None and not isinstance(port, int)
    if named and not isinstance(port, str | bytes):
        return _socket.getaddrinfo(host, port, family, kind, proto, flags)  # which says what is wrong
    if named and not (port.isascii() and port.isdigit()):
        protocol = _PROTOCOLS.get((kind, proto))
        if protocol is None or not port or flags & AI_NUMERICSERV:
            return look_up(_socket.getaddrinfo, host, port, family, kind, proto, flags)  # type: ignore[no-any-return]
        try:
            port = services.ask(_socket.getservbyname, port.decode() if isinstance(port, bytes) else port, protocol)
        except (OSError, ValueError):  # it knows no such service, and so says the C library
            return look_up(_socket.getaddrinfo, host, port, family, kind, proto, flags)  # type: ignore[no-any-return]
    if not host or not isinstance(host, str | bytes) or flags & AI_NUMERICHOST or _numeric(host, family):
        return _socket.getaddrinfo(host, port, family, kind, proto, flags)
    if not flags & ~_LOCAL_FLAGS and (found := _find_local(host, port, family, kind, proto, flags)):
        return found
    return look_up(_socket.getaddrinfo, host, port, family, kind, proto, flags)  # type: ignore[no-any-return]


def _find_local(host: str | bytes, port: Any, family: int, kind: int, proto: int, flags: int) -> list[Any]:
    """The addresses of `localhost`; none if this is another host, or none of that family."""
    addresses = hosts.loopback(host)
    if len(addresses) == 1:
        (address,) = addresses
        return _socket.getaddrinfo(address, port, family, kind, proto, flags) if _numeric(address, family) else []
    if not addresses:
        return []
    # Of no host at all the C library gives both loopback addresses, in the order of the system's policy.
    found = _socket.getaddrinfo(None, 0 if port is None else port, family, kind, proto, flags & ~AI_PASSIVE)
    if family == AF_UNSPEC and not can_reach_v6():
        found = [each for each in found if each[0] != AF_INET6]
    return found


def _enum(kind: Any, value: int) -> Any:
    try:
        return kind(value)
    except ValueError:
        return value


def resolve(sock: Any, address: Any) -> Any:
    """An address that the C methods of `sock` take without looking anything up. What is not an IP address stays as it is.

    Of `("fe80::1%eth0", 80)` they would drop the scope: it is put where they look for it. So is that of a host name.
    """
    family = Raw.family.__get__(sock)
    if family not in (AF_INET, AF_INET6) or not isinstance(address, tuple) or not address:
        return address
    host = address[0]
    if not isinstance(host, str | bytes) or host in ("", b"", "<broadcast>"):
        return address
    if not _numeric(host, family):
        flags = 0
    elif family == AF_INET6 and "%" in (host if isinstance(host, str) else host.decode("ascii", "replace")):
        flags = AI_NUMERICHOST
    else:
        return address
    found = _find(host, None, family, Raw.type.__get__(sock), Raw.proto.__get__(sock), flags)[0][4]
    if family == AF_INET6 and found[3] and len(address) in (2, 3):
        return (found[0], address[1], address[2] if len(address) == 3 else 0, found[3])
    return (found[0], *address[1:])


def gethostbyname(hostname: str) -> str:
    """As `socket.gethostbyname`; only the calling fiber waits."""
    if isinstance(hostname, str):
        if _numeric(hostname, AF_INET):
            return hostname
        if "127.0.0.1" in hosts.loopback(hostname):
            return "127.0.0.1"
    return look_up(_socket.gethostbyname, _hashable(hostname))  # type: ignore[no-any-return]


def gethostbyname_ex(hostname: str) -> tuple[str, list[str], list[str]]:
    """As `socket.gethostbyname_ex`; only the calling fiber waits."""
    name, aliases, addresses = look_up(_socket.gethostbyname_ex, _hashable(hostname))
    return name, list(aliases), list(addresses)


def gethostbyaddr(ip_address: str) -> tuple[str, list[str], list[str]]:
    """As `socket.gethostbyaddr`; only the calling fiber waits."""
    name, aliases, addresses = look_up(_socket.gethostbyaddr, _hashable(ip_address))
    return name, list(aliases), list(addresses)


def _hashable(name: Any) -> Any:
    return bytes(name) if isinstance(name, bytearray) else name


def getnameinfo(sockaddr: tuple[Any, ...], flags: int) -> tuple[str, str]:
    """As `socket.getnameinfo`; only the calling fiber waits. Asked for numbers alone, it needs no thread."""
    number = operator.index(flags)
    if not isinstance(sockaddr, tuple) or number & _NUMERIC == _NUMERIC:
        return _socket.getnameinfo(sockaddr, number)
    return look_up(_socket.getnameinfo, sockaddr, number)  # type: ignore[no-any-return]


def getservbyname(*args: Any) -> int:
    """As `socket.getservbyname(servicename, [protocolname])`. Answers are kept until /etc/services changes."""
    return services.ask(_socket.getservbyname, *args)  # type: ignore[no-any-return]


def getservbyport(*args: Any) -> str:
    """As `socket.getservbyport(port, [protocolname])`. Answers are kept until /etc/services changes."""
    return services.ask(_socket.getservbyport, *args)  # type: ignore[no-any-return]


def getprotobyname(*args: Any) -> int:
    """As `socket.getprotobyname(protocolname)`. Answers are kept until /etc/protocols changes."""
    return protocols.ask(_socket.getprotobyname, *args)  # type: ignore[no-any-return]


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
