"""SQLAlchemy with its pool, over psycopg2 or psycopg: a connection that has died is replaced."""

import sqlalchemy
from measuring import ASKED, COUNT, main
from sqlalchemy import func, select

engine = sqlalchemy.create_engine(
    f"postgresql+{ASKED['driver']}://fibers@{ASKED['host']}:{ASKED['port']}/postgres?sslmode=disable",
    pool_size=COUNT // 4,
    max_overflow=COUNT,
    pool_pre_ping=True,
)


def ask(query):
    with engine.connect() as connection:
        return connection.execute(query).scalar()


main(
    slow=lambda seconds: ask(select(func.pg_sleep(seconds))),
    quick=lambda: ask(select(1)),
    in_flight=lambda: ask(sqlalchemy.text("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")),
    errors=sqlalchemy.exc.DBAPIError,
)
