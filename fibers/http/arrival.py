"""What comes on a connection before the first request: the PROXY header of a balancer (proxy.py).

It has the time of a first request, and waits as everything waits here: without a fiber.
"""

import logging
from sys import intern
from typing import Any, Final

from ..io.operations import recv_now
from ..io.socket import socket
from ..io.waiting import stand_by
from .errors import RequestError
from .hub import Hub
from .line import RECEIVE, Line
from .proxy import parse_proxy

_log: Final = logging.getLogger("fibers.http")


class Arrival(Line):
    """A line whose beginning may be somebody else's. For the thread of its hub."""

    __slots__ = ("_new",)

    def __init__(self, hub: Hub, sock: socket, address: Any) -> None:
        super().__init__(hub, sock, address)
        proxies = hub.settings.proxy_protocol
        self._new = proxies is not None and self._host in proxies  # something comes before the first request

    def _open(self) -> bool:
        """What comes before the first request: the PROXY header. False if it has not come, or the connection is over."""
        while True:
            try:
                proxied = parse_proxy(bytes(self._data)) if self._data else None
            except RequestError as error:
                _log.warning("closed a connection of %s: %s", self.address, error)
                self.drop()
                return False
            if proxied is not None:
                self._data = bytes(self._data[proxied.size :])
                if proxied.client is not None:
                    crowding = self._hub.crowding
                    if crowding is not None and not crowding.admit(proxied.client, proxied.port):
                        _log.info("closed a connection of %s, which has too many", proxied.client)
                        self.drop()
                        return False
                    self._host, self._port = intern(proxied.client), proxied.port
                self._new = False
                return True
            received = recv_now(self.sock, RECEIVE)
            if received:
                self._data = bytes(self._data) + received
            elif received is not None:
                self.drop()
                return False
            elif stand_by(self._io, self._io.reading, self):
                return False
