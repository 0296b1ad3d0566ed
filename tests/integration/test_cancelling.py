"""A query that a deadline interrupts: its connection is not used in the midst of it. At full size only."""

import pytest
from support.process import run_python
from support.scale import SCALE
from support.servers import PostgreSQL

PROGRAM = """
import sys
import fibers, fibers.patch
fibers.patch.patch_all()
import psycopg, psycopg2
from psycopg_pool import ConnectionPool
where = f"host=127.0.0.1 port={sys.argv[1]} user=fibers dbname=postgres"

def interrupted(query):
    try:
        with fibers.timeout(0.2):
            query("SELECT pg_sleep(60)")
    except TimeoutError:
        return
    raise AssertionError("it was not")

first = psycopg2.connect(where)
interrupted(first.cursor().execute)
assert first.closed, first.closed

second = psycopg.connect(where)
interrupted(second.execute)
assert second.closed

with ConnectionPool(where, min_size=1, max_size=1) as pool:
    def ask(query):
        with pool.connection() as connection:
            return connection.execute(query).fetchone()[0]
    interrupted(ask)
    assert ask("SELECT 7") == 7
"""


@pytest.mark.skipif(SCALE < 1, reason="starts a PostgreSQL of its own: make test-integration")
def test_a_query_that_a_deadline_interrupts_ends_its_connection() -> None:
    with PostgreSQL() as server:
        child = run_python("-c", PROGRAM, str(server.port))
    assert child.returncode == 0, child.stderr
