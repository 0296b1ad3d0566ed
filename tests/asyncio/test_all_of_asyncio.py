"""Every kind of thing that asyncio offers works on the loop, with fibers as the peers.

CPython's own tests of asyncio are the long list: `make test-asyncio` runs them all, the last test here a few.
"""

import asyncio
import importlib.util
import os
import select
import signal
import socket as std
import ssl
import sys
from pathlib import Path
from typing import Any

import pytest
from support import tls
from support.process import ROOT, run_python

import fibers
import fibers.asyncio
from fibers.eventloop import BACKEND, DEFAULT
from fibers.io import Stream, connect, socket

LINE = b"x" * 60_000 + b"\n"


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server's side: lines come back in upper case."""
    while line := await reader.readline():
        writer.write(line.upper())
        await writer.drain()
    writer.close()
    await writer.wait_closed()


def talk(transport: Any) -> None:
    """A fiber as the client."""
    with Stream(transport) as stream:
        for line in (b"one\n", LINE, b"three\n"):
            stream.write_all(line)
            assert stream.read_until(b"\n") == line.upper()


def test_streams_over_tcp_and_unix(tmp_path: Path) -> None:
    async def main() -> None:
        tcp = await asyncio.start_server(echo, "127.0.0.1", 0, limit=100_000)
        unix = await asyncio.start_unix_server(echo, tmp_path / "socket", limit=100_000)
        address = tcp.sockets[0].getsockname()
        clients = [fibers.spawn(lambda: talk(socket.create_connection(address))) for _ in range(10)]

        def over_unix() -> None:
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(str(tmp_path / "socket"))
            talk(sock)

        await asyncio.gather(fibers.spawn(over_unix), *clients)
        for server in (tcp, unix):
            server.close()
            await server.wait_closed()

    fibers.asyncio.run(main())


@tls.needs_openssl
def test_tls_both_ways() -> None:
    async def main() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0, limit=100_000, ssl=tls.server_context(module=ssl))
        address = server.sockets[0].getsockname()
        await fibers.spawn(lambda: talk(connect("127.0.0.1", address[1], tls=tls.client_context())))
        server.close()

        def serve() -> None:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                ports.put(listener.getsockname()[1])
                sock, _ = listener.accept()
                with tls.server_context().wrap_socket(sock, server_side=True) as secure:
                    secure.sendall(secure.recv(100).upper())

        ports: fibers.Queue[int] = fibers.Queue()
        serving = fibers.spawn(serve)
        port = await fibers.spawn(ports.get)
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=tls.client_context(module=ssl), server_hostname="localhost"
        )
        writer.write(b"hello")
        assert await reader.read(100) == b"HELLO"
        writer.close()
        await serving

    fibers.asyncio.run(main())


def test_datagrams() -> None:
    class Upper(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, address: Any) -> None:
            self.transport.sendto(data.upper(), address)

    def ask(address: Any) -> bytes:
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.settimeout(30)
            sock.sendto(b"datagram", address)
            return bytes(sock.recv(100))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(Upper, ("127.0.0.1", 0))
        assert await fibers.spawn(ask, transport.get_extra_info("sockname")) == b"DATAGRAM"
        transport.close()

    fibers.asyncio.run(main())


def test_bare_sockets() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with std.create_server(("127.0.0.1", 0)) as listener, std.socket() as near:
            listener.setblocking(False)
            near.setblocking(False)
            accepting = asyncio.create_task(loop.sock_accept(listener))
            await loop.sock_connect(near, listener.getsockname())
            far, _ = await accepting
            with far:
                sending = asyncio.create_task(loop.sock_sendall(near, LINE * 10))
                received = b""
                while len(received) < len(LINE) * 10:
                    received += await loop.sock_recv(far, 1 << 16)
                await sending
                assert received == LINE * 10

    fibers.asyncio.run(main())


def test_subprocesses() -> None:
    async def main() -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "print(input()[::-1])", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert await process.communicate(b"abc\n") == (b"cba\n", None)  # type: ignore[comparison-overlap]
        assert process.returncode == 0
        process = await asyncio.create_subprocess_exec("sleep", "60")
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == -signal.SIGTERM

    fibers.spawn(fibers.asyncio.run, main()).result()


def test_executors_names_and_pipes() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert await asyncio.to_thread(os.getpid) == os.getpid()
        assert await loop.run_in_executor(None, sum, [1, 2]) == 3
        with fibers.ThreadPoolExecutor(1) as ours:
            assert await asyncio.wrap_future(ours.submit(sum, [3, 4])) == 7
        assert (await loop.getaddrinfo("localhost", 80, type=std.SOCK_STREAM))[0][4][1] == 80
        r, w = os.pipe()
        reader = asyncio.StreamReader()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(r, "rb"))
        os.write(w, b"through a pipe")
        os.close(w)
        assert await reader.read() == b"through a pipe"
        transport.close()

    fibers.asyncio.run(main())


def test_debug_mode_finds_what_it_finds_in_asyncio() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert loop.get_debug()
        loop.call_soon(int)
        loop.call_later(0, int)
        await fibers.spawn(loop.call_soon, int)
        with pytest.raises(RuntimeError, match="Non-thread-safe operation"):
            await asyncio.to_thread(lambda: loop.call_soon(int))

    fibers.asyncio.run(main(), debug=True)


def test_two_busy_worlds_share_the_thread() -> None:
    """Neither a loop that is never idle nor fibers that never wait starve the other, nor what comes from outside."""
    counts = {"fiber": 0, "task": 0}
    stop = False

    def fiber() -> None:
        while not stop:
            counts["fiber"] += 1
            fibers.yield_now()

    async def task() -> None:
        while not stop:
            counts["task"] += 1
            await asyncio.sleep(0)

    async def main() -> None:
        nonlocal stop
        busy = asyncio.create_task(task()), fibers.spawn(fiber)
        server = await asyncio.start_server(echo, "127.0.0.1", 0, limit=100_000)
        address = server.sockets[0].getsockname()
        await fibers.spawn(lambda: talk(socket.create_connection(address)))
        await asyncio.sleep(0.01)
        stop = True
        await asyncio.gather(*busy)
        server.close()

    fibers.asyncio.run(main())
    assert min(counts.values()) * 20 > max(counts.values())


@pytest.mark.skipif(
    importlib.util.find_spec("test.test_asyncio") is None, reason="this Python comes without its own tests"
)
@pytest.mark.skipif(
    BACKEND != DEFAULT, reason="once is enough: `make test-asyncio` runs on every loop, and all of them"
)
def test_some_of_cpythons_own_tests() -> None:
    """In a process of its own, beside a fiber that ticks: on this loop the same as on asyncio's."""
    selector = "EPoll" if hasattr(select, "epoll") else "Kqueue"
    names = ("call_soon_threadsafe", "call_later", "create_server_sock", "reader_callback", "create_unix_server")
    signals = ("signal_handling_while_selecting", "signal_handling_args")
    child = run_python(
        *("-m", "support.asyncio_suite", "test_context"),
        *(f"test_events.{selector}EventLoopTests.test_{name}" for name in names + signals),
        env={"PYTHONPATH": str(ROOT / "tests")},
    )
    assert child.returncode == 0, child.stdout + child.stderr
    assert child.stdout.splitlines()[-1].startswith("8 tests, 0 failed, 0 skipped"), child.stdout
