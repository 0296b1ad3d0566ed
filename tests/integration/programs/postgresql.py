"""What the programs for PostgreSQL ask it, and a pool for drivers that have none: a connection for each thread."""

import threading

SLEEP = "SELECT pg_sleep(%s)"
ASLEEP = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"


class ForEachThread:
    """One connection for each thread. One that has failed is closed, and the next call makes another."""

    def __init__(self, connect, errors):
        self._connect = connect
        self._errors = errors
        self._local = threading.local()

    def ask(self, query, *values):
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._connect()
        try:
            with connection.cursor() as cursor:
                cursor.execute(query, values)
                return cursor.fetchone()[0]
        except self._errors:
            del self._local.connection
            connection.close()
            raise
