"""How many connections one client may have, where that is limited.

A client is an address, as server/limits.py counts them. Proxies that are believed are not limited: their connections are
many clients'. Behind one that speaks the PROXY protocol it is the client that counts, from the moment on at which he is
known; a proxy that tells in fields of the requests whom it speaks for has to limit them itself.
"""

from ..server.limits import ConnectionLimits
from .networks import Networks


class AddressLimit:
    """At most `most` connections from each address; those of `proxies` and unix sockets do not count. Any thread."""

    __slots__ = ("_limits", "_proxies")

    def __init__(self, most: int, proxies: Networks) -> None:
        self._limits = ConnectionLimits(per_address=most)
        self._proxies = proxies

    def admit(self, host: str, port: int) -> bool:
        """One more from there? False: it has too many. If True, `leave` is to be called in the end."""
        return not self._counts(host, port) or self._limits.admit((host, port))

    def leave(self, host: str, port: int) -> None:
        """A connection that was admitted is closed."""
        if self._counts(host, port):
            self._limits.leave((host, port))

    def _counts(self, host: str, port: int) -> bool:
        return bool(port) and host not in self._proxies
