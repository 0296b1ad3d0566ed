"""The application where handlers run in threads (or where time.sleep has been replaced, as under gunicorn's gevent)."""

import time

from bench.http.apps import wsgi


def sleep(seconds: float) -> None:
    """Looked up at each call: gunicorn patches `time` before or after this module is imported."""
    time.sleep(seconds)


app = wsgi(sleep)
