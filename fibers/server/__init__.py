"""Servers: connections accepted in fibers, one loop per thread or process, handlers in plain blocking code.

    from fibers.server import TCPServer

    def echo(sock, address):
        while data := sock.recv(65_536):
            sock.sendall(data)

    TCPServer(("", 7000), echo).serve_forever()

The guide is docs/servers.md. Reading order:

    service     the contract between what accepts and what serves
    systemd     listeners passed, readiness, watchdog
    listeners   listening sockets, one for each loop
    accepting   accepting on one
    limits      how many connections there may be
    handlers    a fiber for each connection; datagrams: one for each datagram
    share       one loop's part of a server, from the start to the stop
    crew        the parts in one process
    signalling  what signals do
    worker      one process of many; slots, master: what its master knows, and does
    serving     the engine: all of that for a service, `Serving`
    servers     TCPServer, UnixServer, UDPServer
"""

from .servers import TCPServer, UDPServer, UnixServer, spread
from .service import Changed, MakeService, Service
from .serving import Serving
from .share import Report
from .systemd import notify, passed_listeners

__all__ = [
    "Changed", "MakeService", "Report", "Service", "Serving", "TCPServer", "UDPServer", "UnixServer", "notify",
    "passed_listeners", "spread",
]  # fmt: skip
