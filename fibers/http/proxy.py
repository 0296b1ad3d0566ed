r"""The PROXY protocol: a load balancer says ahead of the first byte who the client is (HAProxy's specification, 1 and 2).

* A connection that may have such a header must have one: a server that guesses would believe whoever writes one. So it is
  a matter of the peer's address, and a trusted peer that does not send it is refused.
* The first version is a line of at most 107 bytes, the second one binary with a length of its own. What is behind the
  header belongs to the connection.
* A balancer's own health checks come as LOCAL or UNKNOWN: there the address is that of the connection.
"""

import re
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from .errors import RequestError

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
#: The most bytes that a header of version 1 has, and that one of version 2 may have here.
LONGEST_LINE: Final = 107
LONGEST_BLOCK: Final = 4096

_LINE: Final = re.compile(rb"PROXY TCP([46]) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) ([0-9]{1,5}) ([0-9]{1,5})\r\n")
_UNKNOWN: Final = re.compile(rb"PROXY UNKNOWN[ -~]*\r\n")


class Proxied(NamedTuple):
    """`size` bytes of header said that this is the client; `client` is None if it was the proxy itself."""

    size: int
    client: str | None
    port: int


def parse_proxy(data: bytes) -> Proxied | None:
    """The header at the beginning of `data`; None: not all of it is there. Raises RequestError for what is none."""
    if data.startswith(SIGNATURE):
        return _second(data)
    if data.startswith(b"PROXY "):
        end = data.find(b"\n", 0, LONGEST_LINE)
        if end >= 0:
            return _first(data[: end + 1])
        if len(data) < LONGEST_LINE:
            return None
    elif SIGNATURE.startswith(data) or b"PROXY ".startswith(data):
        return None
    raise RequestError(400, "a connection from a proxy without its PROXY header")


def _first(line: bytes) -> Proxied:
    found = _LINE.fullmatch(line)
    if found is None:
        if _UNKNOWN.fullmatch(line):
            return Proxied(len(line), None, 0)
        raise RequestError(400, f"a PROXY header that is none: {line!r}")
    kind = IPv4Address if found[1] == b"4" else IPv6Address
    try:
        client = str(kind(found[2].decode("ascii")))
        kind(found[3].decode("ascii"))
    except ValueError as error:
        raise RequestError(400, f"a PROXY header with a wrong address: {error}") from None
    if int(found[4]) > 65535 or int(found[5]) > 65535:
        raise RequestError(400, f"a PROXY header with a wrong port: {line!r}")
    return Proxied(len(line), client, int(found[4]))


def _second(data: bytes) -> Proxied | None:
    if len(data) < 16:
        return None
    version, command = divmod(data[12], 16)
    length = int.from_bytes(data[14:16], "big")
    if version != 2 or command > 1 or length > LONGEST_BLOCK:
        raise RequestError(400, f"a PROXY header that is not understood: {data[12:16].hex()}")
    if len(data) < 16 + length:
        return None
    size, block = 16 + length, data[16 : 16 + length]
    family = data[13] >> 4
    if command == 0 or family not in (1, 2):
        return Proxied(size, None, 0)
    width = 4 if family == 1 else 16
    if length < 2 * width + 4:
        raise RequestError(400, "a PROXY header that is too short for its addresses")
    client = str(IPv4Address(block[:4]) if family == 1 else IPv6Address(block[:16]))
    return Proxied(size, client, int.from_bytes(block[2 * width : 2 * width + 2], "big"))
