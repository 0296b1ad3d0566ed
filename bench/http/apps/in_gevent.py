"""The application under gevent's own server: `python -m bench.http.apps.in_gevent PORT`."""

from __future__ import annotations

import sys

import gevent
from gevent.pywsgi import WSGIServer

from bench import material
from bench.http.apps import wsgi

app = wsgi(gevent.sleep)

if __name__ == "__main__":
    material.raise_fd_limit()
    WSGIServer(("127.0.0.1", int(sys.argv[1])), app, backlog=material.BACKLOG, log=None).serve_forever()
