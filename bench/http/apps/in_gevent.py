"""The application under gevent's own server: `python -m bench.http.apps.in_gevent PORT`.

The server sends head and body apart, and leaves Nagle's algorithm on: each answer would wait 40 ms for the client's
acknowledgement. The listener hands TCP_NODELAY down to what it accepts.
"""

from __future__ import annotations

import sys

import gevent
from gevent import socket
from gevent.pywsgi import WSGIServer

from bench import material
from bench.http.apps import wsgi

app = wsgi(gevent.sleep)

if __name__ == "__main__":
    material.raise_fd_limit()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    material.no_delay(listener)
    listener.bind(("127.0.0.1", int(sys.argv[1])))
    listener.listen(material.BACKLOG)
    WSGIServer(listener, app, log=None).serve_forever()
