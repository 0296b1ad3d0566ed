"""psycopg 3 with its own pool."""

import psycopg
import psycopg_pool
from measuring import ASKED, COUNT, main
from postgresql import ASLEEP, SLEEP

where = f"host={ASKED['host']} port={ASKED['port']} user=fibers dbname=postgres"


def ask(query, *values):
    with pool.connection() as connection:
        return connection.execute(query, values).fetchone()[0]


with psycopg_pool.ConnectionPool(where, min_size=1, max_size=COUNT + 1, num_workers=8, reconnect_timeout=60) as pool:
    main(
        slow=lambda seconds: ask(SLEEP, seconds),
        quick=lambda: ask("SELECT 1"),
        in_flight=lambda: ask(ASLEEP),
        errors=(psycopg.Error, psycopg_pool.PoolTimeout),
    )
