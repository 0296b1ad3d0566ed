"""TLS workloads for asyncio and uvloop, with streams: what users write, and the only way that both offer for both ends."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from bench import material, tls
from bench.runtimes.blocking_style import Work, add
from bench.runtimes.tasks import AsyncWork, NewLoop
from bench.sample import Sample, Stopwatch

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def serve(sock: socket.socket, context: Any) -> Ends:
    """The server's end."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await loop.connect_accepted_socket(lambda: protocol, sock, ssl=context)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def shake_hands(server: Any, client: Any, near: socket.socket, far: socket.socket) -> tuple[Ends, Ends]:
    """Both ends of a connection."""
    return await asyncio.gather(
        asyncio.open_connection(sock=near, ssl=client, server_hostname=tls.HOST), serve(far, server)
    )


async def sender(end: Ends, count: int) -> None:
    """Send first, then wait for the answer."""
    reader, writer = end
    for _ in range(count):
        writer.write(tls.MESSAGE)
        await writer.drain()
        await reader.readexactly(len(tls.MESSAGE))


async def answerer(end: Ends, count: int) -> None:
    """Wait for a message, then send it back."""
    reader, writer = end
    for _ in range(count):
        writer.write(await reader.readexactly(len(tls.MESSAGE)))
        await writer.drain()


async def close(made: list[tuple[Ends, Ends]]) -> None:
    """Drop the connections, without the farewells."""
    for pair in made:
        for _, writer in pair:
            writer.transport.abort()
    await asyncio.sleep(0)


async def tls_echo(n: int) -> Sample:
    """Messages of one record over several connections."""
    server, client = tls.server_context(), tls.client_context()
    made = [await shake_hands(server, client, *pair) for pair in material.pairs("tcp", tls.PAIRS)]
    watch = Stopwatch()
    await asyncio.gather(*[play for near, far in made for play in (answerer(far, n), sender(near, n))])
    sample = watch.stop(2 * n * tls.PAIRS)
    await close(made)
    return sample


async def tls_handshake(n: int) -> Sample:
    """Handshakes, one after the other."""
    server, client = tls.server_context(), tls.client_context()
    total = Sample(0.0, 0.0, 0.0, 0)
    for _ in range(n):
        pairs = material.pairs("tcp", tls.HANDSHAKES)
        watch = Stopwatch()
        made = [await shake_hands(server, client, *pair) for pair in pairs]
        total = add(total, watch.stop(tls.HANDSHAKES))
        await close(made)
    return total


def workloads(new_loop: NewLoop) -> dict[tuple[str, str], Work]:
    """The workloads as plain functions, each running a loop of its own."""

    def run(work: AsyncWork) -> Work:
        async def main(n: int) -> Sample:
            return await work(n)

        def inside(n: int) -> Sample:
            with asyncio.Runner(loop_factory=new_loop) as runner:
                return runner.run(main(n))

        return inside

    return {("tls_echo", "streams"): run(tls_echo), ("tls_handshake", "streams"): run(tls_handshake)}
