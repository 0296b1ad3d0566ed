"""A real Redis as the peer: many connections at once, pipelines, waits that are given up, a server that is killed."""

from collections.abc import Callable
from typing import Any

import pytest
from support import servers
from support.redis import Redis, RedisError

import fibers
from fibers.io import Stream

#: So many operations at once.
MANY = 200

#: What a client may see when its server dies: no more data, a reset, a refusal, no socket in the file system.
GONE = (EOFError, OSError)


@pytest.fixture(params=["tcp", "unix"])
def redis(request: pytest.FixtureRequest, redis_server: servers.Redis) -> Any:
    """An empty database, over each kind of connection."""
    with Redis(redis_server.address if request.param == "tcp" else redis_server.path) as client:
        assert client.command("FLUSHALL") == "OK"
        yield client


def until(done: Callable[[], bool]) -> None:
    """Ask again and again: the server tells nobody when that comes about."""
    with fibers.timeout(30):
        while not done():
            fibers.sleep(0.002)


def addresses(server: servers.Server) -> list[Any]:
    """For MANY connections, TCP and unix in turn."""
    return [server.path if number % 2 else server.address for number in range(MANY)]


def test_every_kind_of_reply(redis: Redis) -> None:
    assert redis.command("PING") == "PONG"
    assert redis.command("SET", "key", b"\x00\r\n\xff") == "OK"
    assert redis.command("GET", "key") == b"\x00\r\n\xff"
    assert redis.command("GET", "none") is None
    assert redis.command("RPUSH", "list", "a", "b") == 2
    assert redis.command("LRANGE", "list", 0, -1) == [b"a", b"b"]
    assert redis.command("LRANGE", "none", 0, -1) == []
    with pytest.raises(RedisError, match="WRONGTYPE"):
        redis.command("INCR", "list")
    assert redis.command("PING") == "PONG"


def test_two_hundred_operations_at_once(redis: Redis, redis_server: servers.Redis) -> None:
    """All of them are inside the server together: it counts them."""

    def work(number: int, address: Any) -> Any:
        with Redis(address) as client:
            assert client.command("INCR", "count") <= MANY
            return client.command("BLPOP", f"queue-{number}", 0)

    def blocked() -> bool:
        return f"blocked_clients:{MANY}\r\n".encode() in redis.command("INFO", "clients")

    with fibers.timeout(60), fibers.TaskGroup() as group:
        workers = [group.spawn(work, number, address) for number, address in enumerate(addresses(redis_server))]
        until(blocked)
        assert redis.command("GET", "count") == str(MANY).encode()
        for number in reversed(range(MANY)):
            redis.command("RPUSH", f"queue-{number}", number * number)
    assert [worker.result() for worker in workers] == [
        [f"queue-{number}".encode(), str(number * number).encode()] for number in range(MANY)
    ]


def test_a_pipeline_is_written_by_one_fiber_and_read_by_another(redis: Redis) -> None:
    """The replies are more than all buffers hold: whoever writes everything before he reads waits for ever."""
    value = bytes(range(256)) * 64
    assert redis.command("SET", "value", value) == "OK"
    writer = fibers.spawn(redis.send, *[("GET", "value")] * 3000)
    with fibers.timeout(60):
        for _ in range(3000):
            assert redis.receive() == value
    writer.result()


def test_a_large_value_goes_there_and_back(redis: Redis) -> None:
    value = bytes(range(256)) * 20_000
    assert redis.command("SET", "value", value) == "OK"
    assert redis.command("STRLEN", "value") == len(value)
    assert redis.command("GET", "value") == value


@pytest.mark.parametrize("how", ["timeout", "scope", "cancel", "kill"])
def test_a_reply_that_is_given_up_can_be_read_later(redis: Redis, redis_server: servers.Redis, how: str) -> None:
    redis.send(("BLPOP", "queue", 0))
    if how == "timeout":
        with pytest.raises(TimeoutError):
            redis.stream.read_some(timeout=0.02)
    elif how == "scope":
        with fibers.move_on_after(0.02) as scope:
            redis.receive()
        assert scope.cancelled_caught
    else:
        reader = fibers.spawn(redis.receive)
        fibers.yield_now()
        reader.cancel() if how == "cancel" else reader.kill()
        reader.join()
        assert reader.cancelled()
    with Redis(redis_server.address) as other:
        assert other.command("RPUSH", "queue", "late") == 1
    assert redis.receive() == [b"queue", b"late"]


