"""redis-py: `BLPOP` of a list into which nobody puts anything."""

import redis
from measuring import ASKED, COUNT, main
from redis.backoff import NoBackoff
from redis.retry import Retry

pool = redis.ConnectionPool(
    host=ASKED["host"], port=ASKED["port"], max_connections=COUNT + 1, retry=Retry(NoBackoff(), 0), protocol=2
)
client = redis.Redis(connection_pool=pool)

main(
    slow=lambda seconds: client.blpop("nothing", timeout=seconds),
    quick=lambda: client.ping(),
    in_flight=lambda: client.info("clients")["blocked_clients"],
    errors=(redis.ConnectionError, redis.TimeoutError),
)
