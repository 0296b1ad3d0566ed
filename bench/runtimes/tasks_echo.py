"""TCP echo for asyncio and uvloop in the three ways their users write a server.

Both set TCP_NODELAY on a transport.

The backlog is passed because both call `listen` again, with 100: the kernel would drop what comes faster,
and a client that is dropped comes back after a second. A transport's `recv` size is the runtime's own
choice (256 KiB in asyncio).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any, cast

from bench import material
from bench.runtimes.tasks import NewLoop

Serve = Callable[[socket.socket, Callable[[], None]], None]


async def echo_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection with streams."""
    try:
        while data := await reader.read(material.ECHO_RECEIVE):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        return
    finally:
        writer.close()


async def streams(server: socket.socket) -> None:
    """`start_server`."""
    await (await asyncio.start_server(echo_stream, sock=server, backlog=material.BACKLOG)).serve_forever()


class EchoProtocol(asyncio.Protocol):
    """Serve one connection with callbacks."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; that of uvloop is no subclass of `asyncio.Transport`."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Send back what came."""
        self.transport.write(data)


async def protocol(server: socket.socket) -> None:
    """`create_server`."""
    loop = asyncio.get_running_loop()
    await (await loop.create_server(EchoProtocol, sock=server, backlog=material.BACKLOG)).serve_forever()


async def echo_sock(sock: socket.socket) -> None:
    """Serve one connection with `sock_recv` and `sock_sendall`."""
    loop = asyncio.get_running_loop()
    material.no_delay(sock)
    try:
        while data := await loop.sock_recv(sock, material.ECHO_RECEIVE):
            await loop.sock_sendall(sock, data)
    except ConnectionError:
        return
    finally:
        sock.close()


async def sock(server: socket.socket) -> None:
    """`sock_accept`, a task a connection."""
    loop = asyncio.get_running_loop()
    server.setblocking(False)
    tasks: set[asyncio.Task[None]] = set()
    while True:
        connection, _ = await loop.sock_accept(server)
        task = loop.create_task(echo_sock(connection))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


def servers(new_loop: NewLoop) -> dict[str, Serve]:
    """The three servers on loops made by `new_loop`."""

    def serve_with(main: Callable[[socket.socket], Coroutine[Any, Any, None]]) -> Serve:
        def serve(server: socket.socket, ready: Callable[[], None]) -> None:
            ready()
            with asyncio.Runner(loop_factory=new_loop) as runner:
                runner.run(main(server))

        return serve

    return {"streams": serve_with(streams), "protocol": serve_with(protocol), "sock": serve_with(sock)}