def test_messages_to_a_subscriber_survive_its_timeouts(redis: Redis, redis_server: servers.Redis) -> None:
    """Message by message, whose bytes come when they want."""
    assert redis.command("SUBSCRIBE", "news") == [b"subscribe", b"news", 1]

    def publish() -> None:
        with Redis(redis_server.path) as other:
            for number in range(50):
                assert other.command("PUBLISH", "news", number) == 1
                fibers.sleep(0.001)

    publisher = fibers.spawn(publish)
    received: list[bytes] = []
    with fibers.timeout(30):
        while len(received) < 50:
            try:
                redis.stream.peek(1, timeout=0.0005)
            except TimeoutError:
                continue
            received.append(redis.receive()[2])
    publisher.result()
    assert received == [str(number).encode() for number in range(50)]


def test_a_connection_that_the_server_ends(redis: Redis, redis_server: servers.Redis) -> None:
    identity = redis.command("CLIENT", "ID")
    waiting = fibers.spawn(redis.command, "BLPOP", "queue", 0)
    with Redis(redis_server.address) as other:
        until(lambda: b"blocked_clients:1\r\n" in other.command("INFO", "clients"))
        assert other.command("CLIENT", "KILL", "ID", identity) == 1
    assert isinstance(waiting.exception(), GONE)


def test_quit_is_answered_before_the_end(redis: Redis) -> None:
    assert redis.command("QUIT") == "OK"
    assert redis.stream.read_all() == b""


def test_a_server_that_is_killed_is_an_error_that_a_retry_survives(redis_server: servers.Redis) -> None:
    """Nothing hangs, no wrong answer comes, and what was acknowledged before is there afterwards."""
    rounds = 20
    acknowledged = [0] * MANY
    failures = [0] * MANY
    killed = fibers.Event()

    def work(number: int, address: Any) -> None:
        while acknowledged[number] < rounds:
            try:
                with Redis(address, timeout=30) as client:
                    if acknowledged[number]:
                        got = client.command("GET", f"kept-{number}")
                        # A write may have been done whose answer was lost.
                        assert int(got) - acknowledged[number] in (0, 1), (number, got)
                    while acknowledged[number] < rounds:
                        if acknowledged[number] == rounds // 2 and not failures[number]:
                            client.command("BLPOP", "never", 0)
                        assert client.command("SET", f"kept-{number}", acknowledged[number] + 1) == "OK"
                        acknowledged[number] += 1
            except GONE:
                failures[number] += 1
                killed.wait()
                fibers.sleep(0.01)

    with fibers.timeout(60), fibers.TaskGroup() as group:
        for number, address in enumerate(addresses(redis_server)):
            group.spawn(work, number, address)
        until(lambda: min(acknowledged) == rounds // 2)
        try:
            redis_server.kill()
            until(lambda: min(failures) == 1)  # each has been told, with the server gone
        finally:
            redis_server.start()
        killed.set()
    assert acknowledged == [rounds] * MANY
    with Redis(redis_server.path) as client:
        kept = [client.command("GET", f"kept-{number}") for number in range(MANY)]
        assert kept == [str(rounds).encode()] * MANY
        client.command("FLUSHALL")


def test_a_server_that_is_not_there_is_refused(redis_server: servers.Redis) -> None:
    redis_server.kill()
    try:
        with pytest.raises(ConnectionRefusedError):
            Redis(redis_server.address)
        with pytest.raises(ConnectionRefusedError):
            Redis(redis_server.path)
    finally:
        redis_server.start()
    with Redis(redis_server.path) as client:
        assert isinstance(client.stream, Stream)
        assert client.command("PING") == "PONG"
