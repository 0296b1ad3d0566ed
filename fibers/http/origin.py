"""Where a request comes from, when a proxy stands in between.

Facts, and what follows:

* There are two dialects: `Forwarded` (RFC 7239) and the X-Forwarded family. A proxy sets one and passes the other on as
  the client wrote it. So one of them is heard, the one that was configured, and never both.
* Each proxy appends whom it heard from. So the list is true from its right end up to the first address that is not one
  of the own proxies: that is the client. What stands left of it, the client may have made up.
* An entry that is no address (`unknown`, an obfuscated name) ends the walk: what is known is the proxy before it.
"""

import re
from ipaddress import ip_address
from typing import Final, Literal, NamedTuple

from .head import Head
from .networks import Networks

_PAIR: Final = re.compile(r'\s*([A-Za-z]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*))\s*(;|,|$)')
_HOST: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._]+)(?::[0-9]{1,5})?")


class Origin(NamedTuple):
    """The client's address, and what it asked for: scheme and host (with the port, as in Host; None: not told)."""

    client: str
    port: int
    scheme: str
    host: str | None


class Forwarding(NamedTuple):
    """Which proxies are believed, and in which dialect: "x-forwarded" or "forwarded"."""

    proxies: Networks
    dialect: Literal["x-forwarded", "forwarded"] = "x-forwarded"

    def __call__(self, peer: Origin, head: Head) -> Origin:
        """Who it is that the peer speaks for. `peer` itself, if that is nobody's proxy or does not say."""
        if peer.client not in self.proxies:
            return peer
        if self.dialect == "forwarded":
            return self._forwarded(peer, head.get("forwarded", "") or "")
        return self._x_forwarded(peer, head)

    def _x_forwarded(self, peer: Origin, head: Head) -> Origin:
        client, port = peer.client, peer.port
        for entry in reversed((head.get("x-forwarded-for", "") or "").split(",")):
            found = _address(entry.strip())
            if found is None:
                break
            client, port = found
            if client not in self.proxies:
                break
        scheme = _last(head, "x-forwarded-proto").lower()
        host = _last(head, "x-forwarded-host")
        return Origin(
            client,
            port,
            scheme if scheme in ("http", "https") else peer.scheme,
            host if _HOST.fullmatch(host) else peer.host,
        )

    def _forwarded(self, peer: Origin, text: str) -> Origin:
        client, port, scheme, host = peer
        for element in reversed(_elements(text)):
            found = _address(element.get("for", ""))
            if found is None:
                break
            client, port = found
            if element.get("proto", "").lower() in ("http", "https"):
                scheme = element["proto"].lower()
            if _HOST.fullmatch(element.get("host", "")):
                host = element["host"]
            if client not in self.proxies:
                break
        return Origin(client, port, scheme, host)


def _last(head: Head, name: str) -> str:
    """What the proxy next to us has said."""
    return (head.get(name, "") or "").rpartition(",")[2].strip()


def _elements(text: str) -> list[dict[str, str]]:
    """The elements of a Forwarded field; those up to the first mistake are left out, since the true ones come last."""
    found: list[dict[str, str]] = [{}]
    at = 0
    while at < len(text):
        pair = _PAIR.match(text, at)
        if pair is None:
            found, at = [{}], at + 1
            continue
        value = pair[3] if pair[2] is None else re.sub(r"\\(.)", r"\1", pair[2])
        found[-1][pair[1].lower()] = value
        if pair[4] == ",":
            found.append({})
        at = pair.end()
    return found


def _address(text: str) -> tuple[str, int] | None:
    """An address with or without a port; IPv6 in brackets if it has one."""
    host, port = text, ""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        return str(ip_address(host)), int(port) if port.isascii() and port.isdecimal() and len(port) < 6 else 0
    except ValueError:
        return None
