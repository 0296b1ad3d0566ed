"""Libraries written for asyncio, unchanged: on real servers, from fibers, and beside a server of fibers in one thread."""

import asyncio
from collections.abc import Iterator
from typing import Any

import aiohttp
import aiohttp.web
import asyncpg  # type: ignore[import-untyped]
import httpx
import pytest
import redis.asyncio
import redis.exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from support import servers

import fibers
import fibers.asyncio
import fibers.http
from fibers.asyncio import await_
from fibers.io import socket

#: So many operations at once.
MANY = 50


@pytest.fixture(autouse=True)
def _no_helper_is_left() -> Iterator[None]:
    yield
    fibers.asyncio.close()


# -- Redis ------------------------------------------------------------------------------------------------------------


def test_redis_from_many_fibers(redis_server: servers.Redis) -> None:
    """One client with its pool, made and used through the helper; every fiber blocks in the server at the same time."""
    host, port = redis_server.address
    client: Any = await_(_redis(host, port))

    def work(number: int) -> Any:
        await_(client.set(f"key-{number}", number))
        _, value = await_(client.blpop(f"queue-{number}", 30))
        return int(await_(client.get(f"key-{number}"))) + int(value)

    await_(client.flushall())
    with fibers.timeout(60), fibers.TaskGroup() as group:
        workers = [group.spawn(work, number) for number in range(MANY)]
        while await_(client.info("clients"))["blocked_clients"] < MANY:
            fibers.sleep(0.002)
        for number in range(MANY):
            await_(client.rpush(f"queue-{number}", 1000))
    assert [worker.result() for worker in workers] == [1000 + number for number in range(MANY)]
    await_(client.aclose())


async def _redis(host: str, port: int) -> Any:
    return redis.asyncio.Redis(host=host, port=port, socket_timeout=30, retry=Retry(NoBackoff(), 1))


def test_redis_cancelled_from_both_worlds_and_a_server_that_is_killed(redis_server: servers.Redis) -> None:
    """Each time the client is blocked in the server: while it connects, redis-py swallows a cancellation."""
    client: Any = await_(_redis(*redis_server.address))
    control: Any = await_(_redis(*redis_server.address))

    def until_blocked(count: int) -> None:
        with fibers.timeout(30):
            while await_(control.info("clients"))["blocked_clients"] != count:
                fibers.sleep(0.002)

    async def limited() -> None:
        async with asyncio.timeout(None) as limit:
            limits.append(limit)
            await client.blpop("nothing", 0)

    async def expire() -> None:
        limits[0].reschedule(0)

    fiber = fibers.spawn(await_, client.blpop("nothing", 0))
    until_blocked(1)
    fiber.cancel()
    fiber.join(30)
    assert fiber.cancelled()
    until_blocked(0)
    limits: list[asyncio.Timeout] = []
    fiber = fibers.spawn(await_, limited())
    until_blocked(1)
    await_(expire())
    with pytest.raises(TimeoutError):
        fiber.result(30)
    assert await_(client.set("after", 1))
    waiting = fibers.spawn(await_, client.blpop("nothing", 0))
    until_blocked(1)
    redis_server.kill()
    with pytest.raises((redis.exceptions.ConnectionError, ConnectionError)):
        waiting.result(30)
    redis_server.start()
    with fibers.timeout(30):
        assert await_(client.set("again", 1))
    await_(client.aclose())
    await_(control.aclose())


# -- PostgreSQL -------------------------------------------------------------------------------------------------------


def test_asyncpg_sessions_at_once(postgres_server: servers.PostgreSQL) -> None:
    host, port = postgres_server.address

    async def main() -> list[int]:
        async with asyncpg.create_pool(
            host=host, port=port, user="fibers", database="postgres", min_size=1, max_size=5, ssl=False
        ) as pool:

            async def one(number: int) -> int:
                async with pool.acquire() as session, session.transaction():
                    await session.execute("SELECT pg_sleep(0.005)")
                    return int(await session.fetchval("SELECT $1::int * 2", number))

            def from_a_fiber(number: int) -> int:
                return await_(one(number))

            with pytest.raises(TimeoutError):
                await pool.execute("SELECT pg_sleep(60)", timeout=0.02)
            return await asyncio.gather(*(fibers.spawn(from_a_fiber, number) for number in range(20)))

    assert fibers.asyncio.run(main()) == [2 * number for number in range(20)]


# -- HTTP -------------------------------------------------------------------------------------------------------------


async def hello(request: aiohttp.web.Request) -> aiohttp.web.Response:
    body = await request.read()
    await asyncio.sleep(0.001)
    return aiohttp.web.Response(text=f"aiohttp: {request.query.get('name', '')} {len(body)}")


def application(environ: Any, start_response: Any) -> list[bytes]:
    """WSGI, in a fiber."""
    body = environ["wsgi.input"].read()
    fibers.sleep(0.001)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"fibers: %s %d" % (environ["QUERY_STRING"].removeprefix("name=").encode(), len(body))]


def test_aiohttp_and_a_fiber_server_in_one_thread() -> None:
    """Both servers, and clients of three kinds for each, all in this thread at once."""

    async def main() -> None:
        web = aiohttp.web.Application()
        web.router.add_route("*", "/", hello)
        runner = aiohttp.web.AppRunner(web)
        await runner.setup()
        site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        listener: Any = site._server
        theirs = listener.sockets[0].getsockname()[1]
        with fibers.http.HttpServer(application, ("127.0.0.1", 0)) as ours:
            ports = {"aiohttp": theirs, "fibers": ours.address[1]}
            async with aiohttp.ClientSession() as session, httpx.AsyncClient() as client:
                for name, port in ports.items():
                    url = f"http://127.0.0.1:{port}/"

                    async def by_aiohttp(number: int, url: str = url) -> str:
                        async with session.post(url, params={"name": number}, data=b"x" * 5000) as response:
                            return await response.text()

                    async def by_httpx(number: int, url: str = url) -> str:
                        return (await client.post(url, params={"name": number}, content=b"x" * 5000)).text

                    def by_hand(number: int, port: int = port) -> str:
                        with socket.create_connection(("127.0.0.1", port)) as sock:
                            sock.sendall(
                                b"POST /?name=%d HTTP/1.0\r\nContent-Length: 5000\r\n\r\n" % number + b"x" * 5000
                            )
                            with sock.makefile("rb") as file:
                                return str(file.read().rpartition(b"\r\n\r\n")[2].decode())

                    async with asyncio.timeout(60):
                        answers = await asyncio.gather(
                            *(by_aiohttp(number) for number in range(10)),
                            *(by_httpx(number) for number in range(10)),
                            *(fibers.spawn(by_hand, number) for number in range(10)),
                            *(fibers.spawn(await_, by_aiohttp(number)) for number in range(10)),
                        )
                    assert answers == [f"{name}: {number} 5000" for number in range(10)] * 4
        await runner.cleanup()

    fibers.spawn(fibers.asyncio.run, main()).result()
