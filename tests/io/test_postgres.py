"""A real PostgreSQL as the peer: sessions at once, SCRAM, TLS, notifications, cancel requests, a server that is killed."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import servers, tls
from support.postgres import Postgres, PostgresError

import fibers
from fibers.io import IncompleteReadError

#: So many operations at once, each in a session of its own.
MANY = 200

#: What a client may see when its server dies: its last words, no more data, a reset, a refusal, no socket in the file
#: system.
GONE = (PostgresError, EOFError, OSError)


@pytest.fixture(params=["tcp", "unix"])
def session(request: pytest.FixtureRequest, postgres_server: servers.PostgreSQL) -> Iterator[Postgres]:
    """A session over each kind of connection."""
    with Postgres(postgres_server.address if request.param == "tcp" else postgres_server.path) as session:
        yield session


def until(done: Callable[[], bool]) -> None:
    """Ask again and again: the server tells nobody when that comes about."""
    with fibers.timeout(60):
        while not done():
            fibers.sleep(0.002)


def addresses(server: servers.Server) -> list[Any]:
    """For MANY connections, TCP and unix in turn."""
    return [server.path if number % 2 else server.address for number in range(MANY)]


@pytest.fixture
def guarded(postgres_server: servers.PostgreSQL) -> None:
    """The role that has to say a password."""
    quoted = postgres_server.PASSWORD.replace("'", "''")
    with Postgres(postgres_server.path) as session:
        if not session.query("SELECT 1 FROM pg_roles WHERE rolname = 'guarded'"):
            session.query(f"CREATE ROLE guarded LOGIN PASSWORD '{quoted}'")


def test_rows_nulls_errors_and_several_results(session: Postgres) -> None:
    assert int(session.parameters["server_version"].split(".")[0]) >= 10
    assert session.query("SELECT 1, NULL, 'grün', ''") == [("1", None, "grün", "")]
    with pytest.raises(PostgresError, match="division by zero") as caught:
        session.query("SELECT 1 / 0")
    assert caught.value.code == "22012"
    assert session.query("SELECT 1; SELECT 2") == [("1",), ("2",)]
    assert session.query("") == []


def test_two_hundred_operations_at_once(postgres_server: servers.PostgreSQL) -> None:
    """All of them are inside the server together: each waits there for a lock, which the server counts."""

    def work(number: int, address: Any) -> list[Any]:
        with Postgres(address) as mine:
            return mine.query(f"SELECT {number} FROM pg_advisory_lock_shared(1)")

    with Postgres(postgres_server.address) as session, fibers.timeout(100):
        session.query("SELECT pg_advisory_lock(1)")
        with fibers.TaskGroup() as group:
            workers = [group.spawn(work, number, address) for number, address in enumerate(addresses(postgres_server))]
            until(lambda: session.query("SELECT count(*) FROM pg_locks WHERE NOT granted") == [(str(MANY),)])
            session.query("SELECT pg_advisory_unlock(1)")
    assert [worker.result() for worker in workers] == [[(str(number),)] for number in range(MANY)]


def test_a_slow_reader_stops_the_server_and_loses_nothing(
    session: Postgres, postgres_server: servers.PostgreSQL
) -> None:
    """It reads nothing before the server says that it waits for him; and that one serves the others meanwhile."""
    ((process,),) = session.query("SELECT pg_backend_pid()")
    with Postgres(postgres_server.path) as other:
        asked = f"SELECT wait_event FROM pg_stat_activity WHERE pid = {process}"
        session.send(b"Q", b"SELECT n, repeat('x', n % 2000) FROM generate_series(1, 20000) AS n\0")
        until(lambda: other.query(asked) == [("ClientWrite",)])
    rows = session.results()
    assert [(int(n or 0), len(text or "")) for n, text in rows] == [(n, n % 2000) for n in range(1, 20_001)]
    assert len(session.query("COPY (SELECT * FROM generate_series(1, 1000)) TO STDOUT")) == 1000


def test_notifications_come_in_order_and_survive_timeouts(
    session: Postgres, postgres_server: servers.PostgreSQL
) -> None:
    session.query("LISTEN news")
    with pytest.raises(TimeoutError):
        session.wait_for_notification(timeout=0.01)

    def notify() -> None:
        with Postgres(postgres_server.path) as other:
            for number in range(50):
                other.query(f"NOTIFY news, '{number}'")

    notifier = fibers.spawn(notify)
    received: list[tuple[str, str]] = []
    with fibers.timeout(30):
        while len(received) < 50:
            try:
                received.append(session.wait_for_notification(timeout=0.0005))
            except TimeoutError:
                continue
    notifier.result()
    assert received == [("news", str(number)) for number in range(50)]
    # They come between the rows of a query as well.
    with Postgres(postgres_server.path) as other:
        other.query("NOTIFY news, 'last'")
    assert session.query("SELECT 1") == [("1",)]
    assert session.wait_for_notification(timeout=30) == ("news", "last")


def test_a_query_is_cancelled_by_a_request_over_another_connection(session: Postgres) -> None:
    running = fibers.spawn(session.query, "SELECT pg_sleep(600)")
    with fibers.timeout(60):
        while not running.done():
            session.cancel()  # a request that comes before the query has begun does nothing
            fibers.sleep(0.005)
    error = running.exception()
    assert isinstance(error, PostgresError)
    assert error.code == "57014"
    until(lambda: _answers(session))  # a request may still be on its way


def _answers(session: Postgres) -> bool:
    try:
        return session.query("SELECT 1") == [("1",)]
    except PostgresError as error:
        if error.code != "57014":
            raise
        return False


def test_a_deadline_cancels_the_query_in_the_server_too(session: Postgres) -> None:
    """What a driver does: the wait is given up, the query is cancelled, and its answer read to the end."""
    with fibers.move_on_after(0.05) as scope:
        session.query("SELECT pg_sleep(600)")
    assert scope.cancelled_caught
    with fibers.timeout(60):
        reader = fibers.spawn(session.results)
        while not reader.done():
            session.cancel()
            fibers.sleep(0.005)
    assert isinstance(reader.exception(), PostgresError)
    until(lambda: _answers(session))


@pytest.mark.usefixtures("guarded")
def test_scram(postgres_server: servers.PostgreSQL) -> None:
    with Postgres(postgres_server.address, "guarded", postgres_server.PASSWORD) as session:
        assert session.query("SELECT current_user") == [("guarded",)]
    with pytest.raises(PostgresError, match="password") as caught:
        Postgres(postgres_server.address, "guarded", "wrong")
    assert caught.value.code == "28P01"


@tls.needs_openssl
@pytest.mark.usefixtures("guarded")
def test_tls_begins_in_the_middle_of_the_connection(postgres_server: servers.PostgreSQL) -> None:
    encrypted = "SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"

    def work(number: int) -> list[Any]:
        with Postgres(postgres_server.address, "guarded", postgres_server.PASSWORD, tls.client_context()) as session:
            assert session.query(encrypted)[0][0] == "t"
            return session.query(f"SELECT repeat('{number}', 100000)")

    with fibers.timeout(60):
        for number, worker in enumerate([fibers.spawn(work, number) for number in range(10)]):
            assert worker.result() == [(str(number) * 100_000,)]


def test_a_session_that_the_server_ends(session: Postgres, postgres_server: servers.PostgreSQL) -> None:
    """It says why, and goes."""
    ((process,),) = session.query("SELECT pg_backend_pid()")
    with Postgres(postgres_server.path) as other:
        waiting = fibers.spawn(session.query, "SELECT pg_sleep(600)")
        asked = f"SELECT 1 FROM pg_stat_activity WHERE pid = {process} AND state = 'active'"
        until(lambda: bool(other.query(asked)))
        assert other.query(f"SELECT pg_terminate_backend({process})") == [("t",)]
    error = waiting.exception()
    assert isinstance(error, PostgresError)
    assert error.code == "57P01"
    with pytest.raises((IncompleteReadError, ConnectionError)):
        session.query("SELECT 1")


def test_a_server_that_is_killed_is_an_error_that_a_retry_survives(postgres_server: servers.PostgreSQL) -> None:
    """Nothing hangs, no wrong answer comes, and what was acknowledged before is there afterwards."""
    workers, rounds = MANY, 4
    acknowledged = [0] * workers
    failures = [0] * workers
    started = fibers.Event()

    def work(number: int) -> None:
        address = postgres_server.path if number % 2 else postgres_server.address
        while acknowledged[number] < rounds:
            try:
                with Postgres(address) as session:
                    while acknowledged[number] < rounds:
                        step = acknowledged[number]
                        if step == rounds // 2 and not failures[number]:
                            session.query("SELECT pg_sleep(600)")
                        session.query(f"INSERT INTO kept VALUES ({number}, {step}) ON CONFLICT DO NOTHING")
                        acknowledged[number] += 1
            except GONE:
                failures[number] += 1
                started.wait()

    with Postgres(postgres_server.path) as session:
        session.query("CREATE TABLE kept (worker int, step int, PRIMARY KEY (worker, step))")
    with fibers.timeout(100), fibers.TaskGroup() as group:
        for number in range(workers):
            group.spawn(work, number)
        until(lambda: min(acknowledged) == rounds // 2)
        try:
            postgres_server.kill()
            until(lambda: min(failures) == 1)  # each has been told, with the server gone
        finally:
            postgres_server.start()
        started.set()
    with Postgres(postgres_server.path) as session:
        kept = session.query("SELECT worker, count(*) FROM kept GROUP BY worker ORDER BY worker")
        assert kept == [(str(number), str(rounds)) for number in range(workers)]
        session.query("DROP TABLE kept")
