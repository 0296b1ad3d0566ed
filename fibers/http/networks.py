"""Whom to believe: lists of networks.

A proxy tells in fields or in bytes ahead of the connection who the client is. Anybody can send those, so they are heard
only from addresses that were named. An address is looked up once, and remembered: it comes again with each connection.
"""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

_KEPT: Final = 4096


class Networks:
    """A set of addresses: networks and single addresses as text, "unix" for peers on unix sockets, "*" for all.

    Raises ValueError, naming it, for what is none. May be used by any thread.
    """

    __slots__ = ("_known", "_networks", "_unix", "texts")

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = (texts,) if isinstance(texts, str) else tuple(texts)
        self._networks: list[IPv4Network | IPv6Network] = []
        self._unix = False
        self._known: dict[str, bool] = {}
        for text in self.texts:
            if text in ("unix", "*"):
                self._unix = True
            if text == "*":
                self._networks += [ip_network("0.0.0.0/0"), ip_network("::/0")]
            elif text != "unix":
                try:
                    self._networks.append(ip_network(text, strict=False))
                except ValueError as error:
                    raise ValueError(f'{text!r} is no network, address, "unix" or "*": {error}') from None

    def __contains__(self, host: str) -> bool:
        """Is the address of a peer among them? A peer on a unix socket has none: ""."""
        known = self._known.get(host)
        if known is None:
            known = self._look(host)
            if len(self._known) < _KEPT:
                self._known[host] = known
        return known

    def _look(self, host: str) -> bool:
        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:
            return self._unix
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._networks)

    def __repr__(self) -> str:
        return f"Networks({list(self.texts)!r})"
