"""PyMySQL with MariaDB."""

import pymysql
from measuring import ASKED, main
from postgresql import ForEachThread

connections = ForEachThread(
    lambda: pymysql.connect(host=ASKED["host"], port=ASKED["port"], user="fibers", autocommit=True, ssl_disabled=True),
    pymysql.Error,
)

main(
    slow=lambda seconds: connections.ask("SELECT SLEEP(%s)", seconds),
    quick=lambda: connections.ask("SELECT 1"),
    in_flight=lambda: connections.ask("SELECT COUNT(*) FROM information_schema.processlist WHERE state = 'User sleep'"),
    errors=pymysql.Error,
)
