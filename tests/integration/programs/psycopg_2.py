"""psycopg2: it waits in C, unless it is told to wait otherwise."""

import psycopg2
from measuring import ASKED, main
from postgresql import ASLEEP, SLEEP, ForEachThread


def connect():
    connection = psycopg2.connect(
        host=ASKED["host"], port=ASKED["port"], user="fibers", dbname="postgres", sslmode="disable"
    )
    connection.autocommit = True
    return connection


connections = ForEachThread(connect, psycopg2.Error)

main(
    slow=lambda seconds: connections.ask(SLEEP, seconds),
    quick=lambda: connections.ask("SELECT 1"),
    in_flight=lambda: connections.ask(ASLEEP),
    errors=psycopg2.Error,
)
